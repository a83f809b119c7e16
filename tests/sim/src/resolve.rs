//! What writes came to whose HTTP answer leaves two readings.
//!
//! A write without a timestamp of its own is told "the version that holds now" (docs/http.md): its
//! own, or that of a write beside it which overtook it. Which, is settled when the run is over:
//! by what others were told of that version, and by who issued it (an origin is one process').
//! Invariant: such a write counts as acknowledged at that version only if nobody else can have
//! written it; else it counts as superseded, which demands less. So a doubt never blames Tako.

use std::collections::{BTreeMap, BTreeSet};

use tako_checkers::{Answer, Dump, History, Op, Operation, Outcome, Version};

/// The writes whose answer leaves two readings, and which process each operation was sent to.
#[derive(Debug, Clone, Default)]
pub struct Doubts {
    /// Operations, by their place in the history.
    pub uncertain: BTreeSet<usize>,
    /// Of each operation.
    pub processes: Vec<String>,
}

/// What was told of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Value(u64),
    /// The version of a delete that was acknowledged for sure.
    Delete,
    /// No value: a delete, or one that has expired.
    Nothing,
}

/// The history with an outcome for each of the `uncertain` operations, which are in it as
/// acknowledged at the version that they were told.
#[must_use]
pub fn resolved(mut history: History, doubts: &Doubts, dumps: &[Dump]) -> History {
    let Doubts { uncertain, processes } = doubts;
    let issuers = issuers(&history, doubts);
    let mut told: BTreeMap<(&str, Version), Vec<Told>> = BTreeMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let (version, what) = match (&operation.op, &operation.outcome) {
            (Op::Get { .. }, Outcome::Found { value, version }) => (*version, Told::Value(*value)),
            (Op::Get { .. }, Outcome::Absent { version: Some(version) }) => {
                (*version, Told::Nothing)
            }
            (Op::Put { value, .. }, Outcome::Acked { version }) => (*version, Told::Value(*value)),
            (Op::Delete { .. }, Outcome::Acked { version }) => (*version, Told::Delete),
            _ => continue,
        };
        if !uncertain.contains(&index) {
            told.entry((&operation.key, version)).or_default().push(what);
        }
    }
    for dump in dumps {
        for (key, answer) in &dump.answers {
            let (version, what) = match *answer {
                Answer::Found { value, version } => (version, Told::Value(value)),
                Answer::Absent { version: Some(version) } => (version, Told::Nothing),
                Answer::Absent { version: None } => continue,
            };
            told.entry((key, version)).or_default().push(what);
        }
    }
    let mut by_key: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        by_key.entry(&operation.key).or_default().push(index);
    }
    let mut overtaken = Vec::new();
    for &index in uncertain {
        let operation = &history.operations[index];
        let Outcome::Acked { version } = operation.outcome else { continue };
        let key = operation.key.as_str();
        let evidence = told.get(&(key, version)).map_or(&[][..], Vec::as_slice);
        let is_own = is_own(operation, evidence).unwrap_or_else(|| {
            let issuer = issuers.get(&version.origin).copied();
            if issuer.is_some_and(|issuer| *issuer != processes[index]) {
                return false;
            }
            // A client's own timestamp has an origin of its own.
            let may_issue = |other: &usize| {
                *other != index && issuer.is_none_or(|issuer| *issuer == processes[*other])
            };
            let mut others = by_key[key].iter().filter(|other| may_issue(other));
            !others.any(|other| may_have_written(&history.operations[*other], version, operation))
        });
        if !is_own {
            overtaken.push((index, version));
        }
    }
    for (index, version) in overtaken {
        history.operations[index].outcome = Outcome::Superseded { version };
    }
    history
}

/// By origin the process whose it is: told by writes that are surely in force at their version.
fn issuers<'a>(history: &History, doubts: &'a Doubts) -> BTreeMap<u64, &'a String> {
    let mut issuers = BTreeMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let is_plain = matches!(
            operation.op,
            Op::Put { timestamp: None, .. } | Op::Delete { timestamp: None, .. }
        );
        if let Outcome::Acked { version } = operation.outcome
            && is_plain
            && !doubts.uncertain.contains(&index)
        {
            issuers.insert(version.origin, &doubts.processes[index]);
        }
    }
    issuers
}

