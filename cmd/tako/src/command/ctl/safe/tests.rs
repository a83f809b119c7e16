//! Three nodes, in and out of a migration.

use tako_types::config::Phase;

use super::*;
use crate::command::scenes::document;

fn standings(nodes: &[&str]) -> Standings {
    crate::command::scenes::standings(nodes, 0)
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
    let mut foreign = standings(&["n1", "n2", "n3"]);
    foreign.get_mut(&NodeId::new("n3")).expect("one of three").cluster = Some(ClusterId(2));
    let said = against(&document, &foreign, &["n1"]);
    assert!(said.contains("n3 has another cluster's store"), "{said}");
}

#[test]
fn while_both_are_written_each_set_must_keep_its_own() {
    let all = standings(&["n1", "n2", "n3", "n4"]);
    let both = document(Some(Phase::WriteBoth));
    assert_eq!(against(&both, &all, &["n1"]), "");
    assert_eq!(against(&both, &all, &["n4"]), "");
    let said = against(&both, &standings(&["n1", "n2", "n4"]), &["n4"]);
    assert!(said.contains("only n2 of n2, n3, n4 would be left, 2 are needed (n3 does"), "{said}");
}

#[test]
fn who_does_not_show_the_barrier_does_not_count_where_reads_ask_and_does_where_they_do_not() {
    let mut all = standings(&["n1", "n2", "n3", "n4"]);
    for row in &mut all.get_mut(&NodeId::new("n4")).expect("one of four").partitions {
        row.voting = false;
    }
    // It has lost nothing, and opened the partition.
    let said = against(&document(Some(Phase::Leave)), &all, &["n2"]);
    assert!(said.contains("only n3 of n2, n3, n4 would be left"), "{said}");
    assert!(said.contains("n4 does not count for reads yet"), "{said}");
    assert_eq!(against(&document(Some(Phase::WriteBoth)), &all, &["n2"]), "");
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
