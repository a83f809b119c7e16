//! Writes steps: one batch with records, due rows and meta, committed by one manifest.
//!
//! Invariant: a step is visible whole or not at all, and its meta says so. The commit point is
//! the manifest that the checkpoint names; the engine's writer epoch fences it. After any error
//! the writer refuses to go on, because the step's outcome is unknown: the next writer reads it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use slatedb::{
    Db, WriteBatch,
    config::{CheckpointOptions, CheckpointScope, CloseOptions},
};
use tako_types::{PartitionId, RecordStat, StoredKey, Version, limits::STORE_DEADLINE};
use tokio_util::sync::CancellationToken;

use crate::{
    Checkpoint, Coverage, DueRow, Meta, SnapshotError,
    clock::{StoreClock, floor_millis},
    maintain::Maintenance,
    reader::due_rows,
    rows::{DUE_VALUE, META_KEY, RECORDS, encode_stat, listing_key},
    settings,
    snapshots::{Shared, bounded, opening},
};

/// The engine's own limit, above which it panics.
const ROW_KEY_BYTES_MAX: usize = u16::MAX as usize;
/// What the meta row's length field can say.
const NODE_ID_BYTES_MAX: usize = u16::MAX as usize;
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// One record of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    /// Stored key.
    pub key: Bytes,
    /// Encoded record.
    pub record: Bytes,
    /// What a listing tells of it, its version included.
    pub stat: RecordStat,
    /// The version is above the snapshot's highest: nothing older needs to be looked at. Ignored
    /// where the writer knows better.
    pub newest: bool,
}

impl StepRow {
    /// Which write it is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.stat.version
    }
}

/// What a step takes in.
#[derive(Debug, Clone, Default)]
pub struct StepInput {
    /// Records; several of one key are merged.
    pub rows: Vec<StepRow>,
    /// Due rows to add.
    pub due: Vec<DueRow>,
    /// What to list besides these rows: stored keys of records that are there without a step.
    pub listings: Vec<(StoredKey, RecordStat)>,
    /// Records to delete for good, each with its due row. One whose key is also in `rows` stays,
    /// and so does its due row.
    pub purge: Vec<DueRow>,
    /// Due rows that no longer apply.
    pub drop_due: Vec<DueRow>,
    /// What the snapshot covers after this step; merged into what it covers already.
    pub coverage: Coverage,
    /// At or above the version of every record in `rows`.
    pub highest: Version,
}

/// A committed step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The meta that the step left.
    pub meta: Meta,
    /// What to announce.
    pub checkpoint: Checkpoint,
}

/// What [`PartitionWriter::maintain`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maintained {
    /// A compaction was finished: the next step's checkpoint shows fewer tables.
    pub compacted: bool,
    /// Garbage was collected.
    pub collected: bool,
    /// Work goes on in the background.
    pub running: bool,
}

/// The one writer of a partition's snapshot, as long as nobody takes over.
pub struct PartitionWriter {
    shared: Arc<Shared>,
    partition: PartitionId,
    db: Option<Arc<Db>>,
    meta: Meta,
    failed: AtomicBool,
    maintenance: Maintenance,
}

impl PartitionWriter {
    pub(crate) async fn open(
        shared: Arc<Shared>,
        partition: PartitionId,
    ) -> Result<Self, SnapshotError> {
        if shared.closing.is_cancelled() {
            return Err(SnapshotError::Closed);
        }
        let clock = StoreClock::new(shared.wall.clone());
        let path = shared.db_path(partition);
        let builder = Db::builder(path.clone(), shared.store.object_store())
            .with_settings(settings::writer(&shared.options))
            .with_system_clock(clock.clone())
            .with_merge_operator(shared.merge.clone())
            .with_db_cache(shared.cache.shared(), shared.cache_id(partition));
        let deadline = shared.options.step_deadline;
        let building = opening(path, deadline, async { Ok(builder.build().await?) });
        let db = shared.options.upkeep.run(building).await??;
        let manifest = db.manifest();
        // The last writer's clock may have been ahead of ours.
        clock.raise_to_millis(floor_millis(&manifest));
        let mut writer = Self {
            maintenance: Maintenance::new(
                CancellationToken::child_token(&shared.closing),
                shared.options.lease,
            ),
            shared,
            partition,
            db: Some(Arc::new(db)),
            meta: Meta::default(),
            failed: AtomicBool::new(false),
        };
        if let Some(row) = writer.get(&Bytes::from_static(META_KEY)).await? {
            writer.meta = Meta::decode(row).map_err(SnapshotError::Corrupt)?;
        }
        Ok(writer)
    }

