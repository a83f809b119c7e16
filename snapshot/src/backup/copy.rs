//! One partition of the new root, written from the records of the source.
//!
//! Invariant: every record is checked before it is written; one partition is written by one writer,
//! in key order, as plain puts: none of its keys was there before, as the root was empty.

use tako_types::{PartitionId, RecordStat, StoredKey};

use super::{
    BackupError, Count,
    count::CheckedPages,
    ranges::range_of,
    restore::{Heritage, Work, due_page},
};
use crate::{DueRow, PartitionReader, PartitionWriter, StepInput, StepRow};

/// Bytes of records in one step; some partitions are written at once.
const STEP_BYTES: usize = 16 << 20;

impl Work<'_> {
    /// Fills a partition; what was read of each source.
    pub(super) async fn copy(
        &self,
        partition: PartitionId,
    ) -> Result<Vec<(PartitionId, Count)>, BackupError> {
        let readers = self.readers(partition).await?;
        let mut heritage = Heritage::default();
        readers.iter().for_each(|(_, reader)| heritage.add(reader));
        let opening = self.into.snapshots.writer(partition).await;
        let mut writer = opening.map_err(BackupError::of(partition))?;
        let mut steps = Steps { writer: &mut writer, heritage: &heritage, partition };
        let mut counts = Vec::new();
        for (source, reader) in &readers {
            counts
                .push((*source, self.copy_records(partition, *source, reader, &mut steps).await?));
            self.copy_due(partition, *source, reader, &mut steps).await?;
        }
        // Also where there was nothing: it tells of the nodes.
        steps.take(Vec::new(), Vec::new()).await?;
        writer.close().await;
        for (_, reader) in readers {
            reader.close().await;
        }
        Ok(counts)
    }

    /// Readers of what a new partition is made of.
    pub(super) async fn readers(
        &self,
        partition: PartitionId,
    ) -> Result<Vec<(PartitionId, PartitionReader)>, BackupError> {
        let mut readers = Vec::new();
        for (source, held) in self.sources(partition) {
            let opening = self.from.snapshots.reader_at(source, held.checkpoint).await;
            readers.push((source, opening.map_err(BackupError::of(source))?));
        }
        Ok(readers)
    }

    async fn copy_records(
        &self,
        partition: PartitionId,
        source: PartitionId,
        reader: &PartitionReader,
        steps: &mut Steps<'_>,
    ) -> Result<Count, BackupError> {
        let range = range_of(partition, self.into.partitions_log2());
        let mut pages = CheckedPages::of_range(reader, source, range, self.from.inspect);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(page) = pages.next().await? {
            bytes += page.iter().map(|row| row.key.len() + row.record.len()).sum::<usize>();
            rows.extend(page);
            if STEP_BYTES <= bytes {
                bytes = 0;
                steps.take(std::mem::take(&mut rows), Vec::new()).await?;
            }
        }
        if !rows.is_empty() {
            steps.take(rows, Vec::new()).await?;
        }
        Ok(pages.count)
    }

    /// Carries over which records are to be looked at when.
    pub(super) async fn copy_due(
        &self,
        partition: PartitionId,
        source: PartitionId,
        reader: &PartitionReader,
        steps: &mut Steps<'_>,
    ) -> Result<(), BackupError> {
        let range = range_of(partition, self.into.partitions_log2());
        let mut last: Option<DueRow> = None;
        loop {
            let (page, more) = due_page(reader, source, last.as_ref()).await?;
            last = page.last().cloned();
            let due: Vec<_> = page.into_iter().filter(|row| range.contains(&row.key)).collect();
            if !due.is_empty() {
                steps.take(Vec::new(), due).await?;
            }
            if !more {
                return Ok(());
            }
        }
    }
}

/// The steps that fill one partition.
pub(super) struct Steps<'a> {
    pub(super) writer: &'a mut PartitionWriter,
    pub(super) heritage: &'a Heritage,
    pub(super) partition: PartitionId,
}

impl Steps<'_> {
    /// One step of records and due rows.
    pub(super) async fn take(
        &mut self,
        rows: Vec<StepRow>,
        due: Vec<DueRow>,
    ) -> Result<(), BackupError> {
        self.step(StepInput { rows, due, ..StepInput::default() }).await
    }

    /// One step of what a listing tells of records that are there.
    pub(super) async fn list(
        &mut self,
        listings: Vec<(StoredKey, RecordStat)>,
    ) -> Result<(), BackupError> {
        self.step(StepInput { listings, ..StepInput::default() }).await
    }

    /// One step, and the compaction that it makes due.
    async fn step(&mut self, input: StepInput) -> Result<(), BackupError> {
        let input = StepInput {
            coverage: self.heritage.coverage.clone(),
            highest: self.heritage.highest,
            ..input
        };
        self.writer.load(input).await.map_err(BackupError::of(self.partition))?;
        self.writer.maintain().await.map_err(BackupError::of(self.partition))?;
        Ok(())
    }
}
