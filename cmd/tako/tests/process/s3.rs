//! A cluster over a real S3 server: what a step covers outlives every process and every disk.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{
    s3_server::S3Server,
    support::{Cluster, json, lives, must_get, must_put, signal, wait_for},
};

/// Who was not heard for four seconds is not live, so what a live one told is younger.
const GOSSIP: Duration = Duration::from_secs(5);

#[test]
fn with_all_processes_killed_and_all_data_folders_deleted_everything_is_read_from_s3() {
    let Some(server) = S3Server::shared() else { return };
    let mut cluster = Cluster::over_s3(3, server, "process");
    cluster.start();
    for n in 0..40 {
        must_put(cluster.proxy, &format!("key/{n}"), &format!("value {n}"));
    }
    must_put(cluster.proxy, "key/0", "a later value");
    must_be_covered(&cluster);

    let mut pids = vec![cluster.launcher()];
    pids.extend(cluster.pids());
    for pid in &pids {
        signal(*pid, Signal::KILL);
    }
    cluster.ended();
    wait_for("the end of all", || pids.iter().all(|pid| !lives(*pid)).then_some(()));
    assert!(!cluster.var().join("store").exists(), "a folder was used as the store");
    std::fs::remove_dir_all(cluster.var().join("data")).expect("deleted");

    cluster.start();
    assert_eq!(must_get(cluster.proxy, "key/0").as_deref(), Some("a later value"));
    for n in 1..40 {
        let found = must_get(cluster.proxy, &format!("key/{n}"));
        assert_eq!(found, Some(format!("value {n}")), "key/{n} was covered by a step");
    }
    must_put(cluster.proxy, "key/1", "after the disaster");
    assert_eq!(must_get(cluster.nodes[1].0, "key/1").as_deref(), Some("after the disaster"));
}

/// Waits until every node has told, after the last write, that steps cover all it holds.
fn must_be_covered(cluster: &Cluster) {
    let written = Instant::now();
    wait_for("steps that cover everything", || {
        let status = json(cluster.proxy, "/cluster")?;
        let nodes = status["nodes"].as_array().expect("a list");
        let covered =
            nodes.iter().all(|node| node["live"] == true && node["uncovered_partitions"] == 0);
        (covered && GOSSIP < written.elapsed()).then_some(())
    });
}
