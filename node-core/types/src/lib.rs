//! The words of Tako as types: what every other crate speaks in.
//!
//! Owns ids, keys, versions, the clock, limits, the shared error kinds and the configuration.
//! Calls: nothing of ours. Called by: every crate. No I/O, no async; time comes in as [`Clock`].

mod clock;
pub mod config;
mod error;
pub mod fuzz;
mod id;
mod key;
pub mod limits;
mod stat;
mod version;

pub use clock::{Clock, Drift, HybridClock, SystemClock};
pub use error::ErrorKind;
pub use id::{ClusterId, Epoch, Incarnation, Lsn, NodeId, PartitionId, StepNumber};
pub use key::{Key, KeyError, NAMESPACE_STORE, NAMESPACE_VALUES, StoredKey};
pub use stat::RecordStat;
pub use version::{Kind, Version, merge_order};
