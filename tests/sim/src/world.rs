//! The simulated cluster: starts, ends and repairs processes, and carries out a plan's faults.
//!
//! A crash cuts a process off from network, disk and store at that instant; tasks that are left
//! run into errors and end. Invariant: never do more replicas lose state at once than the cluster
//! promises to bear (a node counts until it serves again), so the checkers may demand everything.
//! Not here: what is asked of it at its end, and whose loss can be borne (`judged.rs`).

mod judged;

use std::{path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tako_journal::Blocking;
use tako_node_core::{
    node::{Node, NodeOptions},
    proxy::{Proxy, ProxyOptions},
    replication::Serving,
};
use tako_types::{NodeId, config::Published};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    chance::Chance,
    client,
    clock::SimClock,
    coordinators::{Coordinators, Surroundings},
    counts::FaultCounts,
    disk::{Crash, SimDisk},
    door::Door,
    layout::Levels,
    lines::Lines,
    network::{CutKind, HostNetwork, LinkFaults, SimNetwork},
    plan::{Fault, Kind},
    scenario::Scenario,
    store::SimStore,
};

/// Small, so that a run of a minute uses several.
const JOURNAL_FILE_BYTES: u64 = 256 << 10;
/// What a supervisor waits before it starts a process again that ended by itself.
const START_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Longest time that a piece of disk work takes.
const DISK_WORK_MAX: Duration = Duration::from_millis(20);
/// How long a node may take to leave in good order.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// A process that clients can ask, and the end of its life.
#[derive(Clone)]
pub struct Asked {
    /// Its name.
    pub name: String,
    /// What serves.
    pub serving: Arc<Serving>,
    /// Cancelled when the process has crashed: answers that come later never reached anybody.
    pub dead: CancellationToken,
}

/// One node's place: its machine.
struct Machine {
    id: String,
    clock: SimClock,
    life: u64,
    disk: SimDisk,
    /// What its crashes leave.
    chance: Chance,
    running: Option<Running>,
    /// It lost state and does not serve again yet.
    at_risk: bool,
    /// Its disk fails: it is to be restarted.
    failing: bool,
}

struct Running {
    node: Option<Arc<Node>>,
    /// Its way in by HTTP.
    door: Option<Door>,
    dead: CancellationToken,
}

struct ProxyPlace {
    id: String,
    life: u64,
    disk: SimDisk,
    running: Option<RunningProxy>,
}

/// A proxy's process, from the moment it starts.
struct RunningProxy {
    proxy: Option<Arc<Proxy>>,
    dead: CancellationToken,
}

/// See the module; clones are the same world.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

struct Inner {
    scenario: Scenario,
    published: Arc<Published>,
    coordinators: Coordinators,
    network: SimNetwork,
    store: SimStore,
    counts: FaultCounts,
    chance: Mutex<Chance>,
    machines: Mutex<Vec<Machine>>,
    proxies: Mutex<Vec<ProxyPlace>>,
    began: Instant,
    /// Everything that goes on in the world's own name.
    tasks: TaskTracker,
    /// No machine that is down is started, and no fault is undone, any more.
    over: CancellationToken,
    lines: Lines,
}

impl World {
    /// A world in which nothing runs yet. `published` is what the scenario's first configuration
    /// comes to; what lies where stays as it is there.
    #[must_use]
    pub fn new(scenario: &Scenario, published: Published, chance: &Chance) -> Self {
        let counts = FaultCounts::default();
        let began = Instant::now();
        let machine = |n: usize| {
            let id = format!("n{}", n + 1);
            Machine {
                clock: SimClock::new(began),
                life: 0,
                disk: SimDisk::new(counts.clone()),
                chance: chance.part(&format!("disk of {id}")),
                running: None,
                at_risk: false,
                failing: false,
                id,
            }
        };
        let proxy = |n: usize| {
            let id = format!("p{}", n + 1);
            ProxyPlace { id, life: 0, disk: SimDisk::new(counts.clone()), running: None }
        };
        let network = SimNetwork::new(chance, &counts);
        let store = SimStore::new(chance, &counts);
        let (tasks, over, lines) =
            (TaskTracker::new(), CancellationToken::new(), Lines::new(began));
        let around = Surroundings {
            network: network.clone(),
            store: store.clone(),
            counts: counts.clone(),
            tasks: tasks.clone(),
            over: over.clone(),
            lines: lines.clone(),
        };
        let inner = Inner {
            published: Arc::new(published),
            coordinators: Coordinators::new(scenario, around, chance),
            network,
            store,
            chance: Mutex::new(chance.part("world")),
            machines: Mutex::new((0..scenario.nodes).map(machine).collect()),
            proxies: Mutex::new((0..scenario.proxies).map(proxy).collect()),
            began,
            tasks,
            over,
            counts,
            scenario: scenario.clone(),
            lines,
        };
        inner.network.set_connect_max(Some(Duration::from_secs(4)));
        Self { inner: Arc::new(inner) }
    }

