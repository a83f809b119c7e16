//! The bench over Tako's own RPC against replicas that are right, and against replicas that are
//! wrong in one known way.
//!
//! Method: a service in this process, behind `tako_flatbuf::serve` on a free TCP port, keeps every
//! record it took and injects one fault; `measure` must call it by its name.

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use common::args;
use tako_flatbuf::{
    CallHead, Caller, Network, PutOutcome, Record, Request, Response, RpcError, ServeOptions,
    Service, TcpNetwork, serve,
};
use tako_loadtest::bench::{Report, measure};
use tako_types::{
    ErrorKind, Incarnation, Kind, NodeId, PartitionId, StepNumber, StoredKey, Version,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

const EPOCH: u64 = 7;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Reads show the first record.
    Stale,
    /// Reads show a value with one bit flipped, in a record that is sound.
    Corrupt,
    /// Reads show a record that fails its checksum.
    Damaged,
    /// Reads find nothing.
    Missing,
    /// Reads find a tombstone.
    Deleted,
    /// Reads find a value that expired in 1970.
    Expired,
    /// Reads show another key's value.
    WrongKey,
    /// The first write to come is held until one with a higher version was taken.
    Overtaken,
    /// Nothing is ever answered.
    Silent,
    /// Writes are said to be superseded by their own version.
    FalselySuperseded,
    /// Half a minute ahead of all clocks, somebody else wrote every key before.
    Ahead,
    /// Each epoch that the node names is stale at the next call.
    NoEpoch,
    /// Answers are no votes.
    NotVoting,
    /// A put is answered as if it were a get.
    WrongAnswer,
    /// All calls are turned away.
    Refuse,
}

struct Replica {
    fault: Fault,
    partitions_log2: u32,
    records: Mutex<HashMap<StoredKey, Vec<Record>>>,
    stale_epochs: AtomicU64,
    superseded: AtomicU64,
    puts: AtomicU64,
    taken: Notify,
    callers: Mutex<Vec<Caller>>,
}

impl Replica {
    fn newest(&self, key: &StoredKey) -> Option<Version> {
        let records = self.records.lock().expect("not poisoned");
        records.get(key)?.iter().map(Record::version).max()
    }

    fn put(&self, record: Record) -> PutOutcome {
        let version = record.version();
        if self.fault == Fault::FalselySuperseded {
            return PutOutcome::Superseded { version };
        }
        let mut records = self.records.lock().expect("not poisoned");
        let held = records.entry(record.key()).or_default();
        let newest = held.iter().map(Record::version).max();
        let newest = newest.or_else(|| {
            let ahead = Version { micros: version.micros + 30_000_000, origin: 3 };
            (self.fault == Fault::Ahead && version.micros < self.first_ahead()).then_some(ahead)
        });
        if let Some(version) = newest.filter(|newest| version < *newest) {
            self.superseded.fetch_add(1, Ordering::Relaxed);
            return PutOutcome::Superseded { version };
        }
        held.push(record);
        self.taken.notify_one();
        PutOutcome::Accepted { incarnation: Incarnation(1), voting: true, known: Vec::new() }
    }

    /// Wall time, and a little: what was stamped by a clock that was not moved lies below.
    fn first_ahead(&self) -> u64 {
        use tako_types::Clock as _;
        tako_types::SystemClock.now_micros() + 10_000_000
    }

    fn get(&self, key: &StoredKey) -> Option<Record> {
        let records = self.records.lock().expect("not poisoned");
        let held = match self.fault {
            Fault::WrongKey => records.iter().find(|(other, _)| *other != key).map(|(_, it)| it),
            _ => records.get(key),
        }?;
        let newest = match self.fault {
            Fault::Stale => held.first(),
            _ => held.iter().max_by_key(|record| record.version()),
        }?;
        let (mut head, mut value) = (*newest.head(), newest.value().to_vec());
        match self.fault {
            Fault::Missing => return None,
            Fault::Deleted => (head.kind, value) = (Kind::Tombstone, Vec::new()),
            Fault::Expired => head.expires_at_micros = 1,
            Fault::Corrupt => value[150] ^= 4,
            Fault::Damaged => return Some(damaged(newest)),
            _ => return Some(newest.clone()),
        }
        Some(Record::encode(key, head, None, &value))
    }
}

/// The same record with one bit of its value flipped and the old checksum.
fn damaged(record: &Record) -> Record {
    let mut bytes = record.bytes().to_vec();
    let value = record.value();
    let at = bytes.windows(value.len()).position(|it| it == value).expect("holds its value");
    bytes[at + 150] ^= 4;
    Record::decode_trusted(Bytes::from(bytes)).expect("only the checksum is wrong")
}

