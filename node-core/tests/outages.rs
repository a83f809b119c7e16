//! The object store is away for seconds, for minutes, for an hour, at a restart and at a take-over.
//!
//! Time is the runtime's and paused: an hour takes the seconds that its events take. The table in
//! docs/operations.md names each of these.

mod common;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use common::{Cluster, eventually, get, key, one_bucket, put};
use tako_flatbuf::{NodeState, Request};
use tako_journal::fault::MemDisk;
use tako_node_core::node::Node;
use tako_types::{ErrorKind, NodeId, PartitionId};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const THREE: [&str; 3] = ["n1", "n2", "n3"];
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Three nodes with the usual interval, and a journal of these sizes.
async fn three(journal: &str) -> Cluster {
    let config = one_bucket(3).replace("snapshot: {interval: 300ms}\n", "");
    let mut cluster = Cluster::in_runtime_time(&format!("journal: {{{journal}}}\n{config}"));
    cluster.start_all(&THREE).await;
    cluster
}

fn goes_away(cluster: &Cluster) {
    // As a broken connection, which is tried again.
    cluster.faults.retried(true);
    cluster.faults.refuse_all();
}

fn value(n: usize, bytes: usize) -> String {
    format!("{n}-{}", "x".repeat(bytes))
}

async fn assert_kept(cluster: &Cluster, through: &str, written: &BTreeMap<String, String>) {
    for (name, value) in written {
        let found = get(cluster.serving(through), name).await;
        assert_eq!(found.expect("read").as_ref(), Some(value), "{name} through {through}");
    }
}

