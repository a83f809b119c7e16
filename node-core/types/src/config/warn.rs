//! What is allowed but unwise; shown by `tako check` and logged by the coordinator.
//!
//! Pure. Not here: what is refused (`validate.rs`), zones partition by partition (`tako-ring`).

use std::collections::BTreeSet;

use super::{Config, Consistency, Deployment, Durability, Quorum};

impl Config {
    /// What an operator should know about this configuration; empty when there is nothing.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        if let Some(target) = &self.target {
            out.push(format!(
                "target_deployment: writes go to `{target}` as well until active_deployment names \
                 it, or neither does"
            ));
        }
        match self.cluster.durability {
            Durability::Fsync => {}
            Durability::Os => out.push(
                "durability: os: acknowledged writes may be lost when machines lose power".into(),
            ),
            Durability::None => {
                out.push("durability: none: acknowledged writes may be lost with a process".into());
            }
        }
        match &self.cluster.store {
            None => out.push(
                "store: there is none; each process must be given one on its command line".into(),
            ),
            Some(store) if store.url.starts_with("memory:") => {
                out.push("store.url: a store in memory is gone when its process ends".into());
            }
            Some(store) if store.secret_access_key.is_some() => out.push(
                "store.secret_access_key: whoever can read GET /configuration can read it; leave \
                 it out and set AWS_SECRET_ACCESS_KEY for each process instead"
                    .into(),
            ),
            Some(_) => {}
        }
        for deployment in std::iter::once(self.active_deployment()).chain(self.target_deployment())
        {
            let path = format!("deployments.{}", deployment.name);
            replication(deployment, &path, &mut out);
            zones(deployment, &path, &mut out);
        }
        out
    }
}

/// The least and the greatest number of replicas a partition can have.
fn replicas(deployment: &Deployment) -> (usize, usize) {
    let mut sizes: Vec<usize> = deployment.buckets.iter().map(|b| b.nodes.len()).collect();
    sizes.sort_unstable();
    let k = deployment.buckets_per_key;
    (sizes.iter().take(k).sum(), sizes.iter().rev().take(k).sum())
}

fn replication(deployment: &Deployment, path: &str, out: &mut Vec<String>) {
    let (least, most) = replicas(deployment);
    if least == 1 {
        out.push(format!(
            "{path}: some keys lie on a single node: no redundancy beyond the object store, and \
             no service without that node"
        ));
    }
    match deployment.consistency {
        Consistency::Quorum if least <= 2 && 2 <= most => out.push(format!(
            "{path}: with 2 replicas at quorum there are no writes while a node is down (W = 2)"
        )),
        Consistency::All if 2 <= most => out.push(format!(
            "{path}.consistency: all: there are no writes while any replica is down"
        )),
        Consistency::One if 2 <= most => out.push(format!(
            "{path}.consistency: one: a read may miss the last write, and a write that one node \
             acknowledged may be lost with that node; conditional writes are not safe"
        )),
        _ => {}
    }
}

fn zones(deployment: &Deployment, path: &str, out: &mut Vec<String>) {
    let zones: BTreeSet<&str> = deployment.nodes().filter_map(|n| n.zone.as_deref()).collect();
    if zones.is_empty() {
        return;
    }
    let without: Vec<_> =
        deployment.nodes().filter(|n| n.zone.is_none()).map(|n| n.id.as_str()).collect();
    if !without.is_empty() {
        out.push(format!("{path}: no zone is given for {}", without.join(", ")));
    }
    let (least, _) = replicas(deployment);
    let w = Quorum::of(Consistency::Quorum, least).w;
    if 1 < least && w <= least.div_ceil(zones.len()) {
        out.push(format!(
            "{path}: {} zone(s) cannot be spread over: losing one may stop writes",
            zones.len()
        ));
    }
    for bucket in &deployment.buckets {
        for zone in &zones {
            let here = bucket.nodes.iter().filter(|n| n.zone.as_deref() == Some(*zone)).count();
            if 1 < here && w <= here {
                out.push(format!(
                    "{path}.buckets.{}: {here} of its nodes are in the zone `{zone}`; with that \
                     zone down its keys take no writes",
                    bucket.name
                ));
            }
        }
    }
}
