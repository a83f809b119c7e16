//! Who is there: what this process knows of every node, from gossip and from its own calls.
//!
//! Owns no sockets: the gossip loop (`gossip.rs`) and callers report what they saw. A node is
//! *live* from its first answer until calls fail; a failed call to a live node costs one request
//! one time-out, later requests ask others first.
//! Invariant: `known` incarnations never go back.

mod gossip;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

pub use gossip::Gossiper;
use parking_lot::Mutex;
use tako_flatbuf::{GossipState, NodeState, PartitionGossip};
use tako_types::{Epoch, Incarnation, NodeId, PartitionId, StepNumber};
use tokio::time::Instant;

/// A peer not heard from for this long is not live.
const SILENT_AFTER: Duration = Duration::from_secs(4);
/// Failed calls in a row after which a peer is asked last.
const FAILURES_SUSPECT: u32 = 1;

/// What is known of one node.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// State it last told.
    pub state: NodeState,
    /// Data folder it last told.
    pub incarnation: Incarnation,
    /// Configuration it last told.
    pub epoch: Epoch,
    /// Its clock minus ours, in microseconds, corrected by half the round trip.
    pub clock_offset_micros: i64,
    /// When it last answered.
    pub heard: Instant,
    /// Calls that failed since.
    pub failures: u32,
    /// What it told of its partitions.
    pub partitions: HashMap<PartitionId, PartitionGossip>,
    /// The steps it answered at since then.
    answered_at: HashMap<PartitionId, StepNumber>,
}

