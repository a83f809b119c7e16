//! The simulated cluster: its machines, and what it shows to clients and checkers.
//!
//! ```text
//! plan ─► faults ─► processes (start, end) ─► judged (serves? covered? may lose more?)
//!                     phases: start ─► quiet ─► rot, healed ─► made anew from the store alone
//! ```
//! Invariant: never do more replicas lose state at once than the cluster promises to bear (a node
//! counts until it serves again), so the checkers may demand everything. In reading order:
//! [`processes`] · [`faults`] · [`phases`] · [`judged`] · [`rot`].

mod faults;
mod judged;
mod phases;
mod processes;
mod rot;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tako_node_core::{node::Node, proxy::Proxy, replication::Serving};
use tako_types::config::Published;
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    archive::Archive,
    chance::Chance,
    clock::SimClock,
    coordinators::{Coordinators, Surroundings},
    counts::FaultCounts,
    disk::{Flipped, SimDisk},
    door::Door,
    layout::Levels,
    lines::Lines,
    network::{HostNetwork, SimNetwork},
    plan::Kind,
    scenario::Scenario,
    store::SimStore,
};

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
    /// A bit of its journal that flipped while it ran.
    rotten: Option<Flipped>,
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
    archive: Archive,
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
    healing: Mutex<rot::Healing>,
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
                rotten: None,
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
            archive: Archive::new(around.clone(), began),
            coordinators: Coordinators::new(scenario, around, chance),
            healing: Mutex::default(),
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

    /// What becomes of backups.
    #[must_use]
    pub fn archive(&self) -> &Archive {
        &self.inner.archive
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

    fn later(&self, after: Duration, what: impl FnOnce(&Self) + Send + 'static) {
        let world = self.clone();
        self.inner.tasks.spawn(async move {
            let over = world.inner.over.clone();
            if over.run_until_cancelled(sleep(after)).await.is_some() {
                what(&world);
            }
        });
    }
}