/// Whether the version is this write's own, as far as others were told what it is.
fn is_own(write: &Operation, evidence: &[Told]) -> Option<bool> {
    let (own, may_be_gone) = match write.op {
        Op::Put { value, expires_at, .. } => (Some(value), expires_at.is_some()),
        _ => (None, true),
    };
    // Its own first: should others be told something else, then one version is two writes.
    if own.is_some_and(|own| evidence.contains(&Told::Value(own))) {
        return Some(true);
    }
    let is_anothers = evidence.iter().any(|told| match told {
        Told::Value(_) | Told::Delete => true,
        Told::Nothing => !may_be_gone,
    });
    is_anothers.then_some(false)
}

/// May `other` have written `version`, and overtaken `write` with it?
fn may_have_written(other: &Operation, version: Version, write: &Operation) -> bool {
    let timestamp = match other.op {
        Op::Put { timestamp, .. } | Op::Delete { timestamp, .. } => timestamp,
        _ => return false,
    };
    if timestamp.is_some_and(|micros| micros != version.micros) {
        return false;
    }
    let began_before = write.returned_at.is_none_or(|returned| other.invoked_at <= returned);
    let went_on = other.returned_at.is_none_or(|returned| write.invoked_at <= returned);
    match other.outcome {
        Outcome::Unknown => began_before,
        // What is told a version may have been sent at a lower one first.
        Outcome::Acked { version: own } | Outcome::Superseded { version: own } => {
            began_before && went_on && version <= own
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: Version = Version::new(50, 1);

    fn operation(from: u64, to: u64, op: Op, outcome: Outcome) -> Operation {
        let (key, returned_at) = ("k".to_owned(), Some(to));
        Operation { client: 1, key, n: 3, invoked_at: from, returned_at, op, outcome }
    }

    fn put(from: u64, to: u64, value: u64, outcome: Outcome) -> Operation {
        let op = Op::Put { value, w: 2, expires_at: None, expires_by: None, timestamp: None };
        operation(from, to, op, outcome)
    }

    /// The outcome of the first operation, which is uncertain.
    fn first(operations: Vec<Operation>) -> Outcome {
        first_of(operations, &["n1"; 4])
    }

    fn first_of(operations: Vec<Operation>, processes: &[&str]) -> Outcome {
        let processes = processes.iter().map(ToString::to_string).collect();
        let doubts = Doubts { uncertain: BTreeSet::from([0]), processes };
        resolved(History { operations }, &doubts, &[]).operations[0].outcome.clone()
    }

    fn acked() -> Outcome {
        Outcome::Acked { version: V }
    }

    fn superseded() -> Outcome {
        Outcome::Superseded { version: V }
    }

    #[test]
    fn a_write_that_nobody_can_have_overtaken_is_acknowledged() {
        let before = put(0, 9, 2, Outcome::Acked { version: Version::new(40, 1) });
        let after = put(31, 40, 3, Outcome::Unknown);
        assert_eq!(first(vec![put(10, 30, 1, acked()), before, after]), acked());
    }

    #[test]
    fn one_with_another_beside_it_is_superseded_unless_it_was_read() {
        let beside = put(20, 40, 2, Outcome::Acked { version: Version::new(60, 1) });
        assert_eq!(first(vec![put(10, 30, 1, acked()), beside.clone()]), superseded());
        let long_lost = put(0, 5, 2, Outcome::Unknown);
        assert_eq!(first(vec![put(10, 30, 1, acked()), long_lost]), superseded());
        let read =
            |value| operation(50, 60, Op::Get { r: 2 }, Outcome::Found { value, version: V });
        assert_eq!(first(vec![put(10, 30, 1, acked()), beside, read(1)]), acked());
        assert_eq!(first(vec![put(10, 30, 1, acked()), read(2)]), superseded());
        let gone = operation(50, 60, Op::Get { r: 2 }, Outcome::Absent { version: Some(V) });
        assert_eq!(first(vec![put(10, 30, 1, acked()), gone]), superseded());
    }

    #[test]
    fn who_issued_the_version_tells_whose_it_is() {
        let lost = || put(0, 5, 2, Outcome::Unknown);
        let sure = || put(60, 65, 3, Outcome::Acked { version: Version::new(62, 1) });
        let operations = || vec![put(10, 30, 1, acked()), lost(), sure()];
        assert_eq!(first_of(operations(), &["n1", "n2", "n1"]), acked());
        assert_eq!(first_of(operations(), &["n1", "n1", "n1"]), superseded());
        assert_eq!(first_of(operations(), &["n1", "n2", "n2"]), superseded());
    }
}
