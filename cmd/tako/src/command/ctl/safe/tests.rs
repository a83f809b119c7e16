//! Three nodes, in and out of a migration.

use std::sync::Arc;

use tako_flatbuf::Standing;
use tako_ring::publish_migration;
use tako_types::{
    Incarnation, Lsn, StepNumber,
    config::{Config, Migration, Phase},
};

use super::*;

fn document(phase: Option<Phase>) -> Published {
    let (active, other) = if phase == Some(Phase::Leave) { ("t", "d") } else { ("d", "t") };
    let target = match phase {
        None | Some(Phase::Leave) => String::new(),
        Some(_) => format!("target_deployment: {other}\n"),
    };
    let text = format!(
        "partitions: 2\nactive_deployment: {active}\n{target}deployments:\n  \
         d: {{hash: {{buckets_per_key: 1}}, buckets: {{b1: {{n1: [h, 1], n2: [h, 2], n3: [h, 3]}}}}}}\n  \
         t: {{hash: {{buckets_per_key: 1}}, buckets: {{b1: {{n2: [h, 2], n4: [h, 4]}}}}}}\n"
    );
    let config = Arc::new(Config::parse(&text).expect("valid"));
    let migration =
        phase.map(|phase| Migration { phase, other: other.into(), barrier: Vec::new() });
    publish_migration(config, 5, migration, None).expect("a document")
}

fn standings(nodes: &[&str]) -> Standings {
    let row = |p| PartitionStanding {
        partition: PartitionId(p),
        holder: true,
        adopted_lsn: None,
        last_lsn: Lsn(0),
        step: StepNumber(3),
        uncovered: 0,
        recovered: true,
        voting: true,
        coverage: Vec::new(),
    };
    let standing = Standing {
        epoch: 5,
        noted: 0,
        state: NodeState::Serving,
        incarnation: Incarnation(1),
        partitions: vec![row(0), row(1)],
        more: false,
    };
    nodes.iter().map(|id| (NodeId::new(id), standing.clone())).collect()
}

fn against(document: &Published, standings: &Standings, stop: &[&str]) -> String {
    let stop = stop.iter().map(|id| NodeId::new(id)).collect();
    verdict(document, standings, &stop).against.join("\n")
}

#[test]
fn one_of_three_may_go_and_two_may_not() {
    let (document, all) = (document(None), standings(&["n1", "n2", "n3"]));
    assert_eq!(against(&document, &all, &["n3"]), "");
    assert_eq!(
        against(&document, &all, &["n2", "n3"]),
        "partitions 0, 1: only n1 of n1, n2, n3 would be left, 2 are needed"
    );
}

#[test]
fn who_is_away_or_recovers_does_not_count() {
    let document = document(None);
    let said = against(&document, &standings(&["n1", "n2"]), &["n1"]);
    assert!(
        said.contains("only n2 of n1, n2, n3 would be left, 2 are needed (n3 does not"),
        "{said}"
    );
    let mut recovering = standings(&["n1", "n2", "n3"]);
    let n3 = recovering.get_mut(&NodeId::new("n3")).expect("one of three");
    n3.partitions[1].recovered = false;
    let said = against(&document, &recovering, &["n1"]);
    assert!(said.starts_with("partition 1: ") && said.contains("n3 is recovering"), "{said}");
}

#[test]
fn while_both_are_written_each_set_must_keep_its_own() {
    let all = standings(&["n1", "n2", "n3", "n4"]);
    let both = document(Some(Phase::WriteBoth));
    assert_eq!(against(&both, &all, &["n1"]), "");
    let said = against(&both, &all, &["n4"]);
    assert!(said.contains("only n2 of n2, n4 would be left, 2 are needed"), "{said}");
}

#[test]
fn what_is_still_to_be_pulled_from_a_node_that_is_left_keeps_it() {
    let leaving = document(Some(Phase::Leave));
    let mut all = standings(&["n1", "n2", "n3", "n4"]);
    assert_eq!(against(&leaving, &all, &["n1"]), "");
    all.get_mut(&NodeId::new("n1")).expect("there").partitions[0].uncovered = 4;
    let said = against(&leaving, &all, &["n1"]);
    assert!(said.contains("n1 is being left and still holds 4 keys"), "{said}");
    // Of a member it is no reason: what is acknowledged is with W of them.
    let still = document(None);
    let stop = BTreeSet::from([NodeId::new("n1")]);
    let verdict = verdict(&still, &all, &stop);
    assert!(
        verdict.against.is_empty() && verdict.notes[0].contains("n1 holds 4 keys"),
        "{verdict:?}"
    );
}
