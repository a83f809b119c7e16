//! The coordinator's files: the configuration it is given, and the documents it keeps.
//!
//! Shape of the documents: `<var>/etc/coordinator-<id>/<20 digits>.json`
//! ([`tako_node_core::configuration::kept`]); beside them `file.json`, how far the file counts
//! ([`Mandate`]). Every call to the disk is placed by [`Blocking`].

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tako_journal::{Blocking, Disk, read_up_to, replace_file};
use tako_node_core::configuration::kept;
use tako_types::{config::Published, limits::CONFIGURATION_BYTES_MAX};

use crate::{
    CoordinatorError, CoordinatorOptions, http::Document, mandate::Mandate, ordered::MARK,
};

const MANDATE: &str = "file.json";
/// Longest that is read of it: far more than there ever is.
const MANDATE_BYTES_MAX: usize = 64 << 10;

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

    /// Puts `text`, which begins with [`MARK`], in the place of the configuration file, durably, and
    /// gives what was there. What was written by hand is kept beside it.
    pub(crate) async fn replace_config(
        &self,
        text: String,
    ) -> Result<Option<Vec<u8>>, CoordinatorError> {
        let replace = move |disk: &dyn Disk, path: &Path| {
            let (folder, name) = folder_and_name(path)?;
            let before = match read_up_to(disk, path, CONFIGURATION_BYTES_MAX + 1) {
                Ok(before) => Some(before),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            if let Some(by_hand) = before.as_ref().filter(|it| !it.starts_with(MARK.as_bytes())) {
                replace_file(disk, folder, &format!("{name}.before"), by_hand)?;
            }
            replace_file(disk, folder, name, text.as_bytes())?;
            Ok(before)
        };
        self.run(&self.config, replace).await
    }

    /// Puts back what [`Self::replace_config`] found.
    pub(crate) async fn put_back_config(&self, before: Vec<u8>) -> Result<(), CoordinatorError> {
        let replace = move |disk: &dyn Disk, path: &Path| {
            let (folder, name) = folder_and_name(path)?;
            replace_file(disk, folder, name, &before)
        };
        self.run(&self.config, replace).await
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

    /// How far the file of the last life counted, if that was kept and makes sense.
    pub(crate) async fn mandate(&self) -> Result<Option<Mandate>, CoordinatorError> {
        let read = |disk: &dyn Disk, folder: &Path| match read_up_to(
            disk,
            &folder.join(MANDATE),
            MANDATE_BYTES_MAX,
        ) {
            Ok(bytes) => Ok(Mandate::decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        self.run(&self.folder, read).await
    }

    /// Keeps that durably.
    pub(crate) async fn keep_mandate(&self, mandate: &Mandate) -> Result<(), CoordinatorError> {
        let bytes = mandate.encode();
        let keep =
            move |disk: &dyn Disk, folder: &Path| replace_file(disk, folder, MANDATE, &bytes);
        self.run(&self.folder, keep).await
    }
}

fn folder_and_name(path: &Path) -> io::Result<(&Path, &str)> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let name = path.file_name().and_then(|name| name.to_str());
    Ok((folder.unwrap_or(Path::new(".")), name.ok_or(io::ErrorKind::InvalidInput)?))
}
