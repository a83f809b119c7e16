//! Independent checkers of what clients saw.
//!
//! Input: a [`History`] (what clients asked and were told, with times) and [`Dump`]s (what one
//! replica, or a cluster rebuilt from the store, answers for every key at the end). Output:
//! [`Violation`]s that print the few operations that contradict a promise of Tako.
//!
//! Invariant: a checker never blames a history that a correct cluster could have made; where an
//! outcome is unknown, every outcome is granted. Nothing of Tako's own code is used, so that a
//! mistake there cannot hide itself here. No clock, no async, no I/O but [`History::read`] and
//! [`History::write`].
//!
//! Outside the guarantee, so do not record it: a client's own timestamp below a tombstone that has
//! been collected (`tombstone_grace`); values of keys that were written before the history began.
//!
//! ```text
//! history, dumps ─► keys (one view per key) ─► fresh, monotonic, rise, gone, kept, agree
//!                                           └► linear, between
//!                                              report ◄─ check_all
//! ```

mod agree;
mod between;
mod dump;
mod floors;
mod fresh;
pub mod fuzz;
mod gone;
mod history;
mod kept;
mod keys;
mod linear;
mod monotonic;
mod operation;
mod report;
mod rise;
mod violation;

pub use agree::replicas_agree;
pub use between::nothing_lies_between;
pub use dump::{Answer, Dump};
pub use fresh::reads_are_fresh;
pub use gone::nothing_returns;
pub use history::{History, HistoryError};
pub use kept::{nothing_is_lost, rebuilt_from_store};
pub use linear::linearizable;
pub use monotonic::reads_are_monotonic;
pub use operation::{Op, Operation, Outcome, Seen, Version};
pub use report::{Check, Options, Report, check_all};
pub use rise::acks_rise;
pub use violation::{Kind, Verdict, Violation};
