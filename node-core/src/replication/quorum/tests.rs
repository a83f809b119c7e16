//! Tallies of one and of two sets, answer by answer.

use super::*;

fn node(n: usize) -> NodeId {
    NodeId::new(&format!("n{n}"))
}

fn nodes(ids: impl IntoIterator<Item = usize>) -> Vec<NodeId> {
    ids.into_iter().map(node).collect()
}

fn set(members: &[NodeId], w: usize) -> SetNeed<'_> {
    SetNeed { members, w, usual_w: w }
}

/// `+` acknowledges and votes, `r` acknowledges while recovering, `-` fails.
fn check(n: usize, w: usize, answers: &str, expected: Outcome) {
    let members = nodes(0..n);
    let mut tally = Tally::new(set(&members, w), None, Newer::Refuses);
    for (i, answer) in answers.chars().enumerate() {
        match answer {
            '+' => drop(tally.ack(&node(i), Incarnation(1), true, &[])),
            'r' => drop(tally.ack(&node(i), Incarnation(1), false, &[])),
            _ => tally.fail(&node(i)),
        }
    }
    assert_eq!(tally.outcome(), expected, "{answers} of {n}, W {w}");
}

#[test]
fn a_write_is_settled_by_exactly_w_answers_of_which_enough_vote() {
    check(3, 2, "+", Outcome::Pending);
    check(3, 2, "++", Outcome::Reached);
    check(3, 2, "+r", Outcome::Pending);
    check(3, 2, "+r+", Outcome::Reached);
    check(3, 2, "+-r", Outcome::Impossible);
    check(3, 2, "--", Outcome::Impossible);
    check(1, 1, "+", Outcome::Reached);
    check(3, 1, "+", Outcome::Reached);
    check(3, 1, "r-+", Outcome::Reached);
    check(3, 1, "r--", Outcome::Impossible);
    check(4, 3, "+r", Outcome::Pending);
    check(4, 3, "+r+", Outcome::Reached);
    check(4, 3, "+rr", Outcome::Pending);
    check(4, 3, "+rr-", Outcome::Impossible);
}

#[test]
fn a_replica_that_holds_something_newer_counts_only_where_the_write_may_settle_for_it() {
    let with_newer = |newer, answers: &str| {
        let members = nodes(0..3);
        let mut tally = Tally::new(set(&members, 2), None, newer);
        for (i, answer) in answers.chars().enumerate() {
            match answer {
                '+' => drop(tally.ack(&node(i), Incarnation(1), true, &[])),
                'r' => drop(tally.ack(&node(i), Incarnation(1), false, &[])),
                'n' => tally.newer(&node(i)),
                _ => tally.fail(&node(i)),
            }
        }
        (tally.outcome(), tally.knows_newest())
    };
    assert_eq!(with_newer(Newer::Settles, "n+"), (Outcome::Reached, true));
    assert_eq!(with_newer(Newer::Settles, "nn"), (Outcome::Reached, true));
    assert_eq!(with_newer(Newer::Settles, "nr"), (Outcome::Pending, false));
    assert_eq!(with_newer(Newer::Settles, "n--"), (Outcome::Impossible, false));
    assert_eq!(with_newer(Newer::Refuses, "n"), (Outcome::Pending, false));
    assert_eq!(with_newer(Newer::Refuses, "n-"), (Outcome::Pending, false));
    assert_eq!(with_newer(Newer::Refuses, "n+"), (Outcome::Pending, true));
    assert_eq!(with_newer(Newer::Refuses, "n++"), (Outcome::Reached, true));
    assert_eq!(with_newer(Newer::Refuses, "nn"), (Outcome::Pending, true));
    assert_eq!(with_newer(Newer::Refuses, "nr-"), (Outcome::Impossible, false));
}

#[test]
fn an_acknowledgement_of_a_replaced_data_folder_is_void() {
    let members = nodes(0..3);
    let mut tally = Tally::new(set(&members, 2), None, Newer::Refuses);
    assert!(tally.ack(&node(0), Incarnation(4), true, &[]).is_empty());
    let void = tally.ack(&node(1), Incarnation(1), true, &[(node(0), Incarnation(5))]);
    assert_eq!(void, [node(0)]);
    assert_eq!(tally.outcome(), Outcome::Pending);
    assert!(tally.ack(&node(0), Incarnation(5), true, &[]).is_empty());
    assert_eq!(tally.outcome(), Outcome::Reached);
}

#[test]
fn a_replica_that_goes_on_with_a_replaced_data_folder_is_asked_twice_and_no_more() {
    let members = nodes(0..3);
    let mut tally = Tally::new(set(&members, 2), None, Newer::Refuses);
    let known = [(node(0), Incarnation(7))];
    assert!(tally.ack(&node(1), Incarnation(1), true, &known).is_empty());
    assert_eq!(tally.ack(&node(0), Incarnation(1), true, &[]), [node(0)]);
    assert!(tally.ack(&node(0), Incarnation(1), true, &[]).is_empty());
    assert_eq!(tally.outcome(), Outcome::Pending);
    tally.fail(&node(2));
    assert_eq!(tally.outcome(), Outcome::Impossible);
    // A still newer folder is worth another try.
    let newer = [(node(0), Incarnation(8))];
    assert!(tally.ack(&node(0), Incarnation(7), true, &[]).is_empty());
    assert_eq!(tally.ack(&node(1), Incarnation(1), true, &newer), [node(0)]);
}

#[test]
fn every_written_set_needs_its_own_quorum() {
    let (old, new) = (nodes([0, 1, 2]), nodes([2, 3, 4]));
    let mut tally = Tally::new(set(&old, 2), Some(set(&new, 2)), Newer::Refuses);
    for i in [0, 1] {
        tally.ack(&node(i), Incarnation(1), true, &[]);
    }
    assert_eq!(tally.outcome(), Outcome::Pending);
    assert_eq!(tally.progress(), (0, 2), "of the set that is worst off");
    tally.ack(&node(2), Incarnation(1), true, &[]);
    assert_eq!(tally.outcome(), Outcome::Pending);
    tally.fail(&node(3));
    tally.ack(&node(4), Incarnation(1), true, &[]);
    assert_eq!(tally.outcome(), Outcome::Reached);
}

#[test]
fn a_failed_write_tells_of_the_set_that_cannot_be_reached() {
    let (old, new) = (nodes([0, 1, 2]), nodes([3]));
    let mut tally = Tally::new(set(&old, 2), Some(set(&new, 1)), Newer::Refuses);
    tally.fail(&node(3));
    assert_eq!(tally.outcome(), Outcome::Impossible);
    assert_eq!(tally.progress(), (0, 1), "nobody of the old set has answered yet");
}

#[test]
fn a_write_that_asks_for_more_replicas_than_others_hears_of_theirs_from_as_many_voters_as_any() {
    let members = nodes(0..3);
    let set = SetNeed { members: &members, w: 3, usual_w: 2 };
    let mut tally = Tally::new(set, None, Newer::Refuses);
    tally.newer(&node(2));
    assert!(!tally.knows_newest(), "a write at the other two was complete with W = 2");
    tally.newer(&node(1));
    assert!(tally.knows_newest());
}
