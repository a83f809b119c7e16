//! Listings over whole clusters: every key once, in order, beside steps, a node that is away, and moves.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Cluster, eventually, one_bucket, put, tombstone};
use tako_flatbuf::ListingQuery;
use tako_node_core::replication::{List, Serving};
use tako_types::{NAMESPACE_VALUES, PartitionId};
use tokio_util::task::AbortOnDropHandle;

const THREE: [&str; 3] = ["n1", "n2", "n3"];
const DEADLINE: Duration = Duration::from_secs(10);

fn list(prefix: &'static str, after: Option<&str>) -> List {
    List {
        namespace: NAMESPACE_VALUES,
        prefix: Bytes::from_static(prefix.as_bytes()),
        after: after.map(|after| Bytes::copy_from_slice(after.as_bytes())),
    }
}

/// All that is listed, so many at a time.
async fn names(serving: &Serving, list: List, at_once: usize) -> Vec<String> {
    let mut lister = serving.list(list);
    let mut all = Vec::new();
    loop {
        let page = lister.next(serving, at_once, DEADLINE).await.expect("listed");
        let ended = page.len() < at_once;
        all.extend(page.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).expect("text")));
        if ended {
            return all;
        }
    }
}

/// `k000` to one below the number, in order.
fn expected(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("k{n:03}")).collect()
}

async fn put_all(serving: &Serving, names: &[String]) {
    for name in names {
        put(serving, name, "v").await.expect("written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_is_listed_once_in_order_from_journals_and_from_the_snapshot() {
    let config = one_bucket(3).replace("300ms", "1h");
    let cluster = Cluster::started(&config, &THREE).await;
    let serving = cluster.serving("n1");
    let mut all = expected(200);
    put_all(serving, &all).await;
    put(serving, "other/1", "long value").await.expect("written");
    all.push("other/1".to_owned());
    // Nothing is covered yet, then everything is, then a part of it was written again.
    for round in 0..3 {
        for (through, at_once) in [("n1", 7), ("n2", 1_000)] {
            assert_eq!(names(cluster.serving(through), list("", None), at_once).await, all);
        }
        let those = |is: &dyn Fn(&str) -> bool| -> Vec<String> {
            all.iter().filter(|name| is(name)).cloned().collect()
        };
        let begun = those(&|name| name.starts_with("k00"));
        assert_eq!(names(serving, list("k00", None), 3).await, begun);
        let behind = those(&|name| "k198" < name);
        assert_eq!(names(serving, list("", Some("k198")), 9).await, behind);
        let mut lister = serving.list(list("other", None));
        let page = lister.next(serving, 9, DEADLINE).await.expect("listed");
        assert_eq!(page.len(), 1);
        assert_eq!(page[0].1.value_bytes, "long value".len() as u64);
        match round {
            0 => {
                for p in (0..4).map(PartitionId) {
                    cluster.node("n1").snapshotter.step_here(p).await.expect("a step");
                }
            }
            _ => {
                serving.put(tombstone("k007"), DEADLINE).await.expect("deleted");
                put(serving, "k100", "again").await.expect("written");
                all.retain(|name| name != "k007");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_covers_while_a_listing_looks_is_in_it() {
    let cluster = Cluster::started(&one_bucket(1), &["n1"]).await;
    let serving = cluster.serving("n1");
    // Steps come all the time, and take what is new out of the index.
    let snapshotter = cluster.node("n1").snapshotter.clone();
    let stepping = AbortOnDropHandle::new(tokio::spawn(async move {
        for p in (0..4).cycle().map(PartitionId) {
            snapshotter.step_here(p).await.expect("a step");
        }
    }));
    let mut all = Vec::new();
    for n in 0..150 {
        let name = format!("k{n:03}");
        put(serving, &name, "v").await.expect("written");
        all.push(name);
        assert_eq!(names(serving, list("", None), 1_000).await, all);
    }
    drop(stepping);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_away_is_passed_over_and_too_few_are_an_error() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    // More than a page of each partition.
    let all = expected(400);
    put_all(cluster.serving("n1"), &all).await;
    cluster.covered().await;
    let proxy = cluster.proxy("p1").await;
    cluster.crash("n2").await;
    assert_eq!(names(&proxy.serving, list("", None), 20).await, all);
    let mut lister = proxy.serving.list(list("", None));
    let first = lister.next(&proxy.serving, 10, DEADLINE).await.expect("listed");
    cluster.crash_all().await;
    let mut given = first.len();
    // What it holds already is given; then it says that it cannot go on.
    let error = loop {
        match lister.next(&proxy.serving, 1, Duration::from_secs(2)).await {
            Ok(page) => {
                assert_eq!(page.len(), 1, "the end is not known");
                given += 1;
            }
            Err(error) => break error,
        }
        assert!(given < all.len(), "all of it was held");
    };
    assert_eq!(error.kind(), tako_types::ErrorKind::Unavailable, "{error}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_recovers_says_that_it_does_not_vote() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    let all = expected(20);
    put_all(cluster.serving("n1"), &all).await;
    cluster.covered().await;
    cluster.crash("n3").await;
    cluster.lose_disk("n3");
    cluster.network.cut_both("n3", "n1");
    cluster.network.cut_both("n3", "n2");
    cluster.start("n3").await;
    let engine = cluster.node("n3").replica.engine().clone();
    let query = ListingQuery { namespace: 0, prefix: Bytes::new(), after: None, limit: 10 };
    let p = common::key("k000").partition(2);
    eventually("its view is open", async || engine.list(p, &query).await.is_ok()).await;
    assert!(!engine.list(p, &query).await.expect("open").voting);
}
