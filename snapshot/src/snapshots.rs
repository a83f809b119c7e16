//! What all snapshots of a node share, and how their databases are opened.
//!
//! Invariant: one block cache for all partitions, one cache id per database, the same for its
//! writer and its readers. Opening a reader never creates a database. No background task outlives
//! [`Snapshots::close`].

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use object_store::path::Path;
use parking_lot::Mutex;
use slatedb::{
    DbReaderMode, VersionedManifest,
    admin::{Admin, AdminBuilder},
    config::CheckpointOptions,
};
use slatedb_common::clock::SystemClock as _;
use tako_types::{Clock, PartitionId, limits::STORE_DEADLINE};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    MergeFn, PartitionReader, PartitionScan, PartitionWriter, SnapshotError, Upkeep,
    cache::BlockCache, clock::StoreClock, hold::Hold, merge::RecordMerge, settings, store::Store,
};

const CLOSE_DEADLINE: Duration = Duration::from_secs(15);
/// Half of it is what a replica has to move on to a newer step: some seconds where it was told, as
/// many more where it must learn of it by gossip and open it from a slow store.
const LEASE_MIN: Duration = Duration::from_secs(2 * 60);

/// Budgets and times of a node's snapshots.
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    /// The cluster has `2^partitions_log2` partitions.
    pub partitions_log2: u32,
    /// Memory for blocks, filters and indexes of all partitions.
    pub cache_memory_bytes: usize,
    /// Folder and bytes of the cache's part on disk.
    pub cache_disk: Option<(PathBuf, u64)>,
    /// How long a checkpoint's files are kept at least. Half of it is what a reader has to move on
    /// after a newer step; each step's checkpoint stands in the manifest for so long.
    pub lease: Duration,
    /// Least time between two collections of one partition.
    pub collect_interval: Duration,
    /// Limit of a step and of opening a writer.
    pub step_deadline: Duration,
    /// How often a running compaction looks for progress; each look is a few GETs.
    pub compaction_poll: Duration,
    /// How long `maintain` waits for the work it started; it goes on in the background. By default
    /// not at all: who had a step taken must not wait for a compaction, nor must the next step.
    pub maintain_patience: Duration,
    /// Limit of one compaction or collection.
    pub maintain_deadline: Duration,
    /// Where databases are opened and work by themselves.
    pub upkeep: Upkeep,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self {
            partitions_log2: tako_types::limits::PARTITIONS_DEFAULT.ilog2(),
            cache_memory_bytes: 256 << 20,
            cache_disk: None,
            lease: Duration::from_secs(15 * 60),
            collect_interval: Duration::from_secs(3600),
            step_deadline: Duration::from_secs(60),
            compaction_poll: Duration::from_secs(1),
            maintain_patience: Duration::ZERO,
            maintain_deadline: Duration::from_secs(600),
            upkeep: Upkeep::default(),
        }
    }
}

/// One state of a partition's snapshot, as announced after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Checkpoint {
    /// The checkpoint's UUID.
    pub id: u128,
    /// The manifest that it names; grows with every change of the database.
    pub manifest: u64,
}

/// What a reader's blocks come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Through {
    /// The node's block cache.
    Cache,
    /// Nothing: every block comes from the store.
    Nothing,
}

/// The snapshots of one node.
pub struct Snapshots {
    pub(crate) shared: Arc<Shared>,
}

/// What writers and readers hold on to.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) options: SnapshotOptions,
    pub(crate) wall: Arc<dyn Clock>,
    pub(crate) merge_fn: MergeFn,
    pub(crate) merge: Arc<RecordMerge>,
    pub(crate) cache: BlockCache,
    /// Owns every background task: maintenance and the closing of dropped handles.
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
    /// One at a time per node: both take memory in proportion to their input.
    pub(crate) compacting: Semaphore,
    pub(crate) hold: Hold,
    pub(crate) collecting: Semaphore,
    /// When each partition was last collected here, in microseconds.
    pub(crate) collected_at: Mutex<HashMap<PartitionId, u64>>,
}

