//! One record, under one document, to all replicas of its key: sent, counted, and what came of it.
//!
//! In: an attempt, the record, what something newer counts for. Out: [`Placed`], at W answers of each
//! set. Invariant: a record that came to nothing because its key moved says what it left behind
//! ([`Trace`]): whether replicas may hold it, so that a read may have shown it. Not here: what a
//! write does then (`write.rs`), how answers count (`quorum.rs`).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tako_flatbuf::{PutOutcome, Record, Request, Response, RpcError};
use tako_types::{ErrorKind, NodeId, Version, config::Published, limits::REQUEST_DEADLINE};
use tokio::time::{Instant, sleep, timeout_at};

use super::Stamp;
use crate::{
    links::Links,
    replication::{
        Serving,
        attempt::{Attempt, Halt, Level},
        quorum::{Newer, Outcome, Tally},
        reason,
    },
};

/// Milliseconds a client waits whose timestamp lies below a promise.
const PROMISE_WAIT_MS: u64 = 1_000;
const RECOVERING: &str = "too many replicas are recovering";
/// Pauses before a record that W hold is sent again to replicas that do not judge yet. It takes a
/// replica the opening of a view to come so far, after a start or a document that asks for one: that is
/// of all its partitions, beside steps, on a disk that may be busy with what was written before.
const UNJUDGED_PAUSES: [Duration; 6] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_600),
];
/// How long the other replicas are heard once one said that the key moved: one that lives has
/// synced by then, or refused. What stays unknown may cost the write its answer, no more.
const MOVED_WAIT: Duration = Duration::from_millis(100);

/// How one attempt to place a record ended.
pub(in crate::replication) enum Placed {
    Done,
    /// Something newer is held: by some where that settles it, else this is the highest version
    /// that any write complete before this one began may have.
    Superseded(Version),
    /// A replica promised this ballot to a conditional write.
    Promised(Version),
    /// A newer document demands other sets.
    Moved(Trace),
    /// Too few took it; what was sent may be sent again as it is.
    TooFew(TooFew),
    /// As many hold it, yet too few that judge, and something newer came meanwhile: see `write.rs`.
    InDoubt(Count),
}

/// Why too few replicas took a record.
pub(in crate::replication) struct TooFew {
    pub(in crate::replication) count: Count,
    pub(in crate::replication) reason: String,
    pub(in crate::replication) busy: bool,
    pub(in crate::replication) trace: Trace,
}

/// What a record that came to nothing left behind.
#[derive(Debug, Clone, Copy)]
pub(in crate::replication) enum Trace {
    /// No replica took it.
    None,
    /// Replicas may hold it.
    Some(Count),
    /// As before, and N−W+1 voters of each set took it: every write that was complete before this
    /// one began is older.
    Newest(Count),
}

impl Trace {
    fn of(count: Count, may_be_held: bool, overtaken: bool, tally: &Tally<'_>) -> Self {
        match may_be_held {
            false => Self::None,
            true if !overtaken && tally.knows_newest() => Self::Newest(count),
            true => Self::Some(count),
        }
    }

    /// What is known where as many held it before.
    fn or_some(self, count: Count) -> Self {
        match self {
            Self::None => Self::Some(count),
            known => known,
        }
    }
}

impl TooFew {
    fn of(count: Count, error: Option<&RpcError>, trace: Trace) -> Self {
        let busy = error.is_some_and(|error| error.kind == ErrorKind::Busy);
        let reason = error.map_or_else(|| RECOVERING.to_owned(), reason);
        Self { count, reason, busy, trace }
    }
}

/// Acknowledgements that came, and how many are needed, in the set that is worst off.
#[derive(Debug, Clone, Copy)]
pub(in crate::replication) struct Count {
    pub(in crate::replication) got: usize,
    pub(in crate::replication) need: usize,
}

/// W of each set hold the record, but too few of them judge yet.
struct Unjudged(Count);

type Answers = FuturesUnordered<BoxFuture<'static, (NodeId, Result<PutOutcome, Halt<RpcError>>)>>;

impl Serving {
    /// A record for a replica; see [`put_until`].
    fn put_request(attempt: &Attempt, record: Record, stamp: Stamp) -> Request {
        let until_micros = put_until(&attempt.document, attempt.begun_micros);
        let (partition, repair) = (attempt.p, stamp == Stamp::WriteBack);
        Request::Put { partition, record, repair, until_micros }
    }

