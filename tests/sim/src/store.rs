//! One object store for all processes, which is slow, fails, or is away.
//!
//! ```text
//! process ─► View (alive? away? fate of the call) ─► request on its way ─► InMemory
//! ```
//! Invariants: the store itself is sound: calls take effect at one instant or not at all, and a
//! list shows what is there (as S3's does). A request that is on its way may arrive although the
//! process that sent it has ended or gave up waiting; one sent later never does. Objects bear
//! simulated times. Not here: when the store is away, and what is kept in it.

mod call;
mod upload;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use object_store::{ObjectMeta, ObjectStore, memory::InMemory, path::Path};
use parking_lot::Mutex;
use tako_snapshot::Store;
use tako_types::Clock;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{chance::Chance, clock::SimClock, counts::FaultCounts};
use view::View;

/// Where the cluster's data lie: beside it there is room for a restored one.
const ROOT: &str = "cluster-1";

/// The least and the most time that a call takes, both ways, when nothing is wrong.
const LATENCY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(60));

#[derive(Debug)]
struct State {
    /// Nobody is answered.
    away: bool,
    /// These processes are not answered.
    cut_off: BTreeSet<String>,
    latency_max: Duration,
    error_rate: f64,
    /// Incarnations of processes that have ended.
    ended: BTreeSet<(String, u64)>,
    written: BTreeMap<Path, DateTime<Utc>>,
    trace: u64,
}

#[derive(Debug)]
struct Shared {
    memory: InMemory,
    clock: SimClock,
    start: Instant,
    chance: Chance,
    counts: FaultCounts,
    state: Mutex<State>,
}

/// See the module; clones are the same store.
#[derive(Debug, Clone)]
pub struct SimStore(Arc<Shared>);

impl SimStore {
    /// An empty store in a simulation that starts now.
    #[must_use]
    pub fn new(chance: &Chance, counts: &FaultCounts) -> Self {
        let state = State {
            away: false,
            cut_off: BTreeSet::new(),
            latency_max: LATENCY.1,
            error_rate: 0.0,
            ended: BTreeSet::new(),
            written: BTreeMap::new(),
            trace: 0,
        };
        let start = Instant::now();
        Self(Arc::new(Shared {
            memory: InMemory::new(),
            clock: SimClock::new(start),
            start,
            chance: chance.part("store"),
            counts: counts.clone(),
            state: Mutex::new(state),
        }))
    }

    /// The store as one incarnation of a process sees it.
    #[must_use]
    pub fn view(&self, process: &str, life: u64) -> Store {
        Store::new(Arc::new(View::new(self.0.clone(), process, life)), Path::from(ROOT), false)
    }

    /// The store without faults, for checkers; also with simulated times.
    #[must_use]
    pub fn backend(&self) -> Arc<dyn ObjectStore> {
        Arc::new(View::sound(self.0.clone()))
    }

    /// The cluster's data without faults, for checkers.
    #[must_use]
    pub fn sound(&self) -> Store {
        Store::new(self.backend(), Path::from(ROOT), false)
    }

    /// The right time.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.0.clock.clone())
    }

    /// An incarnation of a process ends at this instant: its later calls fail; those on their way
    /// arrive or not, by chance.
    pub fn crash(&self, process: &str, life: u64) {
        self.0.state.lock().ended.insert((process.to_owned(), life));
    }

    /// A process, or everybody, gets no answer (an error at once, or nothing until long after);
    /// or does again.
    pub fn set_outage(&self, process: Option<&str>, away: bool) {
        let mut state = self.0.state.lock();
        match (process, away) {
            (None, _) => state.away = away,
            (Some(name), true) => drop(state.cut_off.insert(name.to_owned())),
            (Some(name), false) => drop(state.cut_off.remove(name)),
        }
    }

    /// Every call fails with this probability, half of the time after its effect.
    pub fn set_errors(&self, rate: f64) {
        self.0.state.lock().error_rate = rate;
    }

    /// Calls take up to this long; `None` for as long as usual.
    pub fn set_slow(&self, latency_max: Option<Duration>) {
        self.0.state.lock().latency_max = latency_max.unwrap_or(LATENCY.1);
    }

    /// Every fault ends; ended processes stay ended.
    pub fn heal(&self) {
        let mut state = self.0.state.lock();
        state.away = false;
        state.cut_off.clear();
        state.latency_max = LATENCY.1;
        state.error_rate = 0.0;
    }

    /// A number that differs where calls, their times or their fates differed.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.0.state.lock().trace
    }
}

impl Shared {
    fn now(&self) -> DateTime<Utc> {
        let micros = i64::try_from(self.clock.now_micros()).unwrap_or(i64::MAX);
        DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    fn note_written(&self, path: &Path) {
        self.state.lock().written.insert(path.clone(), self.now());
    }

    fn note_deleted(&self, path: &Path) {
        self.state.lock().written.remove(path);
    }

    /// Puts the simulated time in place of the machine's.
    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let written = self.state.lock().written.get(&meta.location).copied();
        meta.last_modified = written.unwrap_or_else(|| self.now());
        meta
    }

    /// Adds a call to the trace.
    fn trace(&self, process: &str, op: &str, path: &str, fate: &str) {
        let nanos = self.start.elapsed().as_nanos();
        let line = format!("{nanos} {process} {op} {path} {fate}");
        let mut state = self.state.lock();
        state.trace = xxh3_64_with_seed(line.as_bytes(), state.trace);
    }
}

#[cfg(test)]
mod tests;
