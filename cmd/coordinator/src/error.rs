//! Why a coordinator does not start, or does not take a document.

use std::{
    io::ErrorKind::{AddrInUse, InvalidInput, PermissionDenied},
    path::PathBuf,
};

use tako_types::{
    ErrorKind,
    config::{ConfigError, PublishedError},
};

use crate::StoreError;

/// Why a coordinator does not start, or keeps the document it has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoordinatorError {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The document is refused; path, line and reason are in the text.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<ConfigError>,
    },
    /// The document's own epoch is not above the one in force.
    #[error("epoch: {claimed} is not above {in_force}, which is in force; raise or remove it")]
    EpochTooLow {
        /// What the document says.
        claimed: u64,
        /// What is in force.
        in_force: u64,
    },
    /// Two documents bear one number: somebody published by hand, or a disk is foreign.
    #[error("epoch {number} has two different documents: {place} holds another one")]
    EpochConflict {
        /// The number.
        number: u64,
        /// Where the other one is.
        place: &'static str,
    },
    /// The document differs from the one in force, and another coordinator gives the numbers.
    #[error(
        "the document has no epoch and the master coordinator `{master}` gives the numbers; order it \
         there, or, if that one is gone for good, name another master and an epoch above {in_force}"
    )]
    NotMaster {
        /// Who does.
        master: String,
        /// The number in force.
        in_force: u64,
    },
    /// The configuration does not know this coordinator.
    #[error("the configuration has no coordinator `{id}`; it has: {known}")]
    UnknownId {
        /// The id given.
        id: String,
        /// The ids there are.
        known: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", hint(.source))]
    Bind {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A document in the store or on the disk is damaged.
    #[error("a published document is refused: {0}")]
    Published(#[from] PublishedError),
    /// The store does not answer.
    #[error("the store of configurations: {0}")]
    Store(#[from] StoreError),
}

impl CoordinatorError {
    /// Whether the document given is refused for what it says: what is in force goes on.
    pub(crate) fn is_refusal(&self) -> bool {
        let conflict = matches!(self, Self::EpochConflict { .. });
        conflict
            || matches!(
                self,
                Self::Config { .. } | Self::EpochTooLow { .. } | Self::NotMaster { .. }
            )
    }

    /// What the caller does about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config { .. }
            | Self::EpochTooLow { .. }
            | Self::NotMaster { .. }
            | Self::UnknownId { .. } => ErrorKind::Invalid,
            Self::EpochConflict { .. } => ErrorKind::Conflict,
            Self::Published(error) => error.kind(),
            // A refused address is the operator's to change; a taken one may become free.
            Self::Bind { source, .. }
                if matches!(source.kind(), PermissionDenied | InvalidInput) =>
            {
                ErrorKind::Invalid
            }
            Self::File { .. } | Self::Bind { .. } | Self::Store(_) => ErrorKind::Unavailable,
        }
    }
}

/// What to look for when an address cannot be had.
fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        AddrInUse => "; is another coordinator running there?",
        _ => "",
    }
}
