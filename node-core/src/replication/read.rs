//! GET over the replicas of a key.
//!
//! Votes: the best replica's whole record, and from R−1 others what their memory index says with
//! the step they see. As all replicas share the snapshot, a replica at step s votes
//! merge(index, S(s)); so an index answer settles a vote unless steps differ. Only then is a
//! replica asked for its merged vote, and only when votes really differ is the newest written
//! back, before the answer.
//!
//! In a migration votes come from the read set only; what is written back goes to the other one too,
//! and so does what that one might not find (`answer.rs`).

mod answer;
mod ballot;

use std::{collections::VecDeque, sync::atomic::Ordering, time::Duration};

pub(super) use answer::AskedForSteps;
use answer::{Answer, Newest};
use ballot::{Ballot, Shown, ask, ask_merged, differ_from, index_agrees, newest_of};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tako_flatbuf::{Record, RpcError};
use tako_types::{
    NodeId, PartitionId, StoredKey,
    limits::{CALL_DEADLINE, STORE_DEADLINE},
};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{
    RequestError, Serving,
    attempt::{Attempt, Halt, Level},
    check_levels, reason,
    write::BARRED_PAUSE,
};

/// After this long without enough votes one more replica is asked.
const HEDGE_AFTER: Duration = Duration::from_millis(60);
/// Times a read begins again as something newer came while it wrote back what it had found. A key that
/// many write at once can outrun any number; what plain writes overtook may be answered.
const OVERTAKEN_MAX: usize = 4;
/// Times a read begins again as a change is promised above what it found: twice as long as a replica
/// refuses for that (`REPAIR_WAIT`), should another one come.
const BARRED_MAX: usize = 20;
/// How long a read that asks all waits for those that are more than it needs.
const REST_WAIT: Duration = Duration::from_millis(100);

/// A client's read.
#[derive(Debug, Clone)]
pub struct Read {
    /// Of which key.
    pub key: StoredKey,
    /// R for this request.
    pub r: Option<usize>,
}

/// How a read goes about it.
#[derive(Debug, Clone, Copy)]
struct How {
    /// R that the client asked for.
    r: Option<usize>,
    /// Of what it writes back; with [`Level::Majority`] it needs the votes of one as well.
    level: Level,
    /// Not only as many as it needs.
    asks_all: bool,
}

