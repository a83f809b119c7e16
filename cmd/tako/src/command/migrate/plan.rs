//! What a move comes to before it is ordered: what moves, what it costs, what it risks. Pure.
//!
//! In: the document in force, the same with the move begun, what the nodes say. Out: a [`Plan`],
//! with reasons against it. Costs are requests as docs/operations.md counts them; nothing is copied
//! from node to node but entries that no step has covered yet.

use std::collections::{BTreeMap, BTreeSet};

use tako_coordinator::Standings;
use tako_ring::{fair_shares, publish, zone_warnings};
use tako_types::{
    NodeId, PartitionId,
    config::{Deployment, Migration, Phase, Published, ReplicaSet, format_duration},
};

/// Requests of a replica that opens a step.
const OPEN_LIST: f64 = 1.0;
const OPEN_GET: f64 = 9.0;
/// Requests of the node that takes one, its own new view included.
const STEP_PUT: f64 = 2.5;
const STEP_LIST: f64 = 1.1;
const STEP_GET: f64 = 14.0;

/// See the module.
pub(crate) struct Plan {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) partitions: usize,
    /// Those whose nodes or levels change.
    pub(crate) moving: Vec<Moving>,
    /// Every node of both.
    pub(crate) nodes: Vec<Share>,
    /// Places (a partition on a bucket) that come to a bucket, and how many must at least.
    pub(crate) places: (usize, usize),
    pub(crate) cost: Cost,
    /// What may go wrong, and what to know.
    pub(crate) risks: Vec<String>,
    /// What would be lost for good with the nodes that are given up.
    pub(crate) losses: Vec<String>,
    /// Why it must not begin.
    pub(crate) refused: Vec<String>,
}

/// A partition that moves.
pub(crate) struct Moving {
    pub(crate) partition: PartitionId,
    pub(crate) from: Vec<NodeId>,
    pub(crate) to: Vec<NodeId>,
}

/// What a node has before and after.
pub(crate) struct Share {
    pub(crate) node: NodeId,
    pub(crate) address: String,
    pub(crate) before: usize,
    pub(crate) after: usize,
    pub(crate) gained: usize,
    pub(crate) lost: usize,
    /// It answers.
    pub(crate) is_there: bool,
}

/// Store requests, and what goes between nodes.
#[derive(Default)]
pub(crate) struct Cost {
    /// Snapshots that a node opens which did not have them.
    pub(crate) opened: usize,
    /// Steps that are forced.
    pub(crate) steps: usize,
    pub(crate) put: f64,
    pub(crate) list: f64,
    pub(crate) get: f64,
    /// Keys with an entry that no step has covered.
    pub(crate) uncovered: u64,
}

impl Plan {
    /// Nodes to be started: new ones that do not answer.
    pub(crate) fn to_start(&self) -> impl Iterator<Item = &Share> {
        self.nodes.iter().filter(|share| 0 < share.after && 0 == share.before && !share.is_there)
    }

    /// Nodes that nobody needs when it has ended.
    pub(crate) fn to_stop(&self) -> impl Iterator<Item = &Share> {
        self.nodes.iter().filter(|share| share.after == 0)
    }
}

/// The plan of the move that `begun` is in, if `lost` are given up.
pub(crate) fn plan(
    in_force: &Published,
    begun: &Published,
    standings: &Standings,
    lost: &BTreeSet<NodeId>,
) -> Plan {
    let other = begun.migration.as_ref().map(|migration| migration.other.clone());
    let (from, to) = (begun.config.active.clone(), other.unwrap_or_default());
    let sets = moving(begun);
    let mut nodes: BTreeMap<&NodeId, Share> = BTreeMap::new();
    for node in begun.nodes() {
        let share = Share {
            node: node.id.clone(),
            address: node.rpc_address().to_string(),
            before: 0,
            after: 0,
            gained: 0,
            lost: 0,
            is_there: standings.contains_key(&node.id),
        };
        nodes.insert(&node.id, share);
    }
    for p in begun.partitions() {
        let set = |name: &str| begun.set_in(name, p).map(|set| set.nodes).unwrap_or_default();
        let (old, new) = (set(&from), set(&to));
        for (node, share) in &mut nodes {
            let (had, has) = (old.contains(node), new.contains(node));
            share.before += usize::from(had);
            share.after += usize::from(has);
            share.gained += usize::from(has && !had);
            share.lost += usize::from(had && !has);
        }
    }
    let mut losses = Vec::new();
    let mut refused = Vec::new();
    too_few(&sets, standings, lost, &mut refused);
    given_up(begun, &sets, standings, lost, &mut losses, &mut refused);
    Plan {
        places: places(in_force, begun, &to),
        cost: cost(&sets, standings),
        risks: risks(begun, &to, &sets, standings),
        partitions: begun.partitions().count(),
        moving: sets
            .iter()
            .map(|(partition, old, new)| Moving {
                partition: *partition,
                from: old.nodes.clone(),
                to: new.nodes.clone(),
            })
            .collect(),
        nodes: nodes.into_values().collect(),
        from,
        to,
        losses,
        refused,
    }
}

