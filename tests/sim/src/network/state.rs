//! All that the network knows, behind one lock: hosts, cuts, listeners, open connections.
//!
//! Invariant: a waker is never woken under the lock; who changes something takes the wakers along
//! and wakes them, in the order of connections, once it is free. Everything is kept in order, so
//! that nothing depends on where memory lies.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    task::Waker,
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use super::{
    faults::{CutKind, LinkFaults},
    trace::Trace,
    traffic::{Connection, Side},
    way::Way,
};
use crate::{chance::Chance, counts::FaultCounts};

/// From one host to another.
pub(super) type Pair = (Arc<str>, Arc<str>);

/// First port given out where port 0 is asked for.
const FIRST_PORT: u16 = 10_000;

/// One life of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) host: Arc<str>,
    pub(super) incarnation: u64,
}

/// Somebody who takes streams at an address.
#[derive(Clone)]
pub(super) struct Listening {
    pub(super) life: Life,
    pub(super) queue: mpsc::Sender<super::Accepted>,
}

pub(super) struct State {
    chance: Chance,
    pub(super) counts: FaultCounts,
    pub(super) trace: Trace,
    pub(super) usual: LinkFaults,
    pub(super) links: BTreeMap<Pair, LinkFaults>,
    pub(super) cuts: BTreeMap<Pair, CutKind>,
    pub(super) refusing: BTreeSet<Arc<str>>,
    pub(super) connect_max: Option<Duration>,
    /// By host, the incarnations seen and whether each still lives.
    lives: BTreeMap<Arc<str>, BTreeMap<u64, bool>>,
    pub(super) listeners: BTreeMap<String, Listening>,
    /// Who listened last at an address.
    homes: BTreeMap<String, Arc<str>>,
    pub(super) connections: BTreeMap<u64, Connection>,
    /// Connections opened so far.
    opened: u64,
    /// Streams of chance drawn so far, by host from, host to and purpose.
    streams: BTreeMap<String, u64>,
    ports: u16,
}

impl State {
    pub(super) fn new(chance: Chance, counts: FaultCounts) -> Self {
        Self {
            chance,
            counts,
            trace: Trace::new(),
            usual: LinkFaults::quiet(),
            links: BTreeMap::new(),
            cuts: BTreeMap::new(),
            refusing: BTreeSet::new(),
            connect_max: None,
            lives: BTreeMap::new(),
            listeners: BTreeMap::new(),
            homes: BTreeMap::new(),
            connections: BTreeMap::new(),
            opened: 0,
            streams: BTreeMap::new(),
            ports: 0,
        }
    }

    /// Makes a life known; one that has ended stays ended.
    pub(super) fn see(&mut self, life: &Life) {
        let lives = self.lives.entry(Arc::clone(&life.host)).or_default();
        lives.entry(life.incarnation).or_insert(true);
    }

    pub(super) fn is_alive(&self, life: &Life) -> bool {
        let lives = self.lives.get(&life.host);
        lives.and_then(|lives| lives.get(&life.incarnation)).copied().unwrap_or(false)
    }

    /// The host an address leads to.
    pub(super) fn home(&self, address: &str) -> Arc<str> {
        let named = || Arc::from(address.rsplit_once(':').map_or(address, |(host, _)| host));
        self.homes.get(address).map_or_else(named, Arc::clone)
    }

    pub(super) fn faults(&self, from: &Arc<str>, to: &Arc<str>) -> LinkFaults {
        match self.links.get(&pair(from, to)) {
            Some(faults) => *faults,
            None if from == to => LinkFaults::loopback(),
            None => self.usual,
        }
    }

    pub(super) fn cut_of(&self, from: &Arc<str>, to: &Arc<str>) -> Option<CutKind> {
        self.cuts.get(&pair(from, to)).copied()
    }

    /// Whether nothing can be agreed between two hosts.
    pub(super) fn is_cut_off(&self, a: &Arc<str>, b: &Arc<str>) -> bool {
        self.cut_of(a, b).or(self.cut_of(b, a)).is_some()
    }

    /// Somebody waits for a cut to be healed, to connect.
    pub(super) fn note_cut(&mut self, from: &str, to: &str) {
        self.counts.add("connect met a cut");
        self.trace.note(from, to, 0, "connect met a cut", Duration::ZERO);
    }

    /// A further stream of chance between two hosts.
    pub(super) fn stream(&mut self, from: &str, to: &str, purpose: &str) -> Chance {
        let name = format!("{from} > {to} {purpose}");
        let number = self.streams.entry(name.clone()).or_default();
        *number += 1;
        self.chance.part(&format!("{name} {number}"))
    }

