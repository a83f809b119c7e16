//! What goes into the journal and what comes out: entries, their place, and who receives them.
//!
//! Invariant: a [`Location`] is unique for ever, as file numbers are never reused.

use bytes::Bytes;
use tako_types::{Lsn, PartitionId};

/// What an entry is; numbers of later versions are carried through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A record (0).
    Record,
    /// The node left the partition; entries below never count again (1).
    Drop,
    /// A peer's incarnation (2).
    Known,
    /// A number this version does not know; never 0 to 2.
    Other(u8),
}

impl EntryKind {
    /// Reads a kind from its number.
    #[must_use]
    pub fn from_wire(number: u8) -> Self {
        match number {
            0 => Self::Record,
            1 => Self::Drop,
            2 => Self::Known,
            other => Self::Other(other),
        }
    }

    /// The number on disk.
    #[must_use]
    pub fn to_wire(self) -> u8 {
        match self {
            Self::Record => 0,
            Self::Drop => 1,
            Self::Known => 2,
            Self::Other(other) => other,
        }
    }
}

/// One thing to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub partition: PartitionId,
    /// What it is.
    pub kind: EntryKind,
    /// Opaque bytes.
    pub payload: Bytes,
}

/// Where an entry's payload lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// Number of the file.
    pub file: u64,
    /// Offset of the payload's first byte.
    pub offset: u64,
    /// Length of the payload.
    pub bytes: u32,
}

/// An entry that will be there after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durable {
    /// Its number; one above the one before (except after damage).
    pub lsn: Lsn,
    /// The entry as appended; a replayed payload is a buffer of its own.
    pub entry: Entry,
    /// Where [`crate::Journal::read`] finds it.
    pub location: Location,
}

/// Receives what is durable: the index.
pub trait Sink: Send + Sync {
    /// Called in LSN order from one thread, after the group is durable and before any of its
    /// appenders is answered; also during replay, on the thread that opens.
    ///
    /// Implementer must: not block on the journal, not panic.
    fn on_durable(&self, batch: &[Durable]);
}
