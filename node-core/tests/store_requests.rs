//! What a node asks of the object store: bounded per step, nothing at rest.

mod common;

use std::time::Duration;

use common::{Cluster, get, one_bucket, put};
use tako_types::PartitionId;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_at_rest_asks_nothing_of_the_store() {
    let cluster = Cluster::started(&one_bucket(3), &["n1", "n2", "n3"]).await;
    for n in 0..20 {
        put(cluster.serving("n1"), &format!("k{n}"), "v").await.expect("written");
    }
    cluster.covered().await;
    // Ten intervals of 300 ms; gossip and turns go on meanwhile.
    let before = cluster.store.counts();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = cluster.store.counts();
    assert_eq!(
        (after.puts, after.gets, after.lists, after.deletes),
        (before.puts, before.gets, before.lists, before.deletes)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_a_few_mebibytes_costs_at_most_four_puts_and_lists_compaction_included() {
    let config = one_bucket(1).replace("300ms", "1h").replace("partitions: 4", "partitions: 1");
    let cluster = Cluster::started(&config, &["n1"]).await;
    let value = "x".repeat(100_000);
    let p = PartitionId(0);
    let snapshotter = cluster.node("n1").snapshotter.clone();
    put(cluster.serving("n1"), "first", "v").await.expect("written");
    snapshotter.step_here(p).await.expect("the first step opens the database");
    let before = cluster.store.counts();
    let steps = 32;
    for step in 0..steps {
        for n in 0..20 {
            put(cluster.serving("n1"), &format!("k{step}-{n}"), &value).await.expect("written");
        }
        snapshotter.step_here(p).await.expect("a step");
    }
    let after = cluster.store.counts();
    let (puts, lists) = (after.puts - before.puts, after.lists - before.lists);
    let gets = after.gets - before.gets;
    println!("{steps} steps of 2 MB: {puts} PUT, {lists} LIST, {gets} GET");
    assert!(puts + lists <= 4 * steps, "{puts} PUT and {lists} LIST for {steps} steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_of_a_plainly_put_key_reads_at_most_one_block_when_indexes_are_warm() {
    let config = format!(
        "cache: {{records: 1MiB, memory: 4MiB, disk: 0}}\n{}",
        one_bucket(1).replace("300ms", "1h").replace("partitions: 4", "partitions: 1")
    );
    let mut cluster = Cluster::started(&config, &["n1"]).await;
    let value = "x".repeat(3_000);
    for n in 0..4_000 {
        put(cluster.serving("n1"), &format!("k{n}"), &value).await.expect("written");
    }
    cluster.node("n1").snapshotter.step_here(PartitionId(0)).await.expect("a step");
    cluster.crash("n1").await;
    cluster.start("n1").await;
    cluster.serves("n1").await;
    get(cluster.serving("n1"), "k0").await.expect("warms filters and indexes");
    for n in (1..4_000).step_by(97) {
        let before = cluster.store.counts();
        let found = get(cluster.serving("n1"), &format!("k{n}")).await.expect("read");
        assert_eq!(found.as_ref(), Some(&value));
        let gets = cluster.store.counts().gets - before.gets;
        assert!(gets <= 1, "k{n}: {gets} GET");
    }
}