    /// The address to listen at, with a real port.
    pub(super) fn listen(&mut self, address: &str, listening: Listening) -> io::Result<String> {
        let address = match address.strip_suffix(":0") {
            Some(host) => {
                self.ports += 1;
                format!("{host}:{}", FIRST_PORT + self.ports)
            }
            None => address.to_owned(),
        };
        if self.listeners.get(&address).is_some_and(|there| !there.queue.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.homes.insert(address.clone(), Arc::clone(&listening.life.host));
        self.listeners.insert(address.clone(), listening);
        Ok(address)
    }

    /// Opens a connection; its number.
    pub(super) fn open(&mut self, from: &Arc<str>, to: &Arc<str>) -> u64 {
        let now = Instant::now();
        let there = Way::new(self.stream(from, to, "there"), now);
        let back = Way::new(self.stream(from, to, "back"), now);
        self.opened += 1;
        self.trace.note(from, to, 0, "opened", Duration::ZERO);
        let hosts = [Arc::clone(from), Arc::clone(to)];
        let sides = [Side::default(), Side::default()];
        self.connections.insert(self.opened, Connection { hosts, ways: [there, back], sides });
        self.opened
    }

    /// Begins or ends a cut.
    pub(super) fn set_cut(&mut self, pair: Pair, kind: Option<CutKind>, wakers: &mut Vec<Waker>) {
        let before = match kind {
            Some(kind) => self.cuts.insert(pair.clone(), kind),
            None => self.cuts.remove(&pair),
        };
        if before == kind {
            return;
        }
        let what = match kind {
            Some(CutKind::Vanish) => "cut",
            Some(CutKind::Stall) => "cut, frames stalled",
            None => "healed",
        };
        if kind.is_some() {
            self.counts.add(what);
        }
        self.trace.note(&pair.0, &pair.1, 0, what, Duration::ZERO);
        for connection in self.connections.values_mut() {
            for side in 0..2 {
                if connection.hosts[side] != pair.0 || connection.hosts[1 - side] != pair.1 {
                    continue;
                }
                if kind == Some(CutKind::Vanish) {
                    for _ in 0..connection.ways[side].lose_all() {
                        self.counts.add("frame vanished in a cut");
                    }
                }
                connection.wake(wakers);
            }
        }
    }

    /// All cuts there are.
    pub(super) fn cuts(&self) -> Vec<Pair> {
        self.cuts.keys().cloned().collect()
    }

    /// Ends every life of a host.
    pub(super) fn crash(&mut self, host: &Arc<str>, wakers: &mut Vec<Waker>) {
        self.counts.add("host crashed");
        self.trace.note(host, host, 0, "crashed", Duration::ZERO);
        for lives in self.lives.get_mut(host).into_iter().flat_map(BTreeMap::values_mut) {
            *lives = false;
        }
        self.listeners.retain(|_, listening| listening.life.host != *host);
        let now = Instant::now();
        let mut connections = std::mem::take(&mut self.connections);
        for connection in connections.values_mut() {
            for side in 0..2 {
                if connection.hosts[side] != *host || connection.sides[side].dead {
                    continue;
                }
                let faults = self.faults(host, &connection.hosts[1 - side]);
                let way = &mut connection.ways[side];
                let delay = faults.latency(&mut way.chance);
                connection.sides[side].dead = true;
                connection.sides[1 - side].reset_by(now + delay);
                connection.ways[1 - side].clear();
                connection.wake(wakers);
            }
        }
        self.connections = connections;
    }

    /// Resets open connections at both sides.
    pub(super) fn reset_where(
        &mut self,
        wakers: &mut Vec<Waker>,
        concerns: impl Fn(&[Arc<str>; 2]) -> bool,
    ) {
        let now = Instant::now();
        for connection in self.connections.values_mut().filter(|it| concerns(&it.hosts)) {
            if connection.sides.iter().any(|side| side.dead || side.reset_at.is_some()) {
                continue;
            }
            self.counts.add("connection reset");
            let [from, to] = &connection.hosts;
            self.trace.note(from, to, 0, "reset", Duration::ZERO);
            connection.sides.iter_mut().for_each(|side| side.reset_by(now));
            connection.wake(wakers);
        }
    }
}

/// From one host to another.
pub(super) fn pair(from: &Arc<str>, to: &Arc<str>) -> Pair {
    (Arc::clone(from), Arc::clone(to))
}
