//! Live migration as the replicas go through it: every phase, and the schedules that would lose or
//! revive records.

mod common;

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
};

use common::{
    Cluster, eventually,
    moving::{
        A_WHILE, Move, PARTITIONS, covered, deployments, document, fresh, partition_of, put_at,
        standing, standing_in, tail_of, value_of, vote_of,
    },
};
use tako_flatbuf::{NodeState, PutOutcome, Request};
use tako_journal::fault::MemDisk;
use tako_types::{ErrorKind, Kind, Lsn, PartitionId, config::Phase};
use tokio::{sync::oneshot, task::spawn_blocking, time::sleep};

const OLD: [&str; 3] = ["n1", "n2", "n3"];
const ONE_NODE: Move =
    Move { interval: "300ms", from: ("d", &[&[1, 2, 3]]), to: ("t", &[&[2, 3, 4]]) };
/// Steps only when they are asked for.
const BY_HAND: Move = Move { interval: "1h", ..ONE_NODE };

fn partitions() -> impl Iterator<Item = PartitionId> {
    (0..PARTITIONS).map(PartitionId)
}

/// Forces a step of every partition at whoever may take it.
async fn step_all(cluster: &Cluster, through: &str) {
    for p in partitions() {
        let first = cluster.node(through).snapshotter.first_in_line(p);
        let request = Request::ForceStep { partition: p };
        cluster.node(first.as_str()).replica.handle(request).await.expect("a step");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_moved_under_writes_and_nothing_is_lost() {
    let mut cluster = Cluster::started(&ONE_NODE.start(), &OLD).await;
    let mut names = Vec::new();
    let mut write = async |cluster: &Cluster, phase: &str| {
        for n in 0..8 {
            let name = format!("{phase}{n}");
            cluster.write_both("n2", &name, Kind::Value, phase).await;
            names.push((name, phase.to_owned()));
        }
    };
    write(&cluster, "before").await;
    cluster.join_at(ONE_NODE.phase(2, Phase::Join, vec![])).await;
    let refused = put_at(cluster.node("n4"), 2, &fresh("x", Kind::Value, "x")).await;
    assert_eq!(refused.map_err(|(kind, _)| kind), Err(ErrorKind::Invalid), "not yet");
    write(&cluster, "join").await;
    cluster.publish(&ONE_NODE.phase(3, Phase::WriteBoth, vec![])).await;
    let stale = put_at(cluster.node("n1"), 2, &fresh("x", Kind::Value, "x")).await;
    assert_eq!(stale.map_err(|(kind, _)| kind), Err(ErrorKind::StaleEpoch));
    write(&cluster, "both").await;
    assert_eq!(vote_of(cluster.node("n4"), "both0").await, None, "no read may rest on it");
    let barrier = cluster.barrier(&OLD, 3).await;
    cluster.publish(&ONE_NODE.phase(4, Phase::ReadNew, barrier)).await;
    write(&cluster, "new").await;
    for (name, value) in &names {
        let found = async || value_of(cluster.node("n4"), name).await;
        eventually("n4 is at the barrier", async || found().await.is_some()).await;
        assert_eq!(found().await.flatten().as_ref(), Some(value), "{name} at n4 alone");
    }
    cluster.publish(&ONE_NODE.phase(5, Phase::Leave, vec![])).await;
    let refused = put_at(cluster.node("n1"), 5, &fresh("x", Kind::Value, "x")).await;
    assert_eq!(refused.map_err(|(kind, _)| kind), Err(ErrorKind::Invalid), "it leaves");
    let mut write = async |cluster: &Cluster, phase: &str| {
        cluster.write_both("n2", phase, Kind::Value, phase).await;
        names.push((phase.to_owned(), phase.to_owned()));
    };
    write(&cluster, "leave").await;
    eventually("n1 has nothing uncovered", async || {
        standing(cluster.node("n1")).await.partitions.iter().all(|row| row.uncovered == 0)
    })
    .await;
    let end = ONE_NODE.end(6);
    cluster.publish(&end).await;
    cluster.node("n1").config.adopt(end).expect("it may follow");
    let engine = cluster.node("n1").replica.engine().clone();
    eventually("n1 left", async || partitions().all(|p| !engine.holds_any(p))).await;
    assert!(standing(cluster.node("n1")).await.partitions.is_empty());
    cluster.crash("n1").await;
    write(&cluster, "after").await;
    for (name, value) in &names {
        assert_eq!(cluster.read_quorum("n4", name).await.as_ref(), Some(value), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_gathered_before_the_epoch_is_no_barrier() {
    let mut cluster = Cluster::started(&BY_HAND.start(), &OLD).await;
    let p = partition_of("k");
    cluster.write_both("n1", "k", Kind::Value, "gathered").await;
    step_all(&cluster, "n1").await;
    // Only these two have it, and no step saw it.
    let late = fresh("k", Kind::Value, "late");
    for id in ["n1", "n2"] {
        put_at(cluster.node(id), 1, &late).await.expect("taken");
    }
    cluster.join_at(BY_HAND.phase(2, Phase::Join, vec![])).await;
    cluster.publish(&BY_HAND.phase(3, Phase::WriteBoth, vec![])).await;
    cluster.noted(&OLD, 3).await;
    let row = standing_in(cluster.node("n1"), p).await.expect("held");
    assert!(covered(&row, "n1") < row.adopted_lsn.expect("noted"), "the step is too old: {row:?}");
    // It stays what it was, whatever comes later and however often the node starts.
    let before = row.adopted_lsn;
    cluster.write_both("n1", "k", Kind::Value, "later").await;
    cluster.crash("n1").await;
    cluster.start("n1").await;
    cluster.serves("n1").await;
    cluster.noted(&OLD, 3).await;
    assert_eq!(standing_in(cluster.node("n1"), p).await.expect("held").adopted_lsn, before);
    let barrier = cluster.barrier(&OLD, 3).await;
    let row = standing_in(cluster.node("n1"), p).await.expect("held");
    assert!(row.adopted_lsn.expect("noted") <= covered(&row, "n1"));
    assert_eq!(barrier[usize::from(p.0)], row.step);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_journal_stood_is_noted_when_the_last_write_of_a_lower_epoch_has_ended() {
    let disk = MemDisk::default();
    let mut cluster = Cluster::new(&format!("cache: {{disk: 0}}\n{}", BY_HAND.start()));
    (cluster.disk, cluster.journal_file_bytes) = (Arc::new(disk.clone()), 1 << 20);
    cluster.start_all(&OLD).await;
    let (n1, p) = (cluster.node("n1").clone(), partition_of("k"));
    let (first, last) = (fresh("k", Kind::Value, "first"), fresh("k", Kind::Value, "last"));
    put_at(&n1, 1, &first).await.expect("taken");
    // Nobody else gets at the journal's file until `done` is dropped.
    let (done, is_done) = mpsc::channel::<()>();
    let folder = cluster.var("n1");
    let is_its = |path: &PathBuf| {
        path.starts_with(&folder) && path.extension().is_some_and(|it| it == "log")
    };
    let file = disk.paths().into_iter().filter(is_its).min().expect("a journal file");
    let (held, is_held) = oneshot::channel();
    let holding = spawn_blocking(move || {
        disk.edit(&file, |_| {
            held.send(()).expect("it is waited for");
            is_done.recv().expect_err("nothing is sent");
        })
    });
    is_held.await.expect("it is held");
    let writer = n1.clone();
    let writing = tokio::spawn(async move { put_at(&writer, 1, &last).await });
    let engine = n1.replica.engine();
    eventually("it is under way", async || !engine.partition_status(p).quiet).await;
    n1.config.adopt(BY_HAND.phase(2, Phase::WriteBoth, vec![])).expect("it may follow");
    sleep(A_WHILE).await;
    assert_eq!(standing(&n1).await.noted, 0, "what is under way may yet be acknowledged");
    drop(done);
    assert!(holding.await.expect("no panic"), "the file is there");
    writing.await.expect("no panic").expect("taken under the epoch before");
    cluster.noted(&["n1"], 2).await;
    let row = standing_in(&n1, p).await.expect("held");
    assert_eq!((row.adopted_lsn, row.uncovered), (Some(row.last_lsn), 1));
    assert!(Lsn(1) < row.last_lsn, "the later one counts: {row:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_node_below_the_barrier_does_not_vote_however_it_comes_to_the_end() {
    let mut cluster = Cluster::started(&BY_HAND.start(), &OLD).await;
    let p = partition_of("k");
    cluster.write_both("n1", "k", Kind::Value, "v").await;
    cluster.join_at(BY_HAND.phase(2, Phase::Join, vec![])).await;
    cluster.publish(&BY_HAND.phase(3, Phase::WriteBoth, vec![])).await;
    // It hears of no step and of no document.
    cluster.cut_off_n4();
    let barrier = cluster.barrier(&OLD, 3).await;
    let n4 = cluster.node("n4");
    assert!(n4.replica.engine().step(p) < barrier[usize::from(p.0)], "it is late");
    cluster.faults.refuse_all();
    for late in [BY_HAND.phase(4, Phase::ReadNew, barrier), BY_HAND.phase(5, Phase::Leave, vec![])]
    {
        n4.config.adopt(late).expect("it may follow");
        sleep(A_WHILE).await;
        assert_eq!(vote_of(n4, "k").await, None, "it has not seen the barrier");
    }
    let taken = put_at(n4, 5, &fresh("k", Kind::Value, "w")).await.expect("taken");
    let PutOutcome::Accepted { voting, .. } = taken else { panic!("{taken:?}") };
    assert!(!voting, "and now nobody else judges");
    cluster.faults.clear();
    eventually("it saw the barrier", async || vote_of(n4, "k").await.is_some()).await;
    assert_eq!(value_of(n4, "k").await.flatten().as_deref(), Some("w"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_node_that_missed_the_barriers_document_opens_a_fresh_view() {
    let mut cluster = Cluster::started(&BY_HAND.start(), &OLD).await;
    cluster.write_both("n1", "k", Kind::Value, "v").await;
    cluster.join_at(BY_HAND.phase(2, Phase::Join, vec![])).await;
    cluster.publish(&BY_HAND.phase(3, Phase::WriteBoth, vec![])).await;
    cluster.cut_off_n4();
    cluster.barrier(&OLD, 3).await;
    cluster.faults.refuse_all();
    let n4 = cluster.node("n4");
    n4.config.adopt(BY_HAND.phase(5, Phase::Leave, vec![])).expect("it may follow");
    sleep(A_WHILE).await;
    assert_eq!(vote_of(n4, "k").await, None, "its view is of before");
    cluster.faults.clear();
    eventually("it has a fresh view", async || vote_of(n4, "k").await.is_some()).await;
    assert_eq!(value_of(n4, "k").await.flatten().as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_target_that_is_used_again_starts_from_nothing() {
    let mut cluster = Cluster::started(&BY_HAND.start(), &OLD).await;
    let p = partition_of("k");
    cluster.join_at(BY_HAND.phase(2, Phase::Join, vec![])).await;
    cluster.publish(&BY_HAND.phase(3, Phase::WriteBoth, vec![])).await;
    cluster.write_both("n1", "k", Kind::Value, "first try").await;
    let barrier = cluster.barrier(&OLD, 3).await;
    cluster.publish(&BY_HAND.phase(4, Phase::ReadNew, barrier)).await;
    eventually("it votes", async || vote_of(cluster.node("n4"), "k").await.is_some()).await;
    // Given up; it is pulled and leaves.
    cluster.publish(&BY_HAND.abort(5)).await;
    assert_eq!(vote_of(cluster.node("n4"), "k").await, None, "nobody reads here now");
    step_all(&cluster, "n1").await;
    let gone = BY_HAND.aborted(6);
    cluster.publish(&gone).await;
    cluster.node("n4").config.adopt(gone).expect("it may follow");
    let engine = cluster.node("n4").replica.engine().clone();
    eventually("n4 left", async || partitions().all(|p| !engine.holds_any(p))).await;
    cluster.write_both("n1", "k", Kind::Value, "between").await;
    // Again, and this time it misses the document with the barrier.
    let join = BY_HAND.phase(7, Phase::Join, vec![]);
    cluster.publish(&join).await;
    cluster.node("n4").config.adopt(join).expect("it may follow");
    eventually("its views are open", async || engine.view(p).is_some()).await;
    let both = BY_HAND.phase(8, Phase::WriteBoth, vec![]);
    cluster.publish(&both).await;
    cluster.noted(&["n1", "n2", "n3", "n4"], 8).await;
    cluster.cut_off_n4();
    cluster.barrier(&OLD, 8).await;
    cluster.faults.refuse_all();
    cluster.node("n4").config.adopt(BY_HAND.phase(10, Phase::Leave, vec![])).expect("it follows");
    sleep(A_WHILE).await;
    assert_eq!(vote_of(cluster.node("n4"), "k").await, None, "what it was once does not count");
    cluster.faults.clear();
    eventually("it votes", async || vote_of(cluster.node("n4"), "k").await.is_some()).await;
    let found = value_of(cluster.node("n4"), "k").await.flatten();
    assert_eq!(found.as_deref(), Some("between"));
}

/// n3 is replaced by n4 while it is down, and comes back later.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_added_again_with_old_records_revives_nothing() {
    const THERE: Move =
        Move { interval: "300ms", from: ("d", &[&[1, 2, 3]]), to: ("t", &[&[1, 2, 4]]) };
    const BACK: Move =
        Move { interval: "300ms", from: ("t", &[&[1, 2, 4]]), to: ("d", &[&[1, 2, 3]]) };
    let mut cluster = Cluster::started(&THERE.start(), &OLD).await;
    cluster.write_both("n1", "first", Kind::Value, "v").await;
    cluster.covered().await;
    // Only n3 has it still when it goes.
    cluster.faults.refuse_all();
    cluster.write_both("n1", "k", Kind::Value, "old").await;
    cluster.crash("n3").await;
    cluster.faults.clear();
    cluster.join_at(THERE.phase(2, Phase::Join, vec![])).await;
    cluster.publish(&THERE.phase(3, Phase::WriteBoth, vec![])).await;
    cluster.write_both("n1", "k", Kind::Tombstone, "").await;
    let barrier = cluster.barrier(&["n1", "n2"], 3).await;
    cluster.publish(&THERE.phase(4, Phase::ReadNew, barrier)).await;
    cluster.publish(&THERE.phase(5, Phase::Leave, vec![])).await;
    cluster.publish(&THERE.end(6)).await;
    let mut round = 0;
    eventually("the tombstone is purged", async || {
        round += 1;
        for n in 0..16 {
            let value = round.to_string();
            cluster.write_both("n1", &format!("other{n}"), Kind::Value, &value).await;
        }
        cluster.covered().await;
        let purged = cluster.nodes.values().map(|node| {
            node.snapshotter.metrics().purged.load(std::sync::atomic::Ordering::Relaxed)
        });
        purged.sum::<u64>() >= 1
    })
    .await;
    cluster.publish(&BACK.phase(7, Phase::Join, vec![])).await;
    cluster.start("n3").await;
    eventually("n3 has the document", async || cluster.node("n3").config.epoch().number == 7).await;
    eventually("n3 serves", async || cluster.state("n3") == NodeState::Serving).await;
    cluster.publish(&BACK.phase(8, Phase::WriteBoth, vec![])).await;
    cluster.write_both("n1", "other", Kind::Value, "v").await;
    let barrier = cluster.barrier(&["n1", "n2", "n4"], 8).await;
    cluster.publish(&BACK.phase(9, Phase::ReadNew, barrier)).await;
    cluster.write_both("n1", "another", Kind::Value, "v").await;
    cluster.covered().await;
    for id in ["n1", "n2", "n3"] {
        eventually("it votes", async || vote_of(cluster.node(id), "k").await.is_some()).await;
        assert_eq!(value_of(cluster.node(id), "k").await, Some(None), "it came back at {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_no_step_covers_in_time_is_kept_told_and_pulled() {
    // n1 leaves the bucket and is in another one.
    const ASIDE: Move =
        Move { interval: "1h", from: ("d", &[&[1, 2, 3]]), to: ("t", &[&[2, 3, 4], &[1]]) };
    let mut cluster = Cluster::started(&ASIDE.start(), &OLD).await;
    let end = ASIDE.end(6);
    let moved = |p: PartitionId| !end.placement(p).holders.contains(&"n1".into());
    let name = (0..).map(|n| format!("k{n}")).find(|name| moved(partition_of(name)));
    let name = name.expect("the first bucket has a partition");
    let p = partition_of(&name);
    cluster.join_at(ASIDE.phase(2, Phase::Join, vec![])).await;
    // It was not acknowledged by W, so nobody has to wait for it.
    put_at(cluster.node("n1"), 2, &fresh(&name, Kind::Value, "v")).await.expect("taken");
    cluster.faults.refuse_all();
    cluster.publish(&ASIDE.phase(5, Phase::Leave, vec![])).await;
    cluster.publish(&end).await;
    sleep(A_WHILE).await;
    let n1 = cluster.node("n1");
    let row = standing_in(n1, p).await.expect("it is told");
    assert!(!row.holder && row.uncovered == 1 && row.last_lsn > Lsn(0), "{row:?}");
    assert_eq!(tail_of(n1, p).await, 1);
    cluster.faults.clear();
    // Its new snapshotter hears of it by gossip.
    eventually("n1 left", async || {
        let first = cluster.node("n2").snapshotter.first_in_line(p);
        let request = Request::ForceStep { partition: p };
        let _ = cluster.node(first.as_str()).replica.handle(request).await;
        !n1.replica.engine().holds_any(p)
    })
    .await;
    for id in ["n2", "n3"] {
        eventually("it is in the snapshot", async || {
            value_of(cluster.node(id), &name).await == Some(Some("v".to_owned()))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_left_is_empty_after_a_restart_too() {
    const ASIDE: Move =
        Move { interval: "1h", from: ("d", &[&[1, 2, 3]]), to: ("t", &[&[2, 3, 4], &[1]]) };
    let mut cluster = Cluster::started(&ASIDE.start(), &OLD).await;
    let end = ASIDE.end(6);
    let moved = |p: PartitionId| !end.placement(p).holders.contains(&"n1".into());
    for n in 0..16 {
        cluster.write_both("n1", &format!("k{n}"), Kind::Value, "v").await;
    }
    cluster.join_at(ASIDE.phase(2, Phase::Join, vec![])).await;
    cluster.publish(&ASIDE.phase(5, Phase::Leave, vec![])).await;
    step_all(&cluster, "n2").await;
    cluster.publish(&end).await;
    let engine = cluster.node("n1").replica.engine().clone();
    let left = || partitions().filter(|p| moved(*p));
    eventually("n1 left", async || left().all(|p| !engine.holds_any(p))).await;
    drop(engine);
    cluster.crash("n1").await;
    // Its views are not open yet: nothing but the mark says what is covered.
    cluster.faults.slow(Some(A_WHILE));
    cluster.start("n1").await;
    for p in left() {
        assert_eq!(tail_of(cluster.node("n1"), p).await, 0, "{p} came back");
    }
    cluster.faults.slow(None);
    cluster.serves("n1").await;
    for p in left() {
        assert!(!cluster.node("n1").replica.engine().holds_any(p));
    }
    // Entered again, it holds what the snapshot holds and nothing else.
    let again = deployments("1h", &[ASIDE.to, ASIDE.from], Some("d"));
    cluster.publish(&document(7, &again, Some((Phase::Join, "d")), vec![])).await;
    let engine = cluster.node("n1").replica.engine().clone();
    eventually("its views are open", async || partitions().all(|p| engine.view(p).is_some())).await;
    for p in left() {
        assert_eq!(engine.partition_status(p).uncovered, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_node_that_lost_its_state_asks_enough_of_each_set() {
    let mut cluster = Cluster::started(&BY_HAND.start(), &OLD).await;
    cluster.join_at(BY_HAND.phase(2, Phase::Join, vec![])).await;
    cluster.publish(&BY_HAND.phase(3, Phase::WriteBoth, vec![])).await;
    for n in 0..8 {
        cluster.write_both("n1", &format!("k{n}"), Kind::Value, "v").await;
    }
    cluster.crash("n3").await;
    cluster.crash("n4").await;
    cluster.lose_disk("n4");
    cluster.start("n4").await;
    // Two of the old set are there, but of the new one only n2 besides itself.
    sleep(2 * A_WHILE).await;
    assert_eq!(cluster.state("n4"), NodeState::Recovering);
    let row = standing(cluster.node("n4")).await;
    assert!(row.partitions.iter().all(|row| !row.recovered && row.adopted_lsn.is_none()));
    cluster.start("n3").await;
    eventually("n4 serves", async || cluster.state("n4") == NodeState::Serving).await;
    let engine = cluster.node("n4").replica.engine().clone();
    let held: usize = partitions().map(|p| engine.partition_status(p).uncovered).sum();
    assert_eq!(held, 8, "it holds again what it acknowledged");
    cluster.noted(&["n4"], 3).await;
}
