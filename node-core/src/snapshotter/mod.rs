//! Steps: who takes them, when, and how one goes.
//!
//! ```text
//! turn (who, when) ─► gather (tails of all holders, what is missing is fetched) ─► plan (rows)
//!   ─► PartitionWriter::step (one batch, one commit point) ─► own view ─► announcements
//! ```
//! The snapshotter of a partition is the first live, serving replica in rendezvous order; the
//! next one takes over when no step came for three intervals more. Two at once waste work and
//! nothing else: the writer's fence lets only one commit. Invariant: coverage says of a node only
//! what this very step pulled from it, or what an earlier step said.

mod follow;
mod gather;
mod plan;
mod turn;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream};
use parking_lot::Mutex;
use tako_flatbuf::{Request, Response, StepAnnouncement};
use tako_snapshot::{Committed, Meta, PartitionWriter, SnapshotError, Snapshots};
use tako_types::{ErrorKind, NodeId, PartitionId, StepNumber};
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use self::gather::Gathered;
pub use self::turn::rendezvous;
use crate::{
    engine::{Engine, EngineError, Missed, View},
    links::Links,
};

/// How often the loop looks for partitions whose turn it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Steps at one time on one node.
const AT_ONCE: usize = 2;
/// Time for a replica to open an announced step.
const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(10);

/// Why a step did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The snapshot could not be written or read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// This node's own store failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A record that a tail named could not be had.
    #[error("{missing} records of partition {partition} could not be fetched: {reason}")]
    Fetch {
        /// Which partition.
        partition: PartitionId,
        /// How many.
        missing: usize,
        /// What the last replica said.
        reason: String,
    },
    /// The process ends: what it holds is left to the next step, here or elsewhere.
    #[error("this node is shutting down")]
    Stopping,
}

impl StepError {
    /// What the caller does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Snapshot(error) => error.kind(),
            Self::Engine(error) => error.kind(),
            Self::Fetch { .. } | Self::Stopping => ErrorKind::Unavailable,
        }
    }
}

/// Counters of the snapshotter.
#[derive(Debug, Default)]
pub struct StepMetrics {
    /// Steps committed.
    pub steps: AtomicU64,
    /// Steps that failed.
    pub failures: AtomicU64,
    /// Records written by steps.
    pub records: AtomicU64,
    /// Tombstones and expired records purged.
    pub purged: AtomicU64,
}

/// What is kept per partition.
#[derive(Default)]
struct Slot {
    /// Open from the first step here until an error or another snapshotter.
    writer: AsyncMutex<Option<PartitionWriter>>,
    timing: Mutex<turn::Timing>,
}

/// See the module.
pub struct Snapshotter {
    links: Arc<Links>,
    engine: Arc<Engine>,
    snapshots: Arc<Snapshots>,
    slots: Mutex<HashMap<PartitionId, Arc<Slot>>>,
    at_once: Semaphore,
    shutdown: CancellationToken,
    metrics: StepMetrics,
}

