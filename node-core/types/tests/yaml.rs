//! The configuration's reader and writer against an independent YAML library.

use std::path::Path;

use tako_types::config::Config;

#[test]
fn the_examples_mean_the_same_after_a_round_through_another_yaml_library() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the examples").flatten() {
        if entry.path().extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).expect("readable");
        let config = Config::parse(&text).expect("a valid example");
        for document in [text, config.effective_yaml()] {
            let value: serde_yaml::Value = serde_yaml::from_str(&document).expect("valid YAML");
            let written = serde_yaml::to_string(&value).expect("YAML again");
            let read = Config::parse(&written).expect("still a configuration");
            assert_eq!(
                read.to_canonical_json(),
                config.to_canonical_json(),
                "{}",
                entry.path().display()
            );
        }
        count += 1;
    }
    assert!(count >= 5, "the examples are there");
}
