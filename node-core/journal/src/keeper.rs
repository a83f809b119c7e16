//! Keeps room: prepares the next file ahead, removes files nobody needs, watches the budget.
//!
//! Invariant: `used_bytes` counts every file of the journal on disk, the spare included, from
//! before it is made until after it is removed. A spare is full of zeros and synced before it is
//! handed out. Runs on a second thread; without one (a simulator) the writer does the work itself.
//! Not here: what goes into files.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};

use crate::{Disk, DiskFile, disk::write_all_at, files::path_of};

/// Names of files in preparation; whatever bears them at the start is removed.
pub(crate) const SPARE: &str = "spare.tmp";
pub(crate) const SPARE_LARGE: &str = "spare-large.tmp";

const ZEROS: &[u8] = &[0; 256 << 10];

/// Why there is no new file.
#[derive(Debug)]
pub(crate) enum KeepError {
    /// Budget or disk; may pass.
    Full(String),
    /// The disk is not to be trusted any more.
    Fatal(String),
}

impl KeepError {
    /// Sorts an error of the system: those that pass when room is made, and the rest.
    pub(crate) fn of(what: &str, error: &io::Error) -> Self {
        if is_full(error) {
            Self::Full(format!("{what}: {error}"))
        } else {
            Self::Fatal(format!("{what}: {error}"))
        }
    }
}

/// True for errors that say "no room" (space, quota, file handles), not "broken".
pub(crate) fn is_full(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let no_handle = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || error.raw_os_error().is_some_and(|code| no_handle.contains(&code))
}

