//! Messages between nodes as plain enums, and their codecs, one file per family.
//!
//! ```text
//! Request, Response ──> encode_* ──> Frame (head + attachments) ──> decode_* ──> Request, Response
//! ```
//! Records travel as attachments: they are FlatBuffers already, and are neither copied into a head
//! nor out of one. Calls: `frame`, the generated code, `record`. Called by: client and server.

mod call;
mod conditional;
mod gossip;
mod hello;
mod list;
mod listing;
mod read;
mod scrub;
mod standing;
mod step;
mod tail;
#[cfg(test)]
mod tests;
mod types;
mod write;

pub(crate) use call::{Answer, decode_request, decode_response, encode_request, encode_response};
pub use scrub::TEXT_BYTES_MAX as SCRUB_TEXT_BYTES_MAX;
pub use types::{
    AuditAnswer, CallHead, ChangeOutcome, Condition, Edit, GossipState, JournalScrub, Listing,
    ListingQuery, Misfit, NodeState, OrphanOrder, OrphanReport, PartitionGossip, PartitionScrub,
    PartitionStanding, PrepareOutcome, PutOutcome, Request, Response, ScrubOrder, ScrubReport,
    Standing, StatAnswer, StepAnnouncement, TailEntry,
};
