//! The real RPC over the simulated network, and runs that repeat.

use std::collections::BTreeMap;

use bytes::Bytes;
use tako_flatbuf::{
    CallHead, Caller, PeerOptions, Peers, Record, RecordHead, Request, Response, RpcError,
    ServeOptions, Service, serve,
};
use tako_types::{
    ErrorKind, Incarnation, Key, Kind, NodeId, PartitionId, StepNumber, StoredKey, Version,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;

const CALLS: usize = 200;

/// Answers a Get with a record whose value is its key.
struct Echo;

#[async_trait]
impl Service for Echo {
    async fn call(&self, _: &Caller, _: &CallHead, request: Request) -> Result<Response, RpcError> {
        match request {
            Request::Hello { cluster, .. } => {
                let (node, incarnation) = (NodeId::new("b"), Incarnation(1));
                Ok(Response::Hello { cluster, node, incarnation })
            }
            Request::Get { key, .. } => {
                let record = Some(record_of(&key));
                Ok(Response::Get { record, step: StepNumber(0), covered: false, voting: true })
            }
            _ => Err(RpcError::new(ErrorKind::Invalid, "not here")),
        }
    }
}

fn key(number: usize) -> StoredKey {
    let name = format!("key {number}");
    Key::new(0, Bytes::from(name)).expect("a short key").stored()
}

fn record_of(key: &StoredKey) -> Record {
    let version = Version { micros: 1, origin: 1 };
    let head = RecordHead { version, kind: Kind::Value, expires_at_micros: 0, flags: 0 };
    Record::encode(key, head, None, format!("{key:?}").as_bytes())
}

/// Asks until there is an answer, which must be the right one; how many attempts failed.
async fn ask(peers: &Peers, number: usize) -> usize {
    for failed in 0..500 {
        let get = Request::Get { partition: PartitionId(0), key: key(number) };
        let answer = peers.get("b:1").call(0, Duration::from_millis(400), get).await;
        match answer {
            Ok(Response::Get { record, .. }) => {
                let record = record.expect("always one");
                assert_eq!(record.bytes(), record_of(&key(number)).bytes(), "another's answer");
                return failed;
            }
            Ok(other) => panic!("not the answer to a Get: {other:?}"),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("no answer to call {number}");
}

/// What a run under all faults at once leaves: attempts that failed, the trace, the counts.
async fn run(seed: u64) -> (usize, u64, BTreeMap<&'static str, u64>) {
    let (network, counts) = network(seed);
    network.set_faults(LinkFaults { lose: 0.05, duplicate: 0.05, reset: 0.01, ..slow(true) });
    let listener = network.as_host("b", 1).listen("b:1").await.expect("free");
    let stop = CancellationToken::new();
    let options = ServeOptions::default();
    let serving = tokio::spawn(serve(listener, Arc::new(Echo), options, stop.clone()));
    let view = Arc::new(network.as_host("a", 1));
    let mut asking = JoinSet::new();
    for first in 0..8 {
        // Peers of their own: tokio wakes those who wait for one attempt to connect (a watch) in an
        // order drawn from its own random numbers, so that sharing them would not repeat.
        let peers = Peers::new(Arc::clone(&view) as _, PeerOptions::new(NodeId::new("a")));
        asking.spawn(async move {
            let mut failed = 0;
            for number in (first..CALLS).step_by(8) {
                failed += ask(&peers, number).await;
            }
            failed
        });
    }
    sleep(SECOND).await;
    network.cut("b", "a", CutKind::Vanish);
    sleep(2 * SECOND).await;
    network.heal_all();
    let failed = asking.join_all().await.into_iter().sum();
    stop.cancel();
    serving.await.expect("no panic");
    (failed, network.trace_hash(), counts.all())
}

#[tokio::test(start_paused = true)]
async fn calls_complete_under_all_faults_and_never_get_anothers_answer() {
    let (mut failed, mut counts) = (0, BTreeMap::new());
    // Each peer makes one call at a time, so that little can overtake in one run.
    for seed in 1..=6 {
        let (more, _, kinds) = run(seed).await;
        failed += more;
        counts.extend(kinds);
    }
    assert_ne!(failed, 0, "no fault met a call");
    for kind in ["frame lost", "frame duplicated", "frame overtook another", "connection reset"] {
        assert!(counts.contains_key(kind), "no {kind} in {counts:?}");
    }
}

#[test]
fn one_seed_gives_one_trace_and_another_seed_another() {
    let hash = |seed| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().expect("a runtime");
        runtime.block_on(run(seed))
    };
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1).1, hash(2).1);
}
