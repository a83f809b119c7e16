//! The command line, and what is printed.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, Settings},
    fault::Kind,
    hang, old_disk,
    run::{self, Order, Outcome},
    sandbox::Sandbox,
    store::ObjectStore,
};

const AFTER_HELP: &str = "\
Examples:
  tako-chaos --seed 1 --minutes 2
  tako-chaos --seed 7 --minutes 0.5 --faults kill,stop,cut --verbose
  tako-chaos --seed 1 --nodes 4 --keep /tmp/chaos
  tako-chaos old-disk
  tako-chaos hang --nodes 4 --rate 500 --seconds 15 --output json

Needs Linux. Where namespaces are permitted (util-linux, iproute2; no root where user namespaces
are), each process has a network of its own and each node a small disk; elsewhere forwarders between
the nodes hold bytes back, and full disks are left out, aloud. For the store's
outage an S3 server is looked for (TAKO_TEST_S3 where there are no namespaces, minio or moto_server
in target/tools or the PATH); without one the store is a folder. The seed decides the faults, not
how processes are scheduled: a run does not repeat exactly.

Exit codes: 0 nothing was found wrong; 1 something was, and the folder is kept; 2 it could not run.";

/// Runs a cluster of real processes under faults, and checks what clients saw
#[derive(Debug, Parser)]
#[command(name = "tako-chaos", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    scenario: Option<Scenario>,
    #[command(flatten)]
    chaos: ChaosArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Fixed scenarios.
#[derive(Debug, Subcommand)]
enum Scenario {
    /// Delete keys while a node is away, and start it with its old folder: none may come back
    OldDisk(OldDiskArgs),
    /// Measure what clients feel when one replica neither answers nor ends
    Hang(HangArgs),
}

/// What `old-disk` takes.
#[derive(Debug, Clone, Args)]
struct OldDiskArgs {
    /// Form of the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// What `hang` takes.
#[derive(Debug, Clone, Args)]
struct HangArgs {
    /// Requests per second, half GET, half PUT, at fixed times
    #[arg(long, value_name = "NUMBER", default_value_t = 500,
          value_parser = clap::value_parser!(u32).range(1..=5_000))]
    rate: u32,
    /// Length of each of before, while and after
    #[arg(long, value_name = "SECONDS", default_value_t = 15,
          value_parser = clap::value_parser!(u64).range(6..=300))]
    seconds: u64,
    /// Form of the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table
    Text,
    /// A JSON document
    Json,
}

/// What every run takes.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
    /// The program [default: tako beside this program, else in target/release or target/debug]
    #[arg(long, value_name = "PATH", global = true)]
    tako: Option<PathBuf>,
    /// Nodes, all in one bucket
    #[arg(long, value_name = "N", default_value_t = 3, global = true,
          value_parser = clap::value_parser!(u8).range(3..=7))]
    nodes: u8,
    /// Folder for everything, kept in any case; it must be empty or new
    #[arg(long, value_name = "DIR", global = true)]
    keep: Option<PathBuf>,
    /// Tell what happens
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Do not use namespaces even where they are permitted
    #[arg(long, global = true)]
    no_namespaces: bool,
}

/// What a run under faults takes.
#[derive(Debug, Clone, Args)]
pub struct ChaosArgs {
    /// Decides which faults come when
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How long clients ask
    #[arg(long, value_name = "MINUTES", default_value_t = 1.0)]
    minutes: f64,
    /// Which faults
    #[arg(
        long,
        value_name = "KINDS",
        value_enum,
        value_delimiter = ',',
        default_value = "kill,stop,cut,disk,store,empty,drain"
    )]
    faults: Vec<Kind>,
}

impl Arguments {
    /// Whether namespaces are to be used.
    #[must_use]
    pub fn namespaces(&self) -> bool {
        !self.place.no_namespaces
    }
}

/// Does what the arguments say; true when nothing was found wrong.
///
/// # Errors
/// What of the surroundings is missing.
pub async fn run(arguments: &Arguments, sandbox: &Sandbox) -> anyhow::Result<bool> {
    let place = Place::new(&arguments.place)?;
    let done = match &arguments.scenario {
        None => chaos(&arguments.chaos, &place, sandbox).await,
        Some(Scenario::OldDisk(args)) => old_disk(args, &place, sandbox).await,
        Some(Scenario::Hang(args)) => hang(args, &place, sandbox).await,
    };
    let good = matches!(done, Ok(true));
    place.end(good);
    done
}

