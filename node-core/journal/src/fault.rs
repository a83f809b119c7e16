//! Disks for tests and simulation: one in memory, and one that fails and records.
//!
//! [`FaultDisk`] over any disk fails chosen calls, bounds the space and records every change;
//! [`surviving`] builds the disk that a crash after any prefix of the record may leave behind.
//! Invariant: what was synced is in every surviving disk. Not here: chance; it comes in.

mod crash;
mod memory;

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

pub use crash::{Kept, SECTOR_BYTES, all_synced, surviving};
pub use memory::MemDisk;

use crate::{Disk, DiskFile};

/// Kinds of calls that can be counted and made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// [`Disk::create`]
    Create,
    /// [`Disk::open`]
    Open,
    /// [`Disk::rename`]
    Rename,
    /// [`Disk::remove`]
    Remove,
    /// [`Disk::sync_dir`]
    SyncDir,
    /// [`DiskFile::allocate`]
    Allocate,
    /// [`DiskFile::read_at`]
    Read,
    /// [`DiskFile::write_at`]
    Write,
    /// [`DiskFile::sync_data`]
    SyncData,
}

/// What happens to a chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, this error comes.
    Error(io::ErrorKind),
    /// A write takes half of the bytes and says so.
    Short,
    /// A write takes half of the bytes, then this error comes.
    Half(io::ErrorKind),
}

/// One recorded change; files are numbered in the order in which they were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A folder was made.
    CreateDir(PathBuf),
    /// A file was made.
    Create(PathBuf, u64),
    /// An existing file was opened.
    Open(PathBuf, u64),
    /// A file got another name.
    Rename(PathBuf, PathBuf),
    /// A name was removed.
    Remove(PathBuf),
    /// A file got a second name.
    Link(PathBuf, PathBuf),
    /// Names became durable.
    SyncDir(PathBuf),
    /// A file was made this long.
    Allocate(u64, u64),
    /// Bytes were written: file, offset, bytes.
    Write(u64, u64, Vec<u8>),
    /// A file's bytes became durable.
    SyncData(u64),
    /// A sync failed: what it was to make durable may be lost, whatever later syncs say.
    SyncFailed(u64),
}

#[derive(Debug, Default)]
struct Faults {
    counts: BTreeMap<Call, u64>,
    /// Call kind, its count at which it fails (`None`: from now on), and how.
    planned: Vec<(Call, Option<u64>, Fault)>,
    space_bytes: Option<u64>,
    sizes: BTreeMap<u64, u64>,
    names: BTreeMap<PathBuf, u64>,
    files: u64,
    ops: Option<Vec<Op>>,
    recorded_bytes: usize,
}

impl Faults {
    /// Counts a call and says what is planned for it.
    fn meet(&mut self, call: Call) -> Option<Fault> {
        let count = self.counts.entry(call).or_default();
        *count += 1;
        let count = *count;
        self.planned
            .iter()
            .find(|(kind, nth, _)| *kind == call && nth.is_none_or(|nth| nth == count))
            .map(|(_, _, fault)| *fault)
    }

    fn check(&mut self, call: Call) -> io::Result<()> {
        match self.meet(call) {
            Some(Fault::Error(kind) | Fault::Half(kind)) => Err(kind.into()),
            Some(Fault::Short) | None => Ok(()),
        }
    }

    fn record(&mut self, op: impl FnOnce() -> Op) {
        if let Some(ops) = &mut self.ops {
            let op = op();
            if let Op::Write(_, _, bytes) = &op {
                self.recorded_bytes += bytes.len();
            }
            ops.push(op);
        }
    }

    fn number(&mut self, path: &Path) -> u64 {
        self.files += 1;
        self.names.insert(path.into(), self.files);
        self.files
    }

    fn grow(&mut self, file: u64, bytes: u64) -> io::Result<()> {
        let others: u64 = self.sizes.iter().filter(|(f, _)| **f != file).map(|(_, b)| b).sum();
        let size = self.sizes.get(&file).copied().unwrap_or(0).max(bytes);
        if self.space_bytes.is_some_and(|space| space < others + size) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.sizes.insert(file, size);
        Ok(())
    }
}

/// A disk that passes calls on, except those that shall fail.
#[derive(Debug, Clone)]
pub struct FaultDisk {
    inner: Arc<dyn Disk>,
    faults: Arc<Mutex<Faults>>,
}

