//! Named kinds of runs: how many nodes, which faults, what load.
//!
//! Every scenario keeps within what the cluster promises; the checkers then accept nothing less.

use std::time::Duration;

use crate::{operator::Stand, plan::Kind, settings::Settings};

/// One kind of run.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// For the command line.
    pub name: &'static str,
    /// What it is about, in a line.
    pub about: &'static str,
    /// Nodes in all.
    pub nodes: usize,
    /// Buckets they lie in; nodes are dealt out one by one.
    pub buckets: usize,
    /// On how many buckets each key lies.
    pub buckets_per_key: usize,
    /// Half of the runs have more nodes, in buckets of their own (`drawn.rs`).
    pub may_be_wide: bool,
    /// Two deployments stand in the file and the cluster moves between them: which pair, by
    /// `layout.rs`, which then says who is in what buckets. A run draws its own.
    pub moves: Option<usize>,
    /// Proxies.
    pub proxies: usize,
    /// Coordinators; the first is the master.
    pub coordinators: usize,
    /// Partitions, a power of two.
    pub partitions: u32,
    /// Between steps.
    pub snapshot_interval: Duration,
    /// How long tombstones stay.
    pub tombstone_grace: Duration,
    /// Background healing reads everything this often; a run draws its own.
    pub healing: Option<Duration>,
    /// Backups are made, by hand and by a rule; a run draws whether.
    pub backups: bool,
    /// What may go wrong.
    pub faults: &'static [Kind],
    /// Least and longest time between two faults.
    pub fault_every: (Duration, Duration),
    /// How long clients ask.
    pub load: Duration,
    /// Clients.
    pub clients: usize,
    /// Keys they ask for.
    pub keys: usize,
    /// Longest pause of a client between two requests.
    pub think: Duration,
}

const USUAL: Scenario = Scenario {
    name: "",
    about: "",
    nodes: 3,
    buckets: 1,
    buckets_per_key: 1,
    may_be_wide: false,
    moves: None,
    proxies: 1,
    coordinators: 1,
    partitions: 2,
    snapshot_interval: Duration::from_secs(2),
    tombstone_grace: Duration::from_secs(15),
    healing: None,
    backups: false,
    faults: &[],
    fault_every: (Duration::from_millis(200), Duration::from_secs(12)),
    load: Duration::from_secs(60),
    clients: 5,
    keys: 8,
    think: Duration::from_millis(400),
};

/// All scenarios.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    use Kind::*;
    vec![
        Scenario { name: "calm", about: "nothing goes wrong", ..USUAL },
        Scenario {
            name: "network",
            about: "partitions, lost, repeated and overtaking messages",
            faults: &[Cut, Cut, Links, Proxy, Configure],
            ..USUAL
        },
        Scenario {
            name: "crashes",
            about: "processes and machines end, alone and all at once",
            faults: &[Crash, Crash, PowerLoss, CrashAll, Drain, Proxy],
            ..USUAL
        },
        Scenario {
            name: "disks",
            about: "disks are lost, old, damaged, full and fail to sync",
            faults: &[DiskLoss, DiskLoss, Damage, DiskFull, SyncError, PowerLoss, Crash],
            ..USUAL
        },
        Scenario {
            name: "store",
            about: "the object store is away, slow and fails; several snapshotters",
            faults: &[Store, Store, Snapshotters, Crash, Configure, Coordinators],
            ..USUAL
        },
        Scenario {
            name: "clocks",
            about: "clocks jump and are off, nodes come and go",
            faults: &[Clock, Clock, Crash, Drain, DiskLoss],
            ..USUAL
        },
        Scenario {
            name: "configuration",
            about: "the file changes, coordinators end and lose disks, beside other faults",
            coordinators: 2,
            faults: &[
                Configure,
                Configure,
                Configure,
                Coordinators,
                Coordinators,
                Cut,
                Store,
                Crash,
                DiskLoss,
                Proxy,
            ],
            fault_every: (Duration::from_millis(200), Duration::from_secs(8)),
            ..USUAL
        },
        Scenario {
            name: "everything",
            about: "everything at once: three nodes, or five in five buckets with three per key",
            may_be_wide: true,
            faults: ALL,
            ..USUAL
        },
        Scenario {
            name: "moves",
            about: "the cluster moves between two deployments and back, nothing goes wrong",
            faults: &[Order],
            fault_every: (Duration::from_millis(500), Duration::from_secs(12)),
            ..MOVING
        },
        Scenario {
            name: "migration",
            about: "the cluster moves between two deployments, everything at once",
            faults: MOVING_ALL,
            fault_every: (Duration::from_millis(200), Duration::from_secs(8)),
            ..MOVING
        },
    ]
}

/// Five machines in two deployments.
const MOVING: Scenario = Scenario {
    nodes: 5,
    moves: Some(0),
    proxies: 1,
    coordinators: 2,
    partitions: 4,
    load: Duration::from_secs(90),
    ..USUAL
};

const MOVING_ALL: &[Kind] = &[
    Kind::Order,
    Kind::Order,
    Kind::Order,
    Kind::Order,
    Kind::Order,
    Kind::Order,
    Kind::Order,
    Kind::Order,
    Kind::Order,
    Kind::Order,
    Kind::Crash,
    Kind::PowerLoss,
    Kind::DiskLoss,
    Kind::Damage,
    Kind::CrashAll,
    Kind::Proxy,
    Kind::Coordinators,
    Kind::Configure,
    Kind::Configure,
    Kind::Drain,
    Kind::Cut,
    Kind::Cut,
    Kind::Links,
    Kind::Clock,
    Kind::Store,
    Kind::DiskFull,
    Kind::SyncError,
    Kind::Snapshotters,
];

const ALL: &[Kind] = &[
    Kind::Crash,
    Kind::PowerLoss,
    Kind::DiskLoss,
    Kind::Damage,
    Kind::CrashAll,
    Kind::Proxy,
    Kind::Coordinators,
    Kind::Configure,
    Kind::Configure,
    Kind::Drain,
    Kind::Cut,
    Kind::Cut,
    Kind::Links,
    Kind::Links,
    Kind::Clock,
    Kind::Store,
    Kind::Store,
    Kind::DiskFull,
    Kind::SyncError,
    Kind::Snapshotters,
];

/// A scenario by its name.
#[must_use]
pub fn scenario(name: &str) -> Option<Scenario> {
    scenarios().into_iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    /// The first configuration file.
    #[must_use]
    pub fn configuration(&self) -> String {
        Settings::of(self).file(self, &Stand::first(self))
    }
}
