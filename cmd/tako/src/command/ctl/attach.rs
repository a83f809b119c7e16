//! `tako ctl attach`: nodes more, as a move to a layout of its own.

use std::{collections::BTreeSet, process::ExitCode};

use clap::Args;

use super::layout::{Into, Place, attached, place};
use crate::{
    command::migrate::{CommonArgs, Move, start},
    failure::Failure,
};

const AFTER_HELP: &str = "\
Examples:
  tako ctl attach 10.0.0.7:5711:4711                      in the bucket with the fewest nodes
  tako ctl attach --bucket b2 n7=10.0.0.7:5711:4711
  tako ctl attach --new-bucket b4 10.0.0.7:5711:4711 10.0.0.8:5711:4711
  tako ctl attach --dry-run 10.0.0.7:5711:4711            the plan and no more

The active layout with these nodes becomes a deployment of its own, and the cluster moves there
while it serves (tako migrate). Start the nodes before or after: tako node --id n7 --coordinator …
Without an id a node gets the next free one of n1, n2, …; the plan shows it.";

/// Arguments of `tako ctl attach`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct AttachArgs {
    /// Where the new nodes are: [ID=]HOST:HTTP_PORT:RPC_PORT
    #[arg(required = true, value_name = "[ID=]HOST:HTTP:RPC", value_parser = place)]
    nodes: Vec<Place>,
    /// The bucket they come to, instead of the one with the fewest nodes
    #[arg(long, value_name = "BUCKET", conflicts_with = "new_bucket")]
    bucket: Option<String>,
    /// A bucket of their own
    #[arg(long, value_name = "NAME")]
    new_bucket: Option<String>,
    #[command(flatten)]
    how: HowArgs,
}

/// How a move that these commands make is carried out.
#[derive(Debug, Args)]
pub(super) struct HowArgs {
    /// Show the plan; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for the end: it goes on by itself
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

impl HowArgs {
    /// A move to `deployment`, finished by itself.
    pub(super) fn to(&self, deployment: tako_types::config::Deployment) -> Move {
        Move {
            deployment,
            go_on: true,
            wait: !self.no_wait,
            dry_run: self.dry_run,
            lost: BTreeSet::new(),
            output: self.common.output,
        }
    }
}

pub(super) async fn run(args: AttachArgs) -> Result<ExitCode, Failure> {
    let (coordinators, view) = args.how.common.look().await?;
    let to = match (args.bucket, args.new_bucket) {
        (Some(bucket), _) => Into::Bucket(bucket),
        (None, Some(bucket)) => Into::New(bucket),
        (None, None) => Into::Smallest,
    };
    let deployment = attached(&view.published.config, &args.nodes, &to)?;
    let move_ = args.how.to(deployment);
    start(&coordinators, &view, move_).await
}
