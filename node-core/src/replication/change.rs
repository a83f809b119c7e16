//! A change under a condition: what a key has is read and written in one piece.
//!
//! ```text
//! change ─► who changes this key ─► its turn ─► prepare: a majority promises, and shows what it holds
//!        ─► does the condition hold of the newest? ─► accept: a majority takes the record above it
//! ```
//! Any process can do it, but two that do it for one key at once only put each other off. So all ask
//! the same replica, the first that serves in an order of the key's own, and there changes of one
//! key wait for each other (`turns.rs`). That is for speed: nothing relies on it.
//!
//! Guarantee, for keys whose plain writes go to a majority (`consistency` `quorum` or `all`): a change
//! that is answered with `Done` saw every write that was complete before it began, and no write
//! that was or will be acknowledged lies between what it saw and its own record. A condition that
//! fails is answered once a majority holds what it fails for. Open (decision 0006): where that was a
//! record that its own change did not finish, another unfinished one above it may still take its place.
//!
//! Invariant: **a change has one version that anybody may have seen.** Once a replica may hold the
//! record, it gets no other: who read it may change the key by that version, and another one that is
//! decided on what was before both may lie above it. So the record is sent once more as it is while
//! answers are only lost, and where the key moved, when those who have it now promised its ballot as
//! well and show nothing that came between; a replica that refuses it then makes the outcome one that nobody knows
//! ([`ChangeOutcome::Unknown`]). As long as no replica can have taken it, another ballot is tried.
//! Replica's side: `engine/conditional.rs`, docs/decisions/0006-promises.md.

mod edit;
mod rounds;
mod siblings;
pub(super) mod turns;

use std::{sync::atomic::Ordering, time::Duration};

use rounds::{Accepted, Prepared};
use tako_flatbuf::{ChangeOutcome, Condition, Edit, Record, Request, Response, RpcError};
use tako_types::{ErrorKind, NodeId, StoredKey, Version, limits::CHANGE_TRIES_MAX};
use tokio::time::{Instant, sleep, timeout_at};

use super::{RequestError, Serving, attempt::Attempt};

/// Pause after the first ballot that was too low; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(128);

/// A change under a condition.
#[derive(Debug, Clone)]
pub struct Change {
    condition: Condition,
    edit: Edit,
    /// What to write, or with; under no version yet.
    template: Record,
}

impl Change {
    /// Writes what `template` says where `condition` holds; the template's version counts for nothing.
    #[must_use]
    pub fn new(condition: Condition, template: Record) -> Self {
        Self { condition, edit: Edit::Write, template }
    }

    /// As before, but edits what is there with the template.
    #[must_use]
    pub fn edited(self, edit: Edit) -> Self {
        Self { edit, ..self }
    }

    /// How what is there is edited.
    #[must_use]
    pub fn edit(&self) -> Edit {
        self.edit
    }

    /// Of what is changed.
    #[must_use]
    pub fn key(&self) -> StoredKey {
        self.template.key()
    }
}

impl Serving {
    /// Makes a change, here or at the replica that changes this key.
    ///
    /// # Errors
    /// [`RequestError`]; nothing was done then. What nobody can tell is [`ChangeOutcome::Unknown`].
    pub async fn change(
        &self,
        change: &Change,
        deadline: Duration,
    ) -> Result<ChangeOutcome, RequestError> {
        let begun = Instant::now();
        let changed = self.change_somewhere(change, deadline).await;
        let done = !matches!(changed, Err(_) | Ok(ChangeOutcome::Unknown { .. }));
        self.metrics.change_latency.record(begun.elapsed(), done);
        changed
    }

    async fn change_somewhere(
        &self,
        change: &Change,
        deadline: Duration,
    ) -> Result<ChangeOutcome, RequestError> {
        let until = Instant::now() + deadline;
        let document = self.links.config.current();
        let key = change.key();
        let partition = key.partition(document.partitions_log2());
        for node in self.changers(&key, &document.placement(partition).read.nodes) {
            if self.links.is_local(&node) {
                break;
            }
            let Change { condition, edit, template: record } = change.clone();
            let request = Request::Change { partition, condition, edit, record };
            let left = until.saturating_duration_since(Instant::now());
            match self.links.call(&node, left, request).await {
                Ok(Response::Change(outcome)) => return Ok(outcome),
                Ok(_) => return Ok(unknown(format!("{node} answered something else"))),
                Err(error) if error.did_nothing() && Instant::now() < until => {
                    tracing::debug!(%node, "it changes nothing: {}", error.message);
                }
                Err(error) => return failed(error, deadline),
            }
        }
        self.change_here(change, until.saturating_duration_since(Instant::now())).await
    }

