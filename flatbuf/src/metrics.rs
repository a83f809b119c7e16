//! Counters of one process's RPC, read by whoever prints metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters; all only grow, save `connections_open`.
#[derive(Debug, Default)]
pub struct RpcMetrics {
    /// Connections open now, both directions.
    pub connections_open: AtomicU64,
    /// Connections opened, both directions.
    pub connections_opened: AtomicU64,
    /// Connections not taken because there were too many.
    pub connections_refused: AtomicU64,
    /// Attempts to connect that failed.
    pub connects_failed: AtomicU64,
    /// Whole frames received.
    pub frames_received: AtomicU64,
    /// Frames sent.
    pub frames_sent: AtomicU64,
    /// Bytes received in whole frames.
    pub bytes_received: AtomicU64,
    /// Bytes sent.
    pub bytes_sent: AtomicU64,
    /// Writes to the network; `frames_sent` over this is how well frames are coalesced.
    pub writes: AtomicU64,
    /// Frames that were no frames; each closed its connection.
    pub frames_bad: AtomicU64,
    /// Frames that broke off or did not arrive in time; each closed its connection.
    pub frames_torn: AtomicU64,
    /// Calls whose frame came again; the repeat was dropped.
    pub frames_repeated: AtomicU64,
    /// Attached records with a wrong checksum or shape; each failed its call alone.
    pub records_bad: AtomicU64,
    /// Calls refused here because too much was queued.
    pub calls_busy: AtomicU64,
    /// Calls whose deadline passed, as caller or as callee.
    pub calls_late: AtomicU64,
    /// Calls that did not finish at their first poll and got a task of their own.
    pub calls_spawned: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Counts a connection as open until dropped.
pub(crate) struct OpenConnection(std::sync::Arc<RpcMetrics>);

impl OpenConnection {
    pub(crate) fn new(metrics: &std::sync::Arc<RpcMetrics>) -> Self {
        add(&metrics.connections_opened, 1);
        add(&metrics.connections_open, 1);
        Self(std::sync::Arc::clone(metrics))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}
