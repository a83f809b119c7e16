//! Tako's own RPC straight to nodes: reads and writes as the serving node sends them to a replica.
//!
//! In: one request of a worker. Out: its [`Outcome`]. All workers of a thread share one peer per
//! node, with many calls in flight on its connection, as Tako's own processes do.
//! Invariant: a version is issued after its write began in the ledger, so a write that began after
//! another had ended has the higher version; and a key always goes to the same node, for a replica
//! alone knows only what it was told itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tako_flatbuf::{
    Peer, PeerOptions, Peers, PutOutcome, Record, RecordHead, Request, Response, RpcError,
    TcpNetwork,
};
use tako_types::{
    ErrorKind, HybridClock, Key, Kind, NAMESPACE_VALUES, NodeId, StoredKey, SystemClock, Version,
    limits::PARTITIONS_MAX,
};

use super::{
    ledger::{Ledger, Violation},
    line::{LineError, Outcome, What},
    plan::Plan,
    value::{self, Numbers},
};

/// Who the bench says it is.
const NODE_NAME: &str = "bench";
/// Calls for one request, while the node keeps naming another epoch.
const EPOCH_TRIES: u32 = 3;

/// The nodes of a target, and what all calls to them share.
#[derive(Debug)]
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    clock: HybridClock,
    prefix: String,
    partitions_log2: u32,
}

#[derive(Debug)]
struct Node {
    address: String,
    /// Number of its epoch as last heard; 0 until it said.
    epoch: AtomicU64,
}

impl Nodes {
    /// Resolves `host:port` addresses. Versions bear an origin made from `seed` and `run`, so no
    /// two benches issue the same.
    pub(crate) async fn resolve(
        addresses: &[String],
        partitions: u32,
        prefix: &str,
        seed: u64,
        run: u32,
    ) -> anyhow::Result<Arc<Self>> {
        ensure!(!addresses.is_empty(), "--protocol rpc needs --rpc HOST:PORT");
        ensure!(
            partitions.is_power_of_two() && partitions <= PARTITIONS_MAX,
            "--partitions is a power of two, 1 to {PARTITIONS_MAX}"
        );
        let mut nodes = Vec::new();
        for address in addresses {
            let resolved = tokio::net::lookup_host(address)
                .await
                .with_context(|| format!("resolve {address}"))?
                .next()
                .with_context(|| format!("{address} has no address"))?;
            nodes.push(Node { address: resolved.to_string(), epoch: AtomicU64::new(0) });
        }
        let origin = Numbers::new(seed ^ (u64::from(run) << 32)).next();
        Ok(Arc::new(Self {
            nodes,
            clock: HybridClock::new(Arc::new(SystemClock), origin, 0),
            prefix: prefix.to_owned(),
            partitions_log2: partitions.ilog2(),
        }))
    }

    /// The key that `PUT /values/<prefix><index>` names.
    fn key(&self, index: u64) -> StoredKey {
        let bytes = Bytes::from(format!("{}{index:08}", self.prefix));
        Key::new(NAMESPACE_VALUES, bytes).expect("prefixes are short, see `plan`").stored()
    }
}

/// The peers of one thread; their connections live in its runtime.
pub(crate) fn peers(plan: &Plan) -> Peers {
    let usual = PeerOptions::new(NodeId::new(NODE_NAME));
    // Each worker has one call in flight, and none of them is to be turned away here.
    let calls_max = usual.calls_max.max(plan.connections);
    Peers::new(Arc::new(TcpNetwork), PeerOptions { calls_max, ..usual })
}

/// One worker's calls.
#[derive(Debug)]
pub(crate) struct Caller {
    nodes: Arc<Nodes>,
    /// One per node, in their order.
    peers: Vec<Arc<Peer>>,
    /// The value being written.
    writing: Vec<u8>,
    /// The value last read, for as long as its outcome is looked at.
    reading: Bytes,
}

impl Caller {
    /// Does not connect.
    pub(crate) fn new(nodes: &Arc<Nodes>, peers: &Peers) -> Self {
        let peers = nodes.nodes.iter().map(|node| peers.get(&node.address)).collect();
        Self { nodes: nodes.clone(), peers, writing: Vec::new(), reading: Bytes::new() }
    }

