//! The two rounds of a change, each to all replicas of the key: what a majority of each set says.
//!
//! Invariant: a promise, or an acceptance, counts as a plain write's acknowledgement does
//! (`quorum.rs`): those of replaced folders are void, and of a majority N−W+1 vote. A replica of the
//! read set below the barrier promises nothing that counts: what it shows may be too old.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tako_flatbuf::{PrepareOutcome, PutOutcome, Record, Request, Response, RpcError, merge};
use tako_types::{ErrorKind, NodeId, StoredKey, Version};
use tokio::time::{Instant, sleep, timeout_at};

use super::super::{
    RequestError, Serving,
    attempt::{Attempt, Halt, Level},
    quorum::{Newer, Outcome, Tally},
    reason,
    write::OVERTAKEN,
};

/// How long the other replicas are heard once a majority cannot be had any more: who refused all of
/// them knows that nobody holds the record.
const REST_WAIT: Duration = Duration::from_millis(100);
/// Pauses before a record is sent again to replicas that did not say whether they took it.
const LOST_PAUSES: [Duration; 4] = [
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];

/// What a majority says to a ballot.
pub(super) enum Prepared {
    Promised(Held),
    /// Too many hold or promised this, or something below it that is not below the ballot.
    Refused(Version),
    Moved,
}

/// What a majority holds.
pub(super) struct Held {
    /// The newest.
    pub(super) record: Option<Record>,
    /// All of those that were heard hold this one, so every later read finds it.
    pub(super) is_settled: bool,
}

impl Held {
    pub(super) fn version(&self) -> Version {
        self.record.as_ref().map(Record::version).unwrap_or_default()
    }
}

/// What became of a record.
pub(super) enum Accepted {
    Done,
    /// No replica took it, nor will. What stood in the way is no higher than `highest`.
    ByNone {
        highest: Version,
    },
    /// Some may hold it, and a majority will not take it: why.
    InDoubt(String),
}

/// What the replicas said to a record, sent once.
#[derive(Default)]
struct Said {
    is_done: bool,
    may_be_held: bool,
    moved: bool,
    /// The highest version that was in the way, where one was.
    refused: Option<Version>,
    /// Of one that did not say whether it took it.
    failed: Option<RpcError>,
}

type Answers<T> = FuturesUnordered<BoxFuture<'static, (NodeId, Result<T, Halt<RpcError>>)>>;

impl Serving {
    /// First round.
    pub(super) async fn prepare_all(
        &self,
        attempt: &Attempt,
        key: &StoredKey,
        ballot: Version,
    ) -> Result<Prepared, RequestError> {
        let (set, also) = attempt.needs(Level::Majority);
        let send = |node: &NodeId| {
            let request = Request::Prepare { partition: attempt.p, key: key.clone(), ballot };
            let time = Self::read_deadline(attempt.until, true);
            self.ask_replica(attempt, node, time, request, |response| match response {
                Response::Prepare(outcome) => Some(outcome),
                _ => None,
            })
        };
        let mut answers: Answers<PrepareOutcome> = attempt.writers().map(send).collect();
        let mut tally = Tally::new(set, also, Newer::Refuses);
        let mut votes: BTreeMap<NodeId, Option<Record>> = BTreeMap::new();
        let mut refused: Option<Version> = None;
        let mut last_error: Option<RpcError> = None;
        while let Some((node, answer)) = answers.next().await {
            match answer {
                Ok(PrepareOutcome::Promised { step, .. })
                    if step < attempt.barrier() && attempt.readers().contains(&node) =>
                {
                    tally.fail(&node);
                }
                Ok(PrepareOutcome::Promised { incarnation, known, record, voting, .. }) => {
                    votes.insert(node.clone(), record);
                    for void in tally.ack(&node, incarnation, voting, &known) {
                        votes.remove(&void);
                        answers.push(send(&void));
                    }
                }
                Ok(PrepareOutcome::Refused { version }) => {
                    refused = refused.max(Some(version));
                    tally.fail(&node);
                }
                Err(Halt::Moved) => return Ok(Prepared::Moved),
                Err(Halt::Failed(error)) => {
                    tally.fail(&node);
                    last_error = Some(error);
                }
            }
            match tally.outcome() {
                Outcome::Reached => return Ok(Prepared::Promised(held_by(votes))),
                Outcome::Impossible => break,
                Outcome::Pending => {}
            }
        }
        if let Some(version) = refused {
            return Ok(Prepared::Refused(version));
        }
        let (got, need) = tally.progress();
        let reason = last_error
            .map_or_else(|| "too many replicas are recovering".to_owned(), |e| reason(&e));
        Err(RequestError::TooFewVotes { got, need, reason })
    }

