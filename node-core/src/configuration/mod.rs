//! The configuration in force in one process: adopted forward only, kept on disk, observed.
//!
//! Invariants: the epoch number only grows; a document is on disk before anything sees it; what
//! only a migration may change is refused with that reason. The process runs without any
//! coordinator from what it has on disk.

pub mod kept;
mod source;
mod succession;
mod watch;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

pub use kept::newest_kept;
use parking_lot::Mutex;
pub use source::{ConfigSource, SourceError, fetch_store, load_file};
use tako_journal::Disk;
use tako_types::{
    Epoch,
    config::{ConfigError, Published},
};
pub use watch::ConfigWatcher;

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

type Observer = Box<dyn Fn(&Published, &Published) + Send + Sync>;

/// The configuration in force; see the module.
pub struct ConfigCell {
    current: tokio::sync::watch::Sender<Arc<Published>>,
    disk: Arc<dyn Disk>,
    folder: Option<PathBuf>,
    refused: Mutex<Option<String>>,
    /// Nobody has said yet that the first document is still one of those in force.
    provisional: AtomicBool,
    observer: OnceLock<Observer>,
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
            provisional: AtomicBool::new(false),
            observer: OnceLock::new(),
            adopting: Mutex::new(()),
        };
        cell.keep(&cell.current())?;
        Ok(cell)
    }

    /// Lets any newer document follow the first one, once: for who holds no data that it placed.
    #[must_use]
    pub fn provisional(self) -> Self {
        self.provisional.store(true, Ordering::Relaxed);
        self
    }

    /// Has `observer` told of each change, the document in force and the one to come, when that is
    /// on disk and before anybody goes by it. The first one stays.
    pub fn before_change(&self, observer: impl Fn(&Published, &Published) + Send + Sync + 'static) {
        let _ = self.observer.set(Box::new(observer));
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
                if let Some(observer) = self.observer.get() {
                    observer(&current, &offered);
                }
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
        if offered.epoch.number < current.epoch.number {
            return Ok(false);
        }
        if offered.epoch == current.epoch {
            self.provisional.store(false, Ordering::Relaxed);
            return Ok(false);
        }
        if offered.epoch.number == current.epoch.number {
            return Err(AdoptError::Fork { current: current.epoch, offered: offered.epoch });
        }
        if !self.provisional.swap(false, Ordering::Relaxed) {
            succession::check(current, offered)?;
        }
        Ok(true)
    }

    fn keep(&self, document: &Published) -> Result<(), AdoptError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        kept::keep(self.disk.as_ref(), folder, document.epoch.number, &document.encode())
            .map_err(|source| AdoptError::Disk { path: folder.clone(), source })
    }
}

impl std::fmt::Debug for ConfigCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigCell").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
