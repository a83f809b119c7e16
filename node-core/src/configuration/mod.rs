//! The configuration in force in one process: adopted forward only, kept on disk, observed.
//!
//! Invariants: the epoch number only grows; a document is on disk before anything sees it; what
//! only a migration may change is refused with that reason. The process runs without any
//! coordinator from what it has on disk.

mod source;
mod watch;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
pub use source::{ConfigSource, SourceError, fetch_store, load_file};
use tako_journal::{Disk, read_all, replace_file};
use tako_types::{
    Epoch,
    config::{ConfigError, Published, check_change},
};
pub use watch::ConfigWatcher;

/// Documents kept on disk.
const KEPT_COUNT: usize = 10;

/// Why a document was not adopted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// Same number, other content.
    #[error("configuration {offered} has the number of {current}, which is in force, but differs")]
    Fork {
        /// In force.
        current: Epoch,
        /// Offered.
        offered: Epoch,
    },
    /// Only a migration may change this.
    #[error(transparent)]
    Refused(#[from] ConfigError),
    /// It could not be kept on disk.
    #[error("cannot keep the configuration at {path}: {source}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The configuration in force; see the module.
#[derive(Debug)]
pub struct ConfigCell {
    current: tokio::sync::watch::Sender<Arc<Published>>,
    disk: Arc<dyn Disk>,
    folder: Option<PathBuf>,
    refused: Mutex<Option<String>>,
    /// Held from the check to the change, so that the epoch cannot go back.
    adopting: Mutex<()>,
}

impl ConfigCell {
    /// Starts with a document; keeps it in `folder`, if any.
    ///
    /// # Errors
    /// [`AdoptError::Disk`] when it cannot be kept.
    pub fn new(
        first: Published,
        disk: Arc<dyn Disk>,
        folder: Option<PathBuf>,
    ) -> Result<Self, AdoptError> {
        let cell = Self {
            current: tokio::sync::watch::Sender::new(Arc::new(first)),
            disk,
            folder,
            refused: Mutex::new(None),
            adopting: Mutex::new(()),
        };
        cell.keep(&cell.current())?;
        Ok(cell)
    }

    /// The document in force.
    #[must_use]
    pub fn current(&self) -> Arc<Published> {
        self.current.borrow().clone()
    }

    /// The epoch in force.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.current.borrow().epoch
    }

    /// Wakes at every change.
    #[must_use]
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<Arc<Published>> {
        self.current.subscribe()
    }

    /// Why the last offered document was refused, if it was.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        self.refused.lock().clone()
    }

    /// Takes a newer document; `false` when it is the one in force or older.
    ///
    /// # Errors
    /// [`AdoptError`] when it must not or cannot be taken; the old one stays in force.
    pub fn adopt(&self, offered: Published) -> Result<bool, AdoptError> {
        let _adopting = self.adopting.lock();
        let current = self.current();
        let result = self.check(&current, &offered).and_then(|newer| {
            if newer {
                let offered = Arc::new(offered);
                self.keep(&offered)?;
                tracing::info!(epoch = %offered.epoch, "configuration adopted");
                self.current.send_replace(offered);
            }
            Ok(newer)
        });
        match &result {
            Ok(true) => *self.refused.lock() = None,
            Ok(false) => {}
            Err(error) => {
                let text = error.to_string();
                let mut refused = self.refused.lock();
                if refused.as_ref() != Some(&text) {
                    tracing::warn!(epoch = %current.epoch, "configuration refused: {text}");
                    *refused = Some(text);
                }
            }
        }
        result
    }

    fn check(&self, current: &Published, offered: &Published) -> Result<bool, AdoptError> {
        if offered.epoch == current.epoch || offered.epoch.number < current.epoch.number {
            return Ok(false);
        }
        if offered.epoch.number == current.epoch.number {
            return Err(AdoptError::Fork { current: current.epoch, offered: offered.epoch });
        }
        check_change(&current.config, &offered.config)?;
        Ok(true)
    }

    fn keep(&self, document: &Published) -> Result<(), AdoptError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let disk = self.disk.as_ref();
        replace_file(disk, folder, &file_name(document.epoch.number), &document.encode())
            .and_then(|()| forget_old(disk, folder))
            .map_err(|source| AdoptError::Disk { path: folder.clone(), source })
    }
}

fn file_name(number: u64) -> String {
    format!("{number:020}.json")
}

fn documents(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = disk.list(folder)?;
    names.retain(|name| name.ends_with(".json"));
    names.sort();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn forget_old(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    let files = documents(disk, folder)?;
    for file in &files[..files.len().saturating_sub(KEPT_COUNT)] {
        disk.remove(file)?;
    }
    Ok(())
}

/// The newest readable document kept in a folder; damaged ones are passed over with a warning.
#[must_use]
pub fn newest_kept(disk: &dyn Disk, folder: &Path) -> Option<Published> {
    for file in documents(disk, folder).ok()?.into_iter().rev() {
        match read_all(disk, &file)
            .map_err(|error| error.to_string())
            .and_then(|bytes| Published::decode(&bytes).map_err(|error| error.to_string()))
        {
            Ok(document) => return Some(document),
            Err(error) => tracing::warn!(file = %file.display(), "kept configuration: {error}"),
        }
    }
    None
}

#[cfg(test)]
mod tests;
