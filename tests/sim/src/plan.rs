//! What goes wrong in a run, and when: drawn from the seed before the run begins.
//!
//! Pure. A plan is data, so that a failing run can be shrunk: leaving a fault out leaves the
//! others as they were. Whether a fault that loses state may happen is the world's matter
//! (`world.rs` passes over what would lose more than the replicas may lose).

use std::{fmt, time::Duration};

use crate::{
    chance::Chance,
    disk::Crash,
    operator::Wish,
    scenario::Scenario,
    settings::{Bad, Settings},
};

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// A node's process ends; its disk is as `disk` says when it starts again.
    Crash {
        /// Which, by its place in the list of nodes.
        node: usize,
        /// What of its disk is left.
        disk: Crash,
        /// Until it starts again.
        down: Duration,
        /// The process ends in the middle of disk work: after so many changes; 0 at once.
        after_changes: u64,
        /// While it is down, a bit of its journal flips.
        damage: bool,
    },
    /// All nodes end at once and start again one after the other.
    CrashAll {
        /// What of the disks is left: all was written, or what was synced.
        disk: Crash,
        /// Until the first starts again.
        down: Duration,
    },
    /// A proxy ends and starts again.
    CrashProxy {
        /// Which.
        proxy: usize,
        /// Until it starts again.
        down: Duration,
    },
    /// Coordinators end and start again.
    CrashCoordinators {
        /// Which; without one all.
        which: Option<usize>,
        /// What of the disk is left; the configuration file always is.
        disk: Crash,
        /// Until it starts again.
        down: Duration,
        /// The process ends in the middle of disk work: after so many changes; 0 at once.
        after_changes: u64,
    },
    /// The configuration file is replaced while everything runs.
    Configure {
        /// By what.
        file: NewFile,
        /// A part of it is there first.
        half: Option<Half>,
        /// How long a bad one stays.
        lasts: Duration,
    },
    /// The operator orders something of a migration.
    Order {
        /// What; it depends on what is published then.
        wish: Wish,
        /// Other settings in the same file.
        settings: Option<Settings>,
        /// A part of it is there first.
        half: Option<Half>,
        /// After which it is looked at again.
        lasts: Duration,
    },
    /// A node leaves in good order and comes back.
    Drain {
        /// Which.
        node: usize,
        /// Until it starts again.
        down: Duration,
    },
    /// Nothing passes from some hosts to the others.
    Cut {
        /// A set of hosts, by bits.
        hosts: u64,
        /// Only outward.
        one_way: bool,
        /// Frames wait instead of vanishing.
        stall: bool,
        /// How long.
        lasts: Duration,
    },
    /// Links lose, repeat, delay and overtake.
    Links {
        /// Share of frames lost.
        lose: f64,
        /// Share of frames that come twice.
        duplicate: f64,
        /// Share of frames in whose place the connection breaks.
        reset: f64,
        /// Longest time on the way.
        latency: Duration,
        /// How long.
        lasts: Duration,
    },
    /// A clock is off.
    Clock {
        /// Whose.
        node: usize,
        /// By how much, in microseconds.
        by_micros: i64,
        /// How long; then it jumps back.
        lasts: Duration,
    },
    /// The store does not answer one node, or anybody.
    StoreOutage {
        /// Whom; `None` is all.
        node: Option<usize>,
        /// How long.
        lasts: Duration,
    },
    /// Every call to the store may fail, before or after its effect.
    StoreErrors {
        /// With this probability.
        rate: f64,
        /// How long.
        lasts: Duration,
    },
    /// Calls to the store take up to this long.
    StoreSlow {
        /// Longest time of a call.
        latency: Duration,
        /// How long.
        lasts: Duration,
    },
    /// A node's disk is full.
    DiskFull {
        /// Whose.
        node: usize,
        /// How long.
        lasts: Duration,
    },
    /// A node's disk fails a sync.
    SyncError {
        /// Whose.
        node: usize,
    },
    /// Several nodes take a step of every partition at once.
    Snapshotters,
    /// A bit flips in a complete journal file of a node that runs, as soon as it has one.
    Rot {
        /// Whose.
        node: usize,
    },
    /// An operator makes a backup: nothing wrong in itself, but for how it may end.
    Backup(Wanted),
}

