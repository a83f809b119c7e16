//! Plans of small moves, with nodes there and away.

use super::*;
use crate::command::scenes::document;

/// Of before the move, and of its beginning.
fn documents() -> (Published, Published) {
    (document(None), document(Some(Phase::Join)))
}

fn standings(nodes: &[&str]) -> Standings {
    crate::command::scenes::standings(nodes, 7)
}

fn lost(nodes: &[&str]) -> BTreeSet<NodeId> {
    nodes.iter().map(|id| NodeId::new(id)).collect()
}

#[test]
fn a_plan_says_what_moves_and_what_it_costs() {
    let (before, begun) = documents();
    let plan = plan(&before, &begun, &standings(&["n1", "n2", "n3"]), &lost(&[]));
    assert_eq!((plan.from.as_str(), plan.to.as_str(), plan.partitions), ("d", "t", 2));
    assert_eq!(plan.moving.len(), 2);
    assert_eq!(plan.places, (0, 0), "the bucket's name stays, its nodes do not");
    let share = |id: &str| {
        let share = plan.nodes.iter().find(|share| share.node.as_str() == id).expect("known");
        (share.before, share.after, share.gained, share.lost)
    };
    assert_eq!([share("n1"), share("n2"), share("n4")], [(2, 0, 0, 2), (2, 2, 0, 0), (0, 2, 2, 0)]);
    assert_eq!(plan.to_start().map(|it| it.node.as_str()).collect::<Vec<_>>(), ["n4"]);
    assert_eq!(plan.to_stop().map(|it| it.node.as_str()).collect::<Vec<_>>(), ["n1"]);
    // n4 opens two snapshots; of each step that is forced n4 and two others open the view.
    assert_eq!((plan.cost.opened, plan.cost.steps, plan.cost.uncovered), (2, 2, 14));
    assert_eq!((plan.cost.list * 10.0).round(), 10.0 * (2.0 * 1.1 + 8.0));
    assert!(plan.refused.is_empty(), "{:?}", plan.refused);
}

#[test]
fn a_move_that_would_lose_what_only_dead_nodes_have_is_refused_until_they_are_given_up() {
    let (before, begun) = documents();
    let alone = standings(&["n1"]);
    let refused = plan(&before, &begun, &alone, &lost(&[])).refused.join("\n");
    assert!(refused.contains("n2, n3 do not answer"), "{refused}");
    assert!(refused.contains("--accept-loss n2,n3"), "{refused}");
    let plan_with = plan(&before, &begun, &alone, &lost(&["n2", "n3"]));
    assert!(plan_with.refused.is_empty(), "{:?}", plan_with.refused);
    let losses = plan_with.losses.join("\n");
    assert!(losses.contains("acknowledged writes that only n2, n3 had"), "{losses}");
    assert!(losses.contains("the last 10s"), "{losses}");
    // One of three: what was complete is with the other two.
    let one = plan(&before, &begun, &standings(&["n1", "n2"]), &lost(&["n3"]));
    assert!(
        one.refused.is_empty() && !one.losses.join("").contains("acknowledged"),
        "{:?}",
        one.losses
    );
}

#[test]
fn who_answers_is_not_lost() {
    let (before, begun) = documents();
    let plan = plan(&before, &begun, &standings(&["n1", "n2", "n3"]), &lost(&["n3"]));
    assert_eq!(plan.refused, ["--accept-loss: n3 answers, it is not lost"]);
}

#[test]
fn new_nodes_that_are_away_are_a_risk_and_no_refusal() {
    let (before, begun) = documents();
    let plan = plan(&before, &begun, &standings(&["n1", "n2"]), &lost(&[]));
    assert!(plan.refused.is_empty(), "{:?}", plan.refused);
    let risks = plan.risks.join("\n");
    assert!(risks.contains("n3, n4 do not answer: for 2 partitions too few of the new"), "{risks}");
    assert!(risks.contains("n3 does not answer now"), "{risks}");
}
