//! Runs from seeds, each in a process of its own: they repeat exactly, and nothing is wrong.
//!
//! Many more are run by `.ci/run`; here a few of every kind.

use std::process::{Command, Output};

fn simulator(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tako-sim")).args(arguments).output().expect("it runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_few_seeds_of_every_scenario_show_nothing_wrong() {
    let output = simulator(&["--seeds", "20", "--from", "1000"]);
    let text = text(&output);
    assert!(output.status.success() && text.contains("nothing wrong"), "{text}");
    assert!(text.contains("20 seeds from 1000"), "{text}");
    for kind in [
        "backup made",
        "backup cut short",
        "record rotted in the store",
        "record healed",
        "backups_verify",
        "backups_by_a_rule",
        "backups_restored",
        "restored_as_acknowledged",
        "partitions_collected",
        "records_read_by_healing",
    ] {
        assert!(text.contains(&format!(" {kind}")), "no {kind}: {text}");
    }
    let asked = text.lines().find_map(|line| line.strip_prefix("asked: ")).expect("a line");
    let kinds: Vec<&str> =
        asked.split(", ").filter_map(|part| part.split_once(' ')).map(|(_, kind)| kind).collect();
    for kind in [
        "get by http",
        "head by http",
        "put with ttl by http",
        "put with timestamp by http",
        "put with ttl and timestamp by http",
        "delete by http",
        "delete with timestamp by http",
        "put with ttl directly",
        "http 200",
        "http 204",
        "http 304",
        "http 400",
        "http 404",
        "http 413",
        "http 503",
        "http not connected",
        "http without an answer",
        "on a kept connection",
    ] {
        assert!(kinds.contains(&kind), "no {kind} among {asked}");
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    let trace = |seed: &str| {
        let output = simulator(&["--seed", seed, "--scenario", "everything"]);
        let text = text(&output);
        text.lines().next().map(str::to_owned).expect("a first line")
    };
    let first = trace("7");
    assert!(first.contains("trace"), "{first}");
    assert_eq!(first, trace("7"));
    assert_ne!(first.rsplit(' ').next(), trace("8").rsplit(' ').next());
}

#[test]
fn a_run_that_tells_what_happens_is_the_same_run() {
    let trace = |more: &[&str]| {
        let order = ["--child", "--seed", "9", "--scenario", "store"];
        let output = simulator(&[&order[..], more].concat());
        let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(more.is_empty(), !output.stderr.is_empty(), "one of them tells");
        outcome["trace"].as_u64().expect("a number")
    };
    assert_eq!(trace(&["--json"]), trace(&[]));
}

#[test]
fn an_unknown_scenario_is_refused_with_those_there_are() {
    let output = simulator(&["--scenario", "calmm"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("calmm") && error.contains("disks (disks are lost"), "{error}");
}
