use std::sync::Arc;

use tako_types::{
    StepNumber,
    config::{Config, Migration, Phase, Published},
};

use super::{Epochs, follows::follows};
use crate::{operator::Stand, scenario::scenario, settings::Settings};

fn file(active: &str, target: Option<&str>) -> Config {
    let scenario = scenario("moves").expect("there is one");
    let stand = Stand { active: active.to_owned(), target: target.map(str::to_owned) };
    Config::parse(&Settings::of(&scenario).file(&scenario, &stand)).expect("valid")
}

/// A document; with a phase, and the steps of a barrier.
fn document(number: u64, active: &str, phase: Option<(Phase, u64)>) -> Published {
    let other = if active == "d" { "t" } else { "d" };
    let has_target = phase.is_some_and(|(phase, _)| phase != Phase::Leave);
    let migration = phase.map(|(phase, barrier)| Migration {
        phase,
        other: other.to_owned(),
        barrier: if barrier == 0 { Vec::new() } else { vec![StepNumber(barrier); 4] },
    });
    let config = Arc::new(file(active, has_target.then_some(other)));
    tako_ring::publish_migration(config, number, migration, None).expect("a document")
}

fn all(number: u64) -> Vec<Published> {
    use Phase::*;
    let mut all = Vec::new();
    for active in ["d", "t"] {
        let phases =
            [None, Some((Join, 0)), Some((WriteBoth, 0)), Some((ReadNew, 3)), Some((ReadNew, 4))];
        let more = [Some((WriteBoth, 3)), Some((Leave, 0))];
        let of = |phase: &Option<(Phase, u64)>| document(number, active, *phase);
        all.extend(phases.iter().chain(&more).map(of));
    }
    all
}

#[test]
fn phases_follow_each_other_as_the_design_has_them_and_in_no_other_way() {
    let name = |document: &Published| {
        let migration = document.migration.as_ref();
        let phase = migration.map_or("none", |migration| migration.phase.as_str());
        let barrier = migration.and_then(|it| it.barrier.first()).map_or(0, |step| step.0);
        format!("{} {phase} {barrier}", document.config.active)
    };
    let mut found = Vec::new();
    for before in all(1).iter().filter(|before| before.config.active == "d") {
        for after in all(2) {
            if follows(before, &after).is_ok() && name(before) != name(&after) {
                found.push(format!("{} → {}", name(before), name(&after)));
            }
        }
    }
    let expected = [
        "d none 0 → d join 0",
        "d join 0 → d none 0",
        "d join 0 → d write-both 0",
        "d write-both 0 → d read-new 3",
        "d write-both 0 → d read-new 4",
        "d write-both 0 → d leave 0",
        "d read-new 3 → d write-both 3",
        "d read-new 3 → t leave 0",
        "d read-new 4 → t leave 0",
        "d write-both 3 → d read-new 3",
        "d write-both 3 → d read-new 4",
        "d write-both 3 → d leave 0",
        "d leave 0 → d none 0",
    ];
    assert_eq!(found, expected);
}

fn verdict_of(orders: &[(u64, &str)], documents: &[Published]) -> Vec<String> {
    let epochs = Epochs::default();
    for document in documents {
        epochs.allow(document.config.sha256());
        epochs.in_force("somebody", document);
    }
    for (at, active) in orders {
        epochs.ordered(*at, &Stand::alone(active));
    }
    epochs.verdict().1
}

#[test]
fn a_move_that_is_finished_or_given_up_without_an_order_is_wrong() {
    let finished = [
        document(1, "d", None),
        document(2, "d", Some((Phase::Join, 0))),
        document(3, "d", Some((Phase::WriteBoth, 0))),
        document(4, "d", Some((Phase::ReadNew, 2))),
        document(5, "t", Some((Phase::Leave, 0))),
        document(6, "t", None),
    ];
    assert_eq!(verdict_of(&[(3, "t")], &finished), Vec::<String>::new());
    let wrong = verdict_of(&[(0, "t"), (3, "d")], &finished);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong.iter().all(|why| why.contains("Finishes, which none ordered")), "{wrong:?}");
    let given_up = [
        finished[0].clone(),
        finished[1].clone(),
        finished[2].clone(),
        document(4, "d", Some((Phase::Leave, 0))),
    ];
    assert_eq!(verdict_of(&[(2, "d")], &given_up), Vec::<String>::new());
    let wrong = verdict_of(&[(2, "t")], &given_up);
    assert!(wrong.len() == 1 && wrong[0].contains("GivesUp, which none ordered"), "{wrong:?}");
    let skipped = [finished[1].clone(), document(3, "d", Some((Phase::ReadNew, 2)))];
    let wrong = verdict_of(&[(2, "t")], &skipped);
    assert!(wrong.len() == 1 && wrong[0].contains("must not follow"), "{wrong:?}");
}
