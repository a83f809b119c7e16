//! The ring: where a bucket's points lie, and how near a partition is to a bucket.
//!
//! A bucket has `points_per_bucket × weight` points, each the xxh3 of the bucket's name and the
//! point's number, so they depend on nothing but the bucket itself. A partition stands at the
//! middle of its slice of the hash space; its distance to a bucket is the way clockwise to the
//! bucket's next point. Near means preferred.

use tako_types::config::Bucket;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Per partition the way clockwise to the bucket's next point; less is nearer.
pub(crate) fn distances(bucket: &Bucket, points_per_bucket: usize, partitions: u32) -> Vec<u64> {
    // Weights and points are bounded by the configuration, so this is far below 2^53.
    let count = ((points_per_bucket as f64 * bucket.weight).round() as u64).max(1);
    let mut points: Vec<u64> =
        (0..count).map(|index| xxh3_64_with_seed(bucket.name.as_bytes(), index)).collect();
    points.sort_unstable();
    let slice = (1u128 << 64) / u128::from(partitions);
    (0..partitions)
        .map(|partition| {
            // Below 2^64, because partition < partitions.
            let at = (u128::from(partition) * slice + slice / 2) as u64;
            let next = points.partition_point(|point| *point < at);
            let point = points.get(next).or_else(|| points.first()).copied().unwrap_or(at);
            point.wrapping_sub(at)
        })
        .collect()
}
