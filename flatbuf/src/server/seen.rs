//! Which calls of one connection came already: none is begun twice, however often its frame comes.
//!
//! A network may repeat a frame. Most calls are none the wiser for being made twice; a change under a
//! condition is: the second time the condition fails for what the first one did.
//!
//! Invariant: a call whose id is less than [`WINDOW`] below the highest one is told new exactly once;
//! older ones are never told new. A peer has no more calls than that in flight.

/// Ids remembered; a peer counts up by one from call to call, and sends them nearly in that order.
const WINDOW: u64 = 1 << 14;
const WORDS: usize = (WINDOW / 64) as usize;

/// See the module.
#[derive(Debug)]
pub(super) struct Seen {
    /// Of those that came.
    highest: Option<u64>,
    /// A bit for each id of the window, at its remainder.
    bits: Box<[u64; WORDS]>,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self { highest: None, bits: Box::new([0; WORDS]) }
    }

    /// Notes a call; `false` when it came before, or is too old to tell.
    pub(super) fn is_new(&mut self, id: u64) -> bool {
        match self.highest {
            Some(highest) if id <= highest => {
                if highest - id >= WINDOW {
                    return false;
                }
            }
            Some(highest) if id - highest < WINDOW => {
                // What the places of these ids told was of ids that are too old now.
                (highest + 1..=id).for_each(|newer| *self.word(newer) &= !bit(newer));
                self.highest = Some(id);
            }
            _ => {
                self.bits.fill(0);
                self.highest = Some(id);
            }
        }
        let word = self.word(id);
        let is_new = *word & bit(id) == 0;
        *word |= bit(id);
        is_new
    }

    fn word(&mut self, id: u64) -> &mut u64 {
        &mut self.bits[(id % WINDOW / 64) as usize]
    }
}

fn bit(id: u64) -> u64 {
    1 << (id % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_id_is_new_once_in_whatever_order_they_come() {
        let mut seen = Seen::new();
        let mut model = HashSet::new();
        let mut state = 1u64;
        let mut high = 0;
        for n in 0..300_000u64 {
            // Now and then far back, or a leap ahead.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let back = (state >> 33) % if n % 7 == 0 { WINDOW } else { 40 };
            let leap = if n % 50_000 == 0 { 3 * WINDOW } else { 1 };
            let id = (high + leap).saturating_sub(back);
            high = high.max(id);
            let in_window = high - id < WINDOW;
            assert_eq!(seen.is_new(id), model.insert(id) && in_window, "{id} of {high}");
        }
        assert!(seen.is_new(u64::MAX) && !seen.is_new(u64::MAX) && !seen.is_new(high));
    }
}
