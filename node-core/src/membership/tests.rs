use tako_flatbuf::NodeState;
use tako_types::Epoch;

use super::*;

fn gossip(node: &str, incarnation: u64) -> GossipState {
    GossipState {
        node: NodeId::new(node),
        incarnation: Incarnation(incarnation),
        state: NodeState::Serving,
        clock_micros: 0,
        epoch: Epoch::default(),
        load: 0,
        known: vec![],
        partitions: vec![],
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_not_live_and_comes_back_with_its_next_answer() {
    let membership = Membership::default();
    membership.on_gossip(gossip("n1", 1), Some(0));
    let n1 = NodeId::new("n1");
    assert!(membership.is_live(&n1));
    tokio::time::advance(SILENT_AFTER * 2).await;
    assert!(!membership.is_live(&n1));
    membership.on_answer(&n1);
    assert!(membership.is_live(&n1));
    membership.on_failure(&n1);
    assert_eq!(membership.read_rank(&n1), 3);
}

#[tokio::test]
async fn a_known_incarnation_never_goes_back() {
    let membership = Membership::default();
    membership.on_gossip(gossip("n1", 5), None);
    membership.on_gossip(gossip("n1", 3), None);
    assert_eq!(membership.incarnation(&NodeId::new("n1")), Some(Incarnation(5)));
}

#[tokio::test]
async fn one_peer_with_a_wrong_clock_does_not_move_the_median() {
    let membership = Membership::default();
    let day = 86_400_000_000;
    membership.on_gossip(gossip("n1", 1), Some(day));
    assert_eq!(membership.clock_offset_micros(), Some(0));
    membership.on_gossip(gossip("n2", 1), Some(10));
    assert_eq!(membership.clock_offset_micros(), Some(10));
    // Everybody else agrees: it is this process.
    membership.on_gossip(gossip("n2", 1), Some(day));
    assert_eq!(membership.clock_offset_micros(), Some(day));
}

#[tokio::test]
async fn a_peer_that_never_answered_is_failing_and_not_merely_unknown() {
    let membership = Membership::default();
    let n1 = NodeId::new("n1");
    assert_eq!(membership.read_rank(&n1), 2);
    membership.on_failure(&n1);
    assert_eq!(membership.read_rank(&n1), 3);
    membership.on_answer(&n1);
    assert_eq!(membership.read_rank(&n1), 2);
    membership.on_failure(&n1);
    membership.on_gossip(gossip("n1", 1), None);
    assert_eq!(membership.read_rank(&n1), 0);
}
