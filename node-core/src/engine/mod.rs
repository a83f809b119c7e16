//! One node's store: journal, index, caches and snapshot views behind the replica's operations.
//!
//! ```text
//! put:   accept rule ─► journal (durable) ─► Shelf::on_durable: index ─► answer
//! cas:   promise ─► vote; then promise and base checked ─► as put
//! vote:  index ─► record cache ─► snapshot view (block cache ─► object store) ─► merge
//! step:  install view ─► fix record cache ─► trim index, release journal places
//! ```
//! Calls: tako-journal, tako-snapshot. Called by: service (RPC), replication (local replica),
//! snapshotter. It knows neither peers nor the configuration's epochs.

mod audit;
mod cache;
mod conditional;
mod index;
mod list;
mod partition;
mod place;
mod promise;
mod rewrite;
mod shelf;
mod stance;
mod tail;
mod vote;
mod write;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

pub use audit::Audited;
pub use conditional::Prepared;
pub use partition::{Missed, View};
pub use tail::{PartitionStatus, TailPage};
use tako_flatbuf::RecordError;
use tako_journal::{Disk, Journal, JournalError, JournalOptions, Recovered};
use tako_snapshot::{SnapshotError, Snapshots};
use tako_types::{
    ErrorKind, HybridClock, Incarnation, Lsn, NodeId, PartitionId, StepNumber, Version,
};
pub use vote::Vote;
pub use write::{Accepted, Intent};

use self::{partition::Partition, shelf::Shelf};

/// Why the node's own store could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The journal refused or failed.
    #[error("journal: {0}")]
    Journal(#[from] JournalError),
    /// The snapshot could not be read.
    #[error("snapshot of partition {partition}: {source}")]
    Snapshot {
        /// Which partition.
        partition: PartitionId,
        /// What the snapshot said.
        source: SnapshotError,
    },
    /// The partition's snapshot view is not open yet, so there is no vote.
    #[error("partition {0} is still being opened here")]
    Opening(PartitionId),
    /// This node does not vote on the partition yet, so it promises nothing.
    #[error("partition {0} is still recovering here")]
    NotVoting(PartitionId),
    /// A stored record is damaged.
    #[error("damaged record in partition {partition}: {source}")]
    Record {
        /// Which partition.
        partition: PartitionId,
        /// What is wrong with it.
        source: RecordError,
    },
}

impl EngineError {
    /// What the caller does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Journal(error) => error.kind(),
            Self::Snapshot { source, .. } => source.kind(),
            Self::Opening(_) | Self::NotVoting(_) => ErrorKind::Unavailable,
            Self::Record { .. } => ErrorKind::Corrupt,
        }
    }
}

/// What an engine needs to know of its node.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// This node.
    pub node: NodeId,
    /// This data folder, at first.
    pub incarnation: Incarnation,
    /// 2^this partitions.
    pub partitions_log2: u32,
    /// Bytes of uncovered records kept in memory; the rest is read back from the journal.
    pub journal_memory_bytes: u64,
    /// Bytes of the record cache.
    pub records_bytes: u64,
    /// Entries up to here are left out of the replay.
    pub forgotten: Lsn,
    /// Partitions that were left: of each, entries up to here are left out of the replay.
    pub left: BTreeMap<PartitionId, Lsn>,
    /// Which folders this one was before, each with its last LSN as such.
    pub earlier: BTreeMap<Incarnation, Lsn>,
    /// No earlier run of this folder promised a ballot at or above this; 0 when none promised.
    pub promise_ceiling_micros: u64,
    /// Last LSN of the journal at an earlier opening, if the folder was never trusted since.
    pub untrusted_since: Option<Lsn>,
}

/// Counters of one engine; read by metrics and tests.
#[derive(Debug, Default)]
pub struct EngineMetrics {
    /// Votes answered from the index.
    pub index_hits: AtomicU64,
    /// Votes answered from the record cache.
    pub cache_hits: AtomicU64,
    /// Votes that read the snapshot.
    pub snapshot_reads: AtomicU64,
    /// Writes accepted.
    pub accepted: AtomicU64,
    /// Writes refused because something newer is held.
    pub superseded: AtomicU64,
    /// Ballots promised.
    pub promised: AtomicU64,
    /// Writes refused for a promise.
    pub barred: AtomicU64,
    /// Cached records that were found older than the snapshot's.
    pub stale: AtomicU64,
}

