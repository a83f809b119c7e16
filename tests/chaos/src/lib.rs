//! Clusters of real processes under real faults, and the checkers' word on what clients saw.
//!
//! ```text
//! sandbox (namespaces) or lanes (forwarders) ─► cluster (processes, store) ◄─ nemesis (plan of a seed)
//!                                             ▲
//! clients over HTTP ──► notes (history) ──────┤
//! replicas over RPC ──► dumps ────────────────┴─► run: quiet, rebuild, check_all
//! ```
//! Calls: tako-checkers for verdicts, tako-flatbuf to ask one replica. Knows nothing of how Tako
//! works inside. Invariant: whatever was started, mounted or cut here ends with this program.

pub mod chance;
pub mod client;
pub mod cluster;
pub mod command;
pub mod fault;
pub mod hang;
pub mod http;
pub mod lanes;
pub mod nemesis;
pub mod notes;
pub mod old_disk;
pub mod process;
pub mod replicas;
pub mod run;
pub mod sandbox;
pub mod store;
mod waits;

#[path = "../../../snapshot/tests/s3_server/mod.rs"]
pub mod s3_server;