    /// Tells what happens in the world, line by line.
    pub fn on_line(&self, line: impl Fn(&str) + Send + 'static) {
        self.inner.lines.listen(line);
    }

    fn say(&self, what: impl FnOnce() -> String) {
        self.inner.lines.say(what);
    }

    /// Microseconds since the world began.
    #[must_use]
    pub fn micros(&self) -> u64 {
        u64::try_from(self.inner.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Faults so far, by kind.
    #[must_use]
    pub fn counts(&self) -> &FaultCounts {
        &self.inner.counts
    }

    /// Who publishes the configuration.
    #[must_use]
    pub fn coordinators(&self) -> &Coordinators {
        &self.inner.coordinators
    }

    /// What kind of run it is.
    #[must_use]
    pub fn scenario(&self) -> &Scenario {
        &self.inner.scenario
    }

    /// What requests can say and rely on where deployments change.
    #[must_use]
    pub fn levels(&self) -> Option<Levels> {
        Levels::of(&self.inner.scenario)
    }

    /// Whether faults of this scenario cost nodes their folders, one at a time.
    #[must_use]
    pub fn loses_folders(&self) -> bool {
        let loses = |kind: &Kind| matches!(kind, Kind::DiskLoss | Kind::Damage | Kind::SyncError);
        self.inner.scenario.faults.iter().any(loses)
    }

    /// A number that differs where two runs went different ways.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.inner.network.trace_hash() ^ self.inner.store.trace_hash().rotate_left(32)
    }

    /// Starts everything, and waits until all serve.
    ///
    /// # Errors
    /// What was missing at the end of `within`.
    pub async fn start_all(&self, within: Duration) -> Result<(), String> {
        self.inner.coordinators.start_all();
        self.start_servers(within).await
    }

    /// Starts every node and proxy, and waits until all serve.
    async fn start_servers(&self, within: Duration) -> Result<(), String> {
        for n in 0..self.inner.scenario.nodes {
            self.start(n);
        }
        for n in 0..self.inner.scenario.proxies {
            self.start_proxy(n);
        }
        self.wait_until("all serve", within, |world| world.is_serving()).await
    }

    async fn wait_until(
        &self,
        what: &str,
        within: Duration,
        holds: impl Fn(&Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let until = Instant::now() + within;
        loop {
            let Err(why) = holds(self) else { return Ok(()) };
            if until < Instant::now() {
                return Err(format!("not within {within:?}: {what}: {why}"));
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// Whom clients can ask now.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        let mut all = Vec::new();
        for proxy in self.inner.proxies.lock().iter() {
            if let Some(RunningProxy { proxy: Some(running), dead }) = &proxy.running {
                let serving = running.serving.clone();
                all.push(Asked { name: proxy.id.clone(), serving, dead: dead.clone() });
            }
        }
        for machine in self.inner.machines.lock().iter() {
            if let Some(Running { node: Some(node), dead, .. }) = &machine.running {
                let serving = node.serving.clone();
                all.push(Asked { name: machine.id.clone(), serving, dead: dead.clone() });
            }
        }
        all
    }

    /// The names of all nodes and proxies, whether they run or not.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        let nodes = (0..self.inner.scenario.nodes).map(|n| format!("n{}", n + 1));
        nodes.chain((0..self.inner.scenario.proxies).map(|n| format!("p{}", n + 1))).collect()
    }

    /// The network as a client's host sees it.
    #[must_use]
    pub fn network_of(&self, client: &str) -> HostNetwork {
        self.inner.network.as_host(client, 1)
    }

    /// The nodes that run, by name.
    #[must_use]
    pub fn nodes(&self) -> Vec<(String, Arc<Node>)> {
        let machines = self.inner.machines.lock();
        let running = machines.iter().filter_map(|machine| {
            Some((machine.id.clone(), machine.running.as_ref()?.node.clone()?))
        });
        running.collect()
    }

    fn start(&self, n: usize) {
        let inner = &self.inner;
        let mut machines = inner.machines.lock();
        let machine = &mut machines[n];
        if machine.running.is_some() {
            return;
        }
        machine.life += 1;
        let life = machine.life;
        let id = machine.id.clone();
        let dead = CancellationToken::new();
        machine.running = Some(Running { node: None, door: None, dead: dead.clone() });
        machine.disk.remember();
        let options = {
            let (world, name) = (self.clone(), format!("disk work of {id} {life}"));
            let chance = Mutex::new(world.inner.chance.lock().part(&name));
            move || {
                let (clock, disk) = {
                    let machines = world.inner.machines.lock();
                    (machines[n].clock.clone(), machines[n].disk.clone())
                };
                let (seed, pace) = {
                    let mut chance = chance.lock();
                    (chance.number(), Mutex::new(chance.part("pace")))
                };
                NodeOptions {
                    id: NodeId::new(&id),
                    var: PathBuf::from("/var"),
                    source: world.inner.coordinators.source(),
                    store: None,
                    accept_loss: false,
                    clock: Arc::new(clock),
                    seed,
                    network: Arc::new(world.inner.network.as_host(&id, life)),
                    disk: Arc::new(disk),
                    blocking: Blocking::Here(Arc::new(move || {
                        pace.lock().time(Duration::ZERO, DISK_WORK_MAX)
                    })),
                    upkeep: tako_snapshot::Upkeep::default(),
                    journal_file_bytes: JOURNAL_FILE_BYTES,
                }
            }
        };
        drop(machines);
        let world = self.clone();
        let id = format!("n{}", n + 1);
        world.say(|| format!("{id} starts, life {life}"));
        inner.tasks.spawn(async move {
            let store = world.inner.store.view(&id, life);
            // A supervisor: what cannot start is started again.
            while !dead.is_cancelled() {
                let options = NodeOptions { store: Some(store.clone()), ..options() };
                match Node::start(options, dead.clone()).await {
                    Ok(node) => {
                        world.took_off(n, life, node, &dead).await;
                        return;
                    }
                    Err(error) => world.say(|| format!("{id} cannot start: {error}")),
                }
                sleep(START_AGAIN_AFTER).await;
            }
        });
    }

    /// A node has started, unless it crashed meanwhile.
    async fn took_off(&self, n: usize, life: u64, node: Arc<Node>, dead: &CancellationToken) {
        let id = format!("n{}", n + 1);
        let network = self.inner.network.as_host(&id, life);
        let opened = Door::open(&network, &id, &node.serving, dead).await;
        if let Err(error) = &opened {
            self.say(|| format!("{id} has no HTTP: {error}"));
        }
        let is_current = {
            let mut machines = self.inner.machines.lock();
            let machine = &mut machines[n];
            match &mut machine.running {
                Some(running) if machine.life == life => {
                    running.node = Some(node.clone());
                    running.door = opened.ok();
                    let dead = running.dead.clone();
                    self.inner.coordinators.watch(&machine.id, &node.config, dead);
                    true
                }
                _ => false,
            }
        };
        if !is_current {
            node.stop().await;
        }
    }

    fn start_proxy(&self, n: usize) {
        let mut proxies = self.inner.proxies.lock();
        let place = &mut proxies[n];
        if place.running.is_some() {
            return;
        }
        place.life += 1;
        let (id, life, disk) = (place.id.clone(), place.life, place.disk.clone());
        let dead = CancellationToken::new();
        place.running = Some(RunningProxy { proxy: None, dead: dead.clone() });
        drop(proxies);
        let world = self.clone();
        self.inner.tasks.spawn(async move {
            // A supervisor: what cannot start is started again.
            while !dead.is_cancelled() {
                let options = ProxyOptions {
                    id: NodeId::new(&id),
                    var: PathBuf::from("/var"),
                    source: world.inner.coordinators.source(),
                    clock: Arc::new(SimClock::new(world.inner.began)),
                    seed: world.inner.chance.lock().part(&format!("{id} {life}")).number(),
                    network: Arc::new(world.inner.network.as_host(&id, life)),
                    disk: Arc::new(disk.clone()),
                };
                match Proxy::start(options, dead.clone()).await {
                    Ok(Some(proxy)) => return world.proxy_took_off(n, life, proxy, dead).await,
                    Ok(None) => {}
                    Err(error) => world.say(|| format!("{id} cannot start: {error}")),
                }
                sleep(START_AGAIN_AFTER).await;
            }
        });
    }

    /// A proxy has started, unless it crashed meanwhile.
    async fn proxy_took_off(&self, n: usize, life: u64, proxy: Proxy, dead: CancellationToken) {
        let id = self.inner.proxies.lock()[n].id.clone();
        let network = self.inner.network.as_host(&id, life);
        let opened = Door::open(&network, &id, &proxy.serving, &dead).await;
        if let Err(error) = opened {
            self.say(|| format!("{id} has no HTTP: {error}"));
        }
        let config = proxy.config.clone();
        let place = &mut self.inner.proxies.lock()[n];
        match &mut place.running {
            Some(running) if place.life == life => {
                running.proxy = Some(Arc::new(proxy));
                self.inner.coordinators.watch(&id, &config, dead);
            }
            _ => {
                let proxy = Arc::new(proxy);
                self.inner.tasks.spawn(async move { proxy.stop().await });
            }
        }
    }

    /// Ends a node's process at this instant.
    fn crash(&self, n: usize, after: Crash, damage: bool) {
        let node = {
            let mut machines = self.inner.machines.lock();
            let machine = &mut machines[n];
            let Some(running) = machine.running.take() else { return };
            let (id, life) = (machine.id.clone(), machine.life);
            self.say(|| format!("{id} crashes, life {life}: {after:?}, damage: {damage}"));
            running.dead.cancel();
            self.inner.network.crash(&machine.id);
            self.inner.store.crash(&machine.id, machine.life);
            machine.disk.die();
            machine.disk = machine.disk.after_crash(after, &mut machine.chance);
            machine.failing = false;
            if matches!(after, Crash::Empty | Crash::RolledBack) {
                self.inner.coordinators.epochs().forget(&machine.id);
            }
            if damage {
                machine.disk.damage(&mut machine.chance);
            }
            running.node
        };
        self.inner.counts.add("node crashed");
        if let Some(node) = node {
            // Nothing it does has an effect any more; its tasks are to end.
            self.inner.tasks.spawn(async move { node.stop().await });
        }
    }

    fn crash_proxy(&self, n: usize) {
        let taken = {
            let mut proxies = self.inner.proxies.lock();
            let taken = proxies[n].running.take();
            self.inner.network.crash(&proxies[n].id);
            taken
        };
        let Some(RunningProxy { proxy, dead }) = taken else { return };
        dead.cancel();
        self.inner.counts.add("proxy crashed");
        if let Some(proxy) = proxy {
            self.inner.tasks.spawn(async move { proxy.stop().await });
        }
    }

    fn later(&self, after: Duration, what: impl FnOnce(&Self) + Send + 'static) {
        let world = self.clone();
        self.inner.tasks.spawn(async move {
            let over = world.inner.over.clone();
            if over.run_until_cancelled(sleep(after)).await.is_some() {
                what(&world);
            }
        });
    }

    /// Carries out one fault of a plan, and its end.
    pub fn inject(&self, fault: &Fault) {
        self.say(|| format!("fault: {fault}"));
        let inner = &self.inner;
        match *fault {
            Fault::Crash { node, disk, down, after_changes, damage } => {
                let loses = damage || matches!(disk, Crash::Empty | Crash::RolledBack);
                if inner.machines.lock()[node].running.is_none() {
                    return inner.counts.add("fault passed over: the node is down");
                }
                if loses && !self.may_lose_state(node) {
                    return inner.counts.add("fault passed over: too many replicas at risk");
                }
                if loses {
                    inner.machines.lock()[node].at_risk = true;
                }
                let fall = move |world: &Self| {
                    world.crash(node, disk, damage);
                    world.later(down, move |world| world.start(node));
                };
                if after_changes == 0 {
                    return fall(self);
                }
                let (disk, life) = {
                    let machines = inner.machines.lock();
                    (machines[node].disk.clone(), machines[node].life)
                };
                disk.die_after(after_changes);
                let world = self.clone();
                inner.tasks.spawn(async move {
                    // An idle disk does not keep the process alive for ever.
                    let _met = timeout(Duration::from_secs(5), disk.died()).await;
                    if world.inner.machines.lock()[node].life == life {
                        fall(&world);
                    }
                });
            }
            Fault::CrashAll { disk, down } => {
                for node in 0..inner.scenario.nodes {
                    self.crash(node, disk, false);
                    let down = down + Duration::from_millis(300) * u32::try_from(node).unwrap_or(0);
                    self.later(down, move |world| world.start(node));
                }
            }
            Fault::CrashProxy { proxy, down } => {
                self.crash_proxy(proxy);
                self.later(down, move |world| world.start_proxy(proxy));
            }
            Fault::CrashCoordinators { which, disk, down, after_changes } => {
                inner.coordinators.crash_for(which, disk, down, after_changes);
            }
            Fault::Configure { ref file, half, lasts } => {
                inner.coordinators.configure(file, half, lasts);
            }
            Fault::Order { wish, ref settings, half, lasts } => {
                inner.coordinators.order(wish, settings.clone(), half, lasts);
            }
            Fault::Drain { node, down } => self.drain(node, down),
            Fault::Cut { hosts, one_way, stall, lasts } => {
                let kind = if stall { CutKind::Stall } else { CutKind::Vanish };
                let names = self.hosts();
                let (inside, outside): (Vec<_>, Vec<_>) =
                    names.into_iter().enumerate().partition(|(at, _)| hosts >> at & 1 == 1);
                let pairs: Vec<(String, String)> = inside
                    .iter()
                    .flat_map(|(_, a)| outside.iter().map(move |(_, b)| (a.clone(), b.clone())))
                    .collect();
                inner.counts.add(if one_way { "one-way partition" } else { "partition" });
                for (a, b) in &pairs {
                    inner.network.cut(a, b, kind);
                    if !one_way {
                        inner.network.cut(b, a, kind);
                    }
                }
                self.later(lasts, move |world| {
                    for (a, b) in &pairs {
                        world.inner.network.heal_both(a, b);
                    }
                });
            }
            Fault::Links { lose, duplicate, reset, latency, lasts } => {
                inner.network.set_faults(LinkFaults {
                    latency_least: Duration::from_millis(1),
                    latency_most: latency,
                    lose,
                    duplicate,
                    reset,
                    reorder: true,
                });
                self.later(lasts, |world| world.inner.network.set_faults(LinkFaults::quiet()));
            }
            Fault::Clock { node, by_micros, lasts } => {
                inner.counts.add("clock jumped");
                let clock = inner.machines.lock()[node].clock.clone();
                clock.skew(by_micros);
                self.later(lasts, move |_| clock.skew(0));
            }
            Fault::StoreOutage { node, lasts } => {
                inner.counts.add("store outage");
                let name = node.map(|node| format!("n{}", node + 1));
                inner.store.set_outage(name.as_deref(), true);
                self.later(lasts, move |world| {
                    world.inner.store.set_outage(name.as_deref(), false);
                });
            }
            Fault::StoreErrors { rate, lasts } => {
                inner.store.set_errors(rate);
                self.later(lasts, |world| world.inner.store.set_errors(0.0));
            }
            Fault::StoreSlow { latency, lasts } => {
                inner.counts.add("store slow");
                inner.store.set_slow(Some(latency));
                self.later(lasts, |world| world.inner.store.set_slow(None));
            }
            Fault::DiskFull { node, lasts } => {
                let disk = inner.machines.lock()[node].disk.clone();
                disk.set_full(true);
                self.later(lasts, move |world| {
                    // It may have crashed meanwhile, and the bound may have passed on.
                    disk.set_full(false);
                    world.inner.machines.lock()[node].disk.set_full(false);
                });
            }
            Fault::SyncError { node } => {
                if !self.may_lose_state(node) {
                    return inner.counts.add("fault passed over: too many replicas at risk");
                }
                let (disk, life) = {
                    let mut machines = inner.machines.lock();
                    machines[node].at_risk = true;
                    machines[node].failing = true;
                    (machines[node].disk.clone(), machines[node].life)
                };
                disk.fail_sync();
                // An operator sees the alarm and starts the process again.
                self.later(Duration::from_secs(8), move |world| {
                    if world.inner.machines.lock()[node].life == life {
                        world.crash(node, Crash::Torn, false);
                        world.later(Duration::from_secs(1), move |world| world.start(node));
                    }
                });
            }
            Fault::Snapshotters => {
                inner.counts.add("several snapshotters");
                let published = self.published();
                for (_, node) in self.nodes() {
                    for p in published.partitions_of(node.replica.engine().node()) {
                        let snapshotter = node.snapshotter.clone();
                        inner.tasks.spawn(async move {
                            // Whichever wins, the others waste work.
                            let _ = snapshotter.step_here(p).await;
                        });
                    }
                }
            }
        }
    }

    fn hosts(&self) -> Vec<String> {
        let mut hosts = self.processes();
        hosts.extend(self.inner.coordinators.hosts());
        hosts.extend((0..self.inner.scenario.clients).map(|n| client::host(self.scenario(), n)));
        hosts
    }

    fn drain(&self, n: usize, down: Duration) {
        let (node, door, life) = {
            let machines = self.inner.machines.lock();
            let machine = &machines[n];
            let Some(Running { node: Some(node), door, .. }) = &machine.running else { return };
            (node.clone(), door.clone(), machine.life)
        };
        self.inner.counts.add("node drained");
        let world = self.clone();
        self.inner.tasks.spawn(async move {
            if let Some(door) = door {
                door.close().await;
            }
            node.drain(DRAIN_MAX).await;
            {
                let mut machines = world.inner.machines.lock();
                let machine = &mut machines[n];
                if machine.life != life || machine.running.is_none() {
                    return;
                }
            }
            // What has ended in good order can be killed without harm.
            world.crash(n, Crash::Kept, false);
            world.later(down, move |world| world.start(n));
        });
    }

    /// Ends every fault, starts what is down, and waits until all serve and everything is covered.
    ///
    /// # Errors
    /// What was still missing at the end of `within`.
    pub async fn settle(&self, within: Duration) -> Result<(), String> {
        let inner = &self.inner;
        inner.over.cancel();
        inner.network.set_faults(LinkFaults::quiet());
        inner.network.heal_all();
        inner.store.heal();
        let failing: Vec<usize> = {
            let machines = inner.machines.lock();
            for machine in machines.iter() {
                machine.clock.skew(0);
                machine.disk.heal();
            }
            machines.iter().enumerate().filter(|(_, m)| m.failing).map(|(n, _)| n).collect()
        };
        for n in failing {
            self.crash(n, Crash::Torn, false);
        }
        inner.coordinators.settle();
        for n in 0..inner.scenario.nodes {
            self.start(n);
        }
        for n in 0..inner.scenario.proxies {
            self.start_proxy(n);
        }
        self.say(|| "every fault has ended".to_owned());
        self.quiet(within).await
    }

    /// Waits until all serve with the newest configuration, everything is covered, and all replicas
    /// show the same steps.
    ///
    /// # Errors
    /// What was still missing at the end of `within`.
    pub async fn quiet(&self, within: Duration) -> Result<(), String> {
        let inner = &self.inner;
        let until = Instant::now() + within;
        loop {
            // A crash that was under way, or a journal that failed, may still need a start.
            for n in 0..inner.scenario.nodes {
                let failed = {
                    let machines = inner.machines.lock();
                    let node = machines[n].running.as_ref().and_then(|r| r.node.clone());
                    node.is_some_and(|n| n.replica.engine().journal().is_failed().is_some())
                };
                if failed {
                    self.crash(n, Crash::Torn, false);
                }
                self.start(n);
            }
            for n in 0..inner.scenario.proxies {
                self.start_proxy(n);
            }
            inner.coordinators.start_all();
            inner.coordinators.bring_to_end().await;
            let configured = self.is_configured().await;
            let Err(why) = configured.and_then(|()| self.is_covered()) else { return Ok(()) };
            if until < Instant::now() {
                return Err(format!("no quiet within {within:?} after the last fault: {why}"));
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Ends every node and coordinator and empties every disk; then starts anew from the store
    /// alone, first without a coordinator. The file that is found afterwards is another one: it
    /// gets the next number.
    ///
    /// # Errors
    /// What was missing at the end of `within`.
    pub async fn rebuild(&self, within: Duration) -> Result<(), String> {
        let coordinators = &self.inner.coordinators;
        let number = |document: Option<Published>| document.map_or(0, |it| it.epoch.number);
        let before = number(coordinators.newest().await?);
        for n in 0..self.inner.scenario.nodes {
            self.crash(n, Crash::Empty, false);
        }
        coordinators.lose_all();
        self.start_servers(within).await?;
        coordinators.start_all();
        self.quiet(within).await?;
        match number(coordinators.newest().await?) {
            after if after == before + 1 => Ok(()),
            after => Err(format!("after configuration {before} the next one is {after}")),
        }
    }
}