impl Snapshots {
    /// Opens the cache; sends nothing to the store.
    ///
    /// # Errors
    /// [`SnapshotError::Invalid`] when the options contradict each other.
    pub async fn new(
        store: Store,
        options: SnapshotOptions,
        clock: Arc<dyn Clock>,
        merge: MergeFn,
    ) -> Result<Arc<Self>, SnapshotError> {
        if options.partitions_log2 > tako_types::limits::PARTITIONS_MAX.ilog2() {
            let what = format!("2^{} partitions", options.partitions_log2);
            return Err(SnapshotError::Invalid(what));
        }
        if options.lease < LEASE_MIN {
            let what = format!("a lease of less than {LEASE_MIN:?}: readers need the time");
            return Err(SnapshotError::Invalid(what));
        }
        let cache = BlockCache::open(options.cache_memory_bytes, options.cache_disk.clone()).await;
        let shared = Shared {
            store,
            options,
            wall: clock,
            merge_fn: merge,
            merge: Arc::new(RecordMerge(merge)),
            cache,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            compacting: Semaphore::new(1),
            hold: Hold::new(),
            collecting: Semaphore::new(1),
            collected_at: Mutex::default(),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }

    /// Compaction stands still while this is on, for two minutes at most: what it takes of processor
    /// and store is needed for something that cannot wait. Steps and collection go on.
    pub fn hold_compaction(&self, on: bool) {
        self.shared.hold.set(on);
    }

    /// Takes a partition over: an older writer is fenced from here on. Creates the database when
    /// there is none, and reads the meta that the last step left.
    ///
    /// # Errors
    /// [`SnapshotError`]; then nothing, or only the fencing, has happened.
    pub async fn writer(&self, partition: PartitionId) -> Result<PartitionWriter, SnapshotError> {
        PartitionWriter::open(self.shared.clone(), partition).await
    }

    /// Opens the state that was announced with `checkpoint`.
    ///
    /// # Errors
    /// [`SnapshotError::Gone`] when it was collected: ask for a newer one.
    pub async fn reader_at(
        &self,
        partition: PartitionId,
        checkpoint: Checkpoint,
    ) -> Result<PartitionReader, SnapshotError> {
        PartitionReader::open(&self.shared, partition, checkpoint).await
    }

    /// Begins to read a whole state from the store itself, past every cache; sends nothing yet.
    #[must_use]
    pub fn scan(&self, partition: PartitionId, checkpoint: Checkpoint) -> PartitionScan {
        PartitionScan::new(self.shared.clone(), partition, checkpoint)
    }

    /// Opens the newest committed step without an announcement, protected from collection for at
    /// least half a lease; `None` where no step was ever committed. Never creates a database.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn reader_latest(
        &self,
        partition: PartitionId,
    ) -> Result<Option<PartitionReader>, SnapshotError> {
        let admin = self.shared.admin(partition);
        let look = async {
            let Some(latest) = admin.read_manifest(None).await? else { return Ok(None) };
            if !latest.initialized() || latest.all_sst_views().next().is_none() {
                return Ok(None);
            }
            if let Some(checkpoint) = self.shared.protecting(&admin, &latest).await? {
                return Ok(Some(checkpoint));
            }
            let lifetime = Some(self.shared.options.lease);
            let options = CheckpointOptions { lifetime, ..CheckpointOptions::default() };
            let made = admin.create_detached_checkpoint(&options).await?;
            Ok(Some(Checkpoint { id: made.id.as_u128(), manifest: made.manifest_id }))
        };
        match opening(self.shared.db_path(partition), STORE_DEADLINE, look).await? {
            Some(checkpoint) => Ok(Some(self.reader_at(partition, checkpoint).await?)),
            None => Ok(None),
        }
    }

    /// Whether the block cache has a part on disk (its folder may have been of no use).
    #[must_use]
    pub fn cache_on_disk(&self) -> bool {
        self.shared.cache.on_disk()
    }

    /// Where its databases were opened, for other work that no request waits for.
    #[must_use]
    pub fn upkeep(&self) -> &Upkeep {
        &self.shared.options.upkeep
    }

    /// The store, for its counts.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Stops maintenance, waits for handles that are being closed, and closes the cache. Close
    /// writers and readers first; later calls fail with [`SnapshotError::Closed`].
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(CLOSE_DEADLINE, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("snapshot tasks did not end within {CLOSE_DEADLINE:?}");
        }
        self.shared.cache.close().await;
    }
}

impl Shared {
    /// `<root>/partitions/<k>-<p>/db`.
    pub(crate) fn db_path(&self, partition: PartitionId) -> Path {
        self.db_path_of(self.options.partitions_log2, partition)
    }

    fn db_path_of(&self, log2: u32, partition: PartitionId) -> Path {
        self.store.path(&format!("partitions/{log2}-{partition}/db"))
    }

    /// Unique per database, and the same after a restart, when the cache finds its blocks again.
    pub(crate) fn cache_id(&self, partition: PartitionId) -> u64 {
        u64::from(self.options.partitions_log2) << 32 | u64::from(partition.0)
    }

    pub(crate) fn admin(&self, partition: PartitionId) -> Admin {
        self.admin_of(self.options.partitions_log2, partition)
    }

