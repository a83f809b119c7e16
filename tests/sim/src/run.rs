//! One run: a seed and a scenario, from the start of the cluster to the verdicts.
//!
//! Run it in a fresh process of its own (`main.rs` does): libraries keep counters per process.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tako_checkers::{Dump, Options, check_all};
use tako_types::config::Config;
use tokio::time::{Instant, sleep, sleep_until};
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

use crate::{
    archive::Evidence,
    chance::Chance,
    client::Client,
    drawn::drawn,
    dump, entropy, load,
    notes::Notes,
    plan::{Fault, Kind, plan},
    scenario::Scenario,
    world::World,
};

/// Longest time until all serve, and until all is quiet after the last fault.
const SETTLE_MAX: Duration = Duration::from_secs(900);
/// Longest time on the way, and some for what it does when it comes.
const LATE_MAX: Duration = Duration::from_secs(3);

/// What to run.
#[derive(Debug, Clone)]
pub struct Order {
    /// Which kind.
    pub scenario: Scenario,
    /// Decides everything else.
    pub seed: u64,
    /// Faults of the plan that are left out, by their place.
    pub without: Vec<usize>,
    /// Tell what happens.
    pub verbose: bool,
}

/// What a run came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Of the order.
    pub scenario: String,
    /// Of the order.
    pub seed: u64,
    /// The plan, each fault with its time.
    pub plan: Vec<String>,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<String, u64>,
    /// What clients asked, by kind and way.
    #[serde(default)]
    pub asked: BTreeMap<String, u64>,
    /// Answers of clients, by kind.
    pub answers: BTreeMap<String, u64>,
    /// What each check looked at.
    pub considered: BTreeMap<String, usize>,
    /// What was found wrong; empty is good.
    pub wrong: Vec<String>,
    /// Seconds that passed in the simulation.
    pub simulated_seconds: f64,
    /// Differs where two runs went different ways.
    pub trace: u64,
}