/// A file ready to get its header.
#[derive(Debug)]
pub(crate) struct Blank {
    pub(crate) handle: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
enum Spare {
    Missing,
    Preparing,
    Ready(Blank),
}

#[derive(Debug)]
struct State {
    spare: Spare,
    /// One attempt at a spare is due.
    wanted: bool,
    used_bytes: u64,
    removals: Vec<(u64, u64)>,
    threaded: bool,
    closing: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Keeper {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    file_bytes: u64,
    budget_bytes: u64,
    sync: bool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Keeper {
    pub(crate) fn new(
        dir: &Path,
        disk: Arc<dyn Disk>,
        (file_bytes, budget_bytes): (u64, u64),
        sync: bool,
    ) -> Self {
        let state = State {
            spare: Spare::Missing,
            wanted: false,
            used_bytes: 0,
            removals: Vec::new(),
            threaded: false,
            closing: false,
        };
        Self {
            dir: dir.into(),
            disk,
            file_bytes,
            budget_bytes,
            sync,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes
    }

    pub(crate) fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// Counts files found at the start.
    pub(crate) fn count_used(&self, bytes: u64) {
        self.state.lock().used_bytes += bytes;
    }

    /// Forgets all files: they were moved away.
    pub(crate) fn forget_used(&self) {
        self.state.lock().used_bytes = 0;
    }

    /// A blank file of at least `bytes`; waits for one in preparation, else makes it here.
    pub(crate) fn take(&self, bytes: u64) -> Result<Blank, KeepError> {
        if self.file_bytes < bytes {
            // Its one group fills it at once, so writing zeros first would only cost.
            return self.prepare(SPARE_LARGE, bytes.next_multiple_of(4096), false);
        }
        let mut state = self.state.lock();
        loop {
            match std::mem::replace(&mut state.spare, Spare::Preparing) {
                Spare::Ready(blank) => {
                    state.spare = Spare::Missing;
                    return Ok(blank);
                }
                Spare::Preparing => self.changed.wait(&mut state),
                Spare::Missing => break,
            }
        }
        drop(state);
        let result = self.prepare(SPARE, self.file_bytes, true);
        self.state.lock().spare = Spare::Missing;
        self.changed.notify_all();
        result
    }

    /// Asks the thread for the next spare; without a thread [`Self::take`] makes it.
    pub(crate) fn want_spare(&self) {
        self.state.lock().wanted = true;
        self.changed.notify_all();
    }

    /// Gives back a blank that could not be used.
    pub(crate) fn discard(&self, blank: Blank) {
        drop(blank.handle);
        if let Err(error) = self.disk.remove(&blank.path) {
            tracing::warn!(path = %blank.path.display(), %error, "could not remove a spare file");
        }
        self.state.lock().used_bytes -= blank.bytes;
    }

    /// Hands over files to remove: (number, bytes).
    pub(crate) fn remove(&self, files: Vec<(u64, u64)>) {
        let mut state = self.state.lock();
        state.removals.extend(files);
        let threaded = state.threaded;
        drop(state);
        if threaded {
            self.changed.notify_all();
        } else {
            self.remove_now();
        }
    }

    /// Removes here and now what was handed over.
    pub(crate) fn remove_now(&self) {
        let files = std::mem::take(&mut self.state.lock().removals);
        if files.is_empty() {
            return;
        }
        let mut freed = 0;
        for (file, bytes) in files {
            match self.disk.remove(&path_of(&self.dir, file)) {
                Ok(()) => freed += bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => freed += bytes,
                // It stays counted; the next start removes it.
                Err(error) => tracing::warn!(file, %error, "could not remove a journal file"),
            }
        }
        if let Err(error) = self.sync_dir() {
            tracing::warn!(%error, "could not sync the journal's folder after removing files");
        }
        let mut state = self.state.lock();
        state.used_bytes -= freed;
        state.wanted |= matches!(state.spare, Spare::Missing);
        self.changed.notify_all();
    }

    pub(crate) fn sync_dir(&self) -> io::Result<()> {
        if self.sync { self.disk.sync_dir(&self.dir) } else { Ok(()) }
    }

    /// From now on [`Self::run`] does the work.
    pub(crate) fn set_threaded(&self) {
        self.state.lock().threaded = true;
    }

    /// The thread's body: until [`Self::close`].
    pub(crate) fn run(&self) {
        let mut state = self.state.lock();
        loop {
            if !state.removals.is_empty() {
                drop(state);
                self.remove_now();
                state = self.state.lock();
            } else if state.closing {
                return;
            } else if state.wanted && matches!(state.spare, Spare::Missing) {
                state.wanted = false;
                state.spare = Spare::Preparing;
                drop(state);
                let result = self.prepare(SPARE, self.file_bytes, true);
                state = self.state.lock();
                state.spare = match result {
                    Ok(blank) => Spare::Ready(blank),
                    // Whoever needs the file tries again and deals with the error.
                    Err(error) => {
                        tracing::debug!(?error, "no spare journal file");
                        Spare::Missing
                    }
                };
                self.changed.notify_all();
            } else {
                self.changed.wait(&mut state);
            }
        }
    }

    /// Ends [`Self::run`].
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_all();
    }

    /// Removes the spare; after the thread has ended.
    pub(crate) fn clear(&self) {
        let spare = std::mem::replace(&mut self.state.lock().spare, Spare::Missing);
        if let Spare::Ready(blank) = spare {
            self.discard(blank);
        }
    }

    fn prepare(&self, name: &str, bytes: u64, zero: bool) -> Result<Blank, KeepError> {
        let mut state = self.state.lock();
        if self.budget_bytes < state.used_bytes + bytes {
            return Err(KeepError::Full("the journal's budget is used up".into()));
        }
        state.used_bytes += bytes;
        drop(state);
        let path = self.dir.join(name);
        match self.make(&path, bytes, zero) {
            Ok(handle) => Ok(Blank { handle, path, bytes }),
            Err(error) => {
                // A half-made file would hold the very room that is missing.
                let _best_effort = self.disk.remove(&path);
                self.state.lock().used_bytes -= bytes;
                Err(error)
            }
        }
    }

    fn make(&self, path: &Path, bytes: u64, zero: bool) -> Result<Arc<dyn DiskFile>, KeepError> {
        let handle = match self.disk.create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(path).map_err(|e| KeepError::of("remove old spare", &e))?;
                self.disk.create(path)
            }
            other => other,
        }
        .map_err(|e| KeepError::of("create file", &e))?;
        handle.allocate(bytes).map_err(|e| KeepError::of("reserve room", &e))?;
        let mut offset = 0;
        while zero && offset < bytes {
            let part = ZEROS.len().min(usize::try_from(bytes - offset).unwrap_or(usize::MAX));
            write_all_at(handle.as_ref(), &ZEROS[..part], offset)
                .map_err(|(_, e)| KeepError::of("write zeros", &e))?;
            offset += part as u64;
        }
        if self.sync {
            handle.sync_data().map_err(|e| KeepError::of("sync a new file", &e))?;
        }
        Ok(handle)
    }
}
