//! `/healthz`, `/readyz` and `/cluster`: how this process and its cluster are.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tako_flatbuf::PartitionScrub;
use tako_node_core::{healing::Healer, links::Links};
use tako_types::config::NodeConfig;

use super::problem::Problem;
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
    let nodes: Vec<Value> = current.nodes().map(|node| node_status(links, node)).collect();
    Json(json!({
        "process": links.me.as_str(),
        "epoch": current.epoch.number,
        "sha256": current.epoch.sha256.iter().map(|b| format!("{b:02x}")).collect::<String>(),
        "active_deployment": deployment.name,
        "consistency": deployment.consistency.as_str(),
        "partitions": current.config.partitions,
        "configuration_refused": links.config.refused(),
        "ready": gateway.serving.readiness().is_ok(),
        "nodes": nodes,
    }))
}

fn node_status(links: &Arc<Links>, node: &NodeConfig) -> Value {
    let current = links.config.current();
    let mut status = json!({
        "id": node.id.as_str(),
        "bucket": current.bucket_of(&node.id),
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
        status["clock_offset_micros"] = peer.clock_offset_micros.into();
        let uncovered = peer.partitions.values().filter(|p| !p.covered).count();
        status["uncovered_partitions"] = uncovered.into();
    } else {
        status["state"] = "unknown".into();
        status["live"] = false.into();
    }
    status
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
