//! What the journal's committer fills: the partitions' indexes, in LSN order.
//!
//! Owns the memory budget of uncovered records: beyond `journal.memory` the oldest records leave
//! memory and are read back from the journal file. Invariant: `applied` moves only after every
//! entry up to it is in its index, so a Tail that names it has seen all of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tako_flatbuf::Record;
use tako_journal::{Durable, EntryKind, Journal, Location, Sink};
use tako_types::{Lsn, PartitionId};

use super::{EngineOptions, cache::RecordCache, partition::Partition};

/// Queue length below which names of entries long gone are left in it.
const PRUNE_AT_MIN: usize = 1 << 16;

/// Records in memory, oldest first: what to evict next. Names entries that are gone, too.
struct InMemory {
    queue: VecDeque<(PartitionId, Lsn)>,
    prune_at: usize,
}

/// See the module.
pub(crate) struct Shelf {
    partitions: Vec<Partition>,
    pub(crate) cache: RecordCache,
    applied: AtomicU64,
    memory_bytes: AtomicU64,
    memory_bytes_max: u64,
    /// Of the replay, entries up to here are left out.
    forgotten: Lsn,
    /// The same of single partitions.
    left: BTreeMap<PartitionId, Lsn>,
    in_memory: Mutex<InMemory>,
    journal: OnceLock<Weak<Journal>>,
    /// Places freed during replay, before the journal is known.
    freed_early: Mutex<Vec<Location>>,
}

impl Shelf {
    pub(crate) fn new(options: &EngineOptions) -> Self {
        Self {
            partitions: (0..1u32 << options.partitions_log2)
                .map(|_| Partition::default())
                .collect(),
            cache: RecordCache::new(options.records_bytes),
            applied: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(0),
            memory_bytes_max: options.journal_memory_bytes,
            forgotten: options.forgotten,
            left: options.left.clone(),
            in_memory: Mutex::new(InMemory { queue: VecDeque::new(), prune_at: PRUNE_AT_MIN }),
            journal: OnceLock::new(),
            freed_early: Mutex::new(Vec::new()),
        }
    }

    /// Ends the replay: from now on places are released in `journal`.
    pub(crate) fn attach(&self, journal: &Arc<Journal>) {
        let _ = self.journal.set(Arc::downgrade(journal));
        for location in self.freed_early.lock().drain(..) {
            journal.release(location);
        }
    }

    pub(crate) fn partition(&self, p: PartitionId) -> &Partition {
        &self.partitions[usize::from(p.0)]
    }

    pub(crate) fn applied(&self) -> Lsn {
        Lsn(self.applied.load(Ordering::Acquire))
    }

    pub(crate) fn set_applied(&self, lsn: Lsn) {
        self.applied.fetch_max(lsn.0, Ordering::AcqRel);
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn forget_memory(&self, bytes: u64) {
        self.memory_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn release(&self, location: Location) {
        match self.journal.get().and_then(Weak::upgrade) {
            Some(journal) => journal.release(location),
            None => self.freed_early.lock().push(location),
        }
    }

    fn load(&self, location: Location) -> Option<Record> {
        let journal = self.journal.get().and_then(Weak::upgrade)?;
        Record::decode(journal.read(location).ok()?).ok()
    }

    fn apply(&self, durable: &Durable) {
        let entry = &durable.entry;
        let known = usize::from(entry.partition.0) < self.partitions.len();
        let forgotten = self.journal.get().is_none() && {
            let left = self.left.get(&entry.partition).copied().unwrap_or_default();
            durable.lsn <= self.forgotten.max(left)
        };
        if entry.kind != EntryKind::Record || !known || forgotten {
            // Nothing else is journalled today; what a later version wrote is not needed here.
            return self.release(durable.location);
        }
        let Ok(record) = Record::decode_trusted(entry.payload.clone()) else {
            // The group's checksum held, so this was never a record: nothing to keep.
            tracing::error!(lsn = durable.lsn.0, "a journal entry is not a record");
            return self.release(durable.location);
        };
        let bytes = record.bytes().len() as u64;
        let (key, version) = (record.key(), record.version());
        let displaced = {
            let mut inner = self.partition(entry.partition).lock();
            let displaced = inner
                .index
                .apply(durable.lsn, record, durable.location, |location| self.load(location));
            inner.promises.settle(&key, version);
            self.cache.remove(key.digest());
            displaced
        };
        self.memory_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.in_memory.lock().queue.push_back((entry.partition, durable.lsn));
        if let Some(displaced) = displaced {
            self.forget_memory(displaced.memory_bytes);
            self.release(displaced.location);
        }
    }

    /// Lets go of the oldest records in memory until the budget holds.
    fn keep_budget(&self) {
        let mut in_memory = self.in_memory.lock();
        while self.memory_bytes() > self.memory_bytes_max {
            let Some((partition, lsn)) = in_memory.queue.pop_front() else { return };
            let bytes = self.partition(partition).lock().index.evict(lsn);
            self.forget_memory(bytes);
        }
        if in_memory.queue.len() > in_memory.prune_at {
            in_memory.queue.retain(|(p, lsn)| self.partition(*p).lock().index.holds(*lsn));
            in_memory.prune_at = (in_memory.queue.len() * 2).max(PRUNE_AT_MIN);
        }
    }
}

impl Sink for Shelf {
    fn on_durable(&self, batch: &[Durable]) {
        for durable in batch {
            self.apply(durable);
        }
        if let Some(last) = batch.last() {
            self.set_applied(last.lsn);
        }
        self.keep_budget();
    }
}
