//! A cluster shrinks to fewer nodes and fewer copies while it serves, and grows back: Tako's own
//! test, `migration_1` to `migration_2` to `migration_3`.

use crate::support::{Cluster, http, json, must_get, must_put, signal, wait_for};

use rustix::process::Signal;

/// Two buckets of two nodes, each key in both; then one bucket; then as before.
fn order(cluster: &Cluster, active: &str, target: Option<&str>) {
    let both = || vec![&[1, 2][..], &[3, 4][..]];
    let deployments = [("d1", 2, both()), ("d2", 1, vec![&[1, 2][..]]), ("d3", 2, both())];
    cluster.configure_buckets("1s", &deployments, active, target);
    if let Some(coordinator) = cluster.pid("c1") {
        signal(coordinator, Signal::HUP);
    }
}

/// Orders the move in two files, as the older system had it, and waits for its end.
fn must_move(cluster: &Cluster, from: &str, to: &str) {
    order(cluster, from, Some(to));
    wait_for(&format!("writes to {to}"), || {
        let status = json(cluster.coordinator, "/status")?;
        (status["migration"]["phase"] == "write-both").then_some(())
    });
    order(cluster, to, None);
    wait_for(&format!("the end of the move to {to}"), || {
        let status = json(cluster.coordinator, "/status")?;
        (status["active_deployment"] == to && status["migration"].is_null()).then_some(())
    });
}

#[test]
fn a_cluster_shrinks_to_one_bucket_and_grows_back_and_keeps_every_value() {
    let mut cluster = Cluster::new(4);
    order(&cluster, "d1", None);
    cluster.start();
    for n in 0..20 {
        must_put(cluster.proxy, &format!("d1-{n}"), "value");
    }

    must_move(&cluster, "d1", "d2");
    for n in 0..20 {
        must_put(cluster.proxy, &format!("d2-{n}"), "value");
        must_put(cluster.proxy, &format!("d1-{n}"), "a later value");
    }
    // These two have nothing to do, and still serve clients.
    assert_eq!(must_get(cluster.nodes[3].0, "d2-0").as_deref(), Some("value"));
    let deleted = http("DELETE", cluster.nodes[2].0, "/values/d1-0", b"").expect("an answer");
    assert_eq!(deleted.0, 204);

    must_move(&cluster, "d2", "d3");
    // Three of the four replicas are left.
    cluster.kill("n1");
    for port in [cluster.proxy, cluster.nodes[3].0] {
        assert_eq!(must_get(port, "d1-0"), None, "it was deleted while n3 and n4 were out");
        for n in 1..20 {
            assert_eq!(must_get(port, &format!("d1-{n}")).as_deref(), Some("a later value"));
            assert_eq!(must_get(port, &format!("d2-{n}")).as_deref(), Some("value"));
        }
    }
}
