//! The configuration changes while processes run, and they run without a coordinator.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Cluster, json, must_be_ready, must_get, must_put, signal, wait_for};

fn epochs(cluster: &Cluster) -> Vec<Option<u64>> {
    let mut ports = vec![cluster.proxy];
    ports.extend(cluster.nodes.iter().map(|(http, _)| *http));
    ports.iter().map(|port| json(*port, "/cluster")?["epoch"].as_u64()).collect()
}

/// Tells every process that there may be something new.
fn hint(cluster: &Cluster) {
    for pid in cluster.pids() {
        signal(pid, Signal::HUP);
    }
}

#[test]
fn an_allowed_change_is_taken_up_while_running_and_a_forbidden_one_is_refused_and_reported() {
    let mut cluster = Cluster::started(3);
    assert_eq!(epochs(&cluster), vec![Some(1); 4]);
    must_put(cluster.proxy, "key", "value");

    cluster.configure("2s", 3);
    wait_for("epoch 2 everywhere", || {
        hint(&cluster);
        (epochs(&cluster) == vec![Some(2); 4]).then_some(())
    });

    // Dropping a node is a migration.
    cluster.configure("2s", 2);
    let error = wait_for("the refusal", || {
        hint(&cluster);
        let status = json(cluster.coordinator, "/status")?;
        status["last_error"].as_str().map(str::to_owned)
    });
    assert!(error.contains("n3") && error.contains("migration"), "{error}");
    assert_eq!(epochs(&cluster), vec![Some(2); 4]);
    let refused = json(cluster.coordinator, "/status").map(|s| s["epoch"]["number"].clone());
    assert_eq!(refused, Some(Value::from(2)));
    assert_eq!(must_get(cluster.proxy, "key"), Some("value".to_owned()));
    assert_eq!(cluster.stop().code(), Some(0), "{}", cluster.launcher_log());
}

#[test]
fn without_a_coordinator_nodes_and_proxies_restart_from_the_configuration_they_kept() {
    let mut cluster = Cluster::started(3);
    must_put(cluster.proxy, "key", "value");
    cluster.kill("c1");
    for id in ["p1", "n1", "n2", "n3"] {
        cluster.kill(id);
    }
    for id in ["n1", "n2", "n3"] {
        cluster.start_by_hand("node", id);
    }
    cluster.start_by_hand("proxy", "p1");
    must_be_ready(cluster.proxy);
    assert_eq!(must_get(cluster.proxy, "key"), Some("value".to_owned()));
    must_put(cluster.proxy, "key", "newer");
    assert_eq!(must_get(cluster.nodes[1].0, "key"), Some("newer".to_owned()));
}