impl PeerStatus {
    fn is_live(&self) -> bool {
        self.failures < FAILURES_SUSPECT && self.heard.elapsed() < SILENT_AFTER
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Membership {
    peers: Mutex<BTreeMap<NodeId, PeerStatus>>,
    /// Nodes that never told of themselves and did not answer the last call.
    silent: Mutex<BTreeSet<NodeId>>,
    known: Mutex<BTreeMap<NodeId, Incarnation>>,
}

impl Membership {
    /// Takes in what a node told of itself; `offset_micros` where it was measured.
    pub fn on_gossip(&self, state: GossipState, offset_micros: Option<i64>) {
        for (node, incarnation) in &state.known {
            self.learn(node, *incarnation);
        }
        if state.incarnation.0 > 0 {
            self.learn(&state.node, state.incarnation);
        }
        self.silent.lock().remove(&state.node);
        let mut peers = self.peers.lock();
        let old_offset = peers.get(&state.node).map_or(0, |peer| peer.clock_offset_micros);
        peers.insert(
            state.node,
            PeerStatus {
                state: state.state,
                incarnation: state.incarnation,
                epoch: state.epoch,
                clock_offset_micros: offset_micros.unwrap_or(old_offset),
                heard: Instant::now(),
                failures: 0,
                partitions: state.partitions.into_iter().map(|p| (p.partition, p)).collect(),
                answered_at: HashMap::new(),
            },
        );
    }

    /// A call to the node was answered (by anything).
    pub fn on_answer(&self, node: &NodeId) {
        if let Some(peer) = self.peers.lock().get_mut(node) {
            peer.heard = Instant::now();
            peer.failures = 0;
        }
        self.silent.lock().remove(node);
    }

    /// A call to the node timed out or its connection broke.
    pub fn on_failure(&self, node: &NodeId) {
        match self.peers.lock().get_mut(node) {
            Some(peer) => peer.failures = peer.failures.saturating_add(1),
            // Down since before this process started: as failing as one that was known.
            None => drop(self.silent.lock().insert(node.clone())),
        }
    }

    /// What is known of a node.
    pub fn peer(&self, node: &NodeId) -> Option<PeerStatus> {
        self.peers.lock().get(node).cloned()
    }

    /// Everybody ever heard of.
    pub fn all(&self) -> Vec<(NodeId, PeerStatus)> {
        self.peers.lock().iter().map(|(id, status)| (id.clone(), status.clone())).collect()
    }

    /// Reads one thing of a node without copying the rest.
    pub fn with<T>(&self, node: &NodeId, read: impl FnOnce(&PeerStatus) -> T) -> Option<T> {
        self.peers.lock().get(node).map(read)
    }

    /// Step of a partition that a node told it sees, or answered at.
    pub fn step_seen(&self, node: &NodeId, p: PartitionId) -> Option<StepNumber> {
        let told = |peer: &PeerStatus| peer.partitions.get(&p).map(|told| told.step);
        self.with(node, |peer| told(peer).max(peer.answered_at.get(&p).copied())).flatten()
    }

    /// A node answered at this step of a partition: news between two rounds of gossip.
    pub fn on_step_seen(&self, node: &NodeId, p: PartitionId, step: StepNumber) {
        if let Some(peer) = self.peers.lock().get_mut(node) {
            let answered = peer.answered_at.entry(p).or_default();
            *answered = step.max(*answered);
        }
    }

    /// Answers at present.
    pub fn is_live(&self, node: &NodeId) -> bool {
        self.with(node, PeerStatus::is_live).unwrap_or(false)
    }

    /// The nodes that answer at present and told that they have this configuration or a later one.
    pub fn live_with_epoch(&self, number: u64) -> Vec<NodeId> {
        let peers = self.peers.lock();
        let have = peers.iter().filter(|(_, peer)| peer.is_live() && number <= peer.epoch.number);
        have.map(|(id, _)| id.clone()).collect()
    }

    /// How gladly a node is asked to read: 0 live and voting, 1 live, 2 unknown, 3 failing.
    pub fn read_rank(&self, node: &NodeId) -> u8 {
        self.with(node, |peer| match (peer.is_live(), peer.state) {
            (true, NodeState::Serving | NodeState::Draining) => 0,
            (true, _) => 1,
            (false, _) => 3,
        })
        .unwrap_or_else(|| if self.silent.lock().contains(node) { 3 } else { 2 })
    }

    /// Newest incarnation known of a node.
    pub fn incarnation(&self, node: &NodeId) -> Option<Incarnation> {
        self.known.lock().get(node).copied()
    }

    /// Remembers an incarnation; `true` when it was new.
    pub fn learn(&self, node: &NodeId, incarnation: Incarnation) -> bool {
        let mut known = self.known.lock();
        match known.get_mut(node) {
            Some(old) if *old >= incarnation => false,
            Some(old) => {
                *old = incarnation;
                true
            }
            None => {
                known.insert(node.clone(), incarnation);
                true
            }
        }
    }

    /// Every known incarnation.
    pub fn known(&self) -> Vec<(NodeId, Incarnation)> {
        self.known.lock().iter().map(|(node, inc)| (node.clone(), *inc)).collect()
    }

    /// Incarnations known of some nodes.
    pub fn known_of<'a>(
        &self,
        nodes: impl IntoIterator<Item = &'a NodeId>,
    ) -> Vec<(NodeId, Incarnation)> {
        let known = self.known.lock();
        nodes
            .into_iter()
            .filter_map(|node| known.get(node).map(|inc| (node.clone(), *inc)))
            .collect()
    }

    /// Median offset of the live nodes' clocks, this one's 0 among them, from this one's, in
    /// microseconds; of two middle ones the smaller. `None` without peers.
    pub fn clock_offset_micros(&self) -> Option<i64> {
        let peers = self.peers.lock();
        let mut offsets: Vec<i64> = peers
            .values()
            .filter(|peer| peer.heard.elapsed() < SILENT_AFTER && peer.incarnation.0 > 0)
            .map(|peer| peer.clock_offset_micros)
            .collect();
        if offsets.is_empty() {
            return None;
        }
        offsets.push(0);
        offsets.sort_unstable();
        let middle = &offsets[(offsets.len() - 1) / 2..=offsets.len() / 2];
        middle.iter().copied().min_by_key(|offset| offset.unsigned_abs())
    }
}

#[cfg(test)]
mod tests;
