//! One partition on one node: index, snapshot view, writes in flight.
//!
//! A node's vote for a key is the merge of everything it holds; all of it is reached from here
//! under one short lock that is never held across an await. Invariants:
//! - the view only moves forward, and an entry is trimmed only after the view that covers it is
//!   installed and the record cache is put right (`install`);
//! - a record is filled into the cache only if no view was installed since its read began.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tako_flatbuf::Record;
use tako_journal::Location;
use tako_snapshot::{Meta, PartitionReader};
use tako_types::{Incarnation, Lsn, NodeId, StepNumber, StoredKey, Version};
use tokio::sync::Notify;

use super::{cache::RecordCache, index::Index, promise::Promises, stance::Stance};

/// What a node sees of a partition's snapshot: one step, immutable.
pub struct View {
    /// The step, its coverage and its highest version.
    pub meta: Meta,
    /// Reads the step's rows; `None` while the partition has no snapshot at all (step 0).
    pub reader: Option<PartitionReader>,
}

impl View {
    /// The view of a partition that was never snapshotted.
    #[must_use]
    pub fn empty() -> Self {
        Self { meta: Meta::default(), reader: None }
    }

    /// Up to which of its entries `node` may forget, in data folder `incarnation`.
    #[must_use]
    pub fn covered(&self, node: &NodeId, incarnation: Incarnation) -> Lsn {
        match self.meta.coverage.get(node) {
            Some((known, lsn)) if *known == incarnation => *lsn,
            _ => Lsn(0),
        }
    }
}

/// How a step changed keys that a replica may not have seen written.
#[derive(Debug, Clone)]
pub enum Missed {
    /// Exactly these keys (by digest).
    Keys(HashSet<u64>),
    /// Unknown: forget all cached records of the partition.
    All,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) index: Index,
    /// `None` until it was opened once since the start.
    pub(crate) view: Option<Arc<View>>,
    /// Cached records of an older era do not count.
    pub(crate) era: u64,
    /// Views installed since the start: tells a late cache fill.
    pub(crate) installs: u64,
    /// Writes on their way into the journal.
    pub(crate) in_flight: u32,
    /// The same by key (its digest): a conditional write decides when none is left of its key.
    appending: HashMap<u64, u32>,
    /// What conditional writes were promised.
    pub(crate) promises: Promises,
    /// What this node's answers count for.
    pub(crate) stance: Stance,
}

impl Inner {
    /// Step of the view in force; 0 when there is none.
    pub(crate) fn step(&self) -> StepNumber {
        self.view.as_ref().map_or(StepNumber(0), |view| view.meta.step)
    }

    /// Do acknowledgements count, and may this node promise?
    pub(crate) fn judges(&self) -> bool {
        self.stance.judges(self.step())
    }

    /// Is a write of this key on its way into the journal?
    pub(crate) fn is_appending(&self, key: &StoredKey) -> bool {
        !self.appending.is_empty() && self.appending.contains_key(&key.digest())
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Partition {
    inner: Mutex<Inner>,
    /// Told whenever an append has ended, however it did.
    pub(crate) append_ended: Notify,
}

/// Counts a write as on its way until its append ended, however it ended.
pub(crate) struct InFlight<'a> {
    partition: &'a Partition,
    digest: u64,
}

impl<'a> InFlight<'a> {
    pub(crate) fn begin(partition: &'a Partition, inner: &mut Inner, key: &StoredKey) -> Self {
        let digest = key.digest();
        inner.in_flight += 1;
        *inner.appending.entry(digest).or_default() += 1;
        Self { partition, digest }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut inner = self.partition.lock();
        inner.in_flight -= 1;
        if let Some(count) = inner.appending.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                inner.appending.remove(&self.digest);
            }
        }
        drop(inner);
        self.partition.append_ended.notify_waiters();
    }
}

/// What `install` freed.
#[derive(Debug, Default)]
pub(crate) struct Trimmed {
    pub(crate) locations: Vec<Location>,
    pub(crate) memory_bytes: u64,
}

impl Partition {
    pub(crate) fn lock(&self) -> parking_lot::MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Moves to a newer view: installs it, puts the cache right, trims what it covers.
    ///
    /// A view that is not newer is ignored. `covered` is this node's own coverage in it.
    pub(crate) fn install(
        &self,
        view: Arc<View>,
        covered: Lsn,
        missed: &Missed,
        cache: &RecordCache,
    ) -> Trimmed {
        let mut inner = self.lock();
        let before = inner.view.as_ref().map(|view| (view.meta.step, view.meta.highest));
        if before.is_some_and(|(step, _)| view.meta.step <= step) {
            return Trimmed::default();
        }
        let follows = before.is_some_and(|(step, _)| step.0 == view.meta.step.0.wrapping_sub(1));
        let highest_before = before.map_or(Version::ZERO, |(_, highest)| highest);
        inner.view = Some(view);
        inner.installs += 1;
        let known = match missed {
            Missed::Keys(keys) if follows => {
                keys.iter().for_each(|digest| cache.remove(*digest));
                Some(keys)
            }
            _ => {
                inner.era += 1;
                None
            }
        };
        let mut trimmed = Trimmed::default();
        let era = inner.era;
        for held in inner.index.trim(covered) {
            trimmed.locations.push(held.location);
            trimmed.memory_bytes += held.memory_bytes();
            if let (Some(record), Some(missed)) = (held.record, known) {
                // Only a record above all that the view before showed is surely what this one
                // shows: an older one may have come late, under something newer.
                let key = record.key();
                if record.version() > highest_before && !missed.contains(&key.digest()) {
                    cache.fill(&key, record, era);
                }
            }
        }
        trimmed
    }

    /// Fills a record read from `view` into the cache unless the partition moved on meanwhile.
    pub(crate) fn fill(
        &self,
        key: &StoredKey,
        record: &Record,
        installs: u64,
        cache: &RecordCache,
    ) {
        let inner = self.lock();
        if inner.installs == installs && inner.index.get(key).is_none() {
            // Detached: a record cut from a block would keep the whole block in memory.
            cache.fill(key, record.detached(), inner.era);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tako_flatbuf::RecordHead;
    use tako_types::{Key, Kind};

    use super::*;

    #[test]
    fn a_record_in_the_cache_owns_its_bytes_and_pins_no_snapshot_block() {
        let key = Key::new(0, Bytes::from_static(b"k")).expect("short").stored();
        let version = Version { micros: 1, origin: 1 };
        let head = RecordHead { version, kind: Kind::Value, expires_at_micros: 0, flags: 0 };
        let encoded = Record::encode(&key, head, None, b"value").bytes().clone();
        // A block as a snapshot read gives it: the record lies somewhere in it.
        let mut block = vec![0; 64 << 10];
        block[4_096..4_096 + encoded.len()].copy_from_slice(&encoded);
        let block = Bytes::from(block);
        let read = Record::decode(block.slice(4_096..4_096 + encoded.len())).expect("a record");
        assert!(block.as_ptr_range().contains(&read.bytes().as_ptr()), "it shares the block");

        let (partition, cache) = (Partition::default(), RecordCache::new(1 << 20));
        partition.fill(&read.key(), &read, 0, &cache);
        drop(read);
        let cached = cache.get(&key, 0).expect("nothing else is cached");
        assert_eq!(cached.bytes(), &encoded);
        assert!(block.is_unique(), "the cached record keeps the whole block in memory");
    }
}