fn memory_bytes(cluster: &Cluster) -> u64 {
    let nodes = cluster.nodes.values();
    nodes.map(|node| node.replica.engine().memory_bytes()).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn away_for_seconds_no_request_fails_but_a_cold_read() {
    let mut cluster = three("memory: 4MiB").await;
    // Not in the block of the rows that are read to open a view.
    let cold_value = value(0, 40_000);
    put(cluster.serving("n1"), "cold", &cold_value).await.expect("written");
    cluster.covered().await;
    // Nothing of it is in any memory after this.
    cluster.crash_all().await;
    cluster.start_all(&THREE).await;
    goes_away(&cluster);
    let mut written = BTreeMap::new();
    for n in 0..10 {
        let name = format!("k{n}");
        put(cluster.serving("n1"), &name, &value(n, 100)).await.expect("the journals take it");
        written.insert(name, value(n, 100));
        sleep(SECOND).await;
    }
    assert_kept(&cluster, "n2", &written).await;
    let began = Instant::now();
    let cold = get(cluster.serving("n1"), "cold").await.expect_err("its block is away");
    assert!(began.elapsed() <= 10 * SECOND, "{:?}", began.elapsed());
    assert!(cold.kind().retry(), "{cold}");
    cluster.faults.clear();
    let back = Instant::now();
    cluster.covered().await;
    assert!(back.elapsed() < MINUTE, "{:?}", back.elapsed());
    written.insert("cold".to_owned(), cold_value);
    assert_kept(&cluster, "n3", &written).await;
}

#[tokio::test(start_paused = true)]
async fn away_for_minutes_values_leave_memory_and_are_read_from_the_journals_files() {
    let cluster = three("memory: 1MiB, disk: 64MiB").await;
    goes_away(&cluster);
    let mut written = BTreeMap::new();
    for n in 0..150 {
        let name = format!("k{n}");
        put(cluster.serving("n1"), &name, &value(n, 40_000)).await.expect("the journals take it");
        written.insert(name, value(n, 40_000));
        sleep(4 * SECOND).await;
    }
    assert!(memory_bytes(&cluster) <= 1 << 20, "{}", memory_bytes(&cluster));
    for id in THREE {
        assert_kept(&cluster, id, &written).await;
    }
    cluster.faults.clear();
    let back = Instant::now();
    cluster.covered().await;
    assert!(back.elapsed() < 2 * MINUTE, "{:?}", back.elapsed());
    assert_kept(&cluster, "n2", &written).await;
}

#[tokio::test(start_paused = true)]
async fn away_for_an_hour_full_journals_refuse_writes_and_lose_none_that_they_took() {
    let cluster = three("memory: 1MiB, disk: 64MiB").await;
    goes_away(&cluster);
    let began = Instant::now();
    let (mut written, mut refused) = (BTreeMap::new(), 0);
    let mut n = 0;
    while began.elapsed() < 60 * MINUTE {
        let name = format!("k{n}");
        match put(cluster.serving("n1"), &name, &value(n, 400_000)).await {
            Ok(_) => drop(written.insert(name, value(n, 400_000))),
            Err(error) => {
                // 503 with Retry-After.
                assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
                refused += 1;
            }
        }
        n += 1;
        sleep(8 * SECOND).await;
    }
    assert!(refused > 100 && written.len() > 100, "{refused} refused, {} taken", written.len());
    for id in THREE {
        let journal = cluster.node(id).replica.engine().journal().clone();
        assert!(journal.disk_bytes() <= 64 << 20);
        assert_eq!(journal.is_failed(), None);
    }
    assert_kept(&cluster, "n2", &written).await;
    cluster.faults.clear();
    let back = Instant::now();
    cluster.covered().await;
    assert!(back.elapsed() < 2 * MINUTE, "{:?}", back.elapsed());
    eventually("writes are taken again", async || {
        put(cluster.serving("n1"), "again", "v").await.is_ok()
    })
    .await;
    assert_kept(&cluster, "n3", &written).await;
}

#[tokio::test(start_paused = true)]
async fn away_at_a_restart_the_node_waits_and_the_others_serve() {
    let mut cluster = three("memory: 4MiB").await;
    let mut written = BTreeMap::new();
    for n in 0..10 {
        let name = format!("k{n}");
        put(cluster.serving("n1"), &name, &value(n, 100)).await.expect("written");
        written.insert(name, value(n, 100));
    }
    goes_away(&cluster);
    cluster.crash("n3").await;
    cluster.start("n3").await;
    sleep(5 * MINUTE).await;
    assert_eq!(cluster.state("n3"), NodeState::Starting);
    put(cluster.serving("n1"), "meanwhile", "v").await.expect("two of three");
    written.insert("meanwhile".to_owned(), "v".to_owned());
    assert_kept(&cluster, "n2", &written).await;
    cluster.faults.clear();
    let back = Instant::now();
    cluster.serves("n3").await;
    assert!(back.elapsed() < MINUTE, "{:?}", back.elapsed());
    assert_kept(&cluster, "n3", &written).await;
}

#[tokio::test(start_paused = true)]
async fn away_at_a_restart_of_all_nobody_serves_until_it_is_back_and_then_nothing_is_lost() {
    let mut cluster = three("memory: 4MiB").await;
    let mut written = BTreeMap::new();
    put(cluster.serving("n1"), "covered", "v").await.expect("written");
    written.insert("covered".to_owned(), "v".to_owned());
    cluster.covered().await;
    goes_away(&cluster);
    for n in 0..10 {
        let name = format!("k{n}");
        put(cluster.serving("n1"), &name, &value(n, 100)).await.expect("written");
        written.insert(name, value(n, 100));
    }
    cluster.crash_all().await;
    for id in THREE {
        cluster.start(id).await;
    }
    sleep(5 * MINUTE).await;
    assert_eq!(THREE.map(|id| cluster.state(id)), [NodeState::Starting; 3]);
    let refused = put(cluster.serving("n1"), "k", "v").await.expect_err("nobody votes");
    assert!(refused.kind().retry(), "{refused}");
    cluster.faults.clear();
    let back = Instant::now();
    for id in THREE {
        cluster.serves(id).await;
    }
    assert!(back.elapsed() < MINUTE, "{:?}", back.elapsed());
    assert_kept(&cluster, "n2", &written).await;
    cluster.covered().await;
}

#[tokio::test(start_paused = true)]
async fn away_a_new_folder_does_not_start_until_it_is_back() {
    let mut cluster = three("memory: 4MiB").await;
    cluster.crash("n3").await;
    goes_away(&cluster);
    cluster.disk = Arc::new(MemDisk::default());
    let options = cluster.options("n3");
    let mut starting = Box::pin(Node::start(options, CancellationToken::new()));
    assert!(timeout(5 * MINUTE, &mut starting).await.is_err(), "it has no cluster to be of");
    cluster.faults.clear();
    let node = timeout(MINUTE, starting).await.expect("in time").expect("it starts");
    cluster.nodes.insert("n3".to_owned(), node);
    cluster.serves("n3").await;
}

#[tokio::test(start_paused = true)]
async fn away_at_a_take_over_the_next_in_line_takes_the_step_when_it_is_back() {
    let mut cluster = three("memory: 4MiB").await;
    let p = key("k0").partition(2);
    put(cluster.serving("n1"), "k0", "before").await.expect("written");
    cluster.covered().await;
    let first = cluster.node("n1").snapshotter.first_in_line(p).to_string();
    let other = *THREE.iter().find(|id| **id != first).expect("two others");
    goes_away(&cluster);
    put(cluster.serving(other), "k0", "after").await.expect("the journals take it");
    sleep(MINUTE).await;
    cluster.crash(&first).await;
    sleep(10 * MINUTE).await;
    let step = |cluster: &Cluster, p: PartitionId| cluster.node(other).replica.engine().step(p);
    let before = step(&cluster, p);
    put(cluster.serving(other), "k1", "v").await.expect("two of three");
    cluster.faults.clear();
    let back = Instant::now();
    cluster.covered().await;
    assert!(back.elapsed() < 2 * MINUTE, "{:?}", back.elapsed());
    assert!(step(&cluster, p) > before);
    let found = get(cluster.serving(other), "k0").await.expect("read");
    assert_eq!(found.as_deref(), Some("after"));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_late_does_not_make_its_node_one_that_fails() {
    let cluster = three("memory: 4MiB").await;
    put(cluster.serving("n1"), "k", "v").await.expect("written");
    cluster.faults.slow(Some(MINUTE));
    let links = cluster.serving("n1").links();
    let n2 = NodeId::new("n2");
    let order = Request::ForceStep { partition: PartitionId(0) };
    let late = links.call(&n2, SECOND, order).await.expect_err("the store takes a minute");
    assert_eq!(late.kind, ErrorKind::Deadline);
    assert_eq!(links.membership.read_rank(&n2), 0, "requests still go to it first");
    assert_eq!(get(cluster.serving("n1"), "k").await.expect("read").as_deref(), Some("v"));
}
