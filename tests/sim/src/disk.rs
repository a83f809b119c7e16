//! A node's disk in memory: one [`SimDisk`] for each incarnation of the node's process.
//!
//! ```text
//! process ─► SimDisk (dead? full? dies here?) ─► FaultDisk (chosen errors, record) ─► MemDisk
//!                └─ after_crash: what was written, what survives, an older state, or nothing
//! ```
//! Invariants: after the end of the process no call changes anything. The record holds every
//! change that a crash of the machine could lose, also those of earlier incarnations. Chance comes
//! in. Not here: when things go wrong.

mod files;
mod record;
mod reopened;

use std::{io, path::PathBuf, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tako_journal::fault::{Call, Fault, FaultDisk, MemDisk, Op, surviving};
use tokio_util::sync::CancellationToken;

use crate::{chance::Chance, counts::FaultCounts};
use record::Losses;

/// Earlier states kept for [`Crash::RolledBack`].
const REMEMBERED_MAX: usize = 4;
/// How much of a file's used end counts as its end for [`SimDisk::damage`].
const END_BYTES: usize = 256;
/// Places that [`SimDisk::damage`] tries; of a file with one group all are in the last one.
const PLACES_MAX: usize = 16;

/// What the next process finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// All that was written: only the process ended. Unsynced changes can still be lost later.
    Kept,
    /// What was synced, and of the rest whatever chance leaves: the machine stopped.
    Torn,
    /// An earlier state, see [`SimDisk::remember`]: somebody put back an image or a backup.
    RolledBack,
    /// Nothing.
    Empty,
}

/// Where a bit was flipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flipped {
    /// In which file.
    pub path: PathBuf,
    /// In which byte.
    pub at: usize,
    /// What that came to.
    pub byte: u8,
}

#[derive(Debug)]
struct State {
    /// Changes that still happen before the process ends.
    left: Option<u64>,
    space_bytes: Option<u64>,
    /// The state from which the record begins.
    base: MemDisk,
    remembered: Vec<MemDisk>,
}

#[derive(Debug)]
struct Shared {
    live: MemDisk,
    faults: FaultDisk,
    counts: FaultCounts,
    /// The machine's boot, and the highest that there was: rolled back is not an old boot again.
    boot: u64,
    boots: u64,
    dead: CancellationToken,
    state: Mutex<State>,
}

/// See the module; clones are the same disk of the same incarnation.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Shared>);

impl SimDisk {
    /// An empty disk for a node's first process.
    #[must_use]
    pub fn new(counts: FaultCounts) -> Self {
        let state = State {
            left: None,
            space_bytes: None,
            base: MemDisk::default(),
            remembered: Vec::new(),
        };
        Self::start(MemDisk::default(), state, Vec::new(), (0, 0), counts)
    }

    fn start(
        live: MemDisk,
        state: State,
        ops: Vec<Op>,
        (boot, boots): (u64, u64),
        counts: FaultCounts,
    ) -> Self {
        let faults = FaultDisk::new(Arc::new(live.clone()));
        faults.record_after(ops);
        let dead = CancellationToken::new();
        let state = Mutex::new(state);
        Self(Arc::new(Shared { live, faults, counts, boot, boots, dead, state }))
    }

    /// The process ends here: from now on every call fails and nothing changes.
    pub fn die(&self) {
        // Not in the middle of a call on another thread.
        let _state = self.0.state.lock();
        self.0.dead.cancel();
    }

    /// The process ends after exactly so many further changes (syncs count), wherever that is.
    pub fn die_after(&self, changes: u64) {
        let mut state = self.0.state.lock();
        state.left = Some(changes);
        if changes == 0 {
            self.0.dead.cancel();
        }
    }

