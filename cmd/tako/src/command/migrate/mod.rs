//! `tako migrate`: plans, begins, shows, finishes and gives up a move to another deployment.
//!
//! ```text
//! coordinators (what is in force) ─► orders (the file to be sent) ─► plan (what it comes to) ─► show
//!   ─► PUT /configuration ─► progress (until it is there)
//! ```
//! The coordinator carries it out by itself: every command here may end at any moment, and may be
//! given again. Not here: the phases (`tako-coordinator`), layouts made for the operator (`ctl`).

pub(crate) mod orders;
pub(crate) mod plan;
pub(crate) mod progress;
mod show;
mod steer;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Args, Subcommand};
use serde_json::Value;
use tako_types::{
    NodeId,
    config::{Config, Deployment, Migration, Phase, Published},
};

use self::{
    orders::{Begin, Goal, begin, check_cluster, conflict, wanted},
    plan::{Plan, plan},
    progress::{Until, wait},
    steer::{SteerArgs, go, steer_to},
};
use super::{
    check,
    coordinators::{Coordinators, CoordinatorsArgs, View},
    output::{Output, print, print_json},
};
use crate::failure::Failure;

const AFTER_HELP: &str = "\
Examples:
  tako migrate plan --to bigger.yaml             what moves, what it costs, what it risks
  tako migrate start --to bigger.yaml --wait     the whole move, with its progress
  tako migrate start --to bigger.yaml            writes go to both deployments, and it stays there
  tako migrate promote --wait                    reads move too; they can still move back
  tako migrate finish --wait                     to the end
  tako migrate abort --wait                      back to where it began; nothing is lost
  tako migrate finish --accept-loss n3           n3 is gone for good: do not wait for it

NEW.yaml is a whole configuration. Of it the target deployment is taken, or, without one, the active
one; it must have another name than the one that is active now. Nodes that are not there yet may be
started before or after. The cluster serves all the while, and nothing is copied. The coordinator
carries the move out: these commands may be stopped and given again. Adding or removing single
nodes is shorter with tako ctl attach and tako ctl detach.

Exit codes: 0 done; 2 the file is wrong; 3 there is no migration, or no such node; 4 it cannot go
there (any more), or is refused for what it would lose; 6 no coordinator answers; 130 Ctrl-C while
waiting, which stops nothing.";

/// Arguments of `tako migrate`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct MigrateArgs {
    #[command(subcommand)]
    command: MigrateCommand,
}

#[derive(Debug, Subcommand)]
enum MigrateCommand {
    /// Show what a move would do; nothing is changed
    Plan(PlanArgs),
    /// Begin a move
    Start(StartArgs),
    /// Show where a move stands
    Status(StatusArgs),
    /// Let reads move to the new deployment; both go on being written
    Promote(SteerArgs),
    /// Bring a move to its end
    Finish(SteerArgs),
    /// Give a move up
    Abort(SteerArgs),
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    #[command(flatten)]
    pub(crate) coordinators: CoordinatorsArgs,
    /// Form of what is printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

impl CommonArgs {
    /// The coordinators, and what is in force.
    pub(crate) async fn look(&self) -> Result<(Coordinators, View), Failure> {
        let coordinators = Coordinators::new(&self.coordinators)?;
        let view = coordinators.view().await?;
        Ok((coordinators, view))
    }
}

/// Nodes that are given up.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LossArgs {
    /// A node that is gone for good: it is not waited for, and what only it had is lost
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    accept_loss: Vec<String>,
}

impl LossArgs {
    pub(crate) fn nodes(&self) -> BTreeSet<NodeId> {
        self.accept_loss.iter().map(|id| NodeId::new(id)).collect()
    }
}

