//! Frames over a byte stream: reading them whole, writing them together.
//!
//! Calls: `frame`. Called by: client and server, which own deadlines and what frames mean.

mod outbox;
mod reader;
#[cfg(test)]
mod tests;

pub(crate) use outbox::{Outbox, Outgoing, PushError, write_frames};
pub(crate) use reader::{FrameReader, ReadEnd, Received};
