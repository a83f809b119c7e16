//! Backups as a coordinator makes them by the configuration's rules: below a root of the store.
//!
//! Not here: when they are made (`backups.rs`), and what one consists of (`tako_snapshot::backup`).

use std::sync::Arc;

use async_trait::async_trait;
use tako_snapshot::{
    Store,
    backup::{About, BackupError, BackupName, Backups},
};
use tako_types::{Clock, config::Published};
use tokio::sync::OnceCell;

use super::{BackupStore, RECORDS};
use crate::StoreError;

/// The backups below a root.
pub struct ScheduledBackups {
    store: Store,
    clock: Arc<dyn Clock>,
    /// Opened when the first backup is due, as most clusters have no rule.
    opened: OnceCell<Backups>,
}

impl ScheduledBackups {
    /// Those below the root of `store`; nothing is sent yet.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, opened: OnceCell::new() }
    }

    /// The number of partitions is that of the first document: it never changes.
    async fn backups(&self, partitions_log2: u32) -> Result<&Backups, BackupError> {
        let open =
            || Backups::open(self.store.clone(), partitions_log2, self.clock.clone(), RECORDS);
        self.opened.get_or_try_init(open).await
    }
}

#[async_trait]
impl BackupStore for ScheduledBackups {
    async fn names(&self) -> Result<Vec<String>, StoreError> {
        let names = Backups::names_in(&self.store).await.map_err(StoreError::new)?;
        Ok(names.iter().map(|name| name.as_str().to_owned()).collect())
    }

    async fn create(&self, name: &str, document: &Published) -> Result<(), StoreError> {
        let make = async {
            let name = BackupName::new(name)?;
            let about = About { configuration: Some(document.encode().into()), ..About::default() };
            self.backups(document.partitions_log2()).await?.create(&name, about, &|_| {}).await
        };
        match make.await {
            Ok(_) | Err(BackupError::Exists(_)) => Ok(()),
            Err(error) => Err(StoreError::new(error)),
        }
    }

    async fn delete(&self, name: &str, document: &Published) -> Result<(), StoreError> {
        let delete = async {
            let name = BackupName::new(name)?;
            self.backups(document.partitions_log2()).await?.delete(&name).await
        };
        delete.await.map(drop).map_err(StoreError::new)
    }
}
