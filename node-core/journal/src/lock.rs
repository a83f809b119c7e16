//! The folder's lock: one process per data folder.
//!
//! Invariant: while a [`DirLock`] lives, no other one on the same folder does, in any process.
//! The lock belongs to the open file, so it goes with the process however that ends.

use std::{fs, path::Path};

use rustix::fs::{FlockOperation, flock};

use crate::IdentityError;

/// Holds a folder until dropped.
#[derive(Debug)]
pub struct DirLock {
    _file: fs::File,
}

/// Takes the folder for this process, making it where needed.
///
/// # Errors
/// [`IdentityError::Locked`] when another holder lives, or what the system says.
pub fn lock_dir(dir: &Path) -> Result<DirLock, IdentityError> {
    fs::create_dir_all(dir).map_err(|e| IdentityError::io("make folder", dir, e))?;
    let path = dir.join("lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| IdentityError::io("open", &path, e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(DirLock { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(IdentityError::Locked { path: dir.into() }),
        Err(error) => Err(IdentityError::io("lock", &path, error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::lock_dir;

    #[test]
    fn a_folder_has_one_holder_and_is_free_after_the_drop() {
        let dir = tempfile::tempdir().expect("temp folder");
        let held = lock_dir(dir.path()).expect("free folder");
        let error = lock_dir(dir.path()).expect_err("held folder");
        assert!(error.to_string().contains("in use by another process"), "{error}");
        drop(held);
        lock_dir(dir.path()).expect("free again");
    }
}
