//! The disk as the journal calls it. Invariant: every call asks first whether the process lives.

use std::{any::Any, io, path::Path, sync::Arc};

use tako_journal::{Disk, DiskFile};

use super::{Shared, SimDisk};

#[derive(Debug)]
struct SimFile {
    inner: Arc<dyn DiskFile>,
    disk: Arc<Shared>,
}

impl SimDisk {
    fn file(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { inner, disk: self.0.clone() })
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.change("create failed", |_| self.0.faults.create_dir(path))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let _state = self.0.alive()?;
        let opened = self.0.faults.open(path).inspect_err(|e| self.0.count("open failed", e))?;
        Ok(self.file(opened))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.change("create failed", |_| self.0.faults.create(path)).map(|made| self.file(made))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.change("rename failed", |_| self.0.faults.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.change("remove failed", |_| self.0.faults.remove(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let _state = self.0.alive()?;
        self.0.faults.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.change("folder sync failed", |_| self.0.faults.sync_dir(dir))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.change("create failed", |_| self.0.faults.link(from, to))
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.alive().is_ok_and(|_state| self.0.faults.exists(path))
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let _state = self.0.alive()?;
        self.0.faults.lock(dir)
    }

    fn boot_id(&self) -> io::Result<String> {
        let _state = self.0.alive()?;
        Ok(format!("boot-{}", self.0.boot))
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let _state = self.disk.alive()?;
        self.inner.len()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.change("write failed", |state| {
            self.disk.room(state, self.inner.len()?, bytes)?;
            self.inner.allocate(bytes)
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let _state = self.disk.alive()?;
        self.inner.read_at(buffer, offset).inspect_err(|e| self.disk.count("read failed", e))
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        let taken = self.disk.change("write failed", |state| {
            self.disk.room(state, self.inner.len()?, offset + buffer.len() as u64)?;
            self.inner.write_at(buffer, offset)
        })?;
        if taken < buffer.len() {
            self.disk.counts.add("short write");
        }
        Ok(taken)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.change("sync failed", |_| self.inner.sync_data())
    }
}
