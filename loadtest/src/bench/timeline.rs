//! What happened in each second of a load, the warm-up included.
//!
//! In: each answer and each error, with the seconds since the load began. Out: one [`Point`] per
//! second. Answers and errors count in the second in which they came, so that an outage shows as a
//! lack of answers; latencies in the second in which their requests were due, so that it shows there
//! as well.
//! Cost: up to 12 KiB a second and thread; beyond [`SECONDS_MAX`] all goes to the last second.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::tally::Side;

/// A day.
const SECONDS_MAX: usize = 86_400;
/// Longest latency told apart, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// One thread's seconds, from 0.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline {
    seconds: Vec<Second>,
}

#[derive(Debug, Clone)]
struct Second {
    reads: Cell,
    writes: Cell,
    errors: BTreeMap<String, u64>,
}

#[derive(Debug, Clone)]
struct Cell {
    answered: u64,
    /// Microseconds, two digits.
    latency: Histogram<u32>,
}

impl Default for Second {
    fn default() -> Self {
        let cell = || Cell {
            answered: 0,
            latency: Histogram::new(2).expect("two digits are within 0 to 5"),
        };
        Self { reads: cell(), writes: cell(), errors: BTreeMap::new() }
    }
}

impl Second {
    fn side(&mut self, side: Side) -> &mut Cell {
        match side {
            Side::Read => &mut self.reads,
            Side::Write => &mut self.writes,
        }
    }
}

/// Figures of one second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Seconds since the load began.
    pub second: usize,
    /// Reads and scans.
    pub reads: Answers,
    /// Writes of all kinds.
    pub writes: Answers,
    /// Requests without a usable answer, and wrong answers, by kind.
    pub errors: BTreeMap<String, u64>,
}

/// Good answers of one second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answers {
    /// How many came in this second.
    pub answered: u64,
    /// Of the requests that were due in this second.
    pub latency: Option<Percentiles>,
}

/// Percentiles of a second in microseconds; two digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Percentiles {
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
}

impl Timeline {
    fn at(&mut self, since_start: Duration) -> &mut Second {
        let second = usize::try_from(since_start.as_secs()).unwrap_or(usize::MAX);
        let second = second.min(SECONDS_MAX - 1);
        if self.seconds.len() <= second {
            self.seconds.resize_with(second + 1, Second::default);
        }
        &mut self.seconds[second]
    }

    /// A good answer to a request that was due at `due`; both times since the load began.
    pub(crate) fn good(&mut self, side: Side, due: Duration, answered: Duration) {
        self.at(answered).side(side).answered += 1;
        let micros = u64::try_from(answered.saturating_sub(due).as_micros()).unwrap_or(u64::MAX);
        let latency = &mut self.at(due).side(side).latency;
        latency.record(micros.min(LATENCY_US_MAX)).expect("it grows as far as it needs to");
    }

    /// An error, or a wrong answer.
    pub(crate) fn error(&mut self, kind: &str, at: Duration) {
        *self.at(at).errors.entry(kind.to_owned()).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize_with(other.seconds.len(), Second::default);
        }
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            for (to, from) in [(&mut mine.reads, &theirs.reads), (&mut mine.writes, &theirs.writes)]
            {
                to.answered += from.answered;
                to.latency.add(&from.latency).expect("it grows as far as it needs to");
            }
            for (kind, count) in &theirs.errors {
                *mine.errors.entry(kind.clone()).or_default() += count;
            }
        }
    }

    /// One per second, none left out, up to the last in which anything was due or came.
    pub(crate) fn points(&self) -> Vec<Point> {
        let point = |(second, of): (usize, &Second)| Point {
            second,
            reads: Answers::new(&of.reads),
            writes: Answers::new(&of.writes),
            errors: of.errors.clone(),
        };
        self.seconds.iter().enumerate().map(point).collect()
    }
}

impl Answers {
    fn new(cell: &Cell) -> Self {
        let at = |quantile| cell.latency.value_at_quantile(quantile);
        let latency = (!cell.latency.is_empty()).then(|| Percentiles {
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: cell.latency.max(),
        });
        Self { answered: cell.answered, latency }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_stall_shows_where_requests_were_due_and_its_answers_where_they_came() {
        let mut timeline = Timeline::default();
        timeline.good(Side::Read, ms(500), ms(501));
        timeline.good(Side::Read, ms(900), ms(3_100));
        timeline.good(Side::Write, ms(3_999), ms(4_000));
        let points = timeline.points();
        let answered: Vec<_> =
            points.iter().map(|p| (p.reads.answered, p.writes.answered)).collect();
        assert_eq!(answered, [(1, 0), (0, 0), (0, 0), (1, 0), (0, 1)]);
        let max_us = points[0].reads.latency.expect("two were due").max_us;
        assert!((2_180_000..2_220_000).contains(&max_us), "{max_us}");
        assert_eq!((points[3].reads.latency, points[4].writes.latency), (None, None));
        assert!(points[3].writes.latency.is_some());
    }

    #[test]
    fn threads_of_different_length_add_up() {
        let (mut first, mut second) = (Timeline::default(), Timeline::default());
        first.good(Side::Read, ms(0), ms(1));
        first.error("HTTP 503", ms(10));
        second.good(Side::Read, ms(0), ms(100));
        second.error("HTTP 503", ms(20));
        second.error("no answer in time", ms(2_000));
        first.merge(&second);
        let points = first.points();
        assert_eq!(points.len(), 3);
        assert_eq!((points[0].reads.answered, points[0].errors["HTTP 503"]), (2, 2));
        assert_eq!(points[2].errors["no answer in time"], 1);
    }

    #[test]
    fn a_load_of_days_keeps_its_last_second() {
        let mut timeline = Timeline::default();
        timeline.error("x", Duration::from_secs(1 << 40));
        assert_eq!(timeline.points().len(), SECONDS_MAX);
    }
}
