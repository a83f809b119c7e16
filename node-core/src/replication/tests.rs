//! Requests over replicas that answer as a test says, in virtual time.

use std::{collections::BTreeMap, sync::Mutex};

use bytes::Bytes;
use fake::Fake;
use tako_flatbuf::{
    MemoryNetwork, Network, PeerOptions, Peers, PutOutcome, Record, RecordHead, Request, Response,
    ServeOptions, StatAnswer, serve,
};
use tako_journal::FsDisk;
use tako_types::{
    Incarnation, Key, Kind, StepNumber, StoredKey, SystemClock, Version,
    config::{Config, Published},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{configuration::ConfigCell, membership::Membership};

mod again;
mod fake;
mod migration;
mod schedules;

/// A serving process that is no replica itself, over fake replicas of every key.
pub(super) struct Fakes {
    pub(super) serving: Arc<Serving>,
    /// In the order in which a read of [`key`] asks them.
    pub(super) replicas: Vec<Arc<Fake>>,
    _stop: tokio_util::sync::DropGuard,
}

fn key() -> StoredKey {
    Key::new(0, Bytes::from_static(b"k")).expect("a short key").stored()
}

pub(super) async fn fakes(count: usize) -> Fakes {
    let mut text = String::from(
        "partitions: 1\nactive_deployment: d\ndeployments:\n  d:\n    hash: {buckets_per_key: 1}\n    \
         buckets:\n      b1:\n",
    );
    for n in 1..=count {
        text.push_str(&format!("        n{n}: [n{n}, {}]\n", 4700 + n));
    }
    let config = Arc::new(Config::parse(&text).expect("a valid configuration"));
    let document = tako_ring::publish(config, 1, None).expect("it can be laid out");
    let ids: Vec<NodeId> = document.replicas(PartitionId(0)).to_vec();
    let (serving, mut by_id, stop) = serving_over(document, &ids).await;
    let order = serving.candidates(&key(), &ids);
    let replicas = order.iter().filter_map(|id| by_id.remove(id)).collect();
    Fakes { serving, replicas, _stop: stop }
}

/// A serving process that begins with a document, and a fake replica for each of `ids` (`n1` is at
/// `n1:4701`, and so on).
async fn serving_over(
    document: Published,
    ids: &[NodeId],
) -> (Arc<Serving>, BTreeMap<NodeId, Arc<Fake>>, tokio_util::sync::DropGuard) {
    let config =
        Arc::new(ConfigCell::new(document, Arc::new(FsDisk), None).expect("nothing to keep"));
    let network = MemoryNetwork::new();
    let me = NodeId::new("proxy");
    let peers = Peers::new(Arc::new(network.as_host("proxy")), PeerOptions::new(me.clone()));
    let links = Links::new(me, config, Arc::new(Membership::default()), Arc::new(peers));
    let serving = Serving::new(links, HybridClock::new(Arc::new(SystemClock), 1, 0));
    let stop = CancellationToken::new();
    let mut fakes = BTreeMap::new();
    for id in ids {
        let n: u16 = id.as_str()[1..].parse().expect("n and a number");
        let listener = network.listen(&format!("{id}:{}", 4700 + n)).await.expect("free");
        let fake = Arc::new(Fake::default());
        tokio::spawn(serve(listener, fake.clone(), ServeOptions::default(), stop.clone()));
        fakes.insert(id.clone(), fake);
    }
    (serving, fakes, stop.drop_guard())
}

pub(super) fn record(micros: u64) -> Record {
    let head = RecordHead {
        version: Version { micros, origin: 1 },
        kind: Kind::Value,
        expires_at_micros: 0,
        flags: 0,
    };
    Record::encode(&key(), head, None, b"value")
}

fn accepted() -> Option<Result<Response, RpcError>> {
    let known = Vec::new();
    Some(Ok(Response::Put(PutOutcome::Accepted {
        incarnation: Incarnation(1),
        voting: true,
        known,
    })))
}

fn superseded(version: Version) -> Option<Result<Response, RpcError>> {
    Some(Ok(Response::Put(PutOutcome::Superseded { version })))
}

/// A replica that always has just taken something newer.
fn overtakes(request: &Request) -> Option<Result<Response, RpcError>> {
    let Request::Put { record, .. } = request else { return None };
    let version = record.version();
    superseded(Version { micros: version.micros + 1, ..version })
}

/// A replica that holds a record of this version, and takes newer ones.
fn holds(version: Version) -> impl Fn(&Request) -> Option<Result<Response, RpcError>> {
    let held = Mutex::new(version);
    move |request| {
        let Request::Put { record, .. } = request else { return None };
        let mut held = held.lock().expect("no test panics holding it");
        if record.version() <= *held {
            return superseded(*held);
        }
        *held = record.version();
        accepted()
    }
}

/// The vote of a replica at step 0 whose newest entry is of `micros`, asked in either way.
fn votes(request: &Request, micros: u64) -> Option<Result<Response, RpcError>> {
    votes_at(request, micros, StepNumber(0))
}

fn votes_at(
    request: &Request,
    micros: u64,
    step: StepNumber,
) -> Option<Result<Response, RpcError>> {
    let record = record(micros);
    match request {
        Request::Get { .. } => {
            Some(Ok(Response::Get { record: Some(record), step, covered: false, voting: true }))
        }
        Request::Stat { .. } => {
            let answers = vec![StatAnswer { version: Some(record.version()), crc: record.crc() }];
            Some(Ok(Response::Stat { answers, step, voting: true }))
        }
        _ => accepted(),
    }
}

fn write() -> Write {
    Write {
        key: key(),
        kind: Kind::Value,
        value: Bytes::from_static(b"value"),
        content_type: None,
        flags: 0,
        expires_at_micros: 0,
        timestamp_micros: None,
        w: None,
    }
}

fn finishing(serving: &Serving) -> usize {
    serving.finishing_count.load(Ordering::Acquire)
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_write_is_counted_until_its_last_peer_failed_or_never_answered() {
    let fakes = fakes(5).await;
    for replica in &fakes.replicas[..3] {
        replica.answers(|_| accepted());
    }
    fakes.replicas[3].answers(|_| None);
    fakes.replicas[4].answers(|_| Some(Err(RpcError::new(ErrorKind::Internal, "broken"))));
    fakes.serving.put(write(), LONG).await.expect("three of five took it");
    assert_eq!(finishing(&fakes.serving), 1, "the silent peer is waited for behind the answer");
    fakes.serving.finish().await;
    assert_eq!(finishing(&fakes.serving), 0);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_cancelled_while_it_waits_for_its_rest_is_not_counted_for_ever() {
    let fakes = fakes(3).await;
    let serving = &fakes.serving;
    for replica in &fakes.replicas[..2] {
        replica.answers(|_| accepted());
    }
    fakes.replicas[2].answers(|_| None);
    let release = CancellationToken::new();
    for _ in 0..FINISHING_COUNT_MAX {
        serving.finish_later(release.clone().cancelled_owned()).await;
    }
    // No room behind the answer: each of these awaits its own rest, and its client leaves first.
    for _ in 0..3 {
        let put = tokio::time::timeout(CALL_DEADLINE / 2, serving.put(write(), LONG)).await;
        assert!(put.is_err(), "the third replica never answers");
    }
    assert_eq!(finishing(serving), FINISHING_COUNT_MAX);
    release.cancel();
    serving.finish().await;
    assert_eq!(finishing(serving), 0);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stops_answering_in_the_middle_of_a_read_is_replaced_by_another() {
    let fakes = fakes(3).await;
    fakes.replicas[0].answers(|request| votes(request, 5));
    // Its index answer must be settled by its whole vote, which never comes.
    fakes.replicas[1].answers(|request| match request {
        Request::Stat { .. } => votes(request, 9),
        _ => None,
    });
    fakes.replicas[2].answers(|request| votes(request, 9));
    let read = Read { key: key(), r: None };
    let found = fakes.serving.get(&read, LONG).await.expect("two of three answer");
    assert_eq!(found.map(|record| record.version().micros), Some(9));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stopped_answering_costs_a_read_one_time_out_however_many_others_fail() {
    let fakes = fakes(7).await;
    fakes.replicas[0].answers(|request| votes(request, 5));
    fakes.replicas[1].answers(|request| match request {
        Request::Stat { .. } => votes(request, 9),
        _ => None,
    });
    for replica in &fakes.replicas[2..4] {
        replica.answers(|request| votes(request, 5));
    }
    for replica in &fakes.replicas[4..6] {
        replica.answers(|_| Some(Err(RpcError::new(ErrorKind::Unavailable, "recovering"))));
    }
    fakes.replicas[6].answers(|request| votes(request, 9));
    let read = Read { key: key(), r: None };
    let started = Instant::now();
    let found = fakes.serving.get(&read, LONG).await.expect("four of seven answer");
    assert_eq!(found.map(|record| record.version().micros), Some(9));
    assert_eq!(fakes.replicas[1].asked("get"), 1, "asked in vain once");
    assert!(started.elapsed() < 2 * CALL_DEADLINE, "took {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_read_with_nobody_left_to_stand_in_fails_instead_of_answering_the_older_record() {
    let fakes = fakes(3).await;
    fakes.replicas[0].answers(|request| votes(request, 5));
    fakes.replicas[1].answers(|request| match request {
        Request::Stat { .. } => votes(request, 9),
        _ => None,
    });
    fakes.replicas[2].answers(|_| None);
    let read = Read { key: key(), r: None };
    let error = fakes.serving.get(&read, LONG).await.expect_err("one vote is no quorum");
    assert!(matches!(error, RequestError::TooFewVotes { got: 1, need: 2, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_write_goes_above_all_that_was_complete_before_and_not_only_above_the_first_answer() {
    let fakes = fakes(3).await;
    let ahead = |seconds: u64| {
        let micros = fakes.serving.clock().now_micros() + seconds * 1_000_000;
        Version { micros, origin: 1 }
    };
    // Two of three took a write by a clock that is ahead; the third has another that failed.
    let complete = ahead(20);
    fakes.replicas[0].answers(holds(ahead(10)));
    for replica in &fakes.replicas[1..] {
        replica.answers(holds(complete));
        replica.delay.set(Duration::from_millis(10)).expect("told once");
    }
    let written = fakes.serving.put(write(), LONG).await.expect("all are there");
    assert!(written.won, "it is lost to a write that was complete before it began");
    assert!(written.version > complete);
}

#[tokio::test(start_paused = true)]
async fn a_write_below_what_one_of_two_live_replicas_holds_waits_for_the_other_and_goes_above() {
    let fakes = fakes(3).await;
    let ahead = fakes.serving.clock().now_micros() + 10_000_000;
    fakes.replicas[0].answers(|_| Some(Err(RpcError::new(ErrorKind::Unavailable, "down"))));
    fakes.replicas[1].answers(holds(Version { micros: ahead, origin: 1 }));
    fakes.replicas[2].answers(holds(Version::ZERO));
    fakes.replicas[2].delay.set(Duration::from_millis(10)).expect("told once");
    let written = fakes.serving.put(write(), LONG).await.expect("two of three take it");
    assert!(written.won && written.version.micros > ahead);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_others_overtake_again_and_again_is_sent_once_more_and_then_done() {
    let fakes = fakes(3).await;
    for replica in &fakes.replicas {
        replica.answers(overtakes);
    }
    let written = fakes.serving.put(write(), LONG).await.expect("a race is no error");
    assert!(!written.won);
    fakes.serving.finish().await;
    for replica in &fakes.replicas {
        assert_eq!(replica.asked("put"), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fewer_than_w_replicas_hold_or_overtook_is_not_acknowledged() {
    let fakes = fakes(3).await;
    fakes.replicas[0].answers(overtakes);
    for replica in &fakes.replicas[1..] {
        replica.delay.set(Duration::from_millis(10)).expect("told once");
    }
    let first = std::sync::atomic::AtomicBool::new(true);
    fakes.replicas[1].answers(move |_| match first.swap(false, Ordering::AcqRel) {
        true => accepted(),
        false => Some(Err(RpcError::new(ErrorKind::Unavailable, "broken since"))),
    });
    fakes.replicas[2].answers(|_| Some(Err(RpcError::new(ErrorKind::Unavailable, "broken"))));
    let error = fakes.serving.put(write(), LONG).await.expect_err("one of three is no quorum");
    assert!(matches!(error, RequestError::TooFewAcks { got: 1, need: 2, .. }), "{error}");
}
