//! `tako ctl`: what an operator does to a cluster, one subcommand per file.

mod attach;
mod detach;
mod layout;
mod locate;
mod log;
mod ls;
mod replace;
mod restore;
mod ring;
mod safe;
mod safe_to_stop;
mod scrub;
mod snapshot;
mod source;
mod stat;
mod status;
mod value;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::failure::Failure;

const AFTER_HELP: &str = "\
Examples:
  tako ctl attach 10.0.0.7:5711:4711              one node more, in the bucket with the fewest
  tako ctl detach n3                              a node less
  tako ctl replace n3 10.0.0.9:5711:4711          the same node on another machine
  tako ctl status                                 how all nodes are
  tako ctl top                                    what they do now
  tako ctl log --follow                           what happens, at all of them
  tako ctl ls users/                              which keys begin so
  tako ctl locate users/1                         where a key lives
  tako ctl safe-to-stop n3 && systemctl stop tako
  tako ctl snapshot create before-upgrade --store s3://bucket/prefix";

/// Arguments of `tako ctl`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct CtlArgs {
    #[command(subcommand)]
    command: CtlCommand,
}

#[derive(Debug, Subcommand)]
enum CtlCommand {
    /// Add nodes, and move their share of the partitions to them
    Attach(attach::AttachArgs),
    /// Take nodes out, after what they hold has moved to others
    Detach(detach::DetachArgs),
    /// Give a node another address: the same id on another machine
    Replace(replace::ReplaceArgs),
    /// Show the nodes and how they are
    Status(status::StatusArgs),
    /// Tell what nodes have done since they started
    Stat(stat::StatArgs),
    /// Show what nodes do now, again and again
    Top(stat::TopArgs),
    /// Show what happened, and follow it
    Log(log::LogArgs),
    /// Print a value
    Get(value::GetArgs),
    /// Write a value
    Put(value::PutArgs),
    /// Delete a value
    Delete(value::DeleteArgs),
    /// List keys
    Ls(ls::LsArgs),
    /// Tell where keys live
    Locate(locate::LocateArgs),
    /// Tell what share of the partitions each bucket has
    Ring(ring::RingArgs),
    /// Tell whether nodes may be stopped now
    SafeToStop(safe_to_stop::SafeArgs),
    /// Make, list, show, verify and delete backups
    Snapshot(snapshot::SnapshotArgs),
    /// Restore a whole cluster from the object store into a new root
    Restore(restore::RestoreArgs),
    /// Read everything that lies still again: is it what was written?
    Scrub(scrub::ScrubArgs),
}

pub(crate) async fn run(args: CtlArgs) -> Result<ExitCode, Failure> {
    match args.command {
        CtlCommand::Attach(args) => attach::run(args).await,
        CtlCommand::Detach(args) => detach::run(args).await,
        CtlCommand::Replace(args) => replace::run(args).await,
        CtlCommand::Status(args) => status::run(args).await,
        CtlCommand::Stat(args) => stat::stat(args).await,
        CtlCommand::Top(args) => stat::top(args).await,
        CtlCommand::Log(args) => log::run(args).await,
        CtlCommand::Get(args) => value::get(args).await,
        CtlCommand::Put(args) => value::put(args).await,
        CtlCommand::Delete(args) => value::delete(args).await,
        CtlCommand::Ls(args) => ls::run(args).await,
        CtlCommand::Locate(args) => locate::run(args).await,
        CtlCommand::Ring(args) => ring::run(args).await,
        CtlCommand::SafeToStop(args) => safe_to_stop::run(args).await,
        CtlCommand::Snapshot(args) => snapshot::run(args).await,
        CtlCommand::Restore(args) => restore::run(args).await,
        CtlCommand::Scrub(args) => scrub::run(args).await,
    }
}
