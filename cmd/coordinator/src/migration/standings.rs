//! Asks the nodes where they stand, and for steps. Every call has a deadline.
//!
//! Also for commands, which ask before they order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::join_all, stream};
use tako_flatbuf::{Network, PeerOptions, Peers, Request, Response, RpcError, Standing};
use tako_node_core::snapshotter::rendezvous;
use tako_types::{
    ClusterId, NodeId, PartitionId,
    config::Published,
    limits::{CALL_DEADLINE, STORE_DEADLINE},
};
use tokio::time::{Instant, sleep, timeout};

/// What was heard of the nodes; one that is not in it did not answer.
pub type Standings = BTreeMap<NodeId, Standing>;

/// Of a node whose store is not that of the nodes beside it: none of them lets it in.
pub const FOREIGN: &str =
    "has another cluster's store: stop it, start it with the store of this one and an empty folder";

/// Whose data the cluster is about: what most nodes of the active deployment have.
#[must_use]
pub fn cluster_of(document: &Published, standings: &Standings) -> Option<ClusterId> {
    let mut named: BTreeMap<ClusterId, usize> = BTreeMap::new();
    let active = document.config.deployments.get(&document.config.active);
    for node in active.into_iter().flat_map(|deployment| deployment.nodes()) {
        if let Some(cluster) = standings.get(&node.id).and_then(|standing| standing.cluster) {
            *named.entry(cluster).or_default() += 1;
        }
    }
    named.into_iter().max_by_key(|(_, nodes)| *nodes).map(|(cluster, _)| cluster)
}

/// Whether a node says that it has other data than those of `cluster`, where both are known.
#[must_use]
pub fn is_foreign(standing: &Standing, cluster: Option<ClusterId>) -> bool {
    cluster.zip(standing.cluster).is_some_and(|(own, its)| own != its)
}

/// How long one node is asked where it stands: a few pages, each with a deadline of its own. Orders
/// to a coordinator wait meanwhile.
const STANDING_MAX: Duration = Duration::from_secs(10);
/// After a step the requests have the processors to themselves for three times as long as it took, up
/// to this: a step that took longer waited for the store rather than kept anybody busy.
const REST_MAX: Duration = Duration::from_millis(75);

/// The nodes, as a coordinator or a command reaches them.
pub struct Nodes {
    peers: Peers,
}

impl Nodes {
    /// Reaches them over `network`, as `id`.
    #[must_use]
    pub fn new(network: Arc<dyn Network>, id: &str) -> Self {
        Self { peers: Peers::new(network, PeerOptions::new(NodeId::new(id))) }
    }

    /// What every node of both deployments says of itself; who does not answer is left out.
    pub async fn standings(&self, document: &Published) -> Standings {
        let nodes = addresses(document);
        self.peers.retain(|address| nodes.values().any(|known| known == address));
        let number = document.epoch.number;
        let all = nodes.iter().map(async |(node, address)| {
            let asked = timeout(STANDING_MAX, self.standing(number, address)).await;
            let late = |_| Err(RpcError::unavailable("it tells too slowly"));
            match asked.unwrap_or_else(late) {
                Ok(standing) => Some((node.clone(), standing)),
                Err(error) => {
                    tracing::debug!(%node, "no standing: {}", error.message);
                    None
                }
            }
        });
        join_all(all).await.into_iter().flatten().collect()
    }

    /// All pages of one node. They are of one document, or nothing is said.
    async fn standing(&self, number: u64, address: &str) -> Result<Standing, RpcError> {
        let peer = self.peers.get(address);
        let mut whole: Option<Standing> = None;
        let mut from = PartitionId(0);
        loop {
            let answer = peer.call(number, CALL_DEADLINE, Request::Standing { from }).await?;
            let Response::Standing(page) = answer else {
                return Err(RpcError::unavailable("it answered something else"));
            };
            let more = page.more;
            let last = page.partitions.last().map(|row| row.partition);
            match &mut whole {
                None => whole = Some(page),
                Some(whole) => {
                    let of = |s: &Standing| (s.epoch, s.noted, s.incarnation);
                    if of(whole) != of(&page) {
                        return Err(RpcError::unavailable("it moved on between two pages"));
                    }
                    whole.partitions.extend(page.partitions);
                }
            }
            match (more, last) {
                (true, Some(last)) if from <= last => from = PartitionId(last.0.saturating_add(1)),
                _ => return whole.ok_or_else(|| RpcError::unavailable("it said nothing")),
            }
        }
    }

    /// Has a step taken of each partition, by the first of the nodes named that does it: they are
    /// asked in the order in which it is their turn, for each other one would take the snapshot over.
    /// With nodes that hang this lasts for as many deadlines as there are partitions: whoever cannot
    /// wait drops it.
    pub async fn steps(&self, document: &Published, steps: BTreeMap<PartitionId, Vec<NodeId>>) {
        let number = document.epoch.number;
        let at_once = at_once(&steps);
        stream::iter(steps)
            .for_each_concurrent(at_once, async |(partition, by)| {
                let begun = Instant::now();
                for node in rendezvous(partition, &by) {
                    let Some(target) = document.node(node) else { continue };
                    let peer = self.peers.get(&target.rpc_address().to_string());
                    let request = Request::ForceStep { partition };
                    match peer.call(number, STORE_DEADLINE, request).await {
                        Ok(_) => break,
                        Err(error) => {
                            tracing::debug!(%node, %partition, "no step: {}", error.message);
                        }
                    }
                }
                sleep((3 * begun.elapsed()).min(REST_MAX)).await;
            })
            .await;
    }
}

/// Steps asked for at one time: each keeps all replicas of its partition busy, and requests go on
/// meanwhile. So as many as there are sets of replicas: a node has one to take, in a cluster of any size.
fn at_once(steps: &BTreeMap<PartitionId, Vec<NodeId>>) -> usize {
    let nodes: BTreeSet<&NodeId> = steps.values().flatten().collect();
    let replicas = steps.values().map(Vec::len).max().unwrap_or(0);
    (nodes.len() / replicas.max(1)).max(1)
}

/// The RPC addresses of the nodes of both deployments.
fn addresses(document: &Published) -> BTreeMap<NodeId, String> {
    let other = document.migration.as_ref().map(|migration| &migration.other);
    let deployments = [Some(&document.config.active), other];
    deployments
        .into_iter()
        .flatten()
        .filter_map(|name| document.config.deployments.get(name))
        .flat_map(|deployment| deployment.nodes())
        .filter_map(|node| document.node(&node.id))
        .map(|node| (node.id.clone(), node.rpc_address().to_string()))
        .collect()
}

#[cfg(test)]
mod tests;
