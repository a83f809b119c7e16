//! Reads the journal's files back, in order, and tells a torn tail from damage.
//!
//! Rules: docs/formats/journal.md, "Recovery". Invariant: an entry goes to the sink only after it
//! was made durable (again), and no file of a damaged journal is deleted.
//! Calls: parse.rs for the bytes. Not here: what the caller does about lost state.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use tako_types::Lsn;

use crate::{
    DiskFile, Durable, Entry, JournalError, Location, Sink,
    disk::write_all_at,
    files::{number_of, path_of},
    format::{
        ENTRY_HEADER_BYTES, FILE_HEADER_BYTES, FileHeader, GROUP_HEADER_BYTES, GroupKind,
        NUMBER_MAX, entries,
    },
    keeper::{SPARE, SPARE_LARGE},
    parse::{Parsed, parse},
    writer::{Current, Shared, begin_file},
};

/// Says that the journal was damaged and nobody has taken a new incarnation since.
pub(crate) const RESTART: &str = "restart";
const RESTART_TEMPORARY: &str = "restart.tmp";
const QUARANTINE: &str = "quarantine-";
/// After damage, LSNs go on this far above the highest one seen: unseen ones may have been given.
const LSN_GAP: u64 = 1 << 32;

/// What is wrong with the journal's files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("journal file {file} at offset {offset}: {reason}")]
pub struct Damage {
    /// Number of the file.
    pub file: u64,
    /// Offset in it.
    pub offset: u64,
    /// What was found.
    pub reason: String,
}

/// What was found on opening.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The journal's last LSN; the next entry gets the next one. After damage it lies above every
    /// LSN that was seen.
    pub last_lsn: Lsn,
    /// Entries given to the sink.
    pub entry_count: u64,
    /// Bytes of a torn tail that were cut.
    pub torn_bytes: u64,
    /// The first damage: lost state. Reported at every opening until [`crate::Journal::adopt`].
    pub damage: Option<Damage>,
    /// True where no journal was found and an empty one was made: lost state if there was one.
    pub created: bool,
}

/// A file that is read, with what the next one must agree with.
struct Read {
    file: u64,
    handle: Arc<dyn DiskFile>,
    parsed: Parsed,
}

/// A parsed file, or why it is no journal file.
type Attempt = Result<Parsed, String>;

struct Recovery<'a> {
    shared: &'a Shared,
    sink: &'a dyn Sink,
    recovered: Recovered,
    /// Highest LSN that anything speaks of.
    seen_lsn: u64,
    buffer: Vec<u8>,
}

/// Replays everything into the sink and makes ready to write; blocking.
///
/// Returns the current file and the oldest file that durable groups say is needed.
pub(crate) fn recover(
    shared: &Shared,
    sink: &dyn Sink,
) -> Result<(Current, u64, Recovered), JournalError> {
    let recovered = Recovered::default();
    Recovery { shared, sink, recovered, seen_lsn: 0, buffer: Vec::new() }.run()
}