/// Where a run is.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) tako: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) nodes: usize,
    pub(crate) verbose: bool,
    temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn new(args: &PlaceArgs) -> anyhow::Result<Self> {
        let tako = match &args.tako {
            Some(path) => std::path::absolute(path)?,
            None => {
                find_tako().context("no program `tako` found; build it, or give --tako PATH")?
            }
        };
        ensure!(tako.is_file(), "{} is no program", tako.display());
        let (folder, temporary) = match &args.keep {
            Some(folder) => (std::path::absolute(folder)?, None),
            None => {
                let temporary = tempfile::Builder::new().prefix("tako-chaos-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        if std::fs::read_dir(&folder)?.next().is_some() {
            bail!("{} is not empty", folder.display());
        }
        Ok(Self { tako, folder, nodes: args.nodes.into(), verbose: args.verbose, temporary })
    }

    /// Keeps the folder where something was wrong.
    fn end(mut self, good: bool) {
        if !good {
            self.temporary = self.temporary.take().and_then(|temporary| {
                let _kept = temporary.keep();
                None
            });
            println!("history, story and logs are in {}", self.folder.display());
        }
    }
}

/// `tako` beside this program or, for a test's program, one folder up; else in `target`.
fn find_tako() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("tako"));
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let built = ["release/tako", "debug/tako"].map(|path| target.join(path));
    beside.chain(built).find(|path| path.is_file())
}

/// A cluster for a scenario, over a folder.
fn cluster(place: &Place, sandbox: &Sandbox, tombstone_grace: Duration) -> anyhow::Result<Cluster> {
    let settings = Settings {
        tako: place.tako.clone(),
        folder: place.folder.clone(),
        nodes: place.nodes,
        networks: *sandbox == Sandbox::Inside,
        small_disks: false,
        tombstone_grace,
    };
    let cluster = Cluster::new(settings, ObjectStore::folder(&place.folder.join("store")))?;
    if place.verbose {
        cluster.verbose();
    }
    Ok(cluster)
}

async fn old_disk(args: &OldDiskArgs, place: &Place, sandbox: &Sandbox) -> anyhow::Result<bool> {
    let cluster = cluster(place, sandbox, old_disk::GRACE)?;
    let cases = interruptible(old_disk::run(&cluster)).await?;
    let good = cases.iter().all(old_disk::Case::is_good);
    let rows: Vec<Value> = cases.iter().map(old_disk::Case::json).collect();
    let lines = cases.iter().map(old_disk::Case::line).collect();
    show(args.output, place.nodes, "cases", rows, old_disk::Case::HEAD, lines);
    Ok(good)
}

async fn hang(args: &HangArgs, place: &Place, sandbox: &Sandbox) -> anyhow::Result<bool> {
    let cluster = cluster(place, sandbox, Duration::from_secs(600))?;
    let load = hang::Load { rate: args.rate, phase: Duration::from_secs(args.seconds) };
    let rows = interruptible(hang::run(&cluster, load)).await?;
    let lines = rows.iter().map(hang::Row::line).collect();
    let rows = rows.iter().map(hang::Row::json).collect();
    show(args.output, place.nodes, "phases", rows, hang::Row::HEAD, lines);
    Ok(true)
}

fn show(out: Output, nodes: usize, name: &str, rows: Vec<Value>, head: &str, lines: Vec<String>) {
    match out {
        Output::Text => println!("{nodes} nodes\n{head}\n{}", lines.join("\n")),
        Output::Json => println!("{}", json!({ "nodes": nodes, (name): rows })),
    }
}

/// Ends early, everything with it, on Ctrl-C.
async fn interruptible<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

async fn chaos(args: &ChaosArgs, place: &Place, sandbox: &Sandbox) -> anyhow::Result<bool> {
    let load = Duration::try_from_secs_f64(args.minutes * 60.0).context("--minutes")?;
    let order = Order {
        tako: place.tako.clone(),
        folder: place.folder.clone(),
        nodes: place.nodes,
        seed: args.seed,
        load,
        faults: args.faults.clone(),
        verbose: place.verbose,
    };
    println!("seed {}, {} nodes, {load:?}, {}", args.seed, place.nodes, place.tako.display());
    let outcome = interruptible(run::run(&order, sandbox)).await?;
    print(&outcome);
    Ok(outcome.wrong.is_empty())
}

fn print(outcome: &Outcome) {
    for remark in &outcome.remarks {
        println!("{remark}");
    }
    let all = |counts: &std::collections::BTreeMap<String, u64>| {
        counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
    };
    println!("faults: {}", all(&outcome.faults));
    println!("answers: {}", all(&outcome.answers));
    let considered: Vec<_> =
        outcome.considered.iter().map(|(check, count)| format!("{check} {count}")).collect();
    println!("checked: {}", considered.join(", "));
    if outcome.wrong.is_empty() {
        println!("nothing was found wrong");
    }
    for wrong in &outcome.wrong {
        println!("WRONG: {wrong}");
    }
}
