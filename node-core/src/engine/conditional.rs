//! Prepare and Accept at one replica: the acceptor of a conditional write.
//!
//! ```text
//! prepare:  promise ─► appends under way for the key end ─► vote ─► the record, if all below ballot
//! accept:   promise is the ballot, record <= base, no append under way ─► journal ─► answer
//! ```
//! Invariants: the promise is made before the vote is read, so what is accepted later under it is
//! in the answer; an Accept decides while nothing for its key is under way into the journal, so the
//! record it compares with the base is the last one; what is journalled is the plain write's entry.
//! A ballot above the persisted ceiling is never promised. Rules of promises: `promise.rs`.

use std::{pin::pin, sync::atomic::Ordering};

use tako_flatbuf::Record;
use tako_types::{PartitionId, StoredKey, Version};

use super::{
    Accepted, Engine, EngineError, Vote,
    partition::{InFlight, Inner},
};

/// What a replica says to a ballot.
#[derive(Debug, Clone)]
pub enum Prepared {
    /// Promised; this is held.
    Promised(Vote),
    /// The next ballot must be above this version.
    Refused(Version),
    /// The ceiling must be raised on disk first ([`Engine::raise_promise_ceiling`]).
    AboveCeiling,
}

/// Why the lock alone does not let an Accept through.
enum Look {
    Newer(Version),
    Same { voting: bool },
    Barred(Version),
    Wait,
    AskVote,
}

impl Engine {
    /// Promises `ballot` for `key` and answers with what is held, if nothing of it is above. A record
    /// at the ballot is the proposer's own: the key moved while it was sent, and it asks again.
    ///
    /// Guarantee: from then on no plain write and no Accept below the ballot is taken here, by this
    /// process; and after a restart none as long as it matters. Cancel-safe: a dropped call may
    /// have promised, which only refuses lower ones.
    ///
    /// # Errors
    /// [`EngineError::NotVoting`] while recovering; [`EngineError`] when the vote cannot be read.
    pub async fn prepare(
        &self,
        p: PartitionId,
        key: &StoredKey,
        ballot: Version,
    ) -> Result<Prepared, EngineError> {
        if ballot.micros >= self.promise_ceiling.load(Ordering::Acquire) {
            return Ok(Prepared::AboveCeiling);
        }
        let partition = self.partition(p);
        {
            let mut inner = partition.lock();
            if !inner.judges() {
                return Err(EngineError::NotVoting(p));
            }
            if let Some(held) = inner.index.get(key).filter(|held| held.version() > ballot) {
                return Ok(Prepared::Refused(held.version()));
            }
            if let Err(standing) = inner.promises.prepare(key, ballot, self.clock.now_micros()) {
                return Ok(Prepared::Refused(standing));
            }
        }
        // What passed before the promise must be in the answer. What comes now is above the
        // ballot, or a repair, which an Accept will see.
        loop {
            let mut ended = pin!(partition.append_ended.notified());
            ended.as_mut().enable();
            if !partition.lock().is_appending(key) {
                break;
            }
            ended.await;
            if let Some(refused) = still_promised(&partition.lock(), key, ballot) {
                return Ok(Prepared::Refused(refused));
            }
        }
        let vote = self.vote(p, key).await?;
        let mut inner = partition.lock();
        if let Some(held) = vote.record.as_ref().filter(|held| held.version() >= ballot) {
            // That record is durable and bars the same.
            inner.promises.settle(key, held.version());
            let standing = inner.promises.of(key).max(Some(held.version())).unwrap_or_default();
            if standing > ballot {
                return Ok(Prepared::Refused(standing));
            }
            return Ok(Prepared::Promised(vote));
        }
        if let Some(refused) = still_promised(&inner, key, ballot) {
            return Ok(Prepared::Refused(refused));
        }
        let shown = vote.record.as_ref().map(Record::version);
        inner.promises.answered(key, ballot, shown.unwrap_or_default());
        self.metrics.promised.fetch_add(1, Ordering::Relaxed);
        Ok(Prepared::Promised(vote))
    }