    /// Asks the key's node and waits for its answer.
    pub(crate) async fn call(
        &mut self,
        plan: &Plan,
        ledger: &Ledger,
        what: What,
    ) -> Result<Outcome<'_>, LineError> {
        let key = self.nodes.key(what.key());
        let partition = key.partition(self.nodes.partitions_log2);
        let at = usize::try_from(what.key() % self.peers.len() as u64).unwrap_or(0);
        let (ticket, bytes) = match what {
            What::Write { ticket, bytes } => (ticket, bytes),
            What::Read { .. } => {
                let answer = self.ask(plan, at, Request::Get { partition, key }).await?;
                return Ok(self.read(answer));
            }
            // Refused when a plan is made.
            What::Scan(_) | What::Change { .. } => {
                return Ok(Outcome::NotDone("not spoken over RPC".to_owned()));
            }
        };
        self.writing.clear();
        value::append(&mut self.writing, ledger.header(ticket), plan.seed, bytes);
        let version = self.nodes.clock.next();
        let head = RecordHead { version, kind: Kind::Value, expires_at_micros: 0, flags: 0 };
        let record = Record::encode(&key, head, None, &self.writing);
        let answer = self
            .ask(plan, at, Request::Put { partition, record, repair: false, until_micros: 0 })
            .await?;
        Ok(self.written(version, answer))
    }

    /// One request in the node's own epoch, within the plan's time-out; the inner error is the
    /// node's answer.
    async fn ask(
        &self,
        plan: &Plan,
        at: usize,
        request: Request,
    ) -> Result<Result<Response, RpcError>, LineError> {
        let (peer, epoch) = (&self.peers[at], &self.nodes.nodes[at].epoch);
        let start = Instant::now();
        let mut tries = 1;
        let error = loop {
            let said = epoch.load(Ordering::Relaxed);
            let left = plan.timeout.saturating_sub(start.elapsed());
            let error = match peer.call(said, left, request.clone()).await {
                Ok(response) => return Ok(Ok(response)),
                Err(error) => error,
            };
            if error.kind != ErrorKind::StaleEpoch || tries == EPOCH_TRIES {
                break error;
            }
            epoch.store(error.detail, Ordering::Relaxed);
            tries += 1;
        };
        match error.kind {
            ErrorKind::Deadline => Err(LineError::Timeout),
            ErrorKind::Unavailable if !peer.is_connected() => Err(LineError::NotConnected),
            ErrorKind::Unavailable | ErrorKind::Closed => Err(LineError::Rpc(error.kind)),
            _ => Ok(Err(error)),
        }
    }

    fn read(&mut self, answer: Result<Response, RpcError>) -> Outcome<'_> {
        match answer {
            Ok(Response::Get { voting: false, .. }) => Outcome::Refused("RPC no vote".to_owned()),
            Ok(Response::Get { record, .. }) => {
                let now = self.nodes.clock.now_micros();
                let Some(record) = record.filter(|record| record.is_live_at(now)) else {
                    return Outcome::Absent;
                };
                self.reading = record.value();
                Outcome::Found(&self.reading)
            }
            // Damaged at the node or on the way: either way the bytes are not there.
            Err(error) if error.kind == ErrorKind::Corrupt => Outcome::Wrong(Violation::Damaged),
            other => refused(other),
        }
    }

    fn written(&self, version: Version, answer: Result<Response, RpcError>) -> Outcome<'static> {
        match answer {
            Ok(Response::Put(PutOutcome::Accepted { .. })) => Outcome::Written,
            Ok(Response::Put(PutOutcome::Superseded { version: winner })) => {
                let clock = &self.nodes.clock;
                if winner <= version {
                    return Outcome::Wrong(Violation::NotSuperseded { version, winner });
                }
                if winner.origin == version.origin {
                    // A write of ours that overlapped this one: as if this one had come first.
                    return Outcome::Written;
                }
                // Beyond the drift the clock stays, and so do the refusals.
                let _ = clock.observe(winner);
                Outcome::Refused("RPC superseded by another writer".to_owned())
            }
            other => refused(other),
        }
    }
}

fn refused(answer: Result<Response, RpcError>) -> Outcome<'static> {
    Outcome::Refused(match answer {
        Ok(_) => "RPC answer to something else".to_owned(),
        // The kind alone: texts are without number.
        Err(error) => format!("RPC {:?}", error.kind),
    })
}
