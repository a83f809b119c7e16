//! SlateDB's merge operator, built on the merge of two encoded records; of listing rows the greater
//! bytes stay.
//!
//! Invariant: the function is total, commutative, associative and idempotent (DESIGN section 4),
//! so neither the order nor the grouping of operands matters. It does not look into records.

use bytes::Bytes;
use slatedb::{MergeOperator, MergeOperatorError};

use crate::rows::LISTING;

/// Merges two encoded records of one key into the one that wins; never fails.
pub type MergeFn = fn(Bytes, Bytes) -> Bytes;

/// [`MergeFn`] in the shape SlateDB asks for.
pub(crate) struct RecordMerge(pub(crate) MergeFn);

impl MergeOperator for RecordMerge {
    fn merge(
        &self,
        key: &Bytes,
        existing_value: Option<Bytes>,
        value: Bytes,
    ) -> Result<Bytes, MergeOperatorError> {
        Ok(match existing_value {
            Some(existing) if key.first() == Some(&LISTING) => existing.max(value),
            Some(existing) => (self.0)(existing, value),
            None => value,
        })
    }
}
