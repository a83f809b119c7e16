//! What clients wrote down, on one time line: a monotonic clock that began at the wall's time.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use tako_checkers::{History, Operation};
use tako_types::{Clock as _, SystemClock};

/// Clones share it.
#[derive(Debug, Clone)]
pub struct Notes {
    inner: Arc<Mutex<Inner>>,
    wall_micros: u64,
    began: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    history: History,
    values: u64,
    timestamp: u64,
    odd: Vec<String>,
}

impl Default for Notes {
    fn default() -> Self {
        Self { inner: Arc::default(), wall_micros: SystemClock.now_micros(), began: Instant::now() }
    }
}

impl Notes {
    /// Now.
    #[must_use]
    pub fn micros(&self) -> u64 {
        let passed = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.wall_micros.saturating_add(passed)
    }

    /// A number no other write has.
    #[must_use]
    pub fn value(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.values += 1;
        inner.values
    }

    /// `near` or the next timestamp that no other write of a client has.
    #[must_use]
    pub fn timestamp(&self, near: u64) -> u64 {
        let mut inner = self.inner.lock();
        // In steps, for a hundred writes a second are spread over seconds.
        inner.timestamp = (inner.timestamp + 1) % 1_000;
        near / 1_000 * 1_000 + inner.timestamp
    }

    /// Adds what was asked and told.
    pub fn push(&self, operation: Operation) {
        self.inner.lock().history.push(operation);
    }

    /// Adds an answer that documented behaviour does not explain.
    pub fn odd(&self, text: String) {
        let mut inner = self.inner.lock();
        if inner.odd.len() < 20 {
            inner.odd.push(text);
        }
    }

    /// The history so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.inner.lock().history.clone()
    }

    /// Answers that were not to be.
    #[must_use]
    pub fn odds(&self) -> Vec<String> {
        self.inner.lock().odd.clone()
    }
}
