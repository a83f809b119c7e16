//! Why a coordinator does not start, or does not take a document.

use std::{
    io::ErrorKind::{AddrInUse, InvalidInput, PermissionDenied},
    path::PathBuf,
};

use tako_types::{
    Epoch, ErrorKind,
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
    /// The document's own epoch leaves numbers free that another coordinator could give out.
    #[error(
        "epoch: {claimed} leaves out {next}, which another coordinator of the store could give out \
         beside it, while a migration begins or is under way, or the master changes; say {next}, or, \
         where this coordinator stays the master, remove it"
    )]
    EpochTooFar {
        /// What the document says.
        claimed: u64,
        /// What it has to say.
        next: u64,
    },
    /// The file is older than a document that another coordinator published.
    #[error(
        "the file is older than configuration {in_force}, which came from another coordinator and \
         goes on; to order something else, change the file, or send it over HTTP"
    )]
    Superseded {
        /// The number in force.
        in_force: u64,
    },
    /// Another document is in force than the one that an order was made for.
    #[error("configuration {in_force} is in force; look at that first")]
    Changed {
        /// What is in force.
        in_force: Epoch,
    },
    /// The document differs from the one in force, and another coordinator gives the numbers.
    #[error(
        "the master coordinator `{master}` gives the numbers; order it there, or, if that one is gone \
         for good, name this coordinator as master, with epoch: {}",
        in_force.saturating_add(1)
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
        matches!(
            self,
            Self::Config { .. }
                | Self::EpochTooLow { .. }
                | Self::EpochTooFar { .. }
                | Self::EpochConflict { .. }
                | Self::Superseded { .. }
                | Self::Changed { .. }
                | Self::NotMaster { .. }
        )
    }

    /// What the caller does about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config { .. }
            | Self::EpochTooLow { .. }
            | Self::EpochTooFar { .. }
            | Self::NotMaster { .. }
            | Self::UnknownId { .. } => ErrorKind::Invalid,
            Self::EpochConflict { .. } | Self::Superseded { .. } => ErrorKind::Conflict,
            Self::Changed { .. } => ErrorKind::StaleEpoch,
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
