//! A node with its old folder on a root that its cluster's data were restored to.

mod common;

use std::{path::Path, sync::Arc, time::Duration};

use common::{Cluster, RuntimeClock, get, one_bucket, put};
use tako_flatbuf::{NodeState, Record, merge_encoded};
use tako_node_core::node::Node;
use tako_snapshot::{
    Store,
    backup::{Backups, Method, RecordFns, RestoreOptions, restore},
};
use tako_types::{Clock, ClusterId};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const MINUTE: Duration = Duration::from_secs(60);

fn records() -> RecordFns {
    RecordFns {
        merge: merge_encoded,
        inspect: |_, record| match Record::decode(record.clone()) {
            Ok(record) => Ok(record.stat()),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// A cluster of one node, stopped, whose data were restored to another root, which is away. The
/// node's folder is the one that it had on the old root.
async fn moved_to_a_root_that_is_away(partitions_log2: u32) -> Cluster {
    let mut cluster = Cluster::in_runtime_time(&one_bucket(1));
    cluster.start_all(&["n1"]).await;
    put(cluster.serving("n1"), "k", "v").await.expect("written");
    cluster.covered().await;
    cluster.crash("n1").await;
    let (new, faults) = Store::in_memory().with_faults();
    let clock: Arc<dyn Clock> = Arc::new(RuntimeClock::new());
    let old = Backups::open(cluster.store.clone(), 2, clock.clone(), records());
    let old = old.await.expect("four partitions");
    let options = RestoreOptions {
        partitions_log2,
        method: Method::Copy,
        verify: false,
        cluster: ClusterId(2),
        configuration: None,
    };
    restore(&old, None, new.clone(), &options, clock, records(), &|_| {}).await.expect("restored");
    old.close().await;
    // As a broken connection, which is tried again.
    faults.retried(true);
    faults.refuse_all();
    (cluster.store, cluster.faults) = (new, faults);
    cluster
}

fn is_set_aside(cluster: &Cluster) -> bool {
    let aside: &Path = &cluster.var("n1").join("data/n1.foreign-1/journal");
    cluster.disk.exists(aside)
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_started_while_the_restored_root_was_away_never_serves_on_it() {
    let mut cluster = moved_to_a_root_that_is_away(2).await;
    cluster.start("n1").await;
    sleep(MINUTE).await;
    assert_eq!(cluster.state("n1"), NodeState::Starting);
    cluster.faults.clear();
    // Its coverage names this very folder, as it was copied with the data.
    sleep(5 * MINUTE).await;
    assert_eq!(cluster.state("n1"), NodeState::Starting, "it is of another cluster");
    put(cluster.serving("n1"), "k", "lost").await.expect_err("it does not vote");
    assert!(!is_set_aside(&cluster));

    cluster.crash("n1").await;
    cluster.start("n1").await;
    cluster.serves("n1").await;
    assert!(is_set_aside(&cluster));
    let found = get(cluster.serving("n1"), "k").await.expect("read");
    assert_eq!(found.as_deref(), Some("v"));
}

#[tokio::test(start_paused = true)]
async fn whether_a_root_was_restored_is_not_decided_while_it_does_not_answer() {
    let mut cluster = moved_to_a_root_that_is_away(3).await;
    // What its own configuration refuses, and a root that was restored may have.
    let config = one_bucket(1).replace("partitions: 4", "partitions: 8");
    let path = cluster.dir.path().join("config.yaml");
    std::fs::write(path, format!("cache: {{disk: 0}}\n{config}")).expect("a small file");
    let mut starting = Box::pin(Node::start(cluster.options("n1"), CancellationToken::new()));
    let waited = timeout(5 * MINUTE, &mut starting).await;
    assert!(waited.is_err(), "it went on with the configuration of the old root");
    cluster.faults.clear();
    let node = timeout(MINUTE, starting).await.expect("in time").expect("it starts");
    cluster.nodes.insert("n1".to_owned(), node);
    cluster.serves("n1").await;
    assert_eq!(cluster.node("n1").config.current().config.partitions, 8);
    let found = get(cluster.serving("n1"), "k").await.expect("read");
    assert_eq!(found.as_deref(), Some("v"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_waits_for_a_restored_root_can_be_stopped() {
    let mut cluster = moved_to_a_root_that_is_away(3).await;
    let config = one_bucket(1).replace("partitions: 4", "partitions: 8");
    let path = cluster.dir.path().join("config.yaml");
    std::fs::write(path, format!("cache: {{disk: 0}}\n{config}")).expect("a small file");
    let shutdown = CancellationToken::new();
    let starting = Node::start(cluster.options("n1"), shutdown.clone());
    let stops = async {
        sleep(5 * MINUTE).await;
        shutdown.cancel();
    };
    let (started, ()) = timeout(6 * MINUTE, async { tokio::join!(starting, stops) })
        .await
        .expect("it ends when it is told");
    let error = started.err().expect("it was stopped");
    assert_eq!(error.to_string(), "stopped while starting");
}
