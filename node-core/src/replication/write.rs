//! PUT and DELETE over the replicas of a key, and the write-back of a read.
//!
//! In a migration there are two sets of replicas. A write goes to all nodes of both and is done when
//! each has its own W; a node in both counts in both. Below, what is said of W holds for each.
//!
//! A plain write is sent at most twice. The first time, a replica that holds something newer only
//! tells how high the next version must be: what it holds may have been complete before this write
//! began (a clock that is ahead wrote it), and then this one must come out on top. So answers of
//! N−W+1 voters are awaited: among these, one holds each write that was complete by then. The
//! second version lies above all they hold; what is newer than *that* was not complete when this
//! write began, so it is concurrent, and this write may be ordered just before it. It is then
//! acknowledged like one that was stored and overwritten, yet only when W replicas durably hold it
//! or something newer, each whichever it is: what overtook it need not be at W of them, but no read
//! of R replicas can find anything older than this write. Sending again until all W take this very
//! version was the other way; there a writer far from the replicas loses to nearer ones for ever.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tako_flatbuf::{PutOutcome, Record, RecordHead, Request, Response, RpcError};
use tako_types::{ErrorKind, Kind, NodeId, StoredKey, Version, limits::REQUEST_DEADLINE};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    RequestError, Serving,
    attempt::{Attempt, Halt},
    check_levels,
    quorum::{Newer, Outcome, Tally},
    reason,
};
use crate::links::Links;

/// Times a write is sent again above a promise before the client is told.
const PROMISED_MAX: usize = 4;
/// Milliseconds a client waits whose timestamp lies below a promise.
const PROMISE_WAIT_MS: u64 = 1_000;
const RECOVERING: &str = "too many replicas are recovering";
const OVERTAKEN: &str = "replicas were recovering, and something newer came meanwhile";
/// Pauses before a record that W hold is sent again to replicas that do not judge yet. It takes a
/// replica the opening of a view to come so far, after a start or a document that asks for one.
const UNJUDGED_PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// A client's write.
#[derive(Debug, Clone)]
pub struct Write {
    /// Where.
    pub key: StoredKey,
    /// Value or tombstone.
    pub kind: Kind,
    /// The value; empty for a tombstone.
    pub value: Bytes,
    /// Content type, if the client gave one.
    pub content_type: Option<String>,
    /// memcached's flags.
    pub flags: u32,
    /// When the value is gone, in microseconds since the epoch; 0 = never.
    pub expires_at_micros: u64,
    /// The client's own timestamp in microseconds; then the greater one wins, whoever has it.
    pub timestamp_micros: Option<u64>,
    /// W for this request: of the replicas that reads ask. In a migration the other set needs as many
    /// of its own, or all where it has fewer.
    pub w: Option<usize>,
}

impl Write {
    fn head(&self, version: Version) -> RecordHead {
        RecordHead {
            version,
            kind: self.kind,
            expires_at_micros: self.expires_at_micros,
            flags: self.flags,
        }
    }
}

/// What a write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The version that holds now: the write's own, or the newer one it lost against.
    pub version: Version,
    /// Did this write win?
    pub won: bool,
}

/// Whose version a record bears that is being placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    /// Ours: where something newer is held or promised, it gets another.
    Own,
    /// The client's: it wins or loses as it is. A promise is no record it could lose against.
    Client,
    /// That of a record which was read: promises do not stop it.
    WriteBack,
}

/// How one attempt to place a record ended.
enum Placed {
    Done,
    /// Something newer is held: by some where that settles it, else this is the highest version
    /// that any write complete before this one began may have.
    Superseded(Version),
    /// A replica promised this ballot to a conditional write.
    Promised(Version),
    /// A newer document demands other sets; some replicas may hold the record.
    Moved,
    TooFew {
        got: usize,
        need: usize,
        reason: String,
        busy: bool,
    },
}

/// W of each set hold the record, but too few of them judge yet.
#[derive(Clone, Copy)]
struct Unjudged {
    got: usize,
    need: usize,
}

type Answers = FuturesUnordered<BoxFuture<'static, (NodeId, Result<PutOutcome, Halt<RpcError>>)>>;

