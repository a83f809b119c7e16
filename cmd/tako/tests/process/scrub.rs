//! `tako ctl scrub` against real processes: what it reads, what it says, how it ends.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::{Cluster, json, must_put, tako, wait_for};

fn scrub(cluster: &Cluster, more: &[&str]) -> (Option<i32>, Value) {
    let coordinator = format!("127.0.0.1:{}", cluster.coordinator);
    let mut args = vec!["ctl", "scrub", "--coordinator", &coordinator, "--output", "json"];
    args.extend(more);
    let output = tako(&args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let document = serde_json::from_slice(&output.stdout);
    (output.status.code(), document.unwrap_or_else(|error| panic!("{error}: {said}")))
}

/// Every table in the store's folder.
fn tables(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(tables(&entry.path()));
        } else if entry.path().to_string_lossy().contains("/compacted/") {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn a_scrub_reads_everything_and_ends_with_7_when_something_rotted() {
    let cluster = Cluster::started(3);
    for n in 0..40 {
        must_put(cluster.proxy, &format!("k{n}"), &"value ".repeat(100));
    }
    let http = cluster.nodes[0].0;
    wait_for("everything to be covered", || {
        let nodes = json(http, "/cluster")?["nodes"].as_array()?.clone();
        nodes.iter().all(|node| node["uncovered_partitions"] == 0).then_some(())
    });
    let (code, sound) = scrub(&cluster, &["--orphans"]);
    assert_eq!(code, Some(0), "{sound:#}");
    assert_eq!(sound["unread"], Value::Array(vec![]));
    assert_eq!(sound["records"], 40, "{sound:#}");
    assert_eq!(sound["nodes"].as_array().expect("nodes").len(), 3);
    assert_eq!(sound["nodes"][0]["orphans"]["found"], 0, "{sound:#}");

    for table in tables(&cluster.var().join("store")) {
        let mut bytes = fs::read(&table).expect("a table");
        let at = bytes.windows(5).position(|five| five == b"value").expect("a value");
        bytes[at] ^= 1;
        fs::write(&table, bytes).expect("written");
    }
    let (code, found) = scrub(&cluster, &[]);
    assert_eq!(code, Some(7), "{found:#}");
    assert!(found["unreadable"].as_u64() > Some(0), "{found:#}");
    let shown = (1..=3)
        .filter_map(|n| json(cluster.nodes[n - 1].0, "/cluster"))
        .flat_map(|cluster| cluster["nodes"].as_array().cloned().unwrap_or_default())
        .filter_map(|node| node["healing"]["unreadable"].as_u64())
        .sum::<u64>();
    assert_eq!(Some(shown), found["unreadable"].as_u64(), "/cluster shows it too");

    let (code, one) = scrub(&cluster, &["--partition", "3"]);
    assert!(code == Some(0) || code == Some(7), "{one:#}");
    assert_eq!(one["partitions"], 1);
}

#[test]
fn a_scrub_without_a_coordinator_or_of_no_partition_says_so() {
    let output = tako(&["ctl", "scrub", "--coordinator", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let cluster = Cluster::started(1);
    let coordinator = format!("127.0.0.1:{}", cluster.coordinator);
    let output = tako(&["ctl", "scrub", "--coordinator", &coordinator, "--partition", "4"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