    /// Sends one record to all replicas; done at W acknowledgements of each set. Where only judges
    /// are lacking, a few times: to take the same record again is nothing to a replica.
    pub(in crate::replication) async fn place(
        &self,
        attempt: &Attempt,
        record: Record,
        level: Level,
        how: (Stamp, Newer),
    ) -> Placed {
        let mut pauses = UNJUDGED_PAUSES.into_iter();
        let mut held: Option<Count> = None;
        loop {
            let placed = self.place_once(attempt, record.clone(), level, how).await;
            let Count { got, need } = match (placed, held) {
                // W showed the record meanwhile; see `write.rs`.
                (Ok(Placed::Superseded(_)), Some(count)) if how.1 == Newer::Refuses => {
                    return Placed::InDoubt(count);
                }
                (Ok(Placed::Promised(_)), Some(count)) => return Placed::InDoubt(count),
                (Ok(Placed::Moved(Trace::None)), Some(count)) => {
                    return Placed::Moved(Trace::Some(count));
                }
                (Ok(Placed::TooFew(few)), Some(count)) => {
                    let trace = few.trace.or_some(count);
                    return Placed::TooFew(TooFew { trace, ..few });
                }
                (Ok(placed), _) => return placed,
                (Err(Unjudged(count)), _) => *held.insert(count),
            };
            let Some(pause) = pauses.next() else {
                let count = Count { got, need };
                let (reason, trace) = (RECOVERING.to_owned(), Trace::Some(count));
                return Placed::TooFew(TooFew { count, reason, busy: false, trace });
            };
            sleep(pause).await;
        }
    }

    async fn place_once(
        &self,
        attempt: &Attempt,
        record: Record,
        level: Level,
        (stamp, newer): (Stamp, Newer),
    ) -> Result<Placed, Unjudged> {
        let (set, also) = attempt.needs(level);
        let bytes = record.bytes().len();
        let put = Self::put_request(attempt, record, stamp);
        if let ([only], None) = (set.members, also)
            && self.links.is_local(only)
        {
            // The request's own end comes first.
            let call_time = 2 * attempt.until.saturating_duration_since(Instant::now());
            let placed = match attempt.call(&self.links, only, call_time, put).await {
                Ok(Response::Put(PutOutcome::Accepted { voting: true, .. })) => Placed::Done,
                Ok(Response::Put(PutOutcome::Superseded { version })) => {
                    Placed::Superseded(version)
                }
                Ok(Response::Put(PutOutcome::Promised { version })) if stamp != Stamp::Client => {
                    Placed::Promised(version)
                }
                Ok(Response::Put(PutOutcome::Promised { .. })) => {
                    let count = Count { got: 0, need: 1 };
                    Placed::TooFew(TooFew::of(count, Some(&under_promise()), Trace::None))
                }
                Ok(_) => return Err(Unjudged(Count { got: 1, need: 1 })),
                Err(Halt::Moved) => Placed::Moved(Trace::None),
                Err(Halt::Failed(error)) => {
                    let count = Count { got: 0, need: 1 };
                    let trace = if error.did_nothing() { Trace::None } else { Trace::Some(count) };
                    Placed::TooFew(TooFew::of(count, Some(&error), trace))
                }
            };
            return Ok(placed);
        }
        let call_time = Self::call_deadline(attempt.until, bytes);
        let send = |node: &NodeId| send(&self.links, attempt, node, put.clone(), call_time);
        let mut answers: Answers = attempt.writers().map(send).collect();
        let mut tally = Tally::new(set, also, newer);
        let mut last_error: Option<RpcError> = None;
        let mut winner: Option<Version> = None;
        let mut taken = false;
        let mut promised: Option<Version> = None;
        while let Some((node, answer)) = answers.next().await {
            match answer {
                Ok(PutOutcome::Accepted { incarnation, voting, known }) => {
                    taken = true;
                    for void in tally.ack(&node, incarnation, voting, &known) {
                        self.metrics.void_acks.fetch_add(1, Ordering::Relaxed);
                        answers.push(send(&void));
                    }
                }
                Ok(PutOutcome::Superseded { version }) => {
                    winner = winner.max(Some(version));
                    tally.newer(&node);
                }
                Ok(PutOutcome::Promised { version }) => {
                    if stamp == Stamp::Own {
                        // Send above it at once; what was accepted of this one is older and
                        // gives way.
                        self.rest_behind(answers).await;
                        return Ok(Placed::Promised(version));
                    }
                    promised = promised.max(Some(version));
                    tally.fail(&node);
                    last_error = Some(under_promise());
                }
                // The next attempt sends it to all of them again.
                Err(Halt::Moved) => {
                    tally.fail(&node);
                    let trace = hear_rest(answers, tally, winner, taken, newer).await;
                    return Ok(Placed::Moved(trace));
                }
                Err(Halt::Failed(error)) => {
                    taken |= !error.did_nothing();
                    tally.fail(&node);
                    last_error = Some(error);
                }
            }
            let outcome = tally.outcome();
            if outcome == Outcome::Reached {
                self.rest_behind(answers).await;
                let overtaken = winner.filter(|_| newer == Newer::Settles);
                return Ok(overtaken.map_or(Placed::Done, Placed::Superseded));
            }
            if newer == Newer::Refuses
                && let Some(winner) = winner
                && tally.knows_newest()
            {
                // Send above it at once; what was accepted of this one is older and gives way.
                self.rest_behind(answers).await;
                return Ok(Placed::Superseded(winner));
            }
            if outcome == Outcome::Impossible {
                break;
            }
        }
        if let (Stamp::WriteBack, Some(version)) = (stamp, promised) {
            return Ok(Placed::Promised(version));
        }
        let (got, need) = tally.progress();
        if tally.lacks_judges() {
            return Err(Unjudged(Count { got, need }));
        }
        let count = Count { got, need };
        // Whom nobody heard yet may still take it.
        let trace = Trace::of(count, taken || !answers.is_empty(), winner.is_some(), &tally);
        Ok(Placed::TooFew(TooFew::of(count, last_error.as_ref(), trace)))
    }

