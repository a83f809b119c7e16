//! A plan for people, and for machines.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tako_types::NodeId;

use super::plan::{Plan, Share};

/// Partitions of which the nodes are shown one by one.
const PARTITIONS_SHOWN: usize = 16;

/// The plan as text.
pub(super) fn text(plan: &Plan) -> String {
    let mut out = format!("From `{}` to `{}`\n", plan.from, plan.to);
    let (moved, least) = plan.places;
    let moving = plan.moving.len();
    let _ = writeln!(
        out,
        "\nWhat moves: {moving} of {} partitions get other nodes; {moved} places change their bucket, \
         at least {least} have to",
        plan.partitions
    );
    for one in plan.moving.iter().take(PARTITIONS_SHOWN) {
        let (from, to) = (ids(&one.from), ids(&one.to));
        let _ = writeln!(out, "  {:>5}  {from} → {to}", one.partition.to_string());
    }
    if PARTITIONS_SHOWN < moving {
        let _ = writeln!(out, "    and {} more (--output json has all)", moving - PARTITIONS_SHOWN);
    }
    let _ = writeln!(
        out,
        "\n  {:<16} {:>6} {:>6} {:>7} {:>6}",
        "node", "before", "after", "gained", "lost"
    );
    for share in &plan.nodes {
        let Share { node, before, after, gained, lost, is_there, .. } = share;
        let silent = if *is_there { "" } else { "  does not answer" };
        let node = node.as_str();
        let _ = writeln!(out, "  {node:<16} {before:>6} {after:>6} {gained:>7} {lost:>6}{silent}");
    }
    let cost = &plan.cost;
    let _ = writeln!(
        out,
        "\nWhat it costs: {} snapshots are opened and {} steps forced: about {:.0} PUT, {:.0} LIST and \
         {:.0} GET; between nodes the entries of about {} keys that no step has covered, whatever the \
         size of the data",
        cost.opened, cost.steps, cost.put, cost.list, cost.get, cost.uncovered
    );
    for (title, lines) in
        [("What it risks", &plan.risks), ("What is lost", &plan.losses), ("Refused", &plan.refused)]
    {
        if !lines.is_empty() {
            let _ = writeln!(out, "\n{title}:");
            lines.iter().for_each(|line| {
                let _ = writeln!(out, "  - {line}");
            });
        }
    }
    let start: Vec<String> =
        plan.to_start().map(|share| format!("{} ({})", share.node, share.address)).collect();
    if !start.is_empty() {
        let _ = writeln!(out, "\nTo be started: {}", start.join(", "));
    }
    let stop: Vec<&str> = plan.to_stop().map(|share| share.node.as_str()).collect();
    if !stop.is_empty() {
        let _ = writeln!(out, "\nTo be stopped when it has ended: {}", stop.join(", "));
    }
    out
}

/// The plan as JSON.
pub(super) fn json(plan: &Plan) -> Value {
    let nodes = |shares: Vec<&Share>| -> Vec<String> {
        shares.iter().map(|share| share.node.to_string()).collect()
    };
    json!({
        "from": plan.from,
        "to": plan.to,
        "partitions": plan.partitions,
        "moving": plan.moving.iter().map(|one| json!({
            "partition": one.partition.0,
            "from": one.from.iter().map(NodeId::as_str).collect::<Vec<_>>(),
            "to": one.to.iter().map(NodeId::as_str).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "places": { "moved": plan.places.0, "least": plan.places.1 },
        "nodes": plan.nodes.iter().map(|share| json!({
            "node": share.node.as_str(),
            "address": share.address,
            "before": share.before,
            "after": share.after,
            "gained": share.gained,
            "lost": share.lost,
            "answers": share.is_there,
        })).collect::<Vec<_>>(),
        "cost": {
            "snapshots_opened": plan.cost.opened,
            "steps": plan.cost.steps,
            "put": plan.cost.put.round(),
            "list": plan.cost.list.round(),
            "get": plan.cost.get.round(),
            "uncovered_keys": plan.cost.uncovered,
        },
        "risks": plan.risks,
        "losses": plan.losses,
        "refused": plan.refused,
        "to_start": nodes(plan.to_start().collect()),
        "to_stop": nodes(plan.to_stop().collect()),
    })
}

fn ids(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(" ")
}
