//! Whether a document becomes the next configuration, and under which number. Pure.
//!
//! Rules: a document that says the same as the one in force changes nothing; one that differs must
//! be allowed to follow it ([`check_change`]); it gets the next number, or its own if that is
//! higher. Numbers only grow.

use std::path::Path;

use tako_types::config::{Config, Published, check_change, check_startable};

use crate::CoordinatorError;

/// What to do with a document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is the one in force.
    Keep,
    /// Publish it under this number.
    Publish(u64),
}

/// Who gives numbers to documents that have none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbering<'a> {
    /// This coordinator.
    pub(crate) id: &'a str,
    /// Whether a store is shared with other coordinators, so that only the master numbers.
    pub(crate) shared: bool,
}

/// Decides about `config`, read from `path`, while `in_force` is published.
pub(crate) fn decide(
    in_force: Option<&Published>,
    config: &Config,
    path: &Path,
    numbering: Numbering<'_>,
) -> Result<Decision, CoordinatorError> {
    let refused =
        |error| CoordinatorError::Config { path: path.to_owned(), source: Box::new(error) };
    check_startable(config).map_err(refused)?;
    let last = in_force.map_or(0, |document| document.epoch.number);
    let same = in_force.is_some_and(|document| document.config.sha256() == config.sha256());
    if let Some(document) = in_force {
        check_change(&document.config, config).map_err(refused)?;
    }
    match config.epoch {
        Some(claimed) if same && claimed == last => Ok(Decision::Keep),
        Some(claimed) if claimed == last && in_force.is_some() => {
            Err(CoordinatorError::EpochConflict { number: claimed, place: "what is published" })
        }
        Some(claimed) if claimed < last => {
            Err(CoordinatorError::EpochTooLow { claimed, in_force: last })
        }
        Some(claimed) => Ok(Decision::Publish(claimed)),
        None if same => Ok(Decision::Keep),
        None => match &config.master_coordinator {
            Some(master) if numbering.shared && master != numbering.id => {
                Err(CoordinatorError::NotMaster { master: master.clone() })
            }
            _ => Ok(Decision::Publish(last.saturating_add(1))),
        },
    }
}
