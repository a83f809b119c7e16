//! Listing and deleting objects below the root; for backups and restores.
//!
//! Deletes may be repeated: what is not there is deleted. Every call is bounded, a long listing by
//! the time between two of its pages.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{Error, ObjectStore, ObjectStoreExt, path::Path};
use tako_types::limits::STORE_DEADLINE;

use super::{Store, StoreError};

impl Store {
    /// The objects below `<root>/folder`, by their paths relative to it.
    pub(crate) async fn names(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let below = self.path(folder);
        let listed = self
            .bounded("list", &below, || async {
                let listed: Vec<_> = self.counting.list(Some(&below)).try_collect().await?;
                Ok(listed)
            })
            .await?;
        let relative = listed.iter().filter_map(|meta| {
            let parts = meta.location.prefix_match(&below)?;
            Some(parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"))
        });
        Ok(relative.collect())
    }

    /// The names of the folders right below `<root>/folder`.
    pub(crate) async fn folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let below = self.path(folder);
        let listed = self
            .bounded("list", &below, || self.counting.list_with_delimiter(Some(&below)))
            .await?;
        let names = listed.common_prefixes.iter().filter_map(Path::filename);
        Ok(names.map(str::to_owned).collect())
    }

    /// Some object below the root besides `but`, if there is one.
    pub(crate) async fn any_object(&self, but: &Path) -> Result<Option<String>, StoreError> {
        let root = self.root().clone();
        self.bounded("list", &root, || async {
            let mut all = self.counting.list(Some(&root));
            while let Some(meta) = all.try_next().await? {
                if meta.location != *but {
                    return Ok(Some(meta.location.to_string()));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Writes an object, whatever was there.
    pub(crate) async fn overwrite(&self, path: &Path, bytes: Bytes) -> Result<(), StoreError> {
        self.bounded("put", path, || async {
            self.counting.put(path, bytes.clone().into()).await.map(drop)
        })
        .await
    }

    /// Deletes an object, if it is there.
    pub(crate) async fn delete(&self, path: &Path) -> Result<(), StoreError> {
        self.bounded("delete", path, || async {
            match self.counting.delete(path).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Deletes everything below `<root>/folder`.
    pub(crate) async fn delete_below(&self, folder: &str) -> Result<(), StoreError> {
        let below = self.path(folder);
        let mut all = self.counting.list(Some(&below));
        loop {
            let next = tokio::time::timeout(STORE_DEADLINE, all.next()).await;
            let next = next.map_err(|_| StoreError::Deadline {
                doing: "list",
                path: below.to_string(),
                deadline: STORE_DEADLINE,
            })?;
            match next {
                None => return Ok(()),
                Some(Ok(meta)) => self.delete(&meta.location).await?,
                Some(Err(source)) => {
                    let path = below.to_string();
                    return Err(StoreError::Io { doing: "list", path, source });
                }
            }
        }
    }
}