impl Serving {
    /// Writes a record to W replicas and answers; the other replicas get it behind the answer.
    ///
    /// # Errors
    /// [`RequestError`]; on `TooFewAcks` and `Deadline` the write may have happened.
    pub async fn put(&self, write: Write, deadline: Duration) -> Result<Written, RequestError> {
        let until = Instant::now() + deadline;
        match timeout_at(until, self.put_before(&write, until)).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::Deadline(deadline)),
        }
    }

    async fn put_before(&self, write: &Write, until: Instant) -> Result<Written, RequestError> {
        self.metrics.writes.fetch_add(1, Ordering::Relaxed);
        let mut attempt = Attempt::begin(&self.links, &write.key, until);
        check_levels(attempt.placement().read.quorum, None, write.w)?;
        let stamp = write.timestamp_micros.map_or(Stamp::Own, |_| Stamp::Client);
        let mut version = match write.timestamp_micros {
            Some(micros) => {
                let unstamped = write.head(Version::ZERO);
                let content_type = write.content_type.as_deref();
                let origin = Record::client_origin(&unstamped, content_type, &write.value);
                let version = Version { micros, origin };
                self.clock.check(version)?;
                version
            }
            None => {
                self.check_clock()?;
                self.issue().await?
            }
        };
        // A client's own timestamp is never changed: whatever is newer wins.
        let mut newer = if stamp == Stamp::Own { Newer::Refuses } else { Newer::Settles };
        let mut promised = 0;
        loop {
            let content_type = write.content_type.as_deref();
            let record =
                Record::encode(&write.key, write.head(version), content_type, &write.value);
            let how = (stamp, newer);
            match self.place(&attempt, record, write.w, how).await {
                // The same write: its version stays, and what it knows of others' writes as well.
                Placed::Moved => attempt = attempt.begin_again(&self.links)?,
                Placed::Done => return Ok(Written { version, won: true }),
                // A promise is no record: nothing is held that this write could settle for.
                Placed::Promised(_) if promised == PROMISED_MAX => {
                    return Err(RequestError::Contended);
                }
                Placed::Promised(ballot) => {
                    promised += 1;
                    version = self.above(ballot).await?;
                }
                Placed::Superseded(winner) if newer == Newer::Settles => {
                    return Ok(Written { version: winner, won: false });
                }
                Placed::Superseded(winner) => {
                    version = self.above(winner).await?;
                    newer = Newer::Settles;
                }
                Placed::TooFew { reason, busy: true, .. } => {
                    return Err(RequestError::Busy(reason));
                }
                Placed::TooFew { got, need, reason, busy: false } => {
                    return Err(RequestError::TooFewAcks { got, need, reason });
                }
            }
        }
    }

    /// A version of ours above another.
    async fn above(&self, other: Version) -> Result<Version, RequestError> {
        self.metrics.restamps.fetch_add(1, Ordering::Relaxed);
        match self.clock.observe(other) {
            Ok(()) => self.issue().await,
            // Somebody's broken clock; it has an origin of its own, so no ceiling is needed.
            Err(_) => Ok(self.clock.above(other)),
        }
    }

    /// A record for a replica, which must not take it long after this moment: half the grace from
    /// now every tombstone that may be above it is still there.
    fn put_request(&self, attempt: &Attempt, record: Record, stamp: Stamp) -> Request {
        let grace = attempt.document.config.cluster.tombstone_grace;
        let life = (grace / 2).max(REQUEST_DEADLINE);
        let life_micros = u64::try_from(life.as_micros()).unwrap_or(u64::MAX);
        let until_micros = self.clock.now_micros().saturating_add(life_micros);
        let (partition, repair) = (attempt.p, stamp == Stamp::WriteBack);
        Request::Put { partition, record, repair, until_micros }
    }

    /// Sends one record to all replicas; done at W acknowledgements of each set. Where only judges
    /// are lacking, a few times: to take the same record again is nothing to a replica.
    async fn place(
        &self,
        attempt: &Attempt,
        record: Record,
        w: Option<usize>,
        how: (Stamp, Newer),
    ) -> Placed {
        let mut pauses = UNJUDGED_PAUSES.into_iter();
        let mut held: Option<Unjudged> = None;
        loop {
            let placed = self.place_once(attempt, record.clone(), w, how).await;
            let Unjudged { got, need } = match (placed, held) {
                // W showed the record meanwhile. Whoever read it may have written what is newer, and
                // another version of this write would bury that.
                (Ok(Placed::Superseded(_) | Placed::Promised(_)), Some(Unjudged { got, need }))
                    if how.1 == Newer::Refuses =>
                {
                    return too_few(got, need, OVERTAKEN.to_owned(), false);
                }
                (Ok(placed), _) => return placed,
                (Err(unjudged), _) => *held.insert(unjudged),
            };
            let Some(pause) = pauses.next() else {
                return too_few(got, need, RECOVERING.to_owned(), false);
            };
            sleep(pause).await;
        }
    }

    async fn place_once(
        &self,
        attempt: &Attempt,
        record: Record,
        w: Option<usize>,
        (stamp, newer): (Stamp, Newer),
    ) -> Result<Placed, Unjudged> {
        let (set, also) = attempt.needs(w);
        let bytes = record.bytes().len();
        let put = self.put_request(attempt, record, stamp);
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
                Ok(Response::Put(PutOutcome::Promised { version })) if stamp == Stamp::Own => {
                    Placed::Promised(version)
                }
                Ok(Response::Put(PutOutcome::Promised { .. })) => {
                    too_few(0, 1, reason(&under_promise()), true)
                }
                Ok(_) => return Err(Unjudged { got: 1, need: 1 }),
                Err(Halt::Moved) => Placed::Moved,
                Err(Halt::Failed(error)) => {
                    too_few(0, 1, reason(&error), error.kind == ErrorKind::Busy)
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
        while let Some((node, answer)) = answers.next().await {
            match answer {
                Ok(PutOutcome::Accepted { incarnation, voting, known }) => {
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
                    tally.fail(&node);
                    last_error = Some(under_promise());
                }
                // Not to be waited for: the next attempt sends it to all of them again.
                Err(Halt::Moved) => return Ok(Placed::Moved),
                Err(Halt::Failed(error)) => {
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
        let (got, need) = tally.progress();
        if tally.lacks_judges() {
            return Err(Unjudged { got, need });
        }
        let busy = last_error.as_ref().is_some_and(|error| error.kind == ErrorKind::Busy);
        let reason = last_error.map_or_else(|| RECOVERING.to_owned(), |e| reason(&e));
        Ok(too_few(got, need, reason, busy))
    }

    async fn rest_behind(&self, mut answers: Answers) {
        if !answers.is_empty() {
            self.finish_later(async move { while answers.next().await.is_some() {} }).await;
        }
    }

    /// Writes a record as it is to W replicas of each set: what was found damaged elsewhere.
    ///
    /// # Errors
    /// [`RequestError`]; it may be at some replicas then.
    pub async fn repair(&self, record: Record, deadline: Duration) -> Result<(), RequestError> {
        let until = Instant::now() + deadline;
        let work = async {
            let mut attempt = Attempt::begin(&self.links, &record.key(), until);
            loop {
                match self.write_back(&attempt, record.clone()).await {
                    Ok(()) => return Ok(()),
                    Err(Halt::Failed(error)) => return Err(error),
                    Err(Halt::Moved) => attempt = attempt.begin_again(&self.links)?,
                }
            }
        };
        match timeout_at(until, work).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::Deadline(deadline)),
        }
    }

    /// Writes the newest of differing votes back to W replicas before a read answers.
    pub(super) async fn write_back(
        &self,
        attempt: &Attempt,
        record: Record,
    ) -> Result<(), Halt<RequestError>> {
        self.metrics.write_backs.fetch_add(1, Ordering::Relaxed);
        let how = (Stamp::WriteBack, Newer::Settles);
        match self.place(attempt, record, None, how).await {
            // Something newer is on its way in: whoever reads that writes it back.
            Placed::Done | Placed::Superseded(_) => Ok(()),
            // Not for a write-back: promises do not stop it.
            Placed::Promised(_) => Err(RequestError::Contended.into()),
            Placed::Moved => Err(Halt::Moved),
            Placed::TooFew { got, need, reason, .. } => {
                Err(RequestError::TooFewVotes { got, need, reason }.into())
            }
        }
    }
}

fn too_few(got: usize, need: usize, reason: String, busy: bool) -> Placed {
    Placed::TooFew { got, need, reason, busy }
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
