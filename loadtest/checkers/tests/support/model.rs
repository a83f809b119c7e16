//! Correct histories: a store that does one thing after the other, seen through intervals that
//! overlap.
//!
//! Step i takes effect at (i + 1) × 100, somewhere between its call and its return. What the store
//! holds then is what the client is told, as far as it is told anything.

use std::collections::BTreeMap;

use tako_checkers::{Answer, Dump, History, Op, Operation, Outcome, Seen, Version};

/// What one step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Put,
    PutThatExpires,
    PutUnknownDone,
    PutUnknownNotDone,
    PutRefused,
    PutSuperseded,
    Delete,
    DeleteUnknownDone,
    Get,
    GetOfOne,
    Cas,
    CasUnknownDone,
    CasUnknownNotDone,
    CasMismatch,
}

pub(crate) const ACTS: [Act; 14] = [
    Act::Put,
    Act::PutThatExpires,
    Act::PutUnknownDone,
    Act::PutUnknownNotDone,
    Act::PutRefused,
    Act::PutSuperseded,
    Act::Delete,
    Act::DeleteUnknownDone,
    Act::Get,
    Act::GetOfOne,
    Act::Cas,
    Act::CasUnknownDone,
    Act::CasUnknownNotDone,
    Act::CasMismatch,
];

/// One step, as drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) act: Act,
    pub(crate) key: u64,
    /// From the call to the effect.
    pub(crate) before: u64,
    /// From the effect to the return.
    pub(crate) after: u64,
    /// Whatever else is to be chosen.
    pub(crate) choice: u64,
}

/// A record that was in force.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) version: Version,
    pub(crate) content: Option<u64>,
    pub(crate) expires_at: Option<u64>,
}

impl Held {
    fn value(&self, now: u64) -> Option<u64> {
        self.content.filter(|_| self.expires_at.is_none_or(|at| at > now))
    }

    pub(crate) fn answer(&self, now: u64, named: bool) -> Answer {
        match self.value(now) {
            Some(value) => Answer::Found { value, version: self.version },
            None => Answer::Absent { version: Some(self.version).filter(|_| named) },
        }
    }
}

/// A history that keeps every promise, and what is left at the end.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) history: History,
    /// Every record that was in force, in order, by key.
    pub(crate) held: BTreeMap<String, Vec<Held>>,
    /// After every step.
    pub(crate) end: u64,
}

pub(crate) fn outcome(answer: Answer) -> Outcome {
    match answer {
        Answer::Found { value, version } => Outcome::Found { value, version },
        Answer::Absent { version } => Outcome::Absent { version },
    }
}

impl Run {
    pub(crate) fn of(steps: &[Step]) -> Self {
        let mut run = Self::default();
        for (i, step) in (0_u64..).zip(steps) {
            run.step(i, (i + 1) * 100, step);
        }
        run.end = (steps.len() as u64 + 1) * 100 + 10_000;
        run
    }

    fn step(&mut self, i: u64, now: u64, step: &Step) {
        let key = format!("k{}", step.key);
        let held = self.held.entry(key.clone()).or_default();
        let current = held.last().copied();
        let value = current.and_then(|held| held.value(now));
        let version = Version::new(now, 1);
        let new = i + 1_000;
        let expires_at =
            (step.act == Act::PutThatExpires).then_some(now + 50 + step.choice % 1_000);
        let put = Op::Put { value: new, w: 2, expires_at, expires_by: None, timestamp: None };
        let delete = Op::Delete { w: 2, timestamp: None };
        let cas = |expected| Op::Cas { expected, new: Some(new), w: 2, expires_at: None };
        let named = step.choice.is_multiple_of(2);
        // Operation, outcome, and what is in force from now on.
        let (op, told, content) = match step.act {
            Act::Put | Act::PutThatExpires => (put, Outcome::Acked { version }, Some(Some(new))),
            Act::PutUnknownDone => (put, Outcome::Unknown, Some(Some(new))),
            Act::PutUnknownNotDone => (put, Outcome::Unknown, None),
            Act::PutRefused => (put, Outcome::Refused, None),
            Act::PutSuperseded => match current {
                Some(winner) => {
                    let timestamp = Some(winner.version.micros - 1 - step.choice % 50);
                    let op =
                        Op::Put { value: new, w: 2, expires_at: None, expires_by: None, timestamp };
                    (op, Outcome::Superseded { version: winner.version }, None)
                }
                None => (put, Outcome::Unknown, None),
            },
            Act::Delete => (delete, Outcome::Acked { version }, Some(None)),
            Act::DeleteUnknownDone => (delete, Outcome::Unknown, Some(None)),
            Act::Get => {
                let answer = current
                    .map_or(Answer::Absent { version: None }, |held| held.answer(now, named));
                (Op::Get { r: 2 }, outcome(answer), None)
            }
            Act::GetOfOne => {
                // One replica may have missed any number of the newest writes.
                let count = held.len() as u64 + 1;
                let old = (step.choice % count).checked_sub(1).map(|at| held[at as usize]);
                let answer =
                    old.map_or(Answer::Absent { version: None }, |held| held.answer(now, named));
                (Op::Get { r: 1 }, outcome(answer), None)
            }
            Act::Cas => (cas(value), Outcome::Applied { version }, Some(Some(new))),
            Act::CasUnknownDone => (cas(value), Outcome::Unknown, Some(Some(new))),
            Act::CasUnknownNotDone => (cas(value), Outcome::Unknown, None),
            Act::CasMismatch => {
                let seen = match value {
                    _ if step.choice.is_multiple_of(8) => Seen::Untold,
                    Some(value) => Seen::Value(value),
                    None => Seen::Absent,
                };
                (cas(Some(7)), Outcome::Mismatch { seen }, None)
            }
        };
        if let Some(content) = content {
            held.push(Held { version, content, expires_at });
        }
        let never = told == Outcome::Unknown && named;
        self.history.push(Operation {
            client: u32::try_from(i % 97).expect("below 97"),
            key,
            n: 3,
            invoked_at: now.saturating_sub(step.before),
            returned_at: (!never).then_some(now + step.after),
            op,
            outcome: told,
        });
    }

    /// What `replica` answers at the end.
    pub(crate) fn dump(&self, replica: &str) -> Dump {
        let answers = self.held.iter().map(|(key, held)| {
            let nothing = Answer::Absent { version: None };
            (key.clone(), held.last().map_or(nothing, |held| held.answer(self.end, true)))
        });
        Dump {
            replica: replica.to_owned(),
            asked_at: self.end,
            answered_at: self.end + 10,
            answers: answers.collect(),
            uncovered: 0,
        }
    }
}

/// Steps from a seed, for histories that are too long to be drawn one by one.
pub(crate) fn steps(seed: u64, count: usize, keys: u64, acts: &[Act], spread: u64) -> Vec<Step> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 8
    };
    (0..count)
        .map(|_| Step {
            act: acts[(draw() % acts.len() as u64) as usize],
            key: draw() % keys,
            before: draw() % spread,
            after: draw() % spread,
            choice: draw(),
        })
        .collect()
}
