//! Recoveries that are cut short: what the next start still knows.

mod common;

use std::{collections::BTreeSet, path::Path};

use common::{Cluster, eventually, get, one_bucket, put};
use tako_flatbuf::NodeState;
use tako_journal::Identity;
use tako_types::{Incarnation, Lsn, PartitionId};

const THREE: [&str; 3] = ["n1", "n2", "n3"];

/// Steps only when they are asked for.
fn without_steps() -> String {
    one_bucket(3).replace("300ms", "1h")
}

/// Every partition on two of three nodes, more of them per node than are refilled at a time.
fn two_of_three() -> String {
    let mut text = String::from(
        "partitions: 64\nsnapshot: {interval: 1h}\nactive_deployment: d\ndeployments:\n  d:\n    \
         hash: {buckets_per_key: 2}\n    buckets:\n",
    );
    for n in 1..=3 {
        text.push_str(&format!("      b{n}:\n        n{n}: [localhost, {}]\n", 4700 + n));
    }
    text
}

fn identity(cluster: &Cluster, node: &str) -> Identity {
    let folder = cluster.var(node).join("data").join(node);
    Identity::load(&tako_journal::FsDisk, &folder).expect("intact").expect("there")
}

fn voting(cluster: &Cluster, node: &str) -> BTreeSet<PartitionId> {
    let engine = cluster.node(node).replica.engine().clone();
    let own = cluster.node(node).config.current().partitions_of(engine.node());
    own.into_iter().filter(|p| engine.is_voting(*p)).collect()
}

