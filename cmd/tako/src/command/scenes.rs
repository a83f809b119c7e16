//! A small cluster for the tests of plans and orders: `d` has n1 to n3, `t` n2 to n4, in one bucket
//! each; two partitions.

use std::sync::Arc;

use tako_coordinator::Standings;
use tako_flatbuf::{NodeState, PartitionStanding, Standing};
use tako_ring::publish_migration;
use tako_types::{
    ClusterId, Incarnation, Lsn, NodeId, PartitionId, StepNumber,
    config::{Config, Migration, Phase, Published},
};

/// Of every document.
const EPOCH: u64 = 5;

/// The document of a phase of the move from `d` to `t`, or of before it.
pub(super) fn document(phase: Option<Phase>) -> Published {
    let (active, other) = if phase == Some(Phase::Leave) { ("t", "d") } else { ("d", "t") };
    let target = match phase {
        None | Some(Phase::Leave) => String::new(),
        Some(_) => format!("target_deployment: {other}\n"),
    };
    let text = format!(
        "partitions: 2\nactive_deployment: {active}\n{target}deployments:\n  \
         d: {{hash: {{buckets_per_key: 1}}, buckets: {{b1: {{n1: [h, 1], n2: [h, 2], n3: [h, 3]}}}}}}\n  \
         t: {{hash: {{buckets_per_key: 1}}, buckets: {{b1: {{n2: [h, 2], n3: [h, 3], n4: [h, 4]}}}}}}\n"
    );
    let config = Arc::new(Config::parse(&text).expect("valid"));
    let migration =
        phase.map(|phase| Migration { phase, other: other.into(), barrier: Vec::new() });
    publish_migration(config, EPOCH, migration, None).expect("a document")
}

/// These nodes, serving, with so many keys of each partition that no step has covered.
pub(super) fn standings(nodes: &[&str], uncovered: u64) -> Standings {
    let row = |p| PartitionStanding {
        partition: PartitionId(p),
        holder: true,
        adopted_lsn: None,
        last_lsn: Lsn(0),
        step: StepNumber(3),
        uncovered,
        recovered: true,
        voting: true,
        coverage: Vec::new(),
    };
    let standing = Standing {
        cluster: Some(ClusterId(1)),
        epoch: EPOCH,
        noted: 0,
        state: NodeState::Serving,
        incarnation: Incarnation(1),
        partitions: vec![row(0), row(1)],
        more: false,
    };
    nodes.iter().map(|id| (NodeId::new(id), standing.clone())).collect()
}
