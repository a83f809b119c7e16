//! What this process knows it wrote: the ground on which a read is called stale.
//!
//! In: begin and end of every write, begin and answer of every read. Out: one verdict per read.
//! Invariant: `floor[key]` is a write number such that some acknowledged write began after every
//! lower-numbered write had ended; so an answer below the floor is older than an acknowledged
//! write, whichever way the server ordered writes that overlapped.
//! A write of unknown outcome may land at any later time, so its own number is never called stale.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tako_types::Version;

use super::value::Header;

/// Locks over the open writes; a key belongs to one by its index.
const SHARD_COUNT: usize = 64;

/// Unknown outcomes kept per key one by one; beyond that, all below the newest are let pass.
const UNKNOWN_MAX: usize = 64;

/// Values of a key that are remembered to have been changed: a lost update follows soon.
const CHANGED_MAX: usize = 16;

/// Keys, those inserted included.
pub(crate) const KEYS_MAX: u64 = 100_000_000;

/// Keys whose rows are made at once, when the first of them is used.
const CHUNK_KEYS: u64 = 1 << 14;

/// Writes of all keys of one target.
#[derive(Debug)]
pub(crate) struct Ledger {
    run: u32,
    /// By key, in chunks, as inserts add to them.
    rows: Vec<OnceLock<Box<[Row]>>>,
    open: Vec<Mutex<HashMap<u64, Open>>>,
    /// Values that were changed, by key, oldest first.
    changed: Vec<Mutex<HashMap<u64, VecDeque<u64>>>>,
    /// Keys at the beginning.
    key_count: u64,
    /// The next insert's key.
    next_key: AtomicU64,
    /// Keys below this have all been written, or failed to be.
    existing: AtomicU64,
    /// Inserts that ended while an earlier one had not.
    ahead: Mutex<BTreeSet<u64>>,
}

#[derive(Debug, Default)]
struct Row {
    /// Highest number given to a write.
    issued: AtomicU64,
    /// Lowest number a read may still show; 0: none was acknowledged.
    floor: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    in_flight: Vec<u64>,
    unknown: Vec<u64>,
    /// Every number up to this one is let pass.
    unknown_up_to: u64,
}

/// A write that has begun and not ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    pub(crate) key: u64,
    pub(crate) number: u64,
    /// What becomes the floor once this write is acknowledged.
    supersedes_below: u64,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Older than a write acknowledged before the read began.
    Stale { shown: u64, floor: u64 },
    /// No value, though a write was acknowledged before the read began.
    Missing { floor: u64 },
    /// The value of another key.
    WrongKey { shown: u64 },
    /// A write number that was never given out.
    Unissued { shown: u64 },
    /// Written by another process, though this one had an acknowledged write.
    Foreign { run: u32 },
    /// The bytes are not those of any value.
    Corrupt { bytes: usize },
    /// The record around the bytes fails its checksum, at the node or on the way.
    Damaged,
    /// A write was turned away for a version that is not above its own.
    NotSuperseded { version: Version, winner: Version },
    /// Two changes of the same value succeeded, though each saw the condition hold.
    LostUpdate { base: u64 },
    /// A listing is not one, or out of order, or has keys that were not asked for.
    Listing { row: usize },
    /// A key with a write acknowledged long before the listing began is not in it.
    NotListed { key: u64 },
}

impl Violation {
    /// Name under which it is counted.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stale { .. } => "stale",
            Self::Missing { .. } => "missing",
            Self::WrongKey { .. } => "wrong key",
            Self::Unissued { .. } => "never written",
            Self::Foreign { .. } => "written by another process",
            Self::Corrupt { .. } => "corrupt",
            Self::Damaged => "damaged",
            Self::NotSuperseded { .. } => "not superseded",
            Self::LostUpdate { .. } => "lost update",
            Self::Listing { .. } => "wrong listing",
            Self::NotListed { .. } => "not listed",
        }
    }
}

