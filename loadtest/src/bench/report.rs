//! The report: figures of target and peer, as JSON and as a table.
//!
//! In: what each round of each side came to. Rates count answers within the measured time; latency
//! counts every measured request, however late its answer. MB are 10^6 bytes of values.
//! Errors and verification cover the warm-up too.

use std::{collections::BTreeMap, fmt};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    args::{BenchArgs, Mode, Protocol, Verify},
    course::Course,
    load::Driven,
    tally::{SideTally, Tally, histogram},
};

/// What one side did.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) label: String,
    pub(crate) preloaded: Option<u64>,
    pub(crate) rounds: Vec<Driven>,
}

/// All figures of a bench.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The options as given or by default.
    pub options: BenchArgs,
    /// The server in question.
    pub target: Measured,
    /// The server it was compared with.
    pub peer: Option<Measured>,
    /// Target divided by peer.
    pub ratios: Option<Ratios>,
    /// The load second by second; none where it ran in rounds with a peer.
    pub course: Option<Course>,
    /// Stopped by hand before the time was up.
    pub ended_early: bool,
    /// Nothing failed verification, on each side some request succeeded, and so did all events.
    pub passed: bool,
}

/// Figures of one side over all its rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// URLs, or what the peer is.
    pub label: String,
    /// Keys written and acknowledged beforehand; none where there was no preload.
    pub preloaded: Option<u64>,
    /// Measured time.
    pub seconds: f64,
    /// All requests of all rounds.
    pub total: Operations,
    /// Reads and scans.
    pub reads: Operations,
    /// Writes, inserts and changes.
    pub writes: Operations,
    /// Each round by itself.
    pub rounds: Vec<Operations>,
    /// Requests without a usable answer, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Keys that scans gave.
    pub listed: u64,
    /// How often a change began again, as something else had come between its read and its write.
    pub changed_again: u64,
    /// Requests still under way when the run was stopped.
    pub unfinished: u64,
    /// What the verifier found.
    pub verification: Verification,
}

/// Requests of one kind that were answered well.
#[derive(Debug, Clone, Serialize)]
pub struct Operations {
    /// How many were measured.
    pub requests: u64,
    /// Answers per second.
    pub rate_per_second: f64,
    /// Value bytes per second, in MB.
    pub megabytes_per_second: f64,
    /// From intended time to last byte; none where nothing was measured.
    pub latency: Option<Latency>,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub min_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

/// What the verifier found.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// What was looked for.
    pub level: Verify,
    /// Reads that were checked.
    pub reads_checked: u64,
    /// Reads rightly told "no such key".
    pub absent: u64,
    /// Wrong answers, by kind.
    pub violations: BTreeMap<String, u64>,
    /// The first few of them.
    pub examples: Vec<String>,
}

/// Target divided by peer.
#[derive(Debug, Clone, Serialize)]
pub struct Ratios {
    /// Of rates: above 1 the target is faster.
    pub rate: Ratio,
    /// Of median latencies: below 1 the target is faster.
    pub p50: Ratio,
    /// Of 99th percentiles: below 1 the target is faster.
    pub p99: Ratio,
}

/// One ratio over the rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// Median of the target's rounds over median of the peer's: the figure to quote.
    pub of_medians: f64,
    /// Each round's own ratio.
    pub per_round: Vec<f64>,
    /// Least of those.
    pub min: f64,
    /// Middle of those.
    pub median: f64,
    /// Greatest of those.
    pub max: f64,
}

impl Report {
    /// `samples` are the target and, where there is one, the peer.
    pub(crate) fn new(args: &BenchArgs, samples: Vec<Sample>, course: Option<Course>) -> Self {
        let ended_early = samples.iter().flat_map(|side| &side.rounds).any(|round| round.stopped)
            || samples.iter().any(|side| side.rounds.is_empty());
        let mut sides = samples.into_iter().map(|sample| Measured::new(args, sample));
        let target = sides.next().unwrap_or_else(|| Measured::new(args, Sample::none()));
        let peer = sides.next();
        let passed = [Some(&target), peer.as_ref()].into_iter().flatten().all(|side| {
            side.verification.violations.is_empty()
                && (side.total.requests > 0 || side.errors.is_empty())
        });
        let happened = |course: &Course| course.events.iter().all(|event| event.failure.is_none());
        let passed = passed && course.as_ref().is_none_or(happened);
        let ratios = peer.as_ref().and_then(|peer| Ratios::new(&target, peer));
        Self { options: args.clone(), target, peer, ratios, course, ended_early, passed }
    }
}

impl Sample {
    fn none() -> Self {
        Self { label: String::new(), preloaded: None, rounds: Vec::new() }
    }
}

