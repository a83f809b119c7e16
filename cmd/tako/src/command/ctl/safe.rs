//! Whether nodes may be stopped: what stands against it. Pure.
//!
//! Rule: of every set that requests go to, enough nodes stay that answer, serve and have lost
//! nothing, and, where reads ask the set, whose answers count for reads: one that came with a move
//! votes once it shows the barrier's step. And nobody waits to pull something from a node that goes.

use std::collections::{BTreeMap, BTreeSet};

use tako_coordinator::{FOREIGN, Standings, cluster_of, is_foreign};
use tako_flatbuf::{NodeState, PartitionStanding};
use tako_types::{
    ClusterId, NodeId, PartitionId,
    config::{Published, ReplicaSet},
};

use crate::command::migrate::plan::listed;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Why not; empty when they may.
    pub(super) against: Vec<String>,
    /// What to know besides.
    pub(super) notes: Vec<String>,
}

/// Why a node is no help to a partition now, in a set that reads ask or that is only written.
fn why_not(
    own: Option<ClusterId>,
    standings: &Standings,
    node: &NodeId,
    p: PartitionId,
    reads: bool,
) -> Option<&'static str> {
    let Some(standing) = standings.get(node) else { return Some("does not answer") };
    if is_foreign(standing, own) {
        return Some(FOREIGN);
    }
    if standing.state != NodeState::Serving {
        return Some("is not serving");
    }
    match row(standings, node, p) {
        Some(row) if !row.recovered => Some("is recovering"),
        Some(row) if reads && !row.voting => Some("does not count for reads yet"),
        Some(_) => None,
        None => Some("has not opened its partitions"),
    }
}

fn row<'a>(
    standings: &'a Standings,
    node: &NodeId,
    p: PartitionId,
) -> Option<&'a PartitionStanding> {
    let rows = &standings.get(node)?.partitions;
    rows.binary_search_by_key(&p, |row| row.partition).ok().map(|at| &rows[at])
}

/// Whether `stop` may all be stopped.
pub(super) fn verdict(
    document: &Published,
    standings: &Standings,
    stop: &BTreeSet<NodeId>,
) -> Verdict {
    let mut verdict = Verdict::default();
    // Partitions that say the same are said together.
    let mut short: BTreeMap<String, Vec<PartitionId>> = BTreeMap::new();
    let mut pulled: BTreeMap<&NodeId, (u64, Vec<PartitionId>)> = BTreeMap::new();
    let mut uncovered: BTreeMap<&NodeId, u64> = BTreeMap::new();
    let own = cluster_of(document, standings);
    for p in document.partitions() {
        let placement = document.placement(p);
        for set in placement.write_sets() {
            let reads = *set == placement.read;
            let why_not = |node: &NodeId| why_not(own, standings, node, p, reads);
            let needed = if reads { set.quorum.w.max(set.quorum.r) } else { set.quorum.w };
            if let Some(why) = too_few(set, needed, stop, why_not) {
                short.entry(why).or_default().push(p);
            }
        }
        for node in stop {
            let held = row(standings, node, p).map_or(0, |row| row.uncovered);
            if held == 0 {
                continue;
            }
            if placement.takes_writes(node) {
                *uncovered.entry(node).or_default() += held;
            } else {
                let (keys, of) = pulled.entry(node).or_default();
                *keys += held;
                of.push(p);
            }
        }
    }
    for (why, partitions) in short {
        verdict.against.push(format!("{}: {why}", listed(&partitions)));
    }
    for (node, (keys, partitions)) in pulled {
        verdict.against.push(format!(
            "{}: {node} is being left and still holds {keys} keys that no step has covered; they are \
             pulled within seconds",
            listed(&partitions)
        ));
    }
    for (node, keys) in uncovered {
        verdict.notes.push(format!(
            "{node} holds {keys} keys that no step has covered: SIGTERM brings them into the store, \
             after kill -9 the other replicas do"
        ));
    }
    for node in stop.iter().filter(|node| !standings.contains_key(*node)) {
        verdict.notes.push(format!("{node} does not answer now"));
    }
    verdict
}

/// Why too few of a set stay, if so; nothing where none of it goes.
fn too_few(
    set: &ReplicaSet,
    needed: usize,
    stop: &BTreeSet<NodeId>,
    why_not: impl Fn(&NodeId) -> Option<&'static str>,
) -> Option<String> {
    if !set.nodes.iter().any(|node| stop.contains(node)) {
        return None;
    }
    let mut left = Vec::new();
    let mut troubles = Vec::new();
    for node in set.nodes.iter().filter(|node| !stop.contains(*node)) {
        match why_not(node) {
            None => left.push(node.as_str()),
            Some(why) => troubles.push(format!("{node} {why}")),
        }
    }
    if needed <= left.len() {
        return None;
    }
    let all: Vec<&str> = set.nodes.iter().map(NodeId::as_str).collect();
    let mut why = match left.as_slice() {
        [] => format!("nobody of {} would be left", all.join(", ")),
        left => format!("only {} of {} would be left", left.join(", "), all.join(", ")),
    };
    why = format!("{why}, {needed} are needed");
    if !troubles.is_empty() {
        why = format!("{why} ({})", troubles.join(", "));
    }
    Some(why)
}

#[cfg(test)]
mod tests;