impl Ledger {
    /// `key_count` is at most [`KEYS_MAX`].
    pub(crate) fn new(run: u32, key_count: u64) -> Self {
        Self {
            run,
            rows: (0..KEYS_MAX.div_ceil(CHUNK_KEYS)).map(|_| OnceLock::new()).collect(),
            open: (0..SHARD_COUNT).map(|_| Mutex::default()).collect(),
            changed: (0..SHARD_COUNT).map(|_| Mutex::default()).collect(),
            key_count,
            next_key: AtomicU64::new(key_count),
            existing: AtomicU64::new(key_count),
            ahead: Mutex::default(),
        }
    }

    fn row(&self, key: u64) -> &Row {
        let chunk = self.rows[index(key / CHUNK_KEYS)]
            .get_or_init(|| (0..CHUNK_KEYS).map(|_| Row::default()).collect());
        &chunk[index(key % CHUNK_KEYS)]
    }

    fn shard(&self, key: u64) -> &Mutex<HashMap<u64, Open>> {
        &self.open[index(key) % SHARD_COUNT]
    }

    /// Keys that there are by now, but for those whose insert failed.
    pub(crate) fn existing(&self) -> u64 {
        self.existing.load(Ordering::Acquire)
    }

    /// Begins the first write of a new key; of the last one, once there are [`KEYS_MAX`].
    pub(crate) fn begin_insert(&self) -> Ticket {
        let next = self.next_key.fetch_add(1, Ordering::AcqRel);
        self.begin_write(next.min(KEYS_MAX - 1))
    }

