//! Why a snapshot could not be read or written, and what the caller does next.
//!
//! Invariant: the decision is in [`SnapshotError::kind`] and in the variant, never in a text.
//! [`SnapshotError::Gone`] and [`SnapshotError::Fenced`] are part of normal operation.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use tako_types::ErrorKind;

use crate::store::StoreError;

/// Why the snapshot refused. After any error of a writer or reader, drop the handle and open
/// another.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The object store refused or cannot be reached.
    #[error("object store: {0}")]
    Store(#[from] StoreError),
    /// SlateDB could not reach the store within its retries.
    #[error("the snapshot's store is unavailable")]
    Unavailable(#[source] slatedb::Error),
    /// Another writer took over; nothing of this writer's later steps will be seen.
    #[error("another snapshotter took this partition over")]
    Fenced,
    /// The reader's files or checkpoint were collected: ask for a newer checkpoint.
    #[error("the checkpoint's files were collected")]
    Gone,
    /// The deadline passed; for a step the outcome is unknown until a new writer reads the meta.
    #[error("the snapshot did not answer within {0:?}")]
    Deadline(Duration),
    /// A database could not be opened in time.
    #[error(
        "{path} was not opened within {after:?}: the store is slow, or `{path}/manifest` holds a \
         file that is no manifest of the snapshot engine's"
    )]
    Opening {
        /// Where it lies in the store.
        path: String,
        /// How long was waited.
        after: Duration,
    },
    /// Bytes in the store are not what was written.
    #[error("the snapshot is damaged: {0}")]
    Corrupt(String),
    /// The handle was closed, or failed before.
    #[error("the snapshot handle is closed")]
    Closed,
    /// The caller's rows or options cannot be stored.
    #[error("cannot be stored in a snapshot: {0}")]
    Invalid(String),
    /// A bug, here or in the snapshot engine.
    #[error("snapshot engine failed")]
    Internal(#[source] slatedb::Error),
}

impl SnapshotError {
    /// What the caller does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Fenced => ErrorKind::Conflict,
            Self::Gone => ErrorKind::NotFound,
            Self::Deadline(_) | Self::Opening { .. } => ErrorKind::Deadline,
            Self::Corrupt(_) => ErrorKind::Corrupt,
            Self::Closed => ErrorKind::Closed,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }
}

impl From<slatedb::Error> for SnapshotError {
    fn from(error: slatedb::Error) -> Self {
        if is_not_found(&error) {
            return Self::Gone;
        }
        match error.kind() {
            slatedb::ErrorKind::Closed(slatedb::CloseReason::Fenced) => Self::Fenced,
            slatedb::ErrorKind::Closed(_) => Self::Closed,
            slatedb::ErrorKind::Unavailable | slatedb::ErrorKind::Transaction => {
                Self::Unavailable(error)
            }
            slatedb::ErrorKind::Data => Self::Corrupt(error.to_string()),
            _ => Self::Internal(error),
        }
    }
}

/// Whether an object that should exist does not, however deep in the chain (the block cache wraps
/// what its loader reports).
fn is_not_found(error: &slatedb::Error) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        let found = error
            .downcast_ref::<object_store::Error>()
            .or_else(|| error.downcast_ref::<Arc<object_store::Error>>().map(AsRef::as_ref));
        if matches!(found, Some(object_store::Error::NotFound { .. })) {
            return true;
        }
        next = error.source();
    }
    false
}
