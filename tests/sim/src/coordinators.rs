//! The coordinators of a simulated cluster, each on a machine of its own, and their configuration
//! file, which changes while they run.
//!
//! A supervisor starts again what ends by itself. The file is the operator's: it is on the disk
//! again before a coordinator whose disk was lost starts. Invariant: at the end, and whenever
//! nothing is wrong for long enough, everybody has the newest document, and it is the last good
//! file. What was seen on the way is judged by [`Epochs`]. Not here: when things go wrong; orders
//! about migrations (`orders.rs`).

mod orders;

use std::{path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tako_coordinator::{Coordinator, CoordinatorOptions, InForce};
use tako_journal::{Blocking, replace_file};
use tako_node_core::configuration::{ConfigCell, ConfigSource};
use tako_snapshot::Store;
use tako_types::config::{Config, Published};
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
    plan::{Half, NewFile},
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
/// Longest time between the files of two coordinators.
const FILES_APART_MAX: Duration = Duration::from_secs(5);

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

    fn allow(&self, wanted: &Wanted) {
        // Settings always make a valid file; one that does not would never be seen published.
        if let Ok(config) = Config::parse(&wanted.file(&self.0.scenario)) {
            self.0.epochs.allow(config.sha256());
        }
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
        let options = CoordinatorOptions {
            store: Some(Arc::new(inner.around.store.view(&id, life))),
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

    /// Puts another file on the disks, at each a little later; first a half of it, if so wanted. A
    /// bad one is taken back after a while.
    pub fn configure(&self, file: &NewFile, half: Option<Half>, lasts: Duration) {
        let inner = &self.0;
        let (change, bytes) = {
            let mut wanted = inner.wanted.lock();
            wanted.change += 1;
            let bytes = match file {
                NewFile::Good(settings) => {
                    wanted.settings = settings.clone();
                    self.allow(&wanted);
                    wanted.file(&inner.scenario).into_bytes()
                }
                NewFile::Bad(bad) => bad.file(&inner.scenario, &wanted.settings, &wanted.stand),
            };
            (wanted.change, bytes)
        };
        inner.around.counts.add(match file {
            NewFile::Good(_) => "configuration changed",
            NewFile::Bad(_) => "bad configuration",
        });
        if matches!(file, NewFile::Bad(_)) {
            self.later(lasts, move |all| {
                if all.0.wanted.lock().change == change {
                    all.put_back();
                }
            });
        }
        self.spread(change, &bytes, half);
    }

    /// Puts a file on the disks, at each a little later.
    fn spread(&self, change: u64, bytes: &[u8], half: Option<Half>) {
        let inner = &self.0;
        for n in 0..inner.scenario.coordinators {
            let apart = match n {
                0 => Duration::ZERO,
                _ => inner.chance.lock().time(Duration::ZERO, FILES_APART_MAX),
            };
            let (all, bytes) = (self.clone(), bytes.to_vec());
            inner.around.tasks.spawn(async move {
                sleep(apart).await;
                let Some(Half { share, lasts }) = half else {
                    return all.put_file(n, change, &bytes);
                };
                let most = bytes.len().saturating_sub(1);
                let length = (bytes.len() as f64 * share) as usize;
                let part = &bytes[..length.min(most)];
                all.put_file(n, change, part);
                sleep(lasts).await;
                // Who began goes on to the end, unless another file came in between.
                let mut places = all.0.places.lock();
                if places[n].file == part {
                    all.0.around.counts.add("half a configuration");
                    places[n].file = bytes;
                    places[n].put_file();
                }
            });
        }
    }

    /// The operator writes a file, unless there was another change since.
    fn put_file(&self, n: usize, change: u64, bytes: &[u8]) {
        if self.0.wanted.lock().change == change {
            let mut places = self.0.places.lock();
            places[n].file = bytes.to_vec();
            places[n].put_file();
        }
    }

    /// The last good file, everywhere.
    fn put_back(&self) {
        let (change, file) = {
            let mut wanted = self.0.wanted.lock();
            wanted.change += 1;
            (wanted.change, wanted.file(&self.0.scenario))
        };
        for n in 0..self.0.scenario.coordinators {
            self.put_file(n, change, file.as_bytes());
        }
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

    /// Notes what a process has in force, as long as it lives.
    pub fn watch(&self, who: &str, config: &ConfigCell, dead: CancellationToken) {
        let (epochs, who) = (self.0.epochs.clone(), who.to_owned());
        let mut documents = config.subscribe();
        self.0.around.tasks.spawn(async move {
            loop {
                let document = documents.borrow_and_update().clone();
                epochs.in_force(&who, &document);
                tokio::select! {
                    biased;
                    () = dead.cancelled() => return,
                    changed = documents.changed() => {
                        if changed.is_err() {
                            return;
                        }
                    }
                }
            }
        });
    }

    /// Whether the last good file is published and everybody has it: `others` are nodes' and
    /// proxies' names and what they have in force.
    ///
    /// # Errors
    /// Who has not.
    pub async fn is_settled(&self, others: Vec<(String, Arc<Published>)>) -> Result<(), String> {
        let newest = self.newest().await?.ok_or("nothing is published")?;
        let wanted = self.0.wanted.lock().file(&self.0.scenario);
        let wanted = Config::parse(&wanted).map_err(|error| error.to_string())?;
        if newest.config.sha256() != wanted.sha256() {
            return Err(format!("configuration {} is not the last file", newest.epoch));
        }
        if let Some(migration) = &newest.migration {
            let phase = migration.phase.as_str();
            return Err(format!("configuration {} is in {phase}", newest.epoch));
        }
        for place in self.0.places.lock().iter() {
            let running = place.running.as_ref().and_then(|running| running.in_force.as_ref());
            let Some(in_force) = running else { return Err(format!("{} is down", place.id)) };
            let epoch = in_force.published().epoch;
            if epoch != newest.epoch {
                return Err(format!("{} is at {epoch}, not at {}", place.id, newest.epoch));
            }
        }
        for (name, document) in others {
            if document.epoch != newest.epoch {
                let (has, newest) = (document.epoch, newest.epoch);
                return Err(format!("{name} is at {has}, not at {newest}"));
            }
        }
        Ok(())
    }

    fn backend(&self) -> Store {
        Store::new(self.0.around.store.backend(), Default::default(), false)
    }

    /// The newest document in the store.
    ///
    /// # Errors
    /// A document that makes no sense.
    pub async fn newest(&self) -> Result<Option<Published>, String> {
        let latest = self.backend().latest_config().await.map_err(|error| error.to_string())?;
        let decoded = latest.map(|(_, bytes)| Published::decode(&bytes));
        decoded.transpose().map_err(|error| format!("a published document: {error}"))
    }

    /// Looks at every document in the store.
    ///
    /// # Errors
    /// A document that is not there or makes no sense.
    pub async fn look_at_store(&self) -> Result<(), String> {
        let newest = self.newest().await?.map_or(0, |document| document.epoch.number);
        for number in 1..=newest {
            let found = self.backend().config(number).await.map_err(|error| error.to_string())?;
            let bytes = found.ok_or_else(|| format!("configuration {number} is not there"))?;
            let document = Published::decode(&bytes)
                .map_err(|error| format!("configuration {number}: {error}"))?;
            if document.epoch.number != number {
                return Err(format!("configuration {number} says it is {}", document.epoch));
            }
            self.0.epochs.seen("the store", &document);
        }
        Ok(())
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

impl Place {
    fn put_file(&self) {
        // A disk whose process has just died takes nothing: the next one gets the file.
        let _ = replace_file(&self.disk, Path::new(FOLDER), FILE, &self.file);
    }
}
