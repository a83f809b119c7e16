//! A store that fails at any call, answers late, or loses answers.

use object_store::ObjectStoreExt as _;
use tako_types::{ErrorKind, StepNumber};

use super::*;
use crate::fault::{Match, Op, When};

/// Two rows, so that half a step would show.
fn second() -> StepInput {
    step(vec![row("a", 20, "a2", true), row("b", 21, "b2", true)], 2)
}

/// Fails a step from its nth store call on, for every n, then looks at what is left.
async fn fail_every_call(world: fn() -> World, when: When, once: bool, retried: bool) {
    for n in 0.. {
        let world = world();
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        let first = step(vec![row("a", 10, "a1", true), row("b", 11, "b1", true)], 1);
        writer.step(first).await.expect("a step");

        world.fault.retried(retried);
        match once {
            true => world.fault.fail_nth(Match::any(), n, when),
            false => world.fault.fail_from(Match::any(), n, when),
        }
        let outcome = writer.step(second()).await;
        let failed = world.fault.failed();
        world.fault.clear();
        let what = format!("call {n}, {when:?}, once {once}, retried {retried}: {outcome:?}");

        let mut next = node.writer(P).await.expect("a new writer");
        let seen = next.meta().step;
        assert!(seen == StepNumber(1) || seen == StepNumber(2), "{what}");
        if outcome.is_ok() {
            assert_eq!(seen, StepNumber(2), "{what}");
        }
        let expected = if seen == StepNumber(2) { ["a2", "b2"] } else { ["a1", "b1"] };
        let reader = node.reader_latest(P).await.expect("a look").expect("a reader");
        assert_eq!(reader.meta(), next.meta(), "{what}");
        for (name, expected) in ["a", "b"].into_iter().zip(expected) {
            assert_eq!(text(&reader, name).await.as_deref(), Some(expected), "{what}");
        }

        let done = next.step(second()).await.expect("the new writer continues");
        assert_eq!(done.meta.step, StepNumber(seen.0 + 1), "{what}");
        let reader = node.reader_at(P, done.checkpoint).await.expect("a reader");
        assert_eq!(text(&reader, "b").await.as_deref(), Some("b2"), "{what}");
        drop((writer, next, reader));
        node.close().await;
        if failed == 0 {
            assert!(n >= 2, "a step makes at least two calls, not {n}");
            return;
        }
    }
}

#[tokio::test]
async fn an_outage_at_any_call_leaves_the_whole_step_or_nothing() {
    for world in World::kinds() {
        fail_every_call(world, When::Before, false, false).await;
        fail_every_call(world, When::After, false, false).await;
    }
}

#[tokio::test]
async fn one_failure_at_any_call_leaves_the_whole_step_or_nothing() {
    for world in World::kinds() {
        fail_every_call(world, When::Before, true, false).await;
        fail_every_call(world, When::After, true, false).await;
    }
}

#[tokio::test]
async fn one_lost_answer_is_made_up_for_by_a_retry() {
    for world in World::kinds() {
        fail_every_call(world, When::Before, true, true).await;
        fail_every_call(world, When::After, true, true).await;
    }
}

