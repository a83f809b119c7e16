//! One partition of the new root as a clone: a database that names the tables of the source.
//!
//! Invariant: the source's tables are held by checkpoints in the source that do not expire, which
//! the engine makes. A clone of as many partitions is the whole database; of another number it shows
//! the records of its range only, and first steps bring what lies outside that: the meta row, the due
//! rows and the listing rows. Reading those of the sources takes time in proportion to their keys.

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
    PartitionReader, SnapshotError,
    clock::{StoreClock, floor_millis},
    rows::listed_key,
    snapshots::bounded,
};

/// Listing rows read and written at once; fewer where their keys are long.
const LISTINGS_AT_ONCE: usize = 16_384;

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
            self.copy_listings(partition, *source, reader, &mut steps).await?;
        }
        steps.take(Vec::new(), Vec::new()).await?;
        writer.close().await;
        for (_, reader) in readers {
            reader.close().await;
        }
        Ok(Vec::new())
    }

    /// Carries over what is told of the records that came.
    async fn copy_listings(
        &self,
        partition: PartitionId,
        source: PartitionId,
        reader: &PartitionReader,
        steps: &mut Steps<'_>,
    ) -> Result<(), BackupError> {
        let range = range_of(partition, self.into.partitions_log2());
        let mut after = None;
        loop {
            let page = reader.listings(after, LISTINGS_AT_ONCE).await;
            let (rows, more) = page.map_err(BackupError::of(source))?;
            after = rows.last().map(|(row, _)| row.clone());
            let listings: Vec<_> = rows
                .iter()
                .filter_map(|(row, stat)| Some((listed_key(row)?, *stat)))
                .filter(|(key, _)| range.contains(key.as_bytes()))
                .collect();
            if !listings.is_empty() {
                steps.list(listings).await?;
            }
            if !more {
                return Ok(());
            }
        }
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
