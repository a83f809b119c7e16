//! Ids as types of their own, so that no two numbers can be mixed up.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// A node's name in the configuration, such as `n1`; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Makes an id of a configured name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The configured name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for NodeId {
    fn from(name: String) -> Self {
        Self(Arc::from(name))
    }
}

impl From<&str> for NodeId {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0.to_string()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// One of the cluster's 2^k partitions; the top k bits of a key's hash.
    PartitionId(u16)
}
number_id! {
    /// Number of a journal entry on one node's data folder; 0 means "none yet".
    Lsn(u64)
}
number_id! {
    /// Which data folder of a node id: a new folder gets one above any known before.
    ///
    /// Unit: microseconds since the Unix epoch when the folder was made (raised where needed).
    Incarnation(u64)
}
number_id! {
    /// Number of a partition's step; 0 means "no step yet".
    StepNumber(u64)
}
number_id! {
    /// Random id of one cluster's data, kept at `<root>/cluster` in the object store.
    ClusterId(u128)
}

impl Lsn {
    /// The next number.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Which configuration: a number, and the SHA-256 of the document that bears it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// Grows by at least one with each accepted document; 0 is "none".
    pub number: u64,
    /// Hash of the source document in its canonical JSON form.
    pub sha256: [u8; 32],
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.number)?;
        for byte in &self.sha256[..4] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}