#[tokio::test]
async fn a_dead_store_is_reported_and_never_waited_for_without_end() {
    for world in World::all() {
        let node = world.node().await;
        world.fault.refuse_all();
        let error = node.writer(P).await.err().expect("no store");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        let error = node.reader_latest(P).await.err().expect("no store");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        node.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_ends_in_a_deadline() {
    let world = World::memory();
    let node = world.node().await;
    let mut writer = node.writer(P).await.expect("a writer");
    let done = writer.step(step(vec![row("a", 1, "x", true)], 1)).await.expect("a step");
    world.fault.slow(Some(Duration::from_secs(3600)));
    let error = node.reader_at(P, done.checkpoint).await.err().expect("no answer");
    assert_eq!(error.kind(), ErrorKind::Deadline);
    let error = writer.step(second()).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Deadline);
    let error = writer.step(second()).await.expect_err("disposable");
    assert_eq!(error.kind(), ErrorKind::Closed);
    world.fault.clear();
    let mut next = node.writer(P).await.expect("a new writer");
    next.step(second()).await.expect("the new writer continues");
    node.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_makes_a_step_slow_and_nothing_else() {
    let world = World::memory();
    let node = world.node().await;
    world.fault.slow(Some(Duration::from_millis(800)));
    let mut writer = node.writer(P).await.expect("a writer");
    let done = writer.step(second()).await.expect("a step");
    let reader = node.reader_at(P, done.checkpoint).await.expect("a reader");
    assert_eq!(text(&reader, "a").await.as_deref(), Some("a2"));
    node.close().await;
}

#[tokio::test]
async fn a_crash_between_upload_and_manifest_leaves_nothing_of_the_step() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        writer.step(step(vec![row("a", 10, "a1", true)], 1)).await.expect("a step");
        world.fault.fail_from(Match::op(Op::Put).on("/manifest/"), 0, When::Before);
        writer.step(second()).await.expect_err("no manifest");
        // Closing must not commit what no step committed.
        world.fault.clear();
        writer.close().await;
        let reader = node.reader_latest(P).await.expect("a look").expect("a reader");
        assert_eq!(reader.meta().step, StepNumber(1));
        assert_eq!(text(&reader, "a").await.as_deref(), Some("a1"));
        assert_eq!(text(&reader, "b").await, None);
        node.close().await;
    }
}

#[tokio::test]
async fn rules_count_matching_calls_only_and_scripts_run_once() {
    use object_store::ObjectStoreExt as _;
    let world = World::memory();
    let store = world.store.object_store();
    let put = async |name: &str| {
        store.put(&object_store::path::Path::from(name), Bytes::from_static(b"x").into()).await
    };
    let exists = async |name: &str| store.head(&object_store::path::Path::from(name)).await.is_ok();

    world
        .fault
        .script(&Match::op(Op::Put).on("a/"), &[None, Some(When::Before), Some(When::After)]);
    put("b/0").await.expect("another path");
    put("a/0").await.expect("the script lets the first pass");
    put("a/1").await.expect_err("before");
    assert!(!exists("a/1").await);
    put("a/2").await.expect_err("after");
    assert!(exists("a/2").await);
    put("a/3").await.expect("the script is over");
    assert_eq!(world.fault.failed(), 2);
    world.fault.refuse_all();
    assert!(!exists("a/3").await);
    world.fault.clear();
    assert!(exists("a/3").await);
    assert_eq!(world.store.counts().puts, 5);
}

/// What a task came to that may never give way, and how long that took at most.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().expect("a runtime");
        let _ = done.send(runtime.block_on(work));
    });
    result.recv_timeout(limit).ok()
}

#[test]
fn a_database_with_a_file_that_is_no_manifest_is_not_waited_for_for_ever_and_named() {
    let opened = within(Duration::from_secs(20), async {
        let world = World::memory();
        let path = world.store.path("partitions/5-3/db/manifest/1.manifest");
        world.store.object_store().put(&path, "junk".into()).await.expect("written");
        let node = world.node().await;
        // Memory answers at once, so time passes only by hand.
        let hour = async { tokio::time::advance(Duration::from_secs(3_600)).await };
        let (writer, ()) = tokio::join!(node.writer(P), hour);
        let hour = async { tokio::time::advance(Duration::from_secs(3_600)).await };
        let (reader, ()) = tokio::join!(node.reader_latest(P), hour);
        (writer.map(drop), reader.map(drop))
    });
    let (writer, reader) = opened.expect("it asks for ever and gives way to nobody");
    for error in [writer.expect_err("no database"), reader.expect_err("no database")] {
        assert_eq!(error.kind(), ErrorKind::Deadline, "{error}");
        assert!(error.to_string().starts_with("partitions/5-3/db was not opened"), "{error}");
    }
}
