//! The coordinators of a simulated cluster, each on a machine of its own, and their configuration
//! file, which changes while they run.
//!
//! A supervisor starts again what ends by itself. The file is the operator's: it is on the disk
//! again before a coordinator whose disk was lost starts. Invariant: at the end, and whenever
//! nothing is wrong for long enough, everybody has the newest document, and it is the last good
//! file. What was seen on the way is judged by [`Epochs`]. Not here: when things go wrong; what becomes
//! of the file (`file.rs`), orders about migrations (`orders.rs`), what is looked at (`seen.rs`).

mod file;
mod orders;
mod seen;

use std::{path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tako_coordinator::{Coordinator, CoordinatorOptions, InForce, Schedule, ScheduledBackups};
use tako_journal::Blocking;
use tako_node_core::configuration::ConfigSource;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    chance::Chance,
    counts::FaultCounts,
    disk::{Crash, SimDisk},
    epochs::Epochs,
    lines::Lines,
    network::SimNetwork,
    operator::Stand,
    scenario::Scenario,
    settings::Settings,
    store::SimStore,
};

const FOLDER: &str = "/etc/tako";
const FILE: &str = "tako.yaml";
/// What a supervisor waits before it starts a process again that ended by itself.
const START_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Longest time that a piece of disk work takes.
const DISK_WORK_MAX: Duration = Duration::from_millis(20);

/// One coordinator's machine.
struct Place {
    id: String,
    life: u64,
    disk: SimDisk,
    chance: Chance,
    running: Option<Running>,
    /// The file as it should be on the disk.
    file: Vec<u8>,
}

struct Running {
    dead: CancellationToken,
    in_force: Option<InForce>,
}

/// What the operator wants.
struct Wanted {
    /// Changes so far: a later one ends what is left of an earlier one.
    change: u64,
    settings: Settings,
    stand: Stand,
}

impl Wanted {
    fn file(&self, scenario: &Scenario) -> String {
        self.settings.file(scenario, &self.stand)
    }
}

/// What coordinators have in common with the rest of the world.
#[derive(Clone)]
pub struct Surroundings {
    /// Between all hosts.
    pub network: SimNetwork,
    /// Where documents are published.
    pub store: SimStore,
    /// Faults so far.
    pub counts: FaultCounts,
    /// Who runs all that goes on.
    pub tasks: TaskTracker,
    /// No more faults begin, nothing that is down is started by itself.
    pub over: CancellationToken,
    /// What happens, for those who look on.
    pub lines: Lines,
}

struct Inner {
    around: Surroundings,
    scenario: Scenario,
    chance: Mutex<Chance>,
    places: Mutex<Vec<Place>>,
    wanted: Mutex<Wanted>,
    epochs: Epochs,
    /// Whether a move that is under way at the end is finished, not given up.
    finish_at_end: bool,
}

/// See the module; clones are the same coordinators.
#[derive(Clone)]
pub struct Coordinators(Arc<Inner>);

impl Coordinators {
    /// Coordinators that do not run yet, with the scenario's first file on their disks.
    #[must_use]
    pub fn new(scenario: &Scenario, around: Surroundings, chance: &Chance) -> Self {
        let (settings, stand) = (Settings::of(scenario), Stand::first(scenario));
        let wanted = Wanted { change: 0, settings, stand };
        let file = wanted.file(scenario).into_bytes();
        let place = |n: usize| {
            let id = format!("c{}", n + 1);
            let place = Place {
                life: 0,
                disk: SimDisk::new(around.counts.clone()),
                chance: chance.part(&format!("disk of {id}")),
                running: None,
                file: file.clone(),
                id,
            };
            place.put_file();
            place
        };
        let places = Mutex::new((0..scenario.coordinators).map(place).collect());
        let all = Self(Arc::new(Inner {
            scenario: scenario.clone(),
            chance: Mutex::new(chance.part("coordinators")),
            places,
            wanted: Mutex::new(wanted),
            epochs: Epochs::default(),
            finish_at_end: chance.part("the last order").yes(0.5),
            around,
        }));
        all.allow(&all.0.wanted.lock());
        all
    }

