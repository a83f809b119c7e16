//! Compaction and collection of one partition, on demand.
//!
//! Invariant: at most one maintenance task per writer, started only after a step, stopped with the
//! writer; one compaction and one collection at a time per node. It changes no record: compaction
//! merges tables with the merge operator, collection deletes what no manifest and no live
//! checkpoint names, after what `grace.rs` asks for was leased again. A failure costs time only and
//! is tried again after a later step.

use std::{sync::Arc, time::Duration};

use slatedb::{
    CompactorBuilder, Db, GarbageCollectorBuilder,
    compactor::{
        CompactionScheduler, CompactionSchedulerSupplier, CompactionSpec, CompactorStateView,
        SizeTieredCompactionSchedulerSupplier,
    },
    config::CompactorOptions,
};
use slatedb_common::clock::SystemClock as _;
use tako_types::{PartitionId, limits::STORE_DEADLINE};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::{
    Maintained, SnapshotError,
    clock::{StoreClock, floor_millis},
    grace::Grace,
    settings,
    snapshots::{Shared, bounded},
};

/// A writer's maintenance task.
pub(crate) struct Maintenance {
    stop: CancellationToken,
    running: Option<JoinHandle<Maintained>>,
    grace: Grace,
}

impl Maintenance {
    pub(crate) fn new(stop: CancellationToken, lease: Duration) -> Self {
        Self { stop, running: None, grace: Grace::new(lease) }
    }

