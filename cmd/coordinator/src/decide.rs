//! Whether a document becomes the next configuration, and under which number. Pure.
//!
//! Rules: a file that asks for nothing new changes nothing; one that does must be allowed to follow
//! what is in force ([`check_change`], or the migration under way); it gets the next number, or its
//! own if that is higher. Numbers only grow. What a migration does by itself is decided in
//! `migration/phases.rs`.

use std::path::Path;

use tako_types::config::{Config, ConfigError, Migration, Phase, Published, check_change};

use crate::{
    CoordinatorError,
    migration::order::{Order, leaving, order},
};

/// What to do with a document.
#[derive(Debug, PartialEq)]
pub(crate) enum Decision {
    /// What is in force says the same.
    Keep,
    /// Publish this under this number.
    Publish(u64, Box<Config>, Option<Migration>),
}

/// Who gives numbers to documents that have none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbering<'a> {
    /// This coordinator.
    pub(crate) id: &'a str,
    /// Whether a store is shared with other coordinators, so that only the master numbers.
    pub(crate) shared: bool,
}

impl Numbering<'_> {
    /// Whose affair the next number is, where it is not this coordinator's.
    pub(crate) fn other_master(self, config: &Config) -> Option<&String> {
        config.master_coordinator.as_ref().filter(|master| self.shared && *master != self.id)
    }
}

/// Decides about `file`, read from `path`, while `in_force` is published.
pub(crate) fn decide(
    in_force: Option<&Published>,
    file: &Config,
    path: &Path,
    numbering: Numbering<'_>,
) -> Result<Decision, CoordinatorError> {
    let refused =
        |error| CoordinatorError::Config { path: path.to_owned(), source: Box::new(error) };
    let (config, migration) = wanted(in_force, file).map_err(refused)?;
    let last = in_force.map_or(0, |document| document.epoch.number);
    let same = in_force.is_some_and(|document| {
        document.config.sha256() == config.sha256() && document.migration == migration
    });
    // The numbers that a migration gave out are in no file.
    let moving = in_force.is_some_and(|document| document.migration.is_some());
    let publish = |number| Ok(Decision::Publish(number, Box::new(config), migration));
    match file.epoch {
        Some(claimed) if same && claimed <= last => Ok(Decision::Keep),
        Some(claimed) if claimed <= last && moving => publish(last.saturating_add(1)),
        Some(claimed) if claimed == last && in_force.is_some() => {
            Err(CoordinatorError::EpochConflict { number: claimed, place: "what is published" })
        }
        Some(claimed) if claimed < last => {
            Err(CoordinatorError::EpochTooLow { claimed, in_force: last })
        }
        Some(claimed) => publish(claimed),
        None if same => Ok(Decision::Keep),
        None => match numbering.other_master(file) {
            Some(master) => Err(CoordinatorError::NotMaster { master: master.clone() }),
            None => publish(last.saturating_add(1)),
        },
    }
}

/// The configuration and the migration that a file asks for by itself, whatever the nodes say.
fn wanted(
    in_force: Option<&Published>,
    file: &Config,
) -> Result<(Config, Option<Migration>), ConfigError> {
    let Some(document) = in_force else { return Ok((file.clone(), begun(file))) };
    let (Some(migration), Some(order)) = (&document.migration, order(document, file)?) else {
        check_change(&document.config, file)?;
        return Ok((file.clone(), begun(file)));
    };
    let unchanged = || ((*document.config).clone(), Some(migration.clone()));
    let other = &migration.other;
    Ok(match (order, migration.phase) {
        (Order::Hold, _) => (file.clone(), Some(migration.clone())),
        (_, Phase::Leave) => (leaving(document, file, other), Some(migration.clone())),
        (Order::Finish, _) => unchanged(),
        // Nothing was written to the other one.
        (Order::Abort, Phase::Join) => (file.clone(), None),
        (Order::Abort, Phase::WriteBoth) if migration.barrier.is_empty() => {
            let migration = Migration { phase: Phase::Leave, ..migration.clone() };
            (leaving(document, file, other), Some(migration))
        }
        // When enough nodes are there.
        (Order::Abort, Phase::WriteBoth) => unchanged(),
        (Order::Abort, Phase::ReadNew) => {
            let (config, _) = unchanged();
            (config, Some(Migration { phase: Phase::WriteBoth, ..migration.clone() }))
        }
    })
}

/// The beginning of the move that a file asks for.
fn begun(file: &Config) -> Option<Migration> {
    let other = file.target.clone()?;
    Some(Migration { phase: Phase::Join, other, barrier: Vec::new() })
}

#[cfg(test)]
mod tests;
