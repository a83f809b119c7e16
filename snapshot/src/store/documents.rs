//! The few shared objects that are not snapshots: the cluster's id and configuration documents.
//!
//! Invariant: they are only ever created, never overwritten or deleted (a restore that is repeated
//! takes away what the one before left, on a root that nobody uses). Whoever creates an object
//! second learns what the first wrote. An answer may be lost after it took effect, and S3 reports
//! a conflict that it may resolve either way, so a refused create is always read back and
//! compared; identical bytes count as written.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};
use tako_types::{ClusterId, limits::STORE_DEADLINE};

use super::{Store, StoreError};
use crate::backup::Origin;

/// Object that is there while a restore goes on.
pub(crate) const RESTORING: &str = "restoring";
/// Object that says where restored data came from.
pub(crate) const RESTORED: &str = "restored";

const ATTEMPTS_MAX: u32 = 4;
const FIRST_BACKOFF: Duration = Duration::from_millis(50);

/// Outcome of a create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// The object holds the caller's bytes.
    Written,
    /// The object existed already, with these bytes.
    Exists(Bytes),
}

impl Store {
    /// The id of the cluster whose data this is; creates it when there is none and `create` says
    /// with which id.
    ///
    /// Shape: 32 lowercase hexadecimal digits at `<root>/cluster`.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Damaged`] when the object is something else;
    /// [`StoreError::Restoring`] instead of creating it where a restore has not ended.
    pub async fn cluster_id(
        &self,
        create: Option<ClusterId>,
    ) -> Result<Option<ClusterId>, StoreError> {
        let path = self.path("cluster");
        let found = match (self.read(&path).await?, create) {
            (Some(found), _) => found,
            (None, None) => return Ok(None),
            (None, Some(id)) => {
                self.refuse_unfinished().await?;
                let text = Bytes::from(cluster_text(id));
                match self.create(&path, text).await? {
                    Published::Written => return Ok(Some(id)),
                    Published::Exists(found) => found,
                }
            }
        };
        match cluster_of(&found) {
            Some(id) => Ok(Some(id)),
            None => Err(StoreError::Damaged {
                path: path.to_string(),
                what: format!("{} bytes that are not 32 hexadecimal digits", found.len()),
            }),
        }
    }

    /// Gives the data below this root an id; the end of a restore.
    pub(crate) async fn name_cluster(&self, id: ClusterId) -> Result<Published, StoreError> {
        self.create(&self.path("cluster"), Bytes::from(cluster_text(id))).await
    }

