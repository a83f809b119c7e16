//! GET over the replicas of a key.
//!
//! Votes: the best replica's whole record, and from R−1 others what their memory index says with
//! the step they see. As all replicas share the snapshot, a replica at step s votes
//! merge(index, S(s)); so an index answer settles a vote unless steps differ. Only then is a
//! replica asked for its merged vote, and only when votes really differ is the newest written
//! back, before the answer.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tako_flatbuf::{Record, Request, Response, RpcError, StatAnswer, merge};
use tako_types::{
    ErrorKind, NodeId, PartitionId, StepNumber, StoredKey, Version,
    config::Quorum,
    limits::{CALL_DEADLINE, STORE_DEADLINE},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{RequestError, Serving, levels, reason};
use crate::links::Links;

/// After this long without enough votes one more replica is asked.
const HEDGE_AFTER: Duration = Duration::from_millis(60);

/// A client's read.
#[derive(Debug, Clone)]
pub struct Read {
    /// Of which key.
    pub key: StoredKey,
    /// R for this request.
    pub r: Option<usize>,
}

/// One replica's vote as far as it is known.
#[derive(Debug, Clone)]
struct Ballot {
    node: NodeId,
    step: StepNumber,
    shown: Shown,
}

#[derive(Debug, Clone)]
enum Shown {
    /// The whole vote; `covered`: it is what the snapshot shows at that step.
    Whole { record: Option<Record>, covered: bool },
    /// What the memory index says.
    Index(StatAnswer),
    /// The version of the whole vote.
    Merged(StatAnswer),
}

type Ballots = FuturesUnordered<BoxFuture<'static, (NodeId, Result<Ballot, RpcError>)>>;

impl Serving {
    /// The newest record of a key that R replicas know of, tombstones and expired ones included.
    ///
    /// # Errors
    /// [`RequestError`]; `None` is answered only when R replicas said so.
    pub async fn get(
        &self,
        read: &Read,
        deadline: Duration,
    ) -> Result<Option<Record>, RequestError> {
        let until = Instant::now() + deadline;
        match timeout_at(until, self.get_before(read, until)).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::Deadline(deadline)),
        }
    }

    async fn get_before(
        &self,
        read: &Read,
        until: Instant,
    ) -> Result<Option<Record>, RequestError> {
        self.metrics.reads.fetch_add(1, Ordering::Relaxed);
        let current = self.links.config.current();
        let p = read.key.partition(current.partitions_log2());
        let replicas = current.replicas(p);
        let quorum = levels(current.quorum(p), read.r, None)?;
        if quorum.r == 1
            && let Some(local) = self.links.local()
            && self.links.is_local(&self.links.me)
            && replicas.contains(&self.links.me)
            && local.engine().is_voting(p)
            && let Ok(vote) = local.engine().vote(p, &read.key).await
        {
            return Ok(vote.record);
        }
        let ballots = self.collect(p, &read.key, replicas, quorum.r, until).await?;
        if let [Ballot { shown: Shown::Whole { record, .. }, .. }] = ballots.as_slice() {
            return Ok(record.clone());
        }
        let repair = current.config.active_deployment().read_repair;
        self.reconcile(p, &read.key, ballots, quorum, replicas, until, repair).await
    }

    /// R votes, at least one of them whole.
    async fn collect(
        &self,
        p: PartitionId,
        key: &StoredKey,
        replicas: &[NodeId],
        r: usize,
        until: Instant,
    ) -> Result<Vec<Ballot>, RequestError> {
        let mut candidates = self.candidates(key, replicas);
        let mut asked = Ballots::new();
        let mut ballots: Vec<Ballot> = Vec::with_capacity(r);
        let mut whole_asked = 0usize;
        let mut last_error: Option<RpcError> = None;
        let call_time = |whole| Self::read_deadline(until, whole);
        let hedge = sleep(HEDGE_AFTER);
        tokio::pin!(hedge);
        loop {
            let has_whole = ballots.iter().any(|b| matches!(b.shown, Shown::Whole { .. }));
            if has_whole && ballots.len() >= r {
                return Ok(ballots);
            }
            // Ask until what was asked for could settle it.
            while asked.len() + ballots.len() < r || (!has_whole && whole_asked == 0) {
                let Some(node) = candidates.pop_front() else { break };
                let whole = !has_whole && whole_asked == 0;
                whole_asked += usize::from(whole);
                asked.push(ask(self.links.clone(), node, p, key.clone(), whole, call_time(whole)));
            }
            if asked.is_empty() {
                let reason = last_error
                    .map_or_else(|| "the others are recovering".to_owned(), |e| reason(&e));
                return Err(RequestError::TooFewVotes { got: ballots.len(), need: r, reason });
            }
            tokio::select! {
                Some((node, answer)) = asked.next() => match answer {
                    Ok(ballot) => ballots.push(ballot),
                    Err(error) => {
                        // If it was to give the whole record, somebody else has to.
                        if !has_whole {
                            whole_asked = 0;
                        }
                        tracing::debug!(%node, "no vote: {}", error.message);
                        last_error = Some(error);
                    }
                },
                () = &mut hedge, if !candidates.is_empty() => {
                    self.metrics.hedges.fetch_add(1, Ordering::Relaxed);
                    if let Some(node) = candidates.pop_front() {
                        let links = self.links.clone();
                        let (key, whole) = (key.clone(), !has_whole);
                        asked.push(ask(links, node, p, key, whole, call_time(whole)));
                    }
                    hedge.as_mut().reset(Instant::now() + HEDGE_AFTER);
                }
            }
        }
    }

    /// The time for one vote: a whole one may have to read the store, and others are asked
    /// meanwhile; an index answer comes at once or not at all.
    fn read_deadline(until: Instant, whole: bool) -> Duration {
        if whole {
            until.saturating_duration_since(Instant::now()).min(STORE_DEADLINE + CALL_DEADLINE)
        } else {
            Self::call_deadline(until, 0)
        }
    }

    /// Replicas, best first: this node, then live ones in an order of the key's own, so that one
    /// replica's cache serves a key.
    pub(super) fn candidates(&self, key: &StoredKey, replicas: &[NodeId]) -> VecDeque<NodeId> {
        let mut order: Vec<(u8, usize, &NodeId)> = Vec::with_capacity(replicas.len());
        let start = usize::try_from(key.digest() % replicas.len() as u64).unwrap_or(0);
        for (i, node) in replicas.iter().enumerate() {
            let rank = match self.links.local().filter(|_| self.links.is_local(node)) {
                Some(local) if local.engine().is_voting(self.partition_of(key)) => 0,
                Some(_) => 4,
                None => 1 + self.links.membership.read_rank(node),
            };
            order.push((rank, (i + replicas.len() - start) % replicas.len(), node));
        }
        order.sort_unstable_by_key(|(rank, turn, _)| (*rank, *turn));
        order.into_iter().map(|(_, _, node)| node.clone()).collect()
    }

    fn partition_of(&self, key: &StoredKey) -> PartitionId {
        key.partition(self.links.config.current().partitions_log2())
    }

    /// The newest of the votes; written back first where they differ.
    #[expect(clippy::too_many_arguments, reason = "one request's facts, used once")]
    async fn reconcile(
        &self,
        p: PartitionId,
        key: &StoredKey,
        mut ballots: Vec<Ballot>,
        quorum: Quorum,
        replicas: &[NodeId],
        until: Instant,
        repair: bool,
    ) -> Result<Option<Record>, RequestError> {
        let call_time = |whole| Self::read_deadline(until, whole);
        let mut spares = self.candidates(key, replicas);
        spares.retain(|node| ballots.iter().all(|ballot| ballot.node != *node));
        // Every pass makes one more ballot whole or merged, so this ends.
        for _ in 0..=2 * replicas.len() {
            let (newest, newest_step, covered) = newest_of(&ballots);
            let shown = newest.as_ref().map(|r| (r.version(), r.crc()));
            let open = ballots.iter().position(|ballot| match &ballot.shown {
                Shown::Whole { .. } => false,
                Shown::Index(answer) => {
                    !index_agrees(*answer, ballot.step, shown, newest_step, covered)
                }
                Shown::Merged(answer) => answer.version > shown.map(|(version, _)| version),
            });
            let Some(open) = open else {
                return self.settle(p, &ballots, newest, quorum, replicas, until, repair).await;
            };
            let ballot = &ballots[open];
            let ahead = match &ballot.shown {
                Shown::Index(answer) | Shown::Merged(answer) => {
                    answer.version > shown.map(|(version, _)| version)
                }
                Shown::Whole { .. } => false,
            } || ballot.step > newest_step;
            let node = ballot.node.clone();
            let answer = if ahead {
                ask(self.links.clone(), node, p, key.clone(), true, call_time(false)).await.1
            } else {
                ask_merged(self.links.clone(), node, p, key.clone(), call_time(false)).await
            };
            ballots[open] = match answer {
                Ok(ballot) => ballot,
                Err(error) => {
                    let stand_in = self.stand_in(p, key, &mut spares, until, error).await;
                    stand_in.map_err(|error| RequestError::TooFewVotes {
                        got: ballots.len() - 1,
                        need: quorum.r,
                        reason: reason(&error),
                    })?
                }
            };
        }
        Err(RequestError::Contended)
    }

    /// The vote of somebody who was not asked yet, in place of a replica that failed with `error`;
    /// without any, the last failure.
    async fn stand_in(
        &self,
        p: PartitionId,
        key: &StoredKey,
        spares: &mut VecDeque<NodeId>,
        until: Instant,
        mut error: RpcError,
    ) -> Result<Ballot, RpcError> {
        while let Some(spare) = spares.pop_front() {
            let time = Self::read_deadline(until, false);
            match ask(self.links.clone(), spare, p, key.clone(), true, time).await.1 {
                Ok(ballot) => return Ok(ballot),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    /// All votes are known: writes the newest back if one of them is older.
    #[expect(clippy::too_many_arguments, reason = "one request's facts, used once")]
    async fn settle(
        &self,
        p: PartitionId,
        ballots: &[Ballot],
        newest: Option<Record>,
        quorum: Quorum,
        replicas: &[NodeId],
        until: Instant,
        repair: bool,
    ) -> Result<Option<Record>, RequestError> {
        let Some(newest) = newest else { return Ok(None) };
        let shown = (newest.version(), newest.crc());
        let differs = ballots.iter().any(|ballot| match &ballot.shown {
            Shown::Whole { record, .. } => {
                record.as_ref().map(|r| (r.version(), r.crc())) != Some(shown)
            }
            Shown::Merged(answer) => (answer.version, answer.crc) != (Some(shown.0), shown.1),
            Shown::Index(_) => false,
        });
        if differs && repair {
            self.write_back(p, newest.clone(), quorum, replicas, until).await?;
        }
        Ok(Some(newest))
    }
}

/// The merge of the whole votes, the highest step among them, and whether the merge is what the
/// snapshot shows at that step.
fn newest_of(ballots: &[Ballot]) -> (Option<Record>, StepNumber, bool) {
    let mut newest: Option<Record> = None;
    let mut step = StepNumber(0);
    let mut covered = true;
    for ballot in ballots {
        let Shown::Whole { record, covered: is_covered } = &ballot.shown else { continue };
        step = step.max(ballot.step);
        covered &= is_covered;
        newest = match (newest, record.clone()) {
            (Some(a), Some(b)) => Some(merge(a, b)),
            (a, b) => a.or(b),
        };
    }
    (newest, step, covered)
}

/// Does an index answer prove that the replica's vote is the record shown?
fn index_agrees(
    answer: StatAnswer,
    step: StepNumber,
    shown: Option<(Version, u32)>,
    newest_step: StepNumber,
    covered: bool,
) -> bool {
    match (answer.version, shown) {
        // It sees a later step, so its snapshot may hold something newer, whatever its index says.
        _ if step > newest_step => false,
        (Some(version), Some(shown)) if (version, answer.crc) == shown => true,
        (Some(version), Some((newest, _))) if version > newest => false,
        (Some(_), None) => false,
        // Nothing anywhere, and no later step to look at.
        (None, None) => true,
        // The record is in the snapshot at the step that it sees as well.
        (_, Some(_)) => covered && step == newest_step,
    }
}

fn ask(
    links: Arc<Links>,
    node: NodeId,
    partition: PartitionId,
    key: StoredKey,
    whole: bool,
    deadline: Duration,
) -> BoxFuture<'static, (NodeId, Result<Ballot, RpcError>)> {
    Box::pin(async move {
        let request = if whole {
            Request::Get { partition, key }
        } else {
            Request::Stat { partition, keys: vec![key], merged: false }
        };
        let ballot = match links.call(&node, deadline, request).await {
            Ok(Response::Get { record, step, voting: true, covered }) => {
                Ok(Ballot { node: node.clone(), step, shown: Shown::Whole { record, covered } })
            }
            Ok(Response::Stat { answers, step, voting: true }) => match answers.first() {
                Some(answer) => {
                    Ok(Ballot { node: node.clone(), step, shown: Shown::Index(*answer) })
                }
                None => Err(RpcError::new(ErrorKind::Internal, "an empty answer")),
            },
            Ok(Response::Get { .. } | Response::Stat { .. }) => {
                let text = format!("{node} is recovering and does not vote");
                Err(RpcError::new(ErrorKind::Unavailable, text))
            }
            Ok(_) => Err(RpcError::new(ErrorKind::Internal, "answered something else")),
            Err(error) => Err(error),
        };
        (node, ballot)
    })
}

async fn ask_merged(
    links: Arc<Links>,
    node: NodeId,
    partition: PartitionId,
    key: StoredKey,
    deadline: Duration,
) -> Result<Ballot, RpcError> {
    let request = Request::Stat { partition, keys: vec![key], merged: true };
    match links.call(&node, deadline, request).await? {
        Response::Stat { answers, step, voting: true } if answers.len() == 1 => {
            Ok(Ballot { node, step, shown: Shown::Merged(answers[0]) })
        }
        _ => Err(RpcError::new(ErrorKind::Unavailable, format!("{node} does not vote now"))),
    }
}

#[cfg(test)]
mod tests;
