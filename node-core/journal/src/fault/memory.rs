//! A disk in memory. Invariant: clones share everything, a deep copy shares nothing.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

use crate::{Disk, DiskFile};

#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) files: BTreeMap<PathBuf, MemFile>,
    pub(super) dirs: BTreeSet<PathBuf>,
    held: BTreeSet<PathBuf>,
    boots: u64,
}

impl Tree {
    /// Gives a file or a folder with all in it another name; false where there is none.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> bool {
        if let Some(file) = self.files.remove(from) {
            self.files.insert(to.into(), file);
            return true;
        }
        let moved = |path: &PathBuf| path.strip_prefix(from).ok().map(|rest| to.join(rest));
        let dirs: Vec<_> = self.dirs.iter().filter_map(|d| Some((d.clone(), moved(d)?))).collect();
        let files: Vec<_> =
            self.files.keys().filter_map(|f| Some((f.clone(), moved(f)?))).collect();
        for (old, new) in &dirs {
            self.dirs.remove(old);
            // `join` of nothing leaves a slash at the end.
            self.dirs.insert(new.components().collect());
        }
        for (old, new) in &files {
            if let Some(file) = self.files.remove(old) {
                self.files.insert(new.clone(), file);
            }
        }
        !(dirs.is_empty() && files.is_empty())
    }
}

/// A disk in memory; clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemDisk(Arc<Mutex<Tree>>);

#[derive(Debug, Clone, Default)]
pub(super) struct MemFile(Arc<Mutex<Vec<u8>>>);

impl MemDisk {
    pub(super) fn tree(&self) -> MutexGuard<'_, Tree> {
        self.0.lock()
    }

    /// A copy that shares nothing with this one.
    #[must_use]
    pub fn deep_copy(&self) -> Self {
        let tree = self.0.lock();
        // A file with two names stays one.
        let mut copies: BTreeMap<*const Mutex<Vec<u8>>, MemFile> = BTreeMap::new();
        let mut copy = |file: &MemFile| {
            let fresh = || MemFile(Arc::new(Mutex::new(file.0.lock().clone())));
            copies.entry(Arc::as_ptr(&file.0)).or_insert_with(fresh).clone()
        };
        let files = tree.files.iter().map(|(path, file)| (path.clone(), copy(file))).collect();
        let (dirs, boots) = (tree.dirs.clone(), tree.boots);
        Self(Arc::new(Mutex::new(Tree { files, dirs, held: BTreeSet::new(), boots })))
    }

    /// From now on the machine was started anew.
    pub fn reboot(&self) {
        self.0.lock().boots += 1;
    }

    /// Removes a folder with all in it.
    pub fn remove_dir(&self, dir: &Path) {
        let mut tree = self.0.lock();
        tree.files.retain(|path, _| !path.starts_with(dir));
        tree.dirs.retain(|path| !path.starts_with(dir));
    }

    /// Changes a file's bytes behind everybody's back; false where it does not exist.
    pub fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let file = self.0.lock().files.get(path).cloned();
        file.map(|file| change(&mut file.0.lock())).is_some()
    }

    /// Bytes of all files together; one with two names counts twice.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.0.lock().files.values().map(|file| file.0.lock().len() as u64).sum()
    }

    /// Paths of all files.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().files.keys().cloned().collect()
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for MemDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.lock().dirs.insert(path.into());
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.lock().files.get(path).cloned().ok_or_else(missing)?;
        Ok(Arc::new(file))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut tree = self.0.lock();
        if tree.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = MemFile::default();
        tree.files.insert(path.into(), file.clone());
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.0.lock().rename(from, to) { Ok(()) } else { Err(missing()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().files.remove(path).map(drop).ok_or_else(missing)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let tree = self.0.lock();
        let within = tree.files.keys().chain(&tree.dirs).filter(|path| path.parent() == Some(dir));
        let names = within.filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        Ok(names.collect())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.0.lock();
        let file = tree.files.get(from).cloned().ok_or_else(missing)?;
        tree.files.insert(to.into(), file);
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        let tree = self.0.lock();
        tree.files.contains_key(path)
            || tree.dirs.iter().chain(tree.files.keys()).any(|held| held.starts_with(path))
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        if !self.0.lock().held.insert(dir.into()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Held { disk: self.clone(), dir: dir.into() }))
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(format!("boot-{}", self.0.lock().boots))
    }
}

/// A folder that is held.
struct Held {
    disk: MemDisk,
    dir: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.0.lock().held.remove(&self.dir);
    }
}

impl MemFile {
    pub(super) fn put(&self, bytes: &[u8], offset: u64) {
        let mut data = self.0.lock();
        let start = offset as usize;
        if data.len() < start + bytes.len() {
            data.resize(start + bytes.len(), 0);
        }
        data[start..start + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn lengthen(&self, bytes: u64) {
        let mut data = self.0.lock();
        let length = data.len().max(bytes as usize);
        data.resize(length, 0);
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.lengthen(bytes);
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let data = self.0.lock();
        let range = offset as usize..offset as usize + buffer.len();
        let part = data.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.put(buffer, offset);
        Ok(buffer.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
