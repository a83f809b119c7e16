//! docs/architecture.md names files; they must exist, or the page has rotted.

use std::path::Path;

#[test]
fn every_path_in_the_architecture_page_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/architecture.md")).expect("the page");
    let named = page.split('`').skip(1).step_by(2).filter(|text| {
        text.contains('/')
            && !text.contains(['<', ' ', '→'])
            && ["node-core", "cmd", "flatbuf", "snapshot", "loadtest"]
                .iter()
                .any(|top| text.starts_with(top))
    });
    let mut count = 0;
    for path in named {
        assert!(root.join(path).exists(), "docs/architecture.md names {path}, which is not there");
        count += 1;
    }
    assert!(count > 20, "the page names its files");
}
