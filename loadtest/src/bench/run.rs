//! One bench from options to exit code: preload, rounds, report.
//!
//! A scenario's events and the questions for servers' own counters run beside the one load.
//! With a peer the rounds go target, peer, target, peer, so that a change of the machine's mood
//! hits both. Ctrl-C ends the load and reports what there is.

use std::{
    fs::File,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, BufWriter, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail};
use tokio::{sync::watch, task::JoinSet};

use super::{
    args::{BenchArgs, Output, Verify},
    course::Course,
    event::{self, Happened},
    load::{Driven, Load},
    page,
    peer::{self, Peer},
    plan::{Plan, Target},
    report::{Report, Sample},
    scenario::{Event, Scenario},
    scrape::{Scraper, Series, Server},
    tally::{Interval, Logged, Side},
};

/// Runs the bench, prints its report on standard output.
///
/// Gives failure when a read failed its verification or no request succeeded. Progress goes to
/// standard error when that is a terminal.
///
/// # Errors
/// Options that contradict each other, a name that does not resolve, a preload that was not
/// acknowledged in full, a peer that did not start.
pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    if let Some(port) = args.serve_bare_axum {
        peer::serve(port, args.peer_workers, args.value_bytes()).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let (stop, stopped) = watch::channel(false);
    let interrupted = async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.send_replace(true);
        }
        std::future::pending::<()>().await;
    };
    let report = tokio::select! {
        report = measure(&args, stopped) => report?,
        () = interrupted => bail!("interrupted"),
    };
    let mut stdout = std::io::stdout().lock();
    match args.output {
        Output::Text => write!(stdout, "{report}")?,
        Output::Json => {
            serde_json::to_writer_pretty(&mut stdout, &report)?;
            writeln!(stdout)?;
        }
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the bench and gives its report; ends early once `stop` holds true.
///
/// # Errors
/// As [`run`].
pub async fn measure(args: &BenchArgs, stop: watch::Receiver<bool>) -> anyhow::Result<Report> {
    let stretch = args.stretch.unwrap_or(1.0);
    let scenario = args.scenario.as_ref().map(|path| Scenario::read(path, stretch)).transpose()?;
    let args = &args.resolved(scenario.as_ref())?;
    let plan = Arc::new(Plan::new(args, scenario.as_ref())?);
    // A file that cannot be written is told before the load, not after it.
    let create = |path: &PathBuf| {
        File::create(path).with_context(|| format!("cannot write {}", path.display()))
    };
    let answers = args.answers.as_ref().map(create).transpose()?;
    let page = args.report.as_ref().map(create).transpose()?;
    let result = args.result.as_ref().map(create).transpose()?;
    let mut servers = Vec::new();
    for url in &args.metrics {
        servers.push(Server::resolve(url).await?);
    }
    let target = Target::named(args, new_run()).await?;
    // Kept to the end: dropping it ends the child.
    let mut _child = None;
    let other = match args.peer.as_deref() {
        None => None,
        Some("axum") => {
            let peer = Peer::start(args).await?;
            let label = format!("bare axum at {}", peer.addr);
            let target = Target::fixed(&label, peer.addr, &args.prefix, args.key_count());
            _child = Some(peer);
            Some(target)
        }
        Some(url) => {
            let urls = [url.to_owned()];
            Some(Target::http(&urls, &args.prefix, new_run(), args.key_count()).await?)
        }
    };
    let sides: Vec<&Arc<Target>> = [Some(&target), other.as_ref()].into_iter().flatten().collect();

    let mut preloaded = Vec::new();
    for side in &sides {
        preloaded.push(match args.no_preload || side.fixed {
            true => None,
            false => {
                let keys = preload(&plan, side, &stop).await?;
                tracing::info!(keys, target = side.label, "preloaded");
                Some(keys)
            }
        });
    }
    let (about, events) = scenario.map_or((String::new(), Vec::new()), |it| (it.about, it.events));
    let mut driven: Vec<Vec<Driven>> = sides.iter().map(|_| Vec::new()).collect();
    let mut course = None;
    if other.is_none() {
        if !*stop.borrow() {
            let load = Load::mixed(&plan, &target, &stop);
            let beside = Beside::start(&load, servers, events);
            let round = watched(&load).await?;
            let (servers, events) = beside.end().await;
            course = Some(Course::new(about, &load, &round, servers, events));
            driven = vec![vec![round]];
        }
    } else {
        for _ in 0..args.rounds {
            for (side, driven) in sides.iter().zip(&mut driven) {
                if !*stop.borrow() {
                    driven.push(watched(&Load::mixed(&plan, side, &stop)).await?);
                }
            }
        }
    }
    if let Some(file) = answers {
        write_answers(file, driven.first().into_iter().flatten())
            .context("cannot write the answers")?;
    }
    let samples = sides
        .iter()
        .zip(preloaded)
        .zip(driven)
        .map(|((side, preloaded), rounds)| Sample { label: side.label.clone(), preloaded, rounds });
    let report = Report::new(args, samples.collect(), course);
    if let Some(mut file) = result {
        serde_json::to_writer_pretty(&mut file, &report).context("cannot write the result")?;
    }
    if let Some(mut file) = page {
        file.write_all(page::html(&report).as_bytes()).context("cannot write the report")?;
    }
    Ok(report)
}

/// What goes on beside a load.
struct Beside {
    over: watch::Sender<bool>,
    scraper: Scraper,
    events: JoinSet<Vec<Happened>>,
}

impl Beside {
    fn start(load: &Load, servers: Vec<Server>, events: Vec<Event>) -> Self {
        let (over, is_over) = watch::channel(false);
        let start = load.began().unwrap_or_else(Instant::now);
        let scraper = Scraper::start(servers, start, &is_over);
        let mut running = JoinSet::new();
        running.spawn(event::run(events, start, is_over));
        Self { over, scraper, events: running }
    }

    /// The load is over.
    async fn end(self) -> (Vec<Series>, Vec<Happened>) {
        self.over.send_replace(true);
        let events = self.events.join_all().await.into_iter().flatten().collect();
        (self.scraper.series().await, events)
    }
}

/// See [`BenchArgs::answers`].
fn write_answers<'a>(file: File, rounds: impl Iterator<Item = &'a Driven>) -> io::Result<()> {
    let mut answers: Vec<_> = rounds.flat_map(|round| round.tally.log.iter().flatten()).collect();
    answers.sort_by_key(|answer| answer.intended);
    let (now, wall) = (Instant::now(), SystemTime::now());
    let mut file = BufWriter::new(file);
    writeln!(file, "due_unix_ms,kind,latency_us")?;
    for Logged { intended, side, latency } in answers {
        let due = wall - now.duration_since(*intended);
        let millis = due.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let kind = match side {
            Side::Read => "read",
            Side::Write => "write",
        };
        writeln!(file, "{millis},{kind},{}", latency.as_micros())?;
    }
    file.flush()
}