type Sets = Vec<(PartitionId, ReplicaSet, ReplicaSet)>;

/// The partitions that move, with both sets.
fn moving(begun: &Published) -> Sets {
    let Some(Migration { other, .. }) = &begun.migration else { return Vec::new() };
    let sets = |p| {
        let old = begun.set_in(&begun.config.active, p)?;
        let new = begun.set_in(other, p)?;
        (!new.is_like(&old)).then_some((p, old, new))
    };
    begun.partitions().filter_map(sets).collect()
}

/// Places that come to a bucket which had not the partition, and the least of it by fair shares.
fn places(in_force: &Published, begun: &Published, to: &str) -> (usize, usize) {
    let active = in_force.config.active_deployment();
    let Some(target) = begun.config.deployments.get(to) else { return (0, 0) };
    let names = |deployment: &Deployment, row: &[u16]| -> BTreeSet<String> {
        row.iter().map(|index| deployment.buckets[usize::from(*index)].name.clone()).collect()
    };
    let (mut moved, mut had) = (0, BTreeMap::<String, usize>::new());
    let Some(table) = begun.table_of(to) else { return (0, 0) };
    for (before, after) in in_force.table().iter().zip(table) {
        let before = names(active, before);
        moved += names(target, after).difference(&before).count();
        for name in before {
            *had.entry(name).or_default() += 1;
        }
    }
    let least: f64 = fair_shares(target, begun.config.partitions)
        .iter()
        .zip(&target.buckets)
        .map(|(share, bucket)| {
            let had = had.get(&bucket.name).copied().unwrap_or(0) as f64;
            (share.floor() - had).max(0.0)
        })
        .sum();
    (moved, least as usize)
}

fn cost(sets: &Sets, standings: &Standings) -> Cost {
    let mut cost = Cost::default();
    for (p, old, new) in sets {
        let opened = new.nodes.iter().filter(|node| !old.nodes.contains(node)).count();
        let holders = old.nodes.len() + opened;
        cost.opened += opened;
        cost.steps += 1;
        let opens = (opened + holders - 1) as f64;
        cost.put += STEP_PUT;
        cost.list += STEP_LIST + opens * OPEN_LIST;
        cost.get += STEP_GET + opens * OPEN_GET;
        let uncovered = old.nodes.iter().filter_map(|node| {
            let rows = &standings.get(node)?.partitions;
            rows.iter().find(|row| row.partition == *p).map(|row| row.uncovered)
        });
        cost.uncovered += uncovered.max().unwrap_or(0);
    }
    cost
}

fn risks(begun: &Published, to: &str, sets: &Sets, standings: &Standings) -> Vec<String> {
    let mut out = Vec::new();
    let dead = |set: &ReplicaSet| -> BTreeSet<NodeId> {
        set.nodes.iter().filter(|node| !standings.contains_key(*node)).cloned().collect()
    };
    let mut waits: BTreeMap<BTreeSet<NodeId>, usize> = BTreeMap::new();
    let mut old: BTreeSet<NodeId> = BTreeSet::new();
    for (_, from, new) in sets {
        let missing = dead(new);
        if new.nodes.len() - missing.len() < new.quorum.w.max(new.quorum.r) {
            *waits.entry(missing).or_default() += 1;
        }
        old.extend(dead(from));
    }
    for (missing, partitions) in waits {
        out.push(format!(
            "{} not answer: for {partitions} partitions too few of the new nodes are there; the move \
             waits in its first phase, in which requests do not know of it",
            named(&missing, "does", "do")
        ));
    }
    if !old.is_empty() {
        out.push(format!(
            "{} not answer now: each phase waits 30 s for such a node, and the fewer of the old nodes \
             are there, the less may fail meanwhile",
            named(&old, "does", "do")
        ));
    }
    let prefix = format!("deployments.{to}");
    let about = |warning: &String| {
        warning.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with(['.', ':']))
    };
    out.extend(begun.config.warnings().into_iter().filter(about));
    // The layout as it will be, with the table that it has here.
    let mut after = (*begun.config).clone();
    to.clone_into(&mut after.active);
    after.target = None;
    if let Ok(after) = publish(after.into(), begun.epoch.number, Some(begun)) {
        out.extend(zone_warnings(&after));
    }
    let phase = begun.migration.as_ref().map(|migration| migration.phase);
    if phase.is_some_and(|phase| phase != Phase::Leave) && !sets.is_empty() {
        out.push("while both are written, a write needs its W of each of the two".to_owned());
    }
    out
}

