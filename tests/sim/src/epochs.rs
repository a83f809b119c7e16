//! What configurations were seen, where, in which order: the oracle of the coordinators.
//!
//! Invariants it looks for: one number is one document, wherever and whenever it was seen; no
//! process goes back (but one whose disk was lost, when it starts); what is published is what a
//! file said that was whole and allowed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tako_types::config::Published;

#[derive(Debug, Default)]
struct State {
    /// By number, the hash and who showed it first.
    documents: BTreeMap<u64, ([u8; 32], String)>,
    /// By process, the highest number it had in force.
    floors: BTreeMap<String, u64>,
    /// Hashes of the configurations that may be published.
    allowed: BTreeSet<[u8; 32]>,
    sights: usize,
    /// Each once.
    wrong: BTreeSet<String>,
}

/// See the module; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Epochs(Arc<Mutex<State>>);

impl Epochs {
    /// A file with this configuration may be taken.
    pub fn allow(&self, sha256: [u8; 32]) {
        self.0.lock().allowed.insert(sha256);
    }

    /// A process lost its disk: it may start with less than it had.
    pub fn forget(&self, who: &str) {
        self.0.lock().floors.remove(who);
    }

    /// A process has a document in force.
    pub fn in_force(&self, who: &str, document: &Published) {
        self.seen(who, document);
        let mut state = self.0.lock();
        let number = document.epoch.number;
        let floor = state.floors.entry(who.to_owned()).or_insert(number);
        if number < *floor {
            let text = format!("{who} went back from configuration {floor} to {number}");
            state.wrong.insert(text);
        } else {
            *floor = number;
        }
    }

    /// A document was seen.
    pub fn seen(&self, who: &str, document: &Published) {
        let mut state = self.0.lock();
        state.sights += 1;
        let epoch = document.epoch;
        let first = state.documents.entry(epoch.number);
        let (known, by) = first.or_insert_with(|| (epoch.sha256, who.to_owned())).clone();
        if known != epoch.sha256 {
            let number = epoch.number;
            let text = format!("configuration {number} is one at {by} and another one at {who}");
            state.wrong.insert(text);
        }
        if !state.allowed.contains(&document.config.sha256()) {
            let text = format!("configuration {epoch} at {who} is what no whole, good file said");
            state.wrong.insert(text);
        }
    }

    /// How many sights there were, and what was wrong with them.
    #[must_use]
    pub fn verdict(&self) -> (usize, Vec<String>) {
        let state = self.0.lock();
        (state.sights, state.wrong.iter().cloned().collect())
    }
}