/// See the module.
pub struct Engine {
    options: EngineOptions,
    shelf: Arc<Shelf>,
    journal: Arc<Journal>,
    snapshots: Arc<Snapshots>,
    clock: HybridClock,
    metrics: EngineMetrics,
    incarnation: AtomicU64,
    /// Ballots below this may be promised; on disk before it is raised here.
    promise_ceiling: AtomicU64,
    /// Last LSN before the first opening since the folder was trusted last.
    found: Lsn,
    /// Coverage is believed: this folder is what the snapshot speaks of.
    trusted: AtomicBool,
    closed: AtomicBool,
}

impl Engine {
    /// Replays the journal into a new engine; views are opened later, one by one.
    ///
    /// Blocking: reads the whole journal. Damage is in the answer; the caller decides about it.
    ///
    /// # Errors
    /// [`EngineError::Journal`] where the folder cannot be used at all.
    pub fn open(
        options: EngineOptions,
        journal: JournalOptions,
        disk: Arc<dyn Disk>,
        snapshots: Arc<Snapshots>,
        clock: HybridClock,
    ) -> Result<(Arc<Self>, Recovered), EngineError> {
        let shelf = Arc::new(Shelf::new(&options));
        let (journal, recovered) = Journal::open(journal, disk, shelf.clone())?;
        shelf.attach(&journal);
        shelf.set_applied(recovered.last_lsn);
        let incarnation = AtomicU64::new(options.incarnation.0);
        let promise_ceiling = AtomicU64::new(options.promise_ceiling_micros);
        let found = recovered.last_lsn.min(options.untrusted_since.unwrap_or(recovered.last_lsn));
        let engine = Self {
            options,
            shelf,
            journal,
            snapshots,
            clock,
            metrics: EngineMetrics::default(),
            incarnation,
            promise_ceiling,
            found,
            trusted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        };
        if let Some(micros) = engine.options.promise_ceiling_micros.checked_sub(1) {
            let forgotten = Version { micros, origin: u64::MAX };
            engine.partitions().for_each(|p| engine.raise_promise_floor(p, forgotten));
        }
        Ok((Arc::new(engine), recovered))
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.options.node
    }

