//! `/healthz`, `/readyz` and `/cluster`: how this process and its cluster are.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tako_flatbuf::PartitionScrub;
use tako_node_core::{healing::Healer, links::Links};
use tako_types::{
    NodeId, PartitionId, StepNumber,
    config::{NodeConfig, Published},
};

use super::{layout, problem::Problem};
use crate::Gateway;

/// 200 while the process lives.
pub(super) async fn on_healthz() -> &'static str {
    "ok\n"
}

/// 200 when every partition has enough replicas for its quorums; else 503 and what is missing.
pub(super) async fn on_readyz(State(gateway): State<Arc<Gateway>>) -> Response {
    match gateway.serving.readiness() {
        Ok(()) => "ready\n".into_response(),
        Err(missing) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not ready")
            .detail(missing)
            .into_response(),
    }
}

/// The configuration in force and the nodes as this process sees them.
pub(super) async fn on_cluster(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    let links = gateway.serving.links();
    let current = links.config.current();
    let deployment = current.config.active_deployment();
    let step_of = |node: &NodeId, p| match links.local().filter(|_| links.is_local(node)) {
        Some(local) => Some(local.engine().partition_status(p).step),
        None => links.membership.step_seen(node, p),
    };
    let nodes: Vec<Value> = current
        .nodes()
        .zip(behind(&current, step_of))
        .map(|(node, behind)| {
            let mut status = node_status(links, &current, node);
            status["behind_partitions"] = behind.into();
            status
        })
        .collect();
    Json(json!({
        "process": links.me.as_str(),
        "epoch": current.epoch.number,
        "sha256": current.epoch.sha256.iter().map(|b| format!("{b:02x}")).collect::<String>(),
        "active_deployment": deployment.name,
        "consistency": deployment.consistency.as_str(),
        "partitions": current.config.partitions,
        "configuration_refused": links.config.refused(),
        "ready": gateway.serving.readiness().is_ok(),
        "buckets": layout::buckets(&current, deployment),
        "ring": layout::ring(&current, deployment),
        "migration": layout::migration(&current, step_of),
        "nodes": nodes,
    }))
}

/// Of each node in how many of its partitions another one sees a newer step; `None` where it told
/// of no step.
fn behind(
    current: &Published,
    step_of: impl Fn(&NodeId, PartitionId) -> Option<StepNumber>,
) -> Vec<Option<usize>> {
    let steps_of = |node: &NodeConfig| -> Vec<(PartitionId, StepNumber)> {
        let held = current.partitions_of(&node.id).into_iter();
        held.filter_map(|p| Some((p, step_of(&node.id, p)?))).collect()
    };
    let steps: Vec<_> = current.nodes().map(steps_of).collect();
    let mut newest: HashMap<PartitionId, StepNumber> = HashMap::new();
    for (p, step) in steps.iter().flatten() {
        let known = newest.entry(*p).or_default();
        *known = (*known).max(*step);
    }
    let is_old = |(p, step): &&(PartitionId, StepNumber)| *step < newest[p];
    let count = |steps: Vec<_>| (!steps.is_empty()).then(|| steps.iter().filter(is_old).count());
    steps.into_iter().map(count).collect()
}

fn node_status(links: &Arc<Links>, current: &Published, node: &NodeConfig) -> Value {
    let mut status = json!({
        "id": node.id.as_str(),
        "bucket": current.bucket_of(&node.id),
        "deployment": deployment_of(current, &node.id),
        "zone": node.zone,
        "rpc": node.rpc_address().to_string(),
        "http": node.http_address().map(|address| address.to_string()),
        "partitions": current.partitions_of(&node.id).len(),
    });
    if let Some(local) = links.local().filter(|_| links.is_local(&node.id)) {
        let held: Vec<Value> = current
            .partitions_of(&node.id)
            .into_iter()
            .map(|p| (p, local.engine().partition_status(p)))
            .map(|(p, held)| {
                json!({
                    "partition": p.0,
                    "step": held.step.0,
                    "uncovered": held.uncovered,
                    "uncovered_bytes": held.uncovered_bytes,
                    "quiet": held.quiet,
                })
            })
            .collect();
        let uncovered = held.iter().filter(|p| p["uncovered"] != 0).count();
        status["uncovered_partitions"] = uncovered.into();
        status["held"] = held.into();
        status["state"] = state_text(local.state()).into();
        status["live"] = true.into();
        status["incarnation"] = local.engine().incarnation().0.into();
        status["journal_bytes"] = local.engine().journal().disk_bytes().into();
        status["healing"] = local.healer().map(|healer| healing(&healer)).into();
    } else if let Some(peer) = links.membership.peer(&node.id) {
        status["state"] = state_text(peer.state).into();
        status["live"] = links.membership.is_live(&node.id).into();
        status["incarnation"] = peer.incarnation.0.into();
        status["epoch"] = peer.epoch.number.into();
        status["heard_millis"] = u64::try_from(peer.heard.elapsed().as_millis()).ok().into();
        status["clock_offset_micros"] = peer.clock_offset_micros.into();
        let uncovered = peer.partitions.values().filter(|p| !p.covered).count();
        status["uncovered_partitions"] = uncovered.into();
    } else {
        status["state"] = "unknown".into();
        status["live"] = false.into();
    }
    status
}

/// Where a node stands: in the active deployment, or while a move is on in the other one alone.
fn deployment_of<'a>(current: &'a Published, node: &NodeId) -> Option<&'a str> {
    let active = current.config.active_deployment();
    if active.nodes().any(|other| other.id == *node) {
        return Some(&active.name);
    }
    current.migration.as_ref().map(|migration| migration.other.as_str())
}

/// What background healing and scrubs by hand came to on this node since it started.
fn healing(healer: &Healer) -> Value {
    let report = healer.report();
    let rows = &report.partitions;
    let sum = |of: fn(&PartitionScrub) -> u64| rows.iter().map(of).sum::<u64>();
    json!({
        "running": rows.iter().find(|row| row.running).map(|row| json!({
            "partition": row.partition.0,
            "bytes": row.bytes,
            "of_bytes": row.total_bytes,
        })),
        "waiting": report.waiting.len(),
        "read_partitions": rows.iter().filter(|row| row.whole).count(),
        "last_ended_micros": rows.iter().map(|row| row.ended_micros).max(),
        "records": sum(|row| row.records),
        "bytes": sum(|row| row.bytes),
        "bad": sum(|row| row.bad),
        "healed": sum(|row| row.healed),
        "unreadable": sum(|row| row.unreadable),
        "stale": sum(|row| row.stale),
        "journal": {
            "ended_micros": report.journal.ended_micros,
            "files": report.journal.files,
            "bad": report.journal.bad,
            "lost": report.journal.lost,
        },
        "found": healer.found_count(),
        "findings": report.findings,
    })
}

fn state_text(state: tako_flatbuf::NodeState) -> &'static str {
    match state {
        tako_flatbuf::NodeState::Starting => "starting",
        tako_flatbuf::NodeState::Recovering => "recovering",
        tako_flatbuf::NodeState::Serving => "serving",
        tako_flatbuf::NodeState::Draining => "draining",
    }
}
