//! `tako cluster`: a whole cluster on this machine, each process of its own.
//!
//! ```text
//! plan (who, with which arguments) ─► folder (lock, earlier processes) ─► ports (free?)
//!   ─► children (start, watch, stop) ─► ready (what is missing?) ─► usage (what to do now)
//! ```
//! Invariants: nothing runs before every port was seen free; nothing outlives the launcher, not
//! even a killed one (the children's standard input ends with it). A process that dies later is
//! reported and left dead.

mod children;
mod folder;
mod plan;
mod ports;
mod ready;
mod usage;

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use tako_types::config::check_startable;

use self::{
    children::{Children, End},
    folder::Folder,
    plan::{Plan, Planned, Role},
};
use crate::{
    command::check,
    failure::Failure,
    http::Http,
    logs::LogArgs,
    signals::{AT_ONCE, Stops},
    trust::{AccessArgs, AskArgs, TlsArgs, Trust},
};

const AFTER_HELP: &str = "\
Examples:
  tako cluster                                   three nodes, a proxy at port 8080, data in ./var
  tako cluster examples/local_cluster.yaml -p 8080 -p 8081
  tako cluster --memcached 11211                 memcached clients find it at port 11211 as well
  tako cluster --tls certs --tokens tokens.yaml  as it runs among others (tako tls, tako token)
  tako cluster --var /tmp/t --store s3://bucket/prefix    (with AWS_* in the environment)

Without CONFIG, VAR/cluster.yaml is used, and written first if it is not there. Logs are in VAR/log,
process ids in VAR/run, data in VAR/data. Ctrl-C (or SIGTERM) stops everything in good order, a
second one kills it. Exit codes: tako --help.";

/// Arguments of `tako cluster`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ClusterArgs {
    /// The configuration; without one a built-in one with three nodes
    #[arg(value_name = "CONFIG")]
    config: Option<PathBuf>,
    /// HTTP port of a proxy; give it again for more proxies
    #[arg(short = 'p', long = "proxy", value_name = "PORT", default_value = "8080")]
    proxies: Vec<u16>,
    /// Memcached port of the proxy; give it again for those of more proxies
    #[arg(long, value_name = "PORT")]
    memcached: Vec<u16>,
    /// Folder for everything the cluster writes
    #[arg(long, value_name = "DIR", default_value = "./var")]
    var: PathBuf,
    /// The object store; else the configuration's, else the folder VAR/store
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// Listen beyond this machine though nobody is asked who they are
    #[arg(long)]
    insecure: bool,
}

/// Says something to the person at the terminal, who may be gone.
fn say(text: impl Display) {
    let mut stderr = io::stderr();
    // A line of progress may stand there.
    let clear = if stderr.is_terminal() { "\r\x1b[K" } else { "" };
    let _ = writeln!(stderr, "{clear}{text}");
}

pub(crate) async fn run(args: ClusterArgs, logs: &LogArgs) -> Result<ExitCode, Failure> {
    let mut stops = Stops::new()?;
    let folder = Folder::open(&args.var)?;
    let file = match &args.config {
        Some(file) => file.clone(),
        None => folder.built_in_configuration()?,
    };
    let config = check::load(&file)?;
    check_startable(&config)
        .map_err(|error| Failure::invalid(format!("{}: {error}", file.display())))?;
    for warning in config.warnings().iter().filter(|text| !text.starts_with("store:")) {
        say(format_args!("warning: {warning}"));
    }
    let plan = Plan::new(&config, &file, &args, logs)?;
    folder.wait_for_earlier(&plan, &mut stops).await?;
    // Opened here as well: what is wrong with them is told before anything runs.
    let trust = Trust::open(args.insecure, &args.tls, &args.access)?;
    let http = Http::new(&AskArgs { tls: args.tls.clone(), token_file: None })?;
    ports::check(&plan, &trust).await?;

    let mut children = Children::start(&plan, &folder)?;
    let started = tokio::select! {
        started = come_up(&plan, &http, &folder, &mut children) => started,
        () = stops.next() => Ok(false),
    };
    let outcome = match started {
        Ok(true) => {
            let _ = writeln!(io::stdout(), "{}", usage::text(&plan, &http, &args, &folder, &file));
            watch(&folder, &mut children, &mut stops).await
        }
        Ok(false) => Ok(()),
        Err(failure) => Err(failure),
    };
    say("stopping");
    tokio::select! {
        () = children.stop() => {}
        () = stops.next() => {
            children.kill().await;
            say("killed what was still running");
            return Ok(ExitCode::from(AT_ONCE));
        }
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Waits until every proxy can serve; fails when a process gives up on the way.
async fn come_up(
    plan: &Plan,
    http: &Http,
    folder: &Folder,
    children: &mut Children,
) -> Result<bool, Failure> {
    let mut ready = std::pin::pin!(ready::wait(plan, http));
    loop {
        let end = tokio::select! {
            () = &mut ready => return Ok(true),
            end = children.next_end() => end,
        };
        if end.gave_up() {
            let log = folder.log_tail(&end.id);
            return Err(Failure::new(end.kind(), format!("{end} while starting; it said:\n{log}")));
        }
        report(folder, &end);
        if children.living() == 0 {
            return Err(Failure::unavailable("every process of the cluster is gone"));
        }
    }
}

/// Reports deaths until a signal.
async fn watch(folder: &Folder, children: &mut Children, stops: &mut Stops) -> Result<(), Failure> {
    loop {
        let end = tokio::select! {
            () = stops.next() => return Ok(()),
            end = children.next_end() => end,
        };
        report(folder, &end);
        if children.living() == 0 {
            return Err(Failure::unavailable("every process of the cluster is gone"));
        }
    }
}

fn report(folder: &Folder, end: &End) {
    say(format_args!("{end}; the cluster goes on without it"));
    if end.gave_up() {
        say(folder.log_tail(&end.id));
    }
}
