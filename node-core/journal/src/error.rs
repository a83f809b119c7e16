//! Why the journal or the identity file refused.

use std::{io, path::PathBuf, sync::Arc};

use tako_types::ErrorKind;

/// Why the journal refused; [`Self::kind`] says what the caller does next.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Too many bytes wait to be committed.
    #[error("the journal queue holds {queued_bytes} bytes, the limit is {limit_bytes}")]
    Busy {
        /// Bytes that wait.
        queued_bytes: usize,
        /// The bound.
        limit_bytes: usize,
    },
    /// No room for another file: budget or disk. Nothing was written; later appends may succeed.
    #[error("the journal has no room: {used_bytes} of {budget_bytes} bytes used ({reason})")]
    Full {
        /// Bytes of all journal files.
        used_bytes: u64,
        /// The budget.
        budget_bytes: u64,
        /// Budget, or what the system said.
        reason: String,
    },
    /// A write or sync failed before; final.
    #[error("the journal has failed: {reason}")]
    Failed {
        /// The first error.
        reason: String,
    },
    /// Closed by the owner.
    #[error("the journal is closed")]
    Closed,
    /// The payload is longer than any entry may be.
    #[error("the entry has {bytes} bytes, the limit is {limit_bytes}")]
    TooLarge {
        /// Length of the payload.
        bytes: usize,
        /// The bound.
        limit_bytes: usize,
    },
    /// The options contradict each other.
    #[error("journal options: {reason}")]
    Options {
        /// What is wrong.
        reason: String,
    },
    /// The file of a location was trimmed, or never was.
    #[error("journal file {file} is not there")]
    Gone {
        /// Its number.
        file: u64,
    },
    /// The bytes at a location are not an intact entry of that length.
    #[error("the entry at {offset} of journal file {file} is damaged")]
    Checksum {
        /// Number of the file.
        file: u64,
        /// Offset of the payload.
        offset: u64,
    },
    /// The system refused, outside the append path.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl JournalError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { what, path: path.into(), source: Arc::new(source) }
    }

    /// What the caller does about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Busy { .. } | Self::Full { .. } => ErrorKind::Busy,
            Self::Failed { .. } | Self::Io { .. } => ErrorKind::Unavailable,
            Self::Closed => ErrorKind::Closed,
            Self::TooLarge { .. } | Self::Options { .. } => ErrorKind::Invalid,
            Self::Gone { .. } => ErrorKind::NotFound,
            Self::Checksum { .. } => ErrorKind::Corrupt,
        }
    }
}

/// Why the identity or the folder's lock cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file is there but its text is not intact.
    #[error("{path} is damaged: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process works on the folder.
    #[error("{path} is in use by another process", path = path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl IdentityError {
    /// What was attempted on which file, and what the system said.
    pub fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { what, path: path.into(), source }
    }

    /// What the caller does about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Locked { .. } => ErrorKind::Conflict,
            Self::Io { .. } => ErrorKind::Unavailable,
        }
    }
}
