//! What of the record a crash of the machine loses, and keeping the record short.
//!
//! Invariant: a record that is begun anew forgets only what the system has written back, which it
//! may do at any time.

use tako_journal::fault::{Kept, Op, all_synced};

use super::{Shared, State};
use crate::chance::Chance;

/// A record longer than this is begun anew once nothing is unsynced.
const RECORD_BYTES: usize = 1 << 20;
const RECORD_OPS: usize = 4096;
/// So many times longer, it is begun anew in any case: the system writes back by itself some day.
const PATIENCE: usize = 8;
/// Sectors in a page of the system's cache.
const PAGE_SECTORS: u64 = 8;

impl Shared {
    pub(super) fn bound_record(&self, state: &mut State) {
        let long = |times: usize| {
            RECORD_BYTES * times < self.faults.recorded_bytes()
                || RECORD_OPS * times < self.faults.op_count()
        };
        if long(1) && (long(PATIENCE) || self.faults.with_ops(all_synced)) {
            self.restart_record(state);
        }
    }

    pub(super) fn restart_record(&self, state: &mut State) {
        state.base = self.live.deep_copy();
        self.faults.restart_record();
    }
}

/// Chooses what of the unsynced changes survives.
#[derive(Debug)]
pub(super) struct Losses<'a> {
    chance: &'a mut Chance,
    /// The same for all of them, or each as it comes.
    all: Option<Kept>,
    lost: u64,
}

impl<'a> Losses<'a> {
    pub(super) fn new(chance: &'a mut Chance) -> Self {
        let all = match chance.below(6) {
            0 => Some(Kept::Nothing),
            1 => Some(Kept::All),
            _ => None,
        };
        Self { chance, all, lost: 0 }
    }

    /// How many changes were lost wholly or in part.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn keep(&mut self, op: &Op) -> Kept {
        let kept = self.all.clone().unwrap_or_else(|| self.draw(op));
        self.lost += u64::from(kept != Kept::All);
        kept
    }

    fn draw(&mut self, op: &Op) -> Kept {
        let Op::Write(_, _, bytes) = op else {
            return if self.chance.yes(0.5) { Kept::All } else { Kept::Nothing };
        };
        match self.chance.below(5) {
            0 => Kept::Nothing,
            1 => Kept::All,
            2 => Kept::Prefix(self.chance.below(bytes.len() + 1)),
            3 => self.parts(op, PAGE_SECTORS),
            _ => self.parts(op, 1),
        }
    }

    /// Any of the parts of `unit` sectors.
    fn parts(&mut self, op: &Op, unit: u64) -> Kept {
        let mut page = None;
        let mut kept = false;
        let mut marks = Vec::new();
        for sector in op.sectors() {
            if page.replace(sector / unit) != Some(sector / unit) {
                kept = self.chance.yes(0.5);
            }
            marks.push(kept);
        }
        Kept::Sectors(marks)
    }
}
