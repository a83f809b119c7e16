//! One replica without a node around it, and peers that answer by a script.
//!
//! For claims about a moment that a whole cluster passes in no time: between a tail and its
//! fetch, before a roll-back is noticed, while a vote waits for the store.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use tako_flatbuf::{
    CallHead, Caller, MemoryNetwork, Network, NodeState, PeerOptions, Peers, Record, RecordHead,
    Request, Response, RpcError, ServeOptions, Service, TailEntry, merge_encoded, serve,
};
use tako_journal::{Blocking, FsDisk, Identity, JournalOptions, Recovered, fault::MemDisk};
use tako_node_core::{
    configuration::{ConfigCell, load_file},
    engine::{Engine, EngineOptions},
    identity::IdentityKeeper,
    links::Links,
    membership::Membership,
    replica::Replica,
};
use tako_snapshot::{
    Coverage, PartitionWriter, SnapshotOptions, Snapshots, StepInput, StepRow, Store,
    fault::FaultStore,
};
use tako_types::{
    ClusterId, ErrorKind, HybridClock, Incarnation, Kind, Lsn, NodeId, PartitionId, StepNumber,
    StoredKey, SystemClock, Version, config::Durability,
};
use tempfile::TempDir;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{key, one_bucket};

const CLUSTER: ClusterId = ClusterId(7);
/// The only partition anything is put into.
pub const P: PartitionId = PartitionId(0);
/// The data folder of the replica in question.
pub const MINE: Incarnation = Incarnation(100);

/// What the replica stands on; it survives a crash of the replica.
pub struct Alone {
    pub dir: TempDir,
    pub disk: MemDisk,
    pub store: Store,
    pub faults: Arc<FaultStore>,
    pub network: MemoryNetwork,
    config: Arc<ConfigCell>,
    me: NodeId,
    peers: Mutex<JoinSet<()>>,
}

/// A record of partition [`P`], of this age.
pub fn record(name: &str, micros: u64, value: &[u8]) -> Record {
    let version = Version { micros, origin: 1 };
    let head = RecordHead { version, kind: Kind::Value, expires_at_micros: 0, flags: 0 };
    Record::encode(&key(name), head, None, value)
}

/// A tombstone of partition [`P`], of this age.
pub fn tombstone(name: &str, micros: u64) -> Record {
    let version = Version { micros, origin: 1 };
    let head = RecordHead { version, kind: Kind::Tombstone, expires_at_micros: 0, flags: 0 };
    Record::encode(&key(name), head, None, b"")
}

/// Coverage of one node.
pub fn coverage(node: &str, incarnation: Incarnation, lsn: u64) -> Coverage {
    Coverage::from([(NodeId::new(node), (incarnation, Lsn(lsn)))])
}

/// The rows of a step with these records.
pub fn step_of(records: &[Record], coverage: Coverage) -> StepInput {
    let rows = records.iter().map(|record| StepRow {
        key: record.key().as_bytes().clone(),
        record: record.bytes().clone(),
        stat: record.stat(),
        newest: true,
    });
    let highest = records.iter().map(Record::version).max().unwrap_or_default();
    StepInput { rows: rows.collect(), coverage, highest, ..StepInput::default() }
}

impl Alone {
    /// The last of `nodes` mirrored nodes, in a cluster of one partition.
    pub fn of(nodes: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("config.yaml");
        let text = one_bucket(nodes).replace("partitions: 4", "partitions: 1");
        std::fs::write(&path, text).expect("a small file");
        let published = load_file(&path, None).expect("a valid configuration");
        let (store, faults) = Store::in_memory().with_faults();
        Self {
            dir,
            disk: MemDisk::default(),
            store,
            faults,
            network: MemoryNetwork::new(),
            config: Arc::new(
                ConfigCell::new(published, Arc::new(FsDisk), None).expect("nothing is kept"),
            ),
            me: NodeId::new(&format!("n{nodes}")),
            peers: Mutex::default(),
        }
    }

