//! What a run draws of its scenario before it begins. Pure.
//!
//! Invariant: each draw has a stream of its own, so that none changes what another gets.

use std::time::Duration;

use crate::{chance::Chance, layout, load, scenario::Scenario};

/// Share of the runs in which background healing runs often.
const HEALED: f64 = 0.35;
/// Share of the runs in which backups are made.
const BACKED_UP: f64 = 0.35;

/// The scenario as this run has it.
#[must_use]
pub fn drawn(scenario: &Scenario, chance: &Chance) -> Scenario {
    let mut drawn = match load::keeps_tombstones(chance) {
        true => load::without_collection(scenario),
        false => scenario.clone(),
    };
    if scenario.moves.is_some() {
        drawn.moves = Some(layout::drawn(chance));
    }
    if scenario.may_be_wide && chance.part("width").yes(0.5) {
        drawn = Scenario {
            nodes: 5,
            buckets: 5,
            buckets_per_key: 3,
            proxies: 2,
            coordinators: 2,
            partitions: 8,
            ..drawn
        };
    }
    let mut healing = chance.part("healing");
    if healing.yes(HEALED) {
        drawn.healing = Some(healing.time(Duration::from_secs(2), Duration::from_secs(20)));
    }
    drawn.backups = chance.part("backups").yes(BACKED_UP);
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::scenarios;

    #[test]
    fn seeds_draw_all_there_is_and_the_same_seed_draws_the_same() {
        let scenarios = scenarios();
        let of = |seed, scenario: &Scenario| drawn(scenario, &Chance::new(seed));
        for scenario in &scenarios {
            let runs: Vec<Scenario> = (0..60).map(|seed| of(seed, scenario)).collect();
            assert!(runs.iter().any(|run| run.healing.is_some()), "{}", scenario.name);
            assert!(runs.iter().any(|run| run.healing.is_none()), "{}", scenario.name);
            assert!(runs.iter().any(|run| run.backups), "{}", scenario.name);
            let is_wide = |run: &Scenario| run.nodes != scenario.nodes;
            assert_eq!(runs.iter().any(is_wide), scenario.may_be_wide, "{}", scenario.name);
            let again = of(7, scenario);
            assert_eq!((again.healing, again.nodes), (runs[7].healing, runs[7].nodes));
        }
    }
}
