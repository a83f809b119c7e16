//! Keeps room: prepares the next file ahead, removes files nobody needs, watches the budget.
//!
//! Invariant: `used_bytes` counts every file of the journal on disk, the spare included, from
//! before it is made until after it is removed. A spare is full of zeros and synced before it is
//! handed out, and no other is begun under its name before it bears one of its own. Runs on a second thread; without one (a simulator) the writer does the work itself.
//! Not here: what goes into files.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex, MutexGuard};

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
    /// Handed out, and not renamed yet.
    Taken,
}

/// What a turn of the thread came to.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Done,
    Nothing,
    Closing,
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
    /// Held while files are removed.
    removing: Mutex<()>,
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
            removing: Mutex::default(),
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
                    state.spare = Spare::Taken;
                    return Ok(blank);
                }
                Spare::Preparing => self.changed.wait(&mut state),
                Spare::Missing | Spare::Taken => break,
            }
        }
        drop(state);
        let result = self.prepare(SPARE, self.file_bytes, true);
        let next = if result.is_ok() { Spare::Taken } else { Spare::Missing };
        self.state.lock().spare = next;
        self.changed.notify_all();
        result
    }

    /// The blank that was taken bears its own name now: the next spare may be prepared.
    pub(crate) fn on_named(&self) {
        let mut state = self.state.lock();
        if matches!(state.spare, Spare::Taken) {
            state.spare = Spare::Missing;
            self.changed.notify_all();
        }
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
        self.on_named();
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

    /// Removes what was handed over; on return it is gone, whoever removed it.
    pub(crate) fn remove_now(&self) {
        let _until_removed = self.removing.lock();
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
            match self.turn(&mut state) {
                Turn::Done => {}
                Turn::Nothing => self.changed.wait(&mut state),
                Turn::Closing => return,
            }
        }
    }

    /// Does one thing that is due, without the lock.
    fn turn(&self, state: &mut MutexGuard<'_, State>) -> Turn {
        if !state.removals.is_empty() {
            MutexGuard::unlocked(state, || self.remove_now());
            return Turn::Done;
        }
        if state.closing {
            return Turn::Closing;
        }
        if !state.wanted || !matches!(state.spare, Spare::Missing) {
            return Turn::Nothing;
        }
        state.wanted = false;
        state.spare = Spare::Preparing;
        let prepare = || self.prepare(SPARE, self.file_bytes, true);
        state.spare = match MutexGuard::unlocked(state, prepare) {
            Ok(blank) => Spare::Ready(blank),
            // Whoever needs the file tries again and deals with the error.
            Err(error) => {
                tracing::debug!(?error, "no spare journal file");
                Spare::Missing
            }
        };
        self.changed.notify_all();
        Turn::Done
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::MemDisk;

    #[test]
    fn no_spare_is_begun_in_place_of_one_that_was_taken_and_has_no_name_of_its_own_yet() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::default());
        let dir = Path::new("/journal");
        disk.create_dir(dir).expect("in memory");
        let keeper = Keeper::new(dir, disk.clone(), (4096, 1 << 20), true);
        for file in 1..=2 {
            let blank = keeper.take(4096).expect("room");
            blank.handle.write_at(b"header", 0).expect("in memory");
            // Files were removed meanwhile: the thread is to look whether it can prepare one now.
            keeper.want_spare();
            assert_eq!(keeper.turn(&mut keeper.state.lock()), Turn::Nothing);
            disk.rename(&blank.path, &path_of(dir, file)).expect("it is there");
            keeper.on_named();
            let read = crate::disk::read_all(disk.as_ref(), &path_of(dir, file)).expect("there");
            assert!(read.starts_with(b"header"), "file {file} is not the one that was taken");
            // The second round takes what was prepared, not made on the spot.
            assert_eq!(keeper.turn(&mut keeper.state.lock()), Turn::Done);
            keeper.want_spare();
        }
    }
}