    /// The meta that the last committed step left.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Tables that a read may have to look at before the compacted runs.
    #[must_use]
    pub fn l0_tables(&self) -> usize {
        self.db.as_ref().map_or(0, |db| db.manifest().l0().len())
    }

    /// Commits one step.
    ///
    /// Guarantee: visible whole or not at all; durable when this returns `Ok`; the returned
    /// checkpoint can be opened for a lease.
    /// Limits/cost: at most 10 MiB: 2 PUT and 3 GET; more in parts.
    ///
    /// # Errors
    /// [`SnapshotError::Fenced`] when another writer took over. After any error but
    /// [`SnapshotError::Invalid`] the outcome is unknown: drop this writer and open another.
    pub async fn step(&mut self, input: StepInput) -> Result<Committed, SnapshotError> {
        let batch = self.batch(input, false)?;
        self.commit(batch).await
    }

    /// [`Self::step`] with records of keys of which this database holds nothing: all are plain
    /// puts, whatever their versions.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub(crate) async fn load(&mut self, input: StepInput) -> Result<Committed, SnapshotError> {
        let batch = self.batch(input, true)?;
        self.commit(batch).await
    }

    async fn commit(
        &mut self,
        (batch, meta): (WriteBatch, Meta),
    ) -> Result<Committed, SnapshotError> {
        let db = self.db()?;
        let lifetime = Some(self.shared.options.lease);
        let options = CheckpointOptions { lifetime, ..CheckpointOptions::default() };
        self.failed.store(true, Ordering::Relaxed);
        let made = bounded(self.shared.options.step_deadline, async {
            db.write(batch).await?;
            Ok(db.create_checkpoint(CheckpointScope::All, &options).await?)
        })
        .await?;
        self.failed.store(false, Ordering::Relaxed);
        self.meta = meta.clone();
        self.maintenance.on_step(made.id, self.shared.wall.now_micros());
        let checkpoint = Checkpoint { id: made.id.as_u128(), manifest: made.manifest_id };
        Ok(Committed { meta, checkpoint })
    }

    /// Compacts when a step left 24 tables or more, and collects garbage at most hourly. Call it
    /// after a step and its announcement. Waits a few seconds at most; longer work goes on in the
    /// background and is reported by a later call. What it cannot do is logged and tried again.
    ///
    /// # Errors
    /// [`SnapshotError`] when this writer is of no more use.
    pub async fn maintain(&mut self) -> Result<Maintained, SnapshotError> {
        let db = self.db()?;
        let outcome = self.maintenance.run(&self.shared, self.partition, &db).await;
        if outcome.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// The merged record under a stored key, in this writer's own view.
    ///
    /// # Errors
    /// [`SnapshotError`]; this writer is then of no more use.
    pub async fn get(&self, key: &Bytes) -> Result<Option<Bytes>, SnapshotError> {
        let db = self.db()?;
        self.read(async { Ok(db.get(key).await?) }).await
    }

    /// Rows due at or before a time (microseconds since the Unix epoch), earliest first.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn due(&self, until_micros: u64, limit: usize) -> Result<Vec<DueRow>, SnapshotError> {
        let (start, end) = DueRow::range(until_micros);
        let db = self.db()?;
        self.read(async { due_rows(db.scan(start..end).await?, limit).await }).await
    }

    /// Closes the handle; background work is stopped, nothing is written. Dropping the writer does
    /// the same in the background.
    pub async fn close(mut self) {
        self.maintenance.stop();
        if let Some(db) = self.db.take() {
            close(&db).await;
        }
    }

    async fn read<T>(
        &self,
        work: impl Future<Output = Result<T, SnapshotError>> + Send,
    ) -> Result<T, SnapshotError> {
        let outcome = bounded(STORE_DEADLINE, work).await;
        if outcome.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        outcome
    }

    fn db(&self) -> Result<Arc<Db>, SnapshotError> {
        match &self.db {
            Some(db) if !self.failed.load(Ordering::Relaxed) => Ok(db.clone()),
            _ => Err(SnapshotError::Closed),
        }
    }

    /// The step's rows and the meta they will leave.
    fn batch(&self, input: StepInput, all_new: bool) -> Result<(WriteBatch, Meta), SnapshotError> {
        let mut rows = BTreeMap::<Bytes, StepRow>::new();
        for row in input.rows {
            check_key(&row.key)?;
            let row = match rows.remove(&row.key) {
                None => row,
                Some(other) => StepRow {
                    record: (self.shared.merge_fn)(other.record, row.record),
                    stat: other.stat.max(row.stat),
                    newest: other.newest && row.newest,
                    key: row.key,
                },
            };
            rows.insert(row.key.clone(), row);
        }
        let highest = rows
            .values()
            .map(|row| row.stat.version)
            .fold(input.highest, |high, row| high.max(row));
        if let Some(node) = input.coverage.keys().find(|id| id.as_str().len() > NODE_ID_BYTES_MAX) {
            let what = format!("a node id of {} bytes", node.as_str().len());
            return Err(SnapshotError::Invalid(what));
        }
        let meta = self.meta.advanced(&input.coverage, highest);

        let mut batch = WriteBatch::new();
        for due in &input.purge {
            check_key(&due.key)?;
            if !rows.contains_key(&due.key) {
                batch.delete(&due.key);
                batch.delete(listing_key(&due.key));
                batch.delete(due.encode());
            }
        }
        for due in &input.drop_due {
            batch.delete(due.encode());
        }
        for due in &input.due {
            check_key(&due.key)?;
            batch.put_bytes(due.encode(), Bytes::from_static(DUE_VALUE));
        }
        for row in rows.into_values() {
            let listing = (listing_key(&row.key), encode_stat(&row.stat));
            if all_new || (row.newest && row.stat.version > self.meta.highest) {
                batch.put_bytes(row.key, row.record);
                batch.put_bytes(listing.0, listing.1);
            } else {
                batch.merge(row.key, row.record);
                batch.merge(listing.0, listing.1);
            }
        }
        for (key, stat) in &input.listings {
            batch.put_bytes(listing_key(key.as_bytes()), encode_stat(stat));
        }
        batch.put_bytes(Bytes::from_static(META_KEY), meta.encode());
        Ok((batch, meta))
    }
}

impl Drop for PartitionWriter {
    fn drop(&mut self) {
        self.maintenance.stop();
        if let Some(db) = self.db.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            self.shared.tasks.spawn(async move { close(&db).await });
        }
    }
}

/// Closes without a flush: what no step committed must not appear.
async fn close(db: &Db) {
    let options = CloseOptions { flush_type: None };
    match tokio::time::timeout(CLOSE_DEADLINE, db.close_with_options(options)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "snapshot writer did not close cleanly"),
        Err(_) => tracing::warn!("snapshot writer did not close within {CLOSE_DEADLINE:?}"),
    }
}

fn check_key(key: &Bytes) -> Result<(), SnapshotError> {
    // A due row's key is longer than the record's by its time and version.
    if key.first() == Some(&RECORDS) && key.len() < ROW_KEY_BYTES_MAX - 64 {
        return Ok(());
    }
    let what = format!("a key of {} bytes that is not a stored key", key.len());
    Err(SnapshotError::Invalid(what))
}
