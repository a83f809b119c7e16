//! How a load went, second by second and phase by phase.
//!
//! In: what the load came to, what servers counted beside it, what became of the events. Out: the part of
//! the result that the page draws.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::{
    event::Happened,
    load::{Driven, Load},
    report::Operations,
    scrape::Series,
    tally::PhaseTally,
    timeline::Point,
};

/// A load second by second, the warm-up included.
#[derive(Debug, Clone, Serialize)]
pub struct Course {
    /// What the scenario says it is.
    pub about: String,
    /// When it began, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// One after the other.
    pub phases: Vec<PhaseFigures>,
    /// Each second.
    pub points: Vec<Point>,
    /// What the servers counted.
    pub servers: Vec<Series>,
    /// What was done to them.
    pub events: Vec<Happened>,
}

/// One phase of a scenario; a load without one is a single phase.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseFigures {
    /// Its name in the scenario.
    pub name: String,
    /// What it consists of, in words.
    pub load: String,
    /// Seconds since the load began.
    pub from: f64,
    /// Its end; none where a number of requests ended it.
    pub until: Option<f64>,
    /// Requests per second asked for at its beginning and at its end; none in a closed loop.
    pub rate: Option<[f64; 2]>,
    /// Reads and scans that were due in it.
    pub reads: Operations,
    /// Writes that were due in it.
    pub writes: Operations,
    /// Requests without a usable answer.
    pub errors: u64,
    /// Wrong answers.
    pub wrong: u64,
}

impl Course {
    pub(crate) fn new(
        about: String,
        load: &Load,
        driven: &Driven,
        servers: Vec<Series>,
        events: Vec<Happened>,
    ) -> Self {
        let ago = load.elapsed().unwrap_or_default();
        let began = SystemTime::now()
            .checked_sub(ago)
            .and_then(|began| began.duration_since(SystemTime::UNIX_EPOCH).ok())
            .unwrap_or_default();
        let whole = PhaseTally {
            reads: driven.tally.reads.clone(),
            writes: driven.tally.writes.clone(),
            errors: driven.tally.errors.values().sum(),
            wrong: driven.tally.violations.values().sum(),
        };
        let tallies = match driven.tally.phases.as_slice() {
            [] => std::slice::from_ref(&whole),
            several => several,
        };
        let figures = load.plan.phases.iter().zip(tallies).map(|(phase, tally)| {
            let seconds = match (tallies, phase.until) {
                // Without its warm-up.
                ([_], _) | (_, None) => driven.seconds,
                (_, Some(until)) if driven.stopped => {
                    let stopped = Duration::from_secs_f64(driven.seconds);
                    until.min(stopped).saturating_sub(phase.from).as_secs_f64()
                }
                (_, Some(until)) => (until - phase.from).as_secs_f64(),
            };
            PhaseFigures {
                name: phase.name.clone(),
                load: phase.load.clone(),
                from: phase.from.as_secs_f64(),
                until: phase.until.map(|until| until.as_secs_f64()),
                rate: phase.rate.map(|rate| [rate.from, rate.to]),
                reads: Operations::new(&tally.reads, seconds),
                writes: Operations::new(&tally.writes, seconds),
                errors: tally.errors,
                wrong: tally.wrong,
            }
        });
        Self {
            about,
            began_unix_ms: u64::try_from(began.as_millis()).unwrap_or(u64::MAX),
            phases: figures.collect(),
            points: driven.tally.timeline.points(),
            servers,
            events,
        }
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if 1 < self.phases.len() {
            writeln!(
                f,
                "\n{:<20}{:<8}{:>10}{:>10}{:>10}{:>10}{:>10}{:>9}{:>7}",
                "phase", "", "rate/s", "p50 ms", "p99", "p99.9", "max", "errors", "wrong"
            )?;
        }
        for phase in self.phases.iter().filter(|_| 1 < self.phases.len()) {
            for (name, side) in [("reads", &phase.reads), ("writes", &phase.writes)] {
                let Some(latency) = side.latency else { continue };
                write!(f, "{:<20}{name:<8}{:>10.0}", phase.name, side.rate_per_second)?;
                for us in [latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us] {
                    write!(f, "{:>10.3}", us / 1e3)?;
                }
                writeln!(f, "{:>9}{:>7}", phase.errors, phase.wrong)?;
            }
        }
        for event in &self.events {
            let failed = event.failure.as_ref().map(|why| format!(", FAILED: {why}"));
            let failed = failed.unwrap_or_default();
            let Happened { name, began, took, .. } = event;
            writeln!(f, "at {began:.1} s: {name} (took {took:.1} s{failed})")?;
        }
        Ok(())
    }
}
