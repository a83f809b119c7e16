//! What clients read of real nodes while a key moves: nothing goes back when reads do.
//!
//! Sets of one node, so that every read is of one replica and every replica is one that reads rest on.

mod common;

use std::sync::atomic::Ordering;

use common::{
    Cluster, eventually, get,
    moving::{Move, fresh, put_at, value_of, vote_of},
};
use tako_flatbuf::PutOutcome;
use tako_node_core::node::Node;
use tako_types::{Kind, StepNumber, config::Phase};

const OLD: [&str; 1] = ["n1"];
/// From n1 to n4, with steps only when they are asked for.
const MOVE: Move = Move { interval: "1h", from: ("d", &[&[1]]), to: ("t", &[&[4]]) };

/// A cluster in which both sets are written, and the barrier that was taken then.
async fn both_written() -> (Cluster, Vec<StepNumber>) {
    let mut cluster = Cluster::started(&MOVE.start(), &OLD).await;
    cluster.join_at(MOVE.phase(2, Phase::Join, vec![])).await;
    cluster.publish(&MOVE.phase(3, Phase::WriteBoth, vec![])).await;
    let barrier = cluster.barrier(&OLD, 3).await;
    (cluster, barrier)
}

/// What is left of a write that failed: only this node has it.
async fn left_at(node: &Node, name: &str) {
    let epoch = node.config.epoch().number;
    let taken = put_at(node, epoch, &fresh(name, Kind::Value, name)).await.expect("taken");
    assert!(matches!(taken, PutOutcome::Accepted { .. }), "{taken:?}");
}

fn write_backs(node: &Node) -> u64 {
    node.serving.metrics().write_backs.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_that_was_read_is_read_again_by_the_other_set_and_back() {
    let (cluster, barrier) = both_written().await;
    // One is read at its own replica, the other from afar.
    for (name, through) in [("near", "n1"), ("far", "n4")] {
        left_at(cluster.node("n1"), name).await;
        let found = get(cluster.serving(through), name).await;
        assert_eq!(found.expect("n1 is there").as_deref(), Some(name));
    }
    cluster.publish(&MOVE.phase(4, Phase::ReadNew, barrier)).await;
    eventually("n4 votes", async || vote_of(cluster.node("n4"), "near").await.is_some()).await;
    for name in ["near", "far"] {
        let found = get(cluster.serving("n4"), name).await.expect("n4 is there");
        assert_eq!(found.as_deref(), Some(name), "read before, and now it is gone");
    }
    for (name, through) in [("near again", "n4"), ("far again", "n1")] {
        left_at(cluster.node("n4"), name).await;
        let found = get(cluster.serving(through), name).await;
        assert_eq!(found.expect("n4 is there").as_deref(), Some(name));
    }
    cluster.publish(&MOVE.abort(5)).await;
    for name in ["near", "far", "near again", "far again"] {
        let found = get(cluster.serving("n1"), name).await.expect("n1 is there");
        assert_eq!(found.as_deref(), Some(name), "read before, and now it is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_covered_record_is_read_while_the_other_set_is_away_once_that_told_it_sees_its_step() {
    let (mut cluster, _) = both_written().await;
    left_at(cluster.node("n1"), "covered").await;
    cluster.barrier(&OLD, 3).await;
    let n4 = cluster.node("n4").clone();
    eventually("n4 sees its step", async || {
        let found = n4.replica.engine().vote(partition(), &common::key("covered")).await;
        found.is_ok_and(|vote| vote.covered && vote.record.is_some())
    })
    .await;
    drop(n4);
    let n1 = cluster.node("n1").clone();
    eventually("and n1 knows", async || {
        let me = tako_types::NodeId::new("n4");
        let seen = n1.serving.links().membership.step_seen(&me, partition());
        seen == Some(n1.replica.engine().step(partition()))
    })
    .await;
    cluster.crash("n4").await;
    let before = write_backs(&n1);
    let found = get(&n1.serving, "covered").await.expect("nothing has to be written");
    assert_eq!(found.as_deref(), Some("covered"));
    assert_eq!(write_backs(&n1), before);
    // Where it is not covered, nobody knows that n4 will find it.
    left_at(&n1, "uncovered").await;
    get(&n1.serving, "uncovered").await.expect_err("n4 has nothing of it");
    assert_eq!(value_of(&n1, "uncovered").await.flatten().as_deref(), Some("uncovered"));
}

/// That of the record which a step covers here.
fn partition() -> tako_types::PartitionId {
    common::moving::partition_of("covered")
}
