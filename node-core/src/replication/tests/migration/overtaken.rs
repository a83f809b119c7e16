//! Writes whose key moves while something newer comes: which may get another version.
//!
//! The rule is in `write.rs`: none that may have been seen under the version it has.

use super::*;

/// Above every version that a clock of today issues.
const NEWER: Version = Version { micros: u64::MAX / 2, origin: 1 };

fn write_both() -> Published {
    document(2, Some(Phase::WriteBoth), OLD, NEW)
}

/// Takes its first write; then somebody read that and wrote something newer.
fn taken_and_overtaken() -> impl Fn(&Request) -> Option<Result<Response, RpcError>> {
    let taken = Mutex::new(false);
    move |_| match std::mem::replace(&mut *taken.lock().expect("no test panics holding it"), true) {
        false => accepted(),
        true => superseded(NEWER),
    }
}

fn was_sent_above_it(scene: &Scene) -> bool {
    let mut puts = OLD.iter().chain(NEW).flat_map(|n| scene.node(*n).puts());
    puts.any(|(_, version)| NEWER < version)
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_been_seen_before_its_key_moved_is_not_sent_above_what_followed() {
    let scene = Scene::new(document(1, None, OLD, NEW)).await;
    scene.node(1).answers(taken_and_overtaken());
    scene.node(2).knows([write_both()]);
    for n in [2, 3] {
        scene.node(n).answers(|_| superseded(NEWER));
    }
    // It might have taken it as well.
    scene.node(3).delay.set(CALL_DEADLINE * 2).expect("told once");
    scene.take(NEW);
    let error = scene.put(None).await.expect_err("it would come back from below the newer one");
    assert!(matches!(error, RequestError::TooFewAcks { got: 1, need: 2, .. }), "{error}");
    scene.serving.finish().await;
    assert!(!was_sent_above_it(&scene));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_no_replica_took_before_its_key_moved_goes_above_what_is_newer() {
    let scene = Scene::new(document(1, None, OLD, NEW)).await;
    for n in OLD {
        scene.node(*n).knows([write_both()]);
        scene.node(*n).answers(holds(NEWER));
    }
    scene.take(NEW);
    let written = scene.put(None).await.expect("nobody saw it before");
    assert!(written.won && NEWER < written.version, "{written:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_enough_voters_took_before_its_key_moved_settles_for_what_followed() {
    let scene = Scene::new(document(1, None, OLD, NEW)).await;
    for n in [1, 2] {
        scene.node(n).answers(taken_and_overtaken());
    }
    scene.node(3).knows([write_both()]);
    scene.node(3).answers(|_| superseded(NEWER));
    scene.take(NEW);
    // All three were asked for, so two are not enough; what was complete before is below it.
    let written = scene.put(Some(3)).await.expect("all six hold it or something newer");
    assert_eq!(written, Written { version: NEWER, won: false });
    assert!(!was_sent_above_it(&scene));
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_key_moved_waits_but_a_moment_for_a_replica_that_does_not_answer() {
    let scene = Scene::new(document(1, None, OLD, NEW)).await;
    scene.take(&[1, 2]);
    scene.take(NEW);
    scene.node(1).delay.set(Duration::from_millis(10)).expect("told once");
    scene.node(2).knows([write_both()]);
    scene.node(3).answers(|_| None);
    let began = Instant::now();
    scene.put(None).await.expect("two of three each");
    assert!(began.elapsed() < Duration::from_millis(200), "took {:?}", began.elapsed());
}
