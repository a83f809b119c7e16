//! How long clients' requests took, counted in buckets.
//!
//! One atomic add or two for a request; whoever reads sums up the buckets. A reader may see a request
//! in its bucket and not yet in the sum.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the buckets, in microseconds; what took longer than the last is above them all.
pub const BOUNDS_MICROS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

/// See the module.
#[derive(Debug, Default)]
pub struct Latency {
    counts: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
    failed: AtomicU64,
}

impl Latency {
    /// Counts one request.
    pub fn record(&self, took: Duration, done: bool) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
        if !done {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests in each bucket; the last one is of those above all bounds.
    #[must_use]
    pub fn counts(&self) -> [u64; BOUNDS_MICROS.len() + 1] {
        std::array::from_fn(|n| self.counts[n].load(Ordering::Relaxed))
    }

    /// Of all requests together, in microseconds.
    #[must_use]
    pub fn sum_micros(&self) -> u64 {
        self.sum_micros.load(Ordering::Relaxed)
    }

    /// Requests that ended with an error.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_in_the_first_bucket_that_holds_it() {
        let latency = Latency::default();
        for micros in [0, 50, 51, 10_000_000, 10_000_001] {
            latency.record(Duration::from_micros(micros), micros != 51);
        }
        let counts = latency.counts();
        assert_eq!((counts[0], counts[1], counts[15], counts[16]), (2, 1, 1, 1));
        assert_eq!(counts.iter().sum::<u64>(), 5);
        assert_eq!((latency.sum_micros(), latency.failed()), (20_000_102, 1));
    }
}
