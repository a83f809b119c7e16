//! The folder's lock: one process per data folder.
//!
//! Invariant: while a [`DirLock`] lives, no other one on the same folder does, in any process.
//! How it is held is the disk's matter.

use std::{any::Any, fmt, io, path::Path};

use crate::{Disk, IdentityError};

/// Holds a folder until dropped.
pub struct DirLock {
    _held: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for DirLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirLock")
    }
}

/// Takes the folder for this process, making it where needed.
///
/// # Errors
/// [`IdentityError::Locked`] when another holder lives, or what the system says.
pub fn lock_dir(disk: &dyn Disk, dir: &Path) -> Result<DirLock, IdentityError> {
    disk.create_dir(dir).map_err(|e| IdentityError::io("make folder", dir, e))?;
    match disk.lock(dir) {
        Ok(held) => Ok(DirLock { _held: held }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(IdentityError::Locked { path: dir.into() })
        }
        Err(error) => Err(IdentityError::io("lock", dir, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::lock_dir;
    use crate::{Disk, FsDisk, fault::MemDisk};

    #[test]
    fn a_folder_has_one_holder_and_is_free_after_the_drop() {
        let dir = tempfile::tempdir().expect("temp folder");
        for disk in [&FsDisk as &dyn Disk, &MemDisk::default()] {
            let held = lock_dir(disk, dir.path()).expect("free folder");
            let error = lock_dir(disk, dir.path()).expect_err("held folder");
            assert!(error.to_string().contains("in use by another process"), "{error}");
            drop(held);
            lock_dir(disk, dir.path()).expect("free again");
        }
    }
}
