//! `tako ctl status`: every node as it sees itself, with the coordinators and a move, if one is on.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use futures::future::join_all;
use serde_json::{Value, json};
use tako_types::config::{NodeConfig, Published};

use crate::{
    command::{
        coordinators::reason,
        migrate::CommonArgs,
        output::{Output, print, print_json},
    },
    failure::Failure,
    http::Http,
};

/// A node that answers nothing for so long is shown as one that does not.
const DEADLINE: Duration = Duration::from_secs(5);
/// Exit code where a node does not serve.
const NOT_WELL: u8 = 1;

/// Arguments of `tako ctl status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tako ctl status
  watch -n 1 tako ctl status
  tako ctl status --output json | jq '.nodes[] | select(.state != \"serving\")'

Each node with an HTTP port is asked itself. `uncovered` counts partitions that have writes which no
step has brought into the object store yet, `journal` what lies on the node's own disk.

Exit codes: 0 all nodes serve with the configuration in force; 1 not all; 6 no coordinator answers.")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    common: CommonArgs,
}

pub(super) async fn run(args: StatusArgs) -> Result<ExitCode, Failure> {
    let (_, view) = args.common.look().await?;
    let document = &view.published;
    let http = Http::new(&args.common.coordinators.ask)?;
    let nodes: Vec<Value> = join_all(document.nodes().map(|node| ask(&http, node))).await;
    let epoch = document.epoch.number;
    let is_well = |node: &Value| node["state"] == "serving" && node["epoch"] == epoch;
    let all_well = nodes.iter().all(is_well);
    match args.common.output {
        Output::Json => print_json(&json!({
            "epoch": epoch,
            "deployment": document.config.active_deployment().name,
            "coordinator": view.status,
            "nodes": nodes,
            "well": all_well,
        }))?,
        Output::Text => print(&table(document, &view.status, &nodes))?,
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::from(NOT_WELL) })
}

/// What a node says of itself; without an answer why there is none.
async fn ask(http: &Http, node: &NodeConfig) -> Value {
    let silent = |why: String| json!({"id": node.id.as_str(), "state": "silent", "why": why});
    let Some(address) = node.http_address() else { return silent("it has no HTTP port".into()) };
    let answer = async {
        let answer = http.get(&address, "/cluster").timeout(DEADLINE).send().await?;
        answer.error_for_status()?.bytes().await
    };
    let bytes = match answer.await {
        Ok(bytes) => bytes,
        Err(error) => return silent(reason(&error)),
    };
    let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let rows = said["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    match rows.iter().find(|row| row["id"] == node.id.as_str()) {
        Some(own) if said["process"] == node.id.as_str() => {
            let mut own = own.clone();
            own["epoch"] = said["epoch"].clone();
            own
        }
        _ => silent(format!("at {address} is {}", said["process"])),
    }
}

fn table(document: &Published, coordinator: &Value, nodes: &[Value]) -> String {
    let config = &document.config;
    let mut text = format!(
        "configuration {}, deployment {}, {} partitions, coordinator {}",
        document.epoch.number,
        config.active_deployment().name,
        config.partitions,
        coordinator["id"].as_str().unwrap_or("?"),
    );
    if let Some(phase) = coordinator["migration"]["phase"].as_str() {
        text.push_str(&format!("\nmoving: {phase} (tako migrate status)"));
    }
    let ids = nodes.iter().filter_map(|node| node["id"].as_str());
    let wide = ids.map(str::len).max().unwrap_or(0).max("node".len());
    text.push_str(&format!(
        "\n{:wide$}  {:10}  {:11}  {:>5}  {:>10}  {:>9}  {:>9}  address",
        "node", "bucket", "state", "epoch", "partitions", "uncovered", "journal"
    ));
    for node in nodes {
        let word = |name: &str| node[name].as_str().unwrap_or("-").to_owned();
        let number = |name: &str| node[name].as_u64().map_or("-".to_owned(), |it| it.to_string());
        let journal = node["journal_bytes"].as_u64();
        let journal =
            journal.map_or("-".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / 1048576.0));
        text.push_str(&format!(
            "\n{:wide$}  {:10}  {:11}  {:>5}  {:>10}  {:>9}  {:>9}  {}",
            word("id"),
            word("bucket"),
            word("state"),
            number("epoch"),
            number("partitions"),
            number("uncovered_partitions"),
            journal,
            node["why"].as_str().or(node["http"].as_str()).unwrap_or("-"),
        ));
    }
    text
}
