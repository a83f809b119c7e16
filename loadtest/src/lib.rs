//! Load and measurement: what stands behind `tako bench`.
//!
//! Owns the load generator, its verifier and its report. Calls: a node or proxy over loopback or
//! the network, as any client would. Called by: `cmd/tako`. Nothing a server needs is here.

pub mod bench;
