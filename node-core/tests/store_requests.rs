//! What a node asks of the object store: bounded per step, start and move, nothing at rest.
//!
//! docs/operations.md, "Requests and their price", has these figures; each test prints its own.

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{
    Cluster, eventually, get,
    moving::{Move, PARTITIONS, standing},
    one_bucket, put,
};
use tako_node_core::node::Node;
use tako_snapshot::{Counts, Store};
use tako_types::{Kind, PartitionId, config::Phase};
use tokio_util::sync::CancellationToken;

const THREE: [&str; 3] = ["n1", "n2", "n3"];

/// Starts a node whose own requests are counted; they count for the cluster as well.
async fn start_counted(cluster: &mut Cluster, id: &str) -> Store {
    let own = Store::new(cluster.store.object_store(), cluster.store.root().clone(), false);
    let mut options = cluster.options(id);
    options.store = Some(own.clone());
    let node = Node::start(options, CancellationToken::new()).await.expect("a node starts");
    cluster.nodes.insert(id.to_owned(), node);
    own
}

/// Waits until every running node sees the newest step of each partition.
async fn all_follow(cluster: &Cluster, partitions: u16) {
    for p in (0..partitions).map(PartitionId) {
        let steps = || cluster.nodes.values().map(|node| node.replica.engine().step(p));
        eventually("all see the newest step", async || steps().min() == steps().max()).await;
    }
}

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
    assert!(gets <= 18 * steps, "{gets} GET for {steps} steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_further_replica_opens_a_step_with_one_list_ten_gets_and_no_put() {
    let config = one_bucket(3).replace("300ms", "1h").replace("partitions: 4", "partitions: 1");
    let mut cluster = Cluster::new(&config);
    let mut stores = BTreeMap::new();
    for id in THREE {
        stores.insert(id.to_owned(), start_counted(&mut cluster, id).await);
    }
    for id in THREE {
        cluster.serves(id).await;
    }
    let p = PartitionId(0);
    let first = cluster.node("n1").snapshotter.first_in_line(p);
    let snapshotter = cluster.node(first.as_str()).snapshotter.clone();
    cluster.fill("n1", 1, "v").await;
    snapshotter.step_here(p).await.expect("the first step opens the database");
    all_follow(&cluster, 1).await;
    let before: BTreeMap<String, Counts> =
        stores.iter().map(|(id, store)| (id.clone(), store.counts())).collect();
    let steps = 32;
    for _ in 0..steps {
        cluster.fill("n1", 10, "a short value").await;
        snapshotter.step_here(p).await.expect("a step");
        all_follow(&cluster, 1).await;
    }
    for (id, store) in &stores {
        let cost = store.counts().since(&before[id]);
        let takes_steps = id == first.as_str();
        println!("{steps} small steps at {id}, which takes them: {takes_steps}: {cost:?}");
        if takes_steps {
            assert!(cost.puts_and_lists() <= 4 * steps, "{cost:?}");
            assert!(cost.gets <= 18 * steps, "{cost:?}");
        } else {
            // A compaction makes one more state to move on to.
            assert_eq!(cost.puts, 0, "{cost:?}");
            assert!(cost.lists <= steps + 2, "{cost:?}");
            assert!(cost.gets <= 10 * steps, "{cost:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_costs_the_probe_and_twelve_requests_for_each_partition() {
    let config = one_bucket(3);
    let mut cluster = Cluster::started(&config, &THREE).await;
    cluster.fill("n1", 40, "v").await;
    cluster.covered().await;
    all_follow(&cluster, PARTITIONS).await;
    cluster.crash("n3").await;
    let own = start_counted(&mut cluster, "n3").await;
    cluster.serves("n3").await;
    let cost = own.counts();
    let partitions = u64::from(PARTITIONS);
    println!("a start with {partitions} partitions: {cost:?}");
    // The probe's, the cluster's id, a look for configurations, and each partition's view.
    assert_eq!(cost.puts, 26, "{cost:?}");
    assert!(cost.lists <= 3 + 2 * partitions, "{cost:?}");
    assert!(cost.gets <= 7 + 12 * partitions, "{cost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_costs_each_partition_one_opening_and_two_steps() {
    const BY_HAND: Move =
        Move { interval: "1h", from: ("d", &[&[1, 2, 3]]), to: ("t", &[&[2, 3, 4]]) };
    let partitions = u64::from(PARTITIONS);
    let mut cluster = Cluster::started(&BY_HAND.start(), &THREE).await;
    let mut last = cluster.store.counts();
    let mut spent = |cluster: &Cluster, on: &str| {
        let cost = cluster.store.counts().since(&last);
        println!("{on}, {partitions} partitions: {cost:?}");
        last = cluster.store.counts();
        cost
    };
    cluster.fill("n2", 40, "before").await;
    step_all(&cluster).await;
    all_follow(&cluster, PARTITIONS).await;
    spent(&cluster, "first steps");

    cluster.join_at(BY_HAND.phase(2, Phase::Join, vec![])).await;
    let join = spent(&cluster, "start and opening at the new node");
    assert_eq!(join.puts, 26, "{join:?}");
    assert!(join.lists <= 3 + 2 * partitions && join.gets <= 7 + 12 * partitions, "{join:?}");

    cluster.publish(&BY_HAND.phase(3, Phase::WriteBoth, vec![])).await;
    for n in 0..20 {
        cluster.write_both("n2", &format!("k{n}"), Kind::Value, "both").await;
    }
    let barrier = cluster.barrier(&THREE, 3).await;
    cluster.publish(&BY_HAND.phase(4, Phase::ReadNew, barrier)).await;
    all_follow(&cluster, PARTITIONS).await;
    let barrier = spent(&cluster, "barrier");

    for n in 0..20 {
        cluster.write_both("n2", &format!("k{n}"), Kind::Value, "new").await;
    }
    cluster.publish(&BY_HAND.phase(5, Phase::Leave, vec![])).await;
    step_all(&cluster).await;
    all_follow(&cluster, PARTITIONS).await;
    eventually("n1 has nothing uncovered", async || {
        standing(cluster.node("n1")).await.partitions.iter().all(|row| row.uncovered == 0)
    })
    .await;
    let leave = spent(&cluster, "leaving");
    for cost in [barrier, leave] {
        // One step, its snapshotter anew, and three more nodes that open it.
        assert!(cost.puts_and_lists() <= 12 * partitions, "{cost:?}");
        assert!(cost.gets <= 60 * partitions, "{cost:?}");
    }
}

/// Forces a step of every partition at whoever may take it.
async fn step_all(cluster: &Cluster) {
    for p in (0..PARTITIONS).map(PartitionId) {
        let first = cluster.node("n2").snapshotter.first_in_line(p);
        cluster.node(first.as_str()).snapshotter.step_here(p).await.expect("a step");
    }
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
