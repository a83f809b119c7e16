//! Requests while the key moves from one set of replicas to another, and when a newer document comes
//! in the middle of one.
//!
//! Here `d` is the active deployment and `t` the other one; their nodes are a test's own. The
//! serving process starts with one document, replicas may know later ones.

use tako_flatbuf::GossipState;
use tako_types::{
    Epoch,
    config::{Migration, Phase},
};

use super::*;

mod overtaken;
mod reads;

/// Nodes `n1` to `n3`.
const OLD: &[u16] = &[1, 2, 3];
/// Nodes `n4` to `n6`.
const NEW: &[u16] = &[4, 5, 6];

/// A document of the move from `old` to `new`; in [`Phase::ReadNew`] the barrier is step 7.
fn document(number: u64, phase: Option<Phase>, old: &[u16], new: &[u16]) -> Published {
    let mut text = String::from("partitions: 1\nactive_deployment: d\n");
    if phase.is_some() {
        text.push_str("target_deployment: t\n");
    }
    text.push_str("deployments:\n");
    for (name, nodes) in [("d", old), ("t", new)] {
        text.push_str(&format!(
            "  {name}:\n    hash: {{buckets_per_key: 1}}\n    buckets:\n      b{name}:\n"
        ));
        for n in nodes {
            text.push_str(&format!("        n{n}: [n{n}, {}]\n", 4700 + n));
        }
    }
    let config = Arc::new(Config::parse(&text).expect("a valid configuration"));
    let migration = phase.map(|phase| Migration {
        phase,
        other: "t".into(),
        barrier: if phase == Phase::ReadNew { vec![StepNumber(7)] } else { Vec::new() },
    });
    tako_ring::publish_migration(config, number, migration, None).expect("it can be laid out")
}

