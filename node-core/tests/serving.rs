//! Requests over a whole cluster in one process.

mod common;

use std::time::Duration;

use common::{Cluster, get, one_bucket, put, tombstone, write};
use tako_node_core::replication::{Read, Write};

#[tokio::test(flavor = "multi_thread")]
async fn a_value_written_through_one_node_is_read_through_every_other_and_a_proxy() {
    let mut cluster = Cluster::started(&one_bucket(3), &["n1", "n2", "n3"]).await;
    let proxy = cluster.proxy("p1").await;
    put(cluster.serving("n1"), "k", "v1").await.expect("written");
    for id in ["n1", "n2", "n3"] {
        assert_eq!(get(cluster.serving(id), "k").await.expect("read").as_deref(), Some("v1"));
    }
    put(&proxy.serving, "k", "v2").await.expect("written");
    assert_eq!(get(cluster.serving("n3"), "k").await.expect("read").as_deref(), Some("v2"));
    cluster.covered().await;
    for id in ["n1", "n2", "n3"] {
        assert_eq!(get(cluster.serving(id), "k").await.expect("read").as_deref(), Some("v2"));
    }
    assert_eq!(get(&proxy.serving, "nothing").await.expect("read"), None);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_value_is_gone_before_and_after_a_step() {
    let cluster = Cluster::started(&one_bucket(3), &["n1", "n2", "n3"]).await;
    put(cluster.serving("n1"), "k", "v").await.expect("written");
    cluster.covered().await;
    let limit = Duration::from_secs(5);
    cluster.serving("n2").put(tombstone("k"), limit).await.expect("deleted");
    assert_eq!(get(cluster.serving("n3"), "k").await.expect("read"), None);
    cluster.covered().await;
    assert_eq!(get(cluster.serving("n1"), "k").await.expect("read"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_value_is_a_value() {
    let cluster = Cluster::started(&one_bucket(1), &["n1"]).await;
    put(cluster.serving("n1"), "k", "").await.expect("written");
    assert_eq!(get(cluster.serving("n1"), "k").await.expect("read").as_deref(), Some(""));
    cluster.covered().await;
    assert_eq!(get(cluster.serving("n1"), "k").await.expect("read").as_deref(), Some(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_losing_client_timestamp_is_answered_with_the_winning_one() {
    let cluster = Cluster::started(&one_bucket(3), &["n1", "n2", "n3"]).await;
    let limit = Duration::from_secs(5);
    let stamped =
        |value: &str, micros| Write { timestamp_micros: Some(micros), ..write("k", value) };
    for round in 0..2 {
        let new = cluster.serving("n1").put(stamped("new", 2000), limit).await.expect("written");
        assert_eq!((new.version.micros, new.won), (2000, true), "a retry wins again");
        let old = cluster.serving("n2").put(stamped("old", 1000), limit).await.expect("answered");
        assert_eq!((old.version.micros, old.won), (2000, false), "round {round}");
        assert_eq!(get(cluster.serving("n3"), "k").await.expect("read").as_deref(), Some("new"));
        // The second round asks replicas whose record is in the snapshot only.
        cluster.covered().await;
    }
    let far = stamped("far", u64::MAX / 2);
    assert!(cluster.serving("n1").put(far, limit).await.is_err(), "a day in the future is refused");
}

async fn says_absent(cluster: &Cluster, name: &str, when: &str) {
    for id in ["n1", "n2", "n3"] {
        let found = get(cluster.serving(id), name).await.expect("read");
        assert_eq!(found, None, "{name} through {id}, {when}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_value_is_gone_and_nothing_older_comes_back() {
    // Steps only when they are asked for: it expires before one covers it.
    let config = one_bucket(3).replace("300ms", "1h");
    let mut cluster = Cluster::started(&config, &["n1", "n2", "n3"]).await;
    let p = common::key("k").partition(2);
    put(cluster.serving("n1"), "k", "old").await.expect("written");
    cluster.node("n1").snapshotter.step_here(p).await.expect("a step");
    let expires_at_micros = cluster.serving("n1").clock().now_micros() + 400_000;
    let short = Write { expires_at_micros, ..write("k", "short") };
    cluster.serving("n1").put(short, Duration::from_secs(5)).await.expect("written");
    common::eventually("it expires", async || {
        get(cluster.serving("n2"), "k").await.expect("read").as_deref() != Some("short")
    })
    .await;
    says_absent(&cluster, "k", "before its step").await;
    cluster.node("n1").snapshotter.step_here(p).await.expect("a step");
    assert_eq!(cluster.node("n1").replica.engine().partition_status(p).uncovered, 0);
    says_absent(&cluster, "k", "after its step").await;
    // What is cached would hide an older one in the snapshot.
    cluster.crash_all().await;
    for id in ["n1", "n2", "n3"] {
        cluster.start(id).await;
    }
    for id in ["n1", "n2", "n3"] {
        cluster.serves(id).await;
    }
    says_absent(&cluster, "k", "after its step and a restart").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_of_three_dead_requests_go_on_and_with_two_they_are_refused_not_absent() {
    let mut cluster = Cluster::started(&one_bucket(3), &["n1", "n2", "n3"]).await;
    put(cluster.serving("n1"), "k", "v").await.expect("written");
    cluster.crash("n3").await;
    for n in 0..20 {
        put(cluster.serving("n1"), &format!("k{n}"), "v").await.expect("two of three take it");
        assert!(get(cluster.serving("n2"), "k").await.expect("read").is_some());
    }
    cluster.crash("n2").await;
    let error = get(cluster.serving("n1"), "unknown").await.expect_err("one vote is no answer");
    assert!(error.kind().retry(), "{error}");
    assert!(put(cluster.serving("n1"), "k", "w").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn per_request_levels_are_obeyed_and_impossible_ones_refused() {
    let mut cluster = Cluster::started(&one_bucket(3), &["n1", "n2", "n3"]).await;
    cluster.crash("n2").await;
    cluster.crash("n3").await;
    let limit = Duration::from_secs(5);
    let n1 = cluster.serving("n1");
    assert!(put(n1, "k", "v").await.is_err());
    let one = Write { w: Some(1), ..write("k", "v") };
    n1.put(one, limit).await.expect("one is enough");
    assert!(n1.put(Write { w: Some(4), ..write("k", "v") }, limit).await.is_err());
    let read = Read { key: common::key("k"), r: Some(1) };
    assert!(n1.get(&read, limit).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_racing_on_one_key_all_succeed_and_all_replicas_agree() {
    let cluster = Cluster::started(&one_bucket(3), &["n1", "n2", "n3"]).await;
    let puts = (0..60).map(|n| {
        let serving = cluster.serving(["n1", "n2", "n3"][n % 3]);
        async move { put(serving, "k", &format!("v{n}")).await }
    });
    for written in futures::future::join_all(puts).await {
        written.expect("a race is no error");
    }
    let restamps = ["n1", "n2", "n3"].map(|id| {
        cluster.serving(id).metrics().restamps.load(std::sync::atomic::Ordering::Relaxed)
    });
    assert!(restamps.iter().sum::<u64>() <= 60, "each is sent once more at most: {restamps:?}");
    let value = get(cluster.serving("n1"), "k").await.expect("read");
    assert!(value.is_some());
    cluster.covered().await;
    for id in ["n2", "n3"] {
        assert_eq!(get(cluster.serving(id), "k").await.expect("read"), value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_configuration_reaches_everybody_and_what_only_a_migration_may_change_is_refused() {
    let config = one_bucket(3);
    let cluster = Cluster::started(&config, &["n1", "n2", "n3"]).await;
    let path = cluster.dir.path().join("config.yaml");
    std::fs::write(&path, config.replace("300ms", "350ms")).expect("written");
    // n1 looks at once; the others hear of it or look later.
    cluster.node("n1").look.notify_one();
    for id in ["n1", "n2", "n3"] {
        common::eventually("the new interval is in force", async || {
            let current = cluster.node(id).config.current();
            current.config.cluster.snapshot.interval == Duration::from_millis(350)
        })
        .await;
        assert_eq!(cluster.node(id).config.epoch().number, 2);
    }
    put(cluster.serving("n2"), "k", "v").await.expect("served at the new epoch");
    let more = config.replace("partitions: 4", "partitions: 8");
    std::fs::write(&path, more).expect("written");
    cluster.node("n1").look.notify_one();
    common::eventually("the change is refused with the reason", async || {
        cluster.node("n1").config.refused().is_some_and(|reason| reason.contains("partitions"))
    })
    .await;
    assert_eq!(cluster.node("n1").config.epoch().number, 2);
    put(cluster.serving("n1"), "k", "w").await.expect("the old one stays in force");
}
