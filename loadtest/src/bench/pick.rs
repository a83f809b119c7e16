//! Which key comes next: uniform, Zipf through an alias table, or Zipf by age among keys that grow
//! in number.
//!
//! The table is exact for every exponent and costs one number and one look-up per pick; 12 bytes a
//! key. Ranks are spread over the keys by a fixed permutation, so that the hottest keys are not
//! neighbours. By age there is no table, as each insert would change all of it.

use super::{args::Distribution, value::Numbers, workload::Picks};

/// Picks key indices below a key count.
#[derive(Debug)]
pub(crate) enum Picker {
    Uniform { key_count: u64 },
    Zipf(Alias),
    Latest { exponent: f64 },
}

impl Picker {
    /// `key_count` is above 0 and fits an `u32`.
    pub(crate) fn new(picks: Picks, key_count: u64) -> Self {
        match picks {
            Picks::Of(Distribution::Uniform) => Self::Uniform { key_count },
            Picks::Of(Distribution::Zipf { exponent }) => {
                Self::Zipf(Alias::zipf(key_count, exponent))
            }
            Picks::Latest { exponent } => Self::Latest { exponent },
        }
    }

    /// A key; `existing` are there by now, at least one.
    pub(crate) fn pick(&self, existing: u64, numbers: &mut Numbers) -> u64 {
        match self {
            Self::Uniform { key_count } => numbers.below(*key_count),
            Self::Zipf(alias) => spread(alias.pick(numbers), alias.slots.len() as u64),
            Self::Latest { exponent } => existing - zipf(existing, *exponent, numbers),
        }
    }
}

/// A rank of `1..=count` with weight rank^-exponent, without a table.
///
/// Source: Hörmann and Derflinger, "Rejection-inversion to generate variates from monotone
/// discrete distributions", 1996.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of keys are far below 2^53, and a rank is within 1..=count"
)]
fn zipf(count: u64, exponent: f64, numbers: &mut Numbers) -> u64 {
    // The weight as a function of any x, its integral and the inverse of that; with forms that do
    // not divide by zero where the exponent is 1.
    let weight = |x: f64| (-exponent * x.ln()).exp();
    let integral = |x: f64| {
        let at = (1.0 - exponent) * x.ln();
        x.ln() * if at.abs() < 1e-8 { 1.0 + at / 2.0 } else { at.exp_m1() / at }
    };
    let inverse = |y: f64| {
        let at = (y * (1.0 - exponent)).max(-1.0);
        (y * if at.abs() < 1e-8 { 1.0 - at / 2.0 } else { at.ln_1p() / at }).exp()
    };
    let (low, high) = (integral(1.5) - 1.0, integral(count as f64 + 0.5));
    let near = 2.0 - inverse(integral(2.5) - weight(2.0));
    loop {
        let y = high + numbers.share() * (low - high);
        let x = inverse(y);
        let rank = x.round().clamp(1.0, count as f64);
        if rank - x <= near || integral(rank + 0.5) - weight(rank) <= y {
            return rank as u64;
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
        let zipf = Picker::new(Picks::Of(Distribution::Zipf { exponent: 1.0 }), 100);
        let uniform = Picker::new(Picks::Of(Distribution::Uniform), 100);
        let (mut z, mut u) = (vec![0u32; 100], vec![0u32; 100]);
        for _ in 0..200_000 {
            z[usize::try_from(zipf.pick(100, &mut numbers)).expect("small")] += 1;
            u[usize::try_from(uniform.pick(100, &mut numbers)).expect("small")] += 1;
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
    fn the_newest_keys_are_picked_by_zipf_whatever_their_number() {
        let mut numbers = Numbers::new(6);
        for exponent in [0.0, 0.5, 0.99, 1.0, 2.0] {
            let latest = Picker::new(Picks::Latest { exponent }, 1);
            for count in [1u64, 2, 10, 1000] {
                let mut seen = vec![0u32; usize::try_from(count).expect("small")];
                for _ in 0..100_000 {
                    seen[usize::try_from(latest.pick(count, &mut numbers)).expect("small")] += 1;
                }
                let weights = (1..=count).map(|rank| (rank as f64).powf(-exponent));
                let whole: f64 = weights.clone().sum();
                for (rank, weight) in weights.enumerate() {
                    let expected = 100_000.0 * weight / whole;
                    let seen = f64::from(seen[seen.len() - 1 - rank]);
                    let near = (seen - expected).abs() < expected.sqrt() * 6.0 + 6.0;
                    assert!(near, "{exponent}, {count}: rank {rank}: {seen}, not {expected}");
                }
            }
        }
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
