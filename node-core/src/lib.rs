//! The node: its store, its peers, and the requests it serves.
//!
//! In reading order: [`engine`] (one node's store) · [`replica`] (what it answers by RPC) ·
//! [`links`] (how a process reaches replicas) · [`replication`] (a client's request over the
//! replicas) · [`membership`] (who is there) · [`snapshotter`] (steps) · [`recovery`] ·
//! [`healing`] (what lies still is read again) · [`configuration`] · [`node`] and [`proxy`] (assembly) ·
//! [`client`] (a proxy within its user).
//! Calls: tako-journal, tako-ring, tako-snapshot, tako-flatbuf. Called by: cmd.

pub mod client;
pub mod configuration;
pub mod engine;
pub mod healing;
pub mod identity;
pub mod links;
pub mod membership;
pub mod node;
pub mod proxy;
pub mod recovery;
pub mod replica;
pub mod replication;
pub mod snapshotter;
