//! The object store: opening, probing, shared documents, and the wrappers around it.
//!
//! ```text
//! open -> counting -> (tests: fault) -> memory, folder or S3
//! ```
//! Calls: object_store. Called by: snapshots (SlateDB gets the wrapped store), node start (probe),
//! the coordinator (cluster id, configuration documents).

pub mod counting;
mod documents;
pub mod fault;
mod objects;
mod open;
mod probe;

pub use counting::Counts;
pub use documents::Published;
pub(crate) use documents::{RESTORED, RESTORING, cluster_of, cluster_text, name_of, number_of};
pub use open::StoreSettings;

use std::{sync::Arc, time::Duration};

use object_store::{ObjectStore, path::Path};
use tako_types::ErrorKind;

use counting::CountingStore;
use fault::FaultStore;

/// Why the object store refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The settings do not name a store.
    #[error("{what}")]
    Settings {
        /// What is wrong with which setting.
        what: String,
    },
    /// The store's answer, after the bounded retries.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The object or prefix.
        path: String,
        /// The store's own words.
        #[source]
        source: object_store::Error,
    },
    /// No answer in time.
    #[error("cannot {doing} {path}: no answer within {deadline:?}")]
    Deadline {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The object or prefix.
        path: String,
        /// The limit.
        deadline: Duration,
    },
    /// The store does not do what Tako relies on; do not run on it.
    #[error("the object store fails the check `{check}`: {found}; {meaning}")]
    Probe {
        /// Which check failed.
        check: &'static str,
        /// What was seen.
        found: String,
        /// What that would lead to.
        meaning: &'static str,
    },
    /// A restore into this root has not ended.
    #[error(
        "a restore into {root} has not ended: let it end, or repeat it, before anything starts there"
    )]
    Restoring {
        /// The root.
        root: String,
    },
    /// A shared document is not what Tako writes there.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong with it.
        what: String,
    },
}

impl StoreError {
    /// What the caller does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Settings { .. } | Self::Probe { .. } => ErrorKind::Invalid,
            Self::Io { .. } => ErrorKind::Unavailable,
            Self::Deadline { .. } => ErrorKind::Deadline,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            // Nobody is to wait for it: it may have been given up.
            Self::Restoring { .. } => ErrorKind::Closed,
        }
    }
}

/// An object store and the root of one cluster in it; cheap to clone.
///
/// Guarantee: every call is counted; calls of this type are bounded in time and retries.
#[derive(Debug, Clone)]
pub struct Store {
    counting: Arc<CountingStore>,
    root: Path,
    local: bool,
}

impl Store {
    /// A store of the caller's making, with `root` as the cluster's root.
    ///
    /// `local` says that it is a folder: such stores cannot overwrite conditionally.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, root: Path, local: bool) -> Self {
        Self { counting: Arc::new(CountingStore::new(inner)), root, local }
    }

    /// A memory store of its own, shared with nobody; for tests and simulations.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::new(Arc::new(object_store::memory::InMemory::new()), Path::default(), false)
    }

    /// The same store with a fault injector in front; the counters start at zero.
    #[must_use]
    pub fn with_faults(&self) -> (Self, Arc<FaultStore>) {
        let fault = FaultStore::new(self.counting.inner());
        (Self::new(fault.clone(), self.root.clone(), self.local), fault)
    }

    /// Another root in the same store.
    #[must_use]
    pub fn with_root(&self, root: Path) -> Self {
        Self::new(self.counting.inner(), root, self.local)
    }

    /// Whether both are roots of one bucket, in which a path means the same to both.
    #[must_use]
    pub fn shares_bucket_with(&self, other: &Self) -> bool {
        // Each folder is a store of its own, which begins at its root.
        !self.local && Arc::ptr_eq(&self.counting.inner(), &other.counting.inner())
    }

    /// What SlateDB and others use: counted.
    #[must_use]
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        self.counting.clone()
    }

    /// The cluster's root in the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it is a folder of this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// Requests and bytes since this store was opened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counting.counts()
    }

    /// `<root>/part`.
    pub(crate) fn path(&self, part: &str) -> Path {
        part.split('/').fold(self.root.clone(), |path, name| path.join(name))
    }
}
