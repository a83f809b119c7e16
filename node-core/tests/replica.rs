//! One replica at moments that a running cluster passes in no time; its peers are scripts.

mod common;

use std::{sync::Arc, time::Duration};

use common::{
    alone::{Alone, MINE, P, Peer, coverage, record, step_of},
    eventually, key,
};
use futures::FutureExt;
use tako_flatbuf::{NodeState, PutOutcome, Request, Response, StatAnswer};
use tako_node_core::{
    engine::{Engine, Intent, Missed, View},
    recovery::{LostState, open_views, refill},
    replica::Replica,
    snapshotter::Snapshotter,
};
use tako_snapshot::Meta;
use tako_types::{Incarnation, Lsn, NodeId, StepNumber};
use tokio_util::sync::CancellationToken;

const MEMORY_BYTES: u64 = 1 << 20;
/// Longer than it takes to poll a future once.
const STORE_DELAY: Duration = Duration::from_millis(200);

/// A replica that recovers, over a snapshot that holds `k` of version 5.
async fn recovering(alone: &Alone) -> Arc<Replica> {
    // Blocks of their own, which opening the view does not read into the cache.
    let value = vec![b'v'; 50_000];
    let records = [record("k", 5, &value), record("later", 9, &value)];
    let step = step_of(&records, Default::default());
    alone.writer().await.step(step).await.expect("a step");
    let (engine, _) = alone.engine(MEMORY_BYTES).await;
    engine.open_latest(P).await.expect("a view");
    alone.replica(&engine).1
}

/// Asks a replica, and lets it vote again while the answer waits for the store.
async fn asked_while_recovering(alone: &Alone, replica: &Replica, request: Request) -> Response {
    alone.faults.slow(Some(STORE_DELAY));
    let mut answer = Box::pin(replica.handle(request));
    assert!(answer.as_mut().now_or_never().is_none(), "it waits for the store");
    replica.engine().set_recovered(P, true);
    let answer = answer.await.expect("an answer");
    alone.faults.slow(None);
    replica.engine().set_recovered(P, false);
    answer
}

