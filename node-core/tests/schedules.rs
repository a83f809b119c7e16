//! Schedules at one replica or its snapshotter that once lost, hid or revived something in some
//! store; the table in docs/testing.md says which rule each of them is about.

mod common;

use std::{collections::HashSet, sync::Arc};

use common::{
    alone::{Alone, MINE, P, Peer, coverage, record, step_of, tombstone},
    key,
};
use futures::FutureExt;
use tako_flatbuf::{NodeState, PutOutcome, Record, RecordHead, Request, Response};
use tako_journal::{FsDisk, Identity};
use tako_node_core::{
    engine::{Accepted, Engine, Intent, Missed, View},
    snapshotter::Snapshotter,
};
use tako_snapshot::{Committed, DueRow, StepInput};
use tako_types::{Incarnation, Kind, Lsn, NodeId, StepNumber};
use tokio_util::sync::CancellationToken;

/// Every record leaves memory at once, so that what is trimmed does not go into the cache.
const NO_MEMORY: u64 = 0;
/// A value that fills blocks of its own, which nothing else reads into the block cache.
static BLOCKS: [u8; 50_000] = [b'v'; 50_000];

/// A replica that shows the newest step.
async fn opened(alone: &Alone) -> Arc<Engine> {
    let (engine, _) = alone.engine(NO_MEMORY).await;
    engine.open_latest(P).await.expect("a view");
    engine
}

async fn put(engine: &Engine, name: &str, micros: u64) {
    engine.put(P, record(name, micros, b"w"), Intent::Write).await.expect("written");
}

async fn voted(engine: &Engine, name: &str) -> Option<u64> {
    let vote = engine.vote(P, &key(name)).await.expect("a vote");
    vote.record.map(|record| record.version().micros)
}

/// Moves a replica on to a step as its announcement does; `missed`: what it is told it lacks.
async fn announce(engine: &Engine, committed: &Committed, missed: &[&str]) {
    let reader = engine.snapshots().reader_at(P, committed.checkpoint).await.expect("a view");
    let view = View { meta: committed.meta.clone(), reader: Some(reader) };
    let missed: HashSet<u64> = missed.iter().map(|name| key(name).digest()).collect();
    engine.install(P, Arc::new(view), &Missed::Keys(missed));
}

// First-hit stale reads.

#[tokio::test]
async fn an_index_hit_is_no_answer_where_the_snapshot_may_hold_something_newer() {
    let alone = Alone::of(3);
    let engine = opened(&alone).await;
    put(&engine, "k", 5).await;
    // Others wrote above it; nothing of this node's is covered.
    let step = step_of(&[record("k", 9, b"v")], Default::default());
    let committed = alone.writer().await.step(step).await.expect("a step");
    announce(&engine, &committed, &["k"]).await;
    assert_eq!(voted(&engine, "k").await, Some(9), "the index was believed");
    let late = engine.put(P, record("k", 7, b"w"), Intent::Write).await.expect("judged");
    assert!(matches!(late, Accepted::Superseded(newer) if newer.micros == 9), "{late:?}");
}

#[tokio::test]
async fn a_cached_record_gives_way_to_a_write_that_a_step_covered_since() {
    let alone = Alone::of(3);
    let mut writer = alone.writer().await;
    writer.step(step_of(&[record("k", 5, b"v")], Default::default())).await.expect("a step");
    let engine = opened(&alone).await;
    assert_eq!(voted(&engine, "k").await, Some(5), "and it is cached now");
    put(&engine, "k", 9).await;
    assert_eq!(voted(&engine, "k").await, Some(9));
    let step = step_of(&[record("k", 9, b"w")], coverage("n3", MINE, 1));
    engine.trust_coverage();
    announce(&engine, &writer.step(step).await.expect("a step"), &[]).await;
    assert_eq!(engine.partition_status(P).uncovered, 0);
    assert_eq!(voted(&engine, "k").await, Some(9), "the cached one came back");
}

