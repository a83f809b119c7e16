//! Who lies where: the deployments of a scenario, and what may be asked of all of them alike.
//!
//! Pure. Invariant: in every pair some nodes are in both deployments and some in one alone, `n1` is
//! the first node of the first one, and both begin with a bucket `b1` (`settings.rs` makes bad files
//! out of good ones by that).

use tako_types::config::{Consistency, Quorum};

use crate::{chance::Chance, scenario::Scenario};

/// A deployment as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// Its name.
    pub name: &'static str,
    /// On how many buckets each key lies.
    pub buckets_per_key: usize,
    /// Per bucket the numbers of its nodes.
    pub buckets: Vec<Vec<usize>>,
}

type Half = (usize, &'static [&'static [usize]]);

/// Pairs between which a scenario with [`Scenario::moves`] goes to and fro.
const PAIRS: [(Half, Half); 8] = [
    ((1, &[&[1, 2, 3]]), (1, &[&[3, 4, 5]])),
    ((1, &[&[1, 2, 3]]), (1, &[&[2, 4, 5]])),
    // One node alone, and back.
    ((1, &[&[1, 2, 3]]), (1, &[&[3]])),
    // More buckets per key: four replicas.
    ((1, &[&[1, 2, 3]]), (2, &[&[2, 3], &[4, 5]])),
    // More buckets: some partitions stay where they are.
    ((2, &[&[1], &[2], &[3]]), (2, &[&[1], &[2], &[4], &[5]])),
    ((3, &[&[1], &[2], &[3], &[4]]), (3, &[&[1], &[2], &[3], &[5]])),
    // Three replicas become five.
    ((1, &[&[1, 2, 3]]), (1, &[&[1, 2, 3, 4, 5]])),
    ((1, &[&[1, 2], &[3, 4]]), (2, &[&[2, 3], &[4], &[5]])),
];

/// A pair by its seed.
#[must_use]
pub fn drawn(chance: &Chance) -> usize {
    chance.part("layout").below(PAIRS.len())
}

/// The deployments of a scenario: the one it begins with first.
#[must_use]
pub fn deployments(scenario: &Scenario) -> Vec<Deployed> {
    let Some(pair) = scenario.moves else {
        let nodes = |bucket| (bucket..scenario.nodes).step_by(scenario.buckets).map(|n| n + 1);
        let buckets = (0..scenario.buckets).map(|bucket| nodes(bucket).collect()).collect();
        return vec![Deployed { name: "d", buckets_per_key: scenario.buckets_per_key, buckets }];
    };
    let (first, second) = PAIRS[pair % PAIRS.len()];
    let deployed = |name, (buckets_per_key, buckets): Half| {
        let buckets = buckets.iter().map(|nodes| nodes.to_vec()).collect();
        Deployed { name, buckets_per_key, buckets }
    };
    vec![deployed("d", first), deployed("t", second)]
}

/// What a client that does not know which deployment judges its request can say and rely on.
///
/// A level counts as the usual one only if it is enough in every deployment; usual writes and reads
/// overlap across all of them, which the checkers are told as levels of one made-up N.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// Highest level that no deployment refuses.
    pub all: usize,
    enough_w: usize,
    enough_r: usize,
    monotonic: bool,
}

impl Levels {
    /// Those of a scenario that moves; `None` where one deployment judges everything.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Option<Self> {
        scenario.moves?;
        let mut sizes = Vec::new();
        for deployed in deployments(scenario) {
            let mut buckets: Vec<usize> = deployed.buckets.iter().map(Vec::len).collect();
            buckets.sort_unstable();
            let k = deployed.buckets_per_key;
            sizes.push(buckets.iter().take(k).sum::<usize>());
            sizes.push(buckets.iter().rev().take(k).sum());
        }
        let quorums = || sizes.iter().map(|n| Quorum::of(Consistency::Quorum, *n));
        Some(Self {
            all: sizes.iter().copied().min().unwrap_or(1),
            enough_w: quorums().map(|quorum| quorum.w).max().unwrap_or(1),
            enough_r: quorums().map(|quorum| quorum.r).max().unwrap_or(1),
            monotonic: quorums().all(|quorum| quorum.n < 2 * quorum.r),
        })
    }

    /// Level and N of a write as the checkers are told them.
    #[must_use]
    pub fn write(self, level: Option<usize>) -> (u32, u32) {
        match level {
            Some(level) if level < self.enough_w => (1, 9),
            _ if self.monotonic => (3, 5),
            _ => (5, 8),
        }
    }

    /// Level and N of a read as the checkers are told them.
    #[must_use]
    pub fn read(self, level: Option<usize>) -> (u32, u32) {
        match level {
            Some(level) if level < self.enough_r => (1, 9),
            _ if self.monotonic => (3, 5),
            _ => (4, 8),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scenario::scenario;

    #[test]
    fn deployments_overlap_and_differ_and_usual_levels_overlap_weak_ones_nothing() {
        for pair in 0..PAIRS.len() {
            let scenario =
                Scenario { moves: Some(pair), ..scenario("migration").expect("there is one") };
            let all = deployments(&scenario);
            let nodes = |at: usize| all[at].buckets.concat().into_iter().collect::<BTreeSet<_>>();
            assert_ne!(nodes(0), nodes(1), "pair {pair}");
            assert!(!nodes(0).is_disjoint(&nodes(1)), "pair {pair}");
            assert_eq!(all[0].buckets[0][0], 1, "pair {pair}");
            let levels = Levels::of(&scenario).expect("it moves");
            let ((w, n), (r, m)) = (levels.write(None), levels.read(None));
            assert!(n == m && n < w + r, "pair {pair}");
            assert_eq!(levels.monotonic, m < 2 * r, "pair {pair}");
            let (weak, of) = levels.write(Some(levels.enough_w - 1));
            assert!(weak + m <= of, "pair {pair}");
        }
    }
}