#[derive(Debug, Args)]
struct PlanArgs {
    /// A whole configuration with the wanted layout
    #[arg(long, value_name = "NEW.yaml")]
    to: PathBuf,
    #[command(flatten)]
    loss: LossArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct StartArgs {
    /// A whole configuration with the wanted layout
    #[arg(long, value_name = "NEW.yaml")]
    to: PathBuf,
    /// Promote and finish it as well, and show the progress until the end
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    loss: LossArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Show the progress until there is no migration any more
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    common: CommonArgs,
}

pub(crate) async fn run(args: MigrateArgs) -> Result<ExitCode, Failure> {
    match args.command {
        MigrateCommand::Plan(args) => {
            let (coordinators, view) = args.common.look().await?;
            let deployment = deployment(&view, &args.to)?;
            let (_, plan) = lay_out(&coordinators, &view, &deployment, &args.loss.nodes()).await?;
            let Some(plan) = plan else { return nothing_to_move(&deployment.name) };
            print_plan(&plan, args.common.output)?;
            Ok(ExitCode::SUCCESS)
        }
        MigrateCommand::Start(args) => {
            let (coordinators, view) = args.common.look().await?;
            let deployment = deployment(&view, &args.to)?;
            let move_ = Move {
                deployment,
                go_on: args.wait,
                wait: args.wait,
                dry_run: false,
                lost: args.loss.nodes(),
                output: args.common.output,
            };
            start(&coordinators, &view, move_).await
        }
        MigrateCommand::Status(args) => {
            let coordinators = Coordinators::new(&args.common.coordinators)?;
            if args.wait
                && let Some(code) = wait(&coordinators, &Until::Ended(None)).await?
            {
                return Ok(code);
            }
            print_status(&coordinators.view().await?.status, args.common.output)?;
            Ok(ExitCode::SUCCESS)
        }
        MigrateCommand::Promote(args) => go(Goal::Promote, args).await,
        MigrateCommand::Finish(args) => go(Goal::Finish, args).await,
        MigrateCommand::Abort(args) => go(Goal::Abort, args).await,
    }
}

/// The layout in a file, if it is for this cluster.
fn deployment(view: &View, file: &PathBuf) -> Result<Deployment, Failure> {
    let config = check::load(file)?;
    check_cluster(&view.published.config, &config)
        .map_err(|failure| Failure::invalid(format!("{}: {failure}", file.display())))?;
    Ok(wanted(&config).clone())
}

/// A move that is to begin.
pub(crate) struct Move {
    pub(crate) deployment: Deployment,
    /// Finish it as well.
    pub(crate) go_on: bool,
    /// Show how it goes on.
    pub(crate) wait: bool,
    /// Show the plan and no more.
    pub(crate) dry_run: bool,
    /// Nodes that are given up.
    pub(crate) lost: BTreeSet<NodeId>,
    pub(crate) output: Output,
}

/// Shows the plan, orders the move, and sees it to its end, as far as that is wanted.
pub(crate) async fn start(
    coordinators: &Coordinators,
    view: &View,
    move_: Move,
) -> Result<ExitCode, Failure> {
    let name = move_.deployment.name.clone();
    let (order, plan) = lay_out(coordinators, view, &move_.deployment, &move_.lost).await?;
    let Some(plan) = plan else { return nothing_to_move(&name) };
    if move_.dry_run || move_.output == Output::Text {
        print_plan(&plan, move_.output)?;
    }
    if !plan.refused.is_empty() {
        return Err(conflict(format!("refused: {}", plan.refused.join("; "))));
    }
    if move_.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let mut status = match order {
        Some(order) => coordinators.order(view, &order).await?,
        None => view.status.clone(),
    };
    // A move in which nothing moves may have ended already.
    if move_.go_on && coordinators.view().await?.published.migration.is_some() {
        status = steer_to(coordinators, Goal::Finish, &move_.lost).await?;
    }
    if move_.wait {
        if let Some(code) = wait(coordinators, &Until::Ended(Some(name.clone()))).await? {
            return Ok(code);
        }
        status = coordinators.view().await?.status;
    }
    if move_.output == Output::Json {
        print_status(&status, Output::Json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let stop: Vec<&str> = plan.to_stop().map(|share| share.node.as_str()).collect();
    let text = match (move_.wait, move_.go_on, stop.is_empty()) {
        (true, _, true) => format!("Done: `{name}` is active."),
        (true, _, false) => {
            format!("Done: `{name}` is active. May be stopped now: {}", stop.join(", "))
        }
        (false, true, _) => {
            format!("The move to `{name}` goes on by itself. Look: tako migrate status --wait")
        }
        (false, false, _) => format!(
            "The move to `{name}` has begun; it stays where both are written. Go on: tako migrate \
             promote, or finish; give it up: tako migrate abort"
        ),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The order that begins a move, unless it is under way, and its plan, unless there is nothing to do.
async fn lay_out(
    coordinators: &Coordinators,
    view: &View,
    deployment: &Deployment,
    lost: &BTreeSet<NodeId>,
) -> Result<(Option<Config>, Option<Plan>), Failure> {
    let in_force = &view.published;
    let (order, begun) = match begin(in_force, deployment)? {
        Begin::Done => return Ok((None, None)),
        Begin::UnderWay => (None, in_force.clone()),
        Begin::Order(config) => {
            let begun = begun(in_force, (*config).clone())?;
            (Some(*config), begun)
        }
    };
    let standings = coordinators.nodes().standings(&begun).await;
    let plan = plan(in_force, &begun, &standings, lost);
    Ok((order, Some(plan)))
}

/// The document with which a move begins, under the number in force: nothing is published here.
fn begun(in_force: &Published, config: Config) -> Result<Published, Failure> {
    let other = config.target.clone().unwrap_or_default();
    let migration = Migration { phase: Phase::Join, other, barrier: Vec::new() };
    let number = in_force.epoch.number;
    tako_ring::publish_migration(Arc::new(config), number, Some(migration), Some(in_force))
        .map_err(|error| Failure::new(error.kind(), error.to_string()))
}

fn nothing_to_move(name: &str) -> Result<ExitCode, Failure> {
    print(&format!("Nothing to move: `{name}` is active and looks the same."))?;
    Ok(ExitCode::SUCCESS)
}

fn print_plan(plan: &Plan, output: Output) -> Result<(), Failure> {
    match output {
        Output::Text => print(show::text(plan).trim_end()),
        Output::Json => print_json(&show::json(plan)),
    }
}

fn print_status(status: &Value, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => print_json(status),
        Output::Text => {
            let epoch = &status["epoch"]["number"];
            let goal = status["migration"]["goal"].as_str();
            let goal = goal.map_or(String::new(), |goal| format!(", ordered: {goal}"));
            print(&format!("configuration {epoch}: {}{goal}", progress::in_words(status)))
        }
    }
}
