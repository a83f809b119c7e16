//! What a node's metrics say, and the difference between two looks at them. Pure, but for the time of a
//! look.

use std::{collections::BTreeMap, time::Instant};

use serde_json::{Value, json};

/// One look at a node's metrics.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    at: Instant,
    /// By series, as they are written.
    pub(super) values: BTreeMap<String, f64>,
}

/// What is shown of a node.
#[derive(Debug, Default)]
pub(super) struct Row {
    id: String,
    /// Why there are no numbers.
    why: Option<String>,
    uptime_seconds: f64,
    serves: bool,
    /// Of reads, writes and changes: how many, or how many per second, and two times in milliseconds.
    operations: [Operation; 3],
    failed: f64,
    hits: Option<f64>,
    uncovered: f64,
    journal_bytes: f64,
    steps: f64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Operation {
    count: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

const OPERATIONS: [&str; 3] = ["read", "write", "change"];

impl Sample {
    pub(super) fn read(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let values = series.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self { at: Instant::now(), values: values.collect() }
    }

    fn of(&self, series: &str) -> f64 {
        self.values.get(series).copied().unwrap_or(0.0)
    }

    /// What was counted since `before`; everything where the process is another one.
    fn since(&self, before: Option<&Self>, series: &str) -> f64 {
        let is_same =
            |before: &&Self| before.of("tako_uptime_seconds") <= self.of("tako_uptime_seconds");
        let earlier = before.filter(is_same).map_or(0.0, |before| before.of(series));
        self.of(series) - earlier
    }

    fn operation(&self, before: Option<&Self>, name: &str) -> Operation {
        let start = format!("tako_request_seconds_bucket{{operation=\"{name}\",le=\"");
        let mut buckets: Vec<(f64, f64)> = self
            .values
            .keys()
            .filter_map(|series| {
                let bound = series.strip_prefix(&start)?.trim_end_matches("\"}");
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
                Some((bound, self.since(before, series)))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let count = buckets.last().map_or(0.0, |(_, count)| *count);
        let at = |share: f64| {
            let found = buckets.iter().find(|(_, below)| 0.0 < count && count * share <= *below);
            found.map(|(bound, _)| bound * 1e3)
        };
        Operation { count, p50_ms: at(0.5), p99_ms: at(0.99) }
    }
}

impl Row {
    pub(super) fn since_start(id: &str, sample: Result<&Sample, &String>) -> Self {
        match sample {
            Ok(sample) => Self::of(id, None, sample, 1.0),
            Err(why) => Self { id: id.to_owned(), why: Some(why.clone()), ..Self::default() },
        }
    }

    pub(super) fn between(
        id: &str,
        before: &Result<Sample, String>,
        now: &Result<Sample, String>,
    ) -> Self {
        match (before, now) {
            (Ok(before), Ok(now)) => {
                let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
                Self::of(id, Some(before), now, seconds)
            }
            (Err(_), Ok(_)) => {
                Self { id: id.to_owned(), why: Some("is back".to_owned()), ..Self::default() }
            }
            (_, Err(why)) => Self { id: id.to_owned(), why: Some(why.clone()), ..Self::default() },
        }
    }

    fn of(id: &str, before: Option<&Sample>, now: &Sample, seconds: f64) -> Self {
        let since = |series: &str| now.since(before, series);
        let operations = OPERATIONS.map(|name| {
            let operation = now.operation(before, name);
            Operation { count: operation.count / seconds, ..operation }
        });
        let failed: f64 = OPERATIONS
            .iter()
            .map(|name| since(&format!("tako_requests_failed_total{{operation=\"{name}\"}}")))
            .sum();
        let votes = |from: &str| since(&format!("tako_votes_total{{from=\"{from}\"}}"));
        let memory = votes("index") + votes("cache");
        let all = memory + votes("snapshot");
        Self {
            id: id.to_owned(),
            why: None,
            uptime_seconds: now.of("tako_uptime_seconds"),
            serves: now.of("tako_node_serving") == 1.0,
            operations,
            failed: failed / seconds,
            hits: (0.0 < all).then_some(memory / all),
            uncovered: now.of("tako_uncovered_records"),
            journal_bytes: now.of("tako_journal_bytes"),
            steps: since("tako_steps_total") / seconds,
        }
    }

    pub(super) fn json(&self) -> Value {
        if let Some(why) = &self.why {
            return json!({ "id": self.id, "why": why });
        }
        let mut row = json!({
            "id": self.id,
            "serves": self.serves,
            "uptime_seconds": self.uptime_seconds,
            "failed": self.failed,
            "hits": self.hits,
            "uncovered": self.uncovered,
            "journal_bytes": self.journal_bytes,
            "steps": self.steps,
        });
        for (name, operation) in OPERATIONS.iter().zip(self.operations) {
            row[format!("{name}s")] = json!({
                "count": operation.count,
                "p50_ms": operation.p50_ms.filter(|ms| ms.is_finite()),
                "p99_ms": operation.p99_ms.filter(|ms| ms.is_finite()),
            });
        }
        row
    }
}

pub(super) fn table(rows: &[Row]) -> String {
    let wide = rows.iter().map(|row| row.id.len()).max().unwrap_or(0).max("node".len());
    let mut text = format!(
        "{:wide$}  {:>9}  {:>9} {:>6} {:>6}  {:>9} {:>6} {:>6}  {:>8}  {:>6}  {:>5}  {:>9}  {:>9}  {:>6}",
        "node",
        "up",
        "reads",
        "p50",
        "p99 ms",
        "writes",
        "p50",
        "p99 ms",
        "changes",
        "failed",
        "hits",
        "uncovered",
        "journal",
        "steps"
    );
    for row in rows {
        if let Some(why) = &row.why {
            text.push_str(&format!("\n{:wide$}  {why}", row.id));
            continue;
        }
        let ms = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms}"));
        let [reads, writes, changes] = row.operations;
        text.push_str(&format!(
            "\n{:wide$}  {:>9}  {:>9} {:>6} {:>6}  {:>9} {:>6} {:>6}  {:>8}  {:>6}  {:>5}  {:>9}  {:>9}  {:>6}",
            row.id,
            if row.serves { span(row.uptime_seconds) } else { "no".to_owned() },
            number(reads.count),
            ms(reads.p50_ms),
            ms(reads.p99_ms),
            number(writes.count),
            ms(writes.p50_ms),
            ms(writes.p99_ms),
            number(changes.count),
            number(row.failed),
            row.hits.map_or_else(|| "-".to_owned(), |hits| format!("{:.0}%", hits * 100.0)),
            number(row.uncovered),
            format!("{:.1} MiB", row.journal_bytes / f64::from(1 << 20)),
            number(row.steps),
        ));
    }
    text
}

/// Whole, or with one digit below ten.
fn number(value: f64) -> String {
    if value.fract() == 0.0 || 10.0 <= value {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

fn span(seconds: f64) -> String {
    let seconds = seconds as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(uptime: f64, fast: f64, slow: f64) -> String {
        let bucket = |le: &str, count: f64| {
            format!("tako_request_seconds_bucket{{operation=\"read\",le=\"{le}\"}} {count}\n")
        };
        format!(
            "# HELP x y.\ntako_uptime_seconds {uptime}\ntako_node_serving 1\n{}{}{}\
             tako_votes_total{{from=\"cache\"}} {fast}\ntako_votes_total{{from=\"snapshot\"}} {slow}\n",
            bucket("0.0005", fast),
            bucket("0.01", fast + slow),
            bucket("+Inf", fast + slow),
        )
    }

    fn read(row: &Row) -> (f64, Option<f64>, Option<f64>) {
        let operation = row.operations[0];
        (operation.count, operation.p50_ms, operation.p99_ms)
    }

    #[test]
    fn a_row_tells_what_was_since_the_start_or_since_the_last_look() {
        let first = Sample::read(&text(9.0, 60.0, 40.0));
        let row = Row::since_start("n1", Ok(&first));
        assert_eq!(read(&row), (100.0, Some(0.5), Some(10.0)));
        assert_eq!((row.hits, row.serves), (Some(0.6), true));
        let mut second = Sample::read(&text(11.0, 260.0, 40.0));
        second.at = first.at + std::time::Duration::from_secs(2);
        let row = Row::between("n1", &Ok(first.clone()), &Ok(second.clone()));
        assert_eq!(read(&row), (100.0, Some(0.5), Some(0.5)));
        assert_eq!(row.hits, Some(1.0));
        // Started anew in between: everything it tells is new.
        let mut other = Sample::read(&text(1.0, 10.0, 0.0));
        other.at = second.at + std::time::Duration::from_secs(1);
        assert_eq!(
            read(&Row::between("n1", &Ok(second), &Ok(other))),
            (10.0, Some(0.5), Some(0.5))
        );
        let gone = Row::between("n1", &Ok(first), &Err("refused".to_owned()));
        assert!(table(&[gone]).ends_with("n1    refused"));
        assert_eq!(read(&Row::of("n1", None, &Sample::read(""), 1.0)), (0.0, None, None));
    }

    #[test]
    fn numbers_and_times_are_short() {
        assert_eq!([0.0, 0.25, 9.96, 10.4, 1e6].map(number), ["0", "0.2", "10.0", "10", "1000000"]);
        assert_eq!([5.0, 65.0, 3_700.0, 90_000.0].map(span), ["5s", "1m05s", "1h01m", "1d01h"]);
    }
}