impl Measured {
    fn new(args: &BenchArgs, sample: Sample) -> Self {
        let mut all = Tally::default();
        let mut seconds = 0.0;
        let mut rounds = Vec::new();
        for round in &sample.rounds {
            all.merge(&round.tally);
            seconds += round.seconds;
            rounds.push(Operations::new(&both(&round.tally), round.seconds));
        }
        Self {
            label: sample.label,
            preloaded: sample.preloaded,
            seconds,
            total: Operations::new(&both(&all), seconds),
            reads: Operations::new(&all.reads, seconds),
            writes: Operations::new(&all.writes, seconds),
            rounds,
            listed: all.listed,
            changed_again: all.changed_again,
            unfinished: all.begun - all.ended,
            verification: Verification {
                level: args.verify,
                reads_checked: all.verified,
                absent: all.absent,
                violations: all.violations.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect(),
                examples: all.examples,
            },
            errors: all.errors,
        }
    }
}

/// Reads and writes together.
fn both(tally: &Tally) -> SideTally {
    let mut latency = histogram();
    for side in [&tally.reads, &tally.writes] {
        latency.add(&side.latency).expect("all histograms have the same bounds");
    }
    SideTally {
        latency,
        in_time: tally.reads.in_time + tally.writes.in_time,
        bytes_in_time: tally.reads.bytes_in_time + tally.writes.bytes_in_time,
    }
}

impl Operations {
    #[expect(clippy::cast_precision_loss, reason = "for show")]
    pub(crate) fn new(side: &SideTally, seconds: f64) -> Self {
        let per_second = |count: u64| if 0.0 < seconds { count as f64 / seconds } else { 0.0 };
        Self {
            requests: side.latency.len(),
            rate_per_second: per_second(side.in_time),
            megabytes_per_second: per_second(side.bytes_in_time) / 1e6,
            latency: Latency::new(&side.latency),
        }
    }
}

impl Latency {
    #[expect(clippy::cast_precision_loss, reason = "for show")]
    fn new(nanos: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| nanos.value_at_quantile(quantile) as f64 / 1e3;
        (!nanos.is_empty()).then(|| Self {
            min_us: nanos.min() as f64 / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: nanos.max() as f64 / 1e3,
        })
    }
}

impl Ratios {
    fn new(target: &Measured, peer: &Measured) -> Option<Self> {
        let of = |figure: fn(&Operations) -> Option<f64>| {
            let figures = |side: &Measured| side.rounds.iter().map(figure).collect::<Option<_>>();
            Ratio::new(figures(target)?, figures(peer)?)
        };
        Some(Self {
            rate: of(|round| Some(round.rate_per_second))?,
            p50: of(|round| Some(round.latency?.p50_us))?,
            p99: of(|round| Some(round.latency?.p99_us))?,
        })
    }
}

impl Ratio {
    /// None when a side has no round, or the peer a figure of 0.
    fn new(target: Vec<f64>, peer: Vec<f64>) -> Option<Self> {
        let mut per_round: Vec<f64> = target.iter().zip(&peer).map(|(t, p)| t / p).collect();
        if peer.iter().any(|figure| *figure <= 0.0) {
            return None;
        }
        let of_medians = median(target)? / median(peer)?;
        let whole = per_round.clone();
        per_round.sort_by(f64::total_cmp);
        Some(Self {
            of_medians,
            min: *per_round.first()?,
            max: *per_round.last()?,
            median: median(per_round)?,
            per_round: whole,
        })
    }
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let upper = figures.get(figures.len() / 2)?;
    let lower = figures.get((figures.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary())?;
        for side in [Some(&self.target), self.peer.as_ref()].into_iter().flatten() {
            writeln!(f, "\n{side}")?;
        }
        if let Some(ratios) = &self.ratios {
            writeln!(f, "\n{:<22}{:>9}  rounds", "target / peer", "medians")?;
            for (name, ratio) in
                [("rate", &ratios.rate), ("p50 latency", &ratios.p50), ("p99 latency", &ratios.p99)]
            {
                write!(f, "{name:<22}{:>9.3} ", ratio.of_medians)?;
                for round in &ratio.per_round {
                    write!(f, " {round:.3}")?;
                }
                writeln!(
                    f,
                    "  (min {:.3}, median {:.3}, max {:.3})",
                    ratio.min, ratio.median, ratio.max
                )?;
            }
        }
        if let Some(course) = &self.course {
            write!(f, "{course}")?;
        }
        if self.ended_early {
            writeln!(f, "\nended early")?;
        }
        writeln!(f, "\n{}", if self.passed { "passed" } else { "FAILED" })
    }
}

