//! What a node's answers count for in one partition, as the document and its folder have it.
//!
//! ```text
//! votes  (Get, Stat):           recovered, whole, and the view shows the barrier
//! judges (Put, Prepare, Accept): recovered, and whole or beside a set that judges as well
//! ```
//! Invariants: *whole* is only who holds whatever was complete before it came to the set: it was a
//! member all the time, or its view is no older than its coming; the barrier never goes down, as a
//! step is never undone. Why a target's node may judge before: during the phases with two sets each
//! write is judged by N−W+1 of the active set besides, which knows every complete version, and no
//! read asks the target's nodes below the barrier. Pure.

use tako_types::{
    NodeId, PartitionId, StepNumber,
    config::{Phase, Published},
};

/// Documents from a migration's second phase to the end of the one back: who missed as many may
/// have been out of a partition and in again without knowing.
const MISSED_MAX: u64 = 3;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stance {
    /// What the folder acknowledged, it holds.
    pub(crate) recovered: bool,
    whole: bool,
    barrier: StepNumber,
    /// This node is of the set that knows every complete version.
    active: bool,
    /// Another set judges each write as well.
    two_sets: bool,
    /// And this node is not of the active one.
    helped: bool,
    /// Counts the changes: what was begun under an older one says nothing any more.
    changes: u64,
}

impl Default for Stance {
    fn default() -> Self {
        Self {
            recovered: false,
            whole: true,
            barrier: StepNumber(0),
            active: true,
            two_sets: false,
            helped: false,
            changes: 0,
        }
    }
}

impl Stance {
    /// Do answers from a view of `step` count for reads?
    pub(crate) fn votes(&self, step: StepNumber) -> bool {
        self.recovered && self.whole && self.barrier <= step
    }

    /// Do acknowledgements count, and may this node promise?
    pub(crate) fn judges(&self, step: StepNumber) -> bool {
        let alone = self.whole && (self.two_sets || self.barrier <= step);
        self.recovered && (self.helped || alone)
    }

    /// Is a view of `step` below what reads here need?
    pub(crate) fn is_behind(&self, step: StepNumber) -> bool {
        step < self.barrier
    }

    /// Whether a view must be opened before this node is whole; which change asks for it.
    pub(crate) fn wants_view(&self) -> Option<u64> {
        (!self.whole && self.active).then_some(self.changes)
    }

    /// A view was opened since `change`.
    pub(crate) fn on_fresh_view(&mut self, change: u64) {
        if self.changes == change {
            self.whole = true;
        }
    }

    /// Goes by `new`; `old` was in force before, `None` at the start, which opens every view before
    /// anything counts as recovered.
    pub(crate) fn follow(
        &mut self,
        (old, new): (Option<&Published>, &Published),
        me: &NodeId,
        p: PartitionId,
    ) {
        self.changes += 1;
        let placement = new.placement(p);
        let also = placement.also_write.as_ref();
        let phase = new.migration.as_ref().map(|migration| migration.phase);
        let reads_new = phase == Some(Phase::ReadNew) && also.is_some();
        let reads = placement.read.nodes.contains(me);
        let also_writes = also.is_some_and(|set| set.nodes.contains(me));
        let active = if reads_new { also_writes } else { reads };
        self.active = active;
        self.two_sets = also.is_some();
        self.helped = also.is_some() && !active && placement.takes_writes(me);
        if reads_new && reads {
            self.barrier = self.barrier.max(placement.barrier);
        }
        let missed = old.map_or(0, |old| new.epoch.number.saturating_sub(old.epoch.number + 1));
        self.whole = match old {
            _ if !placement.takes_writes(me) => false,
            // The barrier says when.
            _ if reads_new && reads && !active => true,
            None => active,
            Some(_) => self.whole && missed < MISSED_MAX,
        };
    }
}