    /// Second round, under the document in force in the end.
    pub(super) async fn accept_all(
        &self,
        attempt: &mut Attempt,
        base: Version,
        record: Record,
    ) -> Result<Accepted, RequestError> {
        let mut pauses = LOST_PAUSES.into_iter();
        let mut may_be_held = false;
        loop {
            let mut said = self.accept_once(attempt, base, &record).await;
            may_be_held |= said.may_be_held;
            if said.is_done {
                return Ok(Accepted::Done);
            }
            if said.moved {
                match self.promised_anew(attempt, base, &record).await? {
                    None => continue,
                    in_the_way => said.refused = said.refused.max(in_the_way),
                }
            }
            if !may_be_held {
                return Ok(Accepted::ByNone { highest: said.refused.unwrap_or_default() });
            }
            if said.refused.is_some() {
                return Ok(Accepted::InDoubt(OVERTAKEN.to_owned()));
            }
            let Some(pause) = pauses.next() else {
                let text = || "too many replicas are recovering".to_owned();
                return Ok(Accepted::InDoubt(said.failed.map_or_else(text, |it| reason(&it))));
            };
            sleep(pause).await;
        }
    }

    /// First round once more, with the ballot of a record that was decided on `base`, among those who
    /// have its key now; what is in the way, if anything is.
    async fn promised_anew(
        &self,
        attempt: &mut Attempt,
        base: Version,
        record: &Record,
    ) -> Result<Option<Version>, RequestError> {
        loop {
            *attempt = attempt.begin_again(&self.links)?;
            match self.prepare_all(attempt, &record.key(), record.version()).await? {
                Prepared::Promised(held) => {
                    let between = base < held.version() && held.version() < record.version();
                    return Ok(between.then_some(held.version()));
                }
                Prepared::Refused(version) => return Ok(Some(version)),
                Prepared::Moved => {}
            }
        }
    }

    async fn accept_once(&self, attempt: &Attempt, base: Version, record: &Record) -> Said {
        let (set, also) = attempt.needs(Level::Majority);
        let time = Self::call_deadline(attempt.until, record.bytes().len());
        let send = |node: &NodeId| {
            let request = Request::Accept { partition: attempt.p, base, record: record.clone() };
            self.ask_replica(attempt, node, time, request, |response| match response {
                Response::Accept(outcome) => Some(outcome),
                _ => None,
            })
        };
        let mut answers: Answers<PutOutcome> = attempt.writers().map(send).collect();
        let mut tally = Tally::new(set, also, Newer::Refuses);
        let mut said = Said::default();
        let mut until: Option<Instant> = None;
        loop {
            let next = match until {
                None => Ok(answers.next().await),
                Some(until) => timeout_at(until, answers.next()).await,
            };
            let Ok(next) = next else {
                // Whoever did not answer may take it yet.
                said.may_be_held = true;
                break;
            };
            let Some((node, answer)) = next else { break };
            match answer {
                Ok(PutOutcome::Accepted { incarnation, voting, known }) => {
                    said.may_be_held = true;
                    for void in tally.ack(&node, incarnation, voting, &known) {
                        answers.push(send(&void));
                    }
                }
                Ok(PutOutcome::Superseded { version } | PutOutcome::Promised { version }) => {
                    said.refused = said.refused.max(Some(version));
                    tally.fail(&node);
                }
                Err(Halt::Moved) => {
                    said.moved = true;
                    tally.fail(&node);
                }
                Err(Halt::Failed(error)) => {
                    said.may_be_held |= !error.did_nothing();
                    tally.fail(&node);
                    said.failed = Some(error);
                }
            }
            match tally.outcome() {
                Outcome::Reached => {
                    if !answers.is_empty() {
                        let rest = async move { while answers.next().await.is_some() {} };
                        self.finish_later(rest).await;
                    }
                    said.is_done = true;
                    break;
                }
                Outcome::Impossible if until.is_none() => {
                    until = Some(Instant::now() + REST_WAIT);
                }
                Outcome::Impossible | Outcome::Pending => {}
            }
        }
        said
    }

    fn ask_replica<T: 'static>(
        &self,
        attempt: &Attempt,
        node: &NodeId,
        time: Duration,
        request: Request,
        pick: fn(Response) -> Option<T>,
    ) -> BoxFuture<'static, (NodeId, Result<T, Halt<RpcError>>)> {
        let (links, attempt, node) = (self.links.clone(), attempt.clone(), node.clone());
        Box::pin(async move {
            let answer = match attempt.call(&links, &node, time, request).await {
                Ok(response) => pick(response).ok_or_else(|| {
                    RpcError::new(ErrorKind::Internal, "answered something else").into()
                }),
                Err(halt) => Err(halt),
            };
            (node, answer)
        })
    }
}

/// The newest of what was shown.
fn held_by(votes: BTreeMap<NodeId, Option<Record>>) -> Held {
    let of = |record: &Option<Record>| record.as_ref().map(|it| (it.version(), it.crc()));
    let mut shown = votes.values().map(of);
    let first = shown.next().flatten();
    let is_settled = shown.all(|other| other == first);
    Held { record: votes.into_values().flatten().reduce(merge), is_settled }
}
