//! Whether a document becomes the next configuration, and under which number. Pure.
//!
//! Rules: a file that asks for nothing new changes nothing; one that does must be allowed to follow
//! what is in force ([`check_change`], or the migration under way); it gets the next number, or its
//! own if that is higher. Numbers only grow. Where coordinators share a store, the master of the
//! document in force gives the next one; another coordinator does so by a file that makes it the
//! master and claims that number. Two of them may then publish at the same time: that only one does is
//! sure where both want the same number, so none may claim another. Who published a document can so be
//! told from who is the master in it and in the one before (`mandate.rs`). What a migration does by
//! itself is decided in `migration/phases.rs`.

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
    /// Whose affair the next number is while `config` is in force, where it is not this
    /// coordinator's.
    pub(crate) fn other_master(self, config: &Config) -> Option<&str> {
        config.master().filter(|master| self.shared && *master != self.id)
    }

    /// The same for a document that comes after `in_force`. What is published decides, for the file
    /// of a coordinator that was away may be an older one; the first document of all goes by itself.
    fn other(self, in_force: Option<&Published>, file: &Config) -> Option<String> {
        let master = match in_force {
            Some(document) => self.other_master(&document.config),
            None => self.other_master(file).filter(|_| file.master_coordinator.is_some()),
        };
        master.map(str::to_owned)
    }

    /// Whether a file may claim a number above the one in force; see the module.
    fn check_claim(
        self,
        in_force: Option<&Published>,
        file: &Config,
        claimed: u64,
    ) -> Result<(), CoordinatorError> {
        let Some(in_force) = in_force.filter(|_| self.shared) else { return Ok(()) };
        let (last, master) = (in_force.epoch.number, self.other_master(&in_force.config));
        let stays = self.other_master(file).is_some();
        if let Some(master) = master.filter(|_| stays) {
            return Err(CoordinatorError::NotMaster { master: master.to_owned(), in_force: last });
        }
        let next = last.saturating_add(1);
        match claimed == next {
            true => Ok(()),
            false => Err(CoordinatorError::EpochTooFar { claimed, next }),
        }
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
    let next = last.saturating_add(1);
    let by_master = || match numbering.other(in_force, file) {
        Some(master) => Err(CoordinatorError::NotMaster { master, in_force: last }),
        None => Ok(next),
    };
    match file.epoch {
        Some(claimed) if same && claimed <= last => Ok(Decision::Keep),
        Some(claimed) if claimed <= last && moving => publish(by_master()?),
        Some(claimed) if claimed == last && in_force.is_some() => {
            Err(CoordinatorError::EpochConflict { number: claimed, place: "what is published" })
        }
        Some(claimed) if claimed < last => {
            Err(CoordinatorError::EpochTooLow { claimed, in_force: last })
        }
        Some(claimed) => {
            numbering.check_claim(in_force, file, claimed)?;
            publish(claimed)
        }
        None if same => Ok(Decision::Keep),
        None => publish(by_master()?),
    }
}

/// The configuration and the migration that a file asks for by itself, whatever the nodes say.
fn wanted(
    in_force: Option<&Published>,
    file: &Config,
) -> Result<(Config, Option<Migration>), ConfigError> {
    let Some(document) = in_force else {
        no_loss(file)?;
        return Ok((file.clone(), begun(file)));
    };
    let (Some(migration), Some(order)) = (&document.migration, order(document, file)?) else {
        check_change(&document.config, file)?;
        // What is left of an order that was carried out is no harm, until it would be the next one's.
        if document.config.sha256() != file.sha256() {
            no_loss(file)?;
        }
        return Ok((file.clone(), begun(file)));
    };
    // Settings wait for the end of the move; who gives the numbers does not, for a coordinator that
    // takes over carries the order out.
    let unchanged = || {
        let mut config = (*document.config).clone();
        config.coordinators.clone_from(&file.coordinators);
        config.master_coordinator.clone_from(&file.master_coordinator);
        (config, Some(migration.clone()))
    };
    let other = &migration.other;
    Ok(match (order, migration.phase) {
        (Order::Hold, _) => (file.clone(), Some(migration.clone())),
        (_, Phase::Leave) => (leaving(document, file, other), Some(migration.clone())),
        (Order::Promote | Order::Finish, _) => unchanged(),
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

/// Nodes are given up while a move waits for them, not beforehand: until then they may come back.
fn no_loss(file: &Config) -> Result<(), ConfigError> {
    if file.accept_loss.is_empty() {
        return Ok(());
    }
    Err(ConfigError::new("migration.accept_loss", "no migration is under way")
        .remedy("remove it; name nodes once a migration waits for them"))
}

/// The beginning of the move that a file asks for.
fn begun(file: &Config) -> Option<Migration> {
    let other = file.target.clone()?;
    Some(Migration { phase: Phase::Join, other, barrier: Vec::new() })
}

#[cfg(test)]
mod tests;