/// Where too few of the old nodes answer, the move would wait for ever, or lose something.
fn too_few(sets: &Sets, standings: &Standings, lost: &BTreeSet<NodeId>, refused: &mut Vec<String>) {
    let mut waits: BTreeMap<BTreeSet<NodeId>, Vec<PartitionId>> = BTreeMap::new();
    for (p, old, _) in sets {
        let answer = |node: &&NodeId| standings.contains_key(*node);
        let silent = old.nodes.iter().filter(|node| !answer(node));
        let (gone, missing): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
            silent.cloned().partition(|node| lost.contains(node));
        let answering = old.nodes.iter().filter(answer).count();
        // What was complete is with one of as many of those that are left.
        let tell = old.quorum.covering().min(old.quorum.n - gone.len());
        let know = old.quorum.n - old.quorum.r + 1;
        if answering < tell || answering + gone.len() < know {
            waits.entry(missing).or_default().push(*p);
        }
    }
    for (missing, partitions) in waits {
        let ids: Vec<&str> = missing.iter().map(NodeId::as_str).collect();
        refused.push(format!(
            "{} not answer, and without {} nobody knows every acknowledged write of {}; start {}, or, \
             if gone for good, give up what only they have: --accept-loss {}",
            named(&missing, "does", "do"),
            if ids.len() == 1 { "it" } else { "them" },
            listed(&partitions),
            if ids.len() == 1 { "it again" } else { "them again" },
            ids.join(",")
        ));
    }
}

/// What giving nodes up means.
fn given_up(
    begun: &Published,
    sets: &Sets,
    standings: &Standings,
    lost: &BTreeSet<NodeId>,
    losses: &mut Vec<String>,
    refused: &mut Vec<String>,
) {
    for node in lost {
        if standings.contains_key(node) {
            refused.push(format!("--accept-loss: {node} answers, it is not lost"));
        } else if begun.node(node).is_none() {
            refused.push(format!("--accept-loss: there is no node {node}"));
        }
    }
    losses.extend(loss_in_words(begun, sets, lost));
}

/// What is lost for good with `lost`, for an operator to read.
fn loss_in_words(document: &Published, sets: &Sets, lost: &BTreeSet<NodeId>) -> Vec<String> {
    let mut out = Vec::new();
    let mut at_risk = Vec::new();
    for (p, old, _) in sets {
        let gone = old.nodes.iter().filter(|node| lost.contains(*node)).count();
        // Whatever was complete is with one of as many.
        if old.nodes.len() - gone < old.quorum.covering() {
            at_risk.push(*p);
        }
    }
    if !at_risk.is_empty() {
        let interval = format_duration(document.config.cluster.snapshot.interval);
        out.push(format!(
            "of {}: acknowledged writes that only {} had and no step had covered, which is about what \
             was written in the last {interval} before they died",
            listed(&at_risk),
            one_of(lost)
        ));
    }
    if !sets.is_empty() && !lost.is_empty() {
        out.push(format!(
            "if {} did run and was only cut off, a process cut off with it could read old values there",
            one_of(lost)
        ));
    }
    out
}

/// What giving up `lost` in the migration of `document` means.
pub(crate) fn losses(document: &Published, lost: &BTreeSet<NodeId>) -> Vec<String> {
    loss_in_words(document, &moving(document), lost)
}

fn one_of(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ")
}

fn named(nodes: &BTreeSet<NodeId>, one: &str, more: &str) -> String {
    format!("{} {}", one_of(nodes), if nodes.len() == 1 { one } else { more })
}

/// `partition 3`, `partitions 1, 2, 3`, or the first of many and their number.
pub(crate) fn listed(partitions: &[PartitionId]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = partitions.iter().take(SHOWN).map(ToString::to_string).collect();
    match partitions.len() {
        1 => format!("partition {}", shown.join("")),
        n if n <= SHOWN => format!("partitions {}", shown.join(", ")),
        n => format!("{n} partitions ({}, …)", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