    /// Whether the process has ended.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.dead.is_cancelled()
    }

    /// Waits until the process has ended, so that the rest of it can be ended.
    pub async fn died(&self) {
        self.0.dead.cancelled().await;
    }

    /// Ends the process, if it has not, and gives the disk that the next one gets.
    ///
    /// The bound of space stays, chosen errors go.
    #[must_use]
    pub fn after_crash(&self, kind: Crash, chance: &mut Chance) -> Self {
        self.die();
        let shared = &self.0;
        let state = shared.state.lock();
        let (mut boot, mut boots) = (shared.boot, shared.boots);
        let mut reboot = |due: bool| {
            if due {
                boots += 1;
                boot = boots;
            }
        };
        let (live, base, ops) = match kind {
            Crash::Kept => {
                shared.counts.add("process crashed");
                (shared.live.deep_copy(), state.base.clone(), shared.faults.ops())
            }
            Crash::Torn => {
                shared.counts.add("disk torn");
                reboot(true);
                let mut losses = Losses::new(chance);
                let left =
                    shared.faults.with_ops(|ops| surviving(&state.base, ops, |op| losses.keep(op)));
                if 0 < losses.lost() {
                    shared.counts.add("disk lost unsynced writes");
                }
                (left.deep_copy(), left, Vec::new())
            }
            Crash::RolledBack => {
                shared.counts.add("disk rolled back");
                // A backup may also be put back while the machine goes on.
                reboot(chance.yes(0.5));
                let earlier = match &state.remembered[..] {
                    [] => MemDisk::default(),
                    all => chance.pick(all).deep_copy(),
                };
                (earlier.deep_copy(), earlier, Vec::new())
            }
            Crash::Empty => {
                shared.counts.add("disk emptied");
                reboot(chance.yes(0.5));
                (MemDisk::default(), MemDisk::default(), Vec::new())
            }
        };
        let next = State {
            left: None,
            space_bytes: state.space_bytes,
            base,
            remembered: state.remembered.clone(),
        };
        Self::start(live, next, ops, (boot, boots), shared.counts.clone())
    }

    /// Keeps the present state as one to which the disk may be rolled back.
    pub fn remember(&self) {
        let mut state = self.0.state.lock();
        if state.remembered.len() == REMEMBERED_MAX {
            // The first one stays: the older, the worse.
            state.remembered.remove(1);
        }
        state.remembered.push(self.0.live.deep_copy());
    }

    /// All files together may have this many bytes from now on; `None` for no bound.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.0.state.lock().space_bytes = bytes;
    }

    /// There is no room for more than there is now; or as much as anybody wants.
    pub fn set_full(&self, full: bool) {
        self.set_space(full.then(|| self.used_bytes()));
    }

    /// The bytes of all files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.0.live.used_bytes()
    }

    /// The `nth` call of this kind from now on (1 = the next) meets a fault.
    pub fn fail_nth(&self, call: Call, nth: u64, fault: Fault) {
        self.0.faults.fail_nth(call, nth, fault);
    }

    /// Every call of this kind meets a fault from now on.
    pub fn fail_always(&self, call: Call, fault: Fault) {
        self.0.faults.fail_always(call, fault);
    }

    /// The next sync of a file fails.
    pub fn fail_sync(&self) {
        self.fail_nth(Call::SyncData, 1, Fault::Error(io::ErrorKind::Other));
    }

    /// Chosen errors end, and there is room again.
    pub fn heal(&self) {
        self.0.faults.heal();
        self.set_space(None);
    }

    /// Flips one bit in the used part of a journal file, half of the time near its end; says where.
    ///
    /// For the time between two processes: what one that runs has read is not changed. Everything
    /// unsynced is on the disk from then on. Not in the last group: nothing tells that from a write
    /// which never ended, so the replica would forget it without knowing, and vote.
    pub fn damage(&self, chance: &mut Chance) -> Option<Flipped> {
        let files = self.journal_files();
        let mut places = (0..PLACES_MAX).map_while(|_| place_in(&files, chance));
        let place = places.find(|place| !self.is_taken_for_torn(place))?;
        Some(self.flip(place))
    }

    /// Whether the next process would forget something for a bit that is flipped here, and not say so.
    fn is_taken_for_torn(&self, place: &Place) -> bool {
        let after = self.image();
        after.edit(&place.path, |bytes| bytes[place.at] ^= place.bit);
        match (reopened::end_of(self.image(), &place.path), reopened::end_of(after, &place.path)) {
            (Some(before), Some(after)) => after.last_lsn < before.last_lsn && !after.is_damaged,
            _ => false,
        }
    }

    /// Flips one bit in the used part of a journal file that no entry goes into any more, though
    /// the process runs; says where.
    pub fn rot(&self, chance: &mut Chance) -> Option<Flipped> {
        let mut files = self.journal_files();
        // Of the last two one is written to, and one may be getting its end.
        files.truncate(files.len().saturating_sub(2));
        Some(self.flip(place_in(&files, chance)?))
    }

    /// Whether a bit that was flipped still is.
    #[must_use]
    pub fn is_flipped(&self, Flipped { path, at, byte }: &Flipped) -> bool {
        let mut is = false;
        if self.0.live.paths().contains(path) {
            self.0.live.edit(path, |bytes| is = bytes.get(*at) == Some(byte));
        }
        is
    }

    /// The journal's files that hold something, by their numbers, and how much.
    fn journal_files(&self) -> Vec<(PathBuf, usize)> {
        let live = &self.0.live;
        let used = |path: &PathBuf| {
            let mut used = 0;
            live.edit(path, |bytes| {
                used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            });
            (path.extension().is_some_and(|kind| kind == "log") && 0 < used)
                .then(|| (path.clone(), used))
        };
        live.paths().iter().filter_map(used).collect()
    }

    fn flip(&self, Place { path, at, bit }: Place) -> Flipped {
        let mut state = self.0.state.lock();
        let mut byte = 0;
        self.0.live.edit(&path, |bytes| {
            bytes[at] ^= bit;
            byte = bytes[at];
        });
        self.0.restart_record(&mut state);
        self.0.counts.add("bit flipped");
        Flipped { path, at, byte }
    }

    /// The files as they are, for checkers; changes nothing when changed.
    #[must_use]
    pub fn image(&self) -> MemDisk {
        self.0.live.deep_copy()
    }
}

