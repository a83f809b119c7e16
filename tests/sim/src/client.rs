//! Clients: ask any process that runs, and write down what they were told.
//!
//! Invariant: an answer counts only if the process that gave it was alive when it came. An outcome
//! is `Unknown` wherever the write may have happened.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tako_checkers::{Answer, Dump, History, Op, Operation, Outcome, Version};
use tako_flatbuf::Record;
use tako_node_core::replication::{Read, RequestError, Write};
use tako_types::{Key, Kind, StoredKey};
use tokio::time::{Instant, sleep};

use crate::{
    chance::Chance,
    world::{Asked, World},
};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What follows the value's number.
const PADDING_MAX: usize = 6_000;

/// What all clients of a run wrote down; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<(History, u64)>>);

impl Notes {
    /// The history so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.0.lock().0.clone()
    }

    /// A number no other write has.
    fn value(&self) -> u64 {
        let mut notes = self.0.lock();
        notes.1 += 1;
        notes.1
    }

    fn push(&self, operation: Operation) {
        self.0.lock().0.push(operation);
    }
}

/// The key of that name, as stored.
///
/// # Panics
/// Never: the names are short.
#[must_use]
pub fn key(name: &str) -> StoredKey {
    Key::new(0, Bytes::copy_from_slice(name.as_bytes())).expect("a short key").stored()
}

/// Which keys a scenario asks for.
#[must_use]
pub fn key_names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("k{n}")).collect()
}

/// One client, until `until`.
pub async fn run(
    world: World,
    notes: Notes,
    id: u32,
    mut chance: Chance,
    keys: Vec<String>,
    think: Duration,
    until: Instant,
) {
    while Instant::now() < until {
        sleep(chance.time(Duration::ZERO, think)).await;
        let asked = world.asked();
        if asked.is_empty() {
            continue;
        }
        let asked = chance.pick(&asked).clone();
        let name = chance.pick(&keys).clone();
        request(&world, &notes, id, &mut chance, &asked, &name).await;
    }
}

async fn request(
    world: &World,
    notes: &Notes,
    client: u32,
    chance: &mut Chance,
    asked: &Asked,
    name: &str,
) {
    let stored = key(name);
    let published = world.published();
    let quorum = published.quorum(stored.partition(published.partitions_log2()));
    let levels = |chance: &mut Chance, usual: usize| match chance.below(12) {
        0 => Some(1),
        1 => Some(quorum.n),
        2 => Some(usual),
        _ => None,
    };
    let invoked_at = world.micros();
    let (op, outcome) = if chance.yes(0.5) {
        let r = levels(chance, quorum.r);
        let read = Read { key: stored, r };
        let op = Op::Get { r: count(r.unwrap_or(quorum.r)) };
        (op, get(asked, &read).await)
    } else {
        let w = levels(chance, quorum.w);
        let level = count(w.unwrap_or(quorum.w));
        let value = notes.value();
        let mut write = Write {
            key: stored,
            kind: Kind::Value,
            value: Bytes::new(),
            content_type: None,
            flags: 0,
            expires_at_micros: 0,
            timestamp_micros: None,
            w,
        };
        let op = if chance.yes(0.15) {
            write.kind = Kind::Tombstone;
            Op::Delete { w: level, timestamp: None }
        } else {
            let mut text = format!("{value}:").into_bytes();
            if chance.yes(0.2) {
                text.resize(text.len() + chance.below(PADDING_MAX), b'.');
            }
            write.value = text.into();
            Op::Put { value, w: level, expires_at: None, timestamp: None }
        };
        (op, put(asked, write).await)
    };
    notes.push(Operation {
        client,
        key: name.to_owned(),
        n: count(quorum.n),
        invoked_at,
        returned_at: Some(world.micros()),
        op,
        outcome,
    });
}

fn count(level: usize) -> u32 {
    u32::try_from(level).unwrap_or(u32::MAX)
}

fn version(version: tako_types::Version) -> Version {
    Version::new(version.micros, version.origin)
}

