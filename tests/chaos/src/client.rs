//! Clients: ask nodes and the proxy over HTTP, and write down what they were told.
//!
//! Invariant: an outcome is `Unknown` wherever docs/http.md does not say that nothing was stored:
//! after a 503, a broken connection, or no answer in time.

use std::{collections::BTreeMap, time::Duration};

use tako_checkers::{Op, Operation, Outcome, Seen, Version};
use tokio::time::{Instant, sleep};

use crate::{
    chance::Chance,
    http::{Answer, Failed, Http},
    notes::Notes,
};

/// How long a client waits; longer than `request_deadline`.
const PATIENCE: Duration = Duration::from_secs(12);
/// Longest time between two requests of one client.
const THINK: Duration = Duration::from_millis(25);
/// Share of the requests that are for keys which are changed under conditions.
const CHANGES: f64 = 0.3;
/// What follows the value's number, at most.
const PADDING_MAX: usize = 6_000;
/// How far back a client's own timestamp lies at most. The grace of tombstones is longer than
/// this, a stopped process and a request's deadline together.
const BACK_MAX: Duration = Duration::from_secs(3);

/// What a client may ask for.
#[derive(Debug, Clone)]
pub struct Habits {
    /// Addresses, asked at random.
    pub targets: Vec<String>,
    /// Their names.
    pub keys: Vec<String>,
    /// Those of keys that are only read, and changed under conditions.
    pub changed: Vec<String>,
    /// Replicas.
    pub n: usize,
    /// The usual levels.
    pub r: usize,
    /// As `r`.
    pub w: usize,
    /// Writes to a single replica; not where disks are emptied, for these may take it along.
    pub w_of_one: bool,
}

/// The names of so many keys.
#[must_use]
pub fn key_names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("k{n}")).collect()
}

/// The names of so many keys that are only changed under conditions.
#[must_use]
pub fn changed_names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("c{n}")).collect()
}

/// What a client knows of a key that it wants to change: value and version; `None`: that there is none.
type Known = BTreeMap<String, Option<(u64, Version)>>;

/// One client, until `until`.
pub async fn run(habits: Habits, notes: Notes, id: u32, mut chance: Chance, until: Instant) {
    let mut lines: Vec<Http> = habits.targets.iter().map(|target| Http::new(target)).collect();
    let mut known = Known::new();
    while Instant::now() < until {
        sleep(chance.time(Duration::ZERO, THINK)).await;
        let at = chance.below(lines.len());
        if chance.yes(CHANGES)
            && let Some(key) = chance.pick(&habits.changed).cloned()
        {
            let line = &mut lines[at];
            change(&habits, &notes, id, &mut chance, line, (&key, &mut known)).await;
            continue;
        }
        let Some(key) = chance.pick(&habits.keys).cloned() else { return };
        request(&habits, &notes, id, &mut chance, &mut lines[at], &key).await;
    }
}

/// Reads a key, or writes or deletes it where it still has what this client knows of it.
async fn change(
    habits: &Habits,
    notes: &Notes,
    client: u32,
    chance: &mut Chance,
    line: &mut Http,
    (key, known): (&str, &mut Known),
) {
    let path = format!("/values/{key}");
    let Some(expected) = known.get(key).copied().filter(|_| chance.yes(0.6)) else {
        match read(notes, client, habits.n, habits.r, key, line, &path).await {
            Outcome::Found { value, version } => {
                known.insert(key.to_owned(), Some((value, version)));
            }
            Outcome::Absent { .. } => drop(known.insert(key.to_owned(), None)),
            _ => {}
        }
        return;
    };
    // Where there is none, to delete it would say nothing.
    let new = (expected.is_none() || chance.yes(0.85)).then(|| notes.value());
    let method = if new.is_some() { "PUT" } else { "DELETE" };
    let header = match expected {
        Some((_, Version { micros, origin })) => {
            ("if-match", format!("\"{micros}-{origin:016x}\""))
        }
        None => ("if-none-match", "*".to_owned()),
    };
    let body = new.map_or_else(String::new, |value| format!("{value}:"));
    let invoked_at = notes.micros();
    let outcome = match line.ask(method, &path, &[header], body.as_bytes(), PATIENCE).await {
        Ok(answer) => changed(notes, &answer),
        Err(Failed::NotSent(_)) => Outcome::Refused,
        Err(Failed::Sent(_)) => Outcome::Unknown,
    };
    match (&outcome, new) {
        (Outcome::Applied { version }, new) => {
            known.insert(key.to_owned(), new.map(|value| (value, *version)));
        }
        // Else it would try what it knows again and again.
        (Outcome::Mismatch { .. } | Outcome::Unknown, _) => drop(known.remove(key)),
        _ => {}
    }
    let expected = expected.map(|(value, _)| value);
    notes.push(Operation {
        client,
        key: key.to_owned(),
        n: count(habits.n),
        invoked_at,
        returned_at: Some(notes.micros()),
        op: Op::Cas { expected, new, w: count(habits.w), expires_at: None },
        outcome,
    });
}

/// What docs/http.md says of the answer to a write under a condition.
fn changed(notes: &Notes, answer: &Answer) -> Outcome {
    match (answer.status, version(answer)) {
        (200 | 204, Some(version)) => Outcome::Applied { version },
        (412, _) => Outcome::Mismatch { seen: Seen::Untold },
        (503, _) if answer.text().contains("nothing was changed") => Outcome::Refused,
        (503, _) if answer.text().contains("\"outcome unknown\"") => Outcome::Unknown,
        (status, _) => {
            notes.odd(format!("a change was answered {status}: {}", answer.text()));
            Outcome::Unknown
        }
    }
}

