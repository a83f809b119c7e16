//! Where published documents live for all to find: create-only, one object per epoch number.
//!
//! [`ObjectConfigStore`] keeps them at `<root>/config/<20 digits>` in an object store. Invariant:
//! an object that exists is never written again, so two coordinators cannot publish two documents
//! under one number.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{
    Error as ObjectError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path,
};

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
    /// Creates the document of a number, unless there is one.
    async fn create(&self, number: u64, bytes: Bytes) -> Result<Created, StoreError>;
}

/// Documents in an object store.
#[derive(Debug, Clone)]
pub struct ObjectConfigStore {
    store: Arc<dyn ObjectStore>,
    folder: Path,
}

impl ObjectConfigStore {
    /// Documents below `<root>/config`.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, root: &Path) -> Self {
        Self { store, folder: root.clone().join("config") }
    }

    fn path(&self, number: u64) -> Path {
        self.folder.clone().join(format!("{number:020}"))
    }
}

#[async_trait]
impl ConfigStore for ObjectConfigStore {
    async fn latest(&self) -> Result<Option<(u64, Bytes)>, StoreError> {
        let objects: Vec<_> =
            self.store.list(Some(&self.folder)).try_collect().await.map_err(StoreError::new)?;
        let number = |path: &Path| path.filename().and_then(crate::disk::number_of_name);
        let Some(newest) = objects.iter().filter_map(|o| number(&o.location)).max() else {
            return Ok(None);
        };
        let read = self.store.get(&self.path(newest)).await.map_err(StoreError::new)?;
        Ok(Some((newest, read.bytes().await.map_err(StoreError::new)?)))
    }

    async fn create(&self, number: u64, bytes: Bytes) -> Result<Created, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.path(number), PutPayload::from(bytes), options).await {
            Ok(_) => Ok(Created::Yes),
            Err(ObjectError::AlreadyExists { .. }) => Ok(Created::Exists),
            Err(error) => Err(StoreError::new(error)),
        }
    }
}
