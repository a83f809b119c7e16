//! `tako check`: good files are shown whole, bad ones refused with line and reason.

use crate::support::tako;

fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temp folder");
    let path = folder.path().join("c.yaml");
    std::fs::write(&path, text).expect("written");
    (folder, path.display().to_string())
}

const GOOD: &str = "active_deployment: a\n\
                    deployments: {a: {hash: {buckets_per_key: 1}, buckets: {b: {n1: [h, 1]}}}}\n";

#[test]
fn every_sample_configuration_is_valid_and_its_effective_form_is_too() {
    let samples = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"));
    let mut seen = 0;
    for entry in samples.expect("samples") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        seen += 1;
        let shown = tako(&["check", &path.display().to_string()]);
        assert_eq!(shown.status.code(), Some(0), "{}: {shown:?}", path.display());
        let text = String::from_utf8(shown.stdout).expect("text");
        let (_folder, again) = file(&text);
        let again = tako(&["check", &again]);
        assert_eq!(String::from_utf8_lossy(&again.stdout), text);
    }
    assert!(0 < seen);
}

#[test]
fn shells_and_man_are_told_of_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = tako(&["completions", shell]);
        assert_eq!(script.status.code(), Some(0));
        let script = String::from_utf8(script.stdout).expect("text");
        for word in ["cluster", "safe-to-stop", "memcached"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    let man = folder.path().join("man1");
    let written = tako(&["man", man.to_str().expect("a name")]);
    assert_eq!(written.status.code(), Some(0), "{written:?}");
    for page in ["tako.1", "tako-cluster.1", "tako-ctl-locate.1", "tako-migrate-start.1"] {
        let text = std::fs::read_to_string(man.join(page)).expect(page);
        assert!(text.contains(".SH NAME"), "{page}");
    }
    let refused = tako(&["man", "/proc/no/such/folder"]);
    assert_eq!(refused.status.code(), Some(6), "{refused:?}");
}

#[test]
fn the_effective_configuration_goes_to_stdout_and_warnings_to_stderr() {
    let (_folder, path) = file(GOOD);
    let shown = tako(&["check", "--output", "json", &path]);
    assert_eq!(shown.status.code(), Some(0));
    let document: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(document["partitions"], 32);
    let warnings = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(warnings.contains("warning: deployments.a: some keys lie on a single"), "{warnings}");
}

#[test]
fn a_bad_configuration_is_refused_with_line_and_reason() {
    let cases = [
        (GOOD.replace("buckets_per_key: 1", "buckets_per_key: 2"), "line 2", "there are 1"),
        (GOOD.replace("active_deployment: a", "active_deployment: b"), "line 1", "`b`"),
        (format!("{GOOD}snapshoot: 1\n"), "line 3", "snapshot"),
    ];
    for (text, line, reason) in cases {
        let (_folder, path) = file(&text);
        let refused = tako(&["check", &path]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(line) && said.contains(reason) && said.contains(&path), "{said}");
        assert!(refused.stdout.is_empty());
    }
    let missing = tako(&["check", "/nowhere/at/all.yaml"]);
    assert_eq!(missing.status.code(), Some(6));
}
