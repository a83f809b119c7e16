//! The gossip loop: each second this process tells every node of the configuration about itself
//! and learns about them: state, epoch, clock, incarnation, and what of each partition they hold.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tako_flatbuf::{GossipState, NodeState, Request, Response};
use tako_types::{ErrorKind, Incarnation, NodeId};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{links::Links, replication::Serving};

const EVERY: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(1);
/// Peers asked at one time.
const AT_ONCE: usize = 32;

/// See the module.
pub struct Gossiper {
    links: Arc<Links>,
    serving: Arc<Serving>,
    /// Those that do not let this process in, which was said once.
    refused_by: Mutex<BTreeSet<NodeId>>,
}

impl Gossiper {
    /// Gossips for the process that serves by `serving`.
    #[must_use]
    pub fn new(serving: Arc<Serving>) -> Self {
        Self { links: serving.links().clone(), serving, refused_by: Mutex::default() }
    }

    /// Runs until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => self.round().await,
            }
        }
    }

    /// One round with everybody.
    pub async fn round(&self) {
        let current = self.links.config.current();
        let nodes: Vec<NodeId> = current
            .nodes()
            .map(|node| node.id.clone())
            .filter(|node| !self.links.is_local(node))
            .collect();
        stream::iter(nodes)
            .for_each_concurrent(AT_ONCE, |node| async move { self.exchange(&node).await })
            .await;
        if let Some(offset) = self.links.membership.clock_offset_micros() {
            self.serving.set_clock_offset(offset);
        }
    }

    async fn exchange(&self, node: &NodeId) {
        let clock = self.serving.clock();
        let (sent, sent_at) = (clock.now_micros(), Instant::now());
        let request = Request::Gossip(self.own_state());
        let state = match self.links.call(node, DEADLINE, request).await {
            Ok(Response::Gossip(state)) => state,
            answer => {
                self.links.membership.on_failure(node);
                // It answers, but does not let this process in: nothing that mends itself.
                if let Err(error) = answer
                    && error.kind == ErrorKind::Invalid
                    && self.refused_by.lock().insert(node.clone())
                {
                    tracing::error!(%node, "{}", error.message);
                }
                return;
            }
        };
        self.refused_by.lock().remove(node);
        let half_trip = u64::try_from(sent_at.elapsed().as_micros() / 2).unwrap_or(u64::MAX);
        let here = sent.saturating_add(half_trip);
        let offset =
            i64::try_from(i128::from(state.clock_micros) - i128::from(here)).unwrap_or(i64::MAX);
        if let Some(local) = self.links.local() {
            let mut known = state.known.clone();
            known.push((state.node.clone(), state.incarnation));
            if let Err(error) = local.remember(&known).await {
                tracing::error!("{}", error.message);
                return;
            }
        }
        let theirs = state.epoch.number;
        self.links.membership.on_gossip(state, Some(offset));
        if theirs > self.links.config.epoch().number {
            self.links.fetch_configuration(node).await;
        }
    }

    fn own_state(&self) -> GossipState {
        if let Some(local) = self.links.local() {
            return local.gossip_state();
        }
        GossipState {
            node: self.links.me.clone(),
            incarnation: Incarnation(0),
            state: NodeState::Serving,
            clock_micros: self.serving.clock().now_micros(),
            epoch: self.links.config.epoch(),
            load: 0,
            known: Vec::new(),
            partitions: Vec::new(),
        }
    }
}
