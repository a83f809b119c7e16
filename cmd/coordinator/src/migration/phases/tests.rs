//! Each phase with nodes that are ready, late, silent or recovering.

use std::sync::Arc;

use tako_ring::publish_migration;
use tako_types::ClusterId;

use super::*;

const P: PartitionId = PartitionId(0);
const FOLDER: Incarnation = Incarnation(7);
/// Of the document in force in every test.
const EPOCH: u64 = 5;

/// `d` with n1 to n3 and `t` with n4 to n6, one partition.
fn file(active: &str, target: &str) -> Config {
    let mut text = format!("partitions: 1\nactive_deployment: {active}\n{target}deployments:\n");
    for (name, nodes) in [("d", [1, 2, 3]), ("t", [4, 5, 6])] {
        text.push_str(&format!(
            "  {name}:\n    hash: {{buckets_per_key: 1}}\n    buckets:\n      b1:\n"
        ));
        for n in nodes {
            text.push_str(&format!("        n{n}: [localhost, {}]\n", 4700 + n));
        }
    }
    Config::parse(&text).expect("a valid configuration")
}

fn in_force(phase: Phase, barrier: Vec<StepNumber>) -> Published {
    let (config, other) = match phase {
        Phase::Leave => (file("t", ""), "d"),
        _ => (file("d", "target_deployment: t\n"), "t"),
    };
    let migration = Migration { phase, other: other.into(), barrier };
    publish_migration(Arc::new(config), EPOCH, Some(migration), None).expect("a document")
}

/// A node that is where it should be, at step 3, which covers `covered` of n1.
fn standing(noted: Option<u64>, covered: u64) -> Standing {
    let row = PartitionStanding {
        partition: P,
        holder: true,
        adopted_lsn: noted.map(Lsn),
        last_lsn: Lsn(0),
        step: StepNumber(3),
        uncovered: 0,
        recovered: true,
        voting: true,
        coverage: vec![(NodeId::new("n1"), FOLDER, Lsn(covered))],
    };
    Standing {
        cluster: Some(ClusterId(1)),
        epoch: EPOCH,
        noted: noted.map_or(0, |_| EPOCH),
        state: NodeState::Serving,
        incarnation: FOLDER,
        partitions: vec![row],
        more: false,
    }
}

/// n1 to n3 with what they noted, n1 up to LSN 9; n4 to n6; all at a step that covers `covered`.
fn all(covered: u64) -> Standings {
    let noted = [Some(9), Some(0), Some(0), None, None, None];
    let node = |(n, noted)| (NodeId::new(&format!("n{n}")), standing(noted, covered));
    (1..).zip(noted).map(node).collect()
}

fn without(mut standings: Standings, nodes: &[&str]) -> Standings {
    standings.retain(|node, _| !nodes.contains(&node.as_str()));
    standings
}

fn changed(nodes: &[&str], change: impl Fn(&mut Standing)) -> Standings {
    let mut standings = all(9);
    for node in nodes {
        change(standings.get_mut(&NodeId::new(node)).expect("one of six"));
    }
    standings
}

/// The file that gives an order.
fn ordering(order: Order) -> Config {
    match order {
        Order::Finish => file("t", ""),
        Order::Promote => file("t", "target_deployment: d\n"),
        Order::Hold => file("d", "target_deployment: t\n"),
        Order::Abort => file("d", ""),
    }
}

/// What comes next, at once, with nodes that are given up.
fn without_waiting_for(
    document: &Published,
    order: Order,
    standings: &Standings,
    lost: &[&str],
) -> Next {
    let mut file = ordering(order);
    file.accept_loss = lost.iter().map(|node| NodeId::new(node)).collect();
    next(&Moment { in_force: document, file: &file, order, standings, patient: true })
}

fn phase_of(next: &Next) -> Option<Phase> {
    match next {
        Next::Publish(_, migration) => migration.as_ref().map(|migration| migration.phase),
        other => panic!("not published: {other:?}"),
    }
}

fn after(document: &Published, order: Order, standings: &Standings, patient: bool) -> Next {
    let file = ordering(order);
    next(&Moment { in_force: document, file: &file, order, standings, patient })
}

/// The phase that is published next, or what is waited for.
fn phase_after(
    document: &Published,
    order: Order,
    standings: &Standings,
    patient: bool,
) -> Result<Option<Phase>, String> {
    match after(document, order, standings, patient) {
        Next::Publish(config, migration) => {
            let next = publish_migration(Arc::new(*config), EPOCH + 1, migration, Some(document));
            Ok(next.expect("a document").migration.map(|migration| migration.phase))
        }
        Next::Wait(reasons) => Err(reasons.join("; ")),
        Next::Hold => Err("the order".into()),
        Next::Steps(steps) => Err(format!("steps {steps:?}")),
    }
}

