//! Faults injected, by kind: what a run shows at its end.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

/// Counters shared by everything that injects faults; clones count together.
#[derive(Debug, Clone, Default)]
pub struct FaultCounts(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl FaultCounts {
    /// Counts one fault of a kind, such as `frame lost`.
    pub fn add(&self, kind: &'static str) {
        *self.0.lock().entry(kind).or_default() += 1;
    }

    /// All kinds so far.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().clone()
    }
}
