//! A replica's vote for a key: the merge of everything it holds.
//!
//! Order: index first, then the view taken under the same lock, then cache or snapshot. An index
//! record above the snapshot's highest version is the newest without looking further.

use std::sync::{Arc, atomic::Ordering};

use tako_flatbuf::{Record, StatAnswer, merge};
use tako_snapshot::SnapshotError;
use tako_types::{PartitionId, StepNumber, StoredKey};

use super::{
    Engine, EngineError,
    index::Held,
    partition::{Missed, View},
    tail::read_held,
};

/// What a replica answers for a key.
#[derive(Debug, Clone)]
pub struct Vote {
    /// The newest record held, tombstones and expired ones included.
    pub record: Option<Record>,
    /// Step of the view that was merged in.
    pub step: StepNumber,
    /// The record is what the view shows: no uncovered entry took part.
    pub covered: bool,
}

impl Engine {
    /// The node's whole vote for a key.
    ///
    /// Cost: memory only when the record is uncovered or cached; else one snapshot read.
    ///
    /// # Errors
    /// [`EngineError`] when the view is not open or the snapshot cannot be read.
    pub async fn vote(&self, p: PartitionId, key: &StoredKey) -> Result<Vote, EngineError> {
        let partition = self.partition(p);
        let (view, held, installs, cached) = {
            let inner = partition.lock();
            let view = inner.view.clone().ok_or(EngineError::Opening(p))?;
            // With the view: what a later step covers is none of this one's.
            let cached = self.shelf.cache.get(key, inner.era);
            (view, inner.index.get(key).cloned(), inner.installs, cached)
        };
        let step = view.meta.step;
        let in_index = match &held {
            None => None,
            Some(held) => match &held.record {
                Some(record) => Some(record.clone()),
                None => Some(self.read_back(p, held.clone()).await?),
            },
        };
        if let Some(record) = &in_index
            && record.version() > view.meta.highest
        {
            self.metrics.index_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Vote { record: in_index, step, covered: false });
        }
        if let Some(cached) = cached {
            self.metrics.cache_hits.fetch_add(1, Ordering::Relaxed);
            let covered = in_index.is_none();
            return Ok(Vote { record: merge_some(in_index, Some(cached)), step, covered });
        }
        let (stored, view) = self.read_view(p, view, key).await?;
        if let (Some(record), None) = (&stored, &held) {
            partition.fill(key, record, installs, &self.shelf.cache);
        }
        let covered = in_index.is_none();
        Ok(Vote { record: merge_some(in_index, stored), step: view.meta.step, covered })
    }

    /// What the memory index alone says of keys, and the step that this goes with.
    ///
    /// Guarantee: the index is read before the step. No store read.
    pub fn stat_index(&self, p: PartitionId, keys: &[StoredKey]) -> (Vec<StatAnswer>, StepNumber) {
        let inner = self.partition(p).lock();
        let answers = keys
            .iter()
            .map(|key| match inner.index.get(key) {
                Some(held) => StatAnswer { version: Some(held.version()), crc: held.crc },
                None => StatAnswer { version: None, crc: 0 },
            })
            .collect();
        (answers, inner.view.as_ref().map_or(StepNumber(0), |view| view.meta.step))
    }

    /// Reads an uncovered record whose bytes left memory; off the async threads.
    pub(super) async fn read_back(
        &self,
        p: PartitionId,
        held: Held,
    ) -> Result<Record, EngineError> {
        let journal = self.journal.clone();
        let blocking = journal.blocking().clone();
        blocking.run(move || read_held(&journal, p, held)).await
    }

    /// Reads a key from a view; where the view's files were collected, from a newer one.
    pub(super) async fn read_view(
        &self,
        p: PartitionId,
        mut view: Arc<View>,
        key: &StoredKey,
    ) -> Result<(Option<Record>, Arc<View>), EngineError> {
        let snapshot = |source| EngineError::Snapshot { partition: p, source };
        self.metrics.snapshot_reads.fetch_add(1, Ordering::Relaxed);
        let mut reopened = false;
        loop {
            let Some(reader) = &view.reader else { return Ok((None, view)) };
            match reader.get(key.as_bytes()).await {
                Ok(bytes) => {
                    let record = bytes
                        .map(Record::decode)
                        .transpose()
                        .map_err(|source| EngineError::Record { partition: p, source })?;
                    return Ok((record, view));
                }
                Err(SnapshotError::Gone) if !reopened => {
                    reopened = true;
                    view = self.reopen(p, &view).await?;
                }
                Err(source) => return Err(snapshot(source)),
            }
        }
    }

    /// A view whose checkpoint is readable again: the one in force, if it moved on, or the newest.
    pub(super) async fn reopen(
        &self,
        p: PartitionId,
        gone: &Arc<View>,
    ) -> Result<Arc<View>, EngineError> {
        if let Some(current) = self.view(p)
            && current.meta.step > gone.meta.step
        {
            return Ok(current);
        }
        let view = self.newest_view(p).await?;
        self.replace(p, view.clone());
        Ok(view)
    }

    /// Installs a view even if it shows the same step: its handle is a fresh one.
    fn replace(&self, p: PartitionId, view: Arc<View>) {
        let same_step = {
            let mut inner = self.partition(p).lock();
            let same = inner.view.as_ref().is_some_and(|old| old.meta.step == view.meta.step);
            if same {
                inner.view = Some(view.clone());
            }
            same
        };
        if !same_step {
            self.install(p, view, &Missed::All);
        }
    }
}

fn merge_some(a: Option<Record>, b: Option<Record>) -> Option<Record> {
    match (a, b) {
        (Some(a), Some(b)) => Some(merge(a, b)),
        (a, b) => a.or(b),
    }
}
