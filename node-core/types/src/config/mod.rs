//! The configuration: one document that says which nodes there are and what lies where.
//!
//! Flow: text → `yaml` (values with lines) → `read` (grammar) → `validate` (references) →
//! [`Config`] → `canonical` (the bytes that are hashed) → [`Published`] (with the epoch and the
//! table of partitions), which is what nodes and proxies look things up in.
//! Calls: nothing of ours. Called by: the ring, the coordinator, every node, proxy and command.
//! No files, no network, no clock.

mod canonical;
mod change;
mod error;
mod fields;
mod migration;
mod model;
mod published;
mod quorum;
mod read;
mod scalar;
mod validate;
mod warn;
mod yaml;

pub use change::{check_change, check_startable};
pub use error::ConfigError;
pub use migration::{Migration, Phase, Placement, ReplicaSet};
pub use model::{
    Address, BackupRule, Bucket, CacheSettings, ClusterSettings, Config, Consistency, Deployment,
    Durability, JournalSettings, NodeConfig, Secret, SnapshotSettings, StoreSettings,
};
pub(crate) use published::rehashed;
pub use published::{Published, PublishedError, Table};
pub use quorum::{Quorum, QuorumError};
pub use scalar::{format_duration, format_size, parse_duration, parse_size};

#[cfg(test)]
mod tests;
