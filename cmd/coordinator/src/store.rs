//! Where published documents live for all to find: create-only, one object per epoch number.
//!
//! The cluster's object store keeps them at `<root>/config/<20 digits>`. Invariant: an object that
//! exists is never written again, so two coordinators cannot publish two documents under one
//! number.

use async_trait::async_trait;
use bytes::Bytes;
use tako_snapshot::{Published, Store};

/// The store does not answer, or answers nonsense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl StoreError {
    /// Wraps what went wrong.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// What became of a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object is there now, with these bytes.
    Yes,
    /// An object of that number was there before; nothing was changed.
    Exists,
}

/// A place shared by all coordinators of a cluster.
///
/// Callers guarantee: bytes are a published document of that number. Implementers must: never
/// change an object that exists, and show a created object to every later `latest`. They bound
/// their own calls in time.
#[async_trait]
pub trait ConfigStore: Send + Sync {
    /// The document with the highest number.
    async fn latest(&self) -> Result<Option<(u64, Bytes)>, StoreError>;
    /// The document of a number, if there is one.
    async fn document(&self, number: u64) -> Result<Option<Bytes>, StoreError>;
    /// Creates the document of a number, unless there is one.
    async fn create(&self, number: u64, bytes: Bytes) -> Result<Created, StoreError>;
}

#[async_trait]
impl ConfigStore for Store {
    async fn latest(&self) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.latest_config().await.map_err(StoreError::new)
    }

    async fn document(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        self.config(number).await.map_err(StoreError::new)
    }

    async fn create(&self, number: u64, bytes: Bytes) -> Result<Created, StoreError> {
        match self.publish_config(number, bytes).await.map_err(StoreError::new)? {
            Published::Written => Ok(Created::Yes),
            Published::Exists(_) => Ok(Created::Exists),
        }
    }
}
