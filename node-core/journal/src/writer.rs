//! The synchronous core: groups into files. No threads, so a simulator can drive it.
//!
//! In: pending entries. Out: a durable group, the sink called, every appender answered.
//! Invariant: an LSN is used up only by a group that was written whole; after the first error that
//! may have left bytes behind, nothing is written any more.
//! Not here: queueing (journal.rs), making and removing files (keeper.rs).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tako_types::{Incarnation, Lsn};
use tokio::sync::{SetOnce, oneshot};

use crate::{
    Disk, DiskFile, Durability, Durable, Entry, JournalError, JournalOptions, Location, Sink,
    disk::write_all_at,
    files::{Files, path_of},
    format::{
        ALIGN, ENTRY_HEADER_BYTES, FILE_HEADER_BYTES, FileHeader, GROUP_BODY_BYTES_MAX,
        GROUP_HEADER_BYTES, GroupHeader, GroupKind, entry_bytes, group_bytes, put_entry,
    },
    keeper::{KeepError, Keeper, is_full},
};

/// Room at a file's end for the seal and for marks of trimming (a mark is an empty group).
const RESERVE_BYTES: u64 = 17 * GROUP_HEADER_BYTES;
/// A longer group's buffer is given back afterwards.
const BUFFER_BYTES_MAX: usize = 8 << 20;

/// An entry that waits, and who waits for it.
#[derive(Debug)]
pub struct Pending {
    /// What to write.
    pub entry: Entry,
    /// Told the LSN, or why not.
    pub reply: Option<oneshot::Sender<Result<Lsn, JournalError>>>,
}

/// What writer, keeper and the journal's callers have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: JournalOptions,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) files: Files,
    pub(crate) keeper: Keeper,
    pub(crate) queued_bytes: AtomicUsize,
    /// Last durable LSN.
    pub(crate) last_lsn: AtomicU64,
    /// Why nothing is written any more.
    pub(crate) failed: SetOnce<String>,
}

impl Shared {
    pub(crate) fn sync(&self) -> bool {
        self.options.durability == Durability::Fsync
    }

    pub(crate) fn full(&self, reason: String) -> JournalError {
        JournalError::Full {
            used_bytes: self.keeper.used_bytes(),
            budget_bytes: self.keeper.budget_bytes(),
            reason,
        }
    }

    fn keep(&self, error: KeepError) -> JournalError {
        match error {
            KeepError::Full(reason) => self.full(reason),
            KeepError::Fatal(reason) => JournalError::Failed { reason },
        }
    }
}

/// The file that takes groups now.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) file: u64,
    pub(crate) incarnation: Incarnation,
    pub(crate) handle: Arc<dyn DiskFile>,
    pub(crate) bytes: u64,
    /// Where the next group goes.
    pub(crate) end: u64,
    /// Offset of the last group; 0 for none.
    pub(crate) previous: u64,
    pub(crate) seed: u32,
}

impl Current {
    /// Encodes a group without entries at the file's end.
    pub(crate) fn empty_group(
        &self,
        kind: GroupKind,
        next_lsn: Lsn,
        durable_lsn: Lsn,
        oldest_file: u64,
    ) -> [u8; GROUP_HEADER_BYTES as usize] {
        let mut group = [0; GROUP_HEADER_BYTES as usize];
        let header = GroupHeader {
            kind,
            file: self.file,
            body_bytes: 0,
            entry_count: 0,
            first_lsn: next_lsn,
            previous: self.previous,
            durable_lsn,
            oldest_file,
        };
        header.seal_into(&mut group, self.seed);
        group
    }
}

/// Commits groups, one call after another.
pub struct Writer {
    shared: Arc<Shared>,
    sink: Arc<dyn Sink>,
    current: Current,
    /// Durable groups or headers have said that files below this are not needed.
    announced: u64,
    /// Last LSN that was synced.
    synced: Lsn,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("current", &self.current).finish_non_exhaustive()
    }
}

