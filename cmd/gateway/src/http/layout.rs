//! What `/cluster` tells of the layout: buckets, the ring of partitions over them, and a move.
//!
//! Read off the document in force, so every process tells the same; only how far the other
//! deployment's views have come is from gossip.

use serde_json::{Value, json};
use tako_types::{
    NodeId, PartitionId, StepNumber,
    config::{Bucket, Deployment, Migration, Phase, Published, Table},
};

/// The buckets of a deployment, in the order in which [`ring`] counts them.
pub(super) fn buckets(document: &Published, deployment: &Deployment) -> Value {
    let rows = document.table_of(&deployment.name).map_or(&[][..], Table::as_slice);
    let copies: usize = rows.iter().map(Vec::len).sum();
    let mut holds = vec![0_usize; deployment.buckets.len()];
    for index in rows.iter().flatten() {
        if let Some(count) = holds.get_mut(usize::from(*index)) {
            *count += 1;
        }
    }
    let bucket = |(bucket, holds): (&Bucket, usize)| {
        json!({
            "name": bucket.name,
            "weight": bucket.weight,
            "share": holds as f64 / copies.max(1) as f64,
            "nodes": bucket.nodes.iter().map(|node| node.id.as_str()).collect::<Vec<_>>(),
        })
    };
    deployment.buckets.iter().zip(holds).map(bucket).collect()
}

/// Of each partition its buckets, as places in [`buckets`], in ring order.
pub(super) fn ring(document: &Published, deployment: &Deployment) -> Value {
    json!(document.table_of(&deployment.name))
}

/// The move under way; `null` without one. `step_of` tells which step of a partition a node sees.
pub(super) fn migration(
    document: &Published,
    step_of: impl Fn(&NodeId, PartitionId) -> Option<StepNumber>,
) -> Value {
    let Some(migration) = &document.migration else { return Value::Null };
    let Some(other) = document.config.deployments.get(&migration.other) else {
        return Value::Null;
    };
    let active = document.config.active_deployment();
    let (from, to) = match migration.phase {
        Phase::Leave => (other, active),
        Phase::Join | Phase::WriteBoth | Phase::ReadNew => (active, other),
    };
    let set = |deployment: &Deployment, p| document.set_in(&deployment.name, p);
    let moving: Vec<PartitionId> = document
        .partitions()
        .filter(|p| match (set(active, *p), set(other, *p)) {
            (Some(active), Some(other)) => !active.is_like(&other),
            _ => true,
        })
        .collect();
    let passed = (migration.phase == Phase::ReadNew)
        .then(|| moving.iter().filter(|p| is_past(document, migration, **p, &step_of)).count());
    json!({
        "phase": migration.phase.as_str(),
        "from": from.name,
        "to": to.name,
        "moving": moving.len(),
        "past_barrier": passed,
        "buckets": buckets(document, other),
        "ring": ring(document, other),
    })
}

/// Whether all nodes of the other deployment see the step from which on they vote.
fn is_past(
    document: &Published,
    migration: &Migration,
    p: PartitionId,
    step_of: impl Fn(&NodeId, PartitionId) -> Option<StepNumber>,
) -> bool {
    let barrier = document.placement(p).barrier;
    let set = document.set_in(&migration.other, p);
    set.is_some_and(|set| set.nodes.iter().all(|n| step_of(n, p).is_some_and(|s| barrier <= s)))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use tako_types::config::Config;

    use super::*;

    const CONFIG: &str = "\
partitions: 4
active_deployment: old
TARGETdeployments:
  old: {hash: {buckets_per_key: 1}, buckets: {a: {n1: [h, 1]}, b: {n2: [h, 2]}}}
  new: {hash: {buckets_per_key: 1}, buckets: {a: {n3: [h, 3]}, b: {n4: [h, 4]}}}
";

    /// Four partitions from `old` to `new`, or as far as `leave`, where `old` is active still: the
    /// phase alone says which way it goes.
    fn document(phase: Phase, barrier: &[u64]) -> Published {
        let target = if phase == Phase::Leave { "" } else { "target_deployment: new\n" };
        let config = Config::parse(&CONFIG.replace("TARGET", target)).expect("a configuration");
        let rows = |rows: [u16; 4]| rows.map(|bucket| vec![bucket]).to_vec();
        let tables = BTreeMap::from([
            ("old".to_owned(), rows([0, 1, 0, 0])),
            ("new".to_owned(), rows([1, 1, 0, 0])),
        ]);
        let barrier = barrier.iter().map(|step| StepNumber(*step)).collect();
        let migration = Migration { phase, other: "new".to_owned(), barrier };
        Published::new(7, Arc::new(config), tables, Some(migration)).expect("a document")
    }

    #[test]
    fn a_move_tells_its_way_its_ring_and_what_has_passed_the_barrier() {
        let document = document(Phase::ReadNew, &[5, 5, 9, 9]);
        let seen = |node: &NodeId, _: PartitionId| match node.as_str() {
            "n3" => Some(StepNumber(9)),
            _ => Some(StepNumber(4)),
        };
        let told = migration(&document, seen);
        assert_eq!((&told["from"], &told["to"]), (&"old".into(), &"new".into()));
        assert_eq!((&told["phase"], &told["moving"]), (&"read-new".into(), &4.into()));
        assert_eq!(told["past_barrier"], 2, "n4 is behind, n3 is not");
        assert_eq!(told["ring"], json!([[1], [1], [0], [0]]));
        assert_eq!(told["buckets"][0]["nodes"], json!(["n3"]));
        let nothing = migration(&document, |_, _| None);
        assert_eq!(nothing["past_barrier"], 0, "what is not known has not passed");
    }

    #[test]
    fn in_the_other_phases_no_barrier_is_told_and_at_the_end_the_other_one_is_left() {
        for phase in [Phase::Join, Phase::WriteBoth, Phase::Leave] {
            let told = migration(&document(phase, &[]), |_, _| Some(StepNumber(9)));
            assert_eq!(
                (&told["phase"], &told["past_barrier"]),
                (&phase.as_str().into(), &json!(null))
            );
            let way = (told["from"].as_str(), told["to"].as_str());
            let expected = match phase {
                Phase::Leave => (Some("new"), Some("old")),
                _ => (Some("old"), Some("new")),
            };
            assert_eq!(way, expected);
        }
    }

    #[test]
    fn shares_are_of_all_copies() {
        let document = document(Phase::Join, &[]);
        let told = buckets(&document, document.config.active_deployment());
        let share = |n: usize| told[n]["share"].as_f64();
        assert_eq!((share(0), share(1)), (Some(0.75), Some(0.25)));
        assert_eq!(
            ring(&document, document.config.active_deployment()),
            json!([[0], [1], [0], [0]])
        );
    }
}
