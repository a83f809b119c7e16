//! The coordinator's files: the configuration it is given, and the documents it keeps.
//!
//! Shape of the documents: `<var>/etc/coordinator-<id>/<20 digits>.json`
//! ([`tako_node_core::configuration::kept`]). Every call to the disk is placed by [`Blocking`].

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tako_journal::{Blocking, Disk, read_up_to};
use tako_node_core::configuration::kept;
use tako_types::{config::Published, limits::CONFIGURATION_BYTES_MAX};

use crate::{CoordinatorError, CoordinatorOptions, http::Document};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    blocking: Blocking,
    config: PathBuf,
    folder: PathBuf,
}

impl Files {
    pub(crate) fn new(options: &CoordinatorOptions) -> Self {
        Self {
            disk: options.disk.clone(),
            blocking: options.blocking.clone(),
            config: options.config_path.clone(),
            folder: options.var.join("etc").join(format!("coordinator-{}", options.id)),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce(&dyn Disk, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, CoordinatorError> {
        let (disk, at) = (self.disk.clone(), path.to_owned());
        let done = self.blocking.run(move || work(disk.as_ref(), &at)).await;
        done.map_err(|source| CoordinatorError::File { path: path.to_owned(), source })
    }

    /// The configuration file as it is now.
    pub(crate) async fn config(&self) -> Result<String, CoordinatorError> {
        let read = |disk: &dyn Disk, path: &Path| {
            // One byte more than allowed, so that too long a file is refused and not cut.
            let bytes = read_up_to(disk, path, CONFIGURATION_BYTES_MAX + 1)?;
            String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
        };
        self.run(&self.config, read).await
    }

    /// Makes the folder of documents where it is missing.
    pub(crate) async fn make_folder(&self) -> Result<(), CoordinatorError> {
        self.run(&self.folder, |disk, folder| disk.create_dir(folder)).await
    }

    /// The newest document kept.
    pub(crate) async fn newest(&self) -> Result<Option<Published>, CoordinatorError> {
        self.run(&self.folder, kept::newest).await
    }

    /// Keeps a document durably.
    pub(crate) async fn keep(&self, document: &Document) -> Result<(), CoordinatorError> {
        let (number, bytes) = (document.published.epoch.number, document.bytes.clone());
        self.run(&self.folder, move |disk, folder| kept::keep(disk, folder, number, &bytes)).await
    }
}