#[test]
fn writes_need_the_other_set_only_once_enough_of_it_take_them() {
    let join = in_force(Phase::Join, vec![]);
    for order in [Order::Hold, Order::Finish] {
        assert_eq!(phase_after(&join, order, &all(0), true), Ok(Some(Phase::WriteBoth)));
    }
    let one_less = without(all(0), &["n4"]);
    let waits = phase_after(&join, Order::Hold, &one_less, true);
    assert_eq!(waits, Err("n4 does not answer".into()));
    let least = phase_after(&join, Order::Hold, &one_less, false);
    assert_eq!(least, Ok(Some(Phase::WriteBoth)), "the other two are W'");
    let waits = phase_after(&join, Order::Hold, &without(all(0), &["n4", "n6"]), false);
    assert_eq!(waits, Err("n4 does not answer; n6 does not answer".into()));
    let late = ["n4", "n5"];
    for (why, standings) in [
        ("does not have this configuration yet", changed(&late, |it| it.epoch -= 1)),
        ("is not serving", changed(&late, |it| it.state = NodeState::Recovering)),
        (FOREIGN, changed(&late, |it| it.cluster = Some(ClusterId(2)))),
        ("is recovering", changed(&late, |it| it.partitions[0].recovered = false)),
        ("has not opened its partitions", changed(&late, |it| it.partitions.clear())),
    ] {
        let waits = phase_after(&join, Order::Hold, &standings, false);
        assert_eq!(waits, Err(format!("n4 {why}; n5 {why}")));
    }
}

#[test]
fn reads_move_only_when_a_step_covers_what_the_old_set_had_written() {
    let both = in_force(Phase::WriteBoth, vec![]);
    assert_eq!(after(&both, Order::Hold, &all(9), true), Next::Hold);
    let by = ["n1", "n2", "n3"].map(NodeId::new).to_vec();
    let forced = Next::Steps(BTreeMap::from([(P, by)]));
    assert_eq!(after(&both, Order::Finish, &all(8), true), forced, "LSN 9 is not covered");
    let Next::Publish(_, Some(migration)) = after(&both, Order::Finish, &all(9), true) else {
        panic!("it is covered");
    };
    assert_eq!((migration.phase, migration.barrier), (Phase::ReadNew, vec![StepNumber(3)]));
    let other_folder = |it: &mut Standing| it.partitions[0].coverage[0].1 = Incarnation(6);
    let all_nodes = ["n1", "n2", "n3", "n4", "n5", "n6"];
    assert_eq!(
        after(&both, Order::Finish, &changed(&all_nodes, other_folder), true),
        forced,
        "the LSNs of an older folder are others"
    );
}

#[test]
fn reads_wait_for_no_step_later_than_the_first_that_covers() {
    let both = in_force(Phase::WriteBoth, vec![]);
    // Each of the old set noted something, which step 3 covers; n1 shows a later one already.
    let noted = |n2: u64| {
        let mut standings = all(9);
        for (n, node) in ["n1", "n2", "n3"].into_iter().enumerate() {
            let it = standings.get_mut(&NodeId::new(node)).expect("one of six");
            it.partitions[0].adopted_lsn = Some(Lsn([9, n2, 9][n]));
        }
        for it in standings.values_mut() {
            let covered = |node| (NodeId::new(node), FOLDER, Lsn(9));
            it.partitions[0].coverage = ["n1", "n2", "n3"].map(covered).to_vec();
        }
        standings.get_mut(&NodeId::new("n1")).expect("one of six").partitions[0].step =
            StepNumber(5);
        standings
    };
    let barrier = |standings: &Standings| match after(&both, Order::Finish, standings, true) {
        Next::Publish(_, Some(migration)) => Ok(migration.barrier),
        other => Err(other),
    };
    assert_eq!(barrier(&noted(9)), Ok(vec![StepNumber(3)]));
    // A step from before does not count, though it is lower.
    let mut standings = noted(9);
    let early = &mut standings.get_mut(&NodeId::new("n3")).expect("one of six").partitions[0];
    early.step = StepNumber(2);
    early.coverage[0].2 = Lsn(8);
    assert_eq!(barrier(&standings), Ok(vec![StepNumber(3)]));
    // What n2 held was covered by a step that nobody names: the newest is no older.
    let why = "has not opened the barrier's step";
    let waits = ["n4", "n5", "n6"].map(|node| format!("{node} {why}")).to_vec();
    assert_eq!(barrier(&noted(0)), Err(Next::Wait(waits)));
}