/// Makes file `file` of at least `bytes`: header durable first, then its name.
pub(crate) fn begin_file(
    shared: &Shared,
    (file, bytes): (u64, u64),
    (incarnation, first_lsn): (Incarnation, Lsn),
    oldest_file: u64,
) -> Result<Current, JournalError> {
    let blank = shared.keeper.take(bytes).map_err(|e| shared.keep(e))?;
    let header = FileHeader {
        cluster: shared.options.cluster,
        incarnation,
        file,
        first_lsn,
        oldest_file,
        file_bytes: blank.bytes,
    };
    let (head, seed) = header.encode();
    let prepare = || -> io::Result<()> {
        write_all_at(blank.handle.as_ref(), &head, 0).map_err(|(_, error)| error)?;
        if shared.sync() {
            blank.handle.sync_data()?;
        }
        shared.disk.rename(&blank.path, &path_of(&shared.options.dir, file))
    };
    if let Err(error) = prepare() {
        let error = shared.keep(KeepError::of("begin a journal file", &error));
        shared.keeper.discard(blank);
        return Err(error);
    }
    shared.keeper.on_named();
    shared
        .keeper
        .sync_dir()
        .map_err(|e| JournalError::Failed { reason: format!("sync the journal's folder: {e}") })?;
    shared.files.insert(file, blank.handle.clone(), blank.bytes);
    Ok(Current {
        file,
        incarnation,
        handle: blank.handle,
        bytes: blank.bytes,
        end: FILE_HEADER_BYTES,
        previous: 0,
        seed,
    })
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        sink: Arc<dyn Sink>,
        current: Current,
        announced: u64,
    ) -> Self {
        let synced = Lsn(shared.last_lsn.load(Ordering::Acquire));
        Self { shared, sink, current, announced, synced, buffer: Vec::new() }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// As [`crate::Journal::release`]; [`Self::trim`] or the next group acts on it.
    pub fn release(&self, location: Location) {
        self.shared.files.release(location);
    }

    /// The last durable LSN.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.shared.last_lsn.load(Ordering::Acquire))
    }

    /// Writes one group of the first entries of `pending`, and takes these out of it.
    ///
    /// # Guarantee
    /// On `Ok` the sink and their appenders know. On an error those taken out are not in the
    /// journal and were answered with the error.
    ///
    /// # Errors
    /// `Full`: the first entry had no room; it was taken out, the others may be tried. `Failed`:
    /// final; all were taken out.
    pub fn commit(&mut self, pending: &mut Vec<Pending>) -> Result<(), JournalError> {
        if pending.is_empty() {
            return Ok(());
        }
        self.guarded(|writer| writer.write_group(pending)).inspect_err(|error| {
            let full = matches!(error, JournalError::Full { .. });
            let count = if full { 1 } else { pending.len() };
            for waiting in pending.drain(..count) {
                let bytes = waiting.entry.payload.len();
                self.shared.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
                match waiting.reply {
                    Some(reply) => drop(reply.send(Err(error.clone()))),
                    None => tracing::warn!(%error, "a journal entry without a waiter is lost"),
                }
            }
        })
    }

    /// Says durably that released files are not needed, and removes them; nothing to say is fine.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn trim(&mut self) -> Result<(), JournalError> {
        self.guarded(Self::announce)
    }

    /// Goes on in a new file under another incarnation.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn adopt(&mut self, incarnation: Incarnation) -> Result<(), JournalError> {
        if incarnation <= self.current.incarnation {
            let reason = format!("incarnation {incarnation} is not above the present one");
            return Err(JournalError::Options { reason });
        }
        self.guarded(|writer| writer.rotate(0, incarnation))
    }

    fn guarded<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        if let Some(reason) = self.shared.failed.get() {
            return Err(JournalError::Failed { reason: reason.clone() });
        }
        let result = act(self);
        if let Err(JournalError::Failed { reason }) = &result {
            tracing::error!(%reason, "the journal has failed");
            // The first reason stays.
            let _ = self.shared.failed.set(reason.clone());
        }
        result
    }

    /// How many of the first entries fit into one group here, and their bytes.
    fn fitting(&self, pending: &[Pending]) -> (usize, u64) {
        let room = self.current.bytes.saturating_sub(self.current.end + RESERVE_BYTES);
        let (mut count, mut total) = (0, 0);
        for waiting in pending {
            let next = total + entry_bytes(&waiting.entry);
            if room < group_bytes(next) || (0 < count && GROUP_BODY_BYTES_MAX < next) {
                break;
            }
            count += 1;
            total = next;
        }
        (count, total)
    }

    fn write_group(&mut self, pending: &mut Vec<Pending>) -> Result<(), JournalError> {
        let (mut count, mut total) = self.fitting(pending);
        if count == 0 {
            let first = group_bytes(entry_bytes(&pending[0].entry));
            self.rotate(FILE_HEADER_BYTES + first + RESERVE_BYTES, self.current.incarnation)?;
            (count, total) = self.fitting(pending);
        }
        let first_lsn = self.last_lsn().next();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.reserve(group_bytes(total) as usize);
        buffer.resize(GROUP_HEADER_BYTES as usize, 0);
        let mut offsets = Vec::with_capacity(count);
        for waiting in &pending[..count] {
            offsets.push(self.current.end + buffer.len() as u64 + ENTRY_HEADER_BYTES);
            put_entry(&mut buffer, &waiting.entry);
        }
        buffer.resize(buffer.len().next_multiple_of(ALIGN as usize), 0);
        let oldest_file = self.shared.files.oldest_needed();
        let header = GroupHeader {
            kind: GroupKind::Entries,
            file: self.current.file,
            body_bytes: (buffer.len() - GROUP_HEADER_BYTES as usize) as u32,
            entry_count: count as u32,
            first_lsn,
            previous: self.current.previous,
            durable_lsn: self.synced,
            oldest_file,
        };
        header.seal_into(&mut buffer, self.current.seed);
        self.put(&buffer)?;
        buffer.shrink_to(BUFFER_BYTES_MAX);
        self.buffer = buffer;

        self.shared.files.need(self.current.file, count as u64, total);
        let mut batch = Vec::with_capacity(count);
        let mut replies = Vec::with_capacity(count);
        let mut bytes_done = 0;
        for (at, waiting) in pending.drain(..count).enumerate() {
            let lsn = Lsn(first_lsn.0 + at as u64);
            let bytes = waiting.entry.payload.len();
            bytes_done += bytes;
            let location =
                Location { file: self.current.file, offset: offsets[at], bytes: bytes as u32 };
            batch.push(Durable { lsn, entry: waiting.entry, location });
            replies.extend(waiting.reply.map(|reply| (reply, lsn)));
        }
        let last = first_lsn.0 + count as u64 - 1;
        self.set_last(Lsn(last));
        self.sink.on_durable(&batch);
        self.shared.queued_bytes.fetch_sub(bytes_done, Ordering::AcqRel);
        for (reply, lsn) in replies {
            // A dropped waiter is fine: the entry counts nevertheless.
            drop(reply.send(Ok(lsn)));
        }
        self.announced_up_to(oldest_file);
        Ok(())
    }

    fn set_last(&mut self, lsn: Lsn) {
        self.shared.last_lsn.store(lsn.0, Ordering::Release);
        if self.shared.sync() {
            self.synced = lsn;
        }
    }

    /// Writes a group at the end of the current file and makes it durable.
    fn put(&mut self, group: &[u8]) -> Result<(), JournalError> {
        match write_all_at(self.current.handle.as_ref(), group, self.current.end) {
            Ok(()) => {}
            Err((0, error)) if is_full(&error) => return Err(self.shared.full(error.to_string())),
            Err((done, error)) => {
                let file = self.current.file;
                let reason = format!("write journal file {file} after {done} bytes: {error}");
                return Err(JournalError::Failed { reason });
            }
        }
        if self.shared.sync() {
            self.current.handle.sync_data().map_err(|error| JournalError::Failed {
                reason: format!("sync journal file {}: {error}", self.current.file),
            })?;
        }
        self.current.previous = self.current.end;
        self.current.end += group.len() as u64;
        Ok(())
    }

    /// Files below `oldest` were durably said to be unneeded: they may go.
    fn announced_up_to(&mut self, oldest: u64) {
        if self.announced < oldest {
            self.announced = oldest;
            self.shared.keeper.remove(self.shared.files.take_below(oldest));
        }
    }

    /// Writes a mark if there is something to say and room for it.
    fn announce(&mut self) -> Result<(), JournalError> {
        let oldest = self.shared.files.oldest_needed();
        let room = self.current.end + 2 * GROUP_HEADER_BYTES <= self.current.bytes;
        if oldest <= self.announced || !room {
            return Ok(());
        }
        let next = self.last_lsn().next();
        let mark = self.current.empty_group(GroupKind::Entries, next, self.synced, oldest);
        self.put(&mark)?;
        self.announced_up_to(oldest);
        Ok(())
    }

    /// Goes on in the next file: it exists durably before the seal says so.
    fn rotate(&mut self, bytes: u64, incarnation: Incarnation) -> Result<(), JournalError> {
        let next_lsn = self.last_lsn().next();
        let begin = |writer: &Self| {
            let oldest = writer.shared.files.oldest_needed();
            let number = (writer.current.file + 1, bytes);
            begin_file(&writer.shared, number, (incarnation, next_lsn), oldest)
                .map(|next| (next, oldest))
        };
        let begun = match begin(self) {
            // Files that nobody needs may hold the room, those the keeper has yet to remove too.
            Err(JournalError::Full { .. }) => {
                self.announce()?;
                self.shared.keeper.remove_now();
                begin(self)
            }
            other => other,
        };
        let (next, oldest) = begun?;
        let seal = self.current.empty_group(GroupKind::Seal, next_lsn, self.synced, oldest);
        // The next file exists already, so even "no room" leaves nothing to go back to.
        self.put(&seal).map_err(|error| JournalError::Failed { reason: error.to_string() })?;
        self.current = next;
        self.announced_up_to(oldest);
        self.shared.keeper.want_spare();
        Ok(())
    }

    /// Makes everything durable, whatever the durability.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn sync_all(&mut self) -> Result<(), JournalError> {
        self.guarded(|writer| {
            let shared = &writer.shared;
            shared
                .files
                .sync_all()
                .and_then(|()| shared.disk.sync_dir(&shared.options.dir))
                .map_err(|e| JournalError::Failed { reason: format!("sync the journal: {e}") })
        })
    }
}
