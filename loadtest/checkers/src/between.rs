//! Nothing lies between: a conditional write that was made saw all that lies below it. No write that
//! was acknowledged by a majority has a version above what it expected and below its own.
//!
//! Unlike [`crate::linearizable`] it holds beside plain writes, which may be ordered by their versions
//! rather than by their times. Where a change expected nothing, what was there has no version: then no
//! value may be the last thing that was acknowledged below it, unless it may have expired, or a delete
//! of unknown outcome have removed it.

use std::collections::BTreeMap;

use crate::{History, Kind, Op, Operation, Options, Outcome, Verdict, Version, Violation};

/// Considered: conditional writes that applied, beside a write of another client.
pub fn nothing_lies_between(history: &History, _: &Options) -> Verdict {
    let mut verdict = Verdict::default();
    let mut keys: BTreeMap<&str, Vec<(usize, &Operation)>> = BTreeMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        if operation.malformed().is_none() {
            keys.entry(&operation.key).or_default().push((index, operation));
        }
    }
    for (key, operations) in keys {
        let written: Vec<Written> = operations.iter().filter_map(|it| Written::of(*it)).collect();
        let versions = versions(&operations);
        for change in &operations {
            let (index, Operation { op: Op::Cas { expected, .. }, outcome, .. }) = *change else {
                continue;
            };
            let Outcome::Applied { version } = *outcome else { continue };
            let below = written.iter().filter(|it| it.index != index && it.version < version);
            let missed = match expected {
                Some(expected) => {
                    // Who expects a value was told it, so its version is known, or the history is cut.
                    let Some(base) = versions.get(expected).copied() else { continue };
                    verdict.considered += 1;
                    below.filter(|it| base < it.version).max_by_key(|it| it.version)
                }
                None => {
                    verdict.considered += 1;
                    let last = below.max_by_key(|it| it.version);
                    last.filter(|it| it.stays && !may_be_deleted(&operations, change.1))
                }
            };
            if let Some(missed) = missed {
                verdict.add(|| {
                    let seen = expected.map_or("nothing".to_owned(), |it| format!("value {it}"));
                    let text = format!(
                        "a change at {version} saw {seen}, and missed {}, which was acknowledged",
                        missed.version
                    );
                    let involved = [missed.index, index];
                    Violation::new(Kind::Missed, key, text, history, &involved)
                });
            }
        }
    }
    verdict
}

/// A write that a majority acknowledged.
struct Written {
    index: usize,
    version: Version,
    /// It is a value without an end.
    stays: bool,
}

impl Written {
    fn of((index, operation): (usize, &Operation)) -> Option<Self> {
        let (w, stays) = match operation.op {
            Op::Put { w, expires_at, .. } => (w, expires_at.is_none()),
            Op::Cas { w, new, expires_at, .. } => (w, new.is_some() && expires_at.is_none()),
            Op::Delete { w, .. } => (w, false),
            Op::Get { .. } => return None,
        };
        let (Outcome::Acked { version } | Outcome::Applied { version }) = operation.outcome else {
            return None;
        };
        (operation.n < 2 * w).then_some(Self { index, version, stays })
    }
}

/// The version of each value, as far as anybody was told.
fn versions(operations: &[(usize, &Operation)]) -> BTreeMap<u64, Version> {
    operations
        .iter()
        .filter_map(|(_, operation)| match (&operation.op, &operation.outcome) {
            (Op::Get { .. }, Outcome::Found { value, version }) => Some((*value, *version)),
            (
                Op::Put { value, .. } | Op::Cas { new: Some(value), .. },
                Outcome::Acked { version } | Outcome::Applied { version },
            ) => Some((*value, *version)),
            _ => None,
        })
        .collect()
}

/// Whether a delete that nobody knows of, or one at a lower level, can have come before the change; or a
/// value with an end that nobody knows of.
fn may_be_deleted(operations: &[(usize, &Operation)], change: &Operation) -> bool {
    operations.iter().any(|(_, operation)| {
        let removes = match operation.op {
            Op::Delete { .. } | Op::Cas { new: None, .. } => true,
            Op::Put { expires_at, .. } | Op::Cas { expires_at, .. } => expires_at.is_some(),
            Op::Get { .. } => false,
        };
        let began_before =
            change.returned_at.is_none_or(|returned_at| operation.invoked_at <= returned_at);
        let is_unsure = match operation.outcome {
            Outcome::Unknown | Outcome::Superseded { .. } => true,
            Outcome::Acked { .. } | Outcome::Applied { .. } => {
                Written::of((0, operation)).is_none()
            }
            _ => false,
        };
        removes && began_before && is_unsure
    })
}
