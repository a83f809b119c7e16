//! Carries out the faults of a plan, each with its end.
//!
//! A fault that would lose more state than the cluster promises to bear is passed over, and
//! counted. Not here: what is drawn (`plan.rs`), and whose loss can be borne (`judged.rs`).

use std::time::Duration;

use tokio::time::timeout;

use super::{Running, World};
use crate::{
    client,
    disk::Crash,
    network::{CutKind, LinkFaults},
    plan::Fault,
};

/// How long a node may take to leave in good order.
const DRAIN_MAX: Duration = Duration::from_secs(20);

impl World {
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
            Fault::Rot { node } => self.rot_journal(node),
            Fault::Backup(wanted) => inner.archive.make(wanted),
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
}