    async fn snapshots(&self) -> Arc<Snapshots> {
        let options = SnapshotOptions {
            partitions_log2: 0,
            cache_memory_bytes: 8 << 20,
            ..SnapshotOptions::default()
        };
        Snapshots::new(self.store.clone(), options, Arc::new(SystemClock), merge_encoded)
            .await
            .expect("valid options")
    }

    /// A writer of steps, as some other node has one.
    pub async fn writer(&self) -> PartitionWriter {
        self.snapshots().await.writer(P).await.expect("a writer")
    }

    /// Replays the journal into an engine, as a start does.
    pub async fn engine(&self, memory_bytes: u64) -> (Arc<Engine>, Recovered) {
        self.engine_as(MINE, memory_bytes).await
    }

    /// The same in another data folder.
    pub async fn engine_as(
        &self,
        incarnation: Incarnation,
        memory_bytes: u64,
    ) -> (Arc<Engine>, Recovered) {
        let options = EngineOptions {
            node: self.me.clone(),
            incarnation,
            partitions_log2: 0,
            journal_memory_bytes: memory_bytes,
            records_bytes: 1 << 20,
            forgotten: Lsn(0),
            left: Default::default(),
            earlier: Default::default(),
            promise_ceiling_micros: 0,
            untrusted_since: None,
        };
        let journal = JournalOptions {
            dir: "/journal".into(),
            file_bytes: 1 << 20,
            disk_bytes_max: 64 << 20,
            durability: Durability::Fsync,
            cluster: CLUSTER,
            incarnation,
            queue_bytes_max: 1 << 20,
            blocking: Blocking::Threads,
        };
        let clock = HybridClock::new(Arc::new(SystemClock), 1, 0);
        Engine::open(options, journal, Arc::new(self.disk.clone()), self.snapshots().await, clock)
            .expect("a journal")
    }

    /// A replica over the engine, not attached to any network of its own.
    pub fn replica(&self, engine: &Arc<Engine>) -> (Arc<Links>, Arc<Replica>) {
        let identity = Identity {
            cluster: CLUSTER,
            node: self.me.clone(),
            incarnation: MINE,
            clock_ceiling_micros: 0,
            promise_ceiling_micros: 0,
            boot_id: String::new(),
            clean: false,
            durability: Durability::Fsync,
            recovered: false,
            refilled: Default::default(),
            forgotten: Default::default(),
            earlier: Default::default(),
            untrusted_since: None,
            left: Default::default(),
            adopted: None,
            known: Default::default(),
        };
        let membership = Arc::new(Membership::default());
        let replica = Replica::new(
            engine.clone(),
            self.config.clone(),
            membership.clone(),
            Arc::new(IdentityKeeper::new(
                Arc::new(FsDisk),
                Blocking::Threads,
                self.dir.path().to_owned(),
                identity,
            )),
            Arc::new(Notify::new()),
        );
        let network: Arc<dyn Network> = Arc::new(self.network.as_host(self.me.as_str()));
        let peers = Arc::new(Peers::new(network, PeerOptions::new(self.me.clone())));
        let links = Links::new(self.me.clone(), self.config.clone(), membership, peers);
        links.attach(replica.clone());
        (links, replica)
    }

    /// Lets a scripted peer answer at its node's address, until this is dropped.
    pub async fn serve(&self, peer: &Arc<Peer>) {
        let current = self.config.current();
        let target = current.node(&peer.node).expect("a configured node");
        let address = format!("{}:{}", target.host, target.rpc_port);
        let network = self.network.as_host(peer.node.as_str());
        let listener = network.listen(&address).await.expect("a free address");
        let shutdown = CancellationToken::new();
        let service: Arc<dyn Service> = peer.clone();
        self.peers.lock().spawn(async move {
            serve(listener, service, ServeOptions::default(), shutdown).await;
        });
    }

    /// Path of the journal's first file.
    pub fn first_journal_file(&self) -> Box<Path> {
        let files = self.disk.paths();
        let first = files.iter().filter(|path| path.extension().is_some_and(|e| e == "log")).min();
        first.expect("a journal file").as_path().into()
    }
}

/// What happens in the store between a tail and the fetch of what it listed.
pub type OnFetch = Box<dyn FnOnce() -> futures::future::BoxFuture<'static, StepNumber> + Send>;

