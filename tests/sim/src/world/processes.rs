//! Processes of the world: nodes and proxies start, under a supervisor, and end.
//!
//! Invariant: a process that has ended is cut off from network, disk and store at that instant,
//! whatever of it still runs. Not here: when they end (`faults.rs`), coordinators.

use std::{path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tako_journal::Blocking;
use tako_node_core::{
    node::{Node, NodeOptions},
    proxy::{Proxy, ProxyOptions},
};
use tako_types::NodeId;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Running, RunningProxy, World};
use crate::{clock::SimClock, disk::Crash, door::Door};

/// Small, so that a run of a minute uses several.
const JOURNAL_FILE_BYTES: u64 = 256 << 10;
/// Any interval of background healing is kept that a run draws.
const HEALING_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// What a supervisor waits before it starts a process again that ended by itself.
const START_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Longest time that a piece of disk work takes.
const DISK_WORK_MAX: Duration = Duration::from_millis(20);

impl World {
    pub(super) fn start(&self, n: usize) {
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
                    healing_interval_min: HEALING_INTERVAL_MIN,
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

    pub(super) fn start_proxy(&self, n: usize) {
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
                    var: Some(PathBuf::from("/var")),
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
    pub(super) fn crash(&self, n: usize, after: Crash, damage: bool) {
        let node = {
            let mut machines = self.inner.machines.lock();
            let machine = &mut machines[n];
            let Some(running) = machine.running.take() else { return };
            let (id, life) = (machine.id.clone(), machine.life);
            self.say(|| format!("{id} crashes, life {life}: {after:?}, damage: {damage}"));
            if let Some(node) = &running.node
                && !machine.disk.is_dead()
            {
                self.inner.healing.lock().note(&id, node);
            }
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

    pub(super) fn crash_proxy(&self, n: usize) {
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
}
