//! From a configuration to the document that is published.
//!
//! Pure. Not here: giving out epoch numbers, keeping and sending documents (`tako-coordinator`).

use std::{collections::BTreeMap, sync::Arc};

use tako_types::config::{Config, Deployment, Migration, Published, PublishedError, Table};

use crate::{table, table_after, zones::Zones};

/// The document for `config` under the epoch number `number`, tables included.
///
/// A deployment that `in_force` has a table of starts from that, any other from the table of the
/// active one: what moves is what must.
///
/// # Errors
/// [`PublishedError`] when the configuration did not come from [`Config::parse`].
pub fn publish(
    config: Arc<Config>,
    number: u64,
    in_force: Option<&Published>,
) -> Result<Published, PublishedError> {
    publish_migration(config, number, None, in_force)
}

/// [`publish`] of a document that says how far a migration has come.
///
/// # Errors
/// As [`publish`]; also when the migration does not fit the configuration.
pub fn publish_migration(
    config: Arc<Config>,
    number: u64,
    migration: Option<Migration>,
    in_force: Option<&Published>,
) -> Result<Published, PublishedError> {
    let other = migration.as_ref().map(|migration| &migration.other);
    // Without such a deployment the document is refused below.
    let other = other.and_then(|name| config.deployments.get(name));
    let tables: BTreeMap<String, Table> = std::iter::once(config.active_deployment())
        .chain(config.target_deployment())
        .chain(other)
        .map(|deployment| {
            let rows = match in_force.map(|published| base(published, &deployment.name)) {
                None => table(deployment, config.partitions),
                Some((before, rows)) => table_after(before, rows, deployment, config.partitions),
            };
            // A deployment has at most 1,024 buckets.
            let narrow = |row: Vec<usize>| row.into_iter().map(|index| index as u16).collect();
            (deployment.name.clone(), rows.into_iter().map(narrow).collect())
        })
        .collect();
    Published::new(number, config, tables, migration)
}

/// What the deployment `name` starts from: its own table in force, else that of the active one.
fn base<'a>(in_force: &'a Published, name: &str) -> (&'a Deployment, &'a Table) {
    match (in_force.config.deployments.get(name), in_force.table_of(name)) {
        (Some(deployment), Some(rows)) => (deployment, rows),
        _ => (in_force.config.active_deployment(), in_force.table()),
    }
}

/// Partitions of the active deployment that take no writes while one zone is down, as warnings.
#[must_use]
pub fn zone_warnings(published: &Published) -> Vec<String> {
    let zones = Zones::of(published.config.active_deployment());
    let harmed: Vec<String> = published
        .partitions()
        .zip(published.table())
        .filter(|(_, row)| zones.is_harmed(row.iter().map(|index| usize::from(*index))))
        .map(|(partition, _)| partition.to_string())
        .collect();
    if harmed.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "{} of {} partitions have a majority of their replicas in one zone: {}",
        harmed.len(),
        published.table().len(),
        harmed.join(", ")
    )]
}

/// How many (partition, bucket) places two tables differ in: what a change of one into the other
/// moves. Buckets are told apart by name.
#[must_use]
pub fn movement(from: (&Deployment, &[Vec<usize>]), to: (&Deployment, &[Vec<usize>])) -> usize {
    let names = |deployment: &'_ Deployment, row: &[usize]| -> Vec<String> {
        row.iter().map(|index| deployment.buckets[*index].name.clone()).collect()
    };
    from.1
        .iter()
        .zip(to.1)
        .map(|(before, after)| {
            let before = names(from.0, before);
            names(to.0, after).iter().filter(|name| !before.contains(name)).count()
        })
        .sum()
}