    /// Where the data below this root were restored from, if they were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn origin(&self) -> Result<Option<Origin>, StoreError> {
        let path = self.path(RESTORED);
        let Some(bytes) = self.read(&path).await? else { return Ok(None) };
        let damaged = |what| StoreError::Damaged { path: path.to_string(), what };
        Origin::decode(&bytes).map(Some).map_err(damaged)
    }

    /// Refuses a root on which a restore was begun and has not ended.
    async fn refuse_unfinished(&self) -> Result<(), StoreError> {
        if self.read(&self.path(RESTORING)).await?.is_some()
            && self.read(&self.path("cluster")).await?.is_none()
        {
            return Err(StoreError::Restoring { root: self.root().to_string() });
        }
        Ok(())
    }

    /// Publishes the configuration document of a number; the first one wins for ever.
    ///
    /// Shape: `<root>/config/<20 digits>`.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Restoring`] where a restore has not ended.
    pub async fn publish_config(&self, number: u64, bytes: Bytes) -> Result<Published, StoreError> {
        self.refuse_unfinished().await?;
        self.restore_config(number, bytes).await
    }

    /// [`Self::publish_config`] by the restore itself.
    pub(crate) async fn restore_config(
        &self,
        number: u64,
        bytes: Bytes,
    ) -> Result<Published, StoreError> {
        self.create(&self.config_path(number), bytes).await
    }

    /// The document with the highest number, if any.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn latest_config(&self) -> Result<Option<(u64, Bytes)>, StoreError> {
        let folder = self.path("config");
        let names = self
            .bounded("list", &folder, || async {
                let listed: Vec<_> = self.counting.list(Some(&folder)).try_collect().await?;
                Ok(listed)
            })
            .await?;
        let newest = names.iter().filter_map(|meta| number_of(meta.location.filename()?)).max();
        match newest {
            None => Ok(None),
            Some(number) => {
                Ok(self.read(&self.config_path(number)).await?.map(|bytes| (number, bytes)))
            }
        }
    }

    /// The document of a number, if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn config(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        self.read(&self.config_path(number)).await
    }

    fn config_path(&self, number: u64) -> Path {
        self.path(&format!("config/{}", name_of(number)))
    }

    /// Creates an object, or says what is there.
    pub(crate) async fn create(&self, path: &Path, bytes: Bytes) -> Result<Published, StoreError> {
        self.bounded("create", path, || async {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match self.counting.put_opts(path, bytes.clone().into(), options).await {
                Ok(_) => return Ok(Published::Written),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
                Err(error) => return Err(error),
            }
            // A conflict without an object (S3's 409) is tried again.
            let found = match self.counting.get(path).await {
                Ok(found) => found.bytes().await?,
                Err(Error::NotFound { path, source }) => {
                    let source = Box::new(Error::NotFound { path, source });
                    return Err(Error::Generic { store: "create", source });
                }
                Err(error) => return Err(error),
            };
            Ok(if found == bytes { Published::Written } else { Published::Exists(found) })
        })
        .await
    }

    /// An object's bytes, if it exists.
    pub(crate) async fn read(&self, path: &Path) -> Result<Option<Bytes>, StoreError> {
        self.bounded("read", path, || async {
            match self.counting.get(path).await {
                Ok(found) => Ok(Some(found.bytes().await?)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Runs a call that may be repeated: at most [`ATTEMPTS_MAX`] times within
    /// [`STORE_DEADLINE`]. Answers that repeating cannot change are returned at once.
    pub(crate) async fn bounded<T, F>(
        &self,
        doing: &'static str,
        path: &Path,
        call: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let attempts = async {
            let mut backoff = FIRST_BACKOFF;
            let mut attempt = 1;
            loop {
                match call().await {
                    Ok(value) => return Ok(value),
                    Err(error) if attempt == ATTEMPTS_MAX || is_final(&error) => return Err(error),
                    Err(error) => tracing::debug!(%error, %path, doing, "store call is repeated"),
                }
                tokio::time::sleep(backoff).await;
                backoff *= 2;
                attempt += 1;
            }
        };
        match tokio::time::timeout(STORE_DEADLINE, attempts).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(StoreError::Io { doing, path: path.to_string(), source }),
            Err(_) => Err(StoreError::Deadline {
                doing,
                path: path.to_string(),
                deadline: STORE_DEADLINE,
            }),
        }
    }
}

/// What stands in the object `cluster`.
pub(crate) fn cluster_text(id: ClusterId) -> String {
    format!("{:032x}", id.0)
}

/// Reads [`cluster_text`], and nothing else.
pub(crate) fn cluster_of(bytes: &[u8]) -> Option<ClusterId> {
    let digits = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.bytes().all(|b| digits(&b)))?;
    let id = u128::from_str_radix(text, 16).ok()?;
    (text.len() == 32).then_some(ClusterId(id))
}

/// The object's name of the document of a number.
pub(crate) fn name_of(number: u64) -> String {
    format!("{number:020}")
}

/// Reads [`name_of`]; `None` for the name of anything else that lies there.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let is_number = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| name.parse().ok()).flatten()
}

fn is_final(error: &Error) -> bool {
    matches!(
        error,
        Error::NotFound { .. }
            | Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::InvalidPath { .. }
    )
}
