//! Which partitions of one number cover a partition of another number. Pure.
//!
//! Invariant: partitions are contiguous ranges of stored keys, halved when their number doubles, so
//! a partition is either a part of one partition of another number or made of several whole ones.

use std::ops::Range;

use bytes::Bytes;
use tako_types::PartitionId;

use crate::rows::RECORDS;

/// The stored keys of a partition of `2^log2`.
pub(super) fn range_of(partition: PartitionId, log2: u32) -> Range<Bytes> {
    edge(u32::from(partition.0), log2)..edge(u32::from(partition.0) + 1, log2)
}

/// First stored key that a partition could hold.
fn edge(partition: u32, log2: u32) -> Bytes {
    // At most 2^16: the hash's bits that a stored key begins with.
    match u16::try_from(partition << (16 - log2)) {
        Ok(top) => {
            let [high, low] = top.to_be_bytes();
            Bytes::copy_from_slice(&[RECORDS, high, low])
        }
        Err(_) => Bytes::from_static(&[RECORDS + 1]),
    }
}

/// The partitions of `2^from_log2` that hold keys of `partition` of `2^log2`, ascending.
pub(super) fn sources_of(
    partition: PartitionId,
    log2: u32,
    from_log2: u32,
) -> impl Iterator<Item = PartitionId> {
    let (first, count) = match from_log2.checked_sub(log2) {
        Some(finer) => (u32::from(partition.0) << finer, 1 << finer),
        None => (u32::from(partition.0) >> (log2 - from_log2), 1),
    };
    // At most 4,096 partitions.
    (first..first + count).map(|p| PartitionId(p as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_lies_in_the_range_of_its_partition_and_in_one_source_of_it() {
        for n in 0..2_000 {
            let key = tako_types::Key::new(0, Bytes::from(format!("key {n}"))).expect("short");
            let stored = key.stored();
            for log2 in 0..=12 {
                let partition = stored.partition(log2);
                assert!(range_of(partition, log2).contains(stored.as_bytes()));
                for from_log2 in 0..=12 {
                    let source = stored.partition(from_log2);
                    assert!(sources_of(partition, log2, from_log2).any(|p| p == source));
                }
            }
        }
    }

    #[test]
    fn the_ranges_of_all_partitions_touch_and_cover_all_records() {
        for log2 in [0, 1, 5, 12] {
            let ranges: Vec<_> =
                (0..1u16 << log2).map(|p| range_of(PartitionId(p), log2)).collect();
            assert_eq!(ranges[0].start, Bytes::from_static(&[RECORDS, 0, 0]));
            assert_eq!(ranges[ranges.len() - 1].end, Bytes::from_static(&[RECORDS + 1]));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
        let all: Vec<_> = sources_of(PartitionId(1), 1, 3).map(|p| p.0).collect();
        assert_eq!(all, [4, 5, 6, 7]);
        assert_eq!(sources_of(PartitionId(7), 3, 1).map(|p| p.0).collect::<Vec<_>>(), [1]);
    }
}