/// A backup that an operator makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// By which it is called.
    pub number: usize,
    /// The first try ends there, in the middle of anything.
    pub dies_after: Option<Duration>,
    /// How often a failed one is tried again, under the same name.
    pub again: usize,
    /// So long after it was made it is deleted.
    pub delete_after: Option<Duration>,
}

impl Wanted {
    fn draw(number: usize, chance: &mut Chance) -> Self {
        let seconds = Duration::from_secs;
        Self {
            number,
            dies_after: chance.yes(0.4).then(|| chance.time(Duration::ZERO, seconds(6))),
            again: chance.below(3),
            delete_after: chance.yes(0.2).then(|| chance.time(Duration::ZERO, seconds(20))),
        }
    }
}

/// A new configuration file.
#[derive(Debug, Clone, PartialEq)]
pub enum NewFile {
    /// Must be taken.
    Good(Settings),
    /// Must be refused, and change nothing.
    Bad(Bad),
}

/// A file that is being written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Half {
    /// How much of it is there, below 1.
    pub share: f64,
    /// How long: shorter than the time between two looks.
    pub lasts: Duration,
}

impl Half {
    fn draw(chance: &mut Chance) -> Self {
        Self {
            share: 1.0 - chance.time(Duration::ZERO, Duration::from_secs(1)).as_secs_f64(),
            lasts: chance.time(Duration::from_millis(50), Duration::from_millis(900)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A fault and its time since the load began.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// When.
    pub at: Duration,
    /// What.
    pub fault: Fault,
}

/// Most backups that are made by hand in a run.
const BACKUPS_MAX: usize = 3;
/// Most journal files that rot in a run.
const ROTS_MAX: usize = 2;

/// Draws the faults of a run, and what is done meanwhile, in the order of their times.
#[must_use]
pub fn plan(scenario: &Scenario, chance: &Chance) -> Vec<Planned> {
    let mut planned = faults(scenario, chance.part("plan"));
    if scenario.backups {
        let mut chance = chance.part("backups by hand");
        let count = 1 + chance.below(BACKUPS_MAX);
        planned.extend((1..=count).map(|number| {
            let at = within(scenario, &mut chance);
            Planned { at, fault: Fault::Backup(Wanted::draw(number, &mut chance)) }
        }));
    }
    // What nothing goes wrong in stays so.
    if scenario.healing.is_some() && scenario.faults.contains(&Kind::Damage) {
        let mut chance = chance.part("rot of journals");
        planned.extend((0..chance.below(ROTS_MAX + 1)).map(|_| {
            let at = within(scenario, &mut chance);
            Planned { at, fault: Fault::Rot { node: chance.below(scenario.nodes) } }
        }));
    }
    planned.sort_by_key(|planned| planned.at);
    planned
}

/// A time while clients ask.
fn within(scenario: &Scenario, chance: &mut Chance) -> Duration {
    scenario.load * u32::try_from(chance.below(1_000)).unwrap_or(0) / 1_000
}

fn faults(scenario: &Scenario, mut chance: Chance) -> Vec<Planned> {
    let mut planned = Vec::new();
    let mut at = Duration::ZERO;
    if scenario.faults.is_empty() {
        return planned;
    }
    loop {
        let (least, most) = scenario.fault_every;
        at += chance.time(least, most);
        if scenario.load <= at {
            return planned;
        }
        let kind = *chance.pick(scenario.faults);
        planned.push(Planned { at, fault: draw(kind, scenario, &mut chance) });
    }
}

/// Kinds of faults a scenario chooses from; one that stands twice is twice as likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A process ends, its disk is kept.
    Crash,
    /// A machine ends: what was not synced may be lost.
    PowerLoss,
    /// A disk is lost, or an old one comes back.
    DiskLoss,
    /// A bit flips in a journal.
    Damage,
    /// All nodes end at once.
    CrashAll,
    /// A proxy ends.
    Proxy,
    /// One or all coordinators end.
    Coordinators,
    /// The configuration file is replaced.
    Configure,
    /// A move is begun, finished, given up.
    Order,
    /// A node leaves in good order.
    Drain,
    /// A partition.
    Cut,
    /// Bad links.
    Links,
    /// Clocks.
    Clock,
    /// The store is away, slow or fails.
    Store,
    /// A disk is full.
    DiskFull,
    /// A sync fails.
    SyncError,
    /// Several snapshotters at once.
    Snapshotters,
}

fn draw(kind: Kind, scenario: &Scenario, chance: &mut Chance) -> Fault {
    let seconds = Duration::from_secs;
    let node = chance.below(scenario.nodes);
    let down = chance.time(Duration::from_millis(50), seconds(20));
    let lasts = chance.time(Duration::from_millis(200), seconds(25));
    let after_changes = if chance.yes(0.5) { 1 + chance.below(12) as u64 } else { 0 };
    let crash = |disk, damage| Fault::Crash { node, disk, down, after_changes, damage };
    match kind {
        Kind::Crash => crash(Crash::Kept, false),
        Kind::PowerLoss => crash(Crash::Torn, false),
        Kind::DiskLoss if chance.yes(0.5) => crash(Crash::Empty, false),
        Kind::DiskLoss => crash(Crash::RolledBack, false),
        Kind::Damage => crash(Crash::Kept, true),
        Kind::CrashAll => {
            let disk = if chance.yes(0.5) { Crash::Kept } else { Crash::Torn };
            Fault::CrashAll { disk, down }
        }
        Kind::Proxy => Fault::CrashProxy { proxy: chance.below(scenario.proxies), down },
        Kind::Coordinators => {
            let every = [Crash::Kept, Crash::Torn, Crash::Empty, Crash::RolledBack];
            Fault::CrashCoordinators {
                which: chance.yes(0.5).then(|| chance.below(scenario.coordinators)),
                disk: *chance.pick(&every),
                down,
                after_changes,
            }
        }
        Kind::Configure => Fault::Configure {
            file: match chance.yes(0.3) {
                true => NewFile::Bad(Bad::draw(chance)),
                false => NewFile::Good(Settings::draw(scenario, chance)),
            },
            half: chance.yes(0.5).then(|| Half::draw(chance)),
            lasts,
        },
        Kind::Order => Fault::Order {
            wish: Wish::draw(chance),
            settings: chance.yes(0.3).then(|| Settings::draw(scenario, chance)),
            half: chance.yes(0.3).then(|| Half::draw(chance)),
            lasts,
        },
        Kind::Drain => Fault::Drain { node, down },
        Kind::Cut => Fault::Cut {
            hosts: chance.number(),
            one_way: chance.yes(0.3),
            stall: chance.yes(0.5),
            lasts,
        },
        Kind::Links => Fault::Links {
            lose: *chance.pick(&[0.0, 0.001, 0.02, 0.1]),
            duplicate: *chance.pick(&[0.0, 0.02, 0.2]),
            reset: *chance.pick(&[0.0, 0.001, 0.01]),
            latency: chance.time(Duration::from_millis(5), seconds(1)),
            lasts,
        },
        Kind::Clock => {
            // Within what a cluster bears: beyond it a node refuses writes, which is tried too.
            let most = *chance.pick(&[20_000i64, 2_000_000, 25_000_000, 3_600_000_000]);
            let by = i64::try_from(chance.below(2 * most as usize)).unwrap_or(0) - most;
            Fault::Clock { node, by_micros: by, lasts }
        }
        Kind::Store => match chance.below(4) {
            0 => Fault::StoreOutage { node: None, lasts },
            1 => Fault::StoreOutage { node: Some(node), lasts },
            2 => Fault::StoreErrors { rate: *chance.pick(&[0.01, 0.1, 0.4]), lasts },
            _ => Fault::StoreSlow { latency: chance.time(seconds(1), seconds(15)), lasts },
        },
        Kind::DiskFull => Fault::DiskFull { node, lasts },
        Kind::SyncError => Fault::SyncError { node },
        Kind::Snapshotters => Fault::Snapshotters,
    }
}