#[test]
fn a_barrier_rests_on_enough_of_the_old_set() {
    let both = in_force(Phase::WriteBoth, vec![]);
    let finish =
        |standings: &Standings, patient| phase_after(&both, Order::Finish, standings, patient);
    let one_less = without(all(9), &["n3"]);
    assert_eq!(finish(&one_less, true), Err("n3 does not answer".into()));
    assert_eq!(finish(&one_less, false), Ok(Some(Phase::ReadNew)), "the other two are N-W+1");
    let waits = finish(&without(all(9), &["n2", "n3"]), false);
    assert_eq!(waits, Err("n2 does not answer; n3 does not answer".into()));
    // Noted for the document before, or not at all as it lost what it had.
    let before = changed(&["n2", "n3"], |it| it.noted -= 1);
    assert_eq!(finish(&before, false), Err("n2 is recovering; n3 is recovering".into()));
    let lost = changed(&["n2", "n3"], |it| it.partitions[0].adopted_lsn = None);
    assert_eq!(finish(&lost, false), Err("n2 is recovering; n3 is recovering".into()));
}

#[test]
fn reads_move_only_to_enough_nodes_that_show_the_barrier() {
    let both = in_force(Phase::WriteBoth, vec![]);
    let behind = changed(&["n4", "n5"], |it| it.partitions[0].step = StepNumber(2));
    let why = "has not opened the barrier's step";
    let waits = phase_after(&both, Order::Finish, &behind, false);
    assert_eq!(waits, Err(format!("n4 {why}; n5 {why}")));
    let behind = changed(&["n4"], |it| it.partitions[0].step = StepNumber(2));
    assert_eq!(phase_after(&both, Order::Finish, &behind, false), Ok(Some(Phase::ReadNew)));
}

#[test]
fn the_old_set_is_written_until_too_few_of_it_answer_reads_by_an_older_document() {
    let new = in_force(Phase::ReadNew, vec![StepNumber(3)]);
    assert_eq!(phase_after(&new, Order::Finish, &all(9), true), Ok(Some(Phase::Leave)));
    let late = changed(&["n1"], |it| it.epoch -= 1);
    let why = "does not have this configuration yet";
    assert_eq!(phase_after(&new, Order::Finish, &late, true), Err(format!("n1 {why}")));
    assert_eq!(phase_after(&new, Order::Finish, &late, false), Ok(Some(Phase::Leave)));
    let late = changed(&["n1", "n2"], |it| it.epoch -= 1);
    let waits = phase_after(&new, Order::Finish, &late, false);
    assert_eq!(waits, Err(format!("n1 {why}; n2 {why}")), "n3 alone is no R, but n1 and n2 are");
}

#[test]
fn the_old_set_is_written_until_enough_of_the_new_one_count_for_reads() {
    let new = in_force(Phase::ReadNew, vec![StepNumber(3)]);
    // Recovered, and below the barrier after a restart.
    let below = changed(&["n4", "n5"], |it| it.partitions[0].voting = false);
    let why = "has not opened the barrier's step";
    let waits = phase_after(&new, Order::Finish, &below, false);
    assert_eq!(waits, Err(format!("n4 {why}; n5 {why}")));
    let below = changed(&["n4"], |it| it.partitions[0].voting = false);
    assert_eq!(phase_after(&new, Order::Finish, &below, true), Err(format!("n4 {why}")));
    assert_eq!(phase_after(&new, Order::Finish, &below, false), Ok(Some(Phase::Leave)));
}

#[test]
fn a_migration_given_up_after_reads_moved_waits_for_those_that_were_read() {
    let back = in_force(Phase::WriteBoth, vec![StepNumber(3)]);
    assert_eq!(phase_after(&back, Order::Abort, &all(9), true), Ok(Some(Phase::Leave)));
    let waits = phase_after(&back, Order::Abort, &without(all(9), &["n4", "n5"]), false);
    assert_eq!(waits, Err("n4 does not answer; n5 does not answer".into()));
    let least = phase_after(&back, Order::Abort, &without(all(9), &["n4"]), false);
    assert_eq!(least, Ok(Some(Phase::Leave)));
}

#[test]
fn a_deployment_is_dropped_when_nothing_is_left_there() {
    let leave = in_force(Phase::Leave, vec![]);
    assert_eq!(phase_after(&leave, Order::Finish, &all(9), true), Ok(None));
    let held = changed(&["n2"], |it| it.partitions[0].uncovered = 1);
    let by = ["n4", "n5", "n6"].map(NodeId::new).to_vec();
    for patient in [true, false] {
        let steps = Next::Steps(BTreeMap::from([(P, by.clone())]));
        assert_eq!(after(&leave, Order::Finish, &held, patient), steps, "n2 holds an entry");
    }
    let held_by_new = changed(&["n5"], |it| it.partitions[0].uncovered = 1);
    assert_eq!(phase_after(&leave, Order::Finish, &held_by_new, true), Ok(None));
    let gone = without(all(9), &["n2"]);
    let waits = phase_after(&leave, Order::Finish, &gone, true);
    assert_eq!(waits, Err("n2 does not answer".into()));
    assert_eq!(phase_after(&leave, Order::Finish, &gone, false), Ok(None));
}

