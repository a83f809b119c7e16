//! Chance from a seed: each part draws from a stream of its own.
//!
//! The seed decides which faults come when and what clients ask for. It does not decide how the
//! processes of the cluster are scheduled, so a run does not repeat exactly.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// A stream of chances.
#[derive(Debug)]
pub struct Chance {
    seed: u64,
    random: StdRng,
}

impl Chance {
    /// The first stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, random: StdRng::seed_from_u64(seed) }
    }

    /// A stream of its own for the part of that number.
    #[must_use]
    pub fn part(&self, number: u64) -> Self {
        Self::new(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number + 1))
    }

    /// A number below `limit`; 0 for a limit of 0.
    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { self.random.random_range(0..limit) }
    }

    /// True with a probability in 0 to 1.
    pub fn yes(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability.clamp(0.0, 1.0))
    }

    /// A time between two, short ones more often.
    pub fn time(&mut self, least: Duration, most: Duration) -> Duration {
        let part: f64 = self.random.random();
        least + most.saturating_sub(least).mul_f64(part * part)
    }

    /// One of several; `None` of none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}
