//! The journal as others use it: a bounded queue before a committer thread around [`Writer`].
//!
//! While one group is written and synced, appenders queue; the committer takes them all as the
//! next group. No timer. With [`Blocking::Here`] a task does what else the thread does. Invariant: every queued entry is answered, also on failure and close.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex};
use tako_types::{ClusterId, Incarnation, Lsn};
use tokio::{
    sync::{SetOnce, oneshot},
    task::yield_now,
};

use crate::{
    Blocking, Disk, Durability, Entry, JournalError, Location, Pending, Recovered, Sink, Writer,
    files::Files,
    format::{ENTRY_BYTES_MAX, ENTRY_HEADER_BYTES, open_entry},
    keeper::Keeper,
    recover::{RESTART, recover},
    writer::Shared,
};

const FILE_BYTES_MIN: u64 = 4096;

/// How to run a journal.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// The journal's own folder; made where it is missing.
    pub dir: PathBuf,
    /// Size of one file, a multiple of 4,096 (16 MiB is good).
    pub file_bytes: u64,
    /// Most bytes of all files together, the one in preparation included; at least two files.
    pub disk_bytes_max: u64,
    /// When an append counts as done.
    pub durability: Durability,
    /// Whose data it is.
    pub cluster: ClusterId,
    /// Which data folder of the node.
    pub incarnation: Incarnation,
    /// Most payload bytes that may wait to be committed; a single longer entry is let through.
    pub queue_bytes_max: usize,
    /// Where it writes and syncs.
    pub blocking: Blocking,
}

