//! Chance from a seed: every part of the simulation draws from a stream of its own.
//!
//! Invariant: what one part draws does not change what another gets, so that leaving a fault out
//! of a plan (as shrinking does) leaves the rest as it was.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use xxhash_rust::xxh3::xxh3_64_with_seed;

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

    /// A stream of its own for the part called `name`, the same for the same seed and name.
    #[must_use]
    pub fn part(&self, name: &str) -> Self {
        Self::new(xxh3_64_with_seed(name.as_bytes(), self.seed))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.random.random()
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
        least + most.saturating_sub(least).mul_f64(part * part * part)
    }

    /// One of several.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