async fn put(asked: &Asked, write: Write) -> Outcome {
    let result = tokio::select! {
        biased;
        () = asked.dead.cancelled() => return Outcome::Unknown,
        result = asked.serving.put(write, PATIENCE) => result,
    };
    match result {
        Ok(written) if written.won => Outcome::Acked { version: version(written.version) },
        Ok(written) => Outcome::Superseded { version: version(written.version) },
        Err(RequestError::Invalid(_) | RequestError::Drift(_)) => Outcome::Refused,
        Err(_) => Outcome::Unknown,
    }
}

async fn get(asked: &Asked, read: &Read) -> Outcome {
    let result = tokio::select! {
        biased;
        () = asked.dead.cancelled() => return Outcome::Unavailable,
        result = asked.serving.get(read, PATIENCE) => result,
    };
    match result {
        Ok(record) => match answer(record.as_ref(), asked.serving.clock().now_micros()) {
            Answer::Found { value, version } => Outcome::Found { value, version },
            Answer::Absent { version } => Outcome::Absent { version },
        },
        Err(_) => Outcome::Unavailable,
    }
}

/// What a record says to a client.
fn answer(record: Option<&Record>, now_micros: u64) -> Answer {
    match record {
        None => Answer::Absent { version: None },
        Some(record) if !record.is_live_at(now_micros) => {
            Answer::Absent { version: Some(version(record.version())) }
        }
        Some(record) => {
            let bytes = record.value();
            let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
            let value = digits.fold(0u64, |sum, digit| {
                sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))
            });
            Answer::Found { value, version: version(record.version()) }
        }
    }
}

/// Reads every key once through every process that runs.
pub async fn read_everywhere(world: &World, notes: &Notes, keys: &[String]) {
    let published = world.published();
    for asked in world.asked() {
        for name in keys {
            let stored = key(name);
            let quorum = published.quorum(stored.partition(published.partitions_log2()));
            let invoked_at = world.micros();
            let outcome = get(&asked, &Read { key: stored, r: None }).await;
            notes.push(Operation {
                client: 1_000,
                key: name.clone(),
                n: count(quorum.n),
                invoked_at,
                returned_at: Some(world.micros()),
                op: Op::Get { r: count(quorum.r) },
                outcome,
            });
        }
    }
}

/// What every node by itself holds of the keys it is a replica of.
///
/// # Errors
/// A node that cannot say.
pub async fn dumps(world: &World, keys: &[String]) -> Result<Vec<Dump>, String> {
    let published = world.published();
    let mut dumps = Vec::new();
    for (id, node) in world.nodes() {
        let engine = node.replica.engine();
        let mut dump = Dump { replica: id.clone(), asked_at: world.micros(), ..Dump::default() };
        for name in keys {
            let stored = key(name);
            let p = stored.partition(published.partitions_log2());
            if !published.is_replica(engine.node(), p) {
                continue;
            }
            // A read may wait for one of the same block that hangs since a store outage.
            let mut tries = 0;
            let vote = loop {
                match engine.vote(p, &stored).await {
                    Ok(vote) => break vote,
                    Err(error) if tries == 5 => return Err(format!("{id}: {error}")),
                    Err(_) => tries += 1,
                }
            };
            let said = answer(vote.record.as_ref(), engine.clock().now_micros());
            dump.answers.insert(name.clone(), said);
        }
        let held = published.partitions_of(engine.node());
        let uncovered = held.into_iter().map(|p| engine.partition_status(p).uncovered as u64);
        dump.uncovered = uncovered.sum();
        dump.answered_at = world.micros();
        dumps.push(dump);
    }
    Ok(dumps)
}

/// One dump of all nodes together: of each key the newest answer.
#[must_use]
pub fn together(dumps: &[Dump]) -> Dump {
    let mut all = Dump { replica: "the store".to_owned(), ..Dump::default() };
    let rank = |answer: &Answer| match answer {
        Answer::Found { version, .. } => Some(*version),
        Answer::Absent { version } => *version,
    };
    for dump in dumps {
        all.asked_at = dump.asked_at;
        all.answered_at = dump.answered_at;
        for (key, answer) in &dump.answers {
            let newest = all.answers.entry(key.clone()).or_insert(*answer);
            if rank(newest) < rank(answer) {
                *newest = *answer;
            }
        }
    }
    all
}
