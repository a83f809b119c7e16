//! The phases of a run: all start, every fault ends, quiet comes, and all is made anew from the
//! store alone.
//!
//! Invariant: each phase ends within a given time, or tells what was missing. Not here: how the
//! world stands (`judged.rs`).

use std::time::Duration;

use tako_types::config::Published;
use tokio::time::{Instant, sleep};

use super::World;
use crate::{disk::Crash, network::LinkFaults};

impl World {
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

    /// Ends every process: what follows is about the store alone.
    pub fn end_all(&self) {
        for n in 0..self.inner.scenario.nodes {
            self.crash(n, Crash::Kept, false);
        }
        for n in 0..self.inner.scenario.proxies {
            self.crash_proxy(n);
        }
        self.inner.coordinators.end_all();
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
