//! `tako migrate` on a cluster that serves.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::Value;

use crate::support::{Cluster, http, json, must_get, must_put, wait_for};

/// Waits until the first three nodes have refilled their folders, which are new.
pub(crate) fn must_serve(cluster: &Cluster) {
    wait_for("three nodes that serve", || {
        let seen = json(cluster.nodes[0].0, "/cluster")?;
        let nodes = seen["nodes"].as_array()?;
        nodes.iter().all(|node| node["state"] == "serving").then_some(())
    });
}

/// Three nodes that serve, the fourth not started.
pub(crate) fn started() -> Cluster {
    let mut cluster = Cluster::new(4);
    cluster.configure_move("1s", &[("d", &[1, 2, 3])], "d", None);
    cluster.start();
    must_serve(&cluster);
    must_put(cluster.proxy, "before", "value");
    cluster
}

/// Writes and reads without an end while `meanwhile` runs; nothing may fail.
pub(crate) fn while_writing<T>(proxy: u16, meanwhile: impl FnOnce() -> T) -> (usize, T) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !done.load(Ordering::Acquire) {
                let key = format!("during{written}");
                let (status, body) = http("PUT", proxy, &format!("/values/{key}"), key.as_bytes())
                    .expect("the proxy answers");
                assert_eq!(status, 200, "{key}: {}", String::from_utf8_lossy(&body));
                assert_eq!(must_get(proxy, &key).as_ref(), Some(&key));
                written += 1;
            }
            written
        });
        let out = meanwhile();
        done.store(true, Ordering::Release);
        (writer.join().expect("the writer saw no failure"), out)
    })
}

/// All that [`while_writing`] wrote is there.
pub(crate) fn must_have(proxy: u16, written: usize) {
    assert!(0 < written);
    for n in 0..written {
        let key = format!("during{n}");
        assert_eq!(must_get(proxy, &key).as_ref(), Some(&key), "of {written}");
    }
}

fn active(cluster: &Cluster) -> Value {
    json(cluster.coordinator, "/status").expect("it answers")["active_deployment"].clone()
}

#[test]
fn start_wait_takes_a_cluster_to_other_nodes_while_clients_write_and_ends_when_it_is_there() {
    let mut cluster = started();
    let new = cluster.layout("t", &[2, 3, 4]);
    let plan = cluster.must_order(&["migrate", "plan", "--to", &new]);
    assert!(plan.contains("4 of 4 partitions get other nodes"), "{plan}");
    assert!(plan.contains("To be started: n4"), "{plan}");
    assert!(plan.contains("To be stopped when it has ended: n1"), "{plan}");
    assert!(json(cluster.coordinator, "/status").expect("it answers")["migration"].is_null());
    let proxy = cluster.proxy;
    cluster.start_by_hand("node", "n4");
    let (written, said) =
        while_writing(proxy, || cluster.must_order(&["migrate", "start", "--wait", "--to", &new]));
    assert!(said.contains("Done: `t` is active. May be stopped now: n1"), "{said}");
    assert_eq!(active(&cluster), "t");
    // Two of the new three hold everything.
    cluster.kill("n1");
    cluster.kill("n2");
    assert_eq!(must_get(proxy, "before").as_deref(), Some("value"));
    must_have(proxy, written);
    let again = cluster.must_order(&["migrate", "start", "--wait", "--to", &new]);
    assert!(again.contains("Nothing to move: `t` is active"), "{again}");
}

/// Writes one more sibling of `/store/k`, without a context; all `count` are told then.
fn must_have_sibling(proxy: u16, count: usize) {
    let value = format!("sibling {count}");
    let (status, body) = http("PUT", proxy, "/store/k", value.as_bytes()).expect("it answers");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let (status, body) = http("GET", proxy, "/store/k", b"").expect("it answers");
    let body = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, if count == 1 { 200 } else { 300 }, "{body}");
    for n in 1..=count {
        assert!(body.contains(&format!("sibling {n}")), "{n} of {count}: {body}");
    }
}

#[test]
fn a_move_is_promoted_held_there_and_given_up_and_every_order_may_be_given_again() {
    let mut cluster = started();
    let new = cluster.layout("t", &[2, 3, 4]);
    must_have_sibling(cluster.proxy, 1);
    cluster.start_by_hand("node", "n4");
    let (code, said) = cluster.order(&["migrate", "promote"]);
    assert_eq!(code, Some(3), "{said}");
    let begun = cluster.must_order(&["migrate", "start", "--to", &new]);
    assert!(begun.contains("has begun"), "{begun}");
    cluster.must_order(&["migrate", "start", "--to", &new]);
    must_have_sibling(cluster.proxy, 2);
    for _ in 0..2 {
        let said = cluster.must_order(&["migrate", "promote", "--wait"]);
        assert!(said.contains("Reads are at `t`"), "{said}");
    }
    must_put(cluster.proxy, "promoted", "value");
    must_have_sibling(cluster.proxy, 3);
    let status = cluster.must_order(&["migrate", "status", "--output", "json"]);
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["migration"]["phase"], "read-new");
    assert_eq!(status["migration"]["goal"], "promote");
    let other = cluster.layout("u", &[1, 2, 4]);
    let (code, said) = cluster.order(&["migrate", "start", "--to", &other]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("`d` is moving to `t`"), "{said}");
    for part in ["Done: `d` is active, as before", "No migration is under way"] {
        let said = cluster.must_order(&["migrate", "abort", "--wait"]);
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(active(&cluster), "d");
    assert_eq!(must_get(cluster.proxy, "promoted").as_deref(), Some("value"));
    must_have_sibling(cluster.proxy, 4);
    assert_eq!(http("DELETE", cluster.proxy, "/store/k", b"").expect("it answers").0, 204);
    assert_eq!(http("GET", cluster.proxy, "/store/k", b"").expect("it answers").0, 404);
}

#[test]
fn what_would_lose_writes_is_refused_until_it_is_said_what_may_be_lost() {
    let mut cluster = started();
    let new = cluster.layout("t", &[1, 4]);
    cluster.start_by_hand("node", "n4");
    // Covered by a step, so that nothing is lost in this test.
    wait_for("nothing uncovered", || {
        let seen = json(cluster.nodes[0].0, "/cluster")?;
        let nodes = seen["nodes"].as_array()?;
        nodes.iter().all(|node| node["uncovered_partitions"] == 0).then_some(())
    });
    cluster.kill("n2");
    cluster.kill("n3");
    let (code, said) = cluster.order(&["migrate", "start", "--to", &new]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("n2, n3 do not answer"), "{said}");
    assert!(said.contains("--accept-loss n2,n3"), "{said}");
    let (code, said) =
        cluster.order(&["migrate", "start", "--to", &new, "--accept-loss", "n1,n2,n3"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("n1 answers, it is not lost"), "{said}");
    let said =
        cluster.must_order(&["migrate", "start", "--wait", "--to", &new, "--accept-loss", "n2,n3"]);
    assert!(said.contains("acknowledged writes that only n2, n3 had"), "{said}");
    assert_eq!(active(&cluster), "t");
    assert_eq!(must_get(cluster.proxy, "before").as_deref(), Some("value"));
    must_put(cluster.proxy, "after", "value");
}
