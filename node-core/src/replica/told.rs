//! What a replica tells of itself, and what it keeps of what others tell.
//!
//! Invariant: an incarnation that another process named (by gossip, or the puller of a Tail) is on
//! disk here before the answer goes out, and every later acknowledgement names it.

use std::sync::Weak;

use tako_flatbuf::{GossipState, PartitionGossip, Response, RpcError};
use tako_types::{ClusterId, ErrorKind, Incarnation, NodeId, PartitionId};

use super::Replica;

impl Replica {
    /// Lets in whoever belongs to this cluster; a proxy belongs to whichever it asks.
    pub(super) fn hello(
        &self,
        cluster: Option<ClusterId>,
        node: &NodeId,
    ) -> Result<Response, RpcError> {
        let own = self.identity.cluster();
        if cluster.is_some_and(|cluster| cluster != own) {
            let me = self.engine.node();
            let text = format!("{node} is of another cluster than {me}: their stores differ");
            return Err(RpcError::new(ErrorKind::Invalid, text));
        }
        Ok(Response::Hello {
            cluster: Some(own),
            node: self.engine.node().clone(),
            incarnation: self.engine.incarnation(),
        })
    }

    /// What this node tells of itself.
    #[must_use]
    pub fn gossip_state(&self) -> GossipState {
        let current = self.config.current();
        let me = self.engine.node();
        let snapshotter = self.snapshotter.get().and_then(Weak::upgrade);
        let partitions = self
            .held()
            .into_iter()
            .map(|partition| {
                let status = self.engine.partition_status(partition);
                PartitionGossip {
                    partition,
                    newest: status.newest,
                    last_lsn: status.last_lsn,
                    step: status.step,
                    covered: status.uncovered == 0,
                    snapshotter: snapshotter
                        .as_ref()
                        .is_some_and(|snapshotter| snapshotter.first_in_line(partition) == *me),
                }
            })
            .collect();
        GossipState {
            node: me.clone(),
            incarnation: self.engine.incarnation(),
            state: self.state(),
            clock_micros: self.engine.clock().now_micros(),
            epoch: current.epoch,
            // KiB that wait for the journal.
            load: u32::try_from(self.engine.journal().queued_bytes() >> 10).unwrap_or(u32::MAX),
            known: self.membership.known(),
            partitions,
        }
    }

    /// Takes in what another process told; incarnations go to disk first.
    pub(super) async fn on_gossip(&self, state: GossipState) -> Result<(), RpcError> {
        self.remember(&state.known).await?;
        if state.incarnation.0 > 0 {
            self.remember(&[(state.node.clone(), state.incarnation)]).await?;
        }
        // A proxy gossips too, to learn; it is no node of the configuration.
        if self.config.current().node(&state.node).is_some() {
            self.membership.on_gossip(state, None);
        }
        Ok(())
    }

    pub(super) async fn on_puller(
        &self,
        node: &NodeId,
        incarnation: Incarnation,
    ) -> Result<(), RpcError> {
        if incarnation.0 == 0 {
            return Ok(());
        }
        self.remember(&[(node.clone(), incarnation)]).await
    }

    /// Keeps in the identity which of its partitions a recovering node refilled: a recovery that is
    /// cut short goes on with the others. Best effort, for what is not kept is refilled again.
    pub(crate) async fn keep_refilled(&self, partitions: &[PartitionId]) {
        if self.engine.journal().is_failed().is_some() {
            return;
        }
        let done = partitions.iter().copied().filter(|p| self.engine.is_recovered(*p)).collect();
        if let Err(error) = self.identity.change(|identity| identity.refilled = done).await {
            tracing::warn!("cannot keep what was refilled: {error}");
        }
    }

    /// Makes incarnations durable before anything is answered that may depend on them.
    pub(crate) async fn remember(&self, known: &[(NodeId, Incarnation)]) -> Result<(), RpcError> {
        let new: Vec<_> = known
            .iter()
            .filter(|(node, inc)| self.membership.incarnation(node).is_none_or(|old| old < *inc))
            .cloned()
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        self.identity.remember(&new).await.map_err(|error| {
            RpcError::new(ErrorKind::Unavailable, format!("cannot keep an incarnation: {error}"))
        })?;
        for (node, incarnation) in new {
            self.membership.learn(&node, incarnation);
        }
        Ok(())
    }
}
