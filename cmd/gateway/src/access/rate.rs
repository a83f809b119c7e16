//! How many requests a token may make: so many a second, and a second's worth at once.
//!
//! The generic cell rate algorithm: one number, the time at which all requests so far would have been
//! due at the pace, runs ahead of the clock by a second at most.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

const BURST_MICROS: u64 = 1_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Rate {
    /// Between two requests at the pace, in nanoseconds.
    interval_nanos: u64,
    due_nanos: AtomicU64,
}

impl Rate {
    pub(super) fn new(per_second: u32) -> Self {
        let interval_nanos = 1_000_000_000 / u64::from(per_second.max(1));
        Self { interval_nanos, due_nanos: AtomicU64::new(0) }
    }

    /// Takes over what `other` has counted.
    pub(super) fn continued(self, other: &Self) -> Self {
        self.due_nanos.store(other.due_nanos.load(Ordering::Relaxed), Ordering::Relaxed);
        self
    }

    /// Counts a request, or tells after what time there is room for one.
    pub(super) fn take(&self, now_micros: u64) -> Result<(), Duration> {
        let now = now_micros.saturating_mul(1_000);
        let latest = now + BURST_MICROS * 1_000;
        // A clock that was set back locks nobody out for longer than the burst.
        let begin = |due: u64| due.max(now).min(latest);
        let fits = |due: u64| begin(due) + self.interval_nanos <= latest;
        let before = self.due_nanos.update(Ordering::Relaxed, Ordering::Relaxed, |due| {
            if fits(due) { begin(due) + self.interval_nanos } else { begin(due) }
        });
        match fits(before) {
            true => Ok(()),
            false => Err(Duration::from_nanos(begin(before) + self.interval_nanos - latest)),
        }
    }
}
