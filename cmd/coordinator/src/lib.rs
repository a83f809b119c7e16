//! The coordinator: publishes the configuration, and is on no request's path.
//!
//! Flow: file → [`tako_types::config::Config::parse`] → `decide` (may it follow the one in force,
//! under which number) → `tako_ring::publish` → [`ConfigStore`] (create-only), disk → `GET
//! /configuration`. A document that is refused changes nothing: the one in force stays, the reason
//! is logged and shown in `GET /status`.
//! Calls: types, ring. Called by: `cmd/tako`.

mod coordinator;
mod decide;
mod disk;
mod error;
mod http;
mod store;

pub use coordinator::{Coordinator, CoordinatorOptions, run};
pub use error::CoordinatorError;
pub use store::{ConfigStore, Created, StoreError};
