//! Which of two records of one key stays.
//!
//! Invariant: commutative, associative and idempotent, also where one side is damaged; never an
//! error. Does not look at the keys: callers merge what lies under one key.

use std::cmp::Ordering;

use bytes::Bytes;
use tako_types::merge_order;

use super::Record;

/// The greater of two records by [`merge_order`].
#[must_use]
pub fn merge(a: Record, b: Record) -> Record {
    if order(&a, &b) == Ordering::Less { b } else { a }
}

/// The greater of two encoded records.
///
/// A side that is no intact record loses to one that is; of two such sides the greater bytes stay,
/// so that the answer is the same in any order.
#[must_use]
pub fn merge_encoded(a: Bytes, b: Bytes) -> Bytes {
    if a == b {
        return a;
    }
    let b_stays = match (Record::decode(a.clone()), Record::decode(b.clone())) {
        (Ok(left), Ok(right)) => order(&left, &right) == Ordering::Less,
        (Ok(_), Err(_)) => false,
        (Err(_), Ok(_)) => true,
        (Err(_), Err(_)) => a < b,
    };
    if b_stays { b } else { a }
}

fn order(a: &Record, b: &Record) -> Ordering {
    merge_order((a.version(), a.kind(), a.bytes()), (b.version(), b.kind(), b.bytes()))
}
