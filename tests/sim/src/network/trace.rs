//! What happened on the network, as one hash and, where asked for, line by line.
//!
//! Invariant: equal runs have equal hashes; time counts from the network's making, so that nothing
//! of the machine's clock enters.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Hears each line of the trace. Must not call the network.
pub type TraceLine = Arc<dyn Fn(&str) + Send + Sync>;

pub(super) struct Trace {
    start: Instant,
    hash: u64,
    line: Option<TraceLine>,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), hash: 0, line: None }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn set_line(&mut self, line: Option<TraceLine>) {
        self.line = line;
    }

    /// Notes one event: `bytes` from one host to another, and what became of them after `delay`.
    pub(super) fn note(&mut self, from: &str, to: &str, bytes: usize, what: &str, delay: Duration) {
        let now = Instant::now().saturating_duration_since(self.start).as_micros();
        let delay = delay.as_micros();
        for part in [from.as_bytes(), to.as_bytes(), what.as_bytes()] {
            self.hash = xxh3_64_with_seed(part, self.hash);
        }
        for number in [now, bytes as u128, delay] {
            self.hash = xxh3_64_with_seed(&number.to_le_bytes(), self.hash);
        }
        if let Some(line) = &self.line {
            line(&format!("{now} us: {from} > {to}: {bytes} bytes {what} ({delay} us)"));
        }
    }
}
