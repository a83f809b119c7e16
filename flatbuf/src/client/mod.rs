//! Calls to other nodes.
//!
//! ```text
//! Peers ──> Peer (one per address) ──> lane (small, bulk) ──> Connection ──> frames
//! ```
//! Calls: `network`, `stream`, `message`. Called by: node-core, gateway, coordinator. Does not
//! repeat a call that may have reached the peer.

mod connection;
mod lane;
mod peer;
mod peers;
#[cfg(test)]
mod tests;

pub use connection::Remote;
pub use peer::{Peer, PeerOptions};
pub use peers::Peers;
