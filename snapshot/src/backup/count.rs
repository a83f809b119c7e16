//! What a partition holds, in three numbers, and the reading that checks every record.
//!
//! Invariant: counts do not depend on order or on how records are spread over partitions, so the
//! counts of two halves add up to that of the whole. Memory is bounded by a page (8 MiB).

use std::ops::{Add, AddAssign, Bound, Range};

use bytes::Bytes;
use tako_types::PartitionId;
use xxhash_rust::xxh3::Xxh3Default;

use super::{BackupError, InspectFn};
use crate::{PartitionReader, StepRow};

const PAGE_ROWS_MAX: usize = 20_000;

/// Records of a partition, or of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// How many.
    pub records: u64,
    /// Bytes of stored keys and records.
    pub bytes: u64,
    /// The sum of the records' xxh3-128, modulo 2^128.
    pub digest: u128,
}

impl Count {
    /// One record's.
    pub(super) fn of(key: &[u8], record: &[u8]) -> Self {
        let mut hasher = Xxh3Default::new();
        // The length first, so that no two pairs are the same bytes.
        hasher.update(&(key.len() as u64).to_be_bytes());
        hasher.update(key);
        hasher.update(record);
        Self { records: 1, bytes: (key.len() + record.len()) as u64, digest: hasher.digest128() }
    }
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_add(other.records),
            bytes: self.bytes.saturating_add(other.bytes),
            digest: self.digest.wrapping_add(other.digest),
        }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// The records of a key range of one state, page by page, each one checked.
pub(super) struct CheckedPages<'a> {
    reader: &'a PartitionReader,
    /// The source's, for errors.
    partition: PartitionId,
    inspect: InspectFn,
    /// Where its records lie.
    within: Range<Bytes>,
    next: Option<(Bound<Bytes>, Bound<Bytes>)>,
    /// Of the pages read so far.
    pub(super) count: Count,
}

impl<'a> CheckedPages<'a> {
    /// All records of a partition whose keys are `within`.
    pub(super) fn all(
        reader: &'a PartitionReader,
        partition: PartitionId,
        within: Range<Bytes>,
        inspect: InspectFn,
    ) -> Self {
        let next = Some((Bound::Unbounded, Bound::Unbounded));
        Self { reader, partition, inspect, within, next, count: Count::default() }
    }

    /// Those in `range` alone.
    pub(super) fn of_range(
        reader: &'a PartitionReader,
        partition: PartitionId,
        range: Range<Bytes>,
        inspect: InspectFn,
    ) -> Self {
        let next = Some((Bound::Included(range.start.clone()), Bound::Excluded(range.end.clone())));
        Self { next, ..Self::all(reader, partition, range, inspect) }
    }

    /// The next page; `None` at the end.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] where a record is not what was written.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<StepRow>>, BackupError> {
        let Some(range) = self.next.take() else { return Ok(None) };
        let end = range.1.clone();
        let page = self
            .reader
            .scan(range, PAGE_ROWS_MAX)
            .await
            .map_err(BackupError::of(self.partition))?;
        if page.more
            && let Some((last, _)) = page.rows.last()
        {
            self.next = Some((Bound::Excluded(last.clone()), end));
        }
        let rows = page.rows.into_iter().map(|(key, record)| self.check(key, record));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        self.count += rows.iter().map(|row| Count::of(&row.key, &row.record)).sum();
        Ok(Some(rows))
    }

    /// Reads all that is left, for the count alone.
    pub(super) async fn count_all(mut self) -> Result<Count, BackupError> {
        while self.next().await?.is_some() {}
        Ok(self.count)
    }

    fn check(&self, key: Bytes, record: Bytes) -> Result<StepRow, BackupError> {
        let found = match self.within.contains(&key) {
            true => (self.inspect)(&key, &record),
            false => Err("it belongs to another partition".to_owned()),
        };
        match found {
            Ok(stat) => Ok(StepRow { key, record, stat, newest: true }),
            Err(what) => Err(BackupError::Damaged {
                partition: self.partition,
                what: format!("the record under {}: {what}", shown(&key)),
            }),
        }
    }
}

/// A stored key for people: its client part, cut.
fn shown(key: &[u8]) -> String {
    let client = key.get(4..).unwrap_or_default();
    format!("`{}`", client[..client.len().min(60)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_in_any_order_and_tell_key_from_record() {
        let (a, b, c) = (Count::of(b"a", b"1"), Count::of(b"b", b"2"), Count::of(b"c", b"3"));
        assert_eq!(a + (b + c), c + a + b);
        assert_eq!([c, b, a].into_iter().sum::<Count>().records, 3);
        assert_ne!(Count::of(b"ab", b"c").digest, Count::of(b"a", b"bc").digest);
        assert_ne!(Count::of(b"a", b"1").digest, Count::of(b"a", b"2").digest);
    }
}
