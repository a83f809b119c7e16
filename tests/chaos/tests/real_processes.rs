//! Short runs of the program itself, with the `tako` that stands beside it.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

/// `tako` of the same build; built where it is not there yet.
fn tako() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_tako-chaos")).with_file_name("tako");
    if !beside.is_file() {
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "--package", "tako"])
            .args(cfg!(not(debug_assertions)).then_some("--release"));
        assert!(build.status().expect("cargo runs").success(), "tako cannot be built");
    }
    beside
}

/// Runs it; what it printed.
fn chaos(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tako-chaos"));
    let output = command.arg("--tako").arg(tako()).args(arguments).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let story = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}\n{story}", output.status);
    for line in said.lines().filter(|line| line.contains("SKIPPED")) {
        // Past the capture of the test harness, which hides what passes.
        let _ = writeln!(io::stderr(), "\n{line}\n");
    }
    said
}

/// The number after a word of a line.
fn number(said: &str, line: &str, word: &str) -> u64 {
    let line = said.lines().find(|it| it.starts_with(line)).expect(line);
    let part = line.split([':', ',']).map(str::trim).find_map(|part| part.strip_prefix(word));
    part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn killed_stopped_and_cut_off_processes_lose_nothing_and_revive_nothing() {
    let said = chaos(&["--seed", "1", "--minutes", "0.3", "--faults", "kill,stop,cut", "-v"]);
    assert!(number(&said, "answers", "Acked") > 100, "hardly a write was acknowledged:\n{said}");
    assert!(number(&said, "answers", "Found") > 100, "hardly a read was answered:\n{said}");
    assert!(number(&said, "answers", "Applied") > 20, "hardly a change was made:\n{said}");
    assert!(number(&said, "checked", "linearizable") > 0, "no change was judged:\n{said}");
    assert!(number(&said, "faults", "kill -9") > 0, "nothing was killed:\n{said}");
    assert!(number(&said, "checked", "nothing_is_lost") > 0, "nothing was compared:\n{said}");
}

#[test]
fn without_namespaces_a_store_that_goes_away_and_killed_processes_lose_nothing() {
    let faults = "kill,store,cut";
    let said = chaos(&["--seed", "5", "--minutes", "0.15", "--faults", faults, "--no-namespaces"]);
    assert!(number(&said, "answers", "Acked") > 100, "hardly a write was acknowledged:\n{said}");
    assert!(number(&said, "checked", "rebuilt_from_store") > 0, "nothing was compared:\n{said}");
}