/// A peer that holds what it is told to hold.
pub struct Peer {
    node: NodeId,
    inner: Mutex<Inner>,
}

struct Inner {
    state: NodeState,
    incarnation: Incarnation,
    step: StepNumber,
    /// Nothing is on its way into its journal.
    quiet: bool,
    held: Vec<(Lsn, Record)>,
    /// Once, before a Fetch is answered: covers everything held by the step it names.
    on_fetch: Option<OnFetch>,
    asked: Vec<(Lsn, Incarnation)>,
}

impl Peer {
    /// A peer in data folder `incarnation` that sees no step.
    pub fn new(node: &str, state: NodeState, incarnation: Incarnation) -> Arc<Self> {
        Arc::new(Self {
            node: NodeId::new(node),
            inner: Mutex::new(Inner {
                state,
                incarnation,
                step: StepNumber(0),
                quiet: true,
                held: Vec::new(),
                on_fetch: None,
                asked: Vec::new(),
            }),
        })
    }

    /// Takes a record as if it had been written there.
    pub fn hold(&self, lsn: u64, record: Record) {
        self.inner.lock().held.push((Lsn(lsn), record));
    }

    pub fn set_state(&self, state: NodeState) {
        self.inner.lock().state = state;
    }

    pub fn set_step(&self, step: u64) {
        self.inner.lock().step = StepNumber(step);
    }

    pub fn set_quiet(&self, quiet: bool) {
        self.inner.lock().quiet = quiet;
    }

    /// Goes on as another data folder, an empty one.
    pub fn start_anew(&self, incarnation: Incarnation) {
        let mut inner = self.inner.lock();
        inner.incarnation = incarnation;
        inner.held.clear();
    }

    pub fn on_fetch(&self, happens: OnFetch) {
        self.inner.lock().on_fetch = Some(happens);
    }

    /// Where the tails that it was asked for began.
    pub fn asked(&self) -> Vec<(Lsn, Incarnation)> {
        self.inner.lock().asked.clone()
    }

    fn tail(&self, after: Lsn, incarnation: Incarnation) -> Response {
        let mut inner = self.inner.lock();
        inner.asked.push((after, incarnation));
        let after = if incarnation == inner.incarnation { after } else { Lsn(0) };
        let listed = inner.held.iter().filter(|(lsn, _)| *lsn > after);
        let entries = listed.map(|(lsn, record)| TailEntry {
            lsn: *lsn,
            key: record.key(),
            version: record.version(),
            crc: record.crc(),
        });
        Response::Tail {
            incarnation: inner.incarnation,
            upto: inner.held.iter().map(|(lsn, _)| *lsn).max().unwrap_or_default(),
            step: inner.step,
            covered: inner.quiet,
            state: inner.state,
            entries: entries.collect(),
            more: false,
            promised: Version::ZERO,
        }
    }

    async fn fetch(&self, keys: &[StoredKey]) -> Response {
        let happens = self.inner.lock().on_fetch.take();
        if let Some(happens) = happens {
            let step = happens().await;
            let mut inner = self.inner.lock();
            inner.step = step;
            inner.held.clear();
        }
        let inner = self.inner.lock();
        let held = |key: &StoredKey| {
            inner.held.iter().map(|(_, record)| record).find(|record| record.key() == *key)
        };
        Response::Fetch { records: keys.iter().filter_map(held).cloned().collect(), more: false }
    }
}

#[async_trait]
impl Service for Peer {
    async fn call(&self, _: &Caller, _: &CallHead, request: Request) -> Result<Response, RpcError> {
        match request {
            Request::Hello { .. } => Ok(Response::Hello {
                cluster: Some(CLUSTER),
                node: self.node.clone(),
                incarnation: self.inner.lock().incarnation,
            }),
            Request::Tail { after, incarnation, .. } => Ok(self.tail(after, incarnation)),
            Request::Fetch { keys, .. } => Ok(self.fetch(&keys).await),
            _ => Err(RpcError::new(ErrorKind::Internal, "not in the script")),
        }
    }
}
