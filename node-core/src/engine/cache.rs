//! The record cache: hot records in memory, by foyer.
//!
//! foyer promises only that a hit was once inserted under that key, so a hit counts only while
//! its `era` is the partition's: a step whose missing keys are unknown starts a new era, every
//! other step removes what changed. Entries go by the key's digest (announcements name keys so);
//! the whole key is compared on a hit. Nothing exists only here.

use foyer::{Cache, CacheBuilder, EvictionConfig, S3FifoConfig};
use tako_flatbuf::Record;
use tako_types::StoredKey;

/// What an entry costs beyond its bytes: handles and table slots.
const ENTRY_OVERHEAD_BYTES: usize = 160;

#[derive(Debug, Clone)]
struct Cached {
    record: Record,
    era: u64,
}

/// Hot records of all partitions, bounded by bytes.
pub(crate) struct RecordCache {
    records: Cache<u64, Cached>,
}

impl RecordCache {
    pub(crate) fn new(memory_bytes: u64) -> Self {
        let capacity = usize::try_from(memory_bytes).unwrap_or(usize::MAX).max(1 << 16);
        let records = CacheBuilder::new(capacity)
            .with_name("records")
            .with_shards(4)
            .with_eviction_config(EvictionConfig::S3Fifo(S3FifoConfig::default()))
            .with_weighter(|_: &u64, cached: &Cached| {
                cached.record.bytes().len() + ENTRY_OVERHEAD_BYTES
            })
            .build();
        Self { records }
    }

    /// The record of `key`, if it was filled in this `era` of its partition.
    pub(crate) fn get(&self, key: &StoredKey, era: u64) -> Option<Record> {
        let entry = self.records.get(&key.digest())?;
        let cached = entry.value();
        (cached.era == era && cached.record.key() == *key).then(|| cached.record.clone())
    }

    /// The record under a digest, whichever key it is of; for audits.
    pub(crate) fn get_by_digest(&self, digest: u64, era: u64) -> Option<Record> {
        let entry = self.records.get(&digest)?;
        let cached = entry.value();
        (cached.era == era).then(|| cached.record.clone())
    }

    /// Call only under the partition's lock, with the era and view that `record` was read at.
    pub(crate) fn fill(&self, key: &StoredKey, record: Record, era: u64) {
        self.records.insert(key.digest(), Cached { record, era });
    }

    pub(crate) fn remove(&self, digest: u64) {
        self.records.remove(&digest);
    }

    pub(crate) fn usage_bytes(&self) -> usize {
        self.records.usage()
    }
}
