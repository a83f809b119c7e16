//! What the port counted since it was opened, for `stats`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// See the module; names are memcached's where it has one.
pub(super) struct Counters {
    pub(super) since: Instant,
    pub(super) curr_connections: AtomicU64,
    pub(super) total_connections: AtomicU64,
    pub(super) bytes_read: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) get_hits: AtomicU64,
    pub(super) get_misses: AtomicU64,
    /// Plain writes.
    pub(super) cmd_set: AtomicU64,
    /// Everything that looks at what is there before it writes.
    pub(super) cmd_change: AtomicU64,
    /// Of these, those that found something else, or nothing.
    pub(super) change_differs: AtomicU64,
    /// Operations that could not be done, or of which nobody knows.
    pub(super) unavailable: AtomicU64,
    /// Requests that were no sense.
    pub(super) protocol_errors: AtomicU64,
}

impl Counters {
    pub(super) fn new() -> Self {
        let zero = AtomicU64::default;
        Self {
            since: Instant::now(),
            curr_connections: zero(),
            total_connections: zero(),
            bytes_read: zero(),
            bytes_written: zero(),
            get_hits: zero(),
            get_misses: zero(),
            cmd_set: zero(),
            cmd_change: zero(),
            change_differs: zero(),
            unavailable: zero(),
            protocol_errors: zero(),
        }
    }
}

pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

pub(super) fn hit_or_miss(hits: &AtomicU64, misses: &AtomicU64, is_hit: bool) {
    add(if is_hit { hits } else { misses }, 1);
}

pub(super) fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
