//! Three replicas, two proposers and a plain writer under a seeded network and clocks that differ.
//!
//! Messages are late, lost, doubled and out of order; replicas restart and forget, evict, and get
//! repairs. Claim: whatever conditional record was taken by any replica at all, no write was
//! acknowledged between what it had read and itself. So each successful one reads what the
//! previous successful wrote, and one that failed half-way does not undo another later.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tako_types::{StoredKey, Version};

use super::{LIFE, NOW, key};
use crate::engine::promise::Promises;

const REPLICAS: usize = 3;
const MAJORITY: usize = 2;
/// How far clocks are from the true time; two of them differ by no more than the drift.
const OFFSET: i64 = 30_000_000;
const CEILING_AHEAD: u64 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    version: Version,
    /// What a conditional write had read; `None` for a plain one.
    base: Option<Version>,
}

struct Replica {
    held: BTreeMap<StoredKey, Held>,
    promises: Promises,
    ceiling: u64,
    offset: i64,
}

#[derive(Debug, Clone)]
enum Message {
    Prepare { by: usize, ballot: Version, key: StoredKey },
    Promise { by: usize, ballot: Version, from: usize, shown: Version },
    Refuse { by: usize, ballot: Version, above: Version },
    Accept { key: StoredKey, held: Held },
    Write { key: StoredKey, held: Held },
    Repair { key: StoredKey, held: Held },
    Ack { key: StoredKey, version: Version, from: usize },
}

#[derive(Default)]
struct Proposer {
    ballot: Version,
    key: Option<StoredKey>,
    promised: BTreeMap<usize, Version>,
    accepting: bool,
    above: u64,
}

struct Model {
    random: StdRng,
    time: u64,
    replicas: Vec<Replica>,
    proposers: Vec<Proposer>,
    /// To which replica, if to one.
    network: Vec<(usize, Message)>,
    acks: BTreeMap<(StoredKey, Version), BTreeSet<usize>>,
    /// Every conditional record that a replica took: its key, version and base.
    taken: BTreeSet<(StoredKey, Version, Version)>,
    plain: BTreeSet<Version>,
}

impl Replica {
    fn version(&self, key: &StoredKey) -> Version {
        self.held.get(key).map_or(Version::ZERO, |held| held.version)
    }

    fn take(&mut self, key: &StoredKey, held: Held) {
        self.promises.settle(key, held.version);
        self.held.insert(key.clone(), held);
    }
}

