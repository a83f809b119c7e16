//! What this process knows it wrote: the ground on which a read is called stale.
//!
//! In: begin and end of every write, begin and answer of every read. Out: one verdict per read.
//! Invariant: `floor[key]` is a write number such that some acknowledged write began after every
//! lower-numbered write had ended; so an answer below the floor is older than an acknowledged
//! write, whichever way the server ordered writes that overlapped.
//! A write of unknown outcome may land at any later time, so its own number is never called stale.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tako_types::Version;

use super::value::Header;

/// Locks over the open writes; a key belongs to one by its index.
const SHARD_COUNT: usize = 64;

/// Unknown outcomes kept per key one by one; beyond that, all below the newest are let pass.
const UNKNOWN_MAX: usize = 64;

/// Writes of all keys of one target.
#[derive(Debug)]
pub(crate) struct Ledger {
    run: u32,
    /// Highest number given to a write, by key.
    issued: Vec<AtomicU64>,
    /// Lowest number a read may still show, by key; 0: none was acknowledged.
    floor: Vec<AtomicU64>,
    open: Vec<Mutex<HashMap<u64, Open>>>,
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
        }
    }
}

impl Ledger {
    pub(crate) fn new(run: u32, key_count: usize) -> Self {
        let zeros = || (0..key_count).map(|_| AtomicU64::new(0)).collect();
        Self {
            run,
            issued: zeros(),
            floor: zeros(),
            open: (0..SHARD_COUNT).map(|_| Mutex::new(HashMap::new())).collect(),
        }
    }

    fn shard(&self, key: u64) -> &Mutex<HashMap<u64, Open>> {
        &self.open[index(key) % SHARD_COUNT]
    }

    /// Gives the next write of `key` its number. `key` is below the key count.
    pub(crate) fn begin_write(&self, key: u64) -> Ticket {
        let mut shard = self.shard(key).lock();
        let number = self.issued[index(key)].fetch_add(1, Ordering::AcqRel) + 1;
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
        self.floor[index(ticket.key)].fetch_max(ticket.supersedes_below, Ordering::AcqRel);
    }

    /// The write failed, or nobody knows whether it did.
    pub(crate) fn lose_write(&self, ticket: Ticket) {
        self.close(ticket, true);
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
        self.floor[index(key)].load(Ordering::Acquire)
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
        if shown > self.issued[index(key)].load(Ordering::Acquire) {
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
    fn another_process_or_key_is_told_apart() {
        let ledger = Ledger::new(1, 2);
        let other = Some(Header { run: 2, key: 0, number: 50 });
        assert_eq!(ledger.judge(0, 0, other), Ok(()));
        assert_eq!(ledger.judge(0, 1, other), Err(Violation::Foreign { run: 2 }));
        assert_eq!(ledger.judge(1, 0, other), Err(Violation::WrongKey { shown: 0 }));
    }
}
