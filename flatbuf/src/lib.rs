//! The only place where wire and record bytes are interpreted: schemas, codecs, frames, RPC.
//!
//! ```text
//! record     the record and its merge
//! siblings   what the values of `/store` hold
//! message    requests and answers <──> frames
//! network    byte streams: TCP, or memory with faults
//! client     Peer: calls to one remote node      server    serve: calls from all others
//! peek       who calls, for a program between two processes
//! ```
//! Calls: tako-types. Called by: journal, snapshot, node-core, cmd. Does not know what a request
//! means, which node to ask, or when to ask again.

mod client;
mod error;
#[cfg(test)]
mod fixture;
mod frame;
pub mod fuzz;
mod generated;
#[cfg(test)]
mod golden;
mod message;
mod metrics;
mod network;
mod peek;
mod record;
mod server;
mod siblings;
mod stream;

pub use client::{Peer, PeerOptions, Peers, Remote};
pub use error::{RecordError, RpcError, WireError};
pub use message::{
    AuditAnswer, CallHead, ChangeOutcome, Condition, Edit, GossipState, JournalScrub, Listing,
    ListingQuery, Misfit, NodeState, OrphanOrder, OrphanReport, PartitionGossip, PartitionScrub,
    PartitionStanding, PrepareOutcome, PutOutcome, Request, Response, SCRUB_TEXT_BYTES_MAX,
    ScrubOrder, ScrubReport, Standing, StatAnswer, StepAnnouncement, TailEntry,
};
pub use metrics::RpcMetrics;
pub use network::{
    BoxStream, Certificates, Listener, MemoryNetwork, Network, Stream, TcpNetwork, TlsError,
    TlsListener, TlsNetwork,
};
pub use peek::read_hello;
pub use record::{Record, RecordHead, merge, merge_encoded};
pub use server::{Caller, ServeOptions, Service, serve};
pub use siblings::{Seen, Sibling, Siblings, StoreOrder};

/// Number of this build's protocol, said in Hello; grows when appending to schemas is not enough.
pub const PROTOCOL: u32 = 1;
