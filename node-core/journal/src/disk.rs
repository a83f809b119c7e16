//! The disk as the journal sees it: a parameter, so that tests can make it fail.
//!
//! All calls block; the journal makes them on its own threads only, apart from
//! [`crate::Journal::open`] and [`crate::Journal::read`], which the caller places (with
//! [`crate::Blocking`]).

use std::{any::Any, fmt, fs, io, os::unix::fs::FileExt, path::Path, sync::Arc};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

/// Folders and names.
///
/// Implementer must: make create, rename and remove durable at the latest at [`Disk::sync_dir`]
/// of the folder, in their order.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes a folder and those above it; fine if it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file to read it; one that may not be written will do.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }
    /// Makes a file; an error if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, in place of another if the name is taken; or a folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes the folder's names durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives a file a second name.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Whether a file or folder has this name.
    fn exists(&self, path: &Path) -> bool;
    /// Holds a folder until the answer is dropped; `WouldBlock` while another holder lives, in any
    /// process.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;
    /// The machine's boot, as the kernel names it: what was not synced is lost where it differs.
    fn boot_id(&self) -> io::Result<String>;
}

/// All bytes of a file.
///
/// # Errors
/// What the disk says; `NotFound` where there is none.
pub fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(disk, path, usize::MAX)
}

/// The first bytes of a file, at most `bytes_max`; fewer only where it has no more.
///
/// # Errors
/// What the disk says; `NotFound` where there is none.
pub fn read_up_to(disk: &dyn Disk, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = disk.open_to_read(path)?;
    let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length.min(bytes_max)];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Writes a file in place of the one before, by way of `<name>.tmp`.
///
/// # Guarantee
/// After `Ok` the new one is durable; after an error or a crash the old or the new one is whole.
///
/// # Errors
/// What the disk says.
pub fn replace_file(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    disk.create_dir(dir)?;
    let draft = dir.join(format!("{name}.tmp"));
    let file = match disk.create(&draft) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&draft)?;
            disk.create(&draft)
        }
        other => other,
    }?;
    write_all_at(file.as_ref(), bytes, 0).map_err(|(_, error)| error)?;
    file.sync_data()?;
    disk.rename(&draft, &dir.join(name))?;
    disk.sync_dir(dir)
}

/// One open file; calls at different offsets may overlap in time.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True for a file without bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Makes the file `bytes` long with room reserved; what was not there reads as zeros.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Fills `buffer` from `offset`; `UnexpectedEof` where the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes a first part of `buffer` and says how much.
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes what was written durable, length included.
    fn sync_data(&self) -> io::Result<()>;
}

/// Writes all of `buffer`; on an error also says how many bytes had been taken before it.
///
/// # Errors
/// The first error of the file, with the count of bytes written.
pub fn write_all_at(
    file: &dyn DiskFile,
    buffer: &[u8],
    offset: u64,
) -> Result<(), (usize, io::Error)> {
    let mut done = 0;
    while done < buffer.len() {
        match file.write_at(&buffer[done..], offset + done as u64) {
            Ok(0) => return Err((done, io::ErrorKind::WriteZero.into())),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((done, error)),
        }
    }
    Ok(())
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct FsDisk;

impl Disk for FsDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FsFile(fs::OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FsFile(fs::File::open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(FsFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in fs::read_dir(dir)? {
            // A name that is not UTF-8 is not ours.
            if let Ok(name) = item?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let path = dir.join("lock");
        let file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
        // It belongs to the open file, so it goes with the process however that ends.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn boot_id(&self) -> io::Result<String> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(text.trim().to_owned())
    }
}

#[derive(Debug)]
struct FsFile(fs::File);

impl DiskFile for FsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            // Some file systems cannot reserve; the zeros written later do it there.
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(bytes),
            other => Ok(other?),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