impl JournalOptions {
    fn check(&self) -> Result<(), JournalError> {
        let refuse = |reason: String| Err(JournalError::Options { reason });
        if self.file_bytes < FILE_BYTES_MIN || !self.file_bytes.is_multiple_of(FILE_BYTES_MIN) {
            return refuse(format!(
                "file_bytes is {}, it must be a multiple of {FILE_BYTES_MIN}",
                self.file_bytes
            ));
        }
        if self.disk_bytes_max / 2 < self.file_bytes {
            return refuse(format!(
                "disk_bytes_max is {}, it must hold two files of {}",
                self.disk_bytes_max, self.file_bytes
            ));
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Queue {
    pending: Vec<Pending>,
    /// What is pending is a group: who began it has let others come in.
    due: bool,
    adopt: Option<(Incarnation, oneshot::Sender<Result<(), JournalError>>)>,
    /// The oldest file is not needed any more.
    trim: bool,
    closing: bool,
    /// The committer has ended; nothing may be queued.
    ended: bool,
}

#[derive(Debug, Default)]
struct Inbox {
    queue: Mutex<Queue>,
    filled: Condvar,
}

/// A node's write-ahead log.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// In the place of threads.
    inline: Option<Arc<Inline>>,
}

impl Journal {
    /// Replays what is there into the sink, then starts the committer.
    ///
    /// On damage every readable entry is replayed, the files move to `quarantine-<n>/` in the
    /// folder, and an empty journal goes on above every LSN seen; locations given in the replay
    /// stay readable until the process ends. The damage is reported at every opening until
    /// [`Self::adopt`]. Blocking.
    ///
    /// # Errors
    /// `Options`, `Full`, or `Io` with what the system says; then no file was removed.
    pub fn open(
        options: JournalOptions,
        disk: Arc<dyn Disk>,
        sink: Arc<dyn Sink>,
    ) -> Result<(Arc<Self>, Recovered), JournalError> {
        let (writer, recovered) = Writer::open(options, disk, sink)?;
        let shared = writer.shared();
        let inbox = Arc::new(Inbox::default());
        if let pace @ Blocking::Here(_) = shared.options.blocking.clone() {
            let running = AtomicBool::new(false);
            let inline = Arc::new(Inline { pace, writer: Mutex::new(Some(writer)), running });
            let threads = Mutex::default();
            let journal = Self { shared, inbox, threads, inline: Some(inline) };
            return Ok((Arc::new(journal), recovered));
        }
        let keeping = shared.clone();
        let spawn_error = |e| JournalError::io("start a thread for", &shared.options.dir, e);
        shared.keeper.set_threaded();
        shared.keeper.want_spare();
        let keeper = thread::Builder::new()
            .name("journal-keeper".into())
            .spawn(move || keeping.keeper.run())
            .map_err(spawn_error)?;
        let committing = inbox.clone();
        let committer = thread::Builder::new()
            .name("journal-commit".into())
            .spawn(move || run(writer, &committing))
            .map_err(|e| {
                shared.keeper.close();
                spawn_error(e)
            })?;
        let threads = Mutex::new(vec![committer, keeper]);
        Ok((Arc::new(Self { shared, inbox, threads, inline: None }), recovered))
    }

    /// Appends an entry and waits until it is durable (by `durability`) and the sink has it.
    ///
    /// # Guarantee
    /// Cancel-safe: a dropped future's entry is written or not, but never half.
    ///
    /// # Errors
    /// `Busy` and `Full` (retry later), `TooLarge`, `Closed`; `Failed` is final, and the entry may
    /// or may not be there after a restart.
    pub async fn append(&self, entry: Entry) -> Result<Lsn, JournalError> {
        let (reply, answer) = oneshot::channel();
        if let Some(wake) = self.push(Pending { entry, reply: Some(reply) })? {
            // Whoever else is ready to append now comes into the same group: waking the committer
            // costs more than the write of a small one.
            yield_now().await;
            drop(wake);
        }
        answer.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Queues an entry without waiting; whether it got in, only the sink and `is_failed` tell.
    ///
    /// # Errors
    /// As [`Self::append`]; a journal that is full later drops the entry with a warning.
    pub fn append_nowait(&self, entry: Entry) -> Result<(), JournalError> {
        self.push(Pending { entry, reply: None }).map(drop)
    }

    /// Queues an entry; the first one of a group wakes the committer when what is given is dropped.
    fn push(&self, pending: Pending) -> Result<Option<Wake<'_>>, JournalError> {
        let bytes = pending.entry.payload.len();
        if ENTRY_BYTES_MAX < bytes {
            return Err(JournalError::TooLarge { bytes, limit_bytes: ENTRY_BYTES_MAX });
        }
        if let Some(reason) = self.is_failed() {
            return Err(JournalError::Failed { reason });
        }
        let limit_bytes = self.shared.options.queue_bytes_max;
        let mut queue = self.inbox.queue.lock();
        if queue.closing || queue.ended {
            return Err(self.stopped());
        }
        let queued_bytes = self.queued_bytes();
        if 0 < queued_bytes && limit_bytes < queued_bytes.saturating_add(bytes) {
            return Err(JournalError::Busy { queued_bytes, limit_bytes });
        }
        self.shared.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        queue.pending.push(pending);
        // The committer takes everything at once, so only the first has to wake it.
        let first = queue.pending.len() == 1;
        Ok(first.then(|| Wake(self)))
    }

    fn wake(&self) {
        match &self.inline {
            None => drop(self.inbox.filled.notify_one()),
            Some(inline) => inline.wake(&self.inbox),
        }
    }

    fn stopped(&self) -> JournalError {
        self.is_failed().map_or(JournalError::Closed, |reason| JournalError::Failed { reason })
    }

    /// Goes on in a new file under a new incarnation, and settles reported damage.
    ///
    /// Call it after the new incarnation is stored in the identity: the files must name the
    /// identity's incarnation at the next opening, else that is damage again.
    ///
    /// # Errors
    /// As [`Self::append`]; `Options` for an incarnation that is not above the present one.
    pub async fn adopt(&self, incarnation: Incarnation) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.inbox.queue.lock();
            if queue.closing || queue.ended {
                return Err(self.stopped());
            }
            if queue.adopt.is_some() {
                return Err(JournalError::Options { reason: "adopting already".into() });
            }
            queue.adopt = Some((incarnation, reply));
        }
        self.wake();
        answer.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Reads a payload back; blocking.
    ///
    /// # Errors
    /// `Gone` where the file was trimmed, `Checksum` where the bytes are damaged, `Io`.
    pub fn read(&self, location: Location) -> Result<Bytes, JournalError> {
        let Location { file, offset, bytes } = location;
        let damaged = JournalError::Checksum { file, offset };
        let handle = self.shared.files.handle(file).ok_or(JournalError::Gone { file })?;
        let start = offset.checked_sub(ENTRY_HEADER_BYTES).ok_or(damaged.clone())?;
        if ENTRY_BYTES_MAX < bytes as usize {
            return Err(damaged);
        }
        let mut buffer = BytesMut::zeroed(ENTRY_HEADER_BYTES as usize + bytes as usize);
        match handle.read_at(&mut buffer, start) {
            Ok(()) => open_entry(buffer.freeze(), bytes).ok_or(damaged),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(damaged),
            Err(error) => Err(JournalError::io("read", format!("journal file {file}"), error)),
        }
    }

    /// This entry is not needed any more (covered or superseded); once for each entry.
    ///
    /// When no entry of the oldest file is needed, the file goes.
    pub fn release(&self, location: Location) {
        if self.shared.files.release(location) {
            self.inbox.queue.lock().trim = true;
            self.wake();
        }
    }

    /// The last durable LSN.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.shared.last_lsn.load(Ordering::Acquire))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Where its blocking work is done.
    #[must_use]
    pub fn blocking(&self) -> &Blocking {
        &self.shared.options.blocking
    }

    /// Bytes of all files in place, the one in preparation included; without quarantine.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.shared.keeper.used_bytes()
    }