#[tokio::test]
async fn a_cached_record_gives_way_to_a_step_with_a_write_that_never_came_here() {
    let alone = Alone::of(3);
    let mut writer = alone.writer().await;
    writer.step(step_of(&[record("k", 5, b"v")], Default::default())).await.expect("a step");
    let engine = opened(&alone).await;
    assert_eq!(voted(&engine, "k").await, Some(5), "and it is cached now");
    let told = writer.step(step_of(&[record("k", 9, b"v")], Default::default())).await;
    announce(&engine, &told.expect("a step"), &["k"]).await;
    assert_eq!(voted(&engine, "k").await, Some(9), "it was told that it lacks this");
    // An announcement that does not follow on says nothing of the steps between.
    writer.step(step_of(&[record("k", 12, b"v")], Default::default())).await.expect("a step");
    let told = writer.step(step_of(&[record("other", 14, b"v")], Default::default())).await;
    announce(&engine, &told.expect("a step"), &["other"]).await;
    assert_eq!(voted(&engine, "k").await, Some(12), "a step was skipped");
}

// Late cache fills.

/// A read of `k` of version 5 that waits for the store while `happens`, and the reads after it.
async fn read_late(happens: impl AsyncFnOnce(&Alone, &Engine)) {
    let alone = Alone::of(3);
    // `last` only makes the snapshot's highest version higher than that of `k`.
    let rows = [record("k", 5, &BLOCKS), record("last", 6, &BLOCKS)];
    let first = alone.writer().await.step(step_of(&rows, Default::default())).await;
    first.expect("a step");
    let (engine, _) = alone.engine(NO_MEMORY).await;
    engine.trust_coverage();
    engine.open_latest(P).await.expect("a view");
    alone.faults.slow(Some(std::time::Duration::from_millis(50)));
    let k = key("k");
    let mut late = Box::pin(engine.vote(P, &k));
    assert!(late.as_mut().now_or_never().is_none(), "it waits for the store");
    alone.faults.slow(None);
    happens(&alone, &engine).await;
    let late = late.await.expect("a vote").record.map(|record| record.version().micros);
    assert_eq!(late, Some(5), "it began before the write");
    let cover = step_of(&[record("k", 9, b"w")], coverage("n3", MINE, 1));
    if engine.partition_status(P).uncovered > 0 {
        let committed = alone.writer().await.step(cover).await.expect("a step");
        announce(&engine, &committed, &[]).await;
    }
    assert_eq!(engine.partition_status(P).uncovered, 0);
    assert_eq!(voted(&engine, "k").await, Some(9), "the late fill is what is read");
}

#[tokio::test]
async fn a_read_that_ends_after_a_newer_write_leaves_nothing_in_the_cache() {
    read_late(async |_, engine| put(engine, "k", 9).await).await;
}

#[tokio::test]
async fn a_read_that_ends_after_the_step_that_covered_a_newer_write_leaves_nothing_in_the_cache() {
    read_late(async |alone, engine| {
        put(engine, "k", 9).await;
        let cover = step_of(&[record("k", 9, b"w")], coverage("n3", MINE, 1));
        let committed = alone.writer().await.step(cover).await.expect("a step");
        announce(engine, &committed, &[]).await;
    })
    .await;
}

// Coverage.

#[tokio::test]
async fn a_write_of_an_old_version_is_uncovered_until_a_step_covers_its_lsn() {
    let alone = Alone::of(1);
    let engine = opened(&alone).await;
    engine.trust_coverage();
    put(&engine, "new", 9).await;
    let (links, _) = alone.replica(&engine);
    let snapshotter = Snapshotter::new(links, engine.clone(), CancellationToken::new());
    snapshotter.step_here(P).await.expect("a step");
    assert_eq!(engine.partition_status(P).uncovered, 0);
    // The client's own timestamp: below all that the snapshot holds.
    put(&engine, "old", 5).await;
    put(&engine, "newer", 12).await;
    // What a step that does not know of `old` covers leaves it alone, whatever its versions are.
    let tail = engine.tail(P, Lsn(0), MINE).entries;
    assert_eq!(tail.iter().map(|entry| entry.version.micros).collect::<Vec<_>>(), [5, 12]);
    snapshotter.step_here(P).await.expect("a step");
    assert_eq!(engine.partition_status(P).uncovered, 0);
    snapshotter.close().await;
    let fresh = alone.writer().await;
    for name in ["old", "newer"] {
        let stored = fresh.get(key(name).as_bytes()).await.expect("readable");
        assert!(stored.is_some(), "{name} is covered and in no snapshot");
    }
}

