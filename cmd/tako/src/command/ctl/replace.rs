//! `tako ctl replace`: the same node at another address, which needs no migration.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use serde_json::json;
use tako_coordinator::{FOREIGN, cluster_of, is_foreign};
use tako_flatbuf::NodeState;
use tako_types::{NodeId, config::Published};
use tokio::time::sleep;

use super::layout::{Place, moved, place, rpc_address, unknown};
use crate::{
    command::{
        coordinators::Coordinators,
        migrate::{
            CommonArgs,
            orders::{checked, conflict},
        },
        output::{Output, print, print_json},
    },
    failure::Failure,
    signals::{AT_ONCE, Stops},
};

const ASK_EVERY: Duration = Duration::from_millis(300);

const AFTER_HELP: &str = "\
Examples:
  tako ctl replace n3 10.0.0.9:5711:4711

Then start it there: tako node --id n3 --coordinator …. With an empty folder it refills what no
snapshot has yet from the other replicas, in seconds; the command waits until it serves. The old
machine must not run as n3 any more.";

/// Arguments of `tako ctl replace`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ReplaceArgs {
    /// Which node
    #[arg(value_name = "NODE")]
    node: String,
    /// Where it is from now on
    #[arg(value_name = "HOST:HTTP:RPC", value_parser = place)]
    place: Place,
    /// Do not wait until it serves there
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    common: CommonArgs,
}

pub(super) async fn run(args: ReplaceArgs) -> Result<ExitCode, Failure> {
    let (coordinators, view) = args.common.look().await?;
    let in_force = &view.published;
    let node = NodeId::new(&args.node);
    if in_force.node(&node).is_none() {
        return Err(unknown(&in_force.config, &node));
    }
    if in_force.migration.is_some() {
        return Err(conflict(
            "a migration is under way, in which addresses stay; wait for its end (tako migrate status \
             --wait), or give it up: tako migrate abort"
                .to_owned(),
        ));
    }
    let config = checked(moved(&in_force.config, &node, &args.place)?)?;
    let status = coordinators.order(&view, &config).await?;
    let address = rpc_address(&args.place);
    if !args.no_wait {
        let document = coordinators.view().await?.published;
        if let Some(code) = wait(&coordinators, &node, &address, &document).await? {
            return Ok(code);
        }
    }
    match (args.common.output, args.no_wait) {
        (Output::Json, _) => print_json(
            &json!({ "node": node.as_str(), "address": address, "epoch": status["epoch"] }),
        )?,
        (Output::Text, true) => {
            print(&format!("{node} is at {address} from now on; start it there."))?
        }
        (Output::Text, false) => print(&format!("Done: {node} serves at {address}."))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn word(state: NodeState) -> &'static str {
    match state {
        NodeState::Starting => "starting",
        NodeState::Recovering => "recovering",
        NodeState::Serving => "serving",
        NodeState::Draining => "draining",
    }
}

/// Waits until the node serves by `document`.
async fn wait(
    coordinators: &Coordinators,
    node: &NodeId,
    address: &str,
    document: &Published,
) -> Result<Option<ExitCode>, Failure> {
    let mut stops = Stops::new()?;
    let nodes = coordinators.nodes();
    let mut said = String::new();
    loop {
        let standings = nodes.standings(document).await;
        let now = match standings.get(node) {
            None => format!(
                "waiting for {node} at {address}; start it there, or restart it if it already runs"
            ),
            Some(standing) if is_foreign(standing, cluster_of(document, &standings)) => {
                format!("{node} {FOREIGN}")
            }
            Some(standing) if standing.epoch < document.epoch.number => {
                format!("{node} does not have this configuration yet")
            }
            Some(standing) if standing.state == NodeState::Serving => return Ok(None),
            Some(standing) => format!("{node} is {}", word(standing.state)),
        };
        if now != said {
            let _ = writeln!(io::stderr(), "{now}");
            said = now;
        }
        tokio::select! {
            () = sleep(ASK_EVERY) => {}
            () = stops.next() => return Ok(Some(ExitCode::from(AT_ONCE))),
        }
    }
}
