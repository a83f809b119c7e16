//! `tako ctl safe-to-stop`: asks every node where it stands, and says yes or no.

use std::{collections::BTreeSet, process::ExitCode};

use clap::Args;
use serde_json::json;
use tako_types::NodeId;

use super::{
    layout::unknown,
    safe::{Verdict, verdict},
};
use crate::{
    command::{
        migrate::CommonArgs,
        output::{Output, print, print_json},
    },
    failure::Failure,
};

/// Exit code for no.
const NO: u8 = 1;

const AFTER_HELP: &str = "\
Examples:
  tako ctl safe-to-stop n3 && ssh n3 systemctl stop tako
  tako ctl safe-to-stop n3 n4                        both at the same time
  while ! tako ctl safe-to-stop n4; do sleep 1; done

Yes means: without these nodes every partition keeps as many serving nodes as reads and writes need,
whose answers count, and nothing waits to be pulled from them. It holds for this moment: stop them one group at a time,
and ask again before the next.

Exit codes: 0 yes; 1 no, and standard output says why; 3 there is no such node; 6 no coordinator
answers.";

/// Arguments of `tako ctl safe-to-stop`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct SafeArgs {
    /// Which nodes, to be stopped together
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

pub(super) async fn run(args: SafeArgs) -> Result<ExitCode, Failure> {
    let (coordinators, view) = args.common.look().await?;
    let document = view.published;
    let stop: BTreeSet<NodeId> = args.nodes.iter().map(|id| NodeId::new(id)).collect();
    if let Some(node) = stop.iter().find(|node| document.node(node).is_none()) {
        return Err(unknown(&document.config, node));
    }
    let standings = coordinators.nodes().standings(&document).await;
    let Verdict { against, notes } = verdict(&document, &standings, &stop);
    let is_safe = against.is_empty();
    match args.common.output {
        Output::Json => {
            print_json(&json!({ "safe": is_safe, "against": against, "notes": notes }))?;
        }
        Output::Text => {
            let names: Vec<&str> = stop.iter().map(NodeId::as_str).collect();
            let word = if is_safe { "Yes" } else { "No" };
            let mut text = format!("{word}: {}", names.join(", "));
            for line in against.iter().chain(&notes) {
                text.push_str("\n  - ");
                text.push_str(line);
            }
            print(&text)?;
        }
    }
    Ok(if is_safe { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}