impl FaultDisk {
    /// Wraps a disk; nothing fails yet, nothing is recorded.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner, faults: Arc::default() }
    }

    /// The `nth` call of this kind from now on (1 = the next) meets `fault`.
    pub fn fail_nth(&self, call: Call, nth: u64, fault: Fault) {
        let mut faults = self.faults.lock();
        let at = faults.counts.get(&call).copied().unwrap_or(0) + nth;
        faults.planned.push((call, Some(at), fault));
    }

    /// Every call of this kind from now on meets `fault`.
    pub fn fail_always(&self, call: Call, fault: Fault) {
        self.faults.lock().planned.push((call, None, fault));
    }

    /// Nothing planned fails any more.
    pub fn heal(&self) {
        self.faults.lock().planned.clear();
    }

    /// All files together may have this many bytes; `None` for no bound.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.faults.lock().space_bytes = bytes;
    }

    /// How many calls of this kind there were.
    #[must_use]
    pub fn count(&self, call: Call) -> u64 {
        self.faults.lock().counts.get(&call).copied().unwrap_or(0)
    }

    /// Records changes from here on.
    pub fn record(&self) {
        self.record_after(Vec::new());
    }

    /// Records changes from here on, behind those of processes that used the disk before.
    pub fn record_after(&self, before: Vec<Op>) {
        let mut faults = self.faults.lock();
        let bytes = |op: &Op| if let Op::Write(_, _, bytes) = op { bytes.len() } else { 0 };
        faults.recorded_bytes = before.iter().map(bytes).sum();
        faults.ops = Some(before);
    }

    /// Looks at the record without copying it.
    pub fn with_ops<T>(&self, look: impl FnOnce(&[Op]) -> T) -> T {
        look(self.faults.lock().ops.as_deref().unwrap_or_default())
    }

    /// Records anew from here on, as if the present state had been the first one.
    pub fn restart_record(&self) {
        let mut faults = self.faults.lock();
        // Files that are open keep their numbers.
        let open = faults.names.iter().map(|(path, file)| Op::Open(path.clone(), *file)).collect();
        faults.ops = Some(open);
        faults.recorded_bytes = 0;
    }

    /// How many bytes the recorded writes hold.
    #[must_use]
    pub fn recorded_bytes(&self) -> usize {
        self.faults.lock().recorded_bytes
    }

    /// What was recorded so far.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.faults.lock().ops.clone().unwrap_or_default()
    }

    /// How many changes were recorded so far.
    #[must_use]
    pub fn op_count(&self) -> usize {
        self.faults.lock().ops.as_ref().map_or(0, Vec::len)
    }
}

impl Disk for FaultDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut faults = self.faults.lock();
        self.inner.create_dir(path)?;
        faults.record(|| Op::CreateDir(path.into()));
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut faults = self.faults.lock();
        faults.check(Call::Open)?;
        let inner = self.inner.open(path)?;
        let file = match faults.names.get(path) {
            Some(file) => *file,
            None => faults.number(path),
        };
        faults.sizes.insert(file, inner.len()?);
        faults.record(|| Op::Open(path.into(), file));
        Ok(Arc::new(FaultFile { inner, file, faults: self.faults.clone() }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut faults = self.faults.lock();
        faults.check(Call::Create)?;
        let inner = self.inner.create(path)?;
        let file = faults.number(path);
        faults.record(|| Op::Create(path.into(), file));
        Ok(Arc::new(FaultFile { inner, file, faults: self.faults.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut faults = self.faults.lock();
        faults.check(Call::Rename)?;
        self.inner.rename(from, to)?;
        if let Some(file) = faults.names.remove(from)
            && let Some(replaced) = faults.names.insert(to.into(), file)
        {
            faults.sizes.remove(&replaced);
        }
        // A folder takes its files along.
        let within: Vec<PathBuf> =
            faults.names.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in within {
            let file = faults.names.remove(&path);
            if let (Some(file), Ok(rest)) = (file, path.strip_prefix(from)) {
                faults.names.insert(to.join(rest), file);
            }
        }
        faults.record(|| Op::Rename(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut faults = self.faults.lock();
        faults.check(Call::Remove)?;
        self.inner.remove(path)?;
        if let Some(file) = faults.names.remove(path) {
            faults.sizes.remove(&file);
        }
        faults.record(|| Op::Remove(path.into()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut faults = self.faults.lock();
        faults.check(Call::SyncDir)?;
        self.inner.sync_dir(dir)?;
        faults.record(|| Op::SyncDir(dir.into()));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut faults = self.faults.lock();
        faults.check(Call::Create)?;
        self.inner.link(from, to)?;
        faults.record(|| Op::Link(from.into(), to.into()));
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.inner.lock(dir)
    }

    fn boot_id(&self) -> io::Result<String> {
        self.inner.boot_id()
    }
}

#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn DiskFile>,
    file: u64,
    faults: Arc<Mutex<Faults>>,
}

impl DiskFile for FaultFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut faults = self.faults.lock();
        faults.check(Call::Allocate)?;
        faults.grow(self.file, bytes)?;
        self.inner.allocate(bytes)?;
        faults.record(|| Op::Allocate(self.file, bytes));
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.faults.lock().check(Call::Read)?;
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        let mut faults = self.faults.lock();
        let fault = faults.meet(Call::Write);
        if let Some(Fault::Error(kind)) = fault {
            return Err(kind.into());
        }
        let taken = if fault.is_some() { buffer.len().div_ceil(2) } else { buffer.len() };
        faults.grow(self.file, offset + taken as u64)?;
        let count = self.inner.write_at(&buffer[..taken], offset)?;
        faults.record(|| Op::Write(self.file, offset, buffer[..count].to_vec()));
        match fault {
            Some(Fault::Half(kind)) => Err(kind.into()),
            _ => Ok(count),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        // The lock is not held over the sync: others may write and queue meanwhile.
        let checked = self.faults.lock().check(Call::SyncData);
        let done = checked.and_then(|()| self.inner.sync_data());
        let op = if done.is_ok() { Op::SyncData } else { Op::SyncFailed };
        self.faults.lock().record(|| op(self.file));
        done
    }
}
