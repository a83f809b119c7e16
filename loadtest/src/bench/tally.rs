//! Counts and latencies of one thread; merged when threads end.
//!
//! Invariant: every request that began ends in exactly one of: a latency, an error, a violation,
//! or (when a run is cut short) `unfinished`. Latencies are kept in nanoseconds with three digits.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::ledger::Violation;

/// Longest latency told apart; longer ones count as this.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// Violations described in words; the rest are only counted.
const EXAMPLES_MAX: usize = 8;

/// Reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Read,
    Write,
}

/// When a good answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Its request was due before the measured time: not counted.
    Warmup,
    /// Within the measured time.
    InTime,
    /// After it, to a request that was due within it: counts as a latency, not for the rate.
    Late,
}

/// What is kept of the reads, or of the writes.
#[derive(Debug, Clone)]
pub(crate) struct SideTally {
    pub(crate) latency: Histogram<u64>,
    /// Of those, answered before the end of the measured time.
    pub(crate) in_time: u64,
    pub(crate) bytes_in_time: u64,
}

/// All that one thread counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) reads: SideTally,
    pub(crate) writes: SideTally,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) violations: BTreeMap<&'static str, u64>,
    pub(crate) examples: Vec<String>,
    /// Reads that went through the verifier, the warm-up's included.
    pub(crate) verified: u64,
    /// "No such key" for keys that nobody is known to have written.
    pub(crate) absent: u64,
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) last_end: Option<Instant>,
    /// Since the last progress line.
    pub(crate) interval: Interval,
    /// Every measured good answer, where these are to be kept.
    pub(crate) log: Option<Vec<Logged>>,
}

/// One good answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Logged {
    pub(crate) intended: Instant,
    pub(crate) side: Side,
    pub(crate) latency: Duration,
}

/// Figures between two progress lines.
#[derive(Debug, Clone)]
pub(crate) struct Interval {
    pub(crate) latency: Histogram<u64>,
    pub(crate) errors: u64,
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are in order")
}

impl Default for SideTally {
    fn default() -> Self {
        Self { latency: histogram(), in_time: 0, bytes_in_time: 0 }
    }
}

impl Default for Interval {
    fn default() -> Self {
        Self { latency: histogram(), errors: 0 }
    }
}

impl Tally {
    /// One good answer of `bytes`.
    pub(crate) fn good(&mut self, answer: Logged, bytes: usize, when: When) {
        let Logged { side, latency, .. } = answer;
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.interval.latency.saturating_record(nanos);
        if when == When::Warmup {
            return;
        }
        if let Some(log) = &mut self.log {
            log.push(answer);
        }
        let tally = match side {
            Side::Read => &mut self.reads,
            Side::Write => &mut self.writes,
        };
        tally.latency.saturating_record(nanos);
        if when == When::InTime {
            tally.in_time += 1;
            tally.bytes_in_time += bytes as u64;
        }
    }

    pub(crate) fn error(&mut self, kind: String) {
        *self.errors.entry(kind).or_default() += 1;
        self.interval.errors += 1;
    }

    pub(crate) fn violation(&mut self, key: u64, violation: Violation) {
        *self.violations.entry(violation.name()).or_default() += 1;
        self.interval.errors += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("key {key:08}: {violation:?}"));
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [(&mut self.reads, &other.reads), (&mut self.writes, &other.writes)] {
            add(&mut mine.latency, &theirs.latency);
            mine.in_time += theirs.in_time;
            mine.bytes_in_time += theirs.bytes_in_time;
        }
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        for (kind, count) in &other.violations {
            *self.violations.entry(kind).or_default() += count;
        }
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.iter().take(room).cloned());
        self.verified += other.verified;
        self.absent += other.absent;
        self.begun += other.begun;
        self.ended += other.ended;
        self.last_end = self.last_end.max(other.last_end);
        if let Some(theirs) = &other.log {
            self.log.get_or_insert_default().extend(theirs);
        }
    }
}

impl Interval {
    pub(crate) fn merge(&mut self, other: &Self) {
        add(&mut self.latency, &other.latency);
        self.errors += other.errors;
    }

    pub(crate) fn clear(&mut self) {
        self.latency.reset();
        self.errors = 0;
    }
}

fn add(to: &mut Histogram<u64>, from: &Histogram<u64>) {
    to.add(from).expect("all histograms have the same bounds");
}
