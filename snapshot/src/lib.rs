//! Snapshots: a partition's state in the object store, and the object store itself.
//!
//! ```text
//! step:  rows + due rows + meta -> one batch -> SST + manifest (checkpoint) -> announce
//! read:  key -> filters and indexes (meta cache) -> one block (block cache) -> store
//! ```
//!
//! Calls: tako-types, SlateDB, foyer, object_store. Called by: the node's snapshotter and vote,
//! the coordinator (configuration documents). It does not know records: the merge of two encoded
//! records comes in as a [`MergeFn`]. Object layout and rows: docs/formats/snapshot.md.

pub mod backup;
mod cache;
mod clock;
mod error;
pub mod fuzz;
mod grace;
mod hold;
mod maintain;
mod merge;
mod meta;
mod orphans;
mod reader;
mod rows;
mod scrub;
mod settings;
mod snapshots;
pub mod store;
mod upkeep;
mod writer;

pub use error::SnapshotError;
pub use merge::MergeFn;
pub use meta::{Coverage, Meta};
pub use orphans::{Orphan, OrphanKind};
pub use reader::{ListPage, PartitionReader, ScanPage};
pub use rows::{DueRow, ListRange};
pub use scrub::{PartitionScan, ScannedPage, Unreadable};
pub use snapshots::{Checkpoint, SnapshotOptions, Snapshots};
pub use store::{Counts, Published, Store, StoreError, StoreSettings, counting, fault};
pub use upkeep::Upkeep;
pub use writer::{Committed, Maintained, PartitionWriter, StepInput, StepRow};

#[cfg(test)]
mod tests;
