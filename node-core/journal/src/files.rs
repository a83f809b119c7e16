//! The table of journal files: which are there, how much of each is still needed.
//!
//! Invariant: a file's needed count is the number of its entries that were given to the sink and
//! not released. The current (last) file is never up for removal. Quarantined files stay readable
//! here while the process lives, but count for nothing else.
//! Not here: I/O, apart from the handles it keeps.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    DiskFile, Location,
    format::{ENTRY_HEADER_BYTES, NUMBER_MAX},
};

/// The name of a numbered file.
pub(crate) fn path_of(dir: &Path, file: u64) -> PathBuf {
    dir.join(format!("{file:020}.log"))
}

/// The number in a name; `None` for a name that is not a journal file's, as no journal reaches such
/// a number.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
        .filter(|number| *number <= NUMBER_MAX)
}

#[derive(Debug)]
struct FileState {
    handle: Arc<dyn DiskFile>,
    bytes: u64,
    needed_count: u64,
    needed_bytes: u64,
    quarantined: bool,
}

/// All files that can be read.
#[derive(Debug, Default)]
pub(crate) struct Files {
    table: Mutex<BTreeMap<u64, FileState>>,
}

impl Files {
    pub(crate) fn insert(&self, file: u64, handle: Arc<dyn DiskFile>, bytes: u64) {
        let state =
            FileState { handle, bytes, needed_count: 0, needed_bytes: 0, quarantined: false };
        self.table.lock().insert(file, state);
    }

    /// Counts entries as needed; before the sink learns of them.
    pub(crate) fn need(&self, file: u64, count: u64, bytes: u64) {
        if let Some(state) = self.table.lock().get_mut(&file) {
            state.needed_count += count;
            state.needed_bytes += bytes;
        }
    }

    /// Uncounts one entry; true when from now on a file can go: nobody needs it or any older one.
    ///
    /// An older file that is free already may still be in the table, as removing is the
    /// committer's and comes later; it must not hide this one.
    pub(crate) fn release(&self, location: Location) -> bool {
        let mut table = self.table.lock();
        let Some(state) = table.get_mut(&location.file) else { return false };
        state.needed_count = state.needed_count.saturating_sub(1);
        let bytes = ENTRY_HEADER_BYTES + u64::from(location.bytes);
        state.needed_bytes = state.needed_bytes.saturating_sub(bytes);
        if state.needed_count > 0 {
            return false;
        }
        if state.quarantined {
            table.remove(&location.file);
            return false;
        }
        let last = table.keys().next_back().copied();
        last != Some(location.file)
            && table
                .range(..location.file)
                .all(|(_, older)| older.quarantined || older.needed_count == 0)
    }

    /// The oldest file anybody needs; the last file where nobody needs any.
    pub(crate) fn oldest_needed(&self) -> u64 {
        let table = self.table.lock();
        let last = table.keys().next_back().copied().unwrap_or(0);
        let needed = |state: &FileState| !state.quarantined && state.needed_count > 0;
        table.iter().find(|(_, state)| needed(state)).map_or(last, |(file, _)| *file)
    }

    /// Takes the files below `oldest` out of the table, with their sizes.
    pub(crate) fn take_below(&self, oldest: u64) -> Vec<(u64, u64)> {
        let mut table = self.table.lock();
        let gone: Vec<(u64, u64)> = table
            .range(..oldest)
            .filter(|(_, state)| !state.quarantined)
            .map(|(file, state)| (*file, state.bytes))
            .collect();
        for (file, _) in &gone {
            table.remove(file);
        }
        gone
    }

    /// Marks all files as moved away: readable as long as they are needed, otherwise forgotten.
    pub(crate) fn quarantine_all(&self) {
        let mut table = self.table.lock();
        table.retain(|_, state| state.needed_count > 0);
        for state in table.values_mut() {
            state.quarantined = true;
        }
    }

    pub(crate) fn handle(&self, file: u64) -> Option<Arc<dyn DiskFile>> {
        self.table.lock().get(&file).map(|state| state.handle.clone())
    }

    /// The files in place before the last one, ascending.
    pub(crate) fn complete(&self) -> Vec<u64> {
        let table = self.table.lock();
        let in_place = table.iter().filter(|(_, state)| !state.quarantined);
        let mut files: Vec<u64> = in_place.map(|(file, _)| *file).collect();
        files.pop();
        files
    }

    /// Syncs every file in place.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        let handles: Vec<_> = self
            .table
            .lock()
            .values()
            .filter(|state| !state.quarantined)
            .map(|state| state.handle.clone())
            .collect();
        handles.iter().try_for_each(|handle| handle.sync_data())
    }

    /// The oldest file, when less than a tenth of it is needed and it is not the last.
    pub(crate) fn sparse(&self) -> Option<u64> {
        let table = self.table.lock();
        let last = *table.keys().next_back()?;
        let (file, state) = table.iter().find(|(_, state)| !state.quarantined)?;
        let sparse = state.needed_count > 0 && state.needed_bytes < state.bytes / 10;
        (*file != last && sparse).then_some(*file)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Disk, fault::MemDisk};

    #[test]
    fn a_file_freed_before_the_older_one_was_removed_can_go_too() {
        let disk = MemDisk::default();
        let files = Files::default();
        for file in 1..=3 {
            let handle = disk.create(Path::new(&format!("{file}"))).expect("a memory file");
            files.insert(file, handle, 100);
            files.need(file, 1, 10);
        }
        let at = |file| Location { file, offset: 0, bytes: 1 };
        assert!(files.release(at(1)));
        // Nobody removed file 1 yet.
        assert!(files.release(at(2)), "file 2 can go as well");
        assert!(!files.release(at(3)), "the last file never goes");
        assert_eq!(files.take_below(files.oldest_needed()).len(), 2);
    }

    #[test]
    fn a_file_above_a_needed_one_cannot_go() {
        let disk = MemDisk::default();
        let files = Files::default();
        for file in 1..=3 {
            let handle = disk.create(Path::new(&format!("{file}"))).expect("a memory file");
            files.insert(file, handle, 100);
            files.need(file, 1, 10);
        }
        let at = |file| Location { file, offset: 0, bytes: 1 };
        assert!(!files.release(at(2)));
        assert!(files.release(at(1)));
        assert_eq!(files.oldest_needed(), 3);
    }
}
