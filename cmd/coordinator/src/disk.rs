//! The coordinator's own disk: the newest ten documents it published or followed.
//!
//! Shape: `<var>/etc/coordinator-<id>/<20 digits>.json`. Invariant: a file with its final name is
//! whole and durable (written beside, synced, renamed). Blocking; call it off the event loop.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tako_types::{config::Published, limits::PUBLISHED_BYTES_MAX};

use crate::CoordinatorError;

/// How many documents are kept.
const KEPT_COUNT: usize = 10;

/// The number a name of 20 digits stands for, with or without `.json`.
pub(crate) fn number_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json").unwrap_or(name);
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

/// The folder of one coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Opens the folder; makes it where it is missing.
    pub(crate) fn open(var: &Path, id: &str) -> Result<Self, CoordinatorError> {
        let folder = var.join("etc").join(format!("coordinator-{id}"));
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        Ok(Self { folder })
    }

    fn numbers(&self) -> Result<Vec<u64>, CoordinatorError> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(at(&self.folder))? {
            let name = entry.map_err(at(&self.folder))?.file_name();
            let json = name.to_str().filter(|name| name.ends_with(".json"));
            numbers.extend(json.and_then(number_of_name));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:020}.json"))
    }

    /// The newest document that can be read; damaged ones are logged and passed over.
    pub(crate) fn latest(&self) -> Result<Option<Published>, CoordinatorError> {
        for number in self.numbers()?.into_iter().rev() {
            let path = self.path(number);
            let length = fs::metadata(&path).map_err(at(&path))?.len();
            if (PUBLISHED_BYTES_MAX as u64) < length {
                tracing::error!(path = %path.display(), length, "document too long, passed over");
                continue;
            }
            match Published::decode(&fs::read(&path).map_err(at(&path))?) {
                Ok(document) if document.epoch.number == number => return Ok(Some(document)),
                Ok(document) => {
                    tracing::error!(path = %path.display(), epoch = %document.epoch, "document under a foreign name, passed over");
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "document passed over");
                }
            }
        }
        Ok(None)
    }

    /// Keeps a document durably and drops the oldest beyond ten.
    pub(crate) fn keep(&self, number: u64, bytes: &[u8]) -> Result<(), CoordinatorError> {
        let path = self.path(number);
        let beside = self.folder.join(format!("{number:020}.part"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(at(&path))?;
        let numbers = self.numbers()?;
        for old in numbers.iter().take(numbers.len().saturating_sub(KEPT_COUNT)) {
            let path = self.path(*old);
            fs::remove_file(&path).map_err(at(&path))?;
        }
        Ok(())
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> CoordinatorError + '_ {
    |source| CoordinatorError::File { path: path.to_owned(), source }
}