#[async_trait]
impl Service for Replica {
    async fn call(
        &self,
        caller: &Caller,
        head: &CallHead,
        request: Request,
    ) -> Result<Response, RpcError> {
        if let Request::Hello { .. } = request {
            self.callers.lock().expect("not poisoned").push(caller.clone());
            let node = NodeId::new("n1");
            return Ok(Response::Hello { cluster: None, node, incarnation: Incarnation(1) });
        }
        if self.fault == Fault::Silent {
            std::future::pending::<()>().await;
        }
        if self.fault == Fault::Refuse {
            return Err(RpcError::busy("not now", 10));
        }
        if self.fault == Fault::NoEpoch || head.epoch != EPOCH {
            self.stale_epochs.fetch_add(1, Ordering::Relaxed);
            return Err(RpcError::stale_epoch(EPOCH));
        }
        let right = |partition: PartitionId, key: &StoredKey| {
            if key.partition(self.partitions_log2) == partition {
                return Ok(());
            }
            Err(RpcError::new(ErrorKind::Invalid, "the key is of another partition"))
        };
        let (step, covered, voting) = (StepNumber(1), false, self.fault != Fault::NotVoting);
        match request {
            Request::Put { .. } if self.fault == Fault::WrongAnswer => {
                Ok(Response::Get { record: None, step, covered, voting })
            }
            Request::Put { partition, record, repair: false, .. } => {
                right(partition, &record.key())?;
                let number = self.puts.fetch_add(1, Ordering::Relaxed);
                if self.fault == Fault::Overtaken && number == 0 {
                    while self.newest(&record.key()) < Some(record.version()) {
                        self.taken.notified().await;
                    }
                }
                Ok(Response::Put(self.put(record)))
            }
            Request::Get { partition, key } => {
                right(partition, &key)?;
                Ok(Response::Get { record: self.get(&key), step, covered, voting })
            }
            _ => Err(RpcError::new(ErrorKind::Invalid, "a bench does not ask this")),
        }
    }
}

/// A replica behind TCP; it stops serving when the guard is dropped.
async fn start(fault: Fault, partitions_log2: u32) -> (String, Arc<Replica>, DropGuard) {
    let replica = Arc::new(Replica {
        fault,
        partitions_log2,
        records: Mutex::default(),
        stale_epochs: AtomicU64::new(0),
        superseded: AtomicU64::new(0),
        puts: AtomicU64::new(0),
        taken: Notify::new(),
        callers: Mutex::default(),
    });
    let listener = TcpNetwork.listen("127.0.0.1:0").await.expect("a port");
    let address = listener.address();
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(listener, replica.clone(), ServeOptions::default(), shutdown.clone()));
    (address, replica, shutdown.drop_guard())
}

async fn run(address: &str, options: &str) -> anyhow::Result<Report> {
    let (_keep, stop) = watch::channel(false);
    measure(&args(&format!("--protocol rpc --rpc {address} {options}")), stop).await
}

async fn bench(fault: Fault, options: &str) -> Report {
    let (address, _, _serving) = start(fault, 5).await;
    run(&address, options).await.expect("runs")
}

