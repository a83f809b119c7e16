//! A node that leaves in good order: it takes nothing new, hands on what it holds, and ends.

mod common;

use std::{sync::Arc, time::Duration};

use common::{Cluster, eventually, get, one_bucket, put};
use tako_node_core::node::Node;
use tako_types::PartitionId;
use tokio_util::sync::CancellationToken;

const THREE: [&str; 3] = ["n1", "n2", "n3"];
const LIMIT: Duration = Duration::from_secs(20);

/// Three nodes that take steps only when they are asked for.
async fn started() -> Cluster {
    Cluster::started(&one_bucket(3).replace("300ms", "1h"), &THREE).await
}

fn uncovered(node: &Node) -> usize {
    let engine = node.replica.engine();
    (0..4).map(|p| engine.partition_status(PartitionId(p)).uncovered).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_leaves_nothing_behind() {
    let mut cluster = started().await;
    cluster.fill("n1", 20, "v").await;
    let node = cluster.nodes.remove("n3").expect("running");
    node.drain(LIMIT).await;
    assert_eq!(uncovered(&node), 0);
    let identity = tako_journal::Identity::load(&tako_journal::FsDisk, node.data_folder())
        .expect("intact")
        .expect("there");
    assert!(identity.clean && identity.recovered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_under_writes_takes_none_of_them_and_ends() {
    let mut cluster = started().await;
    let stop = CancellationToken::new();
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (serving, stop) = (Arc::clone(&cluster.node("n1").serving), stop.clone());
            tokio::spawn(async move {
                let mut written = 0;
                while !stop.is_cancelled() {
                    let name = format!("k{client}-{written}");
                    put(&serving, &name, "v").await.expect("the other two take it");
                    written += 1;
                }
                written
            })
        })
        .collect();
    let node = cluster.nodes.remove("n3").expect("running");
    eventually("writes come in", async || uncovered(&node) > 20).await;
    // While a step is taken, others come in everywhere.
    cluster.faults.slow(Some(Duration::from_millis(20)));
    node.drain(LIMIT).await;
    assert_eq!(uncovered(&node), 0, "more came in than went out");
    stop.cancel();
    cluster.faults.slow(None);
    for (client, writes) in clients.into_iter().enumerate() {
        let written: usize = writes.await.expect("no write failed");
        for n in 0..written {
            let found = get(cluster.serving("n2"), &format!("k{client}-{n}")).await.expect("read");
            assert_eq!(found.as_deref(), Some("v"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_cannot_end_stops_at_its_limit_and_the_journal_keeps_the_rest() {
    let mut cluster = started().await;
    cluster.fill("n1", 20, "v").await;
    cluster.faults.refuse_all();
    let node = cluster.nodes.remove("n3").expect("running");
    let drained = tokio::time::timeout(LIMIT, node.drain(Duration::from_millis(500))).await;
    drained.expect("it ends though the store is away");
    assert_eq!(uncovered(&node), 20);
    drop(node);
    cluster.network.drop_connections("n3");
    cluster.faults.clear();
    cluster.start("n3").await;
    cluster.serves("n3").await;
    assert_eq!(uncovered(cluster.node("n3")), 20, "all of it is there again");
}
