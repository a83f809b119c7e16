//! `tako ctl detach`: nodes less, as a move to a layout of its own.

use std::{collections::BTreeSet, process::ExitCode};

use clap::Args;
use tako_types::NodeId;

use super::{attach::HowArgs, layout::detached};
use crate::{
    command::migrate::{LossArgs, start},
    failure::Failure,
};

const AFTER_HELP: &str = "\
Examples:
  tako ctl detach n3
  tako ctl detach --dry-run n3 n4
  tako ctl detach n3 --accept-loss n3     n3 is gone for good and does not answer

What the nodes hold moves to those that stay, while the cluster serves (tako migrate); then they may
be stopped. A node that does not answer needs no more than a little patience, unless too few others
know what it had: then it is said what would be lost.";

/// Arguments of `tako ctl detach`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct DetachArgs {
    /// Which nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    #[command(flatten)]
    loss: LossArgs,
    #[command(flatten)]
    how: HowArgs,
}

pub(super) async fn run(args: DetachArgs) -> Result<ExitCode, Failure> {
    let (coordinators, view) = args.how.common.look().await?;
    let nodes: BTreeSet<NodeId> = args.nodes.iter().map(|id| NodeId::new(id)).collect();
    let deployment = detached(&view.published.config, &nodes)?;
    let move_ =
        crate::command::migrate::Move { lost: args.loss.nodes(), ..args.how.to(deployment) };
    start(&coordinators, &view, move_).await
}
