//! Promises of one partition: which ballots stand between a key's record and its next writes.
//!
//! In: ballots (Prepare), durable versions (`settle`), floors. Out: what may pass. Invariants:
//! - a key's promise only rises until a record at or above it is durable, which then says as much;
//! - what is forgotten while it matters (evicted, lost with the process) is at or below `floor`;
//! - a ballot is of use for [`PROMISE_LIFE`] by the replica's own clock and binds for
//!   [`CLOCK_DRIFT_MAX`] longer, so that when it binds no more, it is of no use at any replica.
//!
//! Pure: time comes in, nothing is stored. Why so: docs/decisions/0006-promises.md.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tako_types::{
    StoredKey, Version,
    limits::{CLOCK_DRIFT_MAX, PROMISE_LIFE, PROMISES_MAX, REPAIR_WAIT},
};

/// What stands for one key.
#[derive(Debug, Clone, Copy)]
struct Promise {
    ballot: Version,
    /// What was held when the promise was answered; `ZERO` before that, and for nothing.
    shown: Version,
    given_micros: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Promises {
    by_key: HashMap<StoredKey, Promise>,
    /// The same, lowest ballot first: what expires and what is evicted. The digest tells apart
    /// what a careless caller gave one ballot.
    by_ballot: BTreeMap<(Version, u64), StoredKey>,
    /// No promise that was forgotten while it bound is above this.
    floor: Version,
    count_max: usize,
}

impl Default for Promises {
    fn default() -> Self {
        Self {
            by_key: HashMap::new(),
            by_ballot: BTreeMap::new(),
            floor: Version::ZERO,
            count_max: PROMISES_MAX,
        }
    }
}

/// May a ballot still be promised, or its record accepted?
fn is_of_use(ballot: Version, now_micros: u64) -> bool {
    now_micros <= ballot.micros.saturating_add(micros(PROMISE_LIFE))
}

/// May a ballot be of use at some replica, whose clock may be behind?
fn binds(ballot: Version, now_micros: u64) -> bool {
    is_of_use(ballot, now_micros.saturating_sub(micros(CLOCK_DRIFT_MAX)))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Promises {
    /// Promises to take nothing for `key` below `ballot` any more; the same ballot again is nothing new.
    ///
    /// # Errors
    /// The version that the next ballot must be above.
    pub(crate) fn prepare(
        &mut self,
        key: &StoredKey,
        ballot: Version,
        now_micros: u64,
    ) -> Result<(), Version> {
        if !is_of_use(ballot, now_micros) {
            // A call that comes late; a proposer that is alive issues from the present.
            return Err(Version { micros: now_micros, origin: 0 });
        }
        let promised = self.of(key);
        if promised == Some(ballot) && self.floor < ballot {
            return Ok(());
        }
        let standing = promised.unwrap_or_default().max(self.floor);
        if ballot <= standing {
            return Err(standing);
        }
        self.forget(key);
        self.forget_expired(now_micros);
        if self.by_key.len() >= self.count_max
            && let Some((&(lowest, digest), _)) = self.by_ballot.first_key_value()
        {
            if ballot <= lowest {
                return Err(lowest);
            }
            if let Some(evicted) = self.by_ballot.remove(&(lowest, digest)) {
                self.by_key.remove(&evicted);
            }
            self.raise_floor(lowest);
        }
        // A key that is a slice of its frame would keep the frame in memory.
        let key = key.detached();
        self.by_ballot.insert((ballot, key.digest()), key.clone());
        self.by_key.insert(key, Promise { ballot, shown: Version::ZERO, given_micros: now_micros });
        Ok(())
    }

    /// The promise of `ballot` is being answered with a record of this version.
    pub(crate) fn answered(&mut self, key: &StoredKey, ballot: Version, shown: Version) {
        if let Some(promise) = self.by_key.get_mut(key).filter(|it| it.ballot == ballot) {
            promise.shown = shown;
        }
    }

    /// Is `ballot` what was promised for the key, and not too long ago?
    ///
    /// # Errors
    /// The version that the next ballot must be above.
    pub(crate) fn may_accept(
        &self,
        key: &StoredKey,
        ballot: Version,
        now_micros: u64,
    ) -> Result<(), Version> {
        let promised = self.of(key);
        if promised == Some(ballot) && is_of_use(ballot, now_micros) {
            return Ok(());
        }
        Err(promised.unwrap_or_default().max(self.floor).max(ballot))
    }

    /// May a plain write of `version` pass?
    ///
    /// # Errors
    /// The version that it must be above.
    pub(crate) fn may_write(
        &self,
        key: &StoredKey,
        version: Version,
        now_micros: u64,
    ) -> Result<(), Version> {
        let standing = self.of(key).unwrap_or_default().max(self.floor);
        if version <= standing && binds(standing, now_micros) { Err(standing) } else { Ok(()) }
    }

    /// May a repair of `version` pass?
    ///
    /// # Errors
    /// The promise above it, whose record may be on its way.
    pub(crate) fn may_repair(
        &self,
        key: &StoredKey,
        version: Version,
        now_micros: u64,
    ) -> Result<(), Version> {
        let young = |it: &&Promise| {
            let end = it.given_micros.saturating_add(micros(REPAIR_WAIT));
            version < it.ballot && (it.given_micros..end).contains(&now_micros)
        };
        self.by_key.get(key).filter(young).map_or(Ok(()), |it| Err(it.ballot))
    }

    /// A record of `version` is durable: a promise at or below it says nothing more.
    pub(crate) fn settle(&mut self, key: &StoredKey, version: Version) {
        if !self.by_key.is_empty() && self.of(key).is_some_and(|promised| promised <= version) {
            self.forget(key);
        }
    }

    /// What was promised for the key.
    pub(crate) fn of(&self, key: &StoredKey) -> Option<Version> {
        self.by_key.get(key).map(|promise| promise.ballot)
    }

    /// Does holding `version` already make an acknowledgement of it a vote?
    ///
    /// Not where it may have come past a promise: as a repair, by a step, or while this node did
    /// not vote. Whoever got that promise was not shown it.
    pub(crate) fn may_count(&self, key: &StoredKey, version: Version, now_micros: u64) -> bool {
        let forgotten = version <= self.floor && binds(self.floor, now_micros);
        let passed = self.by_key.get(key).is_some_and(|it| {
            it.shown < version && version < it.ballot && binds(it.ballot, now_micros)
        });
        !forgotten && !passed
    }

    /// Promises up to here may have been given and are not known.
    pub(crate) fn raise_floor(&mut self, floor: Version) {
        self.floor = self.floor.max(floor);
    }

    /// The highest ballot that binds here, forgotten or not; `ZERO` for none.
    pub(crate) fn highest(&self, now_micros: u64) -> Version {
        let last = self.by_ballot.last_key_value().map(|((ballot, _), _)| *ballot);
        let highest = last.unwrap_or_default().max(self.floor);
        if binds(highest, now_micros) { highest } else { Version::ZERO }
    }

    fn forget(&mut self, key: &StoredKey) {
        if let Some(promise) = self.by_key.remove(key) {
            self.by_ballot.remove(&(promise.ballot, key.digest()));
        }
    }

    /// Removes what binds no more; no ballot above it is lost by that, as one below it is too old.
    fn forget_expired(&mut self, now_micros: u64) {
        while let Some((&(ballot, digest), _)) = self.by_ballot.first_key_value()
            && !binds(ballot, now_micros)
        {
            if let Some(key) = self.by_ballot.remove(&(ballot, digest)) {
                self.by_key.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