/// Tells this process's values from those of any other; never 0, which is the bare peer's.
fn new_run() -> u32 {
    let random = RandomState::new().build_hasher().finish();
    u32::try_from(random >> 32).unwrap_or(0) | 1
}

async fn preload(
    plan: &Arc<Plan>,
    target: &Arc<Target>,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<u64> {
    let load = Load::preload(plan, target, stop);
    let driven = watched(&load).await?;
    let written = load.preloaded();
    if written < plan.key_count && !driven.stopped {
        bail!(
            "preload of {}: {written} of {} keys acknowledged, errors: {:?}",
            target.label,
            plan.key_count,
            driven.tally.errors
        );
    }
    if written == plan.key_count {
        // Each target is filled once.
        let _ = target.preloaded.set(Instant::now());
    }
    Ok(written)
}

/// Drives a load with a progress line each second, where somebody may be looking.
async fn watched(load: &Arc<Load>) -> anyhow::Result<Driven> {
    if !std::io::stderr().is_terminal() {
        return load.drive().await;
    }
    let progress = async {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.tick().await;
        loop {
            second.tick().await;
            show_progress(load);
        }
    };
    tokio::select! {
        driven = load.drive() => driven.context("drive the load"),
        () = progress => bail!("progress does not end"),
    }
}

fn show_progress(load: &Load) {
    let mut interval = Interval::default();
    for tally in &load.tallies {
        let mut tally = tally.lock();
        interval.merge(&tally.interval);
        tally.interval.clear();
    }
    #[expect(clippy::cast_precision_loss, reason = "for show")]
    let millis = |quantile| interval.latency.value_at_quantile(quantile) as f64 / 1e6;
    let phase = match load.elapsed() {
        None => "preload".to_owned(),
        Some(elapsed) => format!("{:4.0} s", elapsed.as_secs_f64()),
    };
    let verify = if load.plan.verify == Verify::None { " (unverified)" } else { "" };
    // Standard error may be gone; the measurement goes on.
    let _ = writeln!(
        std::io::stderr(),
        "{} {phase}: {}/s, p50 {:.3} ms, p99 {:.3} ms, {} errors{verify}",
        load.target.label,
        interval.latency.len(),
        millis(0.5),
        millis(0.99),
        interval.errors,
    );
}
