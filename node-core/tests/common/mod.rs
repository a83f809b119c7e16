//! A whole cluster in one process: memory network, one store that can fail, real data folders.
//!
//! Nodes are stopped without draining, as a crash would: the journal keeps what was acknowledged.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "every test file uses its own part")]

pub mod alone;
pub mod moving;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tako_flatbuf::{MemoryNetwork, NodeState, Record};
use tako_journal::{Blocking, Disk, FsDisk, fault::MemDisk};
use tako_node_core::{
    configuration::ConfigSource,
    node::{JOURNAL_FILE_BYTES, Node, NodeOptions},
    proxy::{Proxy, ProxyOptions},
    replication::{Read, RequestError, Serving, Write, Written},
};
use tako_snapshot::{Store, Upkeep, fault::FaultStore};
use tako_types::{Clock, Key, Kind, NodeId, StoredKey, SystemClock, limits::HEALING_INTERVAL_MIN};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How long anything awaited may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Wall time with an offset that tests move.
#[derive(Debug, Default)]
pub struct SkewedClock(AtomicI64);

impl SkewedClock {
    pub fn skew(&self, by_micros: i64) {
        self.0.store(by_micros, Ordering::SeqCst);
    }
}

impl Clock for SkewedClock {
    fn now_micros(&self) -> u64 {
        SystemClock.now_micros().saturating_add_signed(self.0.load(Ordering::SeqCst))
    }
}

/// The time of a test's runtime, which may be paused: nothing waits then but for events.
#[derive(Debug)]
pub struct RuntimeClock {
    began: Instant,
    began_micros: u64,
}

impl RuntimeClock {
    pub fn new() -> Self {
        Self { began: Instant::now(), began_micros: 1_700_000_000_000_000 }
    }
}

impl Clock for RuntimeClock {
    fn now_micros(&self) -> u64 {
        self.began_micros + self.began.elapsed().as_micros() as u64
    }
}

pub struct Cluster {
    pub dir: TempDir,
    pub network: MemoryNetwork,
    pub store: Store,
    pub faults: Arc<FaultStore>,
    pub nodes: BTreeMap<String, Arc<Node>>,
    pub clocks: BTreeMap<String, Arc<SkewedClock>>,
    pub disk: Arc<dyn Disk>,
    pub journal_file_bytes: u64,
    /// The runtime's time, and no threads, instead of the machine's.
    runtime_clock: Option<Arc<RuntimeClock>>,
    seeds: AtomicU64,
}

/// One bucket of `nodes` mirrored nodes, 4 partitions, quick steps.
pub fn one_bucket(nodes: usize) -> String {
    let mut text = String::from(
        "partitions: 4\nsnapshot: {interval: 300ms}\nactive_deployment: d\ndeployments:\n  d:\n    \
         hash: {buckets_per_key: 1}\n    buckets:\n      b1:\n",
    );
    for n in 1..=nodes {
        text.push_str(&format!("        n{n}: [localhost, {}]\n", 4700 + n));
    }
    text
}

pub fn key(name: &str) -> StoredKey {
    Key::new(0, Bytes::copy_from_slice(name.as_bytes())).expect("a short key").stored()
}

pub fn write(name: &str, value: &str) -> Write {
    Write {
        key: key(name),
        kind: Kind::Value,
        value: Bytes::copy_from_slice(value.as_bytes()),
        content_type: None,
        flags: 0,
        expires_at_micros: 0,
        timestamp_micros: None,
        w: None,
    }
}

pub fn tombstone(name: &str) -> Write {
    Write { kind: Kind::Tombstone, value: Bytes::new(), ..write(name, "") }
}

pub async fn put(serving: &Serving, name: &str, value: &str) -> Result<Written, RequestError> {
    serving.put(write(name, value), Duration::from_secs(10)).await
}

pub async fn get(serving: &Serving, name: &str) -> Result<Option<String>, RequestError> {
    let read = Read { key: key(name), r: None };
    let record = serving.get(&read, Duration::from_secs(10)).await?;
    let now = serving.clock().now_micros();
    Ok(record.filter(|r| r.is_live_at(now)).map(|r: Record| text(&r)))
}

pub fn text(record: &Record) -> String {
    String::from_utf8_lossy(&record.value()).into_owned()
}

/// Awaits a condition by polling; panics with `what` when it does not come.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < until, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

