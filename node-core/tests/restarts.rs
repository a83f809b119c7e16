//! Schedules of whole clusters that end with a restart or a take-over; the table in
//! docs/testing.md says which rule each of them is about.

mod common;

use std::{io, sync::Arc, time::Duration};

use common::{Cluster, eventually, get, one_bucket, put};
use futures::future::join_all;
use tako_flatbuf::NodeState;
use tako_journal::{
    FsDisk,
    fault::{Call, Fault, FaultDisk},
};
use tako_node_core::node::{Node, NodeOptions};
use tako_types::{Clock, PartitionId, SystemClock, Version, limits::CLOCK_DRIFT_MAX};
use tokio_util::sync::CancellationToken;

const THREE: [&str; 3] = ["n1", "n2", "n3"];
const KEYS: usize = 12;

/// Steps only when they are asked for.
fn without_steps(nodes: usize) -> String {
    one_bucket(nodes).replace("300ms", "1h")
}

/// Which of three disks are empty.
fn subsets() -> impl Iterator<Item = Vec<&'static str>> {
    (0..8).map(|bits: usize| (0..3).filter(|n| bits >> n & 1 == 1).map(|n| THREE[n]).collect())
}

/// Every node stops, those disks are gone, every node starts; all of them serve again.
async fn restarted(mut cluster: Cluster, empty: &[&str]) -> Cluster {
    cluster.crash_all().await;
    for node in empty {
        cluster.lose_disk(node);
    }
    for node in THREE {
        cluster.start(node).await;
    }
    for node in THREE {
        cluster.serves(node).await;
    }
    cluster
}

