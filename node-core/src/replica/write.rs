//! What a replica takes: Put, Prepare and Accept, each under one epoch; and changes that it makes itself.
//!
//! Invariant: whatever was acknowledged under an epoch below *e* is durable and in the index before
//! [`Admissions::ended_below`] of *e* returns, and nothing of a lower epoch is let in after *e* is in
//! force: a request is counted, under the document it is let in by, from before its epoch is
//! compared until after its answer is made. So the last LSN that is read then is L(e). What a caller
//! gave up may come into the journal later; nobody was told of it.

use std::{
    collections::BTreeMap,
    sync::{Weak, atomic::Ordering},
};

use parking_lot::Mutex;
use tako_flatbuf::{NodeState, PrepareOutcome, PutOutcome, Record, Response, RpcError};
use tako_types::{ErrorKind, PartitionId, StoredKey, Version, limits::REQUEST_DEADLINE};
use tokio::sync::Notify;

use super::{Replica, rpc_error};
use crate::{
    engine::{Accepted, Intent, Prepared},
    replication::{Change, RequestError},
};

/// Writes under way, by the epoch that they were let in under.
#[derive(Debug, Default)]
pub(super) struct Admissions {
    counts: Mutex<BTreeMap<u64, u64>>,
    ended: Notify,
}

/// One write under way.
pub(super) struct Admitted<'a> {
    admissions: &'a Admissions,
    epoch: u64,
}

impl Admissions {
    /// Waits until no write is under way that was let in under an epoch below `epoch`, which must be
    /// in force.
    pub(super) async fn ended_below(&self, epoch: u64) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.counts.lock().first_key_value().is_none_or(|(first, _)| epoch <= *first) {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut counts = self.admissions.counts.lock();
        if let Some(count) = counts.get_mut(&self.epoch) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.epoch);
            }
        }
        drop(counts);
        self.admissions.ended.notify_waiters();
    }
}

