//! `tako sim`: many seeds, each in a process of its own; one again, exactly; a failing one made small.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    run::{Order, Outcome, run},
    scenario::{scenario, scenarios},
};

const AFTER_HELP: &str = "\
Examples:
  tako sim                              100 seeds of all scenarios
  tako sim --seeds 5000 --from 1000     more, from seed 1000 on
  tako sim --scenario disks             one kind of run
  tako sim --seed 4711                  one seed, telling what happens
  tako sim --seed 4711 --shrink         its plan without what is not needed to fail

A seed decides everything: faults, times, what survives a crash, what clients ask. It replays
exactly with the same build. TAKO_LOG=debug shows the nodes' own log in a replay.
Exit code 1: something was found wrong.";

/// Arguments of `tako sim`.
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_HELP)]
pub struct SimArgs {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    from: u64,
    /// Only this seed, telling what happens
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// One kind of run; without it seeds take turns over all of them
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// Leave out every fault that a failing seed does not need
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// Runs at the same time
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Most real seconds of one run
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
    /// Print results as JSON lines
    #[arg(long)]
    json: bool,
    /// Run here and print the outcome as JSON (what the command itself starts)
    #[arg(long, hide = true)]
    child: bool,
    /// Faults of the plan to leave out
    #[arg(long, hide = true, value_delimiter = ',')]
    without: Vec<usize>,
}