fn few_promises() -> Promises {
    Promises { count_max: 2, ..Promises::default() }
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let replica = |random: &mut StdRng| Replica {
            held: BTreeMap::new(),
            promises: few_promises(),
            ceiling: 0,
            offset: random.random_range(-OFFSET..=OFFSET),
        };
        let replicas = (0..REPLICAS).map(|_| replica(&mut random)).collect();
        Self {
            random,
            time: NOW,
            replicas,
            proposers: vec![Proposer::default(), Proposer::default()],
            network: Vec::new(),
            acks: BTreeMap::new(),
            taken: BTreeSet::new(),
            plain: BTreeSet::new(),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn some_key(&mut self) -> StoredKey {
        key(["a", "b", "c"][self.random.random_range(0..3)])
    }

    fn broadcast(&mut self, message: &Message) {
        self.network.extend((0..REPLICAS).map(|to| (to, message.clone())));
    }

    fn step(&mut self) {
        let ahead = if self.chance(2) { LIFE / 2 } else { 200_000 };
        self.time += self.random.random_range(0..ahead);
        match self.random.random_range(0..100) {
            0..70 => self.deliver(),
            70..80 => self.start_proposal(),
            80..86 => self.start_write(),
            86..93 => self.start_repair(),
            93..96 => self.restart(),
            _ => {}
        }
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        // Mostly the young ones, so that much succeeds; the old ones come late.
        let count = self.network.len();
        let from = if self.chance(80) { count.saturating_sub(8) } else { 0 };
        let at = self.random.random_range(from..count);
        let (to, message) = self.network[at].clone();
        if !self.chance(5) {
            self.network.remove(at);
        }
        if !self.chance(5) {
            self.on_message(to, message);
        }
    }

    fn start_proposal(&mut self) {
        let by = self.random.random_range(0..2);
        let ours = self.time.saturating_add_signed([OFFSET, -OFFSET][by]);
        let key = self.some_key();
        let proposer = &mut self.proposers[by];
        let micros = ours.max(proposer.above + 1).max(proposer.ballot.micros + 1);
        let ballot = Version { micros, origin: 10 + by as u64 };
        let above = proposer.above;
        *proposer = Proposer { ballot, key: Some(key.clone()), above, ..Proposer::default() };
        self.broadcast(&Message::Prepare { by, ballot, key });
    }

    /// A plain write; a third of them with an old timestamp of the client's.
    fn start_write(&mut self) {
        let past = if self.chance(33) { 100_000_000 } else { 1 };
        let micros = self.time - self.random.random_range(0..past);
        let version = Version { micros, origin: 20 };
        if self.plain.insert(version) {
            let key = self.some_key();
            self.broadcast(&Message::Write { key, held: Held { version, base: None } });
        }
    }

    fn start_repair(&mut self) {
        let key = self.some_key();
        let (from, to) = (self.random.random_range(0..3), self.random.random_range(0..3));
        if let Some(held) = self.replicas[from].held.get(&key).copied() {
            self.network.push((to, Message::Repair { key, held }));
        }
    }

    /// Forgets promises; records and the ceiling are on disk.
    fn restart(&mut self) {
        let which = self.random.random_range(0..REPLICAS);
        let replica = &mut self.replicas[which];
        replica.promises = few_promises();
        if let Some(micros) = replica.ceiling.checked_sub(1) {
            replica.promises.raise_floor(Version { micros, origin: u64::MAX });
        }
    }

    fn on_message(&mut self, to: usize, message: Message) {
        let now = self.time.saturating_add_signed(self.replicas[to].offset);
        let replica = &mut self.replicas[to];
        match message {
            Message::Prepare { by, ballot, key } => {
                let held = replica.version(&key);
                if held >= ballot {
                    self.network.push((to, Message::Refuse { by, ballot, above: held }));
                    return;
                }
                replica.ceiling = replica.ceiling.max(ballot.micros + CEILING_AHEAD);
                let answer = match replica.promises.prepare(&key, ballot, now) {
                    Err(above) => Message::Refuse { by, ballot, above },
                    Ok(()) => {
                        replica.promises.answered(&key, ballot, held);
                        Message::Promise { by, ballot, from: to, shown: held }
                    }
                };
                self.network.push((to, answer));
            }
            Message::Promise { by, ballot, from, shown } => {
                let proposer = &mut self.proposers[by];
                if proposer.ballot != ballot || proposer.accepting {
                    return;
                }
                proposer.promised.insert(from, shown);
                if proposer.promised.len() >= MAJORITY
                    && let Some(key) = proposer.key.clone()
                {
                    proposer.accepting = true;
                    let base = proposer.promised.values().max().copied();
                    self.broadcast(&Message::Accept { key, held: Held { version: ballot, base } });
                }
            }
            Message::Refuse { by, ballot, above } => {
                let proposer = &mut self.proposers[by];
                if proposer.ballot == ballot {
                    proposer.above = above.micros;
                }
            }
            Message::Accept { key, held } => {
                let base = held.base.unwrap_or_default();
                let present = replica.version(&key);
                let counts = if present == held.version {
                    replica.promises.may_count(&key, held.version, now)
                } else if present > base
                    || replica.promises.may_accept(&key, held.version, now).is_err()
                {
                    false
                } else {
                    replica.take(&key, held);
                    self.taken.insert((key.clone(), held.version, base));
                    true
                };
                self.ack(key, held.version, to, counts);
            }
            Message::Write { key, held } => {
                let present = replica.version(&key);
                let counts = if present == held.version {
                    replica.promises.may_count(&key, held.version, now)
                } else if present > held.version
                    || replica.promises.may_write(&key, held.version, now).is_err()
                {
                    false
                } else {
                    replica.take(&key, held);
                    true
                };
                self.ack(key, held.version, to, counts);
            }
            Message::Repair { key, held } => {
                if replica.version(&key) < held.version {
                    replica.take(&key, held);
                }
            }
            Message::Ack { key, version, from } => {
                self.acks.entry((key, version)).or_default().insert(from);
            }
        }
    }

    fn ack(&mut self, key: StoredKey, version: Version, from: usize, counts: bool) {
        if counts {
            self.network.push((from, Message::Ack { key, version, from }));
        }
    }

    /// Versions of a key that a majority acknowledged.
    fn acknowledged(&self) -> impl Iterator<Item = &(StoredKey, Version)> {
        self.acks.iter().filter(|(_, from)| from.len() >= MAJORITY).map(|(write, _)| write)
    }
}

#[test]
fn no_acknowledged_write_lies_between_a_conditional_write_and_what_it_read() {
    let (mut conditional, mut plain) = (0, 0);
    for seed in 0..1_500 {
        let mut model = Model::new(seed);
        for _ in 0..500 {
            model.step();
        }
        for (key, version) in model.acknowledged() {
            let is_plain = model.plain.contains(version);
            plain += u32::from(is_plain);
            conditional += u32::from(!is_plain);
            for (other, ballot, base) in &model.taken {
                assert!(
                    other != key || version <= base || ballot <= version,
                    "seed {seed}: {version} was acknowledged, {ballot} read {base}"
                );
            }
        }
    }
    // Else the claim would be about nothing.
    assert!(conditional > 2_000 && plain > 2_000, "{conditional} conditional, {plain} plain");
}