    /// A step was committed, shown by `checkpoint`.
    pub(crate) fn on_step(&mut self, checkpoint: Uuid, now_micros: u64) {
        self.grace.on_step(checkpoint.as_u128(), now_micros);
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Starts what is due, waits a little, and reports what has finished.
    pub(crate) async fn run(
        &mut self,
        shared: &Arc<Shared>,
        partition: PartitionId,
        db: &Db,
    ) -> Result<Maintained, SnapshotError> {
        if self.running.is_none() {
            let is_large = db.manifest().l0().len() >= settings::COMPACT_FROM_TABLES;
            let work = if is_large && !shared.hold.is_on() {
                Work::Compact { last_tick_millis: floor_millis(&db.manifest()) }
            } else if self.grace.is_over(shared.wall.now_micros())
                && is_collection_due(shared, partition, db)
            {
                // The writer must know the newest manifest before older ones are deleted: it looks
                // for newer ones by number, takes a gap for the end, and on a folder would commit
                // into that gap, where nobody looks.
                refresh(db).await?;
                let replaced = self.grace.to_lease_again(shared.wall.now_micros());
                Work::Collect { lease_again: replaced.map(Uuid::from_u128) }
            } else {
                return Ok(Maintained::default());
            };
            let task = run_work(shared.clone(), partition, self.stop.clone(), work);
            self.running = Some(shared.options.upkeep.spawn(&shared.tasks, task));
        }
        let Some(task) = &mut self.running else { return Ok(Maintained::default()) };
        match tokio::time::timeout(shared.options.maintain_patience, task).await {
            Err(_) => Ok(Maintained { running: true, ..Maintained::default() }),
            Ok(ended) => {
                self.running = None;
                refresh(db).await?;
                Ok(ended.unwrap_or_default())
            }
        }
    }
}

/// Something has expired, and the last collection is long enough ago.
fn is_collection_due(shared: &Shared, partition: PartitionId, db: &Db) -> bool {
    let now = StoreClock::new(shared.wall.clone()).now();
    let interval = u64::try_from(shared.options.collect_interval.as_micros()).unwrap_or(u64::MAX);
    let last = shared.collected_at.lock().get(&partition).copied().unwrap_or(0);
    let now_micros = u64::try_from(now.timestamp_micros()).unwrap_or(0);
    now_micros.saturating_sub(last) >= interval
        && db
            .manifest()
            .checkpoints()
            .iter()
            .any(|known| known.expire_time.is_some_and(|at| at < now))
}

async fn refresh(db: &Db) -> Result<(), SnapshotError> {
    bounded(STORE_DEADLINE, async { Ok(db.refresh_manifest().await?) }).await
}

/// What a maintenance task does; never both, see [`Maintenance::run`].
enum Work {
    Compact {
        /// Last tick of the manifest: what a dead worker left is measured from there.
        last_tick_millis: i64,
    },
    Collect {
        /// The state that readers may still be on although its lease is over.
        lease_again: Option<Uuid>,
    },
}

async fn run_work(
    shared: Arc<Shared>,
    partition: PartitionId,
    stop: CancellationToken,
    work: Work,
) -> Maintained {
    let mut done = Maintained::default();
    match work {
        Work::Compact { last_tick_millis } => {
            match run_compaction(&shared, partition, &stop, last_tick_millis).await {
                Ok(compacted) => done.compacted = compacted,
                Err(error) => warn!(%partition, %error, "snapshot was not compacted"),
            }
        }
        Work::Collect { lease_again } => {
            done.collected = run_collection(&shared, partition, &stop, lease_again).await;
        }
    }
    done
}

/// Runs SlateDB's compactor until it has nothing to do; says whether it got that far.
async fn run_compaction(
    shared: &Shared,
    partition: PartitionId,
    stop: &CancellationToken,
    last_tick_millis: i64,
) -> Result<bool, SnapshotError> {
    let Some(Ok(_turn)) = stop.run_until_cancelled(shared.compacting.acquire()).await else {
        return Ok(false);
    };
    let idle = Arc::new(Notify::new());
    // What has begun, or waited for its turn, stands still here.
    let store = shared.hold.over(shared.store.object_store());
    let compactor = CompactorBuilder::new(shared.db_path(partition), store)
        .with_options(settings::compactor(&shared.options))
        .with_merge_operator(shared.merge.clone())
        .with_system_clock(StoreClock::after_millis(shared.wall.clone(), last_tick_millis))
        .with_scheduler_supplier(Arc::new(UntilIdle(idle.clone())))
        .build();
    let deadline = shared.options.maintain_deadline;
    let outcome = tokio::select! {
        ended = compactor.run() => match ended {
            Ok(()) => Ok(false),
            Err(error) => Err(error.into()),
        },
        () = idle.notified() => Ok(true),
        () = stop.cancelled() => Ok(false),
        () = tokio::time::sleep(deadline) => Err(SnapshotError::Deadline(deadline)),
    };
    if let Err(error) = bounded(STORE_DEADLINE, async { Ok(compactor.stop().await?) }).await {
        // A fenced or failed compactor has stopped by itself.
        tracing::debug!(%partition, %error, "compactor did not stop cleanly");
    }
    outcome
}

async fn run_collection(
    shared: &Shared,
    partition: PartitionId,
    stop: &CancellationToken,
    lease_again: Option<Uuid>,
) -> bool {
    let Some(Ok(_turn)) = stop.run_until_cancelled(shared.collecting.acquire()).await else {
        return false;
    };
    if let Some(checkpoint) = lease_again {
        let admin = shared.admin(partition);
        let lease = Some(shared.options.lease);
        let leased = bounded(STORE_DEADLINE, async {
            Ok(admin.refresh_checkpoint(checkpoint, lease).await?)
        });
        if let Err(error) = leased.await {
            warn!(%partition, %error, "snapshot was not collected: its last state has no lease");
            return false;
        }
    }
    let collector =
        GarbageCollectorBuilder::new(shared.db_path(partition), shared.store.object_store())
            .with_options(settings::collector(shared.store.is_local()))
            .with_system_clock(StoreClock::new(shared.wall.clone()))
            .build();
    let deadline = shared.options.maintain_deadline;
    let run = tokio::time::timeout(deadline, collector.run_gc_once());
    match stop.run_until_cancelled(run).await {
        Some(Ok(())) => {
            shared.collected_at.lock().insert(partition, shared.wall.now_micros());
            true
        }
        Some(Err(_)) => {
            warn!(%partition, "snapshot was not collected within {deadline:?}");
            false
        }
        None => false,
    }
}

/// The engine's size-tiered scheduler, which says when it has nothing left to propose.
struct UntilIdle(Arc<Notify>);

impl CompactionSchedulerSupplier for UntilIdle {
    fn compaction_scheduler(
        &self,
        options: &CompactorOptions,
    ) -> Box<dyn CompactionScheduler + Send + Sync> {
        let inner = SizeTieredCompactionSchedulerSupplier.compaction_scheduler(options);
        Box::new(IdleScheduler { inner, idle: self.0.clone() })
    }
}

struct IdleScheduler {
    inner: Box<dyn CompactionScheduler + Send + Sync>,
    idle: Arc<Notify>,
}

impl CompactionScheduler for IdleScheduler {
    fn propose(&self, state: &CompactorStateView) -> Vec<CompactionSpec> {
        let proposed = self.inner.propose(state);
        let active = state
            .compactions()
            .is_some_and(|known| known.recent_compactions().any(|compaction| compaction.active()));
        if proposed.is_empty() && !active {
            self.idle.notify_one();
        }
        proposed
    }

    fn validate(
        &self,
        state: &CompactorStateView,
        spec: &CompactionSpec,
    ) -> Result<(), slatedb::Error> {
        self.inner.validate(state, spec)
    }
}