    /// Whom to ask for a change of the key, in this order: the same at all processes, but for who does
    /// not serve as far as this one knows.
    fn changers(&self, key: &StoredKey, replicas: &[NodeId]) -> Vec<NodeId> {
        let mut order = replicas.to_vec();
        let count = order.len().max(1);
        order.rotate_left(usize::try_from(key.digest() % count as u64).unwrap_or(0));
        order.sort_by_key(|node| !self.serves(node));
        order
    }

    /// Makes a change from this process.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub(crate) async fn change_here(
        &self,
        change: &Change,
        deadline: Duration,
    ) -> Result<ChangeOutcome, RequestError> {
        let until = Instant::now() + deadline;
        self.metrics.changes.fetch_add(1, Ordering::Relaxed);
        let Ok(_turn) = timeout_at(until, self.turns.of(&change.key())).await else {
            let text = "changes of this key wait for each other for too long";
            return Err(RequestError::Busy(text.to_owned()));
        };
        let mut is_out = false;
        let proposed = timeout_at(until, self.propose(change, until, &mut is_out)).await;
        let outcome = match proposed.unwrap_or(Err(RequestError::Deadline(deadline))) {
            Err(error) if is_out => Ok(unknown(error.to_string())),
            settled => settled,
        };
        tracing::debug!(key = ?change.key(), ?outcome, is_out, "changed");
        outcome
    }

    /// Ballot after ballot; `is_out` from when replicas may hold the record.
    async fn propose(
        &self,
        change: &Change,
        until: Instant,
        is_out: &mut bool,
    ) -> Result<ChangeOutcome, RequestError> {
        self.check_clock()?;
        let key = change.key();
        let mut attempt = Attempt::begin(&self.links, &key, self.clock.now_micros(), until);
        let mut pause = PAUSE_MIN;
        let mut below = Version::ZERO;
        for _ in 0..CHANGE_TRIES_MAX {
            let ballot = match below {
                Version::ZERO => self.issue().await?,
                below => self.above(below).await?,
            };
            let held = match self.prepare_all(&attempt, &key, ballot).await? {
                Prepared::Promised(held) => held,
                Prepared::Moved => {
                    attempt = attempt.begin_again(&self.links)?;
                    continue;
                }
                Prepared::Refused(version) => {
                    below = version;
                    // Somebody else is at it; who waits longer differs from try to try.
                    let more = u32::try_from(ballot.micros % 64).unwrap_or(0);
                    sleep(pause + pause * more / 64).await;
                    pause = (2 * pause).min(PAUSE_MAX);
                    continue;
                }
            };
            let base = held.version();
            below = below.max(base).max(ballot);
            let live = held.record.as_ref().filter(|it| it.is_live_at(self.clock.now_micros()));
            let limit = attempt.document.config.cluster.value_bytes_max;
            let record = match change.record(live, ballot, limit) {
                Ok(record) => record,
                Err(refused) => {
                    // Nobody may see later that it could be: what it fails for has to stay.
                    if !held.is_settled
                        && self.get_settled(&key, until).await?.map(|it| it.version())
                            != held.record.as_ref().map(Record::version)
                    {
                        continue;
                    }
                    return Ok(refused.into());
                }
            };
            let told = change.edit.tells().then(|| record.clone());
            // Who gives this up while it is under way does not know what came of it.
            *is_out = true;
            match self.accept_all(&mut attempt, base, record).await? {
                Accepted::Done => {
                    return Ok(ChangeOutcome::Done { version: ballot, record: told });
                }
                Accepted::InDoubt(reason) => return Ok(unknown(reason)),
                Accepted::ByNone { highest } => below = below.max(highest),
            }
            *is_out = false;
        }
        Err(RequestError::Contended)
    }
}

fn unknown(reason: String) -> ChangeOutcome {
    ChangeOutcome::Unknown { reason }
}

/// What the client is told for a call that ended so.
fn failed(error: RpcError, deadline: Duration) -> Result<ChangeOutcome, RequestError> {
    match error.kind {
        ErrorKind::Deadline if error.did_nothing() => Err(RequestError::Deadline(deadline)),
        ErrorKind::Unavailable if error.did_nothing() => {
            Err(RequestError::TooFewVotes { got: 0, need: 1, reason: error.message })
        }
        ErrorKind::Busy => Err(RequestError::Busy(error.message)),
        ErrorKind::Conflict => Err(RequestError::Contended),
        ErrorKind::Invalid => Err(RequestError::Invalid(error.message)),
        _ => Ok(unknown(error.message)),
    }
}

impl RequestError {
    /// For who asked this process to make a change.
    pub(crate) fn of_change(self) -> RpcError {
        match self.kind() {
            ErrorKind::Unavailable => RpcError::nothing_done(self.to_string()),
            ErrorKind::Deadline => RpcError {
                detail: RpcError::NOTHING_DONE,
                ..RpcError::new(ErrorKind::Deadline, self.to_string())
            },
            kind => RpcError::new(kind, self.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
