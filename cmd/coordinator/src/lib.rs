//! The coordinator: publishes the configuration, and is on no request's path.
//!
//! Flow: file → [`tako_types::config::Config::parse`] → `decide` (may it follow the one in force,
//! under which number) → `tako_ring::publish` → [`ConfigStore`] (create-only), disk → `GET
//! /configuration`. A document that is refused changes nothing: the one in force stays, the reason
//! is logged and shown in `GET /status`. `PUT /configuration` puts another file in the place of the one
//! on the disk, if that may follow. A file that names another deployment is an order, which
//! `migration` carries out in several documents, asking the nodes over RPC. What another coordinator
//! published takes the place of the file until that changes (`mandate`). Backups that the document
//! asks for are made through a [`BackupStore`].
//! Network, disk, store and the place of blocking work come in by [`CoordinatorOptions`].
//! Calls: types, ring, journal (disks), flatbuf (networks), node-core (kept documents). Called by:
//! `cmd/tako`, `tests/sim`. Commands ask nodes by [`Nodes`] before they order.

mod backups;
mod coordinator;
mod decide;
mod error;
mod files;
mod http;
mod mandate;
mod metrics;
mod migration;
mod ordered;
mod publish;
mod publisher;
mod server;
mod store;

pub use backups::{BackupStore, RECORDS, Schedule, ScheduledBackups, step_all};
pub use coordinator::{Coordinator, CoordinatorOptions, InForce};
pub use error::CoordinatorError;
pub use migration::standings::{FOREIGN, Nodes, Standings, cluster_of, is_foreign};
pub use store::{ConfigStore, Created, StoreError};