struct Scene {
    serving: Arc<Serving>,
    nodes: BTreeMap<NodeId, Arc<Fake>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Scene {
    /// A serving process that has `document`, over the nodes `n1` to `n6`.
    async fn new(document: Published) -> Self {
        let ids: Vec<NodeId> = (1..=6).map(|n| NodeId::new(&format!("n{n}"))).collect();
        let (serving, nodes, stop) = serving_over(document, &ids).await;
        Self { serving, nodes, _stop: stop }
    }

    fn node(&self, n: u16) -> &Fake {
        &self.nodes[&NodeId::new(&format!("n{n}"))]
    }

    /// These take every write.
    fn take(&self, nodes: &[u16]) {
        nodes.iter().for_each(|n| self.node(*n).answers(|_| accepted()));
    }

    /// These answer nothing but that they are away.
    fn are_away(&self, nodes: &[u16]) {
        for n in nodes {
            self.node(*n).answers(|_| Some(Err(RpcError::new(ErrorKind::Unavailable, "away"))));
        }
    }

    /// These vote for a record, at step 7, and take every write.
    fn vote(&self, nodes: &[u16], micros: u64) {
        for n in nodes {
            self.node(*n).answers(move |request| votes_at(request, micros, StepNumber(7)));
        }
    }

    /// The old set in the order in which a read asks it.
    fn old_in_order(&self) -> Vec<u16> {
        let ids: Vec<NodeId> = OLD.iter().map(|n| NodeId::new(&format!("n{n}"))).collect();
        let order = self.serving.candidates(&key(), &ids);
        order.iter().map(|id| id.as_str()[1..].parse().expect("a number")).collect()
    }

    async fn put(&self, w: Option<usize>) -> Result<Written, RequestError> {
        self.serving.put(Write { w, ..write() }, LONG).await
    }

    async fn get(&self) -> Result<Option<u64>, RequestError> {
        let found = self.serving.get(&Read { key: key(), r: None }, LONG).await?;
        Ok(found.map(|record| record.version().micros))
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_only_one_of_the_two_sets_took_is_not_acknowledged() {
    for phase in [Phase::WriteBoth, Phase::ReadNew] {
        for (took, away) in [(OLD, NEW), (NEW, OLD)] {
            let scene = Scene::new(document(1, Some(phase), OLD, NEW)).await;
            scene.take(took);
            scene.are_away(away);
            let error = scene.put(None).await.expect_err("the other set has nothing of it");
            assert!(matches!(error, RequestError::TooFewAcks { got: 0, need: 2, .. }), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_goes_to_the_active_set_only_before_and_after_both_are_written() {
    for phase in [Phase::Join, Phase::WriteBoth] {
        let scene = Scene::new(document(1, Some(phase), OLD, NEW)).await;
        scene.take(OLD);
        scene.take(NEW);
        scene.put(None).await.expect("all are there");
        scene.serving.finish().await;
        let expected = usize::from(phase == Phase::WriteBoth);
        assert!(NEW.iter().all(|n| scene.node(*n).asked("put") == expected), "{phase:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_in_both_sets_counts_in_both_and_is_sent_the_write_once() {
    let (old, new) = (&[1, 2, 3], &[3, 4, 5]);
    let scene = Scene::new(document(1, Some(Phase::WriteBoth), old, new)).await;
    scene.take(&[1, 3, 4]);
    scene.are_away(&[2, 5]);
    scene.put(None).await.expect("two of three each");
    assert_eq!(scene.node(3).asked("put"), 1);

    let scene = Scene::new(document(1, Some(Phase::WriteBoth), old, new)).await;
    scene.take(&[1, 2, 4]);
    scene.are_away(&[3, 5]);
    let error = scene.put(None).await.expect_err("one of the new set's three");
    assert!(matches!(error, RequestError::TooFewAcks { need: 2, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_for_more_replicas_than_the_other_set_has_gets_all_of_that() {
    let both = || document(1, Some(Phase::WriteBoth), OLD, &[4, 5]);
    let scene = Scene::new(both()).await;
    scene.take(&[1, 2, 3, 4, 5]);
    scene.put(Some(3)).await.expect("all five took it");
    let error = scene.put(Some(4)).await.expect_err("reads ask three");
    assert!(matches!(error, RequestError::Invalid(_)), "{error}");

    let scene = Scene::new(both()).await;
    scene.take(&[1, 2, 3, 4]);
    scene.are_away(&[5]);
    scene.put(Some(3)).await.expect_err("the other set lacks one");
    let scene = Scene::new(both()).await;
    scene.take(&[1, 4]);
    scene.are_away(&[2, 3, 5]);
    scene.put(Some(1)).await.expect("one of each was asked for");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_right_when_it_began_is_not_refused_for_the_smaller_set_it_moved_to() {
    let scene = Scene::new(document(1, None, OLD, &[4, 5])).await;
    scene.vote(&[1, 2, 3, 4, 5], 5);
    for n in OLD {
        scene.node(*n).knows([document(2, Some(Phase::ReadNew), OLD, &[4, 5])]);
    }
    scene.put(Some(3)).await.expect("all five took it");
    let scene = Scene::new(document(1, None, OLD, &[4, 5])).await;
    // What it finds goes to the old set as well.
    scene.vote(&[4, 5], 5);
    scene.take(OLD);
    for n in OLD {
        scene.node(*n).knows([document(2, Some(Phase::ReadNew), OLD, &[4, 5])]);
    }
    let found = scene.serving.get(&Read { key: key(), r: Some(3) }, LONG).await;
    assert!(found.expect("both vote").is_some());
}

#[tokio::test(start_paused = true)]
async fn what_a_read_writes_back_reaches_both_sets_before_the_answer_and_only_one_is_asked() {
    for (phase, read, other) in [(Phase::WriteBoth, OLD, NEW), (Phase::ReadNew, NEW, OLD)] {
        let scene = Scene::new(document(1, Some(phase), OLD, NEW)).await;
        scene.vote(&read[..1], 5);
        scene.vote(&read[1..], 9);
        scene.take(other);
        // Whichever two are asked: where both hold 9 there is nothing to write back.
        let found = scene.serving.get(&Read { key: key(), r: Some(3) }, LONG).await;
        assert_eq!(found.expect("all are there").expect("a record").version().micros, 9);
        scene.serving.finish().await;
        for n in other {
            assert_eq!(scene.node(*n).asked("put"), 1, "{phase:?}: n{n} lacks it");
            assert_eq!(scene.node(*n).asked("get") + scene.node(*n).asked("stat"), 0);
        }

        let scene = Scene::new(document(1, Some(phase), OLD, NEW)).await;
        scene.vote(&read[..1], 5);
        scene.vote(&read[1..], 9);
        scene.are_away(&other[..2]);
        scene.take(&other[2..]);
        let found = scene.serving.get(&Read { key: key(), r: Some(3) }, LONG).await;
        let error = found.expect_err("a read of the other set may still find the older one");
        assert!(matches!(error, RequestError::TooFewVotes { need: 2, .. }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_view_is_below_the_barrier_has_no_vote() {
    let scene = Scene::new(document(1, Some(Phase::ReadNew), OLD, NEW)).await;
    // What was written to the old set alone is in the snapshot from step 7 on.
    for n in &NEW[..2] {
        scene.node(*n).answers(|request| votes_at(request, 5, StepNumber(6)));
    }
    scene.vote(&NEW[2..], 9);
    scene.take(OLD);
    let error = scene.get().await.expect_err("one vote is no quorum");
    assert!(matches!(error, RequestError::TooFewVotes { got: 1, need: 2, .. }), "{error}");

    // Nor where all would agree, whichever of them is asked for its whole vote.
    for above in NEW {
        let scene = Scene::new(document(1, Some(Phase::ReadNew), OLD, NEW)).await;
        for n in NEW {
            let step = StepNumber(if n == above { 7 } else { 6 });
            scene.node(*n).answers(move |request| votes_at(request, 9, step));
        }
        scene.take(OLD);
        let error = scene.get().await.expect_err("one vote is no quorum");
        assert!(matches!(error, RequestError::TooFewVotes { got: 1, need: 2, .. }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_meets_a_newer_document_is_done_only_when_both_sets_of_that_have_it() {
    let write_both = || document(2, Some(Phase::WriteBoth), OLD, NEW);
    let scene = Scene::new(document(1, None, OLD, NEW)).await;
    scene.take(OLD);
    scene.take(NEW);
    scene.node(2).knows([write_both()]);
    // With n1 it would be W of the old set.
    scene.node(3).delay.set(CALL_DEADLINE * 2).expect("told once");
    let written = scene.put(None).await.expect("all but one answer");
    scene.serving.finish().await;
    assert_eq!(scene.node(2).asked("refused"), 1);
    assert_eq!(scene.node(1).puts(), [(1, written.version), (2, written.version)]);
    for n in [2, 4, 5, 6] {
        assert_eq!(scene.node(n).puts(), [(2, written.version)], "n{n}: the same write, once");
    }

    let scene = Scene::new(document(1, None, OLD, NEW)).await;
    scene.take(OLD);
    scene.are_away(NEW);
    scene.node(2).knows([write_both()]);
    scene.node(3).delay.set(CALL_DEADLINE * 2).expect("told once");
    let error = scene.put(None).await.expect_err("no replica of the new set has it");
    assert!(matches!(error, RequestError::TooFewAcks { got: 0, need: 2, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_meets_a_newer_document_begins_again_at_its_set_and_mixes_no_votes() {
    // The first replica asked did not hear that reads moved; the others did.
    let moved = |scene: &Scene| {
        scene.vote(OLD, 5);
        for n in &scene.old_in_order()[1..] {
            scene.node(*n).knows([document(2, Some(Phase::ReadNew), OLD, NEW)]);
        }
    };
    let scene = Scene::new(document(1, Some(Phase::WriteBoth), OLD, NEW)).await;
    moved(&scene);
    scene.vote(NEW, 9);
    assert_eq!(scene.get().await.expect("all are there"), Some(9), "the old set was believed");
    assert_eq!(scene.node(scene.old_in_order()[0]).asked("get"), 1);

    let scene = Scene::new(document(1, Some(Phase::WriteBoth), OLD, NEW)).await;
    moved(&scene);
    scene.vote(&NEW[..1], 9);
    scene.are_away(&NEW[1..]);
    let error = scene.get().await.expect_err("one vote of each set is no quorum");
    assert!(matches!(error, RequestError::TooFewVotes { got: 1, need: 2, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_newer_document_that_places_the_key_alike_is_no_reason_to_begin_again() {
    for phase in [None, Some(Phase::Join)] {
        let scene = Scene::new(document(1, None, OLD, NEW)).await;
        let [first, second, third] = scene.old_in_order()[..] else { unreachable!("three") };
        scene.vote(&[first, second], 5);
        scene.node(third).answers(|_| None);
        scene.node(second).knows([document(2, phase, OLD, NEW)]);
        let written = scene.put(None).await.expect("two of three took it");
        assert_eq!(scene.node(first).puts(), [(1, written.version)], "{phase:?}");
        assert_eq!(scene.node(second).puts(), [(2, written.version)], "{phase:?}");

        let scene = Scene::new(document(1, None, OLD, NEW)).await;
        scene.vote(&[first, second], 5);
        scene.node(third).answers(|_| None);
        scene.node(second).knows([document(2, phase, OLD, NEW)]);
        assert_eq!(scene.get().await.expect("two of three answer"), Some(5));
        assert_eq!(scene.node(first).asked("get"), 1, "{phase:?}");
        assert_eq!(scene.node(second).asked("refused"), 1, "{phase:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_key_moves_again_and_again_ends_as_unavailable() {
    let scene = Scene::new(document(1, None, OLD, NEW)).await;
    scene.vote(OLD, 5);
    scene.vote(NEW, 5);
    // Reads ask the new set under every other document, and the old one under the rest.
    let later = |numbers: std::ops::Range<u64>| {
        numbers.map(|number| {
            let phase = if number % 2 == 0 { Some(Phase::ReadNew) } else { None };
            document(number, phase, OLD, NEW)
        })
    };
    for n in OLD.iter().chain(NEW) {
        scene.node(*n).knows(later(2..40));
    }
    let started = Instant::now();
    let error = scene.put(None).await.expect_err("it moves for ever");
    assert!(matches!(error, RequestError::Moving { times: 5 }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = scene.get().await.expect_err("it moves for ever");
    assert!(matches!(error, RequestError::Moving { times: 5 }), "{error}");
    assert!(started.elapsed() < CALL_DEADLINE, "took {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_newer_document_cannot_be_had_is_one_that_failed() {
    let scene = Scene::new(document(1, None, OLD, NEW)).await;
    let [first, second, third] = scene.old_in_order()[..] else { unreachable!("three") };
    scene.vote(&[first, third], 5);
    // It names an epoch and then answers the question for it like this.
    scene.node(second).answers(|_| Some(Err(RpcError::stale_epoch(9))));
    scene.put(None).await.expect("the two others took it");
    scene.serving.finish().await;
    assert_eq!(scene.node(second).asked("put"), 1, "nothing is new that it could be sent under");
    assert_eq!(scene.get().await.expect("the two others vote"), Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_process_is_ready_only_when_every_written_set_has_its_quorum() {
    let scene = Scene::new(document(1, Some(Phase::WriteBoth), OLD, NEW)).await;
    let serves = |n: u16| {
        let state = GossipState {
            node: NodeId::new(&format!("n{n}")),
            incarnation: Incarnation(1),
            state: NodeState::Serving,
            clock_micros: 0,
            epoch: Epoch { number: 1, sha256: [0; 32] },
            load: 0,
            known: Vec::new(),
            partitions: Vec::new(),
        };
        scene.serving.links.membership.on_gossip(state, None);
    };
    [1, 2, 3, 4].into_iter().for_each(serves);
    let missing = scene.serving.readiness().expect_err("one of the new set's three");
    assert_eq!(missing, "partition 0: 1 of its replicas n4, n5, n6 serve, 2 are needed");
    serves(5);
    scene.serving.readiness().expect("two of three each");
}
