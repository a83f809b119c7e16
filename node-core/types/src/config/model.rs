//! What a configuration holds, with the default of every setting.
//!
//! Invariant: a [`Config`] that [`Config::parse`] gave is complete and free of contradictions:
//! every name it refers to exists, every number is in its range. Lists of buckets and of nodes are
//! sorted by name, so two documents that say the same are equal. Not here: reading, checking and
//! writing it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use crate::{
    NodeId,
    limits::{PARTITIONS_DEFAULT, REQUEST_DEADLINE, VALUE_BYTES_MAX_DEFAULT},
};

const MIB: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(86_400);

/// The whole document, with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The number the document claims for itself; without one the coordinator gives the next.
    pub epoch: Option<u64>,
    /// Name of the deployment that serves.
    pub active: String,
    /// Name of the deployment that is being moved to.
    pub target: Option<String>,
    /// Nodes that are gone for good: the migration under way does not wait for them. Part of an
    /// order, not of what is published.
    pub accept_loss: BTreeSet<NodeId>,
    /// All deployments by name; those that are neither active nor target are kept, unused.
    pub deployments: BTreeMap<String, Deployment>,
    /// Coordinators by id.
    pub coordinators: BTreeMap<String, Address>,
    /// The coordinator that gives epoch numbers.
    pub master_coordinator: Option<String>,
    /// Partitions of the cluster, a power of two; fixed for the life of its data.
    pub partitions: u32,
    /// What holds for the whole cluster.
    pub cluster: ClusterSettings,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Host name or address; IPv6 addresses without brackets.
    pub host: String,
    /// TCP port, at least 1.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A named layout of buckets and nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Its name.
    pub name: String,
    /// Whether reads repair what they find to differ.
    pub read_repair: bool,
    /// Whether the slow full check runs.
    pub background_healing: bool,
    /// One full check per interval.
    pub background_healing_interval: Duration,
    /// On how many buckets each partition falls.
    pub buckets_per_key: usize,
    /// Ring points of a bucket of weight 1.
    pub points_per_bucket: usize,
    /// How many replicas a request needs where it does not say so itself.
    pub consistency: Consistency,
    /// The buckets, sorted by name; at least `buckets_per_key`.
    pub buckets: Vec<Bucket>,
}

impl Deployment {
    /// All nodes of all buckets.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeConfig> {
        self.buckets.iter().flat_map(|bucket| &bucket.nodes)
    }

    /// The bucket of that name.
    #[must_use]
    pub fn bucket(&self, name: &str) -> Option<&Bucket> {
        self.buckets.iter().find(|bucket| bucket.name == name)
    }
}

/// A named group of nodes that mirror each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// Its name, unique in the deployment.
    pub name: String,
    /// Its share of the partitions, relative to the other buckets.
    pub weight: f64,
    /// The nodes, sorted by id; at least one.
    pub nodes: Vec<NodeConfig>,
}

/// A node: its id and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its id, unique in the configuration.
    pub id: NodeId,
    /// Host name or address; IPv6 addresses without brackets.
    pub host: String,
    /// Port of the HTTP server, if the node has one.
    pub http_port: Option<u16>,
    /// Port of the memcached protocols, if the node speaks them.
    pub memcached_port: Option<u16>,
    /// Port of the RPC server.
    pub rpc_port: u16,
    /// Failure domain: replicas are spread over zones.
    pub zone: Option<String>,
}

impl NodeConfig {
    /// Where the RPC server listens; its text is `host:port`, IPv6 in brackets.
    #[must_use]
    pub fn rpc_address(&self) -> Address {
        Address { host: self.host.clone(), port: self.rpc_port }
    }

    /// Where the HTTP server listens.
    #[must_use]
    pub fn http_address(&self) -> Option<Address> {
        self.http_port.map(|port| Address { host: self.host.clone(), port })
    }

    /// Where memcached clients are served.
    #[must_use]
    pub fn memcached_address(&self) -> Option<Address> {
        self.memcached_port.map(|port| Address { host: self.host.clone(), port })
    }
}

/// How many replicas a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// W = N/2 + 1, R = N - W + 1: every read meets every write.
    #[default]
    Quorum,
    /// W = R = 1.
    One,
    /// W = N, R = 1.
    All,
}

impl Consistency {
    /// The word for it in the document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::One => "one",
            Self::All => "all",
        }
    }
}

/// What the journal waits for before it acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The disk: survives a power cut.
    #[default]
    Fsync,
    /// The operating system: survives the process, not the machine.
    Os,
    /// Nothing.
    None,
}