#[tokio::test]
async fn a_vote_begun_while_recovering_does_not_count_though_it_ends_later() {
    let alone = Alone::of(3);
    let replica = recovering(&alone).await;
    let request = Request::Get { partition: P, key: key("k") };
    let answer = asked_while_recovering(&alone, &replica, request).await;
    let Response::Get { record: Some(found), voting, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(found.version().micros, 5);
    assert!(!voting, "a whole vote begun while recovering counts");
}

#[tokio::test]
async fn a_merged_version_asked_for_while_recovering_does_not_count() {
    let alone = Alone::of(3);
    let replica = recovering(&alone).await;
    let request = Request::Stat { partition: P, keys: vec![key("k")], merged: true };
    let answer = asked_while_recovering(&alone, &replica, request).await;
    let Response::Stat { answers, voting, .. } = answer else { panic!("{answer:?}") };
    assert!(matches!(answers.as_slice(), [StatAnswer { version: Some(_), .. }]));
    assert!(!voting, "a merged vote begun while recovering counts");
}

#[tokio::test]
async fn a_write_judged_while_recovering_is_not_acknowledged_by_a_voter() {
    let alone = Alone::of(3);
    let replica = recovering(&alone).await;
    // Above what the snapshot holds of the key, below its highest: the store must be asked.
    let request =
        Request::Put { partition: P, record: record("k", 7, b"w"), repair: false, until_micros: 0 };
    let answer = asked_while_recovering(&alone, &replica, request).await;
    let Response::Put(PutOutcome::Accepted { voting, .. }) = answer else { panic!("{answer:?}") };
    assert!(!voting, "an acceptance begun while recovering counts");
}

#[tokio::test]
async fn a_write_that_comes_after_its_time_is_not_taken() {
    let alone = Alone::of(3);
    let (engine, _) = alone.engine(MEMORY_BYTES).await;
    engine.open_latest(P).await.expect("a view");
    let (_, replica) = alone.replica(&engine);
    engine.set_recovered(P, true);
    let now = engine.clock().now_micros();
    let put = |until_micros| Request::Put {
        partition: P,
        record: record("k", 7, b"w"),
        repair: true,
        until_micros,
    };
    let error = replica.handle(put(now - 1)).await.expect_err("too late");
    assert!(error.to_string().contains("too late"), "{error}");
    let get = Request::Get { partition: P, key: key("k") };
    let Ok(Response::Get { record: None, .. }) = replica.handle(get).await else {
        panic!("it was taken")
    };
    let answer = replica.handle(put(now + 60_000_000)).await.expect("in time");
    assert!(matches!(answer, Response::Put(PutOutcome::Accepted { .. })), "{answer:?}");
}

#[tokio::test]
async fn who_does_not_vote_on_a_partition_says_so_with_its_tail() {
    let alone = Alone::of(3);
    let (engine, _) = alone.engine(MEMORY_BYTES).await;
    let (_, replica) = alone.replica(&engine);
    replica.set_state(NodeState::Serving);
    let told = async || {
        let request = Request::Tail {
            partition: P,
            after: Lsn(0),
            incarnation: MINE,
            puller: NodeId::new("n1"),
            puller_incarnation: Incarnation(0),
        };
        match replica.handle(request).await.expect("a tail") {
            Response::Tail { state, .. } => state,
            other => panic!("{other:?}"),
        }
    };
    for state in [NodeState::Serving, NodeState::Draining] {
        replica.set_state(state);
        engine.set_recovered(P, false);
        assert_eq!(told().await, NodeState::Recovering, "{state:?} without a vote");
        engine.set_recovered(P, true);
        assert_eq!(told().await, state, "with a vote");
    }
}

#[tokio::test]
async fn a_node_that_leaves_before_it_came_up_says_what_it_lacks_and_never_serves_again() {
    let alone = Alone::of(3);
    let (engine, _) = alone.engine(MEMORY_BYTES).await;
    let (_, replica) = alone.replica(&engine);
    let tell = async |expected: NodeState| {
        assert_eq!(replica.gossip_state().state, expected);
        let health = replica.handle(Request::Health).await.expect("it is answered always");
        assert_eq!(health, Response::Health { state: expected });
        let request = Request::Put {
            partition: P,
            record: record("k", 7, b"w"),
            repair: false,
            until_micros: 0,
        };
        assert!(replica.handle(request).await.is_err(), "it leaves and takes nothing new");
    };
    replica.set_state(NodeState::Draining);
    tell(NodeState::Starting).await;
    replica.set_state(NodeState::Recovering);
    tell(NodeState::Recovering).await;
    replica.set_state(NodeState::Serving);
    tell(NodeState::Draining).await;
}

#[tokio::test]
async fn a_replica_that_does_not_vote_supersedes_nothing() {
    let alone = Alone::of(3);
    let replica = recovering(&alone).await;
    let older = || Request::Put {
        partition: P,
        record: record("k", 3, b"w"),
        repair: false,
        until_micros: 0,
    };
    let answer = replica.handle(older()).await.expect("an answer");
    let Response::Put(PutOutcome::Accepted { voting, incarnation, .. }) = answer else {
        panic!("a folder that may have to forget what it holds refuses a write: {answer:?}")
    };
    assert!(!voting && incarnation == MINE, "it can be void");
    replica.engine().set_recovered(P, true);
    let answer = replica.handle(older()).await.expect("an answer");
    let Response::Put(PutOutcome::Superseded { version }) = answer else { panic!("{answer:?}") };
    assert_eq!(version.micros, 5);
}

#[tokio::test]
async fn nothing_is_purged_on_the_word_of_a_folder_that_is_not_trusted_yet() {
    let alone = Alone::of(3);
    let (engine, _) = alone.engine(MEMORY_BYTES).await;
    engine.put(P, record("k", 5, b"v"), Intent::Write).await.expect("written");
    // A step covered the entry; not trusted, this node holds it all the same, in no tail.
    let step = step_of(&[record("k", 5, b"v")], coverage("n3", MINE, 1));
    alone.writer().await.step(step).await.expect("a step");
    engine.open_latest(P).await.expect("a view");
    assert_eq!(engine.partition_status(P).uncovered, 1);
    let tail = engine.tail(P, Lsn(1), MINE);
    assert!(tail.entries.is_empty() && !tail.quiet, "it says that all it holds is covered");
    engine.trust_coverage();
    assert!(engine.tail(P, Lsn(1), MINE).quiet);
}

/// Peers of a recovering n5; a majority of five is three, so three of four must be intact.
async fn refilling(
    alone: &Alone,
    peers: &[Arc<Peer>],
) -> (Arc<Engine>, tokio::task::JoinHandle<()>) {
    for peer in peers {
        alone.serve(peer).await;
    }
    let (engine, _) = alone.engine(MEMORY_BYTES).await;
    let lost = open_views(&engine, &[P]).await;
    assert_eq!(lost, None);
    let (links, replica) = alone.replica(&engine);
    let task = tokio::spawn(async move {
        let shutdown = CancellationToken::new();
        assert!(refill(&links, &replica, &[P], false, &shutdown).await, "nobody stops it");
    });
    (engine, task)
}

async fn ended(task: tokio::task::JoinHandle<()>) {
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("it ends").expect("no panic");
}

#[tokio::test]
async fn a_replica_that_starts_or_recovers_does_not_count_as_one_that_kept_its_state() {
    let alone = Alone::of(5);
    let serving = |n: u64| Peer::new(&format!("n{n}"), NodeState::Serving, Incarnation(n));
    let third = Peer::new("n3", NodeState::Starting, Incarnation(3));
    // n4 is away.
    let peers = [serving(1), serving(2), third.clone()];
    let (engine, task) = refilling(&alone, &peers).await;
    for state in [NodeState::Recovering, NodeState::Draining] {
        let before = third.asked().len();
        // One whole round after the one that may be on its way.
        eventually("two more rounds", async || {
            task.is_finished() || third.asked().len() >= before + 2
        })
        .await;
        assert!(!engine.is_voting(P), "two that kept their state are not three");
        third.set_state(state);
    }
    ended(task).await;
    assert!(engine.is_voting(P));
}

#[tokio::test]
async fn what_a_step_covered_between_a_tail_and_its_fetch_is_seen_before_the_node_votes() {
    let alone = Arc::new(Alone::of(3));
    let peers = [1, 2].map(|n| Peer::new(&format!("n{n}"), NodeState::Serving, Incarnation(n)));
    peers[0].hold(4, record("k", 5, b"v"));
    let mut writer = alone.writer().await;
    let store = alone.clone();
    peers[0].on_fetch(Box::new(move || {
        async move {
            let covered = coverage("n1", Incarnation(1), 4);
            writer.step(step_of(&[record("k", 5, b"v")], covered)).await.expect("a step");
            // For some time nobody can look at that step.
            store.faults.refuse_all();
            StepNumber(1)
        }
        .boxed()
    }));
    let (engine, task) = refilling(&alone, &peers).await;
    let before = alone.faults.failed();
    let rounds = peers[1].asked().len();
    eventually("it looked for the step", async || {
        task.is_finished()
            || (alone.faults.failed() > before && peers[1].asked().len() > rounds + 1)
    })
    .await;
    assert!(!engine.is_voting(P), "it votes without the record");
    alone.faults.clear();
    ended(task).await;
    assert!(engine.is_voting(P));
    assert_eq!(engine.step(P), StepNumber(1));
    let found = engine.vote(P, &key("k")).await.expect("a vote").record;
    assert_eq!(found.map(|record| record.version().micros), Some(5));
}

#[tokio::test]
async fn a_step_that_overtook_the_only_fetch_is_seen_before_the_node_votes() {
    let alone = Alone::of(3);
    let peers = [1, 2].map(|n| Peer::new(&format!("n{n}"), NodeState::Serving, Incarnation(n)));
    peers[0].hold(4, record("k", 5, b"v"));
    let mut writer = alone.writer().await;
    peers[0].on_fetch(Box::new(move || {
        async move {
            let covered = coverage("n1", Incarnation(1), 4);
            writer.step(step_of(&[record("k", 5, b"v")], covered)).await.expect("a step");
            StepNumber(1)
        }
        .boxed()
    }));
    let (engine, task) = refilling(&alone, &peers).await;
    ended(task).await;
    assert_eq!(peers[0].asked().len(), 1, "one round was enough");
    let found = engine.vote(P, &key("k")).await.expect("a vote").record;
    assert_eq!(found.map(|record| record.version().micros), Some(5), "it votes without the record");
}

#[tokio::test]
async fn what_the_own_view_covers_is_not_pulled_back_from_a_replica_that_still_starts() {
    let alone = Alone::of(3);
    // The step covered `gone`, and its tombstone was purged since: nothing shows it was deleted.
    let step = step_of(&[record("later", 9, b"v")], coverage("n1", Incarnation(1), 4));
    alone.writer().await.step(step).await.expect("a step");
    let starting = Peer::new("n1", NodeState::Starting, Incarnation(1));
    starting.hold(3, record("gone", 5, b"v"));
    starting.hold(6, record("k", 7, b"v"));
    let peers = [starting.clone(), Peer::new("n2", NodeState::Serving, Incarnation(2))];
    let (engine, task) = refilling(&alone, &peers).await;
    ended(task).await;
    assert_eq!(starting.asked(), [(Lsn(4), Incarnation(1))]);
    let held = async |name| engine.vote(P, &key(name)).await.expect("a vote").record.is_some();
    assert!(held("k").await);
    assert!(!held("gone").await, "a purged key is back");
}

#[tokio::test]
async fn a_refill_takes_nothing_from_a_folder_that_another_came_after() {
    let alone = Alone::of(3);
    let step = step_of(&[record("later", 9, b"v")], coverage("n1", Incarnation(9), 4));
    alone.writer().await.step(step).await.expect("a step");
    // An old volume, attached again: `gone` was deleted and purged after it was replaced.
    let old = Peer::new("n1", NodeState::Starting, Incarnation(1));
    old.hold(6, record("gone", 5, b"v"));
    let peers = [old.clone(), Peer::new("n2", NodeState::Serving, Incarnation(2))];
    let (engine, task) = refilling(&alone, &peers).await;
    eventually("two rounds", async || task.is_finished() || old.asked().len() >= 2).await;
    assert_eq!(engine.partition_status(P).uncovered, 0, "a purged key is back");
    assert!(!engine.is_voting(P), "one of two was not heard");
    // It notices, and goes on as a new one.
    old.start_anew(Incarnation(12));
    ended(task).await;
    assert!(engine.is_voting(P));
}

#[tokio::test]
async fn a_step_writes_nothing_from_a_folder_that_another_came_after() {
    // Once the snapshot knows of the later folder, once only other nodes told of it.
    for (covered, told) in [(9, None), (1, Some(Incarnation(9)))] {
        let alone = Alone::of(3);
        let step = step_of(&[record("later", 9, b"v")], coverage("n1", Incarnation(covered), 4));
        let mut writer = alone.writer().await;
        writer.step(step).await.expect("a step");
        writer.close().await;
        let old = Peer::new("n1", NodeState::Starting, Incarnation(1));
        old.hold(6, record("gone", 5, b"v"));
        alone.serve(&old).await;
        let (engine, _) = alone.engine(MEMORY_BYTES).await;
        engine.open_latest(P).await.expect("a view");
        engine.put(P, record("k", 20, b"v"), Intent::Write).await.expect("written");
        let (links, _) = alone.replica(&engine);
        if let Some(folder) = told {
            links.membership.learn(&NodeId::new("n1"), folder);
        }
        let snapshotter = Snapshotter::new(links, engine.clone(), CancellationToken::new());
        snapshotter.step_here(P).await.expect("a step");
        assert!(!old.asked().is_empty());
        assert_eq!(engine.step(P), StepNumber(2));
        let held = async |name| engine.vote(P, &key(name)).await.expect("a vote").record.is_some();
        assert!(held("k").await);
        assert!(!held("gone").await, "a purged key is back, told of {told:?}");
        snapshotter.close().await;
    }
}

#[tokio::test]
async fn coverage_above_a_rolled_back_journal_trims_nothing_that_came_since() {
    let alone = Alone::of(3);
    let (engine, _) = alone.engine(MEMORY_BYTES).await;
    for n in 0..3 {
        engine.put(P, record(&format!("k{n}"), n + 1, b"v"), Intent::Write).await.expect("written");
    }
    engine.close();
    drop(engine);
    // The snapshot saw ten entries of this folder; the journal was put back to its first three.
    let (engine, recovered) = alone.engine(MEMORY_BYTES).await;
    assert_eq!(recovered.last_lsn, Lsn(3));
    for n in 0..9 {
        engine
            .put(P, record(&format!("new{n}"), 100 + n, b"v"), Intent::Write)
            .await
            .expect("written");
    }
    let step = step_of(&[record("k0", 1, b"v")], coverage("n3", MINE, 10));
    alone.writer().await.step(step).await.expect("a step");
    let lost = open_views(&engine, &[P]).await;
    // Its last LSN is above the coverage by now; what the replay found is not.
    let expected = LostState::RolledBack { partition: P, covered: Lsn(10), last: Lsn(3) };
    assert_eq!(lost, Some(expected));
    let tail = engine.tail(P, Lsn(0), MINE);
    let left: Vec<u64> = tail.entries.iter().map(|entry| entry.lsn.0).collect();
    assert_eq!(left, (4..=12).collect::<Vec<_>>(), "new entries bear the numbers of covered ones");
    // As another folder its entries are no more covered than before, trusted or not.
    engine.adopt(Incarnation(MINE.0 + 1)).await.expect("another folder");
    engine.trust_coverage();
    let meta = Meta { step: StepNumber(2), coverage: coverage("n3", MINE, 11), ..Meta::default() };
    engine.install(P, Arc::new(View { meta, reader: None }), &Missed::All);
    assert_eq!(engine.partition_status(P).uncovered, 9);
}

/// A step may cover what came while the folder was not trusted yet, and be the last for long.
#[tokio::test]
async fn what_a_step_covered_before_the_folder_was_trusted_is_trimmed_when_it_is() {
    let alone = Alone::of(3);
    let (engine, _) = alone.engine(MEMORY_BYTES).await;
    for n in 0..4 {
        engine.put(P, record(&format!("k{n}"), n + 1, b"v"), Intent::Write).await.expect("written");
    }
    let meta = Meta { step: StepNumber(1), coverage: coverage("n3", MINE, 3), ..Meta::default() };
    engine.install(P, Arc::new(View { meta, reader: None }), &Missed::All);
    assert_eq!(engine.partition_status(P).uncovered, 4, "not trusted yet");
    engine.trust_coverage();
    assert_eq!(engine.partition_status(P).uncovered, 1);
}

#[tokio::test]
async fn after_damage_all_that_was_read_is_journalled_again_even_beyond_the_memory_budget() {
    const RECORDS: u64 = 20;
    let alone = Alone::of(3);
    let (engine, _) = alone.engine(MEMORY_BYTES).await;
    for n in 0..RECORDS {
        let value = format!("value-{n:02}-").repeat(100);
        engine
            .put(P, record(&format!("k{n}"), n + 1, value.as_bytes()), Intent::Write)
            .await
            .expect("written");
    }
    engine.close();
    drop(engine);
    assert!(alone.disk.edit(&alone.first_journal_file(), |bytes| {
        let damaged = b"value-07-";
        let at = bytes.windows(damaged.len()).position(|w| w == damaged).expect("it is there");
        bytes[at] ^= 0xff;
    }));
    // Two of the twenty fit into memory.
    let (engine, recovered) = alone.engine(2_500).await;
    assert!(recovered.damage.is_some());
    assert!(engine.memory_bytes() <= 2_500);
    let read = engine.partition_status(P).uncovered;
    assert_eq!(read as u64, RECORDS - 1, "one group was damaged");
    engine.adopt(Incarnation(MINE.0 + 1)).await.expect("another folder");
    engine.journal_again().await.expect("journalled again");
    engine.close();
    drop(engine);
    let (engine, recovered) = alone.engine_as(Incarnation(MINE.0 + 1), 2_500).await;
    assert_eq!(recovered.damage, None);
    assert_eq!(engine.partition_status(P).uncovered, read, "the rest is in no journal any more");
    for n in (0..RECORDS).filter(|n| *n != 7) {
        let (found, _) = engine.fetch(P, &[key(&format!("k{n}"))]).await.expect("readable");
        let value = format!("value-{n:02}-").repeat(100);
        assert_eq!(found.first().map(|r| r.value().to_vec()), Some(value.into_bytes()), "k{n}");
    }
}

/// Every request is moved and kept with all that it may come to: the store's side, of 20 KiB and
/// more, is on the heap.
#[tokio::test]
async fn a_request_carries_no_room_for_store_reads_that_it_may_not_need() {
    let alone = Alone::of(3);
    let (engine, _) = alone.engine(MEMORY_BYTES).await;
    let (_, replica) = alone.replica(&engine);
    let bytes = size_of_val(&replica.handle(Request::Health));
    assert!(bytes <= 8 << 10, "{bytes} bytes");
}
