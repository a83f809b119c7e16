//! Which key comes next: uniform, or Zipf through an alias table.
//!
//! The table is exact for every exponent and costs one number and one look-up per pick; 12 bytes a
//! key. Ranks are spread over the keys by a fixed permutation, so that the hottest keys are not
//! neighbours.

use super::{args::Distribution, value::Numbers};

/// Picks key indices below a key count.
#[derive(Debug)]
pub(crate) enum Picker {
    Uniform { key_count: u64 },
    Zipf(Alias),
}

impl Picker {
    /// `key_count` is above 0 and fits an `u32`.
    pub(crate) fn new(distribution: Distribution, key_count: u64) -> Self {
        match distribution {
            Distribution::Uniform => Self::Uniform { key_count },
            Distribution::Zipf { exponent } => Self::Zipf(Alias::zipf(key_count, exponent)),
        }
    }

    pub(crate) fn pick(&self, numbers: &mut Numbers) -> u64 {
        match self {
            Self::Uniform { key_count } => numbers.below(*key_count),
            Self::Zipf(alias) => spread(alias.pick(numbers), alias.slots.len() as u64),
        }
    }
}

/// Walker's alias table (Vose's construction).
#[derive(Debug)]
pub(crate) struct Alias {
    /// By slot: chance of keeping the slot, and the rank taken otherwise.
    slots: Vec<(f64, u32)>,
}

impl Alias {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "u32 ranks")]
    fn zipf(key_count: u64, exponent: f64) -> Self {
        let weights: Vec<f64> = (1..=key_count).map(|r| (r as f64).powf(-exponent)).collect();
        let scale = key_count as f64 / weights.iter().sum::<f64>();
        let mut slots: Vec<(f64, u32)> =
            weights.iter().enumerate().map(|(rank, w)| (w * scale, rank as u32)).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            (0..key_count as u32).partition(|rank| slots[*rank as usize].0 < 1.0);
        while let (Some(less), Some(more)) = (small.pop(), large.pop()) {
            slots[less as usize].1 = more;
            slots[more as usize].0 -= 1.0 - slots[less as usize].0;
            let now_small = slots[more as usize].0 < 1.0;
            if now_small { small.push(more) } else { large.push(more) }
        }
        // What is left over is 1.0 but for rounding.
        for rank in small.into_iter().chain(large) {
            slots[rank as usize] = (1.0, rank);
        }
        Self { slots }
    }

    fn pick(&self, numbers: &mut Numbers) -> u64 {
        let slot = numbers.below(self.slots.len() as u64);
        let (keep, other) = self.slots[usize::try_from(slot).unwrap_or(0)];
        if numbers.share() < keep { slot } else { u64::from(other) }
    }
}

/// A permutation of `0..count`: a step coprime with `count`.
fn spread(rank: u64, count: u64) -> u64 {
    // A prime above every u32 is coprime with every count.
    const STEP: u128 = 4_294_967_311;
    u64::try_from(u128::from(rank) * STEP % u128::from(count.max(1))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_picks_follow_their_weights_and_uniform_ones_are_alike() {
        let mut numbers = Numbers::new(5);
        let zipf = Picker::new(Distribution::Zipf { exponent: 1.0 }, 100);
        let uniform = Picker::new(Distribution::Uniform, 100);
        let (mut z, mut u) = (vec![0u32; 100], vec![0u32; 100]);
        for _ in 0..200_000 {
            z[usize::try_from(zipf.pick(&mut numbers)).expect("small")] += 1;
            u[usize::try_from(uniform.pick(&mut numbers)).expect("small")] += 1;
        }
        let harmonic: f64 = (1..=100).map(|r| 1.0 / f64::from(r)).sum();
        for rank in [0u64, 1, 9, 99] {
            let expected = 200_000.0 / harmonic / (rank + 1) as f64;
            let seen = f64::from(z[usize::try_from(spread(rank, 100)).expect("small")]);
            assert!((seen - expected).abs() < expected.sqrt() * 5.0, "{rank}: {seen} {expected}");
        }
        assert!(u.iter().all(|seen| (1_700..2_300).contains(seen)));
    }

    #[test]
    fn every_rank_has_a_key_of_its_own() {
        for count in [1u64, 2, 10, 1000, 4096] {
            let mut keys: Vec<u64> = (0..count).map(|rank| spread(rank, count)).collect();
            keys.sort_unstable();
            assert!(keys.into_iter().eq(0..count));
        }
    }
}
