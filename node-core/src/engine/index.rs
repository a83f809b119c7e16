//! The in-memory index over one partition's uncovered journal entries: its tail.
//!
//! In: durable entries in LSN order. Out: the newest record held per key, and the keys in LSN
//! order. Invariant: per key only the greatest record by `merge_order` is held, under the LSN of
//! the last entry that carries it; `by_lsn` and `held` name the same keys.
//! Pure: no I/O, no clock. Locking and the snapshot are the partition's (`partition.rs`).

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
};

use tako_flatbuf::Record;
use tako_journal::Location;
use tako_types::{Lsn, RecordStat, StoredKey, Version, merge_order};

/// What the index knows of one key.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) stat: RecordStat,
    pub(crate) crc: u32,
    pub(crate) lsn: Lsn,
    pub(crate) location: Location,
    /// The record while `journal.memory` lasts; then it is read back from `location`.
    pub(crate) record: Option<Record>,
}

/// Newest uncovered record per key.
#[derive(Debug, Default)]
pub(crate) struct Index {
    held: HashMap<StoredKey, Held>,
    by_lsn: BTreeMap<Lsn, StoredKey>,
    /// Bytes of the records held, in memory or not.
    bytes: u64,
    /// Highest version ever applied, held still or covered since.
    newest: Version,
}

impl Index {
    pub(crate) fn get(&self, key: &StoredKey) -> Option<&Held> {
        self.held.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn newest(&self) -> Version {
        self.newest
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// LSN of the newest entry that is held; `None` when the tail is empty.
    pub(crate) fn last_lsn(&self) -> Option<Lsn> {
        self.by_lsn.last_key_value().map(|(lsn, _)| *lsn)
    }

    /// Takes in a durable entry; gives the one that is no longer needed, if any.
    ///
    /// `load` reads back a held record whose bytes left memory; it is asked only when two records
    /// bear one version but differ.
    pub(crate) fn apply(
        &mut self,
        lsn: Lsn,
        record: Record,
        location: Location,
        load: impl FnOnce(Location) -> Option<Record>,
    ) -> Option<Displaced> {
        let key = record.key();
        self.newest = self.newest.max(record.version());
        let new =
            Held { stat: record.stat(), crc: record.crc(), lsn, location, record: Some(record) };
        let Some(old) = self.held.get(&key) else {
            self.bytes += u64::from(location.bytes);
            // A key that is a slice of its record would keep the record in memory for ever.
            let key = key.detached();
            self.by_lsn.insert(lsn, key.clone());
            self.held.insert(key, new);
            return None;
        };
        let wins = if new.version() == old.version() && new.crc != old.crc {
            let old_record = old.record.clone().or_else(|| load(old.location));
            match (&new.record, old_record) {
                (Some(new), Some(old)) => merge_order(
                    (new.version(), new.kind(), new.bytes()),
                    (old.version(), old.kind(), old.bytes()),
                )
                .is_gt(),
                _ => true,
            }
        } else {
            // The same record again: the later entry carries it from now on.
            new.version() >= old.version()
        };
        if !wins {
            return Some(Displaced { location, memory_bytes: new.memory_bytes() });
        }
        self.bytes += u64::from(location.bytes);
        self.bytes -= u64::from(old.location.bytes);
        let key = self.by_lsn.remove(&old.lsn)?;
        let old = self.held.insert(key.clone(), new)?;
        self.by_lsn.insert(lsn, key);
        Some(Displaced { location: old.location, memory_bytes: old.memory_bytes() })
    }

    /// Removes every entry up to and including `covered`, oldest first.
    pub(crate) fn trim(&mut self, covered: Lsn) -> Vec<Held> {
        let kept = self.by_lsn.split_off(&covered.next());
        let gone = std::mem::replace(&mut self.by_lsn, kept);
        let gone: Vec<Held> = gone.into_values().filter_map(|key| self.held.remove(&key)).collect();
        self.bytes -= gone.iter().map(|held| u64::from(held.location.bytes)).sum::<u64>();
        gone
    }

    /// Keys above `after` in LSN order.
    pub(crate) fn tail(&self, after: Lsn) -> impl Iterator<Item = (&StoredKey, &Held)> {
        self.by_lsn
            .range((Bound::Excluded(after), Bound::Unbounded))
            .filter_map(|(_, key)| self.held.get(key).map(|held| (key, held)))
    }

    /// Whether an entry of this LSN is held.
    pub(crate) fn holds(&self, lsn: Lsn) -> bool {
        self.by_lsn.contains_key(&lsn)
    }

    /// Lets go of the bytes of one entry; gives how many that were.
    pub(crate) fn evict(&mut self, lsn: Lsn) -> u64 {
        let Some(held) = self.by_lsn.get(&lsn).and_then(|key| self.held.get_mut(key)) else {
            return 0;
        };
        let bytes = held.memory_bytes();
        held.record = None;
        bytes
    }
}

/// An entry whose place in the journal is free to go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Displaced {
    pub(crate) location: Location,
    pub(crate) memory_bytes: u64,
}

impl Held {
    pub(crate) fn version(&self) -> Version {
        self.stat.version
    }