    /// Their hosts.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        self.0.places.lock().iter().map(|place| place.id.clone()).collect()
    }

    /// Where nodes and proxies get their configuration.
    #[must_use]
    pub fn source(&self) -> ConfigSource {
        let places = self.0.places.lock();
        ConfigSource::Coordinators(places.iter().map(|p| format!("{}:4600", p.id)).collect())
    }

    /// The oracle.
    #[must_use]
    pub fn epochs(&self) -> &Epochs {
        &self.0.epochs
    }

    /// Starts those that are down.
    pub fn start_all(&self) {
        for n in 0..self.0.scenario.coordinators {
            self.start(n);
        }
    }

    fn start(&self, n: usize) {
        let inner = &self.0;
        let mut places = inner.places.lock();
        let place = &mut places[n];
        if place.running.is_some() {
            return;
        }
        place.life += 1;
        place.disk.remember();
        let dead = CancellationToken::new();
        place.running = Some(Running { dead: dead.clone(), in_force: None });
        let (id, life) = (place.id.clone(), place.life);
        let pace = Mutex::new(inner.chance.lock().part(&format!("disk work of {id} {life}")));
        let pace = move || pace.lock().time(Duration::ZERO, DISK_WORK_MAX);
        let store = inner.around.store.view(&id, life);
        let clock = inner.around.store.clock();
        let schedule = Schedule {
            store: Arc::new(ScheduledBackups::new(store.clone(), clock.clone())),
            clock,
        };
        let options = CoordinatorOptions {
            store: Some(Arc::new(store)),
            backups: Some(schedule),
            disk: Arc::new(place.disk.clone()),
            blocking: Blocking::Here(Arc::new(pace)),
            ..CoordinatorOptions::new(
                id.as_str(),
                Path::new(FOLDER).join(FILE),
                "/var".into(),
                Arc::new(inner.around.network.as_host(&id, life)),
            )
        };
        drop(places);
        inner.around.lines.say(|| format!("{id} starts, life {life}"));
        let all = self.clone();
        inner.around.tasks.spawn(async move {
            // A supervisor: what cannot start is started again.
            let living = async {
                loop {
                    match Coordinator::start(options.clone()).await {
                        Ok(coordinator) => all.took_off(n, &id, coordinator).await,
                        Err(error) => {
                            all.0.around.lines.say(|| format!("{id} cannot start: {error}"));
                        }
                    }
                    sleep(START_AGAIN_AFTER).await;
                }
            };
            // What a crash leaves undone is not done: the whole process is dropped.
            dead.run_until_cancelled(living).await;
        });
    }

    /// A coordinator has started: it serves for as long as it lives.
    async fn took_off(&self, n: usize, id: &str, coordinator: Coordinator) {
        let mut in_force = coordinator.in_force();
        if let Some(running) = &mut self.0.places.lock()[n].running {
            running.in_force = Some(in_force.clone());
        }
        let watching = async {
            loop {
                self.0.epochs.in_force(id, &in_force.published());
                if !in_force.changed().await {
                    return;
                }
            }
        };
        tokio::join!(coordinator.serve(std::future::pending()), watching);
    }

    /// Ends a coordinator's process at this instant.
    pub fn crash(&self, n: usize, after: Crash) {
        let inner = &self.0;
        let mut places = inner.places.lock();
        let place = &mut places[n];
        let Some(running) = place.running.take() else { return };
        running.dead.cancel();
        let (id, life) = (place.id.clone(), place.life);
        inner.around.lines.say(|| format!("{id} crashes, life {life}: {after:?}"));
        inner.around.network.crash(&id);
        inner.around.store.crash(&id, life);
        place.disk.die();
        place.disk = place.disk.after_crash(after, &mut place.chance);
        place.put_file();
        if matches!(after, Crash::Empty | Crash::RolledBack) {
            inner.epochs.forget(&id);
        }
        inner.around.counts.add("coordinator crashed");
    }

    /// Crashes one, or all, and starts them again after a time. With `after_changes` it ends in the
    /// middle of disk work, if there is any soon.
    pub fn crash_for(
        &self,
        which: Option<usize>,
        after: Crash,
        down: Duration,
        after_changes: u64,
    ) {
        let count = self.0.scenario.coordinators;
        for n in (0..count).filter(|n| which.is_none_or(|which| which == *n)) {
            let (disk, life) = {
                let places = self.0.places.lock();
                if places[n].running.is_none() {
                    self.0.around.counts.add("fault passed over: the coordinator is down");
                    continue;
                }
                (places[n].disk.clone(), places[n].life)
            };
            let fall = move |all: &Self| {
                all.crash(n, after);
                all.later(down, move |all| all.start(n));
            };
            if after_changes == 0 {
                fall(self);
                continue;
            }
            disk.die_after(after_changes);
            let all = self.clone();
            self.0.around.tasks.spawn(async move {
                // Most of the time there is nothing to write.
                let _met = tokio::time::timeout(Duration::from_secs(5), disk.died()).await;
                if all.0.places.lock()[n].life == life {
                    fall(&all);
                }
            });
        }
    }

    fn later(&self, after: Duration, what: impl FnOnce(&Self) + Send + 'static) {
        let all = self.clone();
        self.0.around.tasks.spawn(async move {
            let over = all.0.around.over.clone();
            if over.run_until_cancelled(sleep(after)).await.is_some() {
                what(&all);
            }
        });
    }

    /// Every fault ends, the last good file is everywhere, all run.
    pub fn settle(&self) {
        for n in 0..self.0.scenario.coordinators {
            let (disk, is_dead) = {
                let places = self.0.places.lock();
                (places[n].disk.clone(), places[n].disk.is_dead())
            };
            disk.heal();
            if is_dead {
                self.crash(n, Crash::Kept);
            }
        }
        self.put_back();
        self.start_all();
    }

    /// Ends all.
    pub fn end_all(&self) {
        for n in 0..self.0.scenario.coordinators {
            self.crash(n, Crash::Kept);
        }
    }

    /// Ends all, with nothing but another file left on their disks.
    pub fn lose_all(&self) {
        for n in 0..self.0.scenario.coordinators {
            self.crash(n, Crash::Empty);
        }
        let settings = Settings::draw(&self.0.scenario, &mut self.0.chance.lock());
        {
            let mut wanted = self.0.wanted.lock();
            wanted.settings = settings;
            self.allow(&wanted);
        }
        self.put_back();
    }
}
