//! One partition of the new root as a clone: a database that names the tables of the source.
//!
//! Invariant: the source's tables are held by checkpoints in the source that do not expire, which
//! the engine makes. A clone of as many partitions is the whole database; of another number it shows
//! the records of its range only, and a first step brings what lies outside that: the meta row and
//! the due rows.

use slatedb::admin::CloneSourceSpec;
use slatedb_common::clock::SystemClock;
use std::{ops::Bound, sync::Arc};
use tako_types::PartitionId;
use uuid::Uuid;

use super::{
    BackupError, Count,
    copy::Steps,
    ranges::range_of,
    restore::{Heritage, Work},
};
use crate::{
    SnapshotError,
    clock::{StoreClock, floor_millis},
    snapshots::bounded,
};

impl Work<'_> {
    /// Makes a partition; nothing was read of the sources' records.
    pub(super) async fn clone_into(
        &self,
        partition: PartitionId,
    ) -> Result<Vec<(PartitionId, Count)>, BackupError> {
        let (log2, from_log2) = (self.into.partitions_log2(), self.from.partitions_log2());
        self.make_clone(partition, log2 == from_log2).await.map_err(BackupError::of(partition))?;
        if log2 == from_log2 {
            return Ok(Vec::new());
        }
        let readers = self.readers(partition).await?;
        let mut heritage = Heritage::default();
        readers.iter().for_each(|(_, reader)| heritage.add(reader));
        let opening = self.into.snapshots.writer(partition).await;
        let mut writer = opening.map_err(BackupError::of(partition))?;
        let mut steps = Steps { writer: &mut writer, heritage: &heritage, partition };
        for (source, reader) in &readers {
            self.copy_due(partition, *source, reader, &mut steps).await?;
        }
        steps.take(Vec::new(), Vec::new()).await?;
        writer.close().await;
        for (_, reader) in readers {
            reader.close().await;
        }
        Ok(Vec::new())
    }

    async fn make_clone(&self, partition: PartitionId, whole: bool) -> Result<(), SnapshotError> {
        let (from, into) = (&self.from.snapshots.shared, &self.into.snapshots.shared);
        let (log2, from_log2) = (self.into.partitions_log2(), self.from.partitions_log2());
        let mut specs = Vec::new();
        let mut newest_millis = 0;
        for (source, held) in self.sources(partition) {
            let id = Uuid::from_u128(held.checkpoint.id);
            let spec = CloneSourceSpec::with_checkpoint(from.db_path(source), id);
            // The smaller of both: what is put together must not overlap.
            let range = match from_log2 < log2 {
                true => range_of(partition, log2),
                false => range_of(source, from_log2),
            };
            let range = (Bound::Included(range.start), Bound::Excluded(range.end));
            specs.push(if whole { spec } else { spec.with_projection_range(range) });
            let admin = from.admin(source);
            let manifest = bounded(into.options.step_deadline, async {
                Ok(admin.read_manifest(Some(held.checkpoint.manifest)).await?)
            });
            let manifest = manifest.await?.ok_or(SnapshotError::Gone)?;
            newest_millis = newest_millis.max(floor_millis(&manifest));
        }
        let mut specs = specs.into_iter();
        let Some(first) = specs.next() else { return Ok(()) };
        // What is named now must not be named before the tables.
        let clock: Arc<dyn SystemClock> =
            StoreClock::after_millis(into.wall.clone(), newest_millis);
        let mut builder =
            into.admin(partition).create_clone_builder_from_source(first).with_system_clock(clock);
        for spec in specs {
            builder = builder.with_source(spec);
        }
        bounded(into.options.step_deadline, async { Ok(builder.build().await?) }).await
    }
}
