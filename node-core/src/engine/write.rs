//! The accept rule: a replica takes a write iff its version is above the record's and above any
//! promise.
//!
//! Invariant: an accepted record is in the journal, durable, and in the index before `put`
//! answers. A version above the index entry and above the snapshot's highest needs no snapshot
//! read; any other does. What is only on its way into the journal does not supersede anything: it
//! may yet be lost, so an answer must not rest on it; the index keeps the newer of the two.
//! A repair is stopped by a young promise only (`promise.rs`), and waits for an Accept under way: whoever
//! is told that a repair was taken may rely on nothing newer having been taken before it. A replica that does
//! not vote takes what a promise may forbid; its acknowledgement then is no vote.

use std::{pin::pin, sync::atomic::Ordering};

use tako_flatbuf::Record;
use tako_journal::{Entry, EntryKind};
use tako_types::{PartitionId, StoredKey, Version};

use super::{
    Engine, EngineError,
    partition::{InFlight, Inner},
};

/// What became of a write at one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Durable here, or was already.
    Yes {
        /// Did this node vote on the partition when the write was judged?
        voting: bool,
    },
    /// The replica holds something at least as new.
    Superseded(Version),
    /// A promise forbids it; what is sent must be above this.
    Promised(Version),
}

/// Why a record is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// A client's write: promises stand above it.
    Write,
    /// Something that is held elsewhere: promises stop it for a moment only.
    Repair,
}

/// Why the lock alone does not let a write through.
enum Look {
    Newer(Version),
    Same {
        voting: bool,
    },
    Promised(Version),
    /// Something of the same key is on its way, and what became of it matters.
    Wait,
    AskSnapshot,
}

impl Engine {
    /// Offers a record to this replica.
    ///
    /// Guarantee: on `Accepted::Yes` it is durable (by the journal's `durability`) and visible.
    /// Idempotent: the same record again is accepted again. Cancel-safe: a dropped call may have
    /// written.
    ///
    /// # Errors
    /// [`EngineError`] when the journal cannot take it or the vote cannot be read.
    pub async fn put(
        &self,
        p: PartitionId,
        record: Record,
        intent: Intent,
    ) -> Result<Accepted, EngineError> {
        let partition = self.partition(p);
        let key = record.key();
        // Before the look: one that was made while recovering must not count as a voter's.
        let voted = self.judges(p);
        // Views installed when the vote was asked: what it said holds as long as that is so.
        let mut asked_at: Option<u64> = None;
        let (_in_flight, voting) = loop {
            let mut ended = pin!(partition.append_ended.notified());
            let (look, installs) = {
                let mut inner = partition.lock();
                let asked = asked_at == Some(inner.installs);
                match self.look(&inner, &key, &record, intent, asked) {
                    Ok(voting) => break (InFlight::begin(partition, &mut inner, &key), voting),
                    Err(look) => {
                        // Under the lock, so that no end is missed.
                        ended.as_mut().enable();
                        (look, inner.installs)
                    }
                }
            };
            match look {
                Look::Wait => ended.await,
                Look::Same { voting } => return Ok(self.accepted(p, voted && voting)),
                Look::Newer(version) => return Ok(self.superseded(version)),
                Look::Promised(version) => return Ok(self.barred(version)),
                Look::AskSnapshot => {
                    asked_at = Some(installs);
                    let held = match self.vote(p, &key).await {
                        // The merge has it give way to any intact record: this mends it.
                        Err(EngineError::Record { .. }) if intent == Intent::Repair => None,
                        vote => vote?.record,
                    };
                    if let Some(held) = held {
                        if held.version() > record.version() {
                            return Ok(self.superseded(held.version()));
                        }
                        if held.version() == record.version() {
                            return Ok(if held.crc() == record.crc() {
                                let inner = partition.lock();
                                let voting =
                                    self.counts_for(&inner, &key, record.version(), intent);
                                drop(inner);
                                self.accepted(p, voted && voting)
                            } else {
                                self.superseded(held.version())
                            });
                        }
                    }
                }
            }
        };
        self.append_record(p, &record).await?;
        Ok(self.accepted(p, voted && voting))
    }

    /// Journals a record; durable and in the index afterwards.
    pub(super) async fn append_record(
        &self,
        p: PartitionId,
        record: &Record,
    ) -> Result<(), EngineError> {
        let payload = record.bytes().clone();
        self.journal.append(Entry { partition: p, kind: EntryKind::Record, payload }).await?;
        Ok(())
    }

    /// Whether this node votes, when the record may be taken.
    fn look(
        &self,
        inner: &Inner,
        key: &StoredKey,
        record: &Record,
        intent: Intent,
        asked: bool,
    ) -> Result<bool, Look> {
        let version = record.version();
        if let Some(held) = inner.index.get(key) {
            if held.version() > version || (held.version() == version && held.crc != record.crc()) {
                return Err(Look::Newer(held.version()));
            }
            if held.version() == version {
                return Err(Look::Same { voting: self.counts_for(inner, key, version, intent) });
            }
        }
        match &inner.view {
            // Without a view this node does not vote: it takes everything, the merge decides.
            None => Ok(false),
            Some(view) if version > view.meta.highest || asked => {
                self.look_at_promises(inner, key, version, intent)
            }
            Some(_) => Err(Look::AskSnapshot),
        }
    }

    fn look_at_promises(
        &self,
        inner: &Inner,
        key: &StoredKey,
        version: Version,
        intent: Intent,
    ) -> Result<bool, Look> {
        let voting = inner.judges();
        match intent {
            Intent::Repair if inner.is_appending(key) && inner.promises.of(key) > Some(version) => {
                Err(Look::Wait)
            }
            Intent::Repair if voting => {
                match inner.promises.may_repair(key, version, self.clock.now_micros()) {
                    Err(standing) => Err(Look::Promised(standing)),
                    Ok(()) => Ok(voting),
                }
            }
            Intent::Write if voting => {
                match inner.promises.may_write(key, version, self.clock.now_micros()) {
                    Err(standing) => Err(Look::Promised(standing)),
                    Ok(()) => Ok(voting),
                }
            }
            Intent::Write | Intent::Repair => Ok(voting),
        }
    }

    fn counts_for(&self, inner: &Inner, key: &StoredKey, version: Version, intent: Intent) -> bool {
        match intent {
            Intent::Repair => inner.judges(),
            Intent::Write => self.counts(inner, key, version),
        }
    }

    /// Is an acknowledgement of this version, which is held already, a vote?
    pub(super) fn counts(&self, inner: &Inner, key: &StoredKey, version: Version) -> bool {
        inner.judges() && inner.promises.may_count(key, version, self.clock.now_micros())
    }

    /// `voting`: did this node vote when it took the write in?
    pub(super) fn accepted(&self, p: PartitionId, voting: bool) -> Accepted {
        self.metrics.accepted.fetch_add(1, Ordering::Relaxed);
        Accepted::Yes { voting: voting && self.judges(p) }
    }

    pub(super) fn barred(&self, version: Version) -> Accepted {
        self.metrics.barred.fetch_add(1, Ordering::Relaxed);
        Accepted::Promised(version)
    }

    pub(super) fn superseded(&self, version: Version) -> Accepted {
        self.metrics.superseded.fetch_add(1, Ordering::Relaxed);
        Accepted::Superseded(version)
    }
}