#[tokio::test]
async fn a_step_with_higher_versions_trims_no_entry_above_its_coverage() {
    let alone = Alone::of(3);
    let engine = opened(&alone).await;
    engine.trust_coverage();
    put(&engine, "first", 5).await;
    put(&engine, "second", 6).await;
    let step =
        step_of(&[record("first", 5, b"w"), record("other", 9, b"v")], coverage("n3", MINE, 1));
    let committed = alone.writer().await.step(step).await.expect("a step");
    announce(&engine, &committed, &["other"]).await;
    assert_eq!(engine.partition_status(P).uncovered, 1);
    assert_eq!(voted(&engine, "first").await, Some(5));
    assert_eq!(voted(&engine, "second").await, Some(6), "it was only in this journal");
}

// Expiry.

#[tokio::test]
async fn an_expired_record_hides_the_older_one_before_and_after_its_step() {
    let alone = Alone::of(1);
    let mut writer = alone.writer().await;
    writer.step(step_of(&[record("k", 5, b"v")], Default::default())).await.expect("a step");
    writer.close().await;
    let engine = opened(&alone).await;
    engine.trust_coverage();
    let version = record("k", 9, b"").version();
    let expired = RecordHead { version, kind: Kind::Value, expires_at_micros: 1, flags: 0 };
    let expired = Record::encode(&key("k"), expired, None, b"short");
    engine.put(P, expired, Intent::Write).await.expect("written");
    assert_eq!(voted(&engine, "k").await, Some(9), "the older one is back");
    let (links, _replica) = alone.replica(&engine);
    let snapshotter = Snapshotter::new(links, engine.clone(), CancellationToken::new());
    snapshotter.step_here(P).await.expect("a step");
    snapshotter.close().await;
    assert_eq!(engine.partition_status(P).uncovered, 0);
    assert_eq!(voted(&engine, "k").await, Some(9), "the older one is back after the step");
}

// Two snapshotters.

#[tokio::test]
async fn a_fenced_snapshotter_covers_nothing_and_its_next_step_goes_on_above_the_other() {
    let alone = Alone::of(1);
    let engine = opened(&alone).await;
    engine.trust_coverage();
    let (links, _replica) = alone.replica(&engine);
    let snapshotter = Snapshotter::new(links, engine.clone(), CancellationToken::new());
    put(&engine, "a", 5).await;
    snapshotter.step_here(P).await.expect("a step");
    put(&engine, "b", 9).await;
    // Somebody who could not see it takes over.
    let mut other = alone.writer().await;
    other.step(step_of(&[record("c", 12, b"v")], Default::default())).await.expect("a step");
    snapshotter.step_here(P).await.expect_err("it is fenced");
    assert_eq!(engine.partition_status(P).uncovered, 1, "trimmed without a step");
    let step = snapshotter.step_here(P).await.expect("with a handle of its own again");
    assert_eq!((step, engine.step(P)), (StepNumber(3), StepNumber(3)));
    let late = other.step(step_of(&[record("d", 14, b"v")], Default::default())).await;
    late.expect_err("now this one is fenced");
    assert_eq!(engine.partition_status(P).uncovered, 0);
    for (name, micros) in [("a", Some(5)), ("b", Some(9)), ("c", Some(12)), ("d", None)] {
        assert_eq!(voted(&engine, name).await, micros, "{name}");
    }
    snapshotter.close().await;
}

// Tombstones.

/// A snapshot at step 2 in which `gone` is a tombstone that may go at a time.
async fn deleted(alone: &Alone, at_micros: u64) {
    let mut writer = alone.writer().await;
    let value = step_of(&[record("gone", 5, b"v")], Default::default());
    writer.step(value).await.expect("a step");
    let dead = tombstone("gone", 8);
    let due = DueRow { at_micros, key: key("gone").as_bytes().clone(), version: dead.version() };
    let step = StepInput { due: vec![due], ..step_of(&[dead], Default::default()) };
    writer.step(step).await.expect("a step");
    writer.close().await;
}

