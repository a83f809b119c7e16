//! Errors of this crate, each with what the caller does about it.
//!
//! [`RecordError`]: bytes that are not a record. [`WireError`]: bytes that are not a frame.
//! [`RpcError`]: what a call ends with; the only one that crosses the wire.

use tako_types::{
    ErrorKind,
    limits::{CONTENT_TYPE_BYTES_MAX, RECORD_BYTES_MAX},
};

/// Why bytes are not an intact record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Longer than any record may be.
    #[error("the record has {bytes} bytes, the limit is {RECORD_BYTES_MAX}")]
    TooLong {
        /// Length of what was given.
        bytes: usize,
    },
    /// The FlatBuffers verifier refused it.
    #[error("the record is not a flatbuffer: {reason}")]
    Malformed {
        /// What the verifier said.
        reason: String,
    },
    /// The key in it is no stored key.
    #[error("the record's key of {bytes} bytes is no stored key")]
    Key {
        /// Length of the key field.
        bytes: usize,
    },
    /// A kind this build does not know.
    #[error("the record has the unknown kind {found}")]
    Kind {
        /// The kind's byte.
        found: u8,
    },
    /// The content type is longer than allowed.
    #[error("the content type has {bytes} bytes, the limit is {CONTENT_TYPE_BYTES_MAX}")]
    ContentType {
        /// Length of the content type.
        bytes: usize,
    },
    /// The checksum does not match the fields.
    #[error("the record's checksum is {found:08x}, its fields give {expected:08x}")]
    Checksum {
        /// Of the fields as they are.
        expected: u32,
        /// As stored.
        found: u32,
    },
}

impl RecordError {
    /// Always [`ErrorKind::Corrupt`]: use another copy and repair this one.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Corrupt
    }
}

/// Why bytes are not a frame, or a message cannot become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The frame, its head or a list in it is longer than allowed.
    #[error("{what} has {found}, the limit is {limit}")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its length, in bytes or entries.
        found: usize,
        /// The limit, in the same unit.
        limit: usize,
    },
    /// The lengths of frame, head and attachments do not add up.
    #[error("the lengths of a frame do not add up: {what}")]
    Lengths {
        /// Which of them.
        what: &'static str,
    },
    /// The FlatBuffers verifier refused the head.
    #[error("the head is not a flatbuffer: {reason}")]
    Malformed {
        /// What the verifier said.
        reason: String,
    },
    /// A field holds what it must not.
    #[error("the field {field} is out of range")]
    Field {
        /// The field's name in the schema.
        field: &'static str,
    },
    /// The head's body is absent, of an unknown type, or of the wrong direction.
    #[error("the body of type {found} was not expected here")]
    Body {
        /// The union's type number.
        found: u8,
    },
    /// An attached record is damaged.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl WireError {
    /// [`ErrorKind::Corrupt`] for a damaged record, [`ErrorKind::Invalid`] for everything else.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Record(error) => error.kind(),
            _ => ErrorKind::Invalid,
        }
    }
}

/// How a call failed: at the peer, or on the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// What the caller does about it.
    pub kind: ErrorKind,
    /// For logs; cut to 1,024 bytes on the wire.
    pub message: String,
    /// The epoch number for `StaleEpoch`, the milliseconds to wait for `Busy`,
    /// [`RpcError::NOTHING_DONE`] for an `Unavailable` or `Deadline` from before anything was done,
    /// else 0.
    pub detail: u64,
}

impl RpcError {
    /// An error without detail.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), detail: 0 }
    }

    /// `detail` of an `Unavailable` or `Deadline`: the call was not sent, or the callee began nothing.
    pub const NOTHING_DONE: u64 = 1;

    /// Nothing was sent or begun, and another peer may do it.
    #[must_use]
    pub fn nothing_done(message: impl Into<String>) -> Self {
        let detail = Self::NOTHING_DONE;
        Self { kind: ErrorKind::Unavailable, message: message.into(), detail }
    }

    /// The callee knows epoch `number`, which is not the caller's.
    #[must_use]
    pub fn stale_epoch(number: u64) -> Self {
        let message = format!("the configuration here is epoch {number}");
        Self { kind: ErrorKind::StaleEpoch, message, detail: number }
    }

    /// Too much work at once; try again after `wait_ms` milliseconds.
    #[must_use]
    pub fn busy(message: impl Into<String>, wait_ms: u64) -> Self {
        Self { kind: ErrorKind::Busy, message: message.into(), detail: wait_ms }
    }

    /// The peer cannot be reached, or the connection broke; outcome unknown.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// The deadline passed; outcome unknown.
    #[must_use]
    pub fn deadline() -> Self {
        Self::new(ErrorKind::Deadline, "the call's deadline passed")
    }

    /// Whether who answered so did nothing, and will not: another peer may be asked instead.
    #[must_use]
    pub fn did_nothing(&self) -> bool {
        match self.kind {
            ErrorKind::Unavailable | ErrorKind::Deadline => self.detail == Self::NOTHING_DONE,
            kind => kind == ErrorKind::StaleEpoch,
        }
    }

    /// What the caller does about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<WireError> for RpcError {
    fn from(error: WireError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

impl From<RecordError> for RpcError {
    fn from(error: RecordError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
