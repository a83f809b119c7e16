//! `hang`: what clients feel when one replica neither answers nor ends (SIGSTOP).
//!
//! Open loop: requests leave at fixed times, and a latency counts from the time at which its
//! request should have left, so that a stall is not hidden by clients that wait for it. All go to
//! the proxy: what a client of the hanging process itself feels is that client's own.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{cluster::Cluster, http::Http};

const SETTLE: Duration = Duration::from_secs(120);
/// Longer than `request_deadline`: what takes longer counts as that long, and as failed.
const PATIENCE: Duration = Duration::from_secs(12);
const KEYS: u64 = 1_000;
const VALUE_BYTES: usize = 100;
/// Requests under way at once; beyond it one counts as failed after `PATIENCE`.
const UNDER_WAY_MAX: usize = 4_096;
/// In their order; the onset is the begin of the hang.
const PHASES: [&str; 4] = ["before", "onset", "while", "after"];
/// How long the hang counts as new.
const ONSET: Duration = Duration::from_secs(5);

/// How much is asked, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests per second, half of them PUT.
    pub rate: u32,
    /// Of each of before, while and after.
    pub phase: Duration,
}

/// Latencies of one kind of request in one phase.
#[derive(Debug)]
struct Tally {
    micros: Histogram<u64>,
    failed: u64,
}

type Tallies = Arc<Mutex<Vec<[Tally; 2]>>>;

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    phase: &'static str,
    op: &'static str,
    count: u64,
    failed: u64,
    /// p50, p99, p99.9 and the maximum.
    micros: [u64; 4],
    /// To the p99 before.
    added_p99: i64,
}

impl Row {
    /// The head of the table of [`Self::line`]s.
    pub const HEAD: &'static str =
        "phase   op   requests  failed    p50 ms    p99 ms  p99.9 ms    max ms  added p99 ms";

    /// For people.
    #[must_use]
    pub fn line(&self) -> String {
        let [p50, p99, p999, max] = self.micros.map(|micros| micros as f64 / 1e3);
        format!(
            "{:<7} {:<4} {:>8}  {:>6}  {p50:>8.2}  {p99:>8.2}  {p999:>8.2}  {max:>8.2}  {:>12.2}",
            self.phase,
            self.op,
            self.count,
            self.failed,
            self.added_p99 as f64 / 1e3,
        )
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "phase": self.phase,
            "op": self.op,
            "requests": self.count,
            "failed": self.failed,
            "p50_micros": self.micros[0],
            "p99_micros": self.micros[1],
            "p999_micros": self.micros[2],
            "max_micros": self.micros[3],
            "added_p99_micros": self.added_p99,
        })
    }
}

/// Measures a cluster that is not started yet.
///
/// # Errors
/// A cluster that does not start, or no write in the beginning.
pub async fn run(cluster: &Cluster, load: Load) -> anyhow::Result<Vec<Row>> {
    ensure!(load.rate > 0, "a rate of 0 measures nothing");
    ensure!(ONSET < load.phase, "a phase is longer than the onset of {ONSET:?}");
    cluster.start_all().await?;
    cluster.ready(SETTLE).await?;
    let mut line = Http::new(&cluster.proxy.http);
    for key in 0..KEYS {
        let answer = line.ask("PUT", &path(key), &[], &[b'.'; VALUE_BYTES], PATIENCE).await;
        ensure!(answer.is_ok_and(|answer| answer.status == 200), "the keys cannot be written");
    }
    let node = cluster.nodes.first().context("there are nodes")?;
    let tallies: Tallies = Arc::default();
    for _ in PHASES {
        let tally = || -> anyhow::Result<Tally> {
            Ok(Tally { micros: Histogram::new_with_bounds(1, 60_000_000, 3)?, failed: 0 })
        };
        tallies.lock().push([tally()?, tally()?]);
    }
    // Connections and caches are warm when the first phase begins.
    offer(cluster, load, Duration::from_secs(2), None, &tallies).await?;
    offer(cluster, load, load.phase, Some(0), &tallies).await?;
    cluster.say(format_args!("{} is stopped", node.id));
    node.process.lock().await.signal(Signal::STOP);
    offer(cluster, load, ONSET, Some(1), &tallies).await?;
    offer(cluster, load, load.phase - ONSET, Some(2), &tallies).await?;
    node.process.lock().await.signal(Signal::CONT);
    cluster.say(format_args!("{} goes on", node.id));
    offer(cluster, load, load.phase, Some(3), &tallies).await?;
    Ok(rows(&tallies))
}

fn rows(tallies: &Tallies) -> Vec<Row> {
    let tallies = tallies.lock();
    let mut rows = Vec::new();
    for (op, name) in ["GET", "PUT"].into_iter().enumerate() {
        let before = tallies[0][op].micros.value_at_quantile(0.99);
        for (phase, tallies) in PHASES.into_iter().zip(tallies.iter()) {
            let (micros, failed) = (&tallies[op].micros, tallies[op].failed);
            let at = |quantile| micros.value_at_quantile(quantile);
            rows.push(Row {
                phase,
                op: name,
                count: micros.len(),
                failed,
                micros: [at(0.5), at(0.99), at(0.999), micros.max()],
                added_p99: at(0.99).cast_signed() - before.cast_signed(),
            });
        }
    }
    rows
}

fn path(key: u64) -> String {
    format!("/values/key-{key}")
}

/// Offers the load for `time` and waits for its last answer.
async fn offer(
    cluster: &Cluster,
    load: Load,
    time: Duration,
    phase: Option<usize>,
    tallies: &Tallies,
) -> anyhow::Result<()> {
    let lines: Arc<Mutex<Vec<Http>>> = Arc::default();
    let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut under_way = JoinSet::new();
    let began = Instant::now();
    let gap = Duration::from_secs(1) / load.rate;
    for number in 0.. {
        let due = began + gap * number;
        if began + time <= due {
            break;
        }
        sleep_until(due).await;
        while under_way.try_join_next().is_some() {}
        let op = usize::from(number % 2 == 1);
        let note = {
            let tallies = tallies.clone();
            move |micros: Duration, good: bool| {
                let Some(phase) = phase else { return };
                let tally = &mut tallies.lock()[phase][op];
                let micros = u64::try_from(micros.as_micros()).unwrap_or(u64::MAX);
                tally.micros.saturating_record(micros.max(1));
                tally.failed += u64::from(!good);
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            note(PATIENCE, false);
            continue;
        };
        let (lines, address) = (lines.clone(), cluster.proxy.http.clone());
        // Spread over the keys, each kind over all of them.
        let key = u64::from(number / 2).wrapping_mul(7_919) % KEYS;
        under_way.spawn(async move {
            let line = lines.lock().pop();
            let mut line = line.unwrap_or_else(|| Http::new(&address));
            let (method, body): (_, &[u8]) =
                if op == 1 { ("PUT", &[b'.'; VALUE_BYTES]) } else { ("GET", b"") };
            let answer = line.ask(method, &path(key), &[], body, PATIENCE).await;
            note(due.elapsed(), answer.is_ok_and(|answer| answer.status == 200));
            lines.lock().push(line);
            drop(permit);
        });
    }
    while let Some(done) = under_way.join_next().await {
        done?;
    }
    Ok(())
}
