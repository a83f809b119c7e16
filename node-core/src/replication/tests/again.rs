//! Writes of who is patient: sent again under their one version, and no other once it may be seen.

use super::*;

fn down() -> Option<Result<Response, RpcError>> {
    Some(Err(RpcError::unavailable("the connection broke")))
}

/// Answers the first request so, and later ones as `then` says.
fn at_first(
    first: impl Fn(&Request) -> Option<Result<Response, RpcError>> + Send + Sync + 'static,
    then: impl Fn(&Request) -> Option<Result<Response, RpcError>> + Send + Sync + 'static,
) -> impl Fn(&Request) -> Option<Result<Response, RpcError>> + Send + Sync + 'static {
    let is_first = AtomicBool::new(true);
    move |request| match is_first.swap(false, Ordering::AcqRel) {
        true => first(request),
        false => then(request),
    }
}

fn versions_sent(fake: &Fake) -> Vec<Version> {
    fake.puts().into_iter().map(|(_, version)| version).collect()
}

/// A version of somebody whose clock is ahead: newer than what is written now.
fn ahead(fakes: &Fakes) -> Version {
    Version { micros: fakes.serving.clock().now_micros() + 10_000_000, origin: 1 }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_too_few_took_is_sent_again_under_its_version() {
    let fakes = fakes(3).await;
    fakes.replicas[0].answers(at_first(|_| accepted(), |_| accepted()));
    for replica in &fakes.replicas[1..] {
        replica.answers(at_first(|_| down(), |_| accepted()));
    }
    let written = fakes.serving.put_patiently(write(), LONG).await.expect("two come back");
    fakes.serving.finish().await;
    assert!(written.won);
    for replica in &fakes.replicas {
        assert_eq!(versions_sent(replica), [written.version; 2], "never another");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_patient_is_told_at_once() {
    let fakes = fakes(3).await;
    for replica in &fakes.replicas {
        replica.answers(at_first(|_| down(), |_| accepted()));
    }
    let error = fakes.serving.put(write(), LONG).await.expect_err("none took it");
    assert!(matches!(error, RequestError::TooFewAcks { got: 0, need: 2, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_been_seen_does_not_come_back_above_what_followed_it() {
    let fakes = fakes(3).await;
    let followed = ahead(&fakes);
    // One took it and is not heard: it may have been read there, and something newer been written.
    fakes.replicas[0].answers(at_first(|_| down(), holds(followed)));
    for replica in &fakes.replicas[1..] {
        replica.answers(at_first(|_| down(), holds(followed)));
    }
    let error = fakes.serving.put_patiently(write(), LONG).await.expect_err("nobody can tell");
    assert!(error.to_string().contains(OVERTAKEN), "{error}");
    fakes.serving.finish().await;
    for replica in &fakes.replicas {
        let sent = versions_sent(replica);
        assert!(sent.iter().all(|version| *version == sent[0] && *version < followed), "{sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_nobody_can_have_taken_goes_above_what_is_there() {
    // One: of several the last is not waited for, and so may have it.
    let fakes = fakes(1).await;
    let there = ahead(&fakes);
    let refuses = |_: &Request| Some(Err(RpcError::nothing_done("it only starts")));
    fakes.replicas[0].answers(at_first(refuses, holds(there)));
    let written = fakes.serving.put_patiently(write(), LONG).await.expect("it is there");
    assert!(written.won && there < written.version, "complete before it began, so it lies above");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_enough_judges_took_settles_for_what_came_after() {
    let fakes = fakes(3).await;
    let after = ahead(&fakes);
    // Two of three, which is enough to know that all that was complete is older, but three are asked for.
    for replica in &fakes.replicas[..2] {
        replica.answers(at_first(|_| accepted(), holds(after)));
    }
    fakes.replicas[2].answers(at_first(|_| down(), holds(after)));
    fakes.replicas[2].delay.set(Duration::from_millis(10)).expect("told once");
    let all = Write { w: Some(3), ..write() };
    let written = fakes.serving.put_patiently(all, LONG).await.expect("it was concurrent");
    assert_eq!(written, Written { version: after, won: false });
}

#[tokio::test(start_paused = true)]
async fn patience_ends_with_the_deadline_and_tells_why() {
    let fakes = fakes(3).await;
    fakes.replicas[0].answers(|_| accepted());
    for replica in &fakes.replicas[1..] {
        replica.answers(|_| down());
    }
    let limit = Duration::from_secs(5);
    let began = Instant::now();
    let error = fakes.serving.put_patiently(write(), limit).await.expect_err("two are gone");
    assert!(matches!(error, RequestError::TooFewAcks { got: 1, need: 2, .. }), "{error}");
    assert!(began.elapsed() <= limit && limit / 2 < began.elapsed(), "{:?}", began.elapsed());
    let times = fakes.replicas[0].asked("put");
    assert!((5..20).contains(&times), "{times} times: pauses grow");
}