type Ballots = FuturesUnordered<BoxFuture<'static, (NodeId, Result<Ballot, Halt<RpcError>>)>>;

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
        let begun = Instant::now();
        let until = begun + deadline;
        let got = timeout_at(until, self.get_before(read, until)).await;
        let got = got.unwrap_or(Err(RequestError::Deadline(deadline)));
        self.metrics.read_latency.record(begun.elapsed(), got.is_ok());
        got
    }

    async fn get_before(
        &self,
        read: &Read,
        until: Instant,
    ) -> Result<Option<Record>, RequestError> {
        self.metrics.reads.fetch_add(1, Ordering::Relaxed);
        let begun_micros = self.clock.now_micros();
        let attempt = Attempt::begin(&self.links, &read.key, begun_micros, until);
        check_levels(attempt.placement().read.quorum, read.r, None)?;
        let how = How { r: read.r, level: Level::Usual, asks_all: false };
        self.get_from(attempt, &read.key, how).await
    }

    /// What a majority holds, or soon will: nothing that was not complete takes its place afterwards.
    pub(super) async fn get_settled(
        &self,
        key: &StoredKey,
        until: Instant,
    ) -> Result<Option<Record>, RequestError> {
        let attempt = Attempt::begin(&self.links, key, self.clock.now_micros(), until);
        let how = How { r: None, level: Level::Majority, asks_all: true };
        self.get_from(attempt, key, how).await
    }

    async fn get_from(
        &self,
        mut attempt: Attempt,
        key: &StoredKey,
        mut how: How,
    ) -> Result<Option<Record>, RequestError> {
        let (mut overtaken, mut barred) = (0, 0);
        loop {
            match self.get_under(&attempt, key, how).await {
                Ok(Answer::Sure(record)) => return Ok(record),
                Ok(Answer::Overtaken(record)) if overtaken == OVERTAKEN_MAX => {
                    return Ok(Some(record));
                }
                // Those that were asked may agree by now; what overtook this one is at the others.
                Ok(Answer::Overtaken(_)) => (overtaken, how.asks_all) = (overtaken + 1, true),
                Ok(Answer::Barred) if barred == BARRED_MAX => return Err(RequestError::Contended),
                Ok(Answer::Barred) => {
                    (barred, how.asks_all) = (barred + 1, true);
                    sleep(BARRED_PAUSE).await;
                }
                Err(Halt::Failed(error)) => return Err(error),
                Err(Halt::Moved) => attempt = attempt.begin_again(&self.links)?,
            }
        }
    }

    async fn get_under(
        &self,
        attempt: &Attempt,
        key: &StoredKey,
        how: How,
    ) -> Result<Answer, Halt<RequestError>> {
        let r = match how.level {
            Level::Majority => attempt.majority_of_readers(),
            _ => attempt.votes_needed(how.r),
        };
        // No epoch is compared here: the document was in force in this very process when the read
        // began, and what is complete by then is at every replica, this one included.
        if r == 1
            && let Some(local) = self.links.local()
            && attempt.readers().contains(&self.links.me)
            && local.engine().is_voting(attempt.p)
            && let Ok(vote) = local.engine().vote(attempt.p, key).await
            && attempt.barrier() <= vote.step
        {
            let covered_at = vote.covered.then_some(vote.step);
            let newest = Newest { record: vote.record, covered_at, differ: false };
            return self.answer(attempt, newest, how.level).await;
        }
        let ballots = self.collect(attempt, key, r, how.asks_all).await?;
        if let [Ballot { step, shown: Shown::Whole { record, covered }, .. }] = ballots.as_slice() {
            let covered_at = covered.then_some(*step);
            let newest = Newest { record: record.clone(), covered_at, differ: false };
            return self.answer(attempt, newest, how.level).await;
        }
        self.reconcile(attempt, key, (r, how.level), ballots).await
    }

    /// R votes, at least one of them whole; with `all`, also those that come within a moment more.
    async fn collect(
        &self,
        attempt: &Attempt,
        key: &StoredKey,
        r: usize,
        all: bool,
    ) -> Result<Vec<Ballot>, Halt<RequestError>> {
        let mut candidates = self.candidates(key, attempt.readers());
        let mut asked = Ballots::new();
        let mut ballots: Vec<Ballot> = Vec::with_capacity(r);
        let mut whole_asked = 0usize;
        let mut last_error: Option<RpcError> = None;
        let ask = |node, whole| {
            let time = Self::read_deadline(attempt.until, whole);
            ask(self.links.clone(), attempt.clone(), node, key.clone(), whole, time)
        };
        let hedge = sleep(HEDGE_AFTER);
        tokio::pin!(hedge);
        let mut rest_until: Option<Instant> = None;
        loop {
            let has_whole = ballots.iter().any(|b| matches!(b.shown, Shown::Whole { .. }));
            if has_whole && ballots.len() >= r {
                let until = *rest_until.get_or_insert_with(|| Instant::now() + REST_WAIT);
                if !all || asked.is_empty() || until <= Instant::now() {
                    return Ok(ballots);
                }
            }
            // Ask until what was asked for could settle it.
            while all || asked.len() + ballots.len() < r || (!has_whole && whole_asked == 0) {
                let Some(node) = candidates.pop_front() else { break };
                let whole = !has_whole && whole_asked == 0;
                whole_asked += usize::from(whole);
                asked.push(ask(node, whole));
            }
            if asked.is_empty() {
                let reason = last_error
                    .map_or_else(|| "the others are recovering".to_owned(), |e| reason(&e));
                let got = ballots.len();
                return Err(RequestError::TooFewVotes { got, need: r, reason }.into());
            }
            tokio::select! {
                Some((node, answer)) = asked.next() => match answer {
                    Ok(ballot) => ballots.push(ballot),
                    Err(Halt::Moved) => return Err(Halt::Moved),
                    Err(Halt::Failed(error)) => {
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
                        asked.push(ask(node, !has_whole));
                    }
                    hedge.as_mut().reset(Instant::now() + HEDGE_AFTER);
                }
                () = sleep_until(rest_until.unwrap_or(attempt.until)), if rest_until.is_some() => {}
            }
        }
    }

    /// The time for one vote: a whole one may have to read the store, and others are asked
    /// meanwhile; an index answer comes at once or not at all.
    pub(super) fn read_deadline(until: Instant, whole: bool) -> Duration {
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

    /// The newest of the votes, once all of them are known.
    async fn reconcile(
        &self,
        attempt: &Attempt,
        key: &StoredKey,
        (r, level): (usize, Level),
        mut ballots: Vec<Ballot>,
    ) -> Result<Answer, Halt<RequestError>> {
        let mut spares = self.candidates(key, attempt.readers());
        spares.retain(|node| ballots.iter().all(|ballot| ballot.node != *node));
        // Every pass makes one more ballot whole or merged, so this ends.
        for _ in 0..=2 * attempt.readers().len() {
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
                let covered_at = covered.then_some(newest_step);
                let differ = differ_from(&ballots, shown);
                let newest = Newest { record: newest, covered_at, differ };
                return self.answer(attempt, newest, level).await;
            };
            let ballot = &ballots[open];
            let ahead = match &ballot.shown {
                Shown::Index(answer) | Shown::Merged(answer) => {
                    answer.version > shown.map(|(version, _)| version)
                }
                Shown::Whole { .. } => false,
            } || ballot.step > newest_step;
            let node = ballot.node.clone();
            let time = Self::read_deadline(attempt.until, false);
            let answer = if ahead {
                let (links, attempt) = (self.links.clone(), attempt.clone());
                ask(links, attempt, node, key.clone(), true, time).await.1
            } else {
                ask_merged(&self.links, attempt, node, key.clone(), time).await
            };
            ballots[open] = match answer {
                Ok(ballot) => ballot,
                Err(Halt::Moved) => return Err(Halt::Moved),
                Err(Halt::Failed(error)) => {
                    let stand_in = self.stand_in(attempt, key, &mut spares, error).await;
                    stand_in.map_err(|halt| match halt {
                        Halt::Moved => Halt::Moved,
                        Halt::Failed(error) => Halt::Failed(RequestError::TooFewVotes {
                            got: ballots.len() - 1,
                            need: r,
                            reason: reason(&error),
                        }),
                    })?
                }
            };
        }
        Err(RequestError::Contended.into())
    }

    /// The vote of somebody who was not asked yet, in place of a replica that failed with `error`;
    /// without any, the last failure.
    async fn stand_in(
        &self,
        attempt: &Attempt,
        key: &StoredKey,
        spares: &mut VecDeque<NodeId>,
        mut error: RpcError,
    ) -> Result<Ballot, Halt<RpcError>> {
        while let Some(spare) = spares.pop_front() {
            let time = Self::read_deadline(attempt.until, false);
            let (links, attempt) = (self.links.clone(), attempt.clone());
            match ask(links, attempt, spare, key.clone(), true, time).await.1 {
                Err(Halt::Failed(failed)) => error = failed,
                settled => return settled,
            }
        }
        Err(error.into())
    }
}
