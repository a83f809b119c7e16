//! The record: made once, and then the same bytes on the wire, in the journal, in the cache and in
//! the snapshot.
//!
//! ```text
//! encode ──> Record ──> bytes() ──> wire, journal, cache, snapshot ──> decode ──> Record
//!                         merge: which of two records of one key stays
//! ```
//! Calls: the generated code. Called by: every part that touches values.

mod checksum;
mod codec;
mod merge;
#[cfg(test)]
mod tests;

pub use codec::{Record, RecordHead};
pub use merge::{merge, merge_encoded};