    /// Takes `record` iff its version is the promised ballot and nothing above `base` is held.
    ///
    /// Guarantee: as for [`Engine::put`]; the same record again is accepted again.
    ///
    /// # Errors
    /// [`EngineError`] when the journal cannot take it or the vote cannot be read.
    pub async fn accept(
        &self,
        p: PartitionId,
        base: Version,
        record: Record,
    ) -> Result<Accepted, EngineError> {
        let partition = self.partition(p);
        let key = record.key();
        let mut asked_at: Option<u64> = None;
        let (_in_flight, voting) = loop {
            let mut ended = pin!(partition.append_ended.notified());
            ended.as_mut().enable();
            let (look, installs) = {
                let mut inner = partition.lock();
                let asked = asked_at == Some(inner.installs);
                match self.look_accept(&inner, &key, &record, base, asked) {
                    Ok(voting) => break (InFlight::begin(partition, &mut inner, &key), voting),
                    Err(look) => (look, inner.installs),
                }
            };
            match look {
                Look::Wait => ended.await,
                Look::Same { voting } => return Ok(self.accepted(p, voting)),
                Look::Newer(version) => return Ok(self.superseded(version)),
                Look::Barred(version) => return Ok(self.barred(version)),
                Look::AskVote => {
                    asked_at = Some(installs);
                    let Some(held) = self.vote(p, &key).await?.record else { continue };
                    if held.version() == record.version() && held.crc() == record.crc() {
                        let voting = self.counts(&partition.lock(), &key, record.version());
                        return Ok(self.accepted(p, voting));
                    }
                    if held.version() > base {
                        return Ok(self.superseded(held.version()));
                    }
                }
            }
        };
        self.append_record(p, &record).await?;
        Ok(self.accepted(p, voting))
    }

    /// Whether this node votes, when the record may be taken.
    fn look_accept(
        &self,
        inner: &Inner,
        key: &StoredKey,
        record: &Record,
        base: Version,
        asked: bool,
    ) -> Result<bool, Look> {
        let ballot = record.version();
        if let Some(held) = inner.index.get(key) {
            if held.version() == ballot && held.crc == record.crc() {
                return Err(Look::Same { voting: self.counts(inner, key, ballot) });
            }
            if held.version() > base {
                return Err(Look::Newer(held.version()));
            }
        }
        if let Err(standing) = inner.promises.may_accept(key, ballot, self.clock.now_micros()) {
            // It may be here already, covered since: then the promise went when it became durable.
            return Err(if asked { Look::Barred(standing) } else { Look::AskVote });
        }
        if inner.is_appending(key) {
            return Err(Look::Wait);
        }
        match &inner.view {
            Some(view) if view.meta.highest <= base || asked => Ok(inner.judges()),
            _ => Err(Look::AskVote),
        }
    }

    /// Ballots below this may be promised: the ceiling is on disk.
    pub fn raise_promise_ceiling(&self, micros: u64) {
        self.promise_ceiling.fetch_max(micros, Ordering::AcqRel);
    }

    /// Promises up to `floor` may have been given by an earlier folder of this node.
    pub fn raise_promise_floor(&self, p: PartitionId, floor: Version) {
        self.partition(p).lock().promises.raise_floor(floor);
    }

    /// The highest ballot that binds in the partition; [`Version::ZERO`] for none.
    #[must_use]
    pub fn highest_promise(&self, p: PartitionId) -> Version {
        self.partition(p).lock().promises.highest(self.clock.now_micros())
    }
}

/// The version in the way when `ballot` is neither promised for the key any more nor what is held.
fn still_promised(inner: &Inner, key: &StoredKey, ballot: Version) -> Option<Version> {
    let promised = inner.promises.of(key);
    let held = inner.index.get(key).map(|held| held.version());
    if promised == Some(ballot) || (promised.is_none() && held == Some(ballot)) {
        return None;
    }
    Some(promised.max(held).unwrap_or_default().max(ballot))
}