    /// The write of a key that may be a new one has ended.
    fn settle_insert(&self, key: u64) {
        if key < self.existing() {
            return;
        }
        let mut ahead = self.ahead.lock();
        ahead.insert(key);
        while ahead.remove(&self.existing()) {
            self.existing.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Gives the next write of `key` its number. `key` is below the key count, or was inserted.
    pub(crate) fn begin_write(&self, key: u64) -> Ticket {
        let mut shard = self.shard(key).lock();
        let number = self.row(key).issued.fetch_add(1, Ordering::AcqRel) + 1;
        let open = shard.entry(key).or_default();
        open.in_flight.push(number);
        let supersedes_below = open.in_flight.iter().copied().min().unwrap_or(number);
        Ticket { key, number, supersedes_below }
    }

    /// The header of the value that `ticket` writes.
    pub(crate) fn header(&self, ticket: Ticket) -> Header {
        Header { run: self.run, key: ticket.key, number: ticket.number }
    }

    /// The server acknowledged the write.
    pub(crate) fn end_write(&self, ticket: Ticket) {
        self.close(ticket, false);
        self.row(ticket.key).floor.fetch_max(ticket.supersedes_below, Ordering::AcqRel);
        self.settle_insert(ticket.key);
    }

    /// The server acknowledged a change of the value that `base` heads; none: it was made as there
    /// was no value. No two changes can be of the same value, since each write has its own.
    pub(crate) fn end_change(&self, ticket: Ticket, base: Option<Header>) -> Result<(), Violation> {
        self.end_write(ticket);
        let Some(base) = base.filter(|base| base.run == self.run).map(|base| base.number) else {
            return Ok(());
        };
        let mut shard = self.changed[index(ticket.key) % SHARD_COUNT].lock();
        let changed = shard.entry(ticket.key).or_default();
        if changed.contains(&base) {
            return Err(Violation::LostUpdate { base });
        }
        if changed.len() == CHANGED_MAX {
            changed.pop_front();
        }
        changed.push_back(base);
        Ok(())
    }

    /// The server said that the write was not made and will not be.
    pub(crate) fn drop_write(&self, ticket: Ticket) {
        self.close(ticket, false);
        self.settle_insert(ticket.key);
    }

    /// The write failed, or nobody knows whether it did.
    pub(crate) fn lose_write(&self, ticket: Ticket) {
        self.close(ticket, true);
        self.settle_insert(ticket.key);
    }

    fn close(&self, ticket: Ticket, unknown: bool) {
        let mut shard = self.shard(ticket.key).lock();
        let Some(open) = shard.get_mut(&ticket.key) else { return };
        open.in_flight.retain(|number| *number != ticket.number);
        if unknown {
            open.unknown.push(ticket.number);
            if open.unknown.len() > UNKNOWN_MAX {
                open.unknown_up_to = open.unknown.drain(..).max().unwrap_or(0);
            }
        }
        if open.in_flight.is_empty() && open.unknown.is_empty() && open.unknown_up_to == 0 {
            shard.remove(&ticket.key);
        }
    }

    /// To be called when a read of `key` begins; goes into [`Self::judge`].
    pub(crate) fn floor(&self, key: u64) -> u64 {
        self.row(key).floor.load(Ordering::Acquire)
    }

    /// Judges an answer to a read that began at `floor`; `None` is "no such key".
    pub(crate) fn judge(
        &self,
        key: u64,
        floor: u64,
        answer: Option<Header>,
    ) -> Result<(), Violation> {
        let Some(header) = answer else {
            return if floor == 0 { Ok(()) } else { Err(Violation::Missing { floor }) };
        };
        if header.key != key {
            return Err(Violation::WrongKey { shown: header.key });
        }
        if header.run != self.run {
            let run = header.run;
            return if floor == 0 { Ok(()) } else { Err(Violation::Foreign { run }) };
        }
        let shown = header.number;
        if shown > self.row(key).issued.load(Ordering::Acquire) {
            return Err(Violation::Unissued { shown });
        }
        if shown >= floor {
            return Ok(());
        }
        let shard = self.shard(key).lock();
        let excused = shard
            .get(&key)
            .is_some_and(|open| shown <= open.unknown_up_to || open.unknown.contains(&shown));
        if excused { Ok(()) } else { Err(Violation::Stale { shown, floor }) }
    }

    /// Judges a listing of the keys behind `after`, at most `limit` of them: in their order, each
    /// once, none that nobody began to write. Where `settled`, all keys of the beginning were
    /// acknowledged so long ago that a listing may miss none of them.
    pub(crate) fn judge_listing(
        &self,
        listing: Listing,
        keys: impl Iterator<Item = Option<u64>>,
    ) -> Result<usize, Violation> {
        let Listing { after, limit, settled } = listing;
        let (mut last, mut count) = (after, 0);
        for key in keys {
            let key = key
                .filter(|key| last < *key && *key < KEYS_MAX && count < index(limit.into()))
                .ok_or(Violation::Listing { row: count })?;
            if settled && last + 1 < key && last + 1 < self.key_count {
                return Err(Violation::NotListed { key: last + 1 });
            }
            (last, count) = (key, count + 1);
        }
        let ended_before = settled && count < index(limit.into()) && last + 1 < self.key_count;
        if ended_before { Err(Violation::NotListed { key: last + 1 }) } else { Ok(count) }
    }
}

/// What a listing was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing {
    pub(crate) after: u64,
    pub(crate) limit: u32,
    pub(crate) settled: bool,
}

/// Keys are counted in `usize` when a plan is made, so this never loses bits.
fn index(key: u64) -> usize {
    usize::try_from(key).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(ledger: &Ledger, number: u64) -> Option<Header> {
        Some(Header { run: ledger.run, key: 0, number })
    }

    #[test]
    fn a_read_that_began_after_an_acknowledged_write_must_show_it() {
        let ledger = Ledger::new(1, 1);
        let before = ledger.floor(0);
        assert_eq!(ledger.judge(0, before, None), Ok(()));
        ledger.end_write(ledger.begin_write(0));
        let second = ledger.begin_write(0);
        let during = ledger.floor(0);
        ledger.end_write(second);
        let after = ledger.floor(0);
        assert_eq!(ledger.judge(0, during, shows(&ledger, 1)), Ok(()));
        assert_eq!(ledger.judge(0, during, shows(&ledger, 2)), Ok(()));
        assert_eq!(
            ledger.judge(0, after, shows(&ledger, 1)),
            Err(Violation::Stale { shown: 1, floor: 2 })
        );
        assert_eq!(ledger.judge(0, after, None), Err(Violation::Missing { floor: 2 }));
    }

    #[test]
    fn writes_that_overlapped_may_have_landed_in_either_order() {
        let ledger = Ledger::new(1, 1);
        let (first, second) = (ledger.begin_write(0), ledger.begin_write(0));
        ledger.end_write(second);
        ledger.end_write(first);
        let floor = ledger.floor(0);
        assert_eq!(ledger.judge(0, floor, shows(&ledger, 1)), Ok(()));
        assert_eq!(ledger.judge(0, floor, shows(&ledger, 2)), Ok(()));
        ledger.end_write(ledger.begin_write(0));
        let floor = ledger.floor(0);
        assert!(ledger.judge(0, floor, shows(&ledger, 2)).is_err());
    }

    #[test]
    fn a_write_of_unknown_outcome_may_show_later_and_no_other_old_one_may() {
        let ledger = Ledger::new(1, 1);
        ledger.end_write(ledger.begin_write(0));
        ledger.lose_write(ledger.begin_write(0));
        ledger.end_write(ledger.begin_write(0));
        let floor = ledger.floor(0);
        assert_eq!(ledger.judge(0, floor, shows(&ledger, 2)), Ok(()));
        assert!(ledger.judge(0, floor, shows(&ledger, 1)).is_err());
        assert_eq!(
            ledger.judge(0, floor, shows(&ledger, 4)),
            Err(Violation::Unissued { shown: 4 })
        );
    }

    #[test]
    fn keys_that_are_inserted_exist_once_all_inserts_before_them_have_ended() {
        let ledger = Ledger::new(1, 3);
        let (first, second, third) =
            (ledger.begin_insert(), ledger.begin_insert(), ledger.begin_insert());
        assert_eq!((first.key, second.key, third.key, ledger.existing()), (3, 4, 5, 3));
        ledger.end_write(second);
        assert_eq!(ledger.existing(), 3);
        ledger.lose_write(first);
        assert_eq!(ledger.existing(), 5);
        ledger.drop_write(third);
        ledger.end_write(ledger.begin_write(0));
        assert_eq!(ledger.existing(), 6);
    }

    #[test]
    fn a_value_is_changed_once() {
        let ledger = Ledger::new(1, 1);
        let base = |number| shows(&ledger, number);
        ledger.end_write(ledger.begin_write(0));
        let (first, second) = (ledger.begin_write(0), ledger.begin_write(0));
        assert_eq!(ledger.end_change(first, base(1)), Ok(()));
        assert_eq!(ledger.end_change(second, base(1)), Err(Violation::LostUpdate { base: 1 }));
        let foreign = Some(Header { run: 9, key: 0, number: 1 });
        for base in [base(2), foreign, foreign, None, None] {
            assert_eq!(ledger.end_change(ledger.begin_write(0), base), Ok(()));
        }
    }

    #[test]
    fn a_listing_is_in_order_within_its_limit_and_misses_no_settled_key() {
        let ledger = Ledger::new(1, 10);
        let judge = |settled, keys: &[u64]| {
            let listing = Listing { after: 4, limit: 3, settled };
            ledger.judge_listing(listing, keys.iter().map(|key| Some(*key)))
        };
        assert_eq!(judge(true, &[5, 6, 7]), Ok(3));
        assert_eq!(judge(true, &[5, 7, 8]), Err(Violation::NotListed { key: 6 }));
        assert_eq!(judge(true, &[5, 6]), Err(Violation::NotListed { key: 7 }));
        assert_eq!(judge(false, &[5, 7]), Ok(2));
        for (wrong, row) in [(&[4][..], 0), (&[5, 5], 1), (&[7, 6], 1), (&[5, 6, 7, 8], 3)] {
            assert_eq!(judge(false, wrong), Err(Violation::Listing { row }), "{wrong:?}");
        }
        let end = Listing { after: 8, limit: 3, settled: true };
        assert_eq!(ledger.judge_listing(end, [Some(9), Some(12)].into_iter()), Ok(2));
        assert_eq!(ledger.judge_listing(end, [Some(9)].into_iter()), Ok(1));
        assert!(ledger.judge_listing(end, [None].into_iter()).is_err());
    }

    #[test]
    fn another_process_or_key_is_told_apart() {
        let ledger = Ledger::new(1, 2);
        let other = Some(Header { run: 2, key: 0, number: 50 });
        assert_eq!(ledger.judge(0, 0, other), Ok(()));
        assert_eq!(ledger.judge(0, 1, other), Err(Violation::Foreign { run: 2 }));
        assert_eq!(ledger.judge(1, 0, other), Err(Violation::WrongKey { shown: 0 }));
    }
}