impl Report {
    /// What was run, in a line.
    pub(crate) fn summary(&self) -> String {
        let o = &self.options;
        let protocol = match o.protocol {
            Protocol::Http => "http",
            Protocol::Rpc => "rpc",
        };
        let mode = match (&o.scenario, o.mode, o.rate) {
            (Some(file), _, _) => {
                let stretch = o.stretch.map_or_else(String::new, |by| format!(" times {by}"));
                let name = file.file_stem().unwrap_or(file.as_os_str());
                format!("scenario {}{stretch}", name.display())
            }
            (None, Mode::Open, Some(rate)) => format!("open loop at {rate}/s"),
            _ => format!("closed loop, pipeline {}", o.pipeline),
        };
        let kind = match (o.workload, o.read_share) {
            (Some(workload), _) => format!(", {}", workload.name()),
            (None, Some(share)) => format!(", read share {share}"),
            (None, None) => String::new(),
        };
        format!(
            "{protocol}, {mode}, {} connections, {} threads, {} keys of {} bytes{kind}, seed {}",
            o.connections,
            o.threads,
            o.key_count(),
            o.value_bytes(),
            o.seed
        )
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.1} s measured", self.label, self.seconds)?;
        if let Some(keys) = self.preloaded {
            write!(f, ", {keys} keys preloaded")?;
        }
        writeln!(
            f,
            "\n{:<8}{:>10}{:>10}{:>9}{:>11}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "", "requests", "rate/s", "MB/s", "min ms", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for (name, operations) in
            [("reads", &self.reads), ("writes", &self.writes), ("both", &self.total)]
        {
            let Some(latency) = operations.latency else { continue };
            write!(
                f,
                "{name:<8}{:>10}{:>10.0}{:>9.1} ",
                operations.requests, operations.rate_per_second, operations.megabytes_per_second
            )?;
            let Latency { min_us, p50_us, p90_us, p99_us, p999_us, max_us } = latency;
            for us in [min_us, p50_us, p90_us, p99_us, p999_us, max_us] {
                write!(f, "{:>10.3}", us / 1e3)?;
            }
            writeln!(f)?;
        }
        write!(f, "errors: ")?;
        counts(f, &self.errors)?;
        if self.unfinished > 0 {
            write!(f, "; {} unfinished", self.unfinished)?;
        }
        let v = &self.verification;
        write!(
            f,
            "\nverified reads: {} ({:?}), absent {}, wrong: ",
            v.reads_checked, v.level, v.absent
        )?;
        counts(f, &v.violations)?;
        if 0 < self.listed {
            write!(f, "\nkeys listed: {}", self.listed)?;
        }
        if 0 < self.changed_again {
            write!(f, "\nchanges begun again: {}", self.changed_again)?;
        }
        for example in &v.examples {
            write!(f, "\n  {example}")?;
        }
        Ok(())
    }
}

fn counts(f: &mut fmt::Formatter<'_>, counts: &BTreeMap<String, u64>) -> fmt::Result {
    if counts.is_empty() {
        return f.write_str("none");
    }
    for (at, (kind, count)) in counts.iter().enumerate() {
        write!(f, "{}{count} x {kind}", if at == 0 { "" } else { ", " })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{
        super::tally::{Logged, Side, When},
        *,
    };

    fn answer(side: Side, latency: Duration) -> Logged {
        Logged { intended: Instant::now(), side, latency }
    }

    #[test]
    fn percentiles_of_a_known_distribution_are_right_to_three_digits() {
        let mut tally = Tally::default();
        for micros in 1..=10_000 {
            tally.good(answer(Side::Read, Duration::from_micros(micros)), 10, When::InTime, None);
        }
        tally.good(answer(Side::Read, Duration::from_secs(9)), 10, When::Warmup, None);
        let reads = Operations::new(&tally.reads, 2.0);
        assert_eq!((reads.requests, reads.rate_per_second), (10_000, 5_000.0));
        let latency = reads.latency.expect("there were requests");
        let near =
            |seen: f64, expected: f64| assert!((seen / expected - 1.0).abs() < 0.002, "{seen}");
        near(latency.min_us, 1.0);
        near(latency.p50_us, 5_000.0);
        near(latency.p90_us, 9_000.0);
        near(latency.p99_us, 9_900.0);
        near(latency.p999_us, 9_990.0);
        near(latency.max_us, 10_000.0);
    }

    #[test]
    fn a_late_answer_counts_as_latency_and_not_for_the_rate() {
        let mut tally = Tally::default();
        tally.good(answer(Side::Write, Duration::from_millis(1)), 10, When::InTime, None);
        tally.good(answer(Side::Write, Duration::from_secs(3)), 10, When::Late, None);
        let writes = Operations::new(&tally.writes, 1.0);
        assert_eq!((writes.requests, writes.rate_per_second), (2, 1.0));
        assert!(writes.latency.expect("requests").max_us > 2_900_000.0);
    }

    #[test]
    fn ratios_are_of_medians_and_of_each_round() {
        let ratio = Ratio::new(vec![10.0, 30.0, 20.0], vec![10.0, 10.0, 40.0]).expect("figures");
        assert_eq!(ratio.of_medians, 2.0);
        assert_eq!(ratio.per_round, [1.0, 3.0, 0.5]);
        assert_eq!((ratio.min, ratio.median, ratio.max), (0.5, 1.0, 3.0));
        assert!(Ratio::new(vec![1.0], vec![0.0]).is_none());
        assert!(Ratio::new(vec![], vec![]).is_none());
    }
}