async fn holds_all(cluster: &Cluster, empty: &[&str]) {
    for node in THREE {
        for n in 0..KEYS {
            let found = get(cluster.serving(node), &format!("k{n}")).await.expect("read");
            assert_eq!(found.as_deref(), Some("v"), "k{n} through {node}, {empty:?} empty");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_any_disks_empty_a_whole_restart_loses_nothing_that_was_covered() {
    let restarts = subsets().map(|empty| async move {
        let cluster = Cluster::started(&one_bucket(3), &THREE).await;
        cluster.fill("n1", KEYS, "v").await;
        cluster.covered().await;
        let cluster = restarted(cluster, &empty).await;
        holds_all(&cluster, &empty).await;
    });
    join_all(restarts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_n_minus_w_disks_empty_a_whole_restart_loses_nothing_that_only_w_journals_held() {
    let restarts = subsets().filter(|empty| empty.len() <= 1).map(|empty| async move {
        let mut cluster = Cluster::started(&without_steps(3), &THREE).await;
        // One is away while all is written: W journals hold it, and one of these is lost.
        let away = THREE.into_iter().find(|node| !empty.contains(node)).expect("two are left");
        cluster.crash(away).await;
        let through = THREE.into_iter().rfind(|node| *node != away).expect("two are left");
        cluster.fill(through, KEYS, "v").await;
        let cluster = restarted(cluster, &empty).await;
        holds_all(&cluster, &empty).await;
    });
    join_all(restarts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_more_disks_empty_a_whole_restart_loses_only_what_was_not_covered() {
    let restarts = subsets().filter(|empty| empty.len() > 1).map(|empty| async move {
        let cluster = Cluster::started(&without_steps(3), &THREE).await;
        cluster.fill("n1", KEYS, "v").await;
        for p in 0..4 {
            cluster.node("n1").snapshotter.step_here(PartitionId(p)).await.expect("a step");
        }
        put(cluster.serving("n1"), "young", "w").await.expect("written");
        // Nobody has to be asked, and it is served on: the log says `possible_loss`.
        let cluster = restarted(cluster, &empty).await;
        holds_all(&cluster, &empty).await;
        let young = get(cluster.serving("n1"), "young").await.expect("an answer");
        if empty.len() == THREE.len() {
            assert_eq!(young, None, "it was in three journals only, and those are gone");
        }
        put(cluster.serving("n2"), "young", "again").await.expect("written");
    });
    join_all(restarts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_volume_that_only_peers_know_of_does_not_vote() {
    let mut cluster = Cluster::started(&without_steps(3), &THREE).await;
    cluster.fill("n1", KEYS, "old").await;
    cluster.crash("n3").await;
    let data = cluster.var("n3").join("data");
    let old = cluster.dir.path().join("old-volume");
    std::fs::rename(&data, &old).expect("the volume is taken away");
    cluster.start("n3").await;
    cluster.serves("n3").await;
    let replacement = cluster.node("n3").replica.engine().incarnation();
    // n1 and the new folder of n3 hold this, and no snapshot ever heard of that folder.
    cluster.crash("n2").await;
    cluster.fill("n1", KEYS, "v").await;
    cluster.crash("n3").await;
    std::fs::remove_dir_all(&data).expect("the new folder is gone");
    std::fs::rename(&old, &data).expect("the old volume is back");
    cluster.start("n2").await;
    cluster.start("n3").await;
    for node in THREE {
        cluster.serves(node).await;
    }
    assert!(cluster.node("n3").replica.engine().incarnation() > replacement);
    cluster.crash("n1").await;
    for node in ["n2", "n3"] {
        for n in 0..KEYS {
            let found = get(cluster.serving(node), &format!("k{n}")).await.expect("read");
            assert_eq!(found.as_deref(), Some("v"), "k{n} through {node}");
        }
    }
}

/// A clock that stands at one time.
#[derive(Debug)]
struct Stopped(u64);
impl Clock for Stopped {
    fn now_micros(&self) -> u64 {
        self.0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_version_is_issued_again_after_a_kill_and_none_runs_away_from_the_clock() {
    let mut cluster = Cluster::new(&without_steps(1));
    let disk = FaultDisk::new(Arc::new(FsDisk));
    cluster.disk = Arc::new(disk.clone());
    let now = SystemClock.now_micros();
    let mut last = Version::ZERO;
    for run in 0..5 {
        // The clock is back where it was at the first start, and so is all that an origin is of.
        let clock = Arc::new(Stopped(now));
        let same = NodeOptions { clock, seed: 7, ..cluster.options("n1") };
        let node = Node::start(same, CancellationToken::new()).await.expect("a node starts");
        eventually("it serves", async || node.replica.state() == NodeState::Serving).await;
        let written = put(&node.serving, &format!("k{run}"), "v").await.expect("written").version;
        assert!(written > last, "{written} of run {run} is not above {last}");
        let ahead = Duration::from_micros(written.micros - now);
        assert!(ahead < CLOCK_DRIFT_MAX / 2, "{ahead:?} ahead in run {run}");
        last = written;
        // Killed: what it writes while it stops does not count.
        disk.fail_always(Call::Create, Fault::Error(io::ErrorKind::Other));
        node.stop().await;
        eventually("the folder is free", async || Arc::strong_count(&node) == 1).await;
        drop(node);
        disk.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshotter_whose_clock_is_behind_takes_over_at_once() {
    let mut cluster = Cluster::started(&without_steps(3), &THREE).await;
    cluster.fill("n1", KEYS, "old").await;
    for p in 0..4 {
        cluster.node("n1").snapshotter.step_here(PartitionId(p)).await.expect("a step");
    }
    cluster.crash("n1").await;
    // As far behind as a node may be that still serves.
    cluster.clock("n2").skew(-29_000_000);
    cluster.fill("n3", KEYS, "v").await;
    for p in 0..4 {
        let snapshotter = cluster.node("n2").snapshotter.clone();
        let step = snapshotter.step_here(PartitionId(p));
        let step = tokio::time::timeout(Duration::from_secs(10), step).await;
        step.expect("it waits for no clock").expect("a step");
    }
    // Only the store remembers.
    let cluster = restarted(cluster, &THREE).await;
    holds_all(&cluster, &THREE).await;
}
