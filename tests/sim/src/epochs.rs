//! What configurations were seen, where, in which order: the oracle of the coordinators.
//!
//! Invariants it looks for: one number is one document, wherever and whenever it was seen; no
//! process goes back (but one whose disk was lost, when it starts); what is published is what a
//! file said that was whole and allowed; documents follow each other as the phases of a migration do
//! (`follows.rs`), and none finishes a move, or gives it up, that no order asked for.

mod follows;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tako_types::config::{Phase, Published};

use self::follows::{Done, follows};
use crate::operator::Stand;

#[derive(Debug, Default)]
struct State {
    /// By number, the document and who showed it first.
    documents: BTreeMap<u64, (Arc<Published>, String)>,
    /// By process, the highest number it had in force.
    floors: BTreeMap<String, u64>,
    /// Hashes of the configurations that may be published.
    allowed: BTreeSet<[u8; 32]>,
    /// What files ordered, each with the newest number when it was written.
    orders: Vec<(u64, Stand)>,
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

    /// The operator writes an order while `newest` is the highest number published.
    pub fn ordered(&self, newest: u64, stand: &Stand) {
        self.0.lock().orders.push((newest, stand.clone()));
    }

    /// The newest document seen.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Published>> {
        let state = self.0.lock();
        state.documents.last_key_value().map(|(_, (document, _))| document.clone())
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
        let (known, by) =
            first.or_insert_with(|| (Arc::new(document.clone()), who.to_owned())).clone();
        if known.epoch.sha256 != epoch.sha256 {
            let number = epoch.number;
            let text = format!("configuration {number} is one at {by} and another one at {who}");
            state.wrong.insert(text);
        }
        if !state.allowed.contains(&document.config.sha256()) {
            let text = format!("configuration {epoch} at {who} is what no whole, good file said");
            state.wrong.insert(text);
        }
    }

    /// How much was seen, by kind, and what was wrong with it.
    #[must_use]
    pub fn verdict(&self) -> (BTreeMap<&'static str, usize>, Vec<String>) {
        let state = self.0.lock();
        let mut wrong: Vec<String> = state.wrong.iter().cloned().collect();
        let mut seen = BTreeMap::from([("configurations seen", state.sights)]);
        // The number before the move under way.
        let mut began = 0;
        let documents: Vec<&Arc<Published>> = state.documents.values().map(|it| &it.0).collect();
        for pair in documents.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if after.epoch.number != before.epoch.number + 1 {
                // One that was lost on the way to its first sight: nothing is known of these two.
                continue;
            }
            let done = match follows(before, after) {
                Ok(done) => done,
                Err(why) => {
                    wrong.push(format!("configuration {}: {why}", after.epoch));
                    continue;
                }
            };
            match done {
                Done::Stayed => {}
                Done::Began => {
                    began = before.epoch.number;
                    *seen.entry("moves begun").or_default() += 1;
                }
                Done::WentOn => *seen.entry("moves that wrote both").or_default() += 1,
                Done::Ended => *seen.entry("moves ended").or_default() += 1,
                Done::Finishes | Done::GivesUp => {
                    let what = match (done, after.migration.as_ref().map(|it| it.phase)) {
                        (Done::Finishes, Some(Phase::ReadNew)) => "moves of reads",
                        (Done::Finishes, _) => "moves finished",
                        _ => "steps back",
                    };
                    *seen.entry(what).or_default() += 1;
                    if !state.asked_for(done, before, began) {
                        let epoch = after.epoch;
                        wrong.push(format!("configuration {epoch}: {done:?}, which none ordered"));
                    }
                }
            }
        }
        (seen, wrong)
    }
}

impl State {
    /// Whether somebody ordered, since the move began, what was done after `before`.
    fn asked_for(&self, done: Done, before: &Published, began: u64) -> bool {
        let Some(migration) = &before.migration else { return false };
        let (active, other) = (&before.config.active, &migration.other);
        let wanted = match done {
            // Reads move when no more than that is ordered, too.
            Done::Finishes if migration.phase == Phase::WriteBoth => {
                vec![Stand::alone(other), Stand::both(other, active)]
            }
            Done::Finishes => vec![Stand::alone(other)],
            _ => vec![Stand::alone(active)],
        };
        self.orders.iter().any(|(at, stand)| began <= *at && wanted.contains(stand))
    }
}

#[cfg(test)]
mod tests;
