//! Clients: ask processes over HTTP, or directly where they stand, and write down what they were
//! told.
//!
//! ```text
//! load (what) ─► direct: Serving, sees why it failed ─┐
//!             └► http over the client's own host ─────┴► contract ─► notes ─► checkers
//! ```
//! Invariant: an answer counts only if the process that gave it was alive when it came. An outcome
//! is `Unknown` wherever the write may have happened.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tako_checkers::{Answer, Op, Operation, Outcome, Seen};
use tako_flatbuf::{ChangeOutcome, Condition, Record, RecordHead};
use tako_node_core::replication::{Change, OVERTAKEN, Read, RequestError, Write};
use tako_types::Kind;
use tokio::time::{Instant, sleep};

use crate::{
    chance::Chance,
    contract::{self, Known, Told},
    dump::{answer, version},
    http::{HttpClient, NoAnswer},
    load::{Ask, KeyUse, stored},
    notes::Notes,
    scenario::Scenario,
    world::{Asked, World},
};

/// How long a client waits for an answer; over HTTP somewhat longer than a process does.
const PATIENCE: Duration = Duration::from_secs(10);
const HTTP_PATIENCE: Duration = Duration::from_secs(12);
/// Share of requests that go over HTTP.
const BY_HTTP: f64 = 0.7;
/// Values beyond are refused; the scenarios' `value_bytes_max`.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// The host of a client, by its place among the clients. Where nothing moves it has the name of a
/// coordinator's, and ends with that: other names would be other runs of the same seeds.
#[must_use]
pub fn host(scenario: &Scenario, n: usize) -> String {
    let kind = if scenario.moves.is_some() { "u" } else { "c" };
    format!("{kind}{}", n + 1)
}

/// A request that was sent.
struct Sent<'a> {
    name: &'a str,
    ask: &'a Ask,
    level: Option<usize>,
    invoked_at: u64,
    /// A time to live ran from that moment.
    at_once: bool,
}

/// One client.
pub struct Client {
    world: World,
    notes: Notes,
    id: u32,
    chance: Chance,
    http: HttpClient,
    /// By key: what it read last.
    known: BTreeMap<String, Known>,
    /// By key: the highest microseconds it was told.
    seen: BTreeMap<String, u64>,
}