/// One bit of a file.
struct Place {
    path: PathBuf,
    at: usize,
    bit: u8,
}

/// A place in the used part of one of these files, half of the time near its end.
fn place_in(files: &[(PathBuf, usize)], chance: &mut Chance) -> Option<Place> {
    if files.is_empty() {
        return None;
    }
    let (path, used) = chance.pick(files).clone();
    let within = if chance.yes(0.5) { used.min(END_BYTES) } else { used };
    let at = used - within + chance.below(within);
    Some(Place { path, at, bit: 1 << chance.below(8) })
}

fn crashed() -> io::Error {
    io::Error::other("the process has crashed")
}

impl Shared {
    /// The state, if the process still runs.
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        if self.dead.is_cancelled() { Err(crashed()) } else { Ok(state) }
    }

    /// Does something that changes the disk.
    fn change<T>(
        &self,
        failed: &'static str,
        act: impl FnOnce(&State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.alive()?;
        let done = act(&state).inspect_err(|error| self.count(failed, error))?;
        if let Some(left) = &mut state.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.counts.add("process died at a disk change");
                self.dead.cancel();
            }
        }
        self.bound_record(&mut state);
        Ok(done)
    }

    /// Counts an injected error, not one that the files as they are give.
    fn count(&self, failed: &'static str, error: &io::Error) {
        use io::ErrorKind::{AlreadyExists, NotFound, UnexpectedEof, WouldBlock};
        match error.kind() {
            NotFound | AlreadyExists | UnexpectedEof | WouldBlock => {}
            io::ErrorKind::StorageFull => self.counts.add("disk full"),
            _ => self.counts.add(failed),
        }
    }

    /// `StorageFull` where a file that grows to `bytes` has no room.
    fn room(&self, state: &State, had_bytes: u64, bytes: u64) -> io::Result<()> {
        let more = bytes.saturating_sub(had_bytes);
        let full = |space| more != 0 && space < self.live.used_bytes() + more;
        if state.space_bytes.is_some_and(full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
