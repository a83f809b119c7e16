//! What one replica, or a cluster rebuilt from the store, answers for every key at the end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{History, Op, Outcome, Version};

/// The answer for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A value.
    Found {
        /// The value.
        value: u64,
        /// Its version.
        version: Version,
    },
    /// No value.
    Absent {
        /// Of the tombstone or expired record; None: nothing is known.
        version: Option<Version>,
    },
}

/// All answers of one replica. A key that is not in it was not asked, for instance because this
/// replica does not hold it: say `Absent` for a key that was asked and is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    /// Who answered.
    pub replica: String,
    /// Before the first key was asked for, in microseconds on the history's time line.
    pub asked_at: u64,
    /// When the last answer came.
    pub answered_at: u64,
    /// By key.
    pub answers: BTreeMap<String, Answer>,
    /// Journal entries that no snapshot covers.
    pub uncovered: u64,
}

impl Dump {
    /// Of each key the newest answer of several replicas that were rebuilt from the store.
    #[must_use]
    pub fn of_store(replicas: &[Self]) -> Self {
        let mut all = Self { replica: "the store".to_owned(), ..Self::default() };
        let rank = |answer: &Answer| match answer {
            Answer::Found { version, .. } => Some(*version),
            Answer::Absent { version } => *version,
        };
        for dump in replicas {
            all.asked_at = dump.asked_at;
            all.answered_at = dump.answered_at;
            for (key, answer) in &dump.answers {
                let newest = all.answers.entry(key.clone()).or_insert(*answer);
                if rank(newest) < rank(answer) {
                    *newest = *answer;
                }
            }
        }
        all
    }

    /// The last answered read of each key that was invoked at `since` or later, as a dump: for
    /// systems that can only be asked through clients.
    #[must_use]
    pub fn of_final_reads(history: &History, since: u64) -> Self {
        let mut last = BTreeMap::new();
        for operation in &history.operations {
            let Some(returned_at) = operation.returned_at else { continue };
            if operation.invoked_at < since || !matches!(operation.op, Op::Get { .. }) {
                continue;
            }
            let answer = match operation.outcome {
                Outcome::Found { value, version } => Answer::Found { value, version },
                Outcome::Absent { version } => Answer::Absent { version },
                _ => continue,
            };
            let newest = last.entry(operation.key.clone()).or_insert((returned_at, answer));
            if newest.0 <= returned_at {
                *newest = (returned_at, answer);
            }
        }
        Self {
            replica: "final reads".to_owned(),
            asked_at: since,
            answered_at: last.values().map(|(at, _)| *at).max().unwrap_or(since),
            answers: last.into_iter().map(|(key, (_, answer))| (key, answer)).collect(),
            uncovered: 0,
        }
    }
}