    /// Payload bytes that wait or are being written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.shared.queued_bytes.load(Ordering::Acquire)
    }

    /// Why the journal has failed, if it has.
    #[must_use]
    pub fn is_failed(&self) -> Option<String> {
        self.shared.failed.get().cloned()
    }

    /// Waits until the journal fails; for ever if it never does.
    pub async fn failed(&self) -> String {
        self.shared.failed.wait().await.clone()
    }

    /// The oldest file, when under a tenth of it is needed and disk use is above half the budget:
    /// the caller appends these entries again and releases the old ones.
    #[must_use]
    pub fn sparse_file(&self) -> Option<u64> {
        let above_half = self.shared.options.disk_bytes_max / 2 < self.disk_bytes();
        above_half.then(|| self.shared.files.sparse()).flatten()
    }

    /// Commits what is queued, syncs, and ends the threads; blocking. Again is fine.
    pub fn close(&self) {
        self.inbox.queue.lock().closing = true;
        if let Some(inline) = &self.inline {
            inline.close(&self.inbox);
            return self.shared.keeper.clear();
        }
        self.inbox.filled.notify_one();
        for handle in self.threads.lock().drain(..) {
            // The sink may own the journal and drop it on the committer's own thread.
            if handle.thread().id() != thread::current().id() && handle.join().is_err() {
                tracing::error!("a journal thread panicked");
            }
            self.shared.keeper.close();
        }
        self.shared.keeper.clear();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// Wakes the committer when dropped, also with an append that its caller gave up.
struct Wake<'a>(&'a Journal);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        self.0.inbox.queue.lock().due = true;
        self.0.wake();
    }
}

impl Writer {
    /// Replays what is there and makes ready to commit, without threads.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open(
        options: JournalOptions,
        disk: Arc<dyn Disk>,
        sink: Arc<dyn Sink>,
    ) -> Result<(Self, Recovered), JournalError> {
        options.check()?;
        let sizes = (options.file_bytes, options.disk_bytes_max);
        let sync = options.durability == Durability::Fsync;
        let shared = Arc::new(Shared {
            keeper: Keeper::new(&options.dir, disk.clone(), sizes, sync),
            options,
            disk,
            files: Files::default(),
            queued_bytes: AtomicUsize::new(0),
            last_lsn: AtomicU64::new(0),
            failed: SetOnce::new(),
        });
        let (current, announced, recovered) = recover(&shared, sink.as_ref())?;
        Ok((Self::new(shared, sink, current, announced), recovered))
    }
}

/// Marks the journal as ended when the committer stops, panicking or not.
struct End<'a>(&'a Inbox, Arc<Shared>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            // An earlier reason stays.
            let _ = self.1.failed.set("the committer panicked".into());
        }
        let mut queue = self.0.queue.lock();
        queue.ended = true;
        // Dropping the replies tells those who wait.
        queue.pending.clear();
        queue.adopt = None;
    }
}

