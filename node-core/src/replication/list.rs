//! A listing over all partitions, in the order of clients' keys.
//!
//! ```text
//! each partition: pages of its best replica ─► the least key of all that are there ─► client
//! ```
//! Invariants: keys come in rising order, each once; a key is given only when every partition has shown
//! that it has none before it; no more than a page of each partition is held. Eventually consistent:
//! one replica is asked, which may lack a write that it missed until the next step, and what is written
//! while a listing goes on is in it or not. A cursor is the last key that was given: it means the same
//! under any configuration, and no server remembers anything.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tako_flatbuf::{Listing as Page, ListingQuery, Request, Response};
use tako_types::{NodeId, PartitionId, RecordStat, limits::LIST_ENTRIES_MAX};
use tokio::time::{Instant, timeout_at};

use super::{
    RequestError, Serving,
    attempt::{Attempt, Halt},
    reason,
};

/// Partitions asked at one time.
const AT_ONCE: usize = 32;
/// Keys asked of a partition at the least: a page costs a call whatever its length.
const PAGE_MIN: usize = 32;

/// Which keys a client wants listed.
#[derive(Debug, Clone)]
pub struct List {
    /// Of which namespace.
    pub namespace: u8,
    /// What all keys begin with; may be empty.
    pub prefix: Bytes,
    /// All keys are greater than this: the last one that was given before.
    pub after: Option<Bytes>,
}

/// A listing that goes on; see the module.
pub struct Lister {
    namespace: u8,
    prefix: Bytes,
    after: Option<Bytes>,
    parts: BTreeMap<PartitionId, Part>,
    /// The first key of each partition that has one.
    first: BTreeSet<(Bytes, PartitionId)>,
    /// Those of which nothing is held, with more to come.
    empty: BTreeSet<PartitionId>,
}

#[derive(Default)]
struct Part {
    held: VecDeque<(Bytes, RecordStat)>,
    /// Looked at up to here.
    upto: Option<Bytes>,
    ended: bool,
}

impl Serving {
    /// Begins a listing; asks nobody yet.
    #[must_use]
    pub fn list(&self, list: List) -> Lister {
        let partitions: Vec<_> = self.links.config.current().partitions().collect();
        Lister {
            namespace: list.namespace,
            prefix: list.prefix,
            after: list.after,
            empty: partitions.iter().copied().collect(),
            parts: partitions.into_iter().map(|p| (p, Part::default())).collect(),
            first: BTreeSet::new(),
        }
    }

    /// A page of one partition, by the first of its replicas that votes on it.
    async fn list_partition(
        &self,
        p: PartitionId,
        query: &ListingQuery,
        until: Instant,
    ) -> Result<Page, RequestError> {
        let mut attempt = Attempt::of_partition(&self.links, p, self.clock.now_micros(), until);
        'attempts: loop {
            let mut failed = "the others are recovering".to_owned();
            for node in self.listers(attempt.readers()) {
                let request = Request::List { partition: p, query: query.clone() };
                let time = Self::read_deadline(until, true);
                match attempt.call(&self.links, &node, time, request).await {
                    Ok(Response::List(page)) if page.voting && attempt.barrier() <= page.step => {
                        return Ok(page);
                    }
                    Ok(_) => {}
                    Err(Halt::Moved) => {
                        attempt = attempt.begin_again(&self.links)?;
                        continue 'attempts;
                    }
                    Err(Halt::Failed(error)) => failed = reason(&error),
                }
            }
            return Err(RequestError::TooFewVotes { got: 0, need: 1, reason: failed });
        }
    }

    /// Replicas, best first: this node, then those that live.
    fn listers(&self, replicas: &[NodeId]) -> Vec<NodeId> {
        let mut order = replicas.to_vec();
        order.sort_by_key(|node| match self.links.is_local(node) {
            true => 0,
            false => 1 + self.links.membership.read_rank(node),
        });
        order
    }
}

impl Lister {
    /// The next keys that have a value now, at most `limit`; fewer only at the end.
    ///
    /// # Errors
    /// [`RequestError`]: a partition has no replica that answers. What was given before is not given
    /// again by a later call.
    pub async fn next(
        &mut self,
        serving: &Serving,
        limit: usize,
        deadline: Duration,
    ) -> Result<Vec<(Bytes, RecordStat)>, RequestError> {
        let until = Instant::now() + deadline;
        let filling = self.fill(serving, limit, until);
        timeout_at(until, filling).await.unwrap_or(Err(RequestError::Deadline(deadline)))
    }

    async fn fill(
        &mut self,
        serving: &Serving,
        limit: usize,
        until: Instant,
    ) -> Result<Vec<(Bytes, RecordStat)>, RequestError> {
        let mut given = Vec::new();
        while given.len() < limit {
            if !self.empty.is_empty() {
                self.fetch(serving, limit - given.len(), until).await?;
                continue;
            }
            let Some((key, p)) = self.first.pop_first() else { break };
            let Some(part) = self.parts.get_mut(&p) else { continue };
            let Some((_, stat)) = part.held.pop_front() else { continue };
            match part.held.front() {
                Some((next, _)) => drop(self.first.insert((next.clone(), p))),
                None if !part.ended => drop(self.empty.insert(p)),
                None => {}
            }
            self.after = Some(key.clone());
            if stat.is_live_at(serving.clock.now_micros()) {
                given.push((key, stat));
            }
        }
        Ok(given)
    }

    /// A page of each partition of which nothing is held.
    async fn fetch(
        &mut self,
        serving: &Serving,
        wanted: usize,
        until: Instant,
    ) -> Result<(), RequestError> {
        // A partition's share, and half as much again, as shares differ.
        let share = 3 * wanted / (2 * self.parts.len().max(1)) + 1;
        let limit = u32::try_from(share.clamp(PAGE_MIN, LIST_ENTRIES_MAX)).unwrap_or(u32::MAX);
        let queries: Vec<_> = self
            .empty
            .iter()
            .map(|p| {
                let upto = self.parts.get(p).and_then(|part| part.upto.clone());
                let (namespace, prefix) = (self.namespace, self.prefix.clone());
                (*p, ListingQuery { namespace, prefix, after: upto.max(self.after.clone()), limit })
            })
            .collect();
        let pages = stream::iter(queries)
            .map(|(p, query)| async move {
                serving.list_partition(p, &query, until).await.map(|page| (p, page))
            })
            .buffer_unordered(AT_ONCE);
        let pages: Vec<(PartitionId, Page)> = pages.try_collect().await?;
        for (p, page) in pages {
            let Some(part) = self.parts.get_mut(&p) else { continue };
            part.held = page.entries.into();
            part.ended = page.upto.is_none();
            part.upto = page.upto;
            match part.held.front() {
                Some((key, _)) => {
                    self.first.insert((key.clone(), p));
                    self.empty.remove(&p);
                }
                None if part.ended => drop(self.empty.remove(&p)),
                None => {}
            }
        }
        Ok(())
    }
}
