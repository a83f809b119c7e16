//! Short ways to write histories down.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod model;

use std::collections::BTreeMap;

use tako_checkers::{Answer, Dump, History, Op, Operation, Outcome, Seen, Version};

/// A version of origin 1.
pub(crate) fn v(micros: u64) -> Version {
    Version::new(micros, 1)
}

/// An operation on key "k" of three replicas, by the only client.
pub(crate) fn operation(from: u64, to: Option<u64>, op: Op, outcome: Outcome) -> Operation {
    let (client, key, n) = (1, "k".to_owned(), 3);
    Operation { client, key, n, invoked_at: from, returned_at: to, op, outcome }
}

/// A put at w=2, acknowledged.
pub(crate) fn put(from: u64, to: u64, value: u64, version: u64) -> Operation {
    operation(from, Some(to), plain(value), Outcome::Acked { version: v(version) })
}

/// A put at w=2 that never returned.
pub(crate) fn put_unknown(from: u64, value: u64) -> Operation {
    operation(from, None, plain(value), Outcome::Unknown)
}

/// A put at w=2 that expires.
pub(crate) fn put_until(
    from: u64,
    to: u64,
    value: u64,
    version: u64,
    expires_at: u64,
) -> Operation {
    let op =
        Op::Put { value, w: 2, expires_at: Some(expires_at), expires_by: None, timestamp: None };
    operation(from, Some(to), op, Outcome::Acked { version: v(version) })
}

pub(crate) fn plain(value: u64) -> Op {
    Op::Put { value, w: 2, expires_at: None, expires_by: None, timestamp: None }
}

/// A delete at w=2, acknowledged.
pub(crate) fn delete(from: u64, to: u64, version: u64) -> Operation {
    let op = Op::Delete { w: 2, timestamp: None };
    operation(from, Some(to), op, Outcome::Acked { version: v(version) })
}

/// A read at r=2 that found a value.
pub(crate) fn found(from: u64, to: u64, value: u64, version: u64) -> Operation {
    operation(from, Some(to), Op::Get { r: 2 }, Outcome::Found { value, version: v(version) })
}

/// A read at r=2 that found nothing.
pub(crate) fn absent(from: u64, to: u64, version: Option<u64>) -> Operation {
    operation(from, Some(to), Op::Get { r: 2 }, Outcome::Absent { version: version.map(v) })
}

/// A conditional write that applied.
pub(crate) fn cas(
    from: u64,
    to: u64,
    expected: Option<u64>,
    new: Option<u64>,
    version: u64,
) -> Operation {
    let op = Op::Cas { expected, new, w: 2, expires_at: None };
    operation(from, Some(to), op, Outcome::Applied { version: v(version) })
}

/// A conditional write of unknown outcome.
pub(crate) fn cas_unknown(from: u64, expected: Option<u64>, new: Option<u64>) -> Operation {
    operation(from, None, Op::Cas { expected, new, w: 2, expires_at: None }, Outcome::Unknown)
}

/// A conditional write that did not apply.
pub(crate) fn mismatch(from: u64, to: u64, expected: Option<u64>, seen: Seen) -> Operation {
    let op = Op::Cas { expected, new: Some(u64::MAX), w: 2, expires_at: None };
    operation(from, Some(to), op, Outcome::Mismatch { seen })
}

/// The same operation at another level.
pub(crate) fn at_level(mut operation: Operation, level: u32) -> Operation {
    match &mut operation.op {
        Op::Put { w, .. } | Op::Delete { w, .. } | Op::Cas { w, .. } => *w = level,
        Op::Get { r } => *r = level,
    }
    operation
}

pub(crate) fn history(operations: impl IntoIterator<Item = Operation>) -> History {
    History { operations: operations.into_iter().collect() }
}

/// A replica that answers for "k", asked at 10,000.
pub(crate) fn dump(replica: &str, answer: Answer) -> Dump {
    Dump {
        replica: replica.to_owned(),
        asked_at: 10_000,
        answered_at: 10_000,
        answers: BTreeMap::from([("k".to_owned(), answer)]),
        uncovered: 0,
    }
}

pub(crate) fn holds(value: u64, version: u64) -> Answer {
    Answer::Found { value, version: v(version) }
}

pub(crate) fn gone(version: Option<u64>) -> Answer {
    Answer::Absent { version: version.map(v) }
}
