//! Conditional operations are linearizable: per key, some order of the operations, each within
//! its interval, gives every answer.
//!
//! Method: Wing and Gong's search in Lowe's just-in-time form. Events are swept in time order with
//! a set of configurations: what the register holds, and which running operations have taken
//! effect. At each return every configuration is carried on, by running operations, until the
//! returning one has taken effect; those that cannot are dropped; when none is left, there is no
//! order. What keeps the set small: equal configurations are one; reads that fit take effect at
//! once (they change nothing); a write whose value nobody sees any more takes effect just before
//! another; of configurations that differ only in the unknown writes spent, those that spent fewer
//! stay. A write of unknown outcome runs for ever and need never take effect.
//!
//! Not considered: reads with 2r ≤ n, which promise no order; reads without an answer.

mod search;

use std::collections::BTreeMap;

use crate::{History, Kind, Op, Operation, Options, Outcome, Seen, Verdict, Violation};
use search::{Effect, Found, Item, Search};

/// Considered: operations of the keys that were searched. Keys without conditional operations, or
/// with plain writes, are left out unless [`Options::linearize_plain_writes`].
pub fn linearizable(history: &History, options: &Options) -> Verdict {
    let mut verdict = Verdict::default();
    let mut keys: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        if operation.malformed().is_none() {
            keys.entry(&operation.key).or_default().push(index);
        }
    }
    for (key, indices) in keys {
        let operations = || indices.iter().map(|&index| (index, &history.operations[index]));
        let is_conditional =
            operations().any(|(_, operation)| matches!(operation.op, Op::Cas { .. }));
        let has_plain = operations().any(|(_, operation)| {
            matches!(operation.op, Op::Put { .. } | Op::Delete { .. })
                && operation.outcome != Outcome::Refused
        });
        if !options.linearize_plain_writes && (has_plain || !is_conditional) {
            verdict.skipped += usize::from(is_conditional);
            continue;
        }
        let items: Vec<Item> =
            operations().filter_map(|(index, operation)| item(index, operation)).collect();
        let expiries = operations().filter_map(|(_, operation)| match operation.op {
            Op::Put { value, expires_at: Some(at), .. }
            | Op::Cas { new: Some(value), expires_at: Some(at), .. } => {
                Some((value, at.saturating_sub(options.clock_slack_micros)))
            }
            _ => None,
        });
        verdict.considered += items.len();
        match Search::new(items, expiries.collect(), options.states_max).run() {
            Found::Order => {}
            Found::TooManyStates => verdict.undecided.push(key.to_owned()),
            Found::NoOrder { stuck, around } => verdict.add(|| {
                let text = format!(
                    "no order of the operations explains #{stuck} (it is shown with those that \
                     ran beside it and those just before)"
                );
                Violation::new(Kind::NotLinearizable, key, text, history, &around)
            }),
        }
    }
    verdict
}

/// What an operation does to, or sees of, the register. None: nothing.
fn item(index: usize, operation: &Operation) -> Option<Item> {
    let effect = match (&operation.op, &operation.outcome) {
        (_, Outcome::Refused | Outcome::Unavailable) => return None,
        (Op::Put { value, .. }, _) => Effect::Write(Some(*value)),
        (Op::Delete { .. }, _) => Effect::Write(None),
        (Op::Get { r }, _) if u64::from(*r) * 2 <= u64::from(operation.n) => return None,
        (Op::Get { .. }, Outcome::Found { value, .. }) => Effect::Read(Some(*value)),
        (Op::Get { .. }, _) => Effect::Read(None),
        (Op::Cas { expected, .. }, Outcome::Mismatch { seen }) => match seen {
            Seen::Untold => Effect::Differs(*expected),
            Seen::Absent => Effect::Mismatch { expected: *expected, seen: None },
            Seen::Value(value) => Effect::Mismatch { expected: *expected, seen: Some(*value) },
        },
        (Op::Cas { expected, new, .. }, _) => Effect::Swap { expected: *expected, new: *new },
    };
    // A superseded write has lost to one that may be of unknown outcome itself: it may have been
    // in force for a while or never.
    let ends = !matches!(operation.outcome, Outcome::Unknown | Outcome::Superseded { .. });
    Some(Item {
        index,
        called_at: operation.invoked_at,
        returned_at: operation.returned_at.filter(|_| ends),
        effect,
    })
}
