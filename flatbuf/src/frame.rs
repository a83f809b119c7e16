//! Frames: `[u32 LE body length][u32 LE head length][head][attachments]`.
//!
//! The body length counts head and attachments. Invariant: both lengths are checked against the
//! limits before anything is allocated. A received frame's body is one piece of memory and its
//! attachments are slices of it.

use bytes::Bytes;
use tako_types::limits::{FRAME_BYTES_MAX, FRAME_HEAD_BYTES_MAX};

use crate::error::WireError;

/// Bytes of the two lengths.
pub(crate) const PREFIX_BYTES: usize = 8;

/// A frame, to be sent or as received.
///
/// One that was received has its attachments uncut in a single piece.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) head: Bytes,
    pub(crate) attachments: Vec<Bytes>,
}

/// The two lengths of a frame, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) body_bytes: usize,
    pub(crate) head_bytes: usize,
}

impl Prefix {
    /// Reads and checks the lengths.
    pub(crate) fn read(bytes: [u8; PREFIX_BYTES]) -> Result<Self, WireError> {
        let [a, b, c, d, e, f, g, h] = bytes;
        let body_bytes = u32::from_le_bytes([a, b, c, d]) as usize;
        let head_bytes = u32::from_le_bytes([e, f, g, h]) as usize;
        let prefix = Self { body_bytes, head_bytes };
        prefix.check()?;
        Ok(prefix)
    }

    fn check(self) -> Result<(), WireError> {
        let (found, limit) = (self.body_bytes, FRAME_BYTES_MAX);
        if limit < found {
            return Err(WireError::TooLong { what: "a frame", found, limit });
        }
        let (found, limit) = (self.head_bytes, FRAME_HEAD_BYTES_MAX);
        if limit < found {
            return Err(WireError::TooLong { what: "the head of a frame", found, limit });
        }
        if self.body_bytes < self.head_bytes || self.head_bytes == 0 {
            return Err(WireError::Lengths { what: "head" });
        }
        Ok(())
    }

    fn write(self) -> [u8; PREFIX_BYTES] {
        // Both were checked against limits far below u32::MAX.
        let ([a, b, c, d], [e, f, g, h]) =
            ((self.body_bytes as u32).to_le_bytes(), (self.head_bytes as u32).to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }
}

impl Frame {
    /// Takes a received body whose length is `prefix.body_bytes`.
    pub(crate) fn received(prefix: Prefix, mut body: Bytes) -> Self {
        let head = body.split_to(prefix.head_bytes.min(body.len()));
        Self { head, attachments: if body.is_empty() { Vec::new() } else { vec![body] } }
    }

    /// The lengths.
    pub(crate) fn prefix(&self) -> Prefix {
        let attached: usize = self.attachments.iter().map(Bytes::len).sum();
        Prefix { body_bytes: self.head.len() + attached, head_bytes: self.head.len() }
    }

    /// The prefix as it is sent.
    pub(crate) fn prefix_bytes(&self) -> [u8; PREFIX_BYTES] {
        self.prefix().write()
    }

    /// Bytes of the whole frame on the wire.
    pub(crate) fn wire_bytes(&self) -> usize {
        PREFIX_BYTES + self.prefix().body_bytes
    }

    /// Whether a frame about to be sent would be taken by the other side.
    pub(crate) fn check_lengths(&self) -> Result<(), WireError> {
        self.prefix().check()
    }

    /// The attachments of a received frame, by their lengths in the head.
    pub(crate) fn cut(
        &self,
        lengths: impl ExactSizeIterator<Item = u32>,
    ) -> Result<Vec<Bytes>, WireError> {
        let mut rest = self.attachments.first().cloned().unwrap_or_default();
        let mut pieces = Vec::with_capacity(lengths.len());
        for length in lengths {
            let length = length as usize;
            if rest.len() < length {
                return Err(WireError::Lengths { what: "attachments" });
            }
            pieces.push(rest.split_to(length));
        }
        if rest.is_empty() {
            Ok(pieces)
        } else {
            Err(WireError::Lengths { what: "bytes after the attachments" })
        }
    }
}

/// Reads one frame out of `bytes`, which must be exactly one.
pub(crate) fn parse(bytes: &Bytes) -> Result<Frame, WireError> {
    let prefix = bytes
        .first_chunk::<PREFIX_BYTES>()
        .ok_or(WireError::Lengths { what: "prefix" })
        .and_then(|prefix| Prefix::read(*prefix))?;
    let body = bytes.slice(PREFIX_BYTES..);
    if body.len() != prefix.body_bytes {
        return Err(WireError::Lengths { what: "body" });
    }
    Ok(Frame::received(prefix, body))
}