async fn check_caught(fault: Fault, options: &str, name: &str) {
    let report = bench(fault, options).await;
    assert!(!report.passed, "{fault:?} passed: {report}");
    let verification = &report.target.verification;
    assert!(verification.violations.contains_key(name), "{fault:?}: {report}");
    assert!(!verification.examples.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_replica_passes_in_every_mode() {
    for options in [
        "--read-share 0.5",
        "--read-share 0.5 --threads 2 --connections 8",
        "--read-share 0.5 --distribution zipf --mode open --rate 500/s",
        "--read-share 0.3 --keys 2 --connections 16 --threads 2",
        "--read-share 0.7 --no-preload --keys 2000",
        "--read-share 0.5 --value-size 300KiB --keys 5",
        "--requests 333",
    ] {
        let report = bench(Fault::None, options).await;
        assert!(report.passed && report.target.errors.is_empty(), "{options}: {report}");
        assert!(report.target.reads.requests > 0 && report.target.writes.requests > 0);
        assert!(report.target.verification.reads_checked >= report.target.reads.requests);
        assert_eq!(report.target.unfinished, 0);
        assert!(!options.contains("requests") || report.target.total.requests == 333);
        let keys = report.options.keys.filter(|_| !options.contains("no-preload"));
        assert_eq!(report.target.preloaded, keys);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_workers_of_a_thread_share_one_connection() {
    let (address, replica, _serving) = start(Fault::None, 5).await;
    let report = run(&address, "--no-preload --connections 32 --threads 2").await.expect("runs");
    assert!(report.passed, "{report}");
    let callers = replica.callers.lock().expect("not poisoned");
    assert_eq!(callers.len(), 2);
    assert!(callers.iter().all(|caller| caller.node.as_str() == "bench"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_epoch_is_learnt_from_a_refusal_and_kept() {
    let (address, replica, _serving) = start(Fault::None, 5).await;
    let report = run(&address, "").await.expect("runs");
    assert!(report.passed && report.target.errors.is_empty(), "{report}");
    let refused = replica.stale_epochs.load(Ordering::Relaxed);
    // At most once for each of the calls that were first in flight.
    assert!((1..=4).contains(&refused), "{refused}");

    let report = bench(Fault::NoEpoch, "--no-preload --requests 20").await;
    assert!(!report.passed);
    assert_eq!(report.target.errors.get("RPC StaleEpoch"), Some(&20), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_goes_to_one_of_several_nodes_and_to_its_partition() {
    let (first, at_first, _serving) = start(Fault::None, 3).await;
    let (second, at_second, _serving_too) = start(Fault::None, 3).await;
    let options = format!("--rpc {second} --partitions 8 --read-share 0.5");
    let report = run(&first, &options).await.expect("runs");
    assert!(report.passed && report.target.errors.is_empty(), "{report}");
    let counts = [at_first, at_second].map(|it| it.records.lock().expect("not poisoned").len());
    assert_eq!(counts, [25, 25]);

    let (address, _, _serving) = start(Fault::None, 5).await;
    let report = run(&address, "--partitions 1 --no-preload --requests 40").await.expect("runs");
    assert!(report.target.errors.contains_key("RPC Invalid"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_answers_are_caught_and_named() {
    check_caught(Fault::Stale, "--read-share 0.5", "stale").await;
    check_caught(Fault::Corrupt, "", "corrupt").await;
    check_caught(Fault::Corrupt, "--verify content", "corrupt").await;
    check_caught(Fault::Damaged, "", "damaged").await;
    check_caught(Fault::Damaged, "--verify content", "damaged").await;
    check_caught(Fault::Missing, "", "missing").await;
    check_caught(Fault::Deleted, "", "missing").await;
    check_caught(Fault::Expired, "", "missing").await;
    check_caught(Fault::WrongKey, "", "wrong key").await;
    check_caught(Fault::FalselySuperseded, "--no-preload --read-share 0", "not superseded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_level_lets_old_values_pass_and_none_lets_all_values_pass() {
    assert!(bench(Fault::Stale, "--read-share 0.5 --verify content").await.passed);
    assert!(bench(Fault::Corrupt, "--verify none").await.passed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_ahead_of_the_clock_costs_one_write_and_is_then_passed() {
    let report = bench(Fault::Ahead, "--read-share 0.5").await;
    assert!(report.passed, "{report}");
    assert!(report.target.writes.requests > 0 && report.target.errors.is_empty(), "{report}");

    // Without a preload the refused writes are in the report, at most one per worker.
    let report = bench(Fault::Ahead, "--read-share 0.5 --no-preload").await;
    let refused = report.target.errors.get("RPC superseded by another writer");
    assert!(report.passed && refused.is_some_and(|count| (1..=4).contains(count)), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_no_votes_or_to_something_else_are_errors() {
    let report = bench(Fault::NotVoting, "").await;
    assert!(report.target.reads.requests == 0, "{report}");
    assert!(report.target.errors.contains_key("RPC no vote"), "{report}");
    let report = bench(Fault::WrongAnswer, "--no-preload --read-share 0 --requests 40").await;
    assert!(!report.passed);
    assert_eq!(report.target.errors.get("RPC answer to something else"), Some(&40), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_fails_when_every_request_fails_and_errors_are_counted_by_kind() {
    let report = bench(Fault::Refuse, "--no-preload --read-share 0 --requests 40").await;
    assert!(!report.passed);
    assert_eq!(report.target.errors.get("RPC Busy"), Some(&40), "{report}");

    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = free.local_addr().expect("bound").to_string();
    drop(free);
    let report = run(&nobody, "--no-preload").await.expect("runs");
    assert!(!report.passed);
    assert!(report.target.errors.keys().all(|kind| kind.starts_with("connect")), "{report}");

    let report = bench(Fault::Silent, "--no-preload --requests 8 --timeout 100ms").await;
    assert!(!report.passed);
    assert_eq!(report.target.errors.get("no answer in time"), Some(&8), "{report}");

    let (address, _, _serving) = start(Fault::Refuse, 5).await;
    let error = run(&address, "--keys 2").await.expect_err("refused");
    assert!(error.to_string().contains("0 of 2 keys"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_overlap_may_be_superseded_by_each_other() {
    let (address, replica, _serving) = start(Fault::Overtaken, 5).await;
    let options = "--no-preload --read-share 0.2 --keys 1";
    let report = run(&address, options).await.expect("runs");
    assert!(report.passed && report.target.errors.is_empty(), "{report}");
    assert!(replica.superseded.load(Ordering::Relaxed) > 0);
}
