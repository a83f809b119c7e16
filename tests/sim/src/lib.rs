//! A whole cluster in one process under simulated time, network, disks and store.
//!
//! ```text
//! seed ─► plan (faults at times) ─► world (nodes, proxies, coordinators) ◄─ clients ─► history
//!                                     │ network, disks, store, clocks               │
//!                                     ▼                                            ▼
//!                               counts of faults                              checkers
//! ```
//! The production code runs; what it gets from outside is simulated here. One thread, tokio's
//! paused time, every chance from the seed: a seed replays exactly.

pub mod archive;
pub mod chance;
pub mod client;
pub mod clock;
pub mod command;
pub mod contract;
pub mod coordinators;
pub mod counts;
pub mod disk;
pub mod door;
pub mod drawn;
pub mod dump;
pub mod entropy;
pub mod epochs;
pub mod http;
pub mod layout;
pub mod lines;
pub mod load;
pub mod network;
pub mod notes;
pub mod operator;
pub mod plan;
pub mod run;
pub mod scenario;
pub mod settings;
pub mod store;
pub mod world;