impl Client {
    /// The client at that place.
    #[must_use]
    pub fn new(world: &World, notes: &Notes, n: usize, chance: Chance) -> Self {
        let http = HttpClient::new(world.network_of(&host(world.scenario(), n)));
        Self {
            world: world.clone(),
            notes: notes.clone(),
            id: u32::try_from(n).unwrap_or(u32::MAX),
            chance,
            http,
            known: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Asks for these keys until then.
    pub async fn run(mut self, keys: Vec<KeyUse>, think: Duration, until: Instant) {
        while Instant::now() < until {
            sleep(self.chance.time(Duration::ZERO, think)).await;
            let key = self.chance.pick(&keys).clone();
            let by_http = self.chance.yes(BY_HTTP);
            let asked = self.world.asked();
            // A client of HTTP knows names; who is down does not answer.
            let any = by_http && self.chance.yes(0.1);
            let process = match (any, asked.as_slice()) {
                (false, []) => continue,
                (false, asked) => self.chance.pick(asked).name.clone(),
                (true, _) => self.chance.pick(&self.world.processes()).clone(),
            };
            let seen = self.seen.get(&key.name).copied().unwrap_or(0);
            let of_key = (seen, self.known.get(&key.name));
            let ask = self.notes.draw(&mut self.chance, &key, self.world.micros(), of_key);
            let level = match ask {
                Ask::Change { .. } => None,
                _ => self.level(&key.name, &ask),
            };
            if by_http {
                if self.chance.yes(0.05) {
                    self.http.hang_up();
                }
                self.by_http(&process, &key.name, ask, level).await;
            } else if let Some(asked) = asked.iter().find(|asked| asked.name == process) {
                self.directly(asked, &key.name, ask, level).await;
            }
        }
    }

    /// Mostly none, else one, all, or the usual one named. Not one for a write where folders are
    /// lost: that may be the only one that has it.
    fn level(&mut self, name: &str, ask: &Ask) -> Option<usize> {
        let published = self.world.published();
        let quorum = published.quorum(stored(name).partition(published.partitions_log2()));
        let all = self.world.levels().map(|levels| levels.all);
        let level = match self.chance.below(12) {
            0 if ask.is_read() || !self.world.loses_folders() => Some(1),
            1 => Some(all.unwrap_or(quorum.n)),
            2 => Some(if ask.is_read() { quorum.r } else { quorum.w }),
            _ => None,
        };
        level.map(|level| all.map_or(level, |all| level.min(all)))
    }

    async fn by_http(&mut self, process: &str, name: &str, ask: Ask, level: Option<usize>) {
        let known = self.known.get(name).filter(|_| self.chance.yes(0.2)).cloned();
        let chance = &mut self.chance;
        let patience = match chance.yes(0.15) {
            true => chance.time(Duration::from_millis(5), Duration::from_secs(4)),
            false => HTTP_PATIENCE,
        };
        let request = match contract::request(process, name, &ask, level, known.as_ref(), chance) {
            Ok(request) => request,
            Err(why) => return self.notes.wrong(why),
        };
        let invoked_at = self.world.micros();
        let answer = self.http.ask(process, request, patience).await;
        self.count(&ask, &answer);
        let too_large = matches!(&ask, Ask::Put { bytes, .. } if VALUE_BYTES_MAX < bytes.len());
        let told = contract::told(&ask, too_large, known.as_ref(), &answer);
        let outcome = match told {
            Told::Sure(outcome) => outcome,
            Told::There => return,
            Told::Wrong(why, outcome) => {
                self.notes.wrong(format!("{process}: {name}: {why}"));
                outcome
            }
        };
        let sent = Sent { name, ask: &ask, level, invoked_at, at_once: false };
        self.note(&sent, outcome);
    }

    fn count(&self, ask: &Ask, answer: &Result<crate::http::Answer, NoAnswer>) {
        self.notes.count(&format!("{} by http", ask.kind()));
        match answer {
            Ok(answer) if is_overtaken(answer) => self.notes.count("overtaken while it moved"),
            Ok(answer) => {
                self.notes.count(&format!("http {}", answer.status));
                if answer.on_kept {
                    self.notes.count("on a kept connection");
                }
            }
            Err(NoAnswer::NotSent) => self.notes.count("http not connected"),
            Err(NoAnswer::Lost) => self.notes.count("http without an answer"),
        }
    }

    async fn directly(&mut self, asked: &Asked, name: &str, ask: Ask, level: Option<usize>) {
        self.notes.count(&format!("{} directly", ask.kind()));
        let invoked_at = self.world.micros();
        let key = stored(name);
        let mut write = Write {
            key,
            kind: Kind::Tombstone,
            value: Bytes::new(),
            content_type: None,
            flags: 0,
            expires_at_micros: 0,
            timestamp_micros: ask.timestamp(),
            w: level,
        };
        let mut overtaken = false;
        let outcome = match &ask {
            Ask::Get | Ask::Head => {
                let key = write.key;
                get(asked, &Read { key, r: level }).await
            }
            Ask::Delete { .. } => self.put(asked, write, &mut overtaken).await,
            Ask::Change { new, bytes, expected } => {
                let condition = match expected {
                    None => Condition::Absent,
                    Some(known) => {
                        let Known { version, .. } = known;
                        let (micros, origin) = (version.micros, version.origin);
                        Condition::OneOf(vec![tako_types::Version { micros, origin }])
                    }
                };
                let kind = if new.is_some() { Kind::Value } else { Kind::Tombstone };
                let version = tako_types::Version::ZERO;
                let head = RecordHead { version, kind, expires_at_micros: 0, flags: 0 };
                let template = Record::encode(&write.key, head, None, bytes);
                change(asked, &Change::new(condition, template)).await
            }
            Ask::Put { bytes, ttl, .. } => {
                write.kind = Kind::Value;
                write.value = bytes.clone();
                let now = asked.serving.clock().now_micros();
                write.expires_at_micros = ttl.map_or(0, |ttl| now + micros(ttl));
                self.put(asked, write, &mut overtaken).await
            }
        };
        let failed = matches!(outcome, Outcome::Unknown | Outcome::Unavailable);
        if failed && !asked.dead.is_cancelled() {
            let kind = if overtaken { "overtaken while it moved" } else { "failed directly" };
            self.notes.count(kind);
        }
        let sent = Sent { name, ask: &ask, level, invoked_at, at_once: true };
        self.note(&sent, outcome);
    }

    /// The flag says whether it is unknown for that reason.
    async fn put(&self, asked: &Asked, write: Write, overtaken: &mut bool) -> Outcome {
        // Every other client is as patient as the client library.
        let put = async {
            match self.id % 2 {
                0 => asked.serving.put(write, PATIENCE).await,
                _ => asked.serving.put_patiently(write, PATIENCE).await,
            }
        };
        let result = tokio::select! {
            biased;
            () = asked.dead.cancelled() => return Outcome::Unknown,
            result = put => result,
        };
        match result {
            Ok(written) if written.won => Outcome::Acked { version: version(written.version) },
            Ok(written) => Outcome::Superseded { version: version(written.version) },
            Err(RequestError::Invalid(_) | RequestError::Drift(_)) => Outcome::Refused,
            Err(error) => {
                *overtaken = error.to_string().contains(OVERTAKEN);
                Outcome::Unknown
            }
        }
    }

    /// Keeps what a key has, as far as the answer tells.
    fn learn(&mut self, name: &str, ask: &Ask, outcome: &Outcome) {
        let (value, version) = match (outcome, ask) {
            (Outcome::Found { value, version }, _) => (*value, *version),
            (Outcome::Applied { version }, Ask::Change { new: Some(value), .. }) => {
                (*value, *version)
            }
            (Outcome::Absent { .. } | Outcome::Applied { .. }, _) => {
                self.known.remove(name);
                return;
            }
            _ => return,
        };
        let etag = format!("\"{}-{:016x}\"", version.micros, version.origin);
        self.known.insert(name.to_owned(), Known { etag, value, version });
    }

    /// Writes an operation down.
    fn note(&mut self, sent: &Sent<'_>, outcome: Outcome) {
        let Sent { name, ask, level, invoked_at, at_once } = *sent;
        let published = self.world.published();
        let quorum = published.quorum(stored(name).partition(published.partitions_log2()));
        let returned_at = self.world.micros();
        let (mut n, mut w) = (count(quorum.n), count(level.unwrap_or(quorum.w)));
        let mut r = count(level.unwrap_or(quorum.r));
        if let Some(levels) = self.world.levels() {
            // By which document it was judged is not known.
            (r, _) = levels.read(level);
            (w, n) = levels.write(level);
            if ask.is_read() {
                (_, n) = levels.read(level);
            }
        }
        self.learn(name, ask, &outcome);
        let op = match *ask {
            Ask::Change { new, ref expected, .. } => {
                let expected = expected.as_ref().map(|known| known.value);
                Op::Cas { expected, new, w, expires_at: None }
            }
            Ask::Get | Ask::Head => Op::Get { r },
            Ask::Delete { timestamp } => Op::Delete { w, timestamp },
            Ask::Put { value, ttl, timestamp, .. } => {
                let latest = match outcome {
                    _ if at_once => invoked_at,
                    // It may still arrive.
                    Outcome::Unknown => u64::MAX,
                    _ => returned_at,
                };
                let expires_at = ttl.map(|ttl| invoked_at + micros(ttl));
                let expires_by = ttl.map(|ttl| latest.saturating_add(micros(ttl)));
                Op::Put { value, w, expires_at, expires_by, timestamp }
            }
        };
        match outcome {
            Outcome::Acked { version }
            | Outcome::Applied { version }
            | Outcome::Superseded { version }
            | Outcome::Found { version, .. } => {
                let seen = self.seen.entry(name.to_owned()).or_default();
                *seen = version.micros.max(*seen);
            }
            _ => {}
        }
        let operation = Operation {
            client: self.id,
            key: name.to_owned(),
            n,
            invoked_at,
            returned_at: Some(returned_at),
            op,
            outcome,
        };
        self.notes.push(operation);
    }

    /// Reads every key once through every process that runs, directly and over HTTP.
    pub async fn read_everywhere(&mut self, keys: &[KeyUse]) {
        for asked in self.world.asked() {
            for KeyUse { name, .. } in keys {
                self.directly(&asked, name, Ask::Get, None).await;
                self.by_http(&asked.name, name, Ask::Get, None).await;
            }
        }
    }
}

fn count(level: usize) -> u32 {
    u32::try_from(level).unwrap_or(u32::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The one answer to a write that orders alone may cause: its version may have been seen, and others
/// wrote the key meanwhile.
fn is_overtaken(answer: &crate::http::Answer) -> bool {
    answer.status == 503 && String::from_utf8_lossy(&answer.body).contains(OVERTAKEN)
}

async fn change(asked: &Asked, change: &Change) -> Outcome {
    let result = tokio::select! {
        biased;
        () = asked.dead.cancelled() => return Outcome::Unknown,
        result = asked.serving.change(change, PATIENCE) => result,
    };
    match result {
        Ok(ChangeOutcome::Done { version: done, .. }) => {
            Outcome::Applied { version: version(done) }
        }
        Ok(ChangeOutcome::Fails { .. }) => Outcome::Mismatch { seen: Seen::Untold },
        Ok(ChangeOutcome::Cannot(_)) => Outcome::Refused,
        Ok(ChangeOutcome::Unknown { .. }) => Outcome::Unknown,
        Err(_) => Outcome::Refused,
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