/// Runs an order on this thread.
///
/// # Errors
/// The runtime is missing.
pub fn run(order: &Order) -> Result<Outcome, String> {
    entropy::arm(order.seed);
    if order.verbose {
        // On a thread of its own: each hash map made here would change the order of all later
        // ones, and a run that tells what happens would be another run.
        let told = std::thread::spawn(tell).join();
        told.map_err(|_| "the log cannot be set up".to_owned())?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let chance = Chance::new(order.seed).part(order.scenario.name);
    let mut order = order.clone();
    order.scenario = drawn(&order.scenario, &chance);
    let text = order.scenario.configuration();
    let outcome = runtime.block_on(simulate(&order, &text));
    runtime.shutdown_background();
    outcome
}

/// The nodes' own log, in simulated time, where `TAKO_LOG` asks for it.
fn tell() {
    let filter = tracing_subscriber::EnvFilter::from_env("TAKO_LOG");
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_timer(Simulated);
    // Set once per process; whoever set one before keeps it.
    let _ = subscriber.try_init();
}

/// Seconds since the first line.
struct Simulated;

impl FormatTime for Simulated {
    fn format_time(&self, to: &mut Writer<'_>) -> std::fmt::Result {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        let since = FIRST.get_or_init(Instant::now).elapsed();
        write!(to, "{:>10.3}", since.as_secs_f64())
    }
}

async fn simulate(order: &Order, text: &str) -> Result<Outcome, String> {
    let scenario = &order.scenario;
    let config = Config::parse(text).map_err(|error| error.to_string())?;
    let published =
        tako_ring::publish(Arc::new(config), 1, None).map_err(|error| error.to_string())?;
    let chance = Chance::new(order.seed).part(scenario.name);
    let planned = plan(scenario, &chance);
    let mut outcome = Outcome {
        scenario: scenario.name.to_owned(),
        seed: order.seed,
        plan: planned.iter().map(|p| format!("{:.3} s: {}", p.at.as_secs_f64(), p.fault)).collect(),
        ..Outcome::default()
    };
    let began = Instant::now();
    let world = World::new(scenario, published, &chance);
    if order.verbose {
        world.on_line(|line| eprintln!("{line}"));
    }
    let notes = Notes::default();
    if let Err(wrong) = go(order, &world, &notes, &chance, planned, &mut outcome).await {
        outcome.wrong.push(wrong);
    }
    let (seen, wrong) = world.coordinators().epochs().verdict();
    outcome.considered.extend(seen.into_iter().map(|(kind, n)| (kind.to_owned(), n)));
    outcome.wrong.extend(wrong);
    outcome.faults =
        world.counts().all().into_iter().map(|(kind, n)| (kind.to_owned(), n)).collect();
    outcome.wrong.extend(notes.all_wrong());
    outcome.asked = notes.asked();
    if !scenario.faults.is_empty() && scenario.faults.iter().all(|kind| *kind == Kind::Order) {
        let failed = |kind| outcome.asked.get(kind).copied().unwrap_or(0);
        let failed = failed("http 503") + failed("failed directly");
        if failed > 0 {
            let text = format!("{failed} requests failed, and nothing was wrong but orders given");
            outcome.wrong.push(text);
        }
    }
    for operation in &notes.history().operations {
        let kind = format!("{:?}", operation.outcome);
        let kind = kind.split([' ', '{']).next().unwrap_or_default().to_owned();
        *outcome.answers.entry(kind).or_default() += 1;
    }
    outcome.simulated_seconds = began.elapsed().as_secs_f64();
    outcome.trace = world.trace_hash();
    Ok(outcome)
}

async fn go(
    order: &Order,
    world: &World,
    notes: &Notes,
    chance: &Chance,
    planned: Vec<crate::plan::Planned>,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let scenario = &order.scenario;
    let keys = load::keys(scenario.keys, load::keeps_tombstones(chance));
    world.start_all(SETTLE_MAX).await?;
    let began = Instant::now();
    let until = began + scenario.load;
    let clients: Vec<_> = (0..scenario.clients)
        .map(|n| {
            let client = Client::new(world, notes, n, chance.part(&format!("client {n}")));
            tokio::spawn(client.run(keys.clone(), scenario.think, until))
        })
        .collect();
    let clocks = planned.iter().any(|planned| matches!(planned.fault, Fault::Clock { .. }));
    for (at, planned) in planned.into_iter().enumerate() {
        sleep_until(began + planned.at).await;
        if !order.without.contains(&at) {
            world.inject(&planned.fault);
        }
    }
    for client in clients {
        client.await.map_err(|error| format!("a client: {error}"))?;
    }
    world.settle(SETTLE_MAX).await?;
    world.archive().ended().await?;
    // What was on its way to a process over a cut that is healed now has come by then.
    sleep(LATE_MAX).await;
    let mut reader = Client::new(world, notes, 1_000, chance.part("reader"));
    reader.read_everywhere(&keys).await;
    drop(reader);
    world.rot_and_heal(&keys, chance).await?;
    // Nothing differs any more, so nothing was written back; should it have been, it is covered.
    world.quiet(SETTLE_MAX).await?;
    world.coordinators().look_at_store().await?;
    let dumps = dump::dumps(world, &keys).await?;
    let covered_at = world.micros();
    world.rebuild(SETTLE_MAX).await?;
    let rebuilt = Dump::of_store(&dump::dumps(world, &keys).await?);
    let (records, wrong) = world.healed();
    if scenario.healing.is_some() {
        outcome.considered.insert("records_read_by_healing".to_owned(), records);
    }
    outcome.wrong.extend(wrong);
    let options = Options {
        clock_slack_micros: if clocks { 4_000_000_000 } else { 1_000_000 },
        ..Options::default()
    };
    let history = notes.history();
    let report = check_all(&history, &dumps, Some((&rebuilt, covered_at)), &options);
    outcome.considered.extend(report.considered());
    outcome.wrong.extend(report.wrong());
    if scenario.backups {
        world.end_all();
        let clock_slack_micros = options.clock_slack_micros;
        let rotten = world.rotten_since().map(|since| since..covered_at);
        let history = &history;
        let evidence = Evidence { scenario, history, keys: &keys, rotten, clock_slack_micros };
        let (seen, wrong) = world.archive().judge(&evidence, chance).await?;
        outcome.considered.extend(seen.into_iter().map(|(kind, n)| (kind.to_owned(), n)));
        outcome.wrong.extend(wrong);
    }
    Ok(())
}