#[test]
fn promoted_reads_move_and_stay_there_until_more_is_ordered() {
    let both = in_force(Phase::WriteBoth, vec![]);
    assert_eq!(phase_after(&both, Order::Promote, &all(9), true), Ok(Some(Phase::ReadNew)));
    let new = in_force(Phase::ReadNew, vec![StepNumber(3)]);
    for order in [Order::Promote, Order::Hold] {
        assert_eq!(after(&new, order, &all(9), false), Next::Hold);
    }
    assert_eq!(phase_after(&new, Order::Finish, &all(9), true), Ok(Some(Phase::Leave)));
}

#[test]
fn dead_nodes_that_are_given_up_are_waited_for_in_no_phase() {
    let dead = ["n2", "n3"];
    let left = without(all(9), &dead);
    let both = in_force(Phase::WriteBoth, vec![]);
    let next = without_waiting_for(&both, Order::Finish, &left, &dead);
    assert_eq!(phase_of(&next), Some(Phase::ReadNew));
    let new = in_force(Phase::ReadNew, vec![StepNumber(3)]);
    let next = without_waiting_for(&new, Order::Finish, &left, &dead);
    assert_eq!(phase_of(&next), Some(Phase::Leave));
    let next = without_waiting_for(&in_force(Phase::Leave, vec![]), Order::Finish, &left, &dead);
    assert_eq!(phase_of(&next), None);
    let back = in_force(Phase::WriteBoth, vec![StepNumber(3)]);
    let (dead, left) = (["n4", "n5"], without(all(9), &["n4", "n5"]));
    let next = without_waiting_for(&back, Order::Abort, &left, &dead);
    assert_eq!(phase_of(&next), Some(Phase::Leave));
    // Writes need enough of those that come, whoever is given up.
    let next = without_waiting_for(&in_force(Phase::Join, vec![]), Order::Finish, &left, &dead);
    let why = Next::Wait(vec!["n4 does not answer".into(), "n5 does not answer".into()]);
    assert_eq!(next, why);
}

#[test]
fn what_the_living_had_must_be_covered_whoever_is_given_up() {
    let both = in_force(Phase::WriteBoth, vec![]);
    let left = without(all(8), &["n2", "n3"]);
    let next = without_waiting_for(&both, Order::Finish, &left, &["n2", "n3"]);
    assert_eq!(next, Next::Steps(BTreeMap::from([(P, vec![NodeId::new("n1")])])));
}

#[test]
fn a_node_that_is_given_up_stands_in_for_no_living_one_at_the_barrier() {
    let both = in_force(Phase::WriteBoth, vec![]);
    let impatient = |standings: &Standings, lost: &[&str]| {
        let mut file = ordering(Order::Finish);
        file.accept_loss = lost.iter().map(|node| NodeId::new(node)).collect();
        let (in_force, order) = (&both, Order::Finish);
        next(&Moment { in_force, file: &file, order, standings, patient: false })
    };
    // What n2 acknowledged with n3 is with nobody else.
    let left = without(all(9), &["n2", "n3"]);
    let why = Next::Wait(vec!["n2 does not answer".into()]);
    assert_eq!(impatient(&left, &["n3"]), why);
    let late = without(changed(&["n2"], |it| it.noted -= 1), &["n3"]);
    assert!(matches!(impatient(&late, &["n3"]), Next::Wait(_)));
    let nobody = without(all(9), &["n1", "n2", "n3"]);
    let why = Next::Wait(vec!["n1 does not answer".into()]);
    assert_eq!(impatient(&nobody, &["n2", "n3"]), why);
}

#[test]
fn a_node_that_answers_is_never_given_up() {
    let new = in_force(Phase::ReadNew, vec![StepNumber(3)]);
    let late = changed(&["n1", "n2"], |it| it.epoch -= 1);
    let next = without_waiting_for(&new, Order::Finish, &late, &["n1", "n2"]);
    let why = "does not have this configuration yet";
    assert_eq!(next, Next::Wait(vec![format!("n1 {why}"), format!("n2 {why}")]));
    let both = in_force(Phase::WriteBoth, vec![]);
    let lost = changed(&["n2", "n3"], |it| it.partitions[0].adopted_lsn = None);
    let next = without_waiting_for(&both, Order::Finish, &lost, &["n2", "n3"]);
    assert_eq!(next, Next::Wait(vec!["n2 is recovering".into(), "n3 is recovering".into()]));
    let held = changed(&["n2"], |it| it.partitions[0].uncovered = 1);
    let leave = in_force(Phase::Leave, vec![]);
    let next = without_waiting_for(&leave, Order::Finish, &held, &["n2"]);
    assert!(matches!(next, Next::Steps(_)), "{next:?}");
}
