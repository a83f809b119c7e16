//! Whether a published document may follow the one in force in this process.
//!
//! In: two documents, maybe with others between them that this process missed. Out: a reason against
//! it. Whoever publishes checks each document against the one before; here it is checked that no
//! document puts others in the place of a partition's nodes without having passed a migration. Pure.

use tako_types::config::{Config, ConfigError, Migration, Phase, Published, check_change};

/// From a document without a migration to the first one after it.
const WHOLE_MIGRATION: u64 = 3;

/// Whether `new` may take the place of `old`.
///
/// # Errors
/// [`ConfigError`] naming the first thing that only a migration may change.
pub(super) fn check(old: &Published, new: &Published) -> Result<(), ConfigError> {
    if let (Some(before), Some(after)) = (two_sets(old), two_sets(new))
        && before.other == after.other
        && new.epoch.number == old.epoch.number + 1
    {
        // What is written to both must stay what it is.
        check_change(&towards(old, &before.other), &towards(new, &after.other))?;
    }
    let stayed = old.config.active == new.config.active
        && new.epoch.number < old.epoch.number + 2 * WHOLE_MIGRATION;
    if stayed || !may_have_moved(old, new) {
        return check_change(&old.config, &new.config);
    }
    // The other deployment took over; it must be the one that was moved to.
    let followed = old.migration.as_ref().is_some_and(|it| it.other == new.config.active);
    if followed && new.epoch.number < old.epoch.number + WHOLE_MIGRATION {
        return check_change(&towards(old, &new.config.active), &new.config);
    }
    let mut settings = (*old.config).clone();
    settings.active.clone_from(&new.config.active);
    settings.deployments.clone_from(&new.config.deployments);
    check_change(&settings, &new.config)
}

/// The migration while both deployments are written.
fn two_sets(document: &Published) -> Option<&Migration> {
    let both = |it: &&Migration| matches!(it.phase, Phase::WriteBoth | Phase::ReadNew);
    document.migration.as_ref().filter(both)
}

/// The configuration as if `deployment` were the active one.
fn towards(document: &Published, deployment: &str) -> Config {
    let mut config = (*document.config).clone();
    deployment.clone_into(&mut config.active);
    config
}

/// May the active deployment of `new` have been moved to since `old`?
fn may_have_moved(old: &Published, new: &Published) -> bool {
    let was_target = two_sets(old).is_some_and(|it| it.other == new.config.active);
    let left = new.migration.as_ref().is_some_and(|migration| {
        migration.phase == Phase::Leave && migration.other == old.config.active
    });
    was_target || left || old.epoch.number + WHOLE_MIGRATION < new.epoch.number
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tako_ring::publish_migration;
    use tako_types::StepNumber;

    use super::*;

    /// A document; `nodes` are the ports of the deployment `t`, `d` has the first three.
    fn document(number: u64, active: &str, phase: Option<Phase>, nodes: &[u16]) -> Published {
        let other = if active == "d" { "t" } else { "d" };
        let target = phase.filter(|phase| *phase != Phase::Leave);
        let target = target.map_or(String::new(), |_| format!("target_deployment: {other}\n"));
        let mut text =
            format!("partitions: 1\nactive_deployment: {active}\n{target}deployments:\n");
        for (name, nodes) in [("d", &[1, 2, 3][..]), ("t", nodes)] {
            text.push_str(&format!(
                "  {name}:\n    hash: {{buckets_per_key: 1}}\n    buckets:\n      b1:\n"
            ));
            for n in nodes {
                text.push_str(&format!("        n{n}: [localhost, {}]\n", 4700 + n));
            }
        }
        let config = Arc::new(Config::parse(&text).expect("a valid configuration"));
        let barrier = if phase == Some(Phase::ReadNew) { vec![StepNumber(1)] } else { Vec::new() };
        let migration = phase.map(|phase| Migration { phase, other: other.to_owned(), barrier });
        publish_migration(config, number, migration, None).expect("a document")
    }

    const NODES: [u16; 3] = [2, 3, 4];

    #[test]
    fn a_migration_may_be_followed_from_wherever_a_node_missed_the_rest() {
        use Phase::{Join, Leave, ReadNew, WriteBoth};
        let phases = [None, Some(Join), Some(WriteBoth), Some(ReadNew)];
        let end = [Some(Leave), None];
        let all: Vec<Published> = phases
            .iter()
            .map(|phase| ("d", *phase))
            .chain(end.iter().map(|phase| ("t", *phase)))
            .zip(1..)
            .map(|((active, phase), number)| document(number, active, phase, &NODES))
            .collect();
        for (at, old) in all.iter().enumerate() {
            for new in &all[at + 1..] {
                assert_eq!(check(old, new), Ok(()), "{} to {}", old.epoch, new.epoch);
            }
        }
        // Given up.
        assert_eq!(check(&all[3], &document(5, "d", Some(Leave), &NODES)), Ok(()));
    }

    #[test]
    fn nobody_takes_the_place_of_others_without_a_migration() {
        let old = document(1, "d", None, &NODES);
        for (number, phase) in [(2, None), (3, None), (2, Some(Phase::Join))] {
            assert!(check(&old, &document(number, "t", phase, &NODES)).is_err(), "{phase:?}");
        }
        let both = document(2, "d", Some(Phase::WriteBoth), &NODES);
        let other = document(3, "d", Some(Phase::WriteBoth), &[2, 3, 5]);
        assert!(check(&both, &other).is_err(), "the set that is written changed");
        let other = document(3, "t", Some(Phase::Leave), &[2, 3, 5]);
        assert!(check(&both, &other).is_err(), "it is not what was moved to");
        let struck_out = document(2, "t", None, &NODES[..2]);
        let refused = check(&document(1, "t", None, &NODES), &struck_out);
        assert!(refused.is_err(), "a node is struck out of the file");
    }
}