/// Takes a step with something new in it, at a snapshotter that just started; whether `gone` went.
async fn purges(alone: &Alone, engine: &Arc<Engine>, new: &str) -> bool {
    put(engine, new, 20).await;
    let (links, _replica) = alone.replica(engine);
    let snapshotter = Snapshotter::new(links, engine.clone(), CancellationToken::new());
    snapshotter.step_here(P).await.expect("a step");
    snapshotter.close().await;
    let view = engine.view(P).expect("it took a step");
    let reader = view.reader.as_ref().expect("there is a snapshot");
    let left = reader.get(key("gone").as_bytes()).await.expect("readable");
    let kind = left.map(|bytes| Record::decode(bytes).expect("intact").kind());
    assert_ne!(kind, Some(Kind::Value), "it is back");
    kind.is_none()
}

#[tokio::test]
async fn a_tombstone_is_kept_until_its_grace_is_over() {
    for (due, goes) in [(u64::MAX / 2, false), (1, true)] {
        let alone = Alone::of(1);
        deleted(&alone, due).await;
        let (engine, _) = alone.engine(NO_MEMORY).await;
        engine.open_latest(P).await.expect("a view");
        engine.trust_coverage();
        assert_eq!(purges(&alone, &engine, "a").await, goes, "due at {due}");
    }
}

/// n2 would purge, while n1 is as it is told to be; then that is over.
async fn purges_only_after(
    hinders: impl AsyncFnOnce(&Alone, &Arc<Peer>),
    ends: impl FnOnce(&Peer),
) {
    let alone = Alone::of(2);
    deleted(&alone, 1).await;
    let peer = Peer::new("n1", NodeState::Serving, Incarnation(1));
    peer.set_step(2);
    hinders(&alone, &peer).await;
    let engine = opened(&alone).await;
    engine.trust_coverage();
    assert!(!purges(&alone, &engine, "a").await, "n1 may still bring back what was deleted");
    if peer.asked().is_empty() {
        alone.serve(&peer).await;
    }
    peer.set_step(3);
    ends(&peer);
    assert!(purges(&alone, &engine, "b").await, "nothing is in the way any more");
}

#[tokio::test]
async fn a_tombstone_stays_while_a_replica_does_not_see_its_step() {
    let at_step_one = async |alone: &Alone, peer: &Arc<Peer>| {
        peer.set_step(1);
        alone.serve(peer).await;
    };
    purges_only_after(at_step_one, |_| {}).await;
}

#[tokio::test]
async fn a_tombstone_stays_while_a_replica_has_a_write_under_way() {
    let appending = async |alone: &Alone, peer: &Arc<Peer>| {
        peer.set_quiet(false);
        alone.serve(peer).await;
    };
    purges_only_after(appending, |peer| peer.set_quiet(true)).await;
}

#[tokio::test]
async fn a_tombstone_stays_while_a_replica_is_away() {
    purges_only_after(async |_, _| {}, |_| {}).await;
}

// The ghost acknowledgement, at the replica that exposes it.

#[tokio::test]
async fn who_was_asked_for_its_tail_by_a_new_folder_names_it_in_every_acknowledgement() {
    let alone = Alone::of(3);
    let engine = opened(&alone).await;
    let (_, replica) = alone.replica(&engine);
    let n1 = NodeId::new("n1");
    let tail = Request::Tail {
        partition: P,
        after: Lsn(0),
        incarnation: MINE,
        puller: n1.clone(),
        puller_incarnation: Incarnation(9),
    };
    replica.handle(tail).await.expect("a tail");
    let kept = Identity::load(&FsDisk, alone.dir.path()).expect("intact");
    let known = kept.and_then(|kept| kept.known.get(&n1).copied());
    assert_eq!(known, Some(Incarnation(9)), "a restart would forget it");
    let write =
        Request::Put { partition: P, record: record("k", 5, b"v"), repair: false, until_micros: 0 };
    let answer = replica.handle(write).await.expect("written");
    let Response::Put(PutOutcome::Accepted { known, .. }) = answer else { panic!("{answer:?}") };
    assert!(known.contains(&(n1, Incarnation(9))), "an older folder's acknowledgement counts");
}