    /// This data folder.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.load(Ordering::Acquire))
    }

    /// Goes on as a new data folder: what was known of the old one does not bind any more.
    ///
    /// # Errors
    /// [`EngineError::Journal`] when the journal cannot say so durably.
    pub async fn adopt(&self, incarnation: Incarnation) -> Result<(), EngineError> {
        self.journal.adopt(incarnation).await?;
        self.incarnation.store(incarnation.0, Ordering::Release);
        Ok(())
    }

    /// k of the 2^k partitions.
    #[must_use]
    pub fn partitions_log2(&self) -> u32 {
        self.options.partitions_log2
    }

    /// Counters.
    #[must_use]
    pub fn metrics(&self) -> &EngineMetrics {
        &self.metrics
    }

    /// The clock that this node's versions come from.
    #[must_use]
    pub fn clock(&self) -> &HybridClock {
        &self.clock
    }

    /// The partition snapshots.
    #[must_use]
    pub fn snapshots(&self) -> &Arc<Snapshots> {
        &self.snapshots
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Bytes that uncovered records take in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.shelf.memory_bytes()
    }

    /// Bytes that the record cache takes.
    #[must_use]
    pub fn records_bytes(&self) -> usize {
        self.shelf.cache.usage_bytes()
    }

    /// Last LSN of the journal as it was found, at the first opening since the folder was trusted
    /// last: this one, or an earlier one that never came to look at the coverage.
    #[must_use]
    pub fn found_lsn(&self) -> Lsn {
        self.found
    }

    /// Believes the snapshot's coverage from now on. Before, a folder that was rolled back would
    /// take new entries for the covered ones whose numbers they bear. That
    /// lasts over any number of starts (`EngineOptions::untrusted_since`).
    pub fn trust_coverage(&self) {
        self.trusted.store(true, Ordering::Release);
        // What came since and is covered in the views at hand: no later step may say so again.
        for p in self.partitions() {
            self.trim(p);
        }
    }

    /// Lets go of what the view in force covers.
    fn trim(&self, p: PartitionId) {
        let mut inner = self.partition(p).lock();
        let Some(covered) = inner.view.as_ref().map(|view| self.covered(view)) else { return };
        let gone = inner.index.trim(covered);
        drop(inner);
        self.let_go(gone);
    }

    /// Forgets every entry that was found: the folder is one that another came after. The next
    /// replay must be told (`EngineOptions::forgotten`), for their files may stay for some time.
    pub fn forget_replayed(&self) {
        for p in self.partitions() {
            let gone = self.partition(p).lock().index.trim(self.found);
            self.let_go(gone);
        }
    }

    fn let_go(&self, gone: Vec<index::Held>) {
        for held in gone {
            self.shelf.forget_memory(held.memory_bytes());
            self.journal.release(held.location);
        }
    }

    /// Up to where a view covers this node's entries, as far as that is believed.
    fn covered(&self, view: &View) -> Lsn {
        let mut covered = view.covered(&self.options.node, self.incarnation());
        if !self.is_trusted() {
            covered = covered.min(self.found);
        }
        // LSNs go on from folder to folder, so at most one of these is above 0.
        for (earlier, last) in &self.options.earlier {
            covered = covered.max(view.covered(&self.options.node, *earlier).min(*last));
        }
        covered
    }

    /// Last LSN that is durable and visible.
    #[must_use]
    pub fn applied_lsn(&self) -> Lsn {
        self.shelf.applied()
    }

    /// Every partition of the cluster, own or not.
    fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let count = 1u32 << self.options.partitions_log2;
        (0..count).filter_map(|p| u16::try_from(p).ok()).map(PartitionId)
    }

    fn partition(&self, p: PartitionId) -> &Partition {
        self.shelf.partition(p)
    }

    /// The view in force, if one was opened.
    #[must_use]
    pub fn view(&self, p: PartitionId) -> Option<Arc<View>> {
        self.partition(p).lock().view.clone()
    }

    /// Step of the view in force; 0 when there is none.
    #[must_use]
    pub fn step(&self, p: PartitionId) -> StepNumber {
        self.view(p).map_or(StepNumber(0), |view| view.meta.step)
    }

    /// Moves a partition to a newer view; older ones are ignored.
    pub fn install(&self, p: PartitionId, view: Arc<View>, missed: &Missed) {
        let trusted = self.is_trusted();
        let covered = self.covered(&view);
        let trimmed = self.partition(p).install(view, covered, missed, &self.shelf.cache);
        self.shelf.forget_memory(trimmed.memory_bytes);
        for location in trimmed.locations {
            self.journal.release(location);
        }
        if !trusted && self.is_trusted() {
            // Trusted just now, maybe before this view could be seen.
            self.trim(p);
        }
    }

    /// The newest committed step, not installed yet.
    async fn newest_view(&self, p: PartitionId) -> Result<Arc<View>, EngineError> {
        let reader = self
            .snapshots
            .reader_latest(p)
            .await
            .map_err(|source| EngineError::Snapshot { partition: p, source })?;
        Ok(Arc::new(match reader {
            Some(reader) => View { meta: reader.meta().clone(), reader: Some(reader) },
            None => View::empty(),
        }))
    }

    /// Opens the newest committed step of a partition and installs it.
    ///
    /// # Errors
    /// [`EngineError::Snapshot`] when the store cannot be read.
    pub async fn open_latest(&self, p: PartitionId) -> Result<Arc<View>, EngineError> {
        let view = self.newest_view(p).await?;
        self.install(p, view.clone(), &Missed::All);
        Ok(view)
    }

    /// Whether the snapshot's coverage is believed.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Acquire)
    }

    /// Stops taking writes: commits what is queued and closes the journal.
    pub fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.journal.close();
        }
    }
}
