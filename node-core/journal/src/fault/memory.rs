//! A disk in memory, and what of it survives a crash.
//!
//! Invariant: names survive in the order in which they were changed (as with a journalling file
//! system); bytes that were not synced survive write by write, as the caller's `keep` says.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::Op;
use crate::{Disk, DiskFile};

#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<PathBuf, MemFile>,
    dirs: BTreeSet<PathBuf>,
    held: BTreeSet<PathBuf>,
    boots: u64,
}

impl Tree {
    /// Gives a file or a folder with all in it another name; false where there is none.
    fn rename(&mut self, from: &Path, to: &Path) -> bool {
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
struct MemFile(Arc<Mutex<Vec<u8>>>);

impl MemDisk {
    /// A copy that shares nothing with this one.
    #[must_use]
    pub fn deep_copy(&self) -> Self {
        let tree = self.0.lock();
        let copy = |file: &MemFile| MemFile(Arc::new(Mutex::new(file.0.lock().clone())));
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
    fn put(&self, bytes: &[u8], offset: u64) {
        let mut data = self.0.lock();
        let start = offset as usize;
        if data.len() < start + bytes.len() {
            data.resize(start + bytes.len(), 0);
        }
        data[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn lengthen(&self, bytes: u64) {
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

/// The disk after a crash that followed `ops`, which were recorded from the state `base`.
///
/// `keep` is asked for each change that was not synced; a kept write may also be cut by it: it
/// gets the write's length (0 for a change of names) and says how much of it survives. Changes of
/// names survive up to the first one for which it says `None`.
#[must_use]
pub fn surviving(
    base: &MemDisk,
    ops: &[Op],
    mut keep: impl FnMut(usize) -> Option<usize>,
) -> MemDisk {
    let disk = base.deep_copy();
    // What the process saw, as opposed to what survives.
    let mut seen: BTreeMap<PathBuf, MemFile> = disk.0.lock().files.clone();
    let mut numbered: BTreeMap<u64, MemFile> = BTreeMap::new();
    let names_synced = ops.iter().rposition(|op| matches!(op, Op::SyncDir(_)));
    let mut bytes_synced: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, op) in ops.iter().enumerate() {
        if let Op::SyncData(file) = op {
            bytes_synced.insert(*file, at);
        }
    }
    let mut names_survive = true;
    for (at, op) in ops.iter().enumerate() {
        let is_name = matches!(op, Op::Create(..) | Op::Rename(..) | Op::Remove(_) | Op::Link(..));
        if is_name && names_synced.is_none_or(|synced| synced < at) {
            names_survive = names_survive && keep(0).is_some();
        }
        let mut tree = disk.0.lock();
        let survives = |file: &u64, length: usize, keep: &mut dyn FnMut(usize) -> Option<usize>| {
            let synced = bytes_synced.get(file).is_some_and(|synced| at < *synced);
            if synced { Some(length) } else { keep(length) }
        };
        match op {
            Op::CreateDir(path) => drop(tree.dirs.insert(path.clone())),
            Op::Create(path, file) => {
                let made = MemFile::default();
                numbered.insert(*file, made.clone());
                seen.insert(path.clone(), made.clone());
                if names_survive {
                    tree.files.insert(path.clone(), made);
                }
            }
            Op::Open(path, file) => {
                if let Some(found) = seen.get(path) {
                    numbered.insert(*file, found.clone());
                }
            }
            Op::Rename(from, to) => {
                let paths: Vec<PathBuf> =
                    seen.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in paths {
                    let rest = path.strip_prefix(from).unwrap_or(&path);
                    let new = to.join(rest).components().collect();
                    if let Some(moved) = seen.remove(&path) {
                        seen.insert(new, moved);
                    }
                }
                if names_survive {
                    tree.rename(from, to);
                }
            }
            Op::Link(from, to) => {
                if let Some(file) = seen.get(from).cloned() {
                    seen.insert(to.clone(), file);
                }
                if names_survive && let Some(file) = tree.files.get(from).cloned() {
                    tree.files.insert(to.clone(), file);
                }
            }
            Op::Remove(path) => {
                seen.remove(path);
                if names_survive {
                    tree.files.remove(path);
                }
            }
            Op::Allocate(file, bytes) => {
                if survives(file, 0, &mut keep).is_some() {
                    numbered[file].lengthen(*bytes);
                }
            }
            Op::Write(file, offset, bytes) => {
                if let Some(part) = survives(file, bytes.len(), &mut keep) {
                    numbered[file].put(&bytes[..part.min(bytes.len())], *offset);
                }
            }
            Op::SyncDir(_) | Op::SyncData(_) => {}
        }
    }
    disk
}
