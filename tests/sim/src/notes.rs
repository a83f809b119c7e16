//! What all clients of a run wrote down; clones share it.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tako_checkers::{History, Operation};

use crate::{
    chance::Chance,
    contract::Known,
    load::{Ask, Given, KeyUse},
};

#[derive(Debug, Default)]
struct Inner {
    history: History,
    given: Given,
    asked: BTreeMap<String, u64>,
    wrong: Vec<String>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Inner>>);

impl Notes {
    /// The history so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.0.lock().history.clone()
    }

    /// What was asked so far, by kind and way.
    #[must_use]
    pub fn asked(&self) -> BTreeMap<String, u64> {
        self.0.lock().asked.clone()
    }

    /// What no client should have been told.
    #[must_use]
    pub fn all_wrong(&self) -> Vec<String> {
        self.0.lock().wrong.clone()
    }

    /// Draws what is asked next of a key.
    pub(crate) fn draw(
        &self,
        chance: &mut Chance,
        key: &KeyUse,
        now: u64,
        of_key: (u64, Option<&Known>),
    ) -> Ask {
        self.0.lock().given.draw(chance, key, now, of_key)
    }

    /// Adds an operation.
    pub(crate) fn push(&self, operation: Operation) {
        self.0.lock().history.push(operation);
    }

    pub(crate) fn count(&self, what: &str) {
        *self.0.lock().asked.entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn wrong(&self, what: String) {
        self.0.lock().wrong.push(what);
    }
}