    /// The same for a partition of another number of them.
    pub(crate) fn admin_of(&self, log2: u32, partition: PartitionId) -> Admin {
        AdminBuilder::new(self.db_path_of(log2, partition), self.store.object_store())
            .with_system_clock(StoreClock::new(self.wall.clone()))
            .with_merge_operator(self.merge.clone())
            .build()
    }

    /// A checkpoint of `latest` that shows all of its records and lives for half a lease yet.
    ///
    /// Never one that somebody else may delete at any time: a backup's, which has a name, or what a
    /// clone holds, which does not expire.
    async fn protecting(
        &self,
        admin: &Admin,
        latest: &VersionedManifest,
    ) -> Result<Option<Checkpoint>, SnapshotError> {
        let needed_until = StoreClock::new(self.wall.clone()).now() + self.options.lease / 2;
        let newest = latest
            .checkpoints()
            .iter()
            .filter(|checkpoint| checkpoint.name.is_none())
            .filter(|checkpoint| checkpoint.expire_time.is_some_and(|at| at >= needed_until))
            .max_by_key(|checkpoint| checkpoint.manifest_id);
        let Some(newest) = newest else { return Ok(None) };
        // Manifests after the step's own are compactions, take-overs and collections: most often
        // the records are the same.
        let same = newest.manifest_id == latest.id()
            || admin
                .read_manifest(Some(newest.manifest_id))
                .await?
                .is_some_and(|manifest| manifest.last_l0_seq() == latest.last_l0_seq());
        let found = Checkpoint { id: newest.id.as_u128(), manifest: newest.manifest_id };
        Ok(same.then_some(found))
    }

    /// Opens SlateDB's reader on a checkpoint, over the block cache or past every cache.
    pub(crate) async fn open_reader(
        &self,
        partition: PartitionId,
        checkpoint: Checkpoint,
        through: Through,
    ) -> Result<slatedb::DbReader, SnapshotError> {
        if self.closing.is_cancelled() {
            return Err(SnapshotError::Closed);
        }
        let builder =
            slatedb::DbReader::builder(self.db_path(partition), self.store.object_store())
                .with_reader_mode(DbReaderMode::Checkpoint(Uuid::from_u128(checkpoint.id)))
                .with_options(settings::reader())
                .with_merge_operator(self.merge.clone())
                .with_system_clock(StoreClock::new(self.wall.clone()));
        let builder = match through {
            Through::Cache => builder.with_db_cache(self.cache.shared(), self.cache_id(partition)),
            Through::Nothing => builder.with_db_cache_disabled(),
        };
        let path = self.db_path(partition);
        let building = opening(path, STORE_DEADLINE, async { Ok(builder.build().await?) });
        let outcome = self.options.upkeep.run(building).await?;
        match outcome {
            // The engine reports a collected checkpoint as damage, without saying which it is.
            Err(SnapshotError::Corrupt(what)) => {
                let admin = self.admin(partition);
                let latest =
                    bounded(STORE_DEADLINE, async { Ok(admin.read_manifest(None).await?) }).await?;
                let listed = latest.is_some_and(|manifest| {
                    manifest.checkpoints().iter().any(|known| known.id.as_u128() == checkpoint.id)
                });
                Err(if listed { SnapshotError::Corrupt(what) } else { SnapshotError::Gone })
            }
            other => other,
        }
    }
}

/// Waits at most `deadline`.
///
/// On the heap: SlateDB's futures take 20 KiB and more, which every future that may come to one
/// would otherwise carry along, down to the answer from memory.
pub(crate) fn bounded<'a, T: 'a>(
    deadline: Duration,
    work: impl Future<Output = Result<T, SnapshotError>> + Send + 'a,
) -> BoxFuture<'a, Result<T, SnapshotError>> {
    Box::pin(async move {
        match tokio::time::timeout(deadline, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(SnapshotError::Deadline(deadline)),
        }
    })
}

/// [`bounded`] for what looks for the newest manifest of the database at `path`, which has no end of
/// its own where a file among them is none of the engine's.
pub(crate) fn opening<'a, T: 'a>(
    path: Path,
    deadline: Duration,
    work: impl Future<Output = Result<T, SnapshotError>> + Send + 'a,
) -> BoxFuture<'a, Result<T, SnapshotError>> {
    let bounded = bounded(deadline, work);
    Box::pin(async move {
        bounded.await.map_err(|error| match error {
            SnapshotError::Deadline(after) => {
                SnapshotError::Opening { path: path.to_string(), after }
            }
            error => error,
        })
    })
}
