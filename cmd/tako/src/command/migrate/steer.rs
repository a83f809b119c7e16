//! `promote`, `finish` and `abort`: a migration under way is taken further, or back.
//!
//! Each may be given again: what is done already is said, and no error.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Args;
use serde_json::Value;
use tako_types::{ErrorKind, NodeId, config::Phase};

use super::{
    CommonArgs, LossArgs,
    orders::{Goal, conflict, steer},
    plan::losses,
    print_status,
    progress::{Until, wait},
};
use crate::{
    command::{
        coordinators::Coordinators,
        output::{Output, print},
    },
    failure::Failure,
};

/// Phases are few.
const STEER_TRIES: usize = 8;

#[derive(Debug, Args)]
pub(super) struct SteerArgs {
    /// Show the progress until it is there
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    loss: LossArgs,
    #[command(flatten)]
    common: CommonArgs,
}

/// Takes the migration under way to `goal`.
pub(super) async fn go(goal: Goal, args: SteerArgs) -> Result<ExitCode, Failure> {
    let (coordinators, view) = args.common.look().await?;
    let (in_force, lost) = (&view.published, args.loss.nodes());
    let active = in_force.config.active.clone();
    let other = in_force.migration.as_ref().map(|migration| migration.other.clone());
    if other.is_none() && goal != Goal::Promote {
        // Given again: whatever was under way has ended.
        print(&format!("No migration is under way; `{active}` is active."))?;
        return Ok(ExitCode::SUCCESS);
    }
    steer(in_force, goal, &lost)?;
    if !lost.is_empty() {
        let standings = coordinators.nodes().standings(in_force).await;
        if let Some(node) = lost.iter().find(|node| standings.contains_key(*node)) {
            return Err(conflict(format!("--accept-loss: {node} answers, it is not lost")));
        }
        let names: Vec<&str> = lost.iter().map(NodeId::as_str).collect();
        let _ = writeln!(io::stderr(), "Given up: {}", names.join(", "));
        for loss in losses(in_force, &lost) {
            let _ = writeln!(io::stderr(), "Lost: {loss}");
        }
    }
    let mut status = steer_to(&coordinators, goal, &lost).await?;
    let other = other.unwrap_or_default();
    let leaving = in_force.migration.as_ref().is_some_and(|it| it.phase == Phase::Leave);
    let (until, text, done) = match goal {
        Goal::Promote => (
            Until::Promoted,
            format!("Reads move to `{other}` once all is there that `{active}` has."),
            format!("Reads are at `{other}`. Go on: tako migrate finish; back: tako migrate abort"),
        ),
        Goal::Finish if leaving => (
            Until::Ended(Some(active.clone())),
            format!("`{other}` is being left; that ends by itself."),
            format!("Done: `{active}` is active."),
        ),
        Goal::Finish => (
            Until::Ended(Some(other.clone())),
            format!("The move to `{other}` goes on to its end by itself."),
            format!("Done: `{other}` is active."),
        ),
        Goal::Abort => (
            Until::Ended(Some(active.clone())),
            format!("The move to `{other}` is given up; `{active}` goes on."),
            format!("Done: `{active}` is active, as before."),
        ),
    };
    let mut said = text;
    if args.wait {
        if let Some(code) = wait(&coordinators, &until).await? {
            return Ok(code);
        }
        (status, said) = (coordinators.view().await?.status, done);
    }
    match args.common.output {
        Output::Json => print_status(&status, Output::Json)?,
        Output::Text => print(&said)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Orders it; again, where the move goes on from one phase to the next meanwhile.
pub(super) async fn steer_to(
    coordinators: &Coordinators,
    goal: Goal,
    lost: &BTreeSet<NodeId>,
) -> Result<Value, Failure> {
    let mut tries = 1;
    loop {
        let view = coordinators.view().await?;
        let order = steer(&view.published, goal, lost)?;
        match coordinators.order(&view, &order).await {
            Err(failure) if failure.kind() == ErrorKind::StaleEpoch && tries < STEER_TRIES => {
                tries += 1;
            }
            done => return done,
        }
    }
}
