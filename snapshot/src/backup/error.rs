//! Why a backup or restore did not come about.

use std::time::Duration;

use tako_types::{ErrorKind, PartitionId};

use crate::{SnapshotError, StoreError};

/// Why a backup or restore did not come about. What was begun can be repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// What was asked for cannot be done; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It is there already, or somebody else is at it.
    #[error("{0}")]
    Exists(String),
    /// Bytes in the store are not what was written.
    #[error("partition {partition}: {what}")]
    Damaged {
        /// Where.
        partition: PartitionId,
        /// What was found.
        what: String,
    },
    /// It began so long ago that what it made may have been taken for left over.
    #[error("it took {age:?}, and nothing that takes longer than {max:?} is kept: try again")]
    TookTooLong {
        /// How long it took.
        age: Duration,
        /// How long it may take.
        max: Duration,
    },
    /// The copy does not hold what the source holds.
    #[error("{0}")]
    Differs(String),
    /// A partition's snapshot cannot be read or written.
    #[error("partition {partition}: {source}")]
    Partition {
        /// Which.
        partition: PartitionId,
        /// Why.
        source: SnapshotError,
    },
    /// The object store refused or cannot be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Snapshots cannot be opened at all.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl BackupError {
    /// Names the partition; damage is told from what may pass.
    pub(super) fn of(partition: PartitionId) -> impl Fn(SnapshotError) -> Self {
        move |error| match error {
            SnapshotError::Corrupt(what) => Self::Damaged { partition, what },
            SnapshotError::Gone => {
                Self::Damaged { partition, what: "files of it are missing".to_owned() }
            }
            source => Self::Partition { partition, source },
        }
    }

    /// What the caller does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Exists(_) => ErrorKind::Conflict,
            Self::TookTooLong { .. } => ErrorKind::Deadline,
            Self::Damaged { .. } | Self::Differs(_) => ErrorKind::Corrupt,
            Self::Partition { source, .. } | Self::Snapshot(source) => source.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}