    async fn rest_behind(&self, mut answers: Answers) {
        if !answers.is_empty() {
            self.finish_later(async move { while answers.next().await.is_some() {} }).await;
        }
    }
}

/// Until when replicas may take a record that was made or found at `begun_micros`: half the grace
/// later every tombstone that may have come above it is still there.
pub(crate) fn put_until(document: &Published, begun_micros: u64) -> u64 {
    let life = (document.config.cluster.tombstone_grace / 2).max(REQUEST_DEADLINE);
    begun_micros.saturating_add(u64::try_from(life.as_micros()).unwrap_or(u64::MAX))
}

/// Hears for a moment what the other replicas did with a record whose key moved.
async fn hear_rest(
    mut answers: Answers,
    mut tally: Tally<'_>,
    winner: Option<Version>,
    mut taken: bool,
    newer: Newer,
) -> Trace {
    let mut overtaken = winner.is_some();
    let until = Instant::now() + MOVED_WAIT;
    // Who settles for what is newer needs to know no more.
    while newer == Newer::Refuses
        && let Ok(Some((node, answer))) = timeout_at(until, answers.next()).await
    {
        match answer {
            Ok(PutOutcome::Accepted { incarnation, voting, known }) => {
                taken = true;
                tally.ack(&node, incarnation, voting, &known);
            }
            Ok(PutOutcome::Superseded { .. }) => overtaken = true,
            Ok(PutOutcome::Promised { .. }) | Err(Halt::Moved) => {}
            Err(Halt::Failed(error)) => taken |= !error.did_nothing(),
        }
    }
    let (got, need) = tally.progress();
    Trace::of(Count { got, need }, taken || !answers.is_empty(), overtaken, &tally)
}

/// A write that must keep its version met a promise above it; it ends within seconds as a rule.
fn under_promise() -> RpcError {
    RpcError::busy("a conditional write above this timestamp is under way", PROMISE_WAIT_MS)
}

fn send(
    links: &Arc<Links>,
    attempt: &Attempt,
    node: &NodeId,
    put: Request,
    deadline: Duration,
) -> BoxFuture<'static, (NodeId, Result<PutOutcome, Halt<RpcError>>)> {
    let (links, attempt, node) = (links.clone(), attempt.clone(), node.clone());
    Box::pin(async move {
        let answer = match attempt.call(&links, &node, deadline, put).await {
            Ok(Response::Put(outcome)) => Ok(outcome),
            Ok(_) => Err(RpcError::new(ErrorKind::Internal, "answered something else").into()),
            Err(halt) => Err(halt),
        };
        (node, answer)
    })
}
