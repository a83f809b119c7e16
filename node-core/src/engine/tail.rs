//! Tails: what other replicas and the snapshotter pull from this node's journal.

use tako_flatbuf::{Record, TailEntry};
use tako_journal::Journal;
use tako_types::{
    Incarnation, Lsn, PartitionId, StepNumber, StoredKey, Version,
    limits::{FETCH_BYTES_MAX, FRAME_HEAD_BYTES_MAX, TAIL_ENTRIES_MAX},
};

use super::{Engine, EngineError, index::Held};

/// Bytes that an entry takes in an answer besides its key.
const ENTRY_BYTES: usize = 48;

/// One page of a tail.
#[derive(Debug)]
pub struct TailPage {
    /// Every entry up to here is in this page, in an earlier one, or superseded by a later entry.
    pub upto: Lsn,
    /// Step of the view here; what it covers is not in the tail.
    pub step: StepNumber,
    /// Nothing was on its way into the journal, and what the snapshot covers of it counts as
    /// covered here.
    pub quiet: bool,
    /// Newest entry per key, in LSN order.
    pub entries: Vec<TailEntry>,
    /// Ask again after `upto`.
    pub more: bool,
}

impl Engine {
    /// The uncovered entries of a partition above `after`, oldest first.
    ///
    /// `incarnation` says which data folder `after` speaks of; for another one all is given.
    #[must_use]
    pub fn tail(&self, p: PartitionId, after: Lsn, incarnation: Incarnation) -> TailPage {
        let after = if incarnation == self.incarnation() { after } else { Lsn(0) };
        // Before the lock: whatever is applied up to here is then seen under it.
        let applied = self.applied_lsn();
        let trusted = self.is_trusted();
        let inner = self.partition(p).lock();
        let mut page = TailPage {
            upto: applied.max(after),
            step: inner.view.as_ref().map_or(StepNumber(0), |view| view.meta.step),
            // While coverage is not believed, entries below `after` may be held uncovered.
            quiet: inner.in_flight == 0 && trusted,
            entries: Vec::new(),
            more: false,
        };
        let mut bytes = 0;
        for (key, held) in inner.index.tail(after) {
            bytes += key.as_bytes().len() + ENTRY_BYTES;
            if page.entries.len() == TAIL_ENTRIES_MAX || bytes > FRAME_HEAD_BYTES_MAX / 2 {
                page.more = true;
                page.upto = page.entries.last().map_or(after, |last| last.lsn);
                break;
            }
            page.entries.push(TailEntry {
                lsn: held.lsn,
                key: key.clone(),
                version: held.version(),
                crc: held.crc,
            });
        }
        page
    }

    /// The uncovered records of these keys, in their order, as many as fit one answer.
    ///
    /// Keys that are not uncovered here are left out. `true` means that some were cut off.
    ///
    /// # Errors
    /// [`EngineError`] when the journal cannot be read.
    pub async fn fetch(
        &self,
        p: PartitionId,
        keys: &[StoredKey],
    ) -> Result<(Vec<Record>, bool), EngineError> {
        let mut picked: Vec<Held> = Vec::new();
        let mut bytes = 0;
        let mut more = false;
        {
            let inner = self.partition(p).lock();
            for held in keys.iter().filter_map(|key| inner.index.get(key)) {
                bytes += held.location.bytes as usize;
                if !picked.is_empty() && bytes > FETCH_BYTES_MAX {
                    more = true;
                    break;
                }
                picked.push(held.clone());
            }
        }
        if picked.iter().all(|held| held.record.is_some()) {
            return Ok((picked.into_iter().filter_map(|held| held.record).collect(), more));
        }
        // One trip to the blocking threads for all that left memory.
        let journal = self.journal.clone();
        let blocking = journal.blocking().clone();
        let read_all =
            move || picked.into_iter().map(|held| read_held(&journal, p, held)).collect();
        let records: Result<Vec<Record>, _> = blocking.run(read_all).await;
        records.map(|records| (records, more))
    }

    /// What gossip and the snapshotter want to know of a partition.
    #[must_use]
    pub fn partition_status(&self, p: PartitionId) -> PartitionStatus {
        let inner = self.partition(p).lock();
        PartitionStatus {
            newest: inner
                .view
                .as_ref()
                .map_or(inner.index.newest(), |view| view.meta.highest.max(inner.index.newest())),
            last_lsn: inner.index.last_lsn().unwrap_or_default(),
            uncovered: inner.index.len(),
            uncovered_bytes: inner.index.bytes(),
            step: inner.view.as_ref().map_or(StepNumber(0), |view| view.meta.step),
            quiet: inner.in_flight == 0,
        }
    }
}

/// A held record, read back from the journal where it left memory. Blocking.
pub(super) fn read_held(
    journal: &Journal,
    p: PartitionId,
    held: Held,
) -> Result<Record, EngineError> {
    match held.record {
        Some(record) => Ok(record),
        None => Record::decode(journal.read(held.location)?)
            .map_err(|source| EngineError::Record { partition: p, source }),
    }
}

/// A partition on this node at a glance.
#[derive(Debug, Clone, Copy)]
pub struct PartitionStatus {
    /// Highest version held here or shown by the view.
    pub newest: Version,
    /// LSN of the newest uncovered entry; 0 when there is none.
    pub last_lsn: Lsn,
    /// Keys with an uncovered record.
    pub uncovered: usize,
    /// Bytes of those records.
    pub uncovered_bytes: u64,
    /// Step of the view in force.
    pub step: StepNumber,
    /// Nothing is on its way into the journal.
    pub quiet: bool,
}
