//! Steps beside peers that are down, and at the end of the process.

mod common;

use std::time::Duration;

use common::{Cluster, eventually, one_bucket, put};
use tako_node_core::snapshotter::StepError;
use tako_types::{NodeId, limits::CALL_DEADLINE};
use tokio::time::timeout;

const THREE: [&str; 3] = ["n1", "n2", "n3"];
/// `Membership::read_rank` of a node that does not answer.
const FAILING: u8 = 3;

async fn knows_that_n3_fails(cluster: &Cluster) {
    let membership = cluster.serving("n1").links().membership.clone();
    eventually("n1 noticed that n3 fails", async || {
        membership.read_rank(&NodeId::new("n3")) == FAILING
    })
    .await;
}

/// A step of n1's that covers a fresh write, in less time than n3 would be waited for.
async fn steps_without_waiting(cluster: &Cluster, name: &str) {
    put(cluster.serving("n1"), name, "v").await.expect("two of three take it");
    let p = common::key(name).partition(2);
    let engine = cluster.node("n1").replica.engine();
    let before = engine.step(p);
    // Waiting for one tail alone would take as long.
    let step = timeout(CALL_DEADLINE, cluster.node("n1").snapshotter.step_here(p)).await;
    let step = step.expect("a peer that is down was waited for").expect("a step");
    assert!(step > before);
    assert_eq!(engine.partition_status(p).uncovered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_down_delays_no_step() {
    let config = one_bucket(3).replace("300ms", "1h");
    let cluster = Cluster::started(&config, &THREE).await;
    cluster.network.cut_both("n1", "n3");
    knows_that_n3_fails(&cluster).await;
    steps_without_waiting(&cluster, "k").await;
    steps_without_waiting(&cluster, "k").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_down_before_the_node_started_delays_no_step() {
    let config = one_bucket(3).replace("300ms", "1h");
    let mut cluster = Cluster::started(&config, &THREE).await;
    // Packets to a machine that is off are lost; nobody refuses them.
    cluster.network.cut_both("n1", "n3");
    cluster.crash("n1").await;
    cluster.start("n1").await;
    cluster.serves("n1").await;
    knows_that_n3_fails(&cluster).await;
    steps_without_waiting(&cluster, "k").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_waits_for_no_step_that_hangs_on_the_store_and_none_starts_after_it() {
    let mut cluster = Cluster::started(&one_bucket(1), &["n1"]).await;
    let snapshotter = cluster.node("n1").snapshotter.clone();
    cluster.faults.slow(Some(Duration::from_secs(3600)));
    let calls = cluster.faults.calls();
    put(cluster.serving("n1"), "k", "v").await.expect("written");
    let p = common::key("k").partition(2);
    let forced = tokio::spawn({
        let snapshotter = snapshotter.clone();
        async move { snapshotter.step_here(p).await }
    });
    eventually("a step is at the store", async || cluster.faults.calls() > calls).await;

    let stopped = timeout(Duration::from_secs(5), cluster.node("n1").stop()).await;
    assert!(stopped.is_ok(), "the step was waited for");
    let forced = forced.await.expect("no panic");
    assert!(matches!(forced, Err(StepError::Stopping)), "{forced:?}");

    cluster.faults.clear();
    let calls = cluster.faults.calls();
    let late = snapshotter.step_here(p).await;
    assert!(matches!(late, Err(StepError::Stopping)), "{late:?}");
    assert_eq!(cluster.faults.calls(), calls);
    drop(snapshotter);
    cluster.crash("n1").await;
}
