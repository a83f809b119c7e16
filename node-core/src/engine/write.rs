//! The accept rule: a replica takes a write iff its version is above the record's.
//!
//! Invariant: an accepted record is in the journal, durable, and in the index before `put`
//! answers. A version above the index entry and above the snapshot's highest needs no snapshot
//! read; any other does. What is only on its way into the journal does not supersede anything: it
//! may yet be lost, so an answer must not rest on it; the index keeps the newer of the two.

use std::sync::atomic::Ordering;

use tako_flatbuf::Record;
use tako_journal::{Entry, EntryKind};
use tako_types::{Lsn, PartitionId, StoredKey, Version};

use super::{Engine, EngineError, partition::Partition};

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
}

/// What the lock alone can say about a write.
enum Look {
    Newer(Version),
    Same,
    Accept,
    AskSnapshot,
}

/// Counts a write as on its way until its append ended, however it ended.
struct InFlight<'a>(&'a Partition);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
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
    pub async fn put(&self, p: PartitionId, record: Record) -> Result<Accepted, EngineError> {
        let partition = self.partition(p);
        let key = record.key();
        // Before the look: one that was made while recovering must not count as a voter's.
        let voting = self.is_voting(p);
        // Views installed when the vote was asked: what it said holds as long as that is so.
        let mut asked_at: Option<u64> = None;
        let _in_flight = loop {
            let installs;
            let look = {
                let mut inner = partition.lock();
                let look = Self::look(&inner, &key, &record, asked_at == Some(inner.installs));
                installs = inner.installs;
                inner.in_flight += u32::from(matches!(look, Look::Accept));
                look
            };
            match look {
                Look::Accept => break InFlight(partition),
                Look::Same => return Ok(self.accepted(voting)),
                Look::Newer(version) => return Ok(self.superseded(version)),
                Look::AskSnapshot => {
                    asked_at = Some(installs);
                    if let Some(held) = self.vote(p, &key).await?.record {
                        if held.version() > record.version() {
                            return Ok(self.superseded(held.version()));
                        }
                        if held.version() == record.version() {
                            return Ok(if held.crc() == record.crc() {
                                self.accepted(voting)
                            } else {
                                self.superseded(held.version())
                            });
                        }
                    }
                }
            }
        };
        let payload = record.bytes().clone();
        self.journal.append(Entry { partition: p, kind: EntryKind::Record, payload }).await?;
        Ok(self.accepted(voting))
    }

    /// Appends everything held once more: after damage the readable entries lie in files that were
    /// moved aside. Call it after the views were opened, so that nothing covered is among them.
    ///
    /// # Errors
    /// [`EngineError`] when the journal cannot be read or take it.
    pub async fn journal_again(&self) -> Result<(), EngineError> {
        for p in self.partitions() {
            let held: Vec<_> =
                self.partition(p).lock().index.tail(Lsn(0)).map(|(_, held)| held.clone()).collect();
            for held in held {
                let payload = self.read_back(p, held).await?.bytes().clone();
                let entry = Entry { partition: p, kind: EntryKind::Record, payload };
                self.journal.append(entry).await?;
            }
        }
        Ok(())
    }

    /// Frees a journal file that few needed entries keep alive: appends them once more.
    ///
    /// # Errors
    /// [`EngineError`] when the journal cannot be read or take them.
    pub async fn rewrite_sparse_file(&self) -> Result<(), EngineError> {
        let Some(file) = self.journal.sparse_file() else { return Ok(()) };
        for p in self.partitions() {
            let held: Vec<_> = self.partition(p).lock().index.in_file(file).cloned().collect();
            for held in held {
                let payload = self.read_back(p, held).await?.bytes().clone();
                let entry = Entry { partition: p, kind: EntryKind::Record, payload };
                self.journal.append(entry).await?;
            }
        }
        Ok(())
    }

    fn look(
        inner: &super::partition::Inner,
        key: &StoredKey,
        record: &Record,
        asked: bool,
    ) -> Look {
        let version = record.version();
        if let Some(held) = inner.index.get(key) {
            if held.version > version || (held.version == version && held.crc != record.crc()) {
                return Look::Newer(held.version);
            }
            if held.version == version {
                return Look::Same;
            }
        }
        match &inner.view {
            // Without a view this node does not vote: it takes everything, the merge decides.
            None => Look::Accept,
            Some(view) if version > view.meta.highest || asked => Look::Accept,
            Some(_) => Look::AskSnapshot,
        }
    }

    fn accepted(&self, voting: bool) -> Accepted {
        self.metrics.accepted.fetch_add(1, Ordering::Relaxed);
        Accepted::Yes { voting }
    }

    fn superseded(&self, version: Version) -> Accepted {
        self.metrics.superseded.fetch_add(1, Ordering::Relaxed);
        Accepted::Superseded(version)
    }
}
