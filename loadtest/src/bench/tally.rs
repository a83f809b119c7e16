//! Counts and latencies of one thread; merged when threads end.
//!
//! Invariant: every request that began ends in exactly one of: a latency, an error, a violation,
//! or (when a run is cut short) `unfinished`. Latencies are kept in nanoseconds with three digits.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{ledger::Violation, timeline::Timeline};

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

/// Where in a load something happened; times since it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) due: Duration,
    pub(crate) now: Duration,
    /// In which it was due.
    pub(crate) phase: usize,
}

/// What one phase came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct PhaseTally {
    pub(crate) reads: SideTally,
    pub(crate) writes: SideTally,
    pub(crate) errors: u64,
    pub(crate) wrong: u64,
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
    /// Keys in listings.
    pub(crate) listed: u64,
    /// Changes that began again, as something else had come.
    pub(crate) changed_again: u64,
    /// Second by second; empty for a preload.
    pub(crate) timeline: Timeline,
    /// Phase by phase, where there are several.
    pub(crate) phases: Vec<PhaseTally>,
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
    /// One good answer of `bytes`; without a spot, to a preload.
    pub(crate) fn good(&mut self, answer: Logged, bytes: usize, when: When, spot: Option<Spot>) {
        let Logged { side, latency, .. } = answer;
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.interval.latency.saturating_record(nanos);
        if let Some(Spot { due, now, phase }) = spot {
            self.timeline.good(side, due, now);
            if let Some(phase) = self.phases.get_mut(phase) {
                phase.side(side).good(nanos, bytes, when);
            }
        }
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
        tally.good(nanos, bytes, when);
    }

    pub(crate) fn error(&mut self, kind: String, spot: Option<Spot>) {
        if let Some(spot) = spot {
            self.timeline.error(&kind, spot.now);
            if let Some(phase) = self.phases.get_mut(spot.phase) {
                phase.errors += 1;
            }
        }
        *self.errors.entry(kind).or_default() += 1;
        self.interval.errors += 1;
    }

    pub(crate) fn violation(&mut self, key: u64, violation: Violation, spot: Option<Spot>) {
        if let Some(spot) = spot {
            self.timeline.error(&format!("wrong: {}", violation.name()), spot.now);
            if let Some(phase) = self.phases.get_mut(spot.phase) {
                phase.wrong += 1;
            }
        }
        *self.violations.entry(violation.name()).or_default() += 1;
        self.interval.errors += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("key {key:08}: {violation:?}"));
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.reads.merge(&other.reads);
        self.writes.merge(&other.writes);
        self.timeline.merge(&other.timeline);
        let count = self.phases.len().max(other.phases.len());
        self.phases.resize_with(count, PhaseTally::default);
        for (mine, theirs) in self.phases.iter_mut().zip(&other.phases) {
            mine.reads.merge(&theirs.reads);
            mine.writes.merge(&theirs.writes);
            mine.errors += theirs.errors;
            mine.wrong += theirs.wrong;
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
        self.listed += other.listed;
        self.changed_again += other.changed_again;
        self.begun += other.begun;
        self.ended += other.ended;
        self.last_end = self.last_end.max(other.last_end);
        if let Some(theirs) = &other.log {
            self.log.get_or_insert_default().extend(theirs);
        }
    }
}

impl SideTally {
    fn good(&mut self, nanos: u64, bytes: usize, when: When) {
        self.latency.saturating_record(nanos);
        if when == When::InTime {
            self.in_time += 1;
            self.bytes_in_time += bytes as u64;
        }
    }

    fn merge(&mut self, other: &Self) {
        add(&mut self.latency, &other.latency);
        self.in_time += other.in_time;
        self.bytes_in_time += other.bytes_in_time;
    }
}

impl PhaseTally {
    fn side(&mut self, side: Side) -> &mut SideTally {
        match side {
            Side::Read => &mut self.reads,
            Side::Write => &mut self.writes,
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
