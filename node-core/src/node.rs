//! Assembly of a node: from a folder and a configuration to a serving replica, and back.
//!
//! ```text
//! lock folder ─► configuration ─► store, cluster id ─► identity ─► journal ─► RPC answers
//!   ─► views ─► intact? vote : refill, then vote ─► serving ─► drain ─► clean
//! ```
//! Owns every task of the node; `stop` ends them in order. Everything from outside (clock,
//! network, disk, store) comes in by [`NodeOptions`].

mod folder;
mod moves;
mod root;
mod startup;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tako_flatbuf::{
    Network, NodeState, PeerOptions, Peers, Request, ServeOptions, merge_encoded, serve,
};
use tako_journal::{Blocking, Disk, Identity, JournalOptions};
use tako_snapshot::{SnapshotOptions, Snapshots, Store, StoreError, StoreSettings, Upkeep};
use tako_types::{
    Clock, ClusterId, HybridClock, Lsn, NodeId, config::Published, limits::CALL_DEADLINE,
};
use tokio::{runtime::Handle, sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{folder::Folder, root::Refused, startup::Found};
use crate::{
    configuration::{
        AdoptError, ConfigCell, ConfigSource, ConfigWatcher, SourceError, fetch_store, newest_kept,
    },
    engine::{Engine, EngineError, EngineOptions},
    healing::Healer,
    identity::IdentityKeeper,
    links::Links,
    membership::{Gossiper, Membership},
    replica::{Calls, Replica},
    replication::Serving,
    snapshotter::Snapshotter,
};

/// Bytes waiting for the journal's committer.
const JOURNAL_QUEUE_BYTES: usize = 128 << 20;
/// Size of a journal file.
pub const JOURNAL_FILE_BYTES: u64 = 16 << 20;
/// How often the clock's ceiling and the journal's files are looked at.
const HOUSE_EVERY: Duration = Duration::from_secs(5);
/// How often a node asks whether a configuration names it by now.
const OWN_PLACE_EVERY: Duration = Duration::from_millis(500);

/// Everything a node is made of.
pub struct NodeOptions {
    /// Which node of the configuration.
    pub id: NodeId,
    /// Folder for all of the process's files.
    pub var: PathBuf,
    /// Where configurations come from.
    pub source: ConfigSource,
    /// The object store, opened; else the configuration's, else a folder `store` in `var`.
    pub store: Option<Store>,
    /// Vote without replicas that cannot be reached, at the operator's word.
    pub accept_loss: bool,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids.
    pub seed: u64,
    /// Byte streams to the other nodes.
    pub network: Arc<dyn Network>,
    /// The disk of the data folder; the block cache has one of its own.
    pub disk: Arc<dyn Disk>,
    /// Where calls to the disk are made.
    pub blocking: Blocking,
    /// Where steps, their views and healing run.
    pub upkeep: Upkeep,
    /// Size of a journal file ([`JOURNAL_FILE_BYTES`]).
    pub journal_file_bytes: u64,
    /// Shortest interval of background healing, whatever the configuration says
    /// ([`tako_types::limits::HEALING_INTERVAL_MIN`]).
    pub healing_interval_min: Duration,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Stopped before it was up.
    #[error("stopped while starting")]
    Stopped,
    /// The configuration does not name this node.
    #[error(
        "node {node} is not in deployment `{deployment}` of configuration {epoch}; its nodes are {nodes}"
    )]
    Unknown {
        /// This node.
        node: NodeId,
        /// The active deployment.
        deployment: String,
        /// The configuration.
        epoch: String,
        /// Who is in it.
        nodes: String,
    },
    /// There is no configuration to start with.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Configuration(#[from] AdoptError),
    /// The configuration cannot be run by this version.
    #[error(transparent)]
    NotStartable(#[from] tako_types::config::ConfigError),
    /// The object store cannot be used.
    #[error("object store {url}: {source}")]
    Store {
        /// Which.
        url: String,
        /// Why.
        source: Box<StoreError>,
    },
    /// Snapshots cannot be used.
    #[error(transparent)]
    Snapshot(#[from] tako_snapshot::SnapshotError),
    /// The data folder cannot be used.
    #[error("data folder: {0}")]
    Folder(#[from] tako_journal::IdentityError),
    /// The engine cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A port cannot be had.
    #[error("cannot listen at {address} for RPC: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
}

/// A running node.
pub struct Node {
    /// Serves clients' requests.
    pub serving: Arc<Serving>,
    /// Answers other nodes.
    pub replica: Arc<Replica>,
    /// Takes steps.
    pub snapshotter: Arc<Snapshotter>,
    /// Scrubs.
    pub healer: Arc<Healer>,
    /// The configuration in force.
    pub config: Arc<ConfigCell>,
    /// Notify it to look for a newer configuration at once.
    pub look: Arc<Notify>,
    identity: Arc<IdentityKeeper>,
    tasks: TaskTracker,
    background: CancellationToken,
    rpc: CancellationToken,
    folder: Folder,
    /// Where the others looked for it when it started.
    address: String,
}

impl Node {
    /// Starts a node; it answers RPC when this returns, and serves when its state says so.
    ///
    /// # Errors
    /// [`NodeError`] in words for the operator.
    pub async fn start(
        options: NodeOptions,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, NodeError> {
        let (disk, var) = (options.disk.clone(), options.var.as_path());
        let folder = Folder::open(disk, var, &options.id, &shutdown).await?;
        let mut watcher = ConfigWatcher::new(options.source.clone(), options.network.clone());
        let first = match newest_kept(options.disk.as_ref(), folder.etc()) {
            Some(kept) => kept,
            None => {
                watcher.first(options.store.as_ref(), &shutdown).await?.ok_or(NodeError::Stopped)?
            }
        };
        let cell = |first| {
            ConfigCell::new(first, options.disk.clone(), Some(folder.etc().to_owned()))
                .map(Arc::new)
        };
        let mut config = cell(first)?;
        let mut refused = None;
        if let Ok(offered) = watcher.fetch(Some(&config.current())).await
            && let Err(why) = config.adopt(offered.clone())
        {
            refused = Some(Refused { offered, why, in_store: false });
        }
        let mut store = open_store(&options, &config.current())?;
        // The highest epoch that can be found; without the store the kept one must do.
        if let Ok(Some(offered)) = fetch_store(&store).await
            && let Err(why) = config.adopt(offered.clone())
        {
            refused = Some(Refused { offered, why, in_store: true });
        }
        if let Some(refused) = refused
            && let Some((offered, restored)) =
                root::moved_to(&options, &folder, &config.current(), refused, &shutdown).await?
        {
            config = cell(offered)?;
            store = restored;
        }
        // Nodes are started before a migration brings them, or after: both must do.
        if matches!(options.source, ConfigSource::Coordinators(_)) {
            await_own_place(&options.id, &config, &watcher, &shutdown).await?;
        }
        let current = config.current();
        // A target without a phase is an order that only coordinators carry out.
        if current.migration.is_none() {
            tako_types::config::check_startable(&current.config)?;
        }
        let target = current.node(&options.id).ok_or_else(|| unknown(&options.id, &current))?;
        let rpc_address = target.rpc_address().to_string();
        let (cluster, unsure) = cluster_id(&store, &folder, options.seed, &shutdown).await?;

        let settings = &current.config.cluster;
        let opened = folder.open_identity(
            &options.id,
            cluster,
            settings.durability,
            options.clock.now_micros(),
        )?;
        let (mut lost, mut renew, mut damaged) = (opened.lost, opened.renew, false);
        let identity = Arc::new(IdentityKeeper::new(
            options.disk.clone(),
            options.blocking.clone(),
            folder.data().to_owned(),
            opened.identity,
        ));
        let held = identity.held().await;
        let membership = Arc::new(Membership::default());
        for (node, incarnation) in &held.known {
            membership.learn(node, *incarnation);
        }
        let origin = origin_of(&options.id, options.clock.now_micros(), options.seed);
        let clock = HybridClock::new(options.clock.clone(), origin, held.clock_ceiling_micros);
        let snapshots = Snapshots::new(
            store,
            SnapshotOptions {
                partitions_log2: current.partitions_log2(),
                cache_memory_bytes: usize::try_from(settings.cache.memory_bytes)
                    .unwrap_or(usize::MAX),
                cache_disk: (settings.cache.disk_bytes > 0)
                    .then(|| (folder.cache(), settings.cache.disk_bytes)),
                upkeep: options.upkeep.clone(),
                ..SnapshotOptions::default()
            },
            options.clock.clone(),
            merge_encoded,
        )
        .await?;
        let engine_options = EngineOptions {
            node: options.id.clone(),
            incarnation: held.incarnation,
            partitions_log2: current.partitions_log2(),
            journal_memory_bytes: settings.journal.memory_bytes,
            records_bytes: settings.cache.records_bytes,
            forgotten: held.forgotten,
            left: held.left.clone(),
            earlier: held.earlier.clone(),
            promise_ceiling_micros: held.promise_ceiling_micros,
            untrusted_since: held.untrusted_since,
        };
        let journal_options = JournalOptions {
            dir: folder.journal(),
            file_bytes: options.journal_file_bytes,
            disk_bytes_max: settings.journal.disk_bytes,
            durability: settings.durability,
            cluster,
            incarnation: held.incarnation,
            queue_bytes_max: JOURNAL_QUEUE_BYTES,
            blocking: options.blocking.clone(),
        };
        let (disk, engine_clock) = (options.disk.clone(), clock.clone());
        let open =
            move || Engine::open(engine_options, journal_options, disk, snapshots, engine_clock);
        let (engine, recovered) = options.blocking.run(open).await?;
        tracing::info!(
            entries = recovered.entry_count,
            last_lsn = recovered.last_lsn.0,
            torn_bytes = recovered.torn_bytes,
            "journal replayed"
        );
        if recovered.created && (held.recovered || !held.refilled.is_empty()) {
            lost = Some("the journal's files are gone".to_owned());
            renew = true;
        }
        // On disk before the first entry is taken: the next start, should this one end before the
        // coverage could be looked at, must not take such entries for what was found.
        let (found_lsn, gone) =
            (engine.found_lsn(), recovered.created || recovered.last_lsn < held.forgotten);
        let opened = |identity: &mut Identity| {
            identity.untrusted_since = Some(found_lsn);
            if gone {
                // Only this start sees that they are gone, and the numbers begin anew.
                identity.recovered = false;
                identity.refilled.clear();
                identity.forgotten = Lsn(0);
                identity.earlier.clear();
                identity.left.clear();
                identity.adopted = None;
            }
        };
        identity.change(opened).await?;
        if let Some(damage) = &recovered.damage {
            lost = Some(format!("the journal is damaged: {damage:?}"));
            renew = true;
            damaged = true;
        }

        let peer_options = PeerOptions {
            cluster: Arc::new(move || Some(cluster)),
            // Not that of a step which is the first to call: requests use them as well.
            runtime: Some(Handle::current()),
            ..PeerOptions::new(options.id.clone())
        };
        let peers = Arc::new(Peers::new(options.network.clone(), peer_options));
        let look = Arc::new(Notify::new());
        let links = Links::new(options.id.clone(), config.clone(), membership.clone(), peers);
        let replica = Replica::new(
            engine.clone(),
            config.clone(),
            membership.clone(),
            identity.clone(),
            look.clone(),
        );
        links.attach(replica.clone());
        engine.follow(None, &config.current());
        let followed = engine.clone();
        config.before_change(move |old, new| followed.follow(Some(old), new));
        let background = CancellationToken::new();
        let snapshotter = Snapshotter::new(links.clone(), engine.clone(), background.clone());
        replica.attach(&snapshotter, &links);
        let serving = Serving::new(links.clone(), clock);
        serving.issue_below_ceiling_of(&identity);
        let healer = Healer::new(
            serving.clone(),
            engine,
            snapshotter.clone(),
            identity.clone(),
            options.healing_interval_min,
        );
        replica.attach_healer(&healer);
        replica.attach_serving(&serving);
        let listener = options
            .network
            .listen(&rpc_address)
            .await
            .map_err(|source| NodeError::Listen { address: rpc_address.clone(), source })?;

        let node = Arc::new(Self {
            serving: serving.clone(),
            replica: replica.clone(),
            snapshotter,
            healer,
            config: config.clone(),
            look,
            identity,
            tasks: TaskTracker::new(),
            background: background.clone(),
            rpc: CancellationToken::new(),
            folder,
            address: rpc_address,
        });
        let rpc = node.rpc.clone();
        node.tasks.spawn(serve(listener, Arc::new(Calls(replica)), ServeOptions::default(), rpc));
        node.tasks.spawn(Gossiper::new(serving).run(background.clone()));
        node.tasks.spawn(watcher.run(config, node.look.clone(), background.clone()));
        node.tasks.spawn(node.clone().keep_house());
        node.tasks.spawn(node.clone().distrust_a_failed_journal());
        let (this, accept_loss) = (node.clone(), options.accept_loss);
        node.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = background.cancelled() => {}
                () = this.clone().come_up(Found { lost, renew, damaged, unsure }, accept_loss) => {}
            }
        });
        Ok(node)
    }

    /// Has the next start refill a folder whose journal failed: after a failed sync nobody can tell
    /// what of it the disk still has. Until then the node votes from memory (decision 0007).
    async fn distrust_a_failed_journal(self: Arc<Self>) {
        tokio::select! {
            () = self.background.cancelled() => return,
            _ = self.replica.engine().journal().failed() => {}
        }
        let marked = self
            .identity
            .change(|identity| {
                identity.recovered = false;
                identity.refilled.clear();
            })
            .await;
        match marked {
            Ok(()) => tracing::error!("the journal failed: restart this node, it will refill"),
            Err(error) => tracing::error!("cannot mark the folder as one to be refilled: {error}"),
        }
    }

    /// Keeps the clock's ceiling on disk ahead of the clock, and the journal compact.
    async fn keep_house(self: Arc<Self>) {
        loop {
            if let Err(error) = self.replica.engine().rewrite_sparse_file().await {
                tracing::warn!("cannot free a journal file: {error}");
            }
            let clock = self.serving.clock();
            let (last, now) = (clock.last_micros(), clock.now_micros());
            if let Err(error) = self.identity.keep_clock_ceiling_ahead(last, now).await {
                tracing::error!("cannot keep the clock's ceiling: {error}");
            }
            tokio::select! {
                () = self.background.cancelled() => return,
                () = tokio::time::sleep(HOUSE_EVERY) => {}
            }
        }
    }

    /// Leaves in good order: nothing new is taken, steps are forced until all that is held here is
    /// in the snapshot (or the time is over), then the journal is closed and the folder clean.
    pub async fn drain(&self, limit: Duration) {
        let until = Instant::now() + limit;
        self.replica.set_state(NodeState::Draining);
        self.serving.finish().await;
        // Not so a node that did not come up: what it holds stays in its journal.
        if self.replica.state() == NodeState::Draining {
            let drained = tokio::time::timeout_at(until, self.cover_all()).await;
            if drained.is_err() {
                tracing::warn!("not drained within {limit:?}; the journal keeps what is left");
            }
        }
        self.stop().await;
    }

    async fn cover_all(&self) {
        let engine = self.replica.engine().clone();
        for p in self.replica.held() {
            while engine.partition_status(p).uncovered > 0 {
                let first = self.snapshotter.first_in_line(p);
                let asked = self
                    .serving
                    .links()
                    .call(&first, 10 * CALL_DEADLINE, Request::ForceStep { partition: p })
                    .await;
                if asked.is_err() && first != *engine.node() {
                    let _ = self.snapshotter.step_here(p).await;
                }
                if engine.partition_status(p).uncovered > 0 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Stops every task and closes the journal; the folder is clean afterwards.
    pub async fn stop(&self) {
        self.background.cancel();
        self.rpc.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.snapshotter.close().await;
        let engine = self.replica.engine().clone();
        engine.snapshots().close().await;
        let blocking = engine.journal().blocking().clone();
        let close = move || {
            engine.close();
            engine.journal().is_failed()
        };
        let failed = blocking.run(close).await;
        let ceiling = self.serving.clock().last_micros() + 1;
        if failed.is_none() {
            let marked = self
                .identity
                .change(|identity| {
                    identity.clean = true;
                    // Nothing above it was issued, so the next start need not begin higher.
                    identity.clock_ceiling_micros = ceiling;
                })
                .await;
            if let Err(error) = marked {
                tracing::error!("cannot mark the folder clean: {error}");
            }
        }
    }

    /// Where the node keeps its data.
    #[must_use]
    pub fn data_folder(&self) -> &std::path::Path {
        self.folder.data()
    }
}

/// Waits until a configuration names this node.
async fn await_own_place(
    me: &NodeId,
    config: &ConfigCell,
    watcher: &ConfigWatcher,
    shutdown: &CancellationToken,
) -> Result<(), NodeError> {
    if config.current().node(me).is_none() {
        tracing::warn!("{}; waiting for one that names it", unknown(me, &config.current()));
    }
    while config.current().node(me).is_none() {
        tokio::select! {
            () = shutdown.cancelled() => return Err(NodeError::Stopped),
            () = tokio::time::sleep(OWN_PLACE_EVERY) => {}
        }
        if let Ok(fresh) = watcher.fetch(Some(&config.current())).await {
            // What is refused is logged by the cell.
            let _ = config.adopt(fresh);
        }
    }
    Ok(())
}

fn unknown(node: &NodeId, current: &Published) -> NodeError {
    NodeError::Unknown {
        node: node.clone(),
        deployment: current.config.active.clone(),
        epoch: current.epoch.to_string(),
        nodes: current.nodes().map(|node| node.id.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// The store by command line, configuration or default.
fn open_store(options: &NodeOptions, current: &Published) -> Result<Store, NodeError> {
    if let Some(store) = &options.store {
        return Ok(store.clone());
    }
    let folder = options.var.join("store");
    let settings = current.config.cluster.store.as_ref().map_or_else(
        || StoreSettings::url(&format!("file://{}", folder.display())),
        StoreSettings::from,
    );
    Store::open(&settings)
        .map_err(|error| NodeError::Store { url: settings.url.clone(), source: Box::new(error) })
}

/// The id of the cluster's data: the store's, or the folder's while the store is away, which the
/// flag says.
///
/// A new store gets a new id; who creates it is decided by the store.
async fn cluster_id(
    store: &Store,
    folder: &Folder,
    seed: u64,
    shutdown: &CancellationToken,
) -> Result<(ClusterId, bool), NodeError> {
    let drawn = ClusterId(u128::from(seed) << 64 | u128::from(seed.rotate_left(29) ^ 0x9e37_79b9));
    loop {
        let found = match store.probe().await {
            Ok(()) => store.cluster_id(Some(drawn)).await,
            Err(error) => Err(error),
        };
        let error = match found {
            Ok(Some(id)) => return Ok((id, false)),
            Ok(None) => continue,
            Err(error) if !error.kind().retry() => {
                return Err(NodeError::Store {
                    url: store.root().to_string(),
                    source: Box::new(error),
                });
            }
            Err(error) => error,
        };
        if let Some(identity) = folder.peek_identity() {
            tracing::warn!("object store: {error}; starting with what the folder knows");
            return Ok((identity.cluster, true));
        }
        tracing::warn!("object store: {error}; a new folder cannot start without it");
        tokio::select! {
            () = shutdown.cancelled() => return Err(NodeError::Stopped),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Names one run of one process in its versions.
pub(crate) fn origin_of(id: &NodeId, now_micros: u64, seed: u64) -> u64 {
    let mut bytes = id.as_str().as_bytes().to_vec();
    bytes.extend_from_slice(&now_micros.to_be_bytes());
    bytes.extend_from_slice(&seed.to_be_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}