impl Replica {
    /// Lets a write in under the document in force; `epoch` is the caller's, where it said one.
    pub(super) fn admit(
        &self,
        p: PartitionId,
        epoch: Option<u64>,
    ) -> Result<Admitted<'_>, RpcError> {
        // Under the lock: who waits for lower epochs to end either sees this one, or it sees theirs.
        let mut counts = self.admissions.counts.lock();
        let current = self.config.current();
        let own = current.epoch.number;
        if epoch.is_some_and(|epoch| epoch < own) {
            return Err(RpcError::stale_epoch(own));
        }
        let me = self.engine.node();
        if !current.has(p) || !current.placement(p).takes_writes(me) {
            let text = format!("{me} takes no writes of partition {p} in epoch {own}");
            return Err(RpcError::new(ErrorKind::Invalid, text));
        }
        *counts.entry(own).or_default() += 1;
        Ok(Admitted { admissions: &self.admissions, epoch: own })
    }

    /// A plain write, or what is written back.
    pub(super) async fn put(
        &self,
        p: PartitionId,
        record: Record,
        repair: bool,
        until_micros: u64,
    ) -> Result<PutOutcome, RpcError> {
        if until_micros != 0 && until_micros < self.engine.clock().now_micros() {
            // A tombstone above it may be purged by now.
            let text = "the write came too late, or the clocks are far apart";
            return Err(RpcError::new(ErrorKind::Unavailable, text));
        }
        self.on_write(p, &record.key(), record.version())?;
        let intent = if repair { Intent::Repair } else { Intent::Write };
        let judged = self.engine.judges(p);
        let put = self.engine.put(p, record, intent).await;
        let accepted = match put.map_err(rpc_error)? {
            // Only a judge refuses: a folder that is not trusted yet may have to forget what it
            // takes for newer. Its acknowledgement names the folder, so that it can be void.
            Accepted::Superseded(_) if !judged => Accepted::Yes { voting: false },
            accepted => accepted,
        };
        Ok(self.outcome(p, accepted))
    }

    /// What holds for everything that may come to lie in the journal.
    fn on_write(&self, p: PartitionId, key: &StoredKey, version: Version) -> Result<(), RpcError> {
        if self.is_draining() {
            let text = format!("{} is leaving and takes nothing new", self.engine.node());
            return Err(RpcError::new(ErrorKind::Unavailable, text));
        }
        if key.partition(self.engine.partitions_log2()) != p {
            return Err(RpcError::new(ErrorKind::Invalid, "the key is of another partition"));
        }
        // The serving node checked its client; here a far version is only counted, as refusing
        // would let one bad clock deny a quorum. It does not move this node's clock.
        if self.engine.clock().observe(version).is_err() {
            self.drift_refused.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn outcome(&self, p: PartitionId, accepted: Accepted) -> PutOutcome {
        match accepted {
            Accepted::Superseded(version) => PutOutcome::Superseded { version },
            Accepted::Promised(version) => PutOutcome::Promised { version },
            Accepted::Yes { voting } => PutOutcome::Accepted {
                incarnation: self.engine.incarnation(),
                voting,
                known: self.membership.known_of(&self.config.current().placement(p).holders),
            },
        }
    }

    /// A change under a condition, made by this node.
    pub(super) async fn change(
        &self,
        p: PartitionId,
        change: Change,
    ) -> Result<Response, RpcError> {
        if change.key().partition(self.engine.partitions_log2()) != p {
            return Err(RpcError::new(ErrorKind::Invalid, "the key is of another partition"));
        }
        let serving = self.serving.get().and_then(Weak::upgrade);
        let serving = serving.filter(|_| self.state() == NodeState::Serving).ok_or_else(|| {
            RpcError::nothing_done(format!("{} does not serve now", self.engine.node()))
        })?;
        // On the heap: every call's future would be as large. The caller's deadline comes first.
        let changed = Box::pin(serving.change_here(&change, REQUEST_DEADLINE)).await;
        changed.map(Response::Change).map_err(RequestError::of_change)
    }

    /// First round of a conditional write.
    pub(super) async fn prepare(
        &self,
        p: PartitionId,
        key: &StoredKey,
        ballot: Version,
    ) -> Result<PrepareOutcome, RpcError> {
        self.on_write(p, key, ballot)?;
        // A far ballot is refused: the floor that it would leave behind stops ordinary writes.
        if let Err(drift) = self.engine.clock().check(ballot) {
            return Err(RpcError::new(ErrorKind::Invalid, drift.to_string()));
        }
        loop {
            match self.engine.prepare(p, key, ballot).await.map_err(rpc_error)? {
                Prepared::Refused(version) => return Ok(PrepareOutcome::Refused { version }),
                Prepared::Promised(vote) => {
                    return Ok(PrepareOutcome::Promised {
                        incarnation: self.engine.incarnation(),
                        known: self
                            .membership
                            .known_of(&self.config.current().placement(p).holders),
                        record: vote.record,
                        step: vote.step,
                        covered: vote.covered,
                        voting: self.engine.judges(p),
                    });
                }
                Prepared::AboveCeiling => {
                    let raised = self.identity.raise_promise_ceiling(ballot.micros).await;
                    self.engine.raise_promise_ceiling(raised.map_err(|error| {
                        let text = format!("cannot keep the ceiling of promises: {error}");
                        RpcError::new(ErrorKind::Unavailable, text)
                    })?);
                }
            }
        }
    }

    /// Second round of a conditional write.
    pub(super) async fn accept(
        &self,
        p: PartitionId,
        base: Version,
        record: Record,
    ) -> Result<PutOutcome, RpcError> {
        self.on_write(p, &record.key(), record.version())?;
        if record.version() <= base {
            return Err(RpcError::new(ErrorKind::Invalid, "the ballot is not above its base"));
        }
        let accepted = self.engine.accept(p, base, record).await.map_err(rpc_error)?;
        Ok(self.outcome(p, accepted))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    impl Admissions {
        fn enter(&self, epoch: u64) -> Admitted<'_> {
            *self.counts.lock().entry(epoch).or_default() += 1;
            Admitted { admissions: self, epoch }
        }
    }

    #[test]
    fn an_epoch_waits_for_what_was_let_in_before_it_and_for_nothing_else() {
        let admissions = Admissions::default();
        let (first, second) = (admissions.enter(1), admissions.enter(1));
        let _later = admissions.enter(2);
        let mut ended = Box::pin(admissions.ended_below(2));
        assert!(ended.as_mut().now_or_never().is_none(), "two are under way");
        drop(first);
        assert!(ended.as_mut().now_or_never().is_none(), "one is under way");
        drop(second);
        assert!(ended.now_or_never().is_some(), "only one of its own is");
        assert!(admissions.ended_below(3).now_or_never().is_none());
    }
}
