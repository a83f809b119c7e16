//! Whose turn a step is, and when: rank in rendezvous order, interval, bytes.

use std::time::Duration;

use tako_types::{NodeId, PartitionId};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::Snapshotter;

/// Missed intervals after which the next replica takes over.
const MISSED_INTERVALS: u32 = 3;
/// How often due rows are looked for, at most.
const DUE_EVERY: Duration = Duration::from_secs(60);
/// Wait after a failed step, doubled up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Times of one partition's steps as this node saw them.
#[derive(Debug, Default)]
pub(super) struct Timing {
    /// Since when something is uncovered without a step having come.
    waiting_since: Option<Instant>,
    last_due_look: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
    last_step_seen: u64,
}

impl Timing {
    pub(super) fn on_step(&mut self) {
        self.waiting_since = None;
        self.failures = 0;
        self.not_before = None;
    }

    pub(super) fn on_failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let wait = Duration::from_secs(1 << self.failures.min(5)).min(BACKOFF_MAX);
        self.not_before = Some(Instant::now() + wait);
    }

    pub(super) fn looks_for_due(&mut self, grace: Duration) -> bool {
        let now = Instant::now();
        let every = DUE_EVERY.min(grace);
        let due = self.last_due_look.is_none_or(|last| now - last >= every);
        if due {
            self.last_due_look = Some(now);
        }
        due
    }
}

/// Replicas in the order in which they are to be the snapshotter.
#[must_use]
pub fn rendezvous(p: PartitionId, replicas: &[NodeId]) -> Vec<&NodeId> {
    let mut order: Vec<&NodeId> = replicas.iter().collect();
    order.sort_by_key(|node| {
        let mut bytes = p.0.to_be_bytes().to_vec();
        bytes.extend_from_slice(node.as_str().as_bytes());
        xxh3_64(&bytes)
    });
    order
}

impl Snapshotter {
    /// Whether this node should take a step of the partition now.
    pub(super) fn is_due(&self, p: PartitionId) -> bool {
        let current = self.links.config.current();
        let status = self.engine.partition_status(p);
        let newest_step = self.newest_step_known(p).max(status.step.0);
        let slot = self.slot(p);
        let mut timing = slot.timing.lock();
        if newest_step > timing.last_step_seen {
            timing.last_step_seen = newest_step;
            timing.on_step();
        }
        if status.uncovered == 0 && !self.peers_hold_more(p) {
            timing.waiting_since = None;
            return false;
        }
        let now = Instant::now();
        if timing.not_before.is_some_and(|until| now < until) {
            return false;
        }
        let waited = now - *timing.waiting_since.get_or_insert(now);
        let interval = current.config.cluster.snapshot.interval;
        // A journal that fills up must not wait for the interval either.
        let settings = &current.config.cluster;
        let full = status.uncovered_bytes > settings.snapshot.bytes
            || self.engine.journal().disk_bytes() > settings.journal.disk_bytes / 2;
        let rank = self.rank(p, &current.placement(p).snapshotters);
        let patience = interval + interval * MISSED_INTERVALS * rank;
        waited >= patience || (rank == 0 && full)
    }

    /// How many live, serving replicas come before this node.
    fn rank(&self, p: PartitionId, replicas: &[NodeId]) -> u32 {
        let me = self.engine.node();
        let before = rendezvous(p, replicas)
            .into_iter()
            .take_while(|node| *node != me)
            .filter(|node| self.links.membership.read_rank(node) == 0)
            .count();
        u32::try_from(before).unwrap_or(u32::MAX)
    }

    /// The live one that is first in line, this node where it is one of them or nobody is live.
    #[must_use]
    pub fn first_in_line(&self, p: PartitionId) -> NodeId {
        let current = self.links.config.current();
        let me = self.engine.node();
        rendezvous(p, &current.placement(p).snapshotters)
            .into_iter()
            .find(|node| *node == me || self.links.membership.read_rank(node) == 0)
            .unwrap_or(me)
            .clone()
    }

    /// The longest that a partition of this node, with something uncovered, has seen no step; zero
    /// where nothing waits for one.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        let mine = self.links.config.current().partitions_of(self.engine.node());
        let slots = self.slots.lock();
        let since = |p: &PartitionId| slots.get(p)?.timing.lock().waiting_since;
        let first = mine.iter().filter(|p| self.may_step(**p)).filter_map(since).min();
        first.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(super) fn newest_step_known(&self, p: PartitionId) -> u64 {
        let current = self.links.config.current();
        current
            .placement(p)
            .holders
            .iter()
            .filter_map(|node| {
                self.links
                    .membership
                    .with(node, |peer| peer.partitions.get(&p).map_or(0, |p| p.step.0))
            })
            .max()
            .unwrap_or(0)
    }

    /// A live node told that it holds entries which no step has covered.
    fn peers_hold_more(&self, p: PartitionId) -> bool {
        let current = self.links.config.current();
        current.placement(p).holders.iter().any(|node| self.holds_more(node, p))
            || !self.left_behind(p).is_empty()
    }

    /// Live nodes that hold the partition no more and told of entries which no step has covered.
    pub(super) fn left_behind(&self, p: PartitionId) -> Vec<NodeId> {
        let current = self.links.config.current();
        let holders = &current.placement(p).holders;
        let others = current.nodes().map(|node| &node.id).filter(|node| !holders.contains(node));
        others.filter(|node| self.holds_more(node, p)).cloned().collect()
    }

    fn holds_more(&self, node: &NodeId, p: PartitionId) -> bool {
        let told = |peer: &crate::membership::PeerStatus| {
            peer.partitions.get(&p).is_some_and(|gossip| !gossip.covered)
        };
        let membership = &self.links.membership;
        membership.is_live(node) && membership.with(node, told).unwrap_or(false)
    }
}