async fn request(
    habits: &Habits,
    notes: &Notes,
    client: u32,
    chance: &mut Chance,
    line: &mut Http,
    key: &str,
) {
    let level = |chance: &mut Chance, usual: usize, least: usize| match chance.below(12) {
        0 => least,
        1 => habits.n,
        _ => usual,
    };
    let path = format!("/values/{key}");
    let least = if habits.w_of_one { 1 } else { 2.min(habits.n) };
    let kind = chance.below(100);
    if kind < 50 {
        let r = level(chance, habits.r, 1);
        let query = if r == habits.r { String::new() } else { format!("?r={r}") };
        read(notes, client, habits.n, r, key, line, &format!("{path}{query}")).await;
        return;
    }
    let w = level(chance, habits.w, least);
    let mut query = if w == habits.w { Vec::new() } else { vec![format!("w={w}")] };
    let mut headers = Vec::new();
    let timestamp = chance.yes(0.12).then(|| {
        let back = chance.time(Duration::ZERO, BACK_MAX);
        notes.timestamp(notes.micros() - u64::try_from(back.as_micros()).unwrap_or(0))
    });
    headers.extend(timestamp.map(|micros| ("x-timestamp", micros.to_string())));
    let (method, mut body, value, ttl) = if kind < 85 {
        let value = notes.value();
        let mut text = format!("{value}:").into_bytes();
        if chance.yes(0.2) {
            text.resize(text.len() + chance.below(PADDING_MAX), b'.');
        }
        let ttl = chance.yes(0.1).then(|| chance.time(Duration::from_secs(1), 6 * BACK_MAX / 3));
        ("PUT", text, Some(value), ttl)
    } else {
        ("DELETE", Vec::new(), None, None)
    };
    query.extend(ttl.map(|ttl| format!("ttl={}ms", ttl.as_millis())));
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let invoked_at = notes.micros();
    let ttl = ttl.and_then(|ttl| u64::try_from(ttl.as_millis()).ok());
    let expires_at = ttl.map(|millis| invoked_at + millis * 1_000);
    let level = count(w);
    let path = format!("{path}{query}");
    let result = line.ask(method, &path, &headers, &body, PATIENCE).await;
    body.clear();
    let outcome = match result {
        Ok(answer) => written(notes, &answer, timestamp),
        Err(Failed::NotSent(_)) => Outcome::Refused,
        Err(Failed::Sent(_)) => Outcome::Unknown,
    };
    let n = count(habits.n);
    let returned_at = notes.micros();
    // The server counts from when the request came.
    let expires_by = ttl.map(|millis| returned_at + millis * 1_000);
    let op = match value {
        Some(value) => Op::Put { value, w: level, expires_at, expires_by, timestamp },
        None => Op::Delete { w: level, timestamp },
    };
    let returned_at = Some(returned_at);
    notes.push(Operation { client, key: key.to_owned(), n, invoked_at, returned_at, op, outcome });
}

/// One read, written down.
pub(crate) async fn read(
    notes: &Notes,
    client: u32,
    n: usize,
    r: usize,
    key: &str,
    line: &mut Http,
    path: &str,
) -> Outcome {
    let invoked_at = notes.micros();
    let outcome = match line.ask("GET", path, &[], b"", PATIENCE).await {
        Ok(answer) => found(notes, &answer),
        Err(_) => Outcome::Unavailable,
    };
    notes.push(Operation {
        client,
        key: key.to_owned(),
        n: count(n),
        invoked_at,
        returned_at: Some(notes.micros()),
        op: Op::Get { r: count(r) },
        outcome: outcome.clone(),
    });
    outcome
}

fn written(notes: &Notes, answer: &Answer, timestamp: Option<u64>) -> Outcome {
    match (answer.status, version(answer)) {
        (200 | 204, Some(version)) if answer.header("x-tako-superseded").is_some() => {
            Outcome::Superseded { version }
        }
        (200 | 204, Some(version)) => {
            if timestamp.is_some_and(|micros| micros != version.micros) {
                notes.odd(format!("a write with timestamp {timestamp:?} was done at {version}"));
            }
            Outcome::Acked { version }
        }
        (400, _) => {
            notes.odd(format!("a write was answered 400: {}", answer.text()));
            Outcome::Refused
        }
        (408 | 503, _) => Outcome::Unknown,
        (status, _) => {
            notes.odd(format!("a write was answered {status}: {}", answer.text()));
            Outcome::Unknown
        }
    }
}

fn found(notes: &Notes, answer: &Answer) -> Outcome {
    match (answer.status, version(answer)) {
        (200, Some(version)) => Outcome::Found { value: number(&answer.body), version },
        (404, _) => Outcome::Absent { version: None },
        (503, _) => Outcome::Unavailable,
        (status, _) => {
            notes.odd(format!("a read was answered {status}: {}", answer.text()));
            Outcome::Unavailable
        }
    }
}

/// The number a value begins with; 0, which nobody writes, for what is no such value.
#[must_use]
pub fn number(value: &[u8]) -> u64 {
    let end = value.iter().position(|byte| *byte == b':').unwrap_or(0);
    std::str::from_utf8(&value[..end]).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The version in an ETag: `"<micros>-<origin, hex>"`.
fn version(answer: &Answer) -> Option<Version> {
    let (micros, origin) = answer.header("etag")?.trim_matches('"').split_once('-')?;
    Some(Version::new(micros.parse().ok()?, u64::from_str_radix(origin, 16).ok()?))
}

fn count(level: usize) -> u32 {
    u32::try_from(level).unwrap_or(u32::MAX)
}