impl Snapshotter {
    /// A snapshotter for the partitions of this node; `shutdown` ends steps in progress, and none
    /// starts after it.
    #[must_use]
    pub fn new(links: Arc<Links>, engine: Arc<Engine>, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            links,
            snapshots: engine.snapshots().clone(),
            engine,
            slots: Mutex::new(HashMap::new()),
            at_once: Semaphore::new(AT_ONCE),
            shutdown,
            metrics: StepMetrics::default(),
        })
    }

    /// Counters.
    #[must_use]
    pub fn metrics(&self) -> &StepMetrics {
        &self.metrics
    }

    fn slot(&self, p: PartitionId) -> Arc<Slot> {
        self.slots.lock().entry(p).or_default().clone()
    }

    /// Takes steps in turn until the shutdown.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let due: Vec<PartitionId> = self
                .links
                .config
                .current()
                .partitions_of(self.engine.node())
                .into_iter()
                .filter(|p| self.may_step(*p) && self.is_due(*p))
                .collect();
            let steps = stream::iter(due).for_each_concurrent(AT_ONCE, |p| {
                let this = self.clone();
                async move { this.step_logged(p).await }
            });
            steps.await;
        }
    }

    /// Whether steps of the partition are this node's to take.
    fn may_step(&self, p: PartitionId) -> bool {
        let current = self.links.config.current();
        current.placement(p).snapshotters.contains(self.engine.node())
    }

    async fn step_logged(&self, p: PartitionId) {
        let started = Instant::now();
        match self.step_here(p).await {
            Ok(step) => {
                let ms = started.elapsed().as_millis();
                tracing::debug!(partition = p.0, step = step.0, ms, "step");
            }
            Err(StepError::Stopping) => {}
            Err(error) => {
                self.slot(p).timing.lock().on_failure();
                tracing::warn!(partition = p.0, "no step: {error}");
            }
        }
    }

    /// Takes a step of this partition on this node now, whoever's turn it is.
    ///
    /// Answers with the step that covers everything which was durable here when it was asked.
    ///
    /// # Errors
    /// [`StepError`]; nothing is half done, the next try starts anew.
    pub async fn step_here(&self, p: PartitionId) -> Result<StepNumber, StepError> {
        // However slow the store is, it must not hold up the shutdown. A step that is dropped is
        // one that did not happen, or that the next writer finds.
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(StepError::Stopping),
            result = self.step_alone(p) => result,
        }
    }

    /// A step beside which none of the same partition goes on here.
    async fn step_alone(&self, p: PartitionId) -> Result<StepNumber, StepError> {
        let _permit = self.at_once.acquire().await.map_err(|_| EngineError::Opening(p))?;
        let slot = self.slot(p);
        let mut writer = slot.writer.lock().await;
        let result = self.step(p, &slot, &mut writer).await;
        if result.is_err() {
            self.metrics.failures.fetch_add(1, Ordering::Relaxed);
            // Handles are disposable: whatever went wrong, the next step opens a fresh one.
            *writer = None;
        }
        result
    }

    /// [`Self::step_here`] for a caller that is itself called by steps: this node's replica.
    pub(crate) fn forced(
        self: Arc<Self>,
        p: PartitionId,
    ) -> BoxFuture<'static, Result<StepNumber, StepError>> {
        Box::pin(async move { self.step_here(p).await })
    }

    async fn step(
        &self,
        p: PartitionId,
        slot: &Slot,
        held: &mut Option<PartitionWriter>,
    ) -> Result<StepNumber, StepError> {
        let writer = match held {
            Some(writer) => writer,
            None => {
                // A node that only found nothing to do must not fence a working snapshotter, so
                // the own view is looked at first.
                if self.gather(p, &self.base_view(p).await?).await?.is_empty() {
                    slot.timing.lock().on_step();
                    return Ok(self.engine.step(p));
                }
                held.insert(self.snapshots.writer(p).await?)
            }
        };
        let base = writer.meta().clone();
        let mut gathered = self.gather(p, &base).await?;
        if gathered.is_empty() {
            slot.timing.lock().on_step();
            if self.engine.step(p) < base.step {
                self.engine.open_latest(p).await?;
            }
            return Ok(self.engine.step(p));
        }
        let records = self.fetch_missing(p, &gathered).await?;
        gathered.fetched(&records);
        let due = self.due_rows(p, &gathered, &base, slot).await?;
        let grace = self.links.config.current().config.cluster.tombstone_grace;
        let now = self.engine.clock().now_micros();
        let mut input = plan::step_input(&base, &gathered, records, due, grace, now);
        if !input.purge.is_empty() {
            let current = self.links.config.current();
            let known = self.links.membership.known();
            plan::close_gone(&mut input.coverage, known, |node| current.node(node).is_some());
        }
        let (row_count, purge_count) = (input.rows.len(), input.purge.len());
        let committed = writer.step(input).await?;
        slot.timing.lock().on_step();
        self.metrics.steps.fetch_add(1, Ordering::Relaxed);
        self.metrics.records.fetch_add(row_count as u64, Ordering::Relaxed);
        self.metrics.purged.fetch_add(purge_count as u64, Ordering::Relaxed);
        self.announce(p, base.step, &committed, &gathered).await?;
        if let Err(error) = writer.maintain().await {
            // The step is committed; only the tidying failed.
            tracing::warn!(partition = p.0, "maintenance: {error}");
            *held = None;
        }
        Ok(committed.meta.step)
    }

    /// What the newest view known here says the snapshot holds.
    async fn base_view(&self, p: PartitionId) -> Result<Meta, StepError> {
        match self.engine.view(p) {
            Some(view) => Ok(view.meta.clone()),
            None => Ok(self.engine.open_latest(p).await?.meta.clone()),
        }
    }

    /// Due rows that this step may purge or drop; looked for only now and then.
    async fn due_rows(
        &self,
        p: PartitionId,
        gathered: &Gathered,
        base: &Meta,
        slot: &Slot,
    ) -> Result<plan::Due, StepError> {
        let current = self.links.config.current();
        // Everybody who may hold entries must have answered with all of them, at this very step.
        let grace = current.config.cluster.tombstone_grace;
        if !gathered.complete(&current.placement(p).holders, base.step)
            || !slot.timing.lock().looks_for_due(grace)
            || !self.nothing_left_behind(p, base).await
        {
            return Ok(plan::Due::default());
        }
        let Some(view) = self.engine.view(p).filter(|view| view.meta.step == base.step) else {
            return Ok(plan::Due::default());
        };
        let Some(reader) = &view.reader else { return Ok(plan::Due::default()) };
        let now = self.engine.clock().now_micros();
        let mut due = plan::Due::default();
        for row in reader.due(now, plan::DUE_ROWS_MAX).await? {
            let stored = reader.get(&row.key).await?;
            plan::sort_due(&mut due, row, stored, gathered);
        }
        Ok(due)
    }

    /// Moves this node and all replicas to a committed step.
    async fn announce(
        &self,
        p: PartitionId,
        previous: StepNumber,
        committed: &Committed,
        gathered: &Gathered,
    ) -> Result<(), StepError> {
        let me = self.engine.node().clone();
        let reader = self.snapshots.reader_at(p, committed.checkpoint).await?;
        let missed = gathered
            .missed(&me)
            .filter(|_| self.engine.step(p) == previous)
            .map_or(Missed::All, |keys| Missed::Keys(keys.into_iter().collect()));
        let view = View { meta: committed.meta.clone(), reader: Some(reader) };
        self.engine.install(p, Arc::new(view), &missed);
        let current = self.links.config.current();
        let holders = &current.placement(p).holders;
        let leaving = gathered.pulled.keys().filter(|node| !holders.contains(node));
        let others = holders.iter().chain(leaving).filter(|node| **node != me);
        // Who fails learns of the step by gossip when it is back.
        let others: Vec<_> = others.filter(|node| self.is_worth_asking(node)).cloned().collect();
        stream::iter(others)
            .for_each_concurrent(None, |node| async move {
                let announcement = announcement(p, previous, committed, gathered.missed(&node));
                self.tell(&node, announcement).await;
            })
            .await;
        Ok(())
    }

    async fn tell(&self, node: &NodeId, announcement: StepAnnouncement) {
        let partition = announcement.partition.0;
        let request = Request::Step(announcement);
        // Who misses it learns of the step by gossip and opens the newest itself.
        match self.links.call(node, ANNOUNCE_DEADLINE, request).await {
            Ok(Response::Step { .. }) => {}
            Ok(_) => tracing::warn!(partition, %node, "a step was answered by something else"),
            Err(error) => {
                tracing::debug!(partition, %node, "step not announced: {}", error.message);
            }
        }
    }

    /// Closes the writer of a partition that is left; none is opened again unless asked for.
    pub(crate) async fn forget(&self, p: PartitionId) {
        let slot = self.slots.lock().remove(&p);
        if let Some(slot) = slot
            && let Some(writer) = slot.writer.lock().await.take()
        {
            writer.close().await;
        }
    }

    /// Closes every writer; for the end of the process.
    pub async fn close(&self) {
        let slots: Vec<_> = self.slots.lock().drain().map(|(_, slot)| slot).collect();
        for slot in slots {
            if let Some(writer) = slot.writer.lock().await.take() {
                writer.close().await;
            }
        }
    }
}

fn announcement(
    partition: PartitionId,
    previous: StepNumber,
    committed: &Committed,
    missed: Option<Vec<u64>>,
) -> StepAnnouncement {
    StepAnnouncement {
        partition,
        step: committed.meta.step,
        manifest: committed.checkpoint.manifest,
        checkpoint: committed.checkpoint.id,
        highest: committed.meta.highest,
        coverage: committed
            .meta
            .coverage
            .iter()
            .map(|(node, (incarnation, lsn))| (node.clone(), *incarnation, *lsn))
            .collect(),
        previous,
        missed,
    }
}