impl Cluster {
    pub fn new(config: &str) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_env("TAKO_LOG"))
            .with_test_writer()
            .try_init();
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("config.yaml"), config).expect("a small file");
        let (store, faults) = Store::in_memory().with_faults();
        Self {
            dir,
            network: MemoryNetwork::new(),
            store,
            faults,
            nodes: BTreeMap::new(),
            clocks: BTreeMap::new(),
            disk: Arc::new(FsDisk),
            journal_file_bytes: JOURNAL_FILE_BYTES,
            runtime_clock: None,
            seeds: AtomicU64::new(1),
        }
    }

    /// A cluster for a runtime whose time is paused: disks are memory, work is done in place.
    pub fn in_runtime_time(config: &str) -> Self {
        let mut cluster = Self::new(&format!("cache: {{disk: 0}}\n{config}"));
        cluster.disk = Arc::new(MemDisk::default());
        cluster.journal_file_bytes = 1 << 20;
        cluster.runtime_clock = Some(Arc::new(RuntimeClock::new()));
        cluster
    }

    pub async fn start_all(&mut self, nodes: &[&str]) {
        for node in nodes {
            self.start(node).await;
        }
        for node in nodes {
            self.serves(node).await;
        }
    }

    pub async fn started(config: &str, nodes: &[&str]) -> Self {
        let mut cluster = Self::new(config);
        for node in nodes {
            cluster.start(node).await;
        }
        for node in nodes {
            cluster.serves(node).await;
        }
        cluster
    }

    pub fn var(&self, id: &str) -> PathBuf {
        self.dir.path().join(id)
    }

    pub fn clock(&mut self, id: &str) -> Arc<SkewedClock> {
        self.clocks.entry(id.to_owned()).or_default().clone()
    }

    pub fn options(&mut self, id: &str) -> NodeOptions {
        NodeOptions {
            id: NodeId::new(id),
            var: self.var(id),
            source: ConfigSource::File(self.dir.path().join("config.yaml")),
            store: Some(self.store.clone()),
            accept_loss: false,
            clock: match &self.runtime_clock {
                Some(clock) => clock.clone(),
                None => self.clock(id),
            },
            seed: self.seeds.fetch_add(1, Ordering::Relaxed) * 7919,
            network: Arc::new(self.network.as_host(id)),
            disk: self.disk.clone(),
            blocking: match &self.runtime_clock {
                Some(_) => Blocking::Here(Arc::new(|| Duration::ZERO)),
                None => Blocking::Threads,
            },
            upkeep: Upkeep::default(),
            journal_file_bytes: self.journal_file_bytes,
            healing_interval_min: HEALING_INTERVAL_MIN,
        }
    }

    /// Starts a node; it need not serve yet.
    pub async fn start(&mut self, id: &str) -> Arc<Node> {
        let options = self.options(id);
        let node = Node::start(options, CancellationToken::new()).await.expect("a node starts");
        self.nodes.insert(id.to_owned(), node.clone());
        node
    }

    /// Writes `k0`, `k1`, …: afterwards every replica that runs has them. Again where one does not
    /// acknowledge, as others may not have noticed yet that it is back.
    pub async fn fill(&self, through: &str, count: usize, value: &str) {
        let puts = (0..count).map(|n| async move {
            let write = write(&format!("k{n}"), value);
            let current = self.node(through).config.current();
            let p = write.key.partition(current.partitions_log2());
            let replicas = current.replicas(p).iter();
            let w = replicas.filter(|id| self.nodes.contains_key(id.as_str())).count();
            let serving = self.serving(through);
            eventually("every replica that runs has it", async || {
                let write = Write { w: Some(w), ..write.clone() };
                serving.put(write, Duration::from_secs(10)).await.is_ok()
            })
            .await;
        });
        futures::future::join_all(puts).await;
    }

    /// Stops a node without draining.
    pub async fn crash(&mut self, id: &str) {
        if let Some(node) = self.nodes.remove(id) {
            node.stop().await;
            self.network.drop_connections(id);
            eventually("the node's last handle is dropped", async || Arc::strong_count(&node) == 1)
                .await;
        }
    }

    pub async fn crash_all(&mut self) {
        for id in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.crash(&id).await;
        }
    }

    /// Empties the data folder of a stopped node.
    pub fn lose_disk(&self, id: &str) {
        let _ = std::fs::remove_dir_all(self.var(id).join("data"));
    }

    pub fn node(&self, id: &str) -> &Arc<Node> {
        self.nodes.get(id).expect("a running node")
    }

    pub fn serving(&self, id: &str) -> &Serving {
        &self.node(id).serving
    }

    pub fn state(&self, id: &str) -> NodeState {
        self.node(id).replica.state()
    }

    /// Waits until a node serves and sees enough others to serve every key.
    pub async fn serves(&self, id: &str) {
        eventually(&format!("{id} serves"), async || {
            self.state(id) == NodeState::Serving && self.serving(id).readiness().is_ok()
        })
        .await;
    }

    pub async fn proxy(&mut self, id: &str) -> Proxy {
        let options = ProxyOptions {
            id: NodeId::new(id),
            var: Some(self.var(id)),
            source: ConfigSource::File(self.dir.path().join("config.yaml")),
            clock: self.clock(id),
            seed: self.seeds.fetch_add(1, Ordering::Relaxed) * 7919,
            network: Arc::new(self.network.as_host(id)),
            disk: self.disk.clone(),
        };
        let proxy = Proxy::start(options, CancellationToken::new())
            .await
            .expect("a proxy starts")
            .expect("nobody stops it");
        eventually("the proxy is ready", async || proxy.serving.readiness().is_ok()).await;
        proxy
    }

    /// Waits until every running node holds nothing uncovered.
    pub async fn covered(&self) {
        eventually("all tails are covered", async || {
            self.nodes.values().all(|node| {
                let engine = node.replica.engine();
                node.config
                    .current()
                    .partitions_of(engine.node())
                    .into_iter()
                    .all(|p| engine.partition_status(p).uncovered == 0)
            })
        })
        .await;
    }
}