impl Recovery<'_> {
    fn dir(&self) -> &Path {
        &self.shared.options.dir
    }

    fn damage(&mut self, file: u64, offset: u64, reason: impl Into<String>) {
        let damage = Damage { file, offset, reason: reason.into() };
        tracing::error!(%damage, "the journal is damaged");
        self.recovered.damage.get_or_insert(damage);
    }

    fn run(mut self) -> Result<(Current, u64, Recovered), JournalError> {
        let disk = self.shared.disk.clone();
        let dir = self.dir().to_owned();
        disk.create_dir(&dir).map_err(|e| JournalError::io("make folder", &dir, e))?;
        // A process that ended before it could sync them may have left names that are not durable.
        self.sync_dir(&dir)?;
        let names = disk.list(&dir).map_err(|e| JournalError::io("list", &dir, e))?;
        for name in [SPARE, SPARE_LARGE, RESTART_TEMPORARY] {
            if names.iter().any(|found| found == name) {
                let path = dir.join(name);
                disk.remove(&path).map_err(|e| JournalError::io("remove", &path, e))?;
            }
        }
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        let marker =
            if names.iter().any(|name| name == RESTART) { Some(self.read_marker()?) } else { None };

        let (current, oldest) = self.replay(&numbers)?;
        // Only the mark of earlier damage speaks against these files: they may go on.
        let mut sticky = false;
        if let Some(marker) = marker {
            let adopted = current.as_ref().is_some_and(|c| marker.incarnation < c.incarnation);
            if adopted && self.recovered.damage.is_none() {
                let path = dir.join(RESTART);
                disk.remove(&path).map_err(|e| JournalError::io("remove", &path, e))?;
                self.sync_dir(&dir)?;
            } else {
                self.seen_lsn = self.seen_lsn.max(marker.first_lsn.0.saturating_sub(1));
                let whole = numbers.first().is_some_and(|first| marker.file <= *first);
                sticky = self.recovered.damage.is_none() && whole;
                self.damage(marker.file, 0, "damage was found before and is not dealt with");
            }
        }
        match current {
            Some(current) if self.recovered.damage.is_none() || sticky => {
                self.remove_below(&numbers, oldest)?;
                self.finish(current, oldest)
            }
            _ if numbers.is_empty() && self.recovered.damage.is_none() => {
                self.recovered.created = true;
                let at = (self.shared.options.incarnation, Lsn(1));
                let current = begin_file(self.shared, (1, 0), at, 1)?;
                self.finish(current, 1)
            }
            _ => self.quarantine(&numbers, marker),
        }
    }

    fn finish(
        mut self,
        current: Current,
        oldest: u64,
    ) -> Result<(Current, u64, Recovered), JournalError> {
        self.recovered.last_lsn = Lsn(self.seen_lsn);
        self.shared.last_lsn.store(self.seen_lsn, Ordering::Release);
        Ok((current, oldest, self.recovered))
    }

    /// Reads and replays the files in order; without damage the last one becomes the current one.
    /// Also says which file is the oldest one needed.
    fn replay(&mut self, numbers: &[u64]) -> Result<(Option<Current>, u64), JournalError> {
        let Some(&last) = numbers.last() else { return Ok((None, 0)) };
        // The newest statement about what is needed stands in the last file.
        let oldest = self.read(last)?.1.ok().map_or(0, |parsed| parsed.oldest_file);
        if last < oldest {
            self.damage(last, 0, format!("the file speaks of a later one, {oldest}"));
        }
        let mut expected = oldest.min(last);
        let mut before: Option<Read> = None;
        let mut unsealed: Option<Read> = None;
        for &file in numbers.iter().filter(|file| oldest.min(last) <= **file) {
            if expected != 0 && file != expected {
                self.damage(expected, 0, "the file is missing");
            }
            expected = file.saturating_add(1);
            let (handle, parsed) = self.read(file)?;
            let length = self.buffer.len() as u64;
            self.shared.files.insert(file, handle.clone(), length);
            self.shared.keeper.count_used(length);
            let parsed = match parsed {
                Ok(parsed) => parsed,
                Err(reason) => {
                    self.damage(file, 0, reason);
                    before = None;
                    continue;
                }
            };
            self.seen_lsn = self.seen_lsn.max(parsed.next_lsn.0.saturating_sub(1));
            if let Some((offset, reason)) = &parsed.damage {
                self.damage(file, *offset, reason.clone());
            }
            self.check_order(before.take(), file, &parsed, last, &mut unsealed);
            let read = Read { file, handle, parsed };
            self.settle(&read, file == last)?;
            self.give(&read);
            before = Some(read);
        }
        if self.recovered.damage.is_some() {
            return Ok((None, oldest));
        }
        if let Some(read) = unsealed {
            self.seal(&read, oldest)?;
        }
        Ok((before.map(current_of), oldest))
    }

    /// Compares a file with the one before it.
    fn check_order(
        &mut self,
        before: Option<Read>,
        file: u64,
        parsed: &Parsed,
        last: u64,
        unsealed: &mut Option<Read>,
    ) {
        let mine = self.shared.options.incarnation;
        let incarnation = parsed.header.incarnation;
        if mine < incarnation || (file == last && incarnation != mine) {
            self.damage(file, 0, format!("incarnation {incarnation}, this folder's is {mine}"));
        }
        if file == last && parsed.sealed {
            self.damage(last.saturating_add(1), 0, "the file is missing: the one before is sealed");
        }
        let Some(before) = before else { return };
        if incarnation < before.parsed.header.incarnation {
            self.damage(file, 0, "an older incarnation than the file before");
        }
        let (found, due) = (parsed.header.first_lsn, before.parsed.next_lsn);
        if found != due {
            self.damage(file, 0, format!("begins with LSN {found}, expected {due}"));
        }
        if !before.parsed.sealed {
            // The seal is synced before anything else goes into the next file, so only a next
            // file without groups can follow a file whose seal is torn.
            if file != last || !parsed.groups.is_empty() {
                let reason = "the file ends without a seal, but the next one has groups";
                self.damage(before.file, before.parsed.end, reason);
            }
            *unsealed = Some(before);
        }
    }

    /// Makes what was read durable before anybody sees it, and cuts a torn tail.
    ///
    /// Sealed files too: the process may have ended before it synced the seal, and groups of the
    /// next file rely on it; or it ran without syncs.
    fn settle(&mut self, read: &Read, is_last: bool) -> Result<(), JournalError> {
        let path = path_of(self.dir(), read.file);
        // After a failed sync the page may count as clean without being on disk: write it anew.
        if let Some(offset) = read.parsed.last {
            let group = &self.buffer[offset as usize..read.parsed.end as usize];
            write_all_at(read.handle.as_ref(), group, offset)
                .map_err(|(_, e)| JournalError::io("write", &path, e))?;
        }
        if is_last && self.recovered.damage.is_none() {
            self.recovered.torn_bytes += read.parsed.torn_end.saturating_sub(read.parsed.end);
            cut(read, &path)?;
        }
        if self.shared.sync() {
            read.handle.sync_data().map_err(|e| JournalError::io("sync", &path, e))?;
        }
        Ok(())
    }

    /// Gives a file's entries to the sink, a group at a time.
    fn give(&mut self, read: &Read) {
        for (offset, group) in &read.parsed.groups {
            let start = (offset + GROUP_HEADER_BYTES) as usize;
            let body = &self.buffer[start..group.end(*offset) as usize];
            let mut batch = Vec::with_capacity(group.entry_count as usize);
            let mut bytes = 0;
            for (at, entry) in entries(body, group.entry_count).flatten().enumerate() {
                bytes += ENTRY_HEADER_BYTES + entry.payload.len() as u64;
                batch.push(Durable {
                    lsn: Lsn(group.first_lsn.0 + at as u64),
                    location: Location {
                        file: read.file,
                        offset: start as u64 + entry.at,
                        bytes: entry.payload.len() as u32,
                    },
                    entry: Entry {
                        partition: entry.partition,
                        kind: entry.kind,
                        payload: Bytes::copy_from_slice(entry.payload),
                    },
                });
            }
            if !batch.is_empty() {
                self.shared.files.need(read.file, batch.len() as u64, bytes);
                self.recovered.entry_count += batch.len() as u64;
                self.sink.on_durable(&batch);
            }
        }
    }

    /// Writes the seal that a crash between two files left out.
    fn seal(&mut self, read: &Read, oldest: u64) -> Result<(), JournalError> {
        let path = path_of(self.dir(), read.file);
        let parsed = &read.parsed;
        self.recovered.torn_bytes += parsed.torn_end.saturating_sub(parsed.end);
        cut(read, &path)?;
        let durable = Lsn(parsed.next_lsn.0.saturating_sub(1));
        let current = current_of(Read {
            file: read.file,
            handle: read.handle.clone(),
            parsed: parsed.clone(),
        });
        let seal = current.empty_group(GroupKind::Seal, parsed.next_lsn, durable, oldest);
        write_all_at(read.handle.as_ref(), &seal, parsed.end)
            .map_err(|(_, e)| JournalError::io("write", &path, e))?;
        if self.shared.sync() {
            read.handle.sync_data().map_err(|e| JournalError::io("sync", &path, e))?;
        }
        Ok(())
    }

    /// Reads a whole file into the buffer; the inner error says why it is no journal file.
    fn read(&mut self, file: u64) -> Result<(Arc<dyn DiskFile>, Attempt), JournalError> {
        let path = path_of(self.dir(), file);
        let fail = |e: io::Error| JournalError::io("read", &path, e);
        let handle = self.shared.disk.open(&path).map_err(fail)?;
        let length = usize::try_from(handle.len().map_err(fail)?)
            .map_err(|_| fail(io::ErrorKind::FileTooLarge.into()))?;
        self.buffer.clear();
        self.buffer.resize(length, 0);
        handle.read_at(&mut self.buffer, 0).map_err(fail)?;
        let parsed = parse(&self.buffer, file, self.shared.options.cluster);
        Ok((handle, parsed))
    }

    fn remove_below(&self, numbers: &[u64], oldest: u64) -> Result<(), JournalError> {
        let mut removed = false;
        for file in numbers.iter().filter(|file| **file < oldest) {
            let path = path_of(self.dir(), *file);
            self.shared.disk.remove(&path).map_err(|e| JournalError::io("remove", &path, e))?;
            removed = true;
        }
        if removed { self.sync_dir(self.dir()) } else { Ok(()) }
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), JournalError> {
        if self.shared.sync() {
            self.shared.disk.sync_dir(dir).map_err(|e| JournalError::io("sync", dir, e))?;
        }
        Ok(())
    }

    fn read_marker(&self) -> Result<FileHeader, JournalError> {
        let path = self.dir().join(RESTART);
        let mut bytes = [0; FILE_HEADER_BYTES as usize];
        let read = self.shared.disk.open(&path).and_then(|file| file.read_at(&mut bytes, 0));
        read.map_err(|e| JournalError::io("read", &path, e))?;
        FileHeader::decode(&bytes)
            .map(|(header, _)| header)
            .map_err(|reason| JournalError::io("read", &path, io::Error::other(reason)))
    }

    /// Moves all files away and starts an empty journal above everything seen.
    fn quarantine(
        mut self,
        numbers: &[u64],
        marker: Option<FileHeader>,
    ) -> Result<(Current, u64, Recovered), JournalError> {
        let disk = self.shared.disk.clone();
        let dir = self.dir().to_owned();
        let options = &self.shared.options;
        let highest = numbers.last().copied().unwrap_or(0);
        // A missing successor of the last file may have had the next number.
        let file = highest.saturating_add(2).max(marker.map_or(0, |m| m.file));
        self.seen_lsn = self.seen_lsn.saturating_add(LSN_GAP);
        if NUMBER_MAX <= self.seen_lsn.max(file) {
            // Only a forged file speaks of such numbers; beginning above it could not be read back.
            let source = io::Error::other("its numbers are at an end");
            return Err(JournalError::io("go on after", &dir, source));
        }
        let header = FileHeader {
            cluster: options.cluster,
            incarnation: options.incarnation,
            file,
            first_lsn: Lsn(self.seen_lsn.saturating_add(1)),
            oldest_file: file,
            file_bytes: 0,
        };
        self.write_marker(&header)?;

        let names = disk.list(&dir).map_err(|e| JournalError::io("list", &dir, e))?;
        let target: PathBuf = (1u64..)
            .map(|number| format!("{QUARANTINE}{number}"))
            .find(|name| !names.contains(name))
            .map(|name| dir.join(name))
            .ok_or(JournalError::Closed)?;
        if !numbers.is_empty() {
            disk.create_dir(&target).map_err(|e| JournalError::io("make folder", &target, e))?;
            // Ascending: what remains after a crash lacks its first file, so it is no journal.
            for number in numbers {
                let (from, to) = (path_of(&dir, *number), path_of(&target, *number));
                disk.rename(&from, &to).map_err(|e| JournalError::io("move", &from, e))?;
            }
            self.sync_dir(&target)?;
            self.sync_dir(&dir)?;
        }
        self.shared.files.quarantine_all();
        self.shared.keeper.forget_used();
        let at = (options.incarnation, header.first_lsn);
        let current = begin_file(self.shared, (file, 0), at, file)?;
        self.finish(current, file)
    }

    fn write_marker(&self, header: &FileHeader) -> Result<(), JournalError> {
        let (temporary, path) = (self.dir().join(RESTART_TEMPORARY), self.dir().join(RESTART));
        let disk = &self.shared.disk;
        let write = || -> io::Result<()> {
            let file = disk.create(&temporary)?;
            write_all_at(file.as_ref(), &header.encode().0, 0).map_err(|(_, error)| error)?;
            file.sync_data()?;
            disk.rename(&temporary, &path)?;
            disk.sync_dir(self.dir())
        };
        write().map_err(|e| JournalError::io("write", &path, e))
    }
}

/// Zeroes what lies behind the last group.
fn cut(read: &Read, path: &Path) -> Result<(), JournalError> {
    let zeros = vec![0; read.parsed.torn_end.saturating_sub(read.parsed.end) as usize];
    write_all_at(read.handle.as_ref(), &zeros, read.parsed.end)
        .map_err(|(_, e)| JournalError::io("cut", path, e))
}

fn current_of(read: Read) -> Current {
    Current {
        file: read.file,
        incarnation: read.parsed.header.incarnation,
        handle: read.handle,
        bytes: read.parsed.header.file_bytes,
        end: read.parsed.end,
        previous: read.parsed.groups.last().map_or(0, |(offset, _)| *offset),
        seed: read.parsed.seed,
    }
}
