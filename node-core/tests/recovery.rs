//! Restarts, lost and old data folders, take-over: what a cluster holds afterwards.

mod common;

use std::{collections::BTreeSet, path::Path, time::Duration};

use common::{Cluster, eventually, get, one_bucket, put, tombstone};
use tako_flatbuf::NodeState;
use tako_node_core::replication::RequestError;
use tako_types::PartitionId;

const THREE: [&str; 3] = ["n1", "n2", "n3"];
/// Steps only when they are asked for.
fn without_steps(nodes: usize) -> String {
    one_bucket(nodes).replace("300ms", "1h")
}

async fn check(cluster: &Cluster, through: &str, count: usize, value: Option<&str>) {
    for n in 0..count {
        let found = get(cluster.serving(through), &format!("k{n}")).await.expect("read");
        assert_eq!(found.as_deref(), value, "k{n} through {through}");
    }
}

/// Waits until so many tombstones were purged.
async fn purged(cluster: &Cluster, count: u64) {
    let mut round = 0;
    eventually("tombstones are purged", async || {
        // A purge rides on a step, and a step needs something new in each partition.
        round += 1;
        for n in 0..64 {
            let value = round.to_string();
            put(cluster.serving("n1"), &format!("other{n}"), &value).await.expect("written");
        }
        cluster.covered().await;
        let purged = cluster.nodes.values().map(|node| {
            node.snapshotter.metrics().purged.load(std::sync::atomic::Ordering::Relaxed)
        });
        purged.sum::<u64>() >= count
    })
    .await;
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_whole_cluster_keeps_what_only_journals_held() {
    let mut cluster = Cluster::started(&without_steps(3), &THREE).await;
    cluster.fill("n1", 50, "v").await;
    cluster.crash_all().await;
    for node in THREE {
        cluster.start(node).await;
    }
    for node in THREE {
        cluster.serves(node).await;
        check(&cluster, node, 50, Some("v")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_node_does_not_vote_before_it_was_refilled() {
    let mut cluster = Cluster::started(&without_steps(3), &THREE).await;
    cluster.fill("n1", 20, "v").await;
    let before = cluster.node("n3").replica.engine().incarnation();
    cluster.crash("n3").await;
    cluster.lose_disk("n3");
    // With n2 away only one intact replica is left to ask, and N-W+1 is two.
    cluster.crash("n2").await;
    cluster.start("n3").await;
    eventually("it was looked at", async || cluster.state("n3") != NodeState::Starting).await;
    assert_eq!(cluster.state("n3"), NodeState::Recovering, "it lost state");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let engine = cluster.node("n3").replica.engine().clone();
    assert!((0..4).all(|p| !engine.is_voting(PartitionId(p))), "one survivor is not enough");
    assert!(get(cluster.serving("n1"), "k0").await.is_err(), "unavailable, not absent");
    cluster.start("n2").await;
    cluster.serves("n3").await;
    assert!(cluster.node("n3").replica.engine().incarnation() > before);
    check(&cluster, "n3", 20, Some("v")).await;
    // It holds by itself what it once acknowledged.
    let held: usize = (0..4).map(|p| engine.partition_status(PartitionId(p)).uncovered).sum();
    assert_eq!(held, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovering_node_takes_writes_but_its_acknowledgement_alone_does_not_count() {
    let mut cluster = Cluster::started(&without_steps(3), &THREE).await;
    cluster.crash("n3").await;
    cluster.lose_disk("n3");
    cluster.crash("n2").await;
    cluster.start("n3").await;
    eventually("it recovers", async || cluster.state("n3") == NodeState::Recovering).await;
    // Two of three acknowledge, but only one of them votes; N-W+1 is two.
    eventually("n1 reaches it, and both acknowledge", async || {
        let error = put(cluster.serving("n1"), "k", "v").await.expect_err("one voter is too few");
        matches!(error, RequestError::TooFewAcks { got: 2, need: 2, .. })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_data_folders_lost_the_store_alone_gives_everything_older_than_a_step() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    cluster.fill("n1", 50, "v").await;
    cluster.covered().await;
    cluster.crash_all().await;
    for node in THREE {
        cluster.lose_disk(node);
        cluster.start(node).await;
    }
    for node in THREE {
        cluster.serves(node).await;
        check(&cluster, node, 50, Some("v")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_folder_is_noticed_and_refilled() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    cluster.fill("n1", 10, "old").await;
    cluster.covered().await;
    cluster.crash("n3").await;
    let backup = cluster.dir.path().join("backup");
    copy_folder(&cluster.var("n3").join("data"), &backup);
    cluster.start("n3").await;
    cluster.serves("n3").await;
    cluster.fill("n1", 10, "new").await;
    cluster.covered().await;
    let before = cluster.node("n3").replica.engine().incarnation();
    cluster.crash("n3").await;
    cluster.lose_disk("n3");
    copy_folder(&backup, &cluster.var("n3").join("data"));
    cluster.start("n3").await;
    cluster.serves("n3").await;
    assert!(cluster.node("n3").replica.engine().incarnation() > before, "it is a new folder now");
    check(&cluster, "n3", 10, Some("new")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_folder_of_the_node_attached_again_is_noticed() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    cluster.fill("n1", 10, "old").await;
    cluster.crash("n3").await;
    let old = cluster.dir.path().join("old-volume");
    copy_folder(&cluster.var("n3").join("data"), &old);
    cluster.lose_disk("n3");
    cluster.start("n3").await;
    cluster.serves("n3").await;
    let replacement = cluster.node("n3").replica.engine().incarnation();
    cluster.fill("n1", 10, "new").await;
    cluster.covered().await;
    // The peers forget it with their disks: only the snapshot knows of the folder in between.
    cluster.crash_all().await;
    for node in THREE {
        cluster.lose_disk(node);
    }
    copy_folder(&old, &cluster.var("n3").join("data"));
    for node in THREE {
        cluster.start(node).await;
    }
    eventually("n3 votes", async || cluster.state("n3") == NodeState::Serving).await;
    assert!(cluster.node("n3").replica.engine().incarnation() > replacement, "as the old folder");
    cluster.serves("n3").await;
    check(&cluster, "n3", 10, Some("new")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_another_cluster_is_moved_aside_and_not_lost() {
    let mut other = Cluster::started(&one_bucket(1), &["n1"]).await;
    put(other.serving("n1"), "foreign", "x").await.expect("written");
    other.crash("n1").await;
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    cluster.fill("n1", 10, "v").await;
    cluster.crash("n3").await;
    cluster.lose_disk("n3");
    copy_folder(&other.var("n1").join("data/n1"), &cluster.var("n3").join("data/n3"));
    cluster.start("n3").await;
    cluster.serves("n3").await;
    check(&cluster, "n3", 10, Some("v")).await;
    assert_eq!(get(cluster.serving("n3"), "foreign").await.expect("read"), None);
    assert!(cluster.var("n3").join("data/n3.foreign-1/journal").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_middle_of_a_journal_is_lost_state_and_repaired_from_the_others() {
    let mut cluster = Cluster::started(&without_steps(3), &THREE).await;
    for n in 0..30 {
        put(cluster.serving("n1"), &format!("k{n}"), "v").await.expect("written");
    }
    eventually("n3 has them all", async || {
        let engine = cluster.node("n3").replica.engine();
        (0..4).map(|p| engine.partition_status(PartitionId(p)).uncovered).sum::<usize>() == 30
    })
    .await;
    let before = cluster.node("n3").replica.engine().incarnation();
    cluster.crash("n3").await;
    let journal = cluster.var("n3").join("data/n3/journal");
    let file = std::fs::read_dir(&journal)
        .expect("the journal")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .min()
        .expect("a journal file");
    let mut bytes = std::fs::read(&file).expect("readable");
    let at = bytes.windows(2).position(|pair| pair == b"k9").unwrap_or(2_000);
    bytes[at] ^= 0xff;
    std::fs::write(&file, bytes).expect("written back");
    cluster.start("n3").await;
    cluster.serves("n3").await;
    let engine = cluster.node("n3").replica.engine().clone();
    assert!(engine.incarnation() > before);
    check(&cluster, "n3", 30, Some("v")).await;
    let held: usize = (0..4).map(|p| engine.partition_status(PartitionId(p)).uncovered).sum();
    assert_eq!(held, 30, "everything is in its new journal");
    // And it is durable there: another restart asks nobody.
    cluster.crash_all().await;
    cluster.start("n3").await;
    eventually("it serves again", async || cluster.state("n3") == NodeState::Serving).await;
    let engine = cluster.node("n3").replica.engine().clone();
    let held: usize = (0..4).map(|p| engine.partition_status(PartitionId(p)).uncovered).sum();
    assert_eq!(held, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_journal_files_or_a_damaged_identity_are_lost_state() {
    let mut cluster = Cluster::started(&without_steps(3), &THREE).await;
    cluster.fill("n1", 10, "v").await;
    for damage in ["journal", "identity"] {
        let before = cluster.node("n3").replica.engine().incarnation();
        cluster.crash("n3").await;
        let path = cluster.var("n3").join("data/n3").join(damage);
        if damage == "journal" {
            for file in std::fs::read_dir(&path).expect("the journal").flatten() {
                let _ = std::fs::remove_file(file.path());
            }
        } else {
            std::fs::write(&path, "nonsense").expect("written");
        }
        cluster.start("n3").await;
        cluster.serves("n3").await;
        assert!(cluster.node("n3").replica.engine().incarnation() > before, "{damage}");
        check(&cluster, "n3", 10, Some("v")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_takes_over_when_the_snapshotter_dies() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    cluster.fill("n1", 40, "a").await;
    cluster.covered().await;
    let first: BTreeSet<String> = (0..4)
        .map(|p| cluster.node("n1").snapshotter.first_in_line(PartitionId(p)).to_string())
        .collect();
    let dead = first.first().cloned().expect("somebody");
    cluster.crash(&dead).await;
    let alive = THREE.iter().find(|id| **id != dead).expect("another");
    cluster.fill(alive, 40, "b").await;
    cluster.covered().await;
    check(&cluster, alive, 40, Some("b")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_keys_do_not_come_back_with_a_server_that_was_away() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    cluster.fill("n1", 20, "v").await;
    cluster.crash("n3").await;
    for n in 0..20 {
        let limit = Duration::from_secs(5);
        cluster.serving("n1").put(tombstone(&format!("k{n}")), limit).await.expect("deleted");
    }
    cluster.start("n3").await;
    cluster.serves("n3").await;
    for node in THREE {
        check(&cluster, node, 20, None).await;
    }
    cluster.covered().await;
    for node in THREE {
        check(&cluster, node, 20, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_are_purged_after_their_grace_and_stay_deleted() {
    let config = format!("tombstone_grace: 500ms\n{}", one_bucket(3));
    let cluster = Cluster::started(&config, &THREE).await;
    cluster.fill("n1", 20, "v").await;
    cluster.covered().await;
    for n in 0..20 {
        let limit = Duration::from_secs(5);
        cluster.serving("n1").put(tombstone(&format!("k{n}")), limit).await.expect("deleted");
    }
    cluster.covered().await;
    purged(&cluster, 1).await;
    for node in THREE {
        check(&cluster, node, 20, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn purged_keys_do_not_come_back_with_an_old_volume() {
    let config = format!("tombstone_grace: 500ms\n{}", one_bucket(3));
    let mut cluster = Cluster::started(&config, &THREE).await;
    cluster.fill("n1", 20, "v").await;
    cluster.crash("n3").await;
    let old = cluster.dir.path().join("old-volume");
    copy_folder(&cluster.var("n3").join("data"), &old);
    cluster.lose_disk("n3");
    cluster.start("n3").await;
    cluster.serves("n3").await;
    for n in 0..20 {
        let limit = Duration::from_secs(5);
        cluster.serving("n1").put(tombstone(&format!("k{n}")), limit).await.expect("deleted");
    }
    cluster.covered().await;
    purged(&cluster, 20).await;
    // A cached tombstone would hide what came back.
    cluster.crash_all().await;
    cluster.lose_disk("n3");
    copy_folder(&old, &cluster.var("n3").join("data"));
    for node in THREE {
        cluster.start(node).await;
    }
    for node in THREE {
        cluster.serves(node).await;
    }
    let mut back = BTreeSet::new();
    for _ in 0..2 {
        for node in THREE {
            for name in (0..20).map(|n| format!("k{n}")) {
                let found = get(cluster.serving(node), &name).await.expect("read");
                back.extend(found.map(|_| name));
            }
        }
        put(cluster.serving("n3"), "another", "step").await.expect("written");
        cluster.covered().await;
    }
    // A runtime that ends under the steps of running nodes may hang: then nobody would see this.
    cluster.crash_all().await;
    assert!(back.is_empty(), "deleted keys are back: {back:?}");
    assert!(cluster.var("n3").join("data/n3.old-1/journal").is_dir(), "kept for the operator");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_longer_than_one_step_is_covered_step_by_step() {
    let config = without_steps(1).replace("partitions: 4", "partitions: 1");
    let cluster = Cluster::started(&config, &["n1"]).await;
    let value = "x".repeat(30 << 20);
    // Written in descending order of the stored keys, so that key order is against LSN order.
    let mut names: Vec<String> = (0..5).map(|n| format!("big{n}")).collect();
    names.sort_by_key(|name| std::cmp::Reverse(common::key(name)));
    for name in &names {
        put(cluster.serving("n1"), name, &value).await.expect("written");
    }
    let node = cluster.node("n1");
    for _ in 0..3 {
        node.snapshotter.step_here(PartitionId(0)).await.expect("a step");
    }
    assert_eq!(node.replica.engine().partition_status(PartitionId(0)).uncovered, 0);
    for name in &names {
        let found = get(cluster.serving("n1"), name).await.expect("read");
        assert_eq!(found.map(|value| value.len()), Some(30 << 20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_does_not_exist_is_refused() {
    use tako_flatbuf::Request;
    use tako_types::{ErrorKind, Incarnation, Lsn, NodeId};

    let cluster = Cluster::started(&one_bucket(1), &["n1"]).await;
    let partition = PartitionId(u16::MAX);
    let tail = Request::Tail {
        partition,
        after: Lsn(0),
        incarnation: Incarnation(0),
        puller: NodeId::new("x"),
        puller_incarnation: Incarnation(0),
    };
    for request in [tail, Request::Fetch { partition, keys: vec![common::key("k")] }] {
        let error = cluster.node("n1").replica.handle(request).await.expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_record_that_is_covered_late_does_not_hide_the_tombstone_above_it() {
    let mut cluster = Cluster::started(&without_steps(3), &THREE).await;
    cluster.fill("n1", 20, "v").await;
    eventually("n3 has them all", async || {
        let engine = cluster.node("n3").replica.engine();
        (0..4).map(|p| engine.partition_status(PartitionId(p)).uncovered).sum::<usize>() == 20
    })
    .await;
    cluster.crash("n3").await;
    for n in 0..20 {
        let limit = Duration::from_secs(5);
        cluster.serving("n1").put(tombstone(&format!("k{n}")), limit).await.expect("deleted");
    }
    let steps = cluster.node("n1").snapshotter.clone();
    for p in 0..4 {
        steps.step_here(PartitionId(p)).await.expect("a step with the tombstones");
    }
    cluster.start("n3").await;
    cluster.serves("n3").await;
    let engine = cluster.node("n3").replica.engine().clone();
    for p in 0..4 {
        steps.step_here(PartitionId(p)).await.expect("a step with what n3 still held");
        assert_eq!(engine.partition_status(PartitionId(p)).uncovered, 0, "n3 was told of it");
    }
    for node in THREE {
        check(&cluster, node, 20, None).await;
    }
}