impl Durability {
    /// The word for it in the document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
            Self::None => "none",
        }
    }
}

/// What holds for the whole cluster. The defaults let ten nodes live on one laptop.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSettings {
    /// The object store; without one every process must be told by its command line.
    pub store: Option<StoreSettings>,
    /// What the journal waits for.
    pub durability: Durability,
    /// Budgets of the journal.
    pub journal: JournalSettings,
    /// Budgets of the caches.
    pub cache: CacheSettings,
    /// When a partition's snapshot takes a step.
    pub snapshot: SnapshotSettings,
    /// How long a tombstone is kept.
    pub tombstone_grace: Duration,
    /// Longest value, in bytes.
    pub value_bytes_max: usize,
    /// Time a client request may take where the client says nothing.
    pub request_deadline: Duration,
    /// Whether memcached's `flush_all` may delete every value.
    pub memcached_flush_all: bool,
    /// Backups that the coordinator makes by itself, each rule with an `every` of its own.
    pub backups: Vec<BackupRule>,
}

/// Backups made again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupRule {
    /// One in each such time.
    pub every: Duration,
    /// How many of them are kept.
    pub keep: u32,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            store: None,
            durability: Durability::default(),
            journal: JournalSettings::default(),
            cache: CacheSettings::default(),
            snapshot: SnapshotSettings::default(),
            tombstone_grace: DAY,
            value_bytes_max: VALUE_BYTES_MAX_DEFAULT,
            request_deadline: REQUEST_DEADLINE,
            memcached_flush_all: false,
            backups: Vec::new(),
        }
    }
}

/// Where the object store is and how to get in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreSettings {
    /// `s3://bucket/prefix`, `file:///folder` or `memory:///`.
    pub url: String,
    /// Address of an S3-compatible server, such as `http://localhost:9000`.
    pub endpoint: Option<String>,
    /// S3 region.
    pub region: Option<String>,
    /// S3 key id; without one the environment of each process decides.
    pub access_key_id: Option<String>,
    /// S3 secret.
    pub secret_access_key: Option<Secret>,
    /// Whether the bucket's name goes into the path, as most S3-compatible servers want it.
    pub path_style: bool,
    /// Whether an endpoint without TLS is allowed.
    pub allow_http: bool,
}

/// A text that is never shown: neither in logs nor in errors nor by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What is shown instead.
    pub(crate) const MASK: &str = "********";

    /// Hides `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::MASK)
    }
}

/// Budgets of one node's journal, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalSettings {
    /// Values that are kept in memory until a snapshot covers them; more are read from the file.
    pub memory_bytes: u64,
    /// Files; writes are refused while they are full.
    pub disk_bytes: u64,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self { memory_bytes: 32 * MIB, disk_bytes: 1024 * MIB }
    }
}

/// Budgets of one node's caches, in bytes; upper bounds, not taken in advance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// Hot records in memory.
    pub records_bytes: u64,
    /// Snapshot blocks in memory.
    pub memory_bytes: u64,
    /// Snapshot blocks on disk; 0 turns that part off.
    pub disk_bytes: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { records_bytes: 32 * MIB, memory_bytes: 16 * MIB, disk_bytes: 256 * MIB }
    }
}

/// When a partition's snapshot takes a step: at the first of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// After this time, if there is anything new.
    pub interval: Duration,
    /// After this many new bytes.
    pub bytes: u64,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), bytes: 64 * MIB }
    }
}

impl Config {
    /// Default of `partitions`.
    pub(crate) const PARTITIONS_DEFAULT: u32 = PARTITIONS_DEFAULT;

    /// The deployment that serves.
    #[must_use]
    pub fn active_deployment(&self) -> &Deployment {
        &self.deployments[&self.active]
    }

    /// The deployment that is being moved to.
    #[must_use]
    pub fn target_deployment(&self) -> Option<&Deployment> {
        self.target.as_ref().and_then(|name| self.deployments.get(name))
    }

    /// The coordinator that gives the numbers where several share a store: the one that is named,
    /// else the first of several by id; `None` where that is nobody's privilege.
    #[must_use]
    pub fn master(&self) -> Option<&str> {
        let named = self.master_coordinator.as_deref();
        let mut ids = self.coordinators.keys().map(String::as_str);
        let first = if 1 < self.coordinators.len() { ids.next() } else { None };
        named.or(first)
    }

    /// k, where the cluster has 2^k partitions.
    #[must_use]
    pub fn partitions_log2(&self) -> u32 {
        self.partitions.trailing_zeros()
    }
}
