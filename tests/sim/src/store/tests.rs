//! The store with everything that goes wrong on the way to it.

use bytes::Bytes;
use chrono::TimeDelta;
use futures::{StreamExt, TryStreamExt};
use object_store::{GetOptions, ObjectStoreExt};
use tokio::time::timeout;

use super::*;
use crate::clock::EPOCH_MICROS;

fn store(seed: u64) -> (SimStore, FaultCounts) {
    let counts = FaultCounts::default();
    (SimStore::new(&Chance::new(seed), &counts), counts)
}

fn path(text: &str) -> Path {
    Path::from(text)
}

async fn names(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let all: Vec<_> = store.list(None).try_collect().await.expect("sound");
    all.into_iter().map(|meta: ObjectMeta| meta.location.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn calls_take_time_and_objects_bear_simulated_times() {
    let (store, _) = store(1);
    let view = store.view("n1", 1).object_store();
    tokio::time::advance(Duration::from_secs(100)).await;
    let before = Instant::now();
    view.put(&path("a/x"), "x".into()).await.expect("sound");
    view.copy(&path("a/x"), &path("a/y")).await.expect("sound");
    let took = before.elapsed();
    assert!(LATENCY.0 * 2 <= took && took <= LATENCY.1 * 2, "{took:?}");
    let meta = view.head(&path("a/x")).await.expect("there");
    let epoch = DateTime::from_timestamp_micros(EPOCH_MICROS as i64).expect("in range");
    let age = meta.last_modified - epoch;
    assert!(TimeDelta::seconds(100) <= age && age < TimeDelta::seconds(101), "{age}");
    let listed: Vec<ObjectMeta> = view.list(None).try_collect().await.expect("sound");
    assert_eq!(listed[0], meta);
    let delimited = view.list_with_delimiter(Some(&path("a"))).await.expect("sound");
    assert_eq!(delimited.objects, listed);
    let newer = GetOptions { if_modified_since: Some(meta.last_modified), ..GetOptions::default() };
    let error = view.get_opts(&path("a/x"), newer).await.expect_err("not newer");
    assert!(matches!(error, object_store::Error::NotModified { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_fails_before_has_no_effect_and_what_fails_after_has() {
    let (store, counts) = store(2);
    store.set_errors(0.5);
    let view = store.view("n1", 1).object_store();
    let mut failed = 0;
    for n in 0..200 {
        failed += u64::from(view.put(&path(&format!("{n:03}")), "x".into()).await.is_err());
    }
    let all = counts.all();
    let (before, after) =
        (all["store call failed before its effect"], all["store call failed after its effect"]);
    assert!(20 < before && 20 < after);
    assert_eq!(
        (failed, names(&store.backend()).await.len() as u64),
        (before + after, 200 - before)
    );
    store.heal();
    view.get(&path("none")).await.expect_err("not there");
    assert_eq!(counts.all(), all);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_one_process_is_not_one_of_another() {
    let (store, counts) = store(3);
    let (one, two) = (store.view("n1", 1).object_store(), store.view("n2", 1).object_store());
    store.set_outage(Some("n1"), true);
    for _ in 0..20 {
        one.put(&path("one"), "x".into()).await.expect_err("cut off");
    }
    two.put(&path("two"), "x".into()).await.expect("sound");
    store.set_outage(None, true);
    two.list(None).next().await.expect("an answer").expect_err("away");
    store.set_outage(None, false);
    two.head(&path("two")).await.expect("back");
    store.heal();
    one.head(&path("two")).await.expect("back");
    assert_eq!(names(&store.backend()).await, ["two"]);
    assert!(0 < counts.all()["store call hung"] && 0 < counts.all()["store call refused"]);
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_crashed_process_arrive_late_or_never_and_it_sends_no_more() {
    let (store, counts) = store(4);
    store.set_slow(Some(Duration::from_secs(10)));
    for life in 0..60 {
        let view = store.view("n1", life).object_store();
        let name = path(&format!("{life:02}"));
        let sent = tokio::spawn({
            let (view, name) = (view.clone(), name.clone());
            async move { view.put(&name, "x".into()).await.map(drop) }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        store.crash("n1", life);
        sent.await.expect("no panic").expect_err("crashed");
        view.put(&path("later"), "x".into()).await.expect_err("crashed");
    }
    let arrived = names(&store.backend()).await;
    assert!(10 < arrived.len() && arrived.len() < 50, "{arrived:?}");
    assert!(!arrived.contains(&"later".to_owned()));
    let all = counts.all();
    assert!(10 < all["store call arrived after its caller"], "{all:?}");
    assert!(10 < all["store call lost with its caller"], "{all:?}");
    store.view("n1", 60).object_store().head(&path(&arrived[0])).await.expect("the next one");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_waits_for_may_still_take_effect() {
    let (store, counts) = store(5);
    store.set_slow(Some(Duration::from_secs(60)));
    let view = store.view("n1", 1).object_store();
    for n in 0..60 {
        let name = path(&format!("{n:02}"));
        let put = view.put(&name, "x".into());
        drop(timeout(Duration::from_millis(3), put).await);
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(5 < counts.all()["store call arrived after its caller"]);
    assert!(5 < counts.all()["store call lost with its caller"]);
}

#[tokio::test(start_paused = true)]
async fn an_upload_appears_whole_or_not_at_all() {
    let (store, _) = store(6);
    let view = store.view("n1", 1).object_store();
    store.set_errors(0.2);
    let mut whole = 0;
    for n in 0..60 {
        let name = path(&format!("{n:02}"));
        let Ok(mut upload) = view.put_multipart(&name).await else { continue };
        let parts = [upload.put_part("one".into()), upload.put_part("two".into())];
        let sent = futures::future::join_all(parts).await.into_iter().all(|part| part.is_ok());
        let done = upload.complete().await.is_ok();
        match store.backend().get(&name).await {
            Ok(found) => {
                assert_eq!(found.bytes().await.expect("sound"), Bytes::from_static(b"onetwo"));
                whole += 1;
            }
            Err(_) => assert!(!(sent && done)),
        }
    }
    assert!(10 < whole && whole < 60);
}

#[tokio::test(start_paused = true)]
async fn some_failures_look_worth_a_retry_and_some_do_not() {
    let (store, _) = store(7);
    store.set_errors(1.0);
    let view = store.view("n1", 1).object_store();
    let mut texts = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let error = view.head(&path("a")).await.expect_err("fails");
        texts.insert(format!("{error:?}").contains("NonRetryable"));
    }
    assert_eq!(texts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_trace() {
    let mut traces = Vec::new();
    for seed in [8, 8, 9] {
        let (store, _) = store(seed);
        store.set_errors(0.3);
        let views: Vec<_> =
            ["n1", "n2"].iter().map(|name| store.view(name, 1).object_store()).collect();
        let calls = (0..40).map(|n| {
            let (view, name) = (views[n % 2].clone(), path(&format!("{}", n % 5)));
            async move { drop(view.put(&name, "x".into()).await) }
        });
        futures::future::join_all(calls).await;
        traces.push(store.trace_hash());
    }
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], traces[2]);
}
