//! A cluster moves from three nodes to others while clients write and read, and is stopped half
//! way: over a folder and over an S3 server.

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    migrate::{must_have, while_writing},
    s3_server::S3Server,
    support::{Cluster, http, json, must_get, must_put, signal, wait_for},
};

const D: (&str, &[usize]) = ("d", &[1, 2, 3]);
const T: (&str, &[usize]) = ("t", &[2, 3, 4]);

/// Three nodes that serve, the fourth not started.
fn started(mut cluster: Cluster) -> Cluster {
    cluster.configure_move("1s", &[D, T], "d", None);
    cluster.start();
    for n in 0..20 {
        must_put(cluster.proxy, &format!("before{n}"), "value");
    }
    cluster
}

/// Waits for a phase, or for no migration; the coordinator is told to look.
fn wait_for_phase(cluster: &Cluster, phase: Option<&str>) {
    let what = format!("the phase {phase:?}");
    wait_for(&what, || {
        if let Some(coordinator) = cluster.pid("c1") {
            signal(coordinator, Signal::HUP);
        }
        let status = json(cluster.coordinator, "/status")?;
        (status["migration"]["phase"].as_str() == phase).then_some(())
    });
}

fn order(cluster: &Cluster, active: &str, target: Option<&str>) {
    cluster.configure_move("1s", &[D, T], active, target);
}

#[test]
fn a_cluster_moves_to_other_nodes_while_clients_write_and_nothing_fails_or_is_lost() {
    moves_to_other_nodes(Cluster::new(4));
}

#[test]
fn over_s3_a_cluster_moves_to_other_nodes_and_nothing_fails_or_is_lost() {
    let Some(server) = S3Server::shared() else { return };
    moves_to_other_nodes(Cluster::over_s3(4, server, "move"));
}

fn moves_to_other_nodes(cluster: Cluster) {
    let mut cluster = started(cluster);
    let proxy = cluster.proxy;
    let (written, ()) = while_writing(proxy, || {
        order(&cluster, "d", Some("t"));
        // Started before the configuration names it, maybe.
        cluster.start_by_hand("node", "n4");
        wait_for_phase(&cluster, Some("write-both"));
        order(&cluster, "t", None);
        wait_for_phase(&cluster, None);
    });
    let active = json(cluster.coordinator, "/status").map(|it| it["active_deployment"].clone());
    assert_eq!(active, Some(Value::from("t")));
    // Two of the new three hold everything.
    cluster.kill("n1");
    cluster.kill("n2");
    for n in 0..20 {
        assert_eq!(must_get(proxy, &format!("before{n}")).as_deref(), Some("value"), "{n}");
    }
    must_have(proxy, written);
}

#[test]
fn a_migration_is_given_up_half_way_and_nothing_is_lost() {
    is_given_up(Cluster::new(4));
}

#[test]
fn over_s3_a_migration_is_given_up_half_way_and_nothing_is_lost() {
    let Some(server) = S3Server::shared() else { return };
    is_given_up(Cluster::over_s3(4, server, "given-up"));
}

fn is_given_up(cluster: Cluster) {
    let mut cluster = started(cluster);
    order(&cluster, "d", Some("t"));
    cluster.start_by_hand("node", "n4");
    wait_for_phase(&cluster, Some("write-both"));
    must_put(cluster.proxy, "both", "value");
    // Its coordinator dies there, and another one goes on.
    cluster.kill("c1");
    cluster.start_by_hand("coordinator", "c1");
    order(&cluster, "d", None);
    wait_for_phase(&cluster, None);
    assert_eq!(must_get(cluster.proxy, "both").as_deref(), Some("value"));
    must_put(cluster.proxy, "after", "value");
    let (n4, _) = cluster.nodes[3];
    wait_for("n4 to serve by the newest configuration", || {
        let answer = http("GET", n4, "/values/after", b"").ok()?;
        (answer == (200, b"value".to_vec())).then_some(())
    });
    assert_eq!(must_get(cluster.proxy, "before0").as_deref(), Some("value"));
}