    /// Bytes of memory its record takes now.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.bytes().len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tako_flatbuf::RecordHead;
    use tako_types::{Key, Kind};

    use super::*;

    fn record(key: &'static str, micros: u64, value: &str) -> Record {
        let key = Key::new(0, Bytes::from_static(key.as_bytes())).expect("short").stored();
        let head = RecordHead {
            version: Version { micros, origin: 1 },
            kind: Kind::Value,
            expires_at_micros: 0,
            flags: 0,
        };
        Record::encode(&key, head, None, value.as_bytes())
    }

    fn at(offset: u64) -> Location {
        Location { file: 1, offset, bytes: 1 }
    }

    fn apply(index: &mut Index, lsn: u64, record: Record) -> Option<u64> {
        index.apply(Lsn(lsn), record, at(lsn), |_| None).map(|gone| gone.location.offset)
    }

    #[test]
    fn the_newest_version_is_held_whatever_the_order() {
        let mut index = Index::default();
        assert_eq!(apply(&mut index, 1, record("a", 5, "x")), None);
        assert_eq!(apply(&mut index, 2, record("a", 3, "y")), Some(2));
        assert_eq!(apply(&mut index, 3, record("a", 9, "z")), Some(1));
        let tail: Vec<_> = index.tail(Lsn(0)).map(|(_, held)| held.version().micros).collect();
        assert_eq!(tail, [9]);
        assert_eq!(index.last_lsn(), Some(Lsn(3)));
    }

    #[test]
    fn trimming_removes_exactly_what_is_covered() {
        let mut index = Index::default();
        apply(&mut index, 1, record("a", 1, "x"));
        apply(&mut index, 2, record("b", 2, "x"));
        apply(&mut index, 3, record("a", 3, "x"));
        let gone = index.trim(Lsn(2));
        assert_eq!(gone.len(), 1);
        assert_eq!(index.len(), 1);
        assert_eq!(index.last_lsn(), Some(Lsn(3)));
        assert!(index.trim(Lsn(9)).len() == 1 && index.last_lsn().is_none());
    }

    #[test]
    fn two_records_of_one_version_merge_by_bytes() {
        let (low, high) = (record("a", 5, "1"), record("a", 5, "2"));
        let mut index = Index::default();
        apply(&mut index, 1, high.clone());
        apply(&mut index, 2, low.clone());
        let first = index.get(&low.key()).and_then(|held| held.record.clone()).expect("held");
        let mut index = Index::default();
        apply(&mut index, 1, low.clone());
        apply(&mut index, 2, high);
        let second = index.get(&low.key()).and_then(|held| held.record.clone()).expect("held");
        assert_eq!(first.bytes(), second.bytes());
    }
}