/// What the committer takes out of the inbox at once.
#[derive(Default)]
struct Round {
    pending: Vec<Pending>,
    adopt: Option<(Incarnation, oneshot::Sender<Result<(), JournalError>>)>,
    trim: bool,
    closing: bool,
}

impl Queue {
    fn is_idle(&self) -> bool {
        let pends = self.due && !self.pending.is_empty();
        !pends && self.adopt.is_none() && !self.trim && !self.closing
    }

    /// Moves everything into `round`.
    fn take(&mut self, round: &mut Round) {
        if round.pending.is_empty() {
            std::mem::swap(&mut round.pending, &mut self.pending);
        } else {
            round.pending.append(&mut self.pending);
        }
        self.due = false;
        round.adopt = self.adopt.take();
        round.trim = std::mem::take(&mut self.trim);
        round.closing = self.closing;
    }
}

impl Writer {
    /// Does what a round holds; what had to be left stays in it. False when all is done and closed.
    fn work(&mut self, round: &mut Round) -> bool {
        if let Some((incarnation, reply)) = round.adopt.take() {
            drop(reply.send(self.adopt_and_settle(incarnation)));
        }
        if round.pending.is_empty() {
            if round.trim
                && let Err(error) = self.trim()
            {
                tracing::warn!(%error, "could not trim the journal");
            }
            return !round.closing;
        }
        if let Err(error) = self.commit(&mut round.pending) {
            tracing::debug!(%error, "journal entries refused");
        }
        true
    }

    fn finish(&mut self) {
        if let Err(error) = self.sync_all() {
            tracing::error!(%error, "the journal could not be synced on close");
        }
    }
}

/// The committer thread's body.
fn run(mut writer: Writer, inbox: &Inbox) {
    let _end = End(inbox, writer.shared());
    let mut round = Round::default();
    loop {
        let mut queue = inbox.queue.lock();
        while round.pending.is_empty() && queue.is_idle() {
            inbox.filled.wait(&mut queue);
        }
        queue.take(&mut round);
        drop(queue);
        if !writer.work(&mut round) {
            break;
        }
    }
    writer.finish();
}

/// The committer without a thread: a task that ends when nothing is left, and starts with the
/// next entry.
#[derive(Debug)]
struct Inline {
    pace: Blocking,
    /// `None` once closed.
    writer: Mutex<Option<Writer>>,
    /// Whether a task is under way.
    running: AtomicBool,
}

impl Inline {
    fn wake(self: &Arc<Self>, inbox: &Arc<Inbox>) {
        if self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let (this, inbox) = (self.clone(), inbox.clone());
        tokio::spawn(async move {
            while {
                let (working, emptying) = (this.clone(), inbox.clone());
                this.pace.run(move || working.round(&emptying)).await
            } {}
        });
    }

    /// One group; false when nothing is left.
    fn round(&self, inbox: &Inbox) -> bool {
        let mut writer = self.writer.lock();
        let Some(writer) = writer.as_mut() else { return false };
        let mut round = Round::default();
        inbox.queue.lock().take(&mut round);
        let open = writer.work(&mut round);
        let mut queue = inbox.queue.lock();
        // What had no room this time goes first the next time.
        queue.due |= !round.pending.is_empty();
        round.pending.append(&mut queue.pending);
        queue.pending = round.pending;
        let more = open && !queue.is_idle();
        if !more {
            self.running.store(false, Ordering::Release);
        }
        more
    }

    fn close(&self, inbox: &Inbox) {
        let Some(mut writer) = self.writer.lock().take() else { return };
        let _end = End(inbox, writer.shared());
        let mut round = Round::default();
        loop {
            inbox.queue.lock().take(&mut round);
            if !writer.work(&mut round) {
                break;
            }
        }
        writer.finish();
    }
}

impl Writer {
    /// [`Writer::adopt`], then forgets reported damage.
    fn adopt_and_settle(&mut self, incarnation: Incarnation) -> Result<(), JournalError> {
        self.adopt(incarnation)?;
        let shared = self.shared();
        let path = shared.options.dir.join(RESTART);
        let removed = shared.disk.remove(&path).and_then(|()| shared.keeper.sync_dir());
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(JournalError::io("remove", path, error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
