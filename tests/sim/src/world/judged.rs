//! How the world stands by the newest document: who serves, who is behind, what is uncovered, and
//! whose loss could be borne.
//!
//! A node that no document names waits, or has left: nothing is asked of it but to hold nothing that
//! no step has covered.

use std::{collections::BTreeMap, sync::Arc};

use tako_flatbuf::NodeState;
use tako_types::{NodeId, config::Published};

use super::World;

impl World {
    /// The newest document that was seen; before any, what the first file comes to.
    #[must_use]
    pub fn published(&self) -> Arc<Published> {
        let seen = self.inner.coordinators.epochs().newest();
        seen.unwrap_or_else(|| self.inner.published.clone())
    }

    pub(super) fn is_serving(&self) -> Result<(), String> {
        let published = self.published();
        for machine in self.inner.machines.lock().iter() {
            if published.node(&NodeId::new(&machine.id)).is_none() {
                // It waits, or has left and serves as a proxy does.
                continue;
            }
            let running = machine.running.as_ref().and_then(|running| running.node.as_ref());
            let Some(node) = running else { return Err(format!("{} is down", machine.id)) };
            let state = node.replica.state();
            if state != NodeState::Serving {
                return Err(format!("{} is {state:?}", machine.id));
            }
            node.serving.readiness().map_err(|why| format!("{}: {why}", machine.id))?;
        }
        for proxy in self.inner.proxies.lock().iter() {
            let Some(running) = proxy.running.as_ref().and_then(|r| r.proxy.as_ref()) else {
                return Err(format!("{} is down", proxy.id));
            };
            running.serving.readiness().map_err(|why| format!("{}: {why}", proxy.id))?;
        }
        Ok(())
    }

    /// Everybody has the newest configuration, and it is the last good file.
    pub(super) async fn is_configured(&self) -> Result<(), String> {
        let nodes = self.nodes().into_iter().map(|(id, node)| (id, node.config.current()));
        let proxies: Vec<_> = {
            let proxies = self.inner.proxies.lock();
            let running = proxies.iter().filter_map(|place| {
                let proxy = place.running.as_ref()?.proxy.as_ref()?;
                Some((place.id.clone(), proxy.config.current()))
            });
            running.collect()
        };
        self.inner.coordinators.is_settled(nodes.chain(proxies).collect()).await
    }

    pub(super) fn is_covered(&self) -> Result<(), String> {
        self.is_serving()?;
        let published = self.published();
        let mut shown = BTreeMap::new();
        for machine in self.inner.machines.lock().iter() {
            let Some(node) = machine.running.as_ref().and_then(|r| r.node.as_ref()) else {
                continue;
            };
            let engine = node.replica.engine();
            let held = published.partitions_of(engine.node());
            for p in published.partitions() {
                let status = engine.partition_status(p);
                if status.uncovered > 0 || !status.quiet {
                    let (count, last) = (status.uncovered, status.last_lsn);
                    let coverage = engine.view(p).map(|view| view.meta.coverage.clone());
                    return Err(format!(
                        "{} ({}) holds {count} uncovered entries of partition {p}, the last {last}; \
                         its view covers {coverage:?}",
                        machine.id,
                        engine.incarnation().0,
                    ));
                }
                if !held.contains(&p) {
                    continue;
                }
                let step = *shown.entry(p).or_insert(status.step);
                if status.step != step {
                    let (id, own) = (&machine.id, status.step.0);
                    return Err(format!(
                        "{id} shows step {own} of partition {p}, another {}",
                        step.0
                    ));
                }
            }
        }
        Ok(())
    }

    /// May this node lose its state now? At most N−W replicas of a partition at once,
    /// in each deployment that is active, comes, or is left.
    pub(super) fn may_lose_state(&self, n: usize) -> bool {
        self.settle_risks();
        let machines = self.inner.machines.lock();
        let me = NodeId::new(&machines[n].id);
        let published = self.published();
        let risks = |id: &NodeId| machines.iter().any(|m| m.at_risk && m.id == id.as_str());
        let sets = published.partitions().flat_map(|p| {
            let of = |name: &String| published.set_in(name, p);
            published.config.deployments.keys().filter_map(of).collect::<Vec<_>>()
        });
        sets.into_iter().filter(|set| set.nodes.contains(&me)).all(|set| {
            let lost = set.nodes.iter().filter(|id| **id != me && risks(id));
            lost.count() < set.quorum.n - set.quorum.w
        })
    }

    /// A node that serves again is no risk any more; unless its journal has failed, or has rotted
    /// and was not healed.
    fn settle_risks(&self) {
        for machine in self.inner.machines.lock().iter_mut() {
            let node = machine.running.as_ref().and_then(|running| running.node.as_ref());
            let serves = node.is_some_and(|node| {
                node.replica.state() == NodeState::Serving
                    && node.replica.engine().journal().is_failed().is_none()
            });
            machine.rotten.take_if(|rotten| !machine.disk.is_flipped(rotten));
            if serves && !machine.failing && machine.rotten.is_none() {
                machine.at_risk = false;
            }
        }
    }
}