fn journal_files(cluster: &Cluster, node: &str) -> Vec<std::path::PathBuf> {
    let journal = cluster.var(node).join("data").join(node).join("journal");
    let files = std::fs::read_dir(journal).expect("the journal").flatten().map(|file| file.path());
    files.filter(|path| path.extension().is_some_and(|e| e == "log")).collect()
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

/// Removes a stopped node's journal files; the identity stays.
fn lose_journal(cluster: &Cluster, node: &str) {
    for file in journal_files(cluster, node) {
        std::fs::remove_file(file).expect("removed");
    }
}

/// Damages one entry in the middle of a stopped node's journal.
fn damage(cluster: &Cluster, node: &str) {
    let file = journal_files(cluster, node).into_iter().min().expect("a journal file");
    let mut bytes = std::fs::read(&file).expect("readable");
    let at = bytes.windows(2).position(|pair| pair == b"k9").expect("an entry");
    bytes[at] ^= 0xff;
    std::fs::write(&file, bytes).expect("written back");
}

/// n3 loses something, starts and stops with n2 away: only one is left to ask, and two are needed.
async fn recovers_until_it_is_over(lose: impl Fn(&Cluster)) {
    let mut cluster = Cluster::started(&without_steps(), &THREE).await;
    for n in 0..20 {
        put(cluster.serving("n1"), &format!("k{n}"), "v").await.expect("written");
    }
    eventually("n3 has them all", async || uncovered(&cluster, "n3") == 20).await;
    let before = cluster.node("n3").replica.engine().incarnation();
    cluster.crash("n2").await;
    cluster.crash("n3").await;
    lose(&cluster);
    for start in ["first", "second"] {
        cluster.start("n3").await;
        eventually("it knows what to do", async || {
            cluster.state("n3") != NodeState::Starting
                && cluster.node("n3").replica.engine().incarnation() > before
        })
        .await;
        assert_eq!(cluster.state("n3"), NodeState::Recovering, "{start} start");
        assert!(voting(&cluster, "n3").is_empty(), "{start} start");
        cluster.crash("n3").await;
        assert!(!identity(&cluster, "n3").recovered);
    }
    cluster.start("n2").await;
    cluster.start("n3").await;
    cluster.serves("n3").await;
    for n in 0..20 {
        let found = get(cluster.serving("n3"), &format!("k{n}")).await.expect("read");
        assert_eq!(found.as_deref(), Some("v"), "k{n}");
    }
    eventually("that is kept", async || identity(&cluster, "n3").recovered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refill_that_was_cut_short_is_not_over_at_the_next_start() {
    recovers_until_it_is_over(|cluster| cluster.lose_disk("n3")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_of_a_journal_that_was_cut_short_is_not_over_at_the_next_start() {
    recovers_until_it_is_over(|cluster| damage(cluster, "n3")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_refilled_before_a_recovery_was_cut_short_vote_at_the_next_start() {
    let mut cluster = Cluster::started(&two_of_three(), &THREE).await;
    cluster.fill("n1", 100, "v").await;
    let current = cluster.node("n1").config.current();
    let shared: BTreeSet<PartitionId> = current
        .partitions_of(&"n3".into())
        .into_iter()
        .filter(|p| current.replicas(*p).contains(&"n1".into()))
        .collect();
    let own = current.partitions_of(&"n3".into()).len();
    assert!(own - shared.len() > 8, "more partitions wait than are refilled at a time");
    cluster.crash("n2").await;
    cluster.crash("n3").await;
    cluster.lose_disk("n3");
    cluster.start("n3").await;
    eventually("what n1 has is refilled", async || voting(&cluster, "n3") == shared).await;
    eventually("that is kept", async || identity(&cluster, "n3").refilled == shared).await;
    let folder = cluster.node("n3").replica.engine().incarnation();
    cluster.crash("n3").await;
    // Nobody is there to ask.
    cluster.crash("n1").await;
    cluster.start("n3").await;
    eventually("it votes where it was refilled", async || voting(&cluster, "n3") == shared).await;
    assert_eq!(cluster.state("n3"), NodeState::Recovering);
    let engine = cluster.node("n3").replica.engine().clone();
    assert_eq!(engine.incarnation(), folder, "it lost nothing since");
    for n in 0..100 {
        let key = common::key(&format!("k{n}"));
        let p = key.partition(6);
        if shared.contains(&p) {
            let vote = engine.vote(p, &key).await.expect("a vote");
            assert!(vote.record.is_some(), "k{n} is in the journal");
        }
    }
    cluster.start("n1").await;
    cluster.start("n2").await;
    cluster.serves("n3").await;
    eventually("all of it is kept", async || {
        let identity = identity(&cluster, "n3");
        identity.recovered && identity.refilled.is_empty()
    })
    .await;
}

/// n3 was refilled in part, and loses something again.
async fn refills_all_of_it_again(lose: impl Fn(&Cluster)) {
    let mut cluster = Cluster::started(&two_of_three(), &THREE).await;
    cluster.fill("n1", 100, "v").await;
    cluster.crash("n2").await;
    cluster.crash("n3").await;
    cluster.lose_disk("n3");
    cluster.start("n3").await;
    let kept = async || !identity(&cluster, "n3").refilled.is_empty();
    eventually("some of it is refilled", kept).await;
    let before = cluster.node("n3").replica.engine().incarnation();
    cluster.crash("n3").await;
    cluster.crash("n1").await;
    lose(&cluster);
    for _ in 0..2 {
        cluster.start("n3").await;
        eventually("it goes on as another folder", async || {
            cluster.node("n3").replica.engine().incarnation() > before
                && cluster.state("n3") == NodeState::Recovering
        })
        .await;
        assert!(voting(&cluster, "n3").is_empty());
        assert!(identity(&cluster, "n3").refilled.is_empty());
        cluster.crash("n3").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refilled_partitions_whose_journal_is_damaged_are_refilled_again() {
    refills_all_of_it_again(|cluster| damage(cluster, "n3")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refilled_partitions_whose_journal_is_gone_are_refilled_again() {
    refills_all_of_it_again(|cluster| lose_journal(cluster, "n3")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_journal_files_are_not_forgotten_when_the_store_is_away_at_that_start() {
    let mut cluster = Cluster::started(&without_steps(), &THREE).await;
    cluster.fill("n1", 10, "v").await;
    cluster.crash("n2").await;
    cluster.crash("n3").await;
    lose_journal(&cluster, "n3");
    cluster.faults.retried(true);
    cluster.faults.refuse_all();
    let refused = cluster.faults.failed();
    cluster.start("n3").await;
    eventually("it asks for its views", async || cluster.faults.failed() > refused).await;
    assert_eq!(cluster.state("n3"), NodeState::Starting);
    // The empty journal is there by now: nothing else tells that there was another.
    cluster.crash("n3").await;
    cluster.faults.clear();
    cluster.start("n3").await;
    eventually("it has looked", async || cluster.state("n3") != NodeState::Starting).await;
    assert_eq!(cluster.state("n3"), NodeState::Recovering);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_back_is_noticed_though_the_first_start_wrote_past_what_was_covered_and_ended() {
    let mut cluster = Cluster::started(&without_steps(), &THREE).await;
    let count_in_n3 = async |cluster: &Cluster, count: usize| {
        eventually("n3 has them all", async || uncovered(cluster, "n3") == count).await;
    };
    cluster.fill("n1", 10, "old").await;
    count_in_n3(&cluster, 10).await;
    cluster.crash("n3").await;
    let backup = cluster.dir.path().join("backup");
    copy_folder(&cluster.var("n3").join("data"), &backup);
    cluster.start("n3").await;
    cluster.serves("n3").await;
    cluster.fill("n1", 10, "new").await;
    let lsn = async |cluster: &Cluster| cluster.node("n3").replica.engine().applied_lsn();
    eventually("n3 has these, too", async || lsn(&cluster).await >= Lsn(20)).await;
    for p in 0..4 {
        cluster.node("n1").snapshotter.step_here(PartitionId(p)).await.expect("a step");
    }
    let before = cluster.node("n3").replica.engine().incarnation();
    cluster.crash("n3").await;
    cluster.lose_disk("n3");
    copy_folder(&backup, &cluster.var("n3").join("data"));
    // Nobody can look at the coverage, and the numbers of covered entries are given once more.
    cluster.faults.retried(true);
    cluster.faults.refuse_all();
    cluster.start("n3").await;
    assert_eq!(cluster.state("n3"), NodeState::Starting);
    cluster.fill("n1", 40, "newer").await;
    eventually("n3 has them", async || uncovered(&cluster, "n3") == 40).await;
    assert!(lsn(&cluster).await > Lsn(20), "past what was covered");
    cluster.crash("n3").await;
    assert_eq!(identity(&cluster, "n3").untrusted_since, Some(Lsn(10)));
    cluster.faults.clear();
    cluster.start("n3").await;
    cluster.serves("n3").await;
    assert!(cluster.node("n3").replica.engine().incarnation() > before, "it was not noticed");
    assert_eq!(uncovered(&cluster, "n3"), 40, "new entries are taken for covered ones");
    assert_eq!(identity(&cluster, "n3").untrusted_since, None);
    cluster.crash("n3").await;
    cluster.start("n3").await;
    cluster.serves("n3").await;
    assert_eq!(uncovered(&cluster, "n3"), 40, "nor at the next start");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_ends_before_it_saw_the_store_trusts_nothing() {
    let config = one_bucket(1).replace("300ms", "1h");
    let mut cluster = Cluster::started(&config, &["n1"]).await;
    cluster.fill("n1", 10, "v").await;
    assert_eq!(identity(&cluster, "n1").untrusted_since, None);
    cluster.crash("n1").await;
    cluster.faults.retried(true);
    cluster.faults.refuse_all();
    let refused = cluster.faults.failed();
    let node = cluster.start("n1").await;
    eventually("it asks for its views", async || cluster.faults.failed() > refused).await;
    let engine = node.replica.engine().clone();
    drop(node);
    cluster.crash("n1").await;
    assert!((0..4).all(|p| !engine.is_voting(PartitionId(p))), "it came to vote");
    assert_eq!(identity(&cluster, "n1").untrusted_since, Some(Lsn(10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_told_to_leave_while_it_recovers_does_not_serve_when_that_is_over() {
    let mut cluster = Cluster::started(&without_steps(), &THREE).await;
    cluster.fill("n1", 10, "v").await;
    cluster.crash("n2").await;
    cluster.crash("n3").await;
    cluster.lose_disk("n3");
    let node = cluster.start("n3").await;
    eventually("it recovers", async || cluster.state("n3") == NodeState::Recovering).await;
    // How a drain begins; it may take its time over writes that are not finished.
    node.replica.set_state(NodeState::Draining);
    assert_eq!(cluster.state("n3"), NodeState::Recovering, "others must not rely on it yet");
    cluster.start("n2").await;
    eventually("it is whole", async || cluster.state("n3") != NodeState::Recovering).await;
    assert_eq!(cluster.state("n3"), NodeState::Draining);
}

fn uncovered(cluster: &Cluster, node: &str) -> usize {
    let engine = cluster.node(node).replica.engine();
    (0..4).map(|p| engine.partition_status(PartitionId(p)).uncovered).sum()
}

/// n3 goes on as a folder above `before`, and no replay brings anything back.
async fn holds_nothing_after_two_starts(cluster: &mut Cluster, before: Incarnation) {
    for start in ["first", "second"] {
        cluster.start("n3").await;
        cluster.serves("n3").await;
        assert!(cluster.node("n3").replica.engine().incarnation() > before);
        assert_eq!(uncovered(cluster, "n3"), 0, "{start} start");
        cluster.crash("n3").await;
    }
}

/// A cluster whose n3 was replaced and then got its old volume back, with the folder in between;
/// n3 is stopped, and a step covers all that is held.
async fn with_an_old_volume() -> (Cluster, Incarnation) {
    let mut cluster = Cluster::started(&without_steps(), &THREE).await;
    cluster.fill("n1", 10, "v").await;
    eventually("n3 has them all", async || uncovered(&cluster, "n3") == 10).await;
    cluster.crash("n3").await;
    let old = cluster.dir.path().join("old-volume");
    copy_folder(&cluster.var("n3").join("data"), &old);
    cluster.lose_disk("n3");
    cluster.start("n3").await;
    cluster.serves("n3").await;
    let replacement = cluster.node("n3").replica.engine().incarnation();
    for p in 0..4 {
        cluster.node("n1").snapshotter.step_here(PartitionId(p)).await.expect("a step");
    }
    cluster.crash("n3").await;
    cluster.lose_disk("n3");
    copy_folder(&old, &cluster.var("n3").join("data"));
    (cluster, replacement)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_old_volume_held_stays_forgotten_after_the_next_start() {
    let (mut cluster, replacement) = with_an_old_volume().await;
    holds_nothing_after_two_starts(&mut cluster, replacement).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_a_new_journal_are_not_taken_for_forgotten_ones_of_their_numbers() {
    let (mut cluster, _) = with_an_old_volume().await;
    cluster.start("n3").await;
    cluster.serves("n3").await;
    cluster.crash("n3").await;
    assert!(identity(&cluster, "n3").forgotten >= Lsn(10));
    lose_journal(&cluster, "n3");
    cluster.start("n3").await;
    cluster.serves("n3").await;
    cluster.fill("n1", 10, "new").await;
    eventually("n3 has them all", async || uncovered(&cluster, "n3") == 10).await;
    cluster.crash("n3").await;
    cluster.start("n3").await;
    cluster.serves("n3").await;
    assert_eq!(uncovered(&cluster, "n3"), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rolled_back_folder_had_covered_stays_covered_after_the_next_start() {
    let mut cluster = Cluster::started(&without_steps(), &THREE).await;
    let n3_holds = async |cluster: &Cluster, count: usize| {
        eventually("n3 has them all", async || uncovered(cluster, "n3") == count).await;
    };
    let step = async |cluster: &Cluster| {
        for p in 0..4 {
            cluster.node("n1").snapshotter.step_here(PartitionId(p)).await.expect("a step");
        }
    };
    cluster.fill("n1", 10, "old").await;
    n3_holds(&cluster, 10).await;
    step(&cluster).await;
    cluster.crash("n3").await;
    let backup = cluster.dir.path().join("backup");
    copy_folder(&cluster.var("n3").join("data"), &backup);
    cluster.start("n3").await;
    cluster.serves("n3").await;
    cluster.fill("n1", 10, "new").await;
    n3_holds(&cluster, 10).await;
    step(&cluster).await;
    let before = cluster.node("n3").replica.engine().incarnation();
    cluster.crash("n3").await;
    cluster.lose_disk("n3");
    copy_folder(&backup, &cluster.var("n3").join("data"));
    holds_nothing_after_two_starts(&mut cluster, before).await;
}
