//! One attempt at a request: everything in it is judged by one configuration document.
//!
//! In: the document in force when the attempt begins. Out: answers of replicas that were given under
//! it, or under a newer one that places the partition alike; else [`Halt::Moved`], and the request
//! begins again under the newer one. Why votes and acknowledgements of documents that place alike may
//! be counted together: the sets, their levels and the barrier are the same, and what a replica of
//! them held under the older document it holds under the newer one. Why no others: in a migration
//! they would come from sets of which neither is enough by itself.
//!
//! Invariants: an attempt never changes its sets; a request has at most [`RESTARTS_MAX`] more of
//! them. Not here: what to ask and how to count (`read.rs`, `write.rs`, `quorum.rs`).

use std::{sync::Arc, time::Duration};

use tako_flatbuf::{Request, Response, RpcError};
use tako_types::{
    ErrorKind, NodeId, PartitionId, StepNumber, StoredKey,
    config::{Placement, Published, ReplicaSet},
};
use tokio::time::Instant;

use super::{RequestError, quorum::SetNeed};
use crate::links::Links;

/// Times a request begins again. A whole migration moves a partition's requests three times (both
/// are written, the other is read, the old one is left), and lasts longer than a request.
const RESTARTS_MAX: usize = 4;
/// Times one call is sent under documents that are ever newer and change nothing for it.
const CALLS_MAX: usize = 4;

/// How many replicas of each set must hold a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// The set's own W.
    Usual,
    /// So many, or all of a set that has fewer. A client knows one set, the one that its answer
    /// (400 or not) is judged by; the other one, or the one that took its place meanwhile, may be
    /// smaller.
    Asked(usize),
    /// More than half, and no fewer than the set's own W: two of these have a replica in common.
    Majority,
}

impl From<Option<usize>> for Level {
    fn from(w: Option<usize>) -> Self {
        w.map_or(Self::Usual, Self::Asked)
    }
}

/// Why an attempt, or a call of it, came to nothing.
#[derive(Debug)]
pub(super) enum Halt<E> {
    /// A newer document, which is in force here now, places the partition elsewhere.
    Moved,
    /// Whatever the document says.
    Failed(E),
}

impl<E> From<E> for Halt<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

/// See the module; cheap to clone.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) document: Arc<Published>,
    pub(super) p: PartitionId,
    /// When the request began, by this process's clock: what it sends is no older.
    pub(super) begun_micros: u64,
    /// When the request ends, done or not.
    pub(super) until: Instant,
    /// Attempts of the request before this one.
    before: usize,
}

impl Attempt {
    /// The first one.
    pub(super) fn begin(links: &Links, key: &StoredKey, begun_micros: u64, until: Instant) -> Self {
        let document = links.config.current();
        let p = key.partition(document.partitions_log2());
        Self { document, p, begun_micros, until, before: 0 }
    }

    /// The first one of a request for a whole partition.
    pub(super) fn of_partition(
        links: &Links,
        p: PartitionId,
        begun_micros: u64,
        until: Instant,
    ) -> Self {
        Self { document: links.config.current(), p, begun_micros, until, before: 0 }
    }

    /// The next one, under the document in force now.
    pub(super) fn begin_again(&self, links: &Links) -> Result<Self, RequestError> {
        let times = self.before + 1;
        if times > RESTARTS_MAX {
            return Err(RequestError::Moving { times });
        }
        // The number of partitions never changes, so neither does the key's.
        let Self { p, begun_micros, until, .. } = *self;
        Ok(Self { document: links.config.current(), p, begun_micros, until, before: times })
    }

    /// Once more, as too few replicas answered: under the document in force now, whichever that is.
    pub(super) fn once_more(&self, links: &Links) -> Self {
        Self { document: links.config.current(), ..self.clone() }
    }

    pub(super) fn placement(&self) -> &Placement {
        self.document.placement(self.p)
    }

    /// Whom a read asks.
    pub(super) fn readers(&self) -> &[NodeId] {
        &self.placement().read.nodes
    }

    /// Below this step of its view a replica's answer is no vote.
    pub(super) fn barrier(&self) -> StepNumber {
        self.placement().barrier
    }

    /// Votes a read needs that asks for `asked`.
    pub(super) fn votes_needed(&self, asked: Option<usize>) -> usize {
        let quorum = self.placement().read.quorum;
        asked.map_or(quorum.r, |r| r.min(quorum.n))
    }

    /// Votes of more than half, and no fewer than R.
    pub(super) fn majority_of_readers(&self) -> usize {
        let quorum = self.placement().read.quorum;
        quorum.r.max(quorum.n / 2 + 1)
    }

    /// What a write needs of each set.
    pub(super) fn needs(&self, level: Level) -> (SetNeed<'_>, Option<SetNeed<'_>>) {
        fn need(set: &ReplicaSet, level: Level) -> SetNeed<'_> {
            let (usual_w, n) = (set.quorum.w, set.quorum.n);
            let w = match level {
                Level::Usual => usual_w,
                Level::Asked(w) => w.min(n),
                Level::Majority => usual_w.max(n / 2 + 1),
            };
            SetNeed { members: &set.nodes, w, usual_w }
        }
        let Placement { read, also_write, .. } = self.placement();
        (need(read, level), also_write.as_ref().map(|set| need(set, level)))
    }

    /// Whom a write is sent to, each once.
    pub(super) fn writers(&self) -> impl Iterator<Item = &NodeId> {
        let Placement { read, also_write, .. } = self.placement();
        let also = also_write.iter().flat_map(|set| &set.nodes);
        read.nodes.iter().chain(also.filter(|node| !read.nodes.contains(node)))
    }

    /// Whether requests for the partition mean the same by `other`.
    fn is_placed_alike(&self, other: &Published) -> bool {
        let (own, other) = (self.placement(), other.placement(self.p));
        own.read == other.read && own.also_write == other.also_write && own.barrier == other.barrier
    }

    /// Sends a request to a node and awaits its answer; where the node refuses for a newer document
    /// that places the partition alike, once more under that.
    pub(super) async fn call(
        &self,
        links: &Links,
        node: &NodeId,
        deadline: Duration,
        request: Request,
    ) -> Result<Response, Halt<RpcError>> {
        let until = Instant::now() + deadline;
        let mut document = self.document.clone();
        for _ in 1..CALLS_MAX {
            let left = until.saturating_duration_since(Instant::now());
            let answer = links.call_under(&document, node, left, request.clone()).await;
            let refused = match answer {
                Err(error) if error.kind == ErrorKind::StaleEpoch => error,
                answer => return Ok(answer?),
            };
            if refused.detail > links.config.epoch().number {
                links.fetch_configuration(node).await;
            }
            let current = links.config.current();
            if current.epoch.number <= document.epoch.number {
                // It could not be had: this replica is of no use to the attempt, others may be.
                return Err(Halt::Failed(refused));
            }
            if !self.is_placed_alike(&current) {
                return Err(Halt::Moved);
            }
            document = current;
        }
        let left = until.saturating_duration_since(Instant::now());
        Ok(links.call_under(&document, node, left, request).await?)
    }
}