/// Why nothing, or not everything, was run.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// No such scenario.
    #[error("there is no scenario `{name}`; there are {known}")]
    Scenario {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A run could not be started or read.
    #[error("{0}")]
    Run(String),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Does what the arguments say; `false` when something was found wrong. `child` is the command
/// line, without arguments, that comes here again.
///
/// # Errors
/// [`SimError`].
pub fn sim(args: &SimArgs, child: &[String]) -> Result<bool, SimError> {
    if args.child {
        return alone(args);
    }
    match args.seed {
        Some(seed) if args.shrink => shrink(args, child, seed),
        Some(seed) => {
            let outcome = start(args, child, seed, &args.without, true)?;
            show(&outcome)?;
            Ok(outcome.wrong.is_empty())
        }
        None => many(args, child),
    }
}

/// The scenario of a seed.
fn name_of(args: &SimArgs, seed: u64) -> Result<String, SimError> {
    let all = scenarios();
    match &args.scenario {
        None => {
            let at = usize::try_from(seed % all.len() as u64).unwrap_or(0);
            Ok(all[at].name.to_owned())
        }
        Some(name) if scenario(name).is_some() => Ok(name.clone()),
        Some(name) => {
            let lines: Vec<String> =
                all.iter().map(|s| format!("{} ({})", s.name, s.about)).collect();
            Err(SimError::Scenario { name: name.clone(), known: lines.join(", ") })
        }
    }
}

fn alone(args: &SimArgs) -> Result<bool, SimError> {
    let seed = args.seed.unwrap_or(args.from);
    let name = name_of(args, seed)?;
    let scenario = scenario(&name).ok_or(SimError::Run(name))?;
    let verbose = !args.json;
    let order = Order { scenario, seed, without: args.without.clone(), verbose };
    let outcome = run(&order).map_err(SimError::Run)?;
    let text = serde_json::to_string(&outcome).map_err(io::Error::from)?;
    writeln!(io::stdout(), "{text}")?;
    Ok(true)
}

/// One run in a process of its own.
fn start(
    args: &SimArgs,
    child: &[String],
    seed: u64,
    without: &[usize],
    verbose: bool,
) -> Result<Outcome, SimError> {
    let name = name_of(args, seed)?;
    let mut command = Command::new(&child[0]);
    command.args(&child[1..]).args(["--child", "--seed", &seed.to_string(), "--scenario", &name]);
    if !without.is_empty() {
        let list: Vec<String> = without.iter().map(ToString::to_string).collect();
        command.args(["--without", &list.join(",")]);
    }
    if !verbose {
        command.arg("--json").env_remove("TAKO_LOG");
    }
    let errors = if verbose { Stdio::inherit() } else { Stdio::piped() };
    let mut running = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn()?;
    let (mut out, err) = (running.stdout.take(), running.stderr.take());
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(out) = &mut out {
            let _cut_off_is_seen_below = io::Read::read_to_string(out, &mut text);
        }
        text
    });
    let hearing = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut err) = err {
            let _only_for_the_report = io::Read::read_to_string(&mut err, &mut text);
        }
        text
    });
    let until = Instant::now() + Duration::from_secs(args.patience);
    let mut wrong = None;
    let status = loop {
        if let Some(status) = running.try_wait()? {
            break status;
        }
        if until < Instant::now() {
            wrong = Some(format!("hangs: killed after {} s", args.patience));
            running.kill()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = reading.join().unwrap_or_default();
    let said = hearing.join().unwrap_or_default();
    match serde_json::from_str::<Outcome>(text.trim()) {
        Ok(outcome) => Ok(outcome),
        Err(_) => {
            let last: Vec<&str> = said.lines().take(12).collect();
            let wrong = wrong.unwrap_or_else(|| format!("{status}: {}", last.join("\n    ")));
            Ok(Outcome { scenario: name, seed, wrong: vec![wrong], ..Outcome::default() })
        }
    }
}

fn show(outcome: &Outcome) -> Result<(), SimError> {
    let mut out = io::stdout().lock();
    writeln!(out, "seed {} ({}), trace {:016x}", outcome.seed, outcome.scenario, outcome.trace)?;
    for line in &outcome.plan {
        writeln!(out, "  {line}")?;
    }
    writeln!(out, "faults: {}", list(&outcome.faults))?;
    writeln!(out, "asked: {}", list(&outcome.asked))?;
    writeln!(out, "answers: {}", list(&outcome.answers))?;
    writeln!(out, "checked: {}", list(&outcome.considered))?;
    match outcome.wrong.as_slice() {
        [] => writeln!(out, "nothing wrong")?,
        wrong => {
            for line in wrong {
                writeln!(out, "WRONG {line}")?;
            }
        }
    }
    Ok(())
}

fn list<T: std::fmt::Display>(counts: &BTreeMap<String, T>) -> String {
    let parts: Vec<String> = counts.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    parts.join(", ")
}

#[derive(Default)]
struct Totals {
    done: u64,
    bad: Vec<Outcome>,
    faults: BTreeMap<String, u64>,
    asked: BTreeMap<String, u64>,
    answers: BTreeMap<String, u64>,
    considered: BTreeMap<String, usize>,
    simulated_seconds: f64,
}

fn many(args: &SimArgs, child: &[String]) -> Result<bool, SimError> {
    let _known = name_of(args, args.from)?;
    let jobs = args.jobs.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
    });
    let began = Instant::now();
    let next = AtomicU64::new(args.from);
    let totals = Mutex::new(Totals::default());
    let failed: Mutex<Option<SimError>> = Mutex::new(None);
    let lock = |totals: &Mutex<Totals>, add: &mut dyn FnMut(&mut Totals)| {
        add(&mut totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if args.from + args.seeds <= seed {
                        return;
                    }
                    match start(args, child, seed, &[], false) {
                        Ok(outcome) => lock(&totals, &mut |totals| {
                            note(args, totals, &outcome, began);
                        }),
                        Err(error) => {
                            next.store(u64::MAX / 2, Ordering::Relaxed);
                            *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                                Some(error);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    let totals = totals.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{} seeds from {} in {:.1} min: {:.0} seeds per minute, {:.0} simulated minutes",
        totals.done,
        args.from,
        minutes,
        totals.done as f64 / minutes,
        totals.simulated_seconds / 60.0
    )?;
    writeln!(out, "faults: {}", list(&totals.faults))?;
    writeln!(out, "asked: {}", list(&totals.asked))?;
    writeln!(out, "answers: {}", list(&totals.answers))?;
    writeln!(out, "checked: {}", list(&totals.considered))?;
    if totals.bad.is_empty() {
        writeln!(out, "nothing wrong")?;
        return Ok(true);
    }
    for outcome in &totals.bad {
        writeln!(out, "WRONG seed {} ({}): {}", outcome.seed, outcome.scenario, outcome.wrong[0])?;
    }
    writeln!(
        out,
        "{} seeds of {} are wrong; replay one with --seed S",
        totals.bad.len(),
        totals.done
    )?;
    Ok(false)
}

fn note(args: &SimArgs, totals: &mut Totals, outcome: &Outcome, began: Instant) {
    totals.done += 1;
    totals.simulated_seconds += outcome.simulated_seconds;
    let add = |to: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>| {
        for (kind, n) in from {
            *to.entry(kind.clone()).or_default() += n;
        }
    };
    add(&mut totals.faults, &outcome.faults);
    add(&mut totals.asked, &outcome.asked);
    add(&mut totals.answers, &outcome.answers);
    for (check, n) in &outcome.considered {
        *totals.considered.entry(check.clone()).or_default() += n;
    }
    if !outcome.wrong.is_empty() {
        totals.bad.push(outcome.clone());
    }
    if args.json {
        if let Ok(text) = serde_json::to_string(outcome) {
            let _a_closed_pipe_ends_nothing = writeln!(io::stdout(), "{text}");
        }
    } else if totals.done.is_multiple_of(20) || !outcome.wrong.is_empty() {
        let rate = totals.done as f64 * 60.0 / began.elapsed().as_secs_f64();
        let _progress_only = writeln!(
            io::stderr(),
            "{} of {} seeds, {rate:.0} per minute, {} wrong{}",
            totals.done,
            args.seeds,
            totals.bad.len(),
            outcome.wrong.first().map_or(String::new(), |_| format!(" (seed {})", outcome.seed))
        );
    }
}

/// Leaves out faults, many at once first, as long as the run still fails.
fn shrink(args: &SimArgs, child: &[String], seed: u64) -> Result<bool, SimError> {
    let first = start(args, child, seed, &args.without, false)?;
    if first.wrong.is_empty() {
        writeln!(io::stdout(), "seed {seed}: nothing wrong, nothing to shrink")?;
        return Ok(true);
    }
    let mut without = args.without.clone();
    let mut small = first.clone();
    let mut part = first.plan.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < first.plan.len() {
            let mut trial = without.clone();
            trial.extend((at..(at + part).min(first.plan.len())).filter(|n| !without.contains(n)));
            at += part;
            if trial.len() == without.len() {
                continue;
            }
            let outcome = start(args, child, seed, &trial, false)?;
            if !outcome.wrong.is_empty() {
                (without, small) = (trial, outcome);
                let left = first.plan.len() - without.len();
                writeln!(io::stderr(), "{left} of {} faults left", first.plan.len())?;
            }
        }
        if part == 1 {
            break;
        }
        part = part.div_ceil(2);
    }
    without.sort_unstable();
    let mut shown = small;
    let keep = |(at, _): &(usize, String)| !without.contains(at);
    shown.plan = shown.plan.into_iter().enumerate().filter(keep).map(|(_, line)| line).collect();
    show(&shown)?;
    if !without.is_empty() {
        let list: Vec<String> = without.iter().map(ToString::to_string).collect();
        writeln!(io::stdout(), "replay: --seed {seed} --without {}", list.join(","))?;
    }
    Ok(false)
}
