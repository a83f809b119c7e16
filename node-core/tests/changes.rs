//! Changes under conditions over running clusters: from every process, at once, while nodes end.

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Cluster, get, key, one_bucket, put};
use tako_flatbuf::{ChangeOutcome, Condition, Edit, Misfit, Record, RecordHead};
use tako_node_core::replication::{Change, Read, RequestError, Serving};
use tako_types::{Kind, Version};

const THREE: [&str; 3] = ["n1", "n2", "n3"];
const DEADLINE: Duration = Duration::from_secs(10);

fn template(name: &str, kind: Kind, value: &str, expires_at_micros: u64) -> Record {
    let head = RecordHead { version: Version::ZERO, kind, expires_at_micros, flags: 0 };
    Record::encode(&key(name), head, None, value.as_bytes())
}

async fn change(
    serving: &Serving,
    name: &str,
    condition: Condition,
    value: &str,
) -> Result<ChangeOutcome, RequestError> {
    let change = Change::new(condition, template(name, Kind::Value, value, 0));
    serving.change(&change, DEADLINE).await
}

async fn done(serving: &Serving, name: &str, condition: Condition, value: &str) -> Version {
    match change(serving, name, condition, value).await {
        Ok(ChangeOutcome::Done { version, .. }) => version,
        other => panic!("{other:?}"),
    }
}

async fn fails(serving: &Serving, name: &str, condition: Condition) -> Option<Version> {
    match change(serving, name, condition, "never").await {
        Ok(ChangeOutcome::Fails { version }) => version,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_condition_holds_when_it_should_whoever_is_asked() {
    use Condition::{Absent, NoneOf, OneOf, Present};
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    let proxy = cluster.proxy("p1").await;
    let mut askers: Vec<&Serving> = THREE.iter().map(|id| cluster.serving(id)).collect();
    askers.push(&proxy.serving);
    for (n, serving) in askers.into_iter().enumerate() {
        let k = &format!("k{n}");
        assert_eq!(fails(serving, k, Present).await, None);
        assert_eq!(fails(serving, k, OneOf(vec![Version { micros: 1, origin: 1 }])).await, None);
        let first = done(serving, k, Absent, "first").await;
        assert_eq!(fails(serving, k, Absent).await, Some(first));
        assert_eq!(fails(serving, k, NoneOf(vec![first])).await, Some(first));
        let second = done(serving, k, OneOf(vec![Version::ZERO, first]), "second").await;
        assert!(first < second);
        assert_eq!(fails(serving, k, OneOf(vec![first])).await, Some(second));
        assert_eq!(get(serving, k).await.expect("read").as_deref(), Some("second"));
        let third = put(serving, k, "plain").await.expect("written").version;
        assert_eq!(fails(serving, k, OneOf(vec![second])).await, Some(third));
        let gone = Change::new(OneOf(vec![third]), template(k, Kind::Tombstone, "", 0));
        let gone = serving.change(&gone, DEADLINE).await.expect("deleted");
        assert!(matches!(gone, ChangeOutcome::Done { version, .. } if third < version));
        assert_eq!(get(serving, k).await.expect("read"), None);
        assert_eq!(fails(serving, k, Present).await, None);
        // What has expired is no value.
        let past = serving.clock().now_micros() - 1;
        let expired = Change::new(NoneOf(vec![third]), template(k, Kind::Value, "x", past));
        serving.change(&expired, DEADLINE).await.expect("written");
        done(serving, k, Absent, "again").await;
    }
    cluster.covered().await;
    let serving = cluster.serving("n2");
    assert!(fails(serving, "k0", Absent).await.is_some(), "from the snapshot");
    done(serving, "k0", Present, "last").await;
}

/// Adds one to the number under `k` by what was read; how often that was done, and not known.
async fn count_up(serving: Arc<Serving>, times: usize) -> (usize, usize) {
    let (mut sure, mut unsure) = (0, 0);
    while sure + unsure < times {
        let read = Read { key: key("k"), r: None };
        let Ok(record) = serving.get(&read, DEADLINE).await else { continue };
        let (condition, value) = match &record {
            None => (Condition::Absent, 0),
            Some(record) => {
                let value: usize = common::text(record).parse().expect("a number");
                (Condition::OneOf(vec![record.version()]), value)
            }
        };
        match change(&serving, "k", condition, &(value + 1).to_string()).await {
            Ok(ChangeOutcome::Done { .. }) => sure += 1,
            Ok(ChangeOutcome::Unknown { .. }) => unsure += 1,
            Ok(ChangeOutcome::Fails { .. } | ChangeOutcome::Cannot(_)) | Err(_) => {}
        }
    }
    (sure, unsure)
}

async fn sums(counters: Vec<tokio::task::JoinHandle<(usize, usize)>>) -> (usize, usize) {
    let (mut sure, mut unsure) = (0, 0);
    for counter in counters {
        let (done, unknown) = counter.await.expect("no panic");
        sure += done;
        unsure += unknown;
    }
    (sure, unsure)
}

async fn counted(cluster: &Cluster, through: &str) -> usize {
    let text = get(cluster.serving(through), "k").await.expect("read").expect("a value");
    text.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_counted_twice_or_lost_when_all_count_at_once() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    let proxy = cluster.proxy("p1").await;
    let mut counters = Vec::new();
    for id in THREE {
        counters.push(tokio::spawn(count_up(cluster.node(id).serving.clone(), 20)));
        counters.push(tokio::spawn(count_up(proxy.serving.clone(), 20)));
    }
    // On a busy machine a process may take the one that makes the changes for dead, and another one
    // makes some meanwhile: then one of these may end without anybody's knowing.
    let (sure, unsure) = sums(counters).await;
    assert_eq!(sure + unsure, 120);
    let counted = counted(&cluster, "n1").await;
    assert!((sure..=120).contains(&counted), "{sure} sure, {unsure} not: {counted}");
    assert!(unsure < 12, "{unsure} are unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_changed_where_it_is_and_each_is_told_its_own() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    let proxy = cluster.proxy("p1").await;
    let mut askers: Vec<Arc<Serving>> =
        THREE.iter().map(|id| cluster.node(id).serving.clone()).collect();
    askers.push(proxy.serving.clone());
    let counting = askers.into_iter().map(|serving| {
        tokio::spawn(async move {
            let mut told = Vec::new();
            for _ in 0..25 {
                // Made by the first one, as 1.
                let template = template("k", Kind::Value, "1", 0);
                let add = Change::new(Condition::NoneOf(vec![]), template).edited(Edit::Add(1));
                match serving.change(&add, DEADLINE).await {
                    Ok(ChangeOutcome::Done { version, record: Some(record) }) => {
                        assert_eq!(record.version(), version);
                        told.push(common::text(&record).parse::<usize>().expect("a number"));
                    }
                    // On a busy machine another process may make changes as well.
                    Ok(ChangeOutcome::Unknown { .. }) | Err(_) => told.push(0),
                    other => panic!("{other:?}"),
                }
            }
            told
        })
    });
    let mut all: Vec<usize> = Vec::new();
    for one in counting.collect::<Vec<_>>() {
        all.extend(one.await.expect("no panic"));
    }
    let unsure = all.iter().filter(|number| **number == 0).count();
    let (count, serving) = (counted(&cluster, "n1").await, cluster.serving("n2"));
    all.retain(|number| *number > 0);
    all.sort_unstable();
    assert!((all.len()..=all.len() + unsure).contains(&count), "{count}, {unsure} unsure");
    assert!(all.windows(2).all(|two| two[0] < two[1]), "no number was told twice: {all:?}");
    assert!(unsure < 10, "{unsure} are unknown");
    let append = Change::new(Condition::Present, template("k", Kind::Value, "x", 0));
    let appended = serving.change(&append.edited(Edit::Append), DEADLINE).await;
    assert!(matches!(appended, Ok(ChangeOutcome::Done { record: None, .. })), "{appended:?}");
    let add =
        Change::new(Condition::Present, template("k", Kind::Value, "", 0)).edited(Edit::Add(1));
    let refused = serving.change(&add, DEADLINE).await.expect("an answer");
    assert_eq!(refused, ChangeOutcome::Cannot(Misfit::NoNumber));
    assert_eq!(get(serving, "k").await.expect("read"), Some(format!("{count}x")));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_the_key_ends_and_others_go_on() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    let p = key("k").partition(cluster.node("n1").replica.engine().partitions_log2());
    let replicas = cluster.node("n1").config.current().replicas(p).to_vec();
    let first = replicas[usize::try_from(key("k").digest() % 3).expect("small")].to_string();
    let others: Vec<&str> = THREE.into_iter().filter(|id| *id != first).collect();
    let counters: Vec<_> = others
        .iter()
        .map(|id| tokio::spawn(count_up(cluster.node(id).serving.clone(), 200)))
        .collect();
    common::eventually(
        "it goes on",
        async || matches!(get(cluster.serving(others[0]), "k").await, Ok(Some(n)) if n.len() > 1),
    )
    .await;
    assert!(
        cluster.node(&first).serving.metrics().changes.load(std::sync::atomic::Ordering::Relaxed)
            > 0
    );
    cluster.crash(&first).await;
    let (sure, unsure) = sums(counters).await;
    let counted = counted(&cluster, others[0]).await;
    assert!((sure..=sure + unsure).contains(&counted), "{sure} sure, {unsure} not: {counted}");
    assert!(unsure < 20, "only what was under way is unknown: {unsure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_changed_and_that_is_known() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    let version = put(cluster.serving("n1"), "k", "v").await.expect("written").version;
    cluster.crash("n2").await;
    cluster.crash("n3").await;
    let condition = Condition::OneOf(vec![version]);
    let refused = change(cluster.serving("n1"), "k", condition.clone(), "new").await;
    assert!(matches!(refused, Err(RequestError::TooFewVotes { .. })), "{refused:?}");
    cluster.start("n2").await;
    cluster.serves("n2").await;
    common::eventually("it can be changed again", async || {
        let changed = change(cluster.serving("n1"), "k", condition.clone(), "new").await;
        matches!(changed, Ok(ChangeOutcome::Done { .. }))
    })
    .await;
}

/// Siblings that many write through every node at once, while one of three is killed.
#[tokio::test(flavor = "multi_thread")]
async fn no_sibling_is_lost_that_was_acknowledged_while_a_replica_dies() {
    use tako_flatbuf::{Seen, Siblings, StoreOrder};

    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    let key = tako_types::Key::new(1, Bytes::from_static(b"siblings")).expect("short").stored();
    let write = async |serving: &Serving, value: String| {
        let order = StoreOrder {
            seen: Seen::default(),
            client: None,
            is_delete: false,
            content_type: None,
            value: Bytes::from(value.clone()),
        };
        let head = RecordHead {
            version: Version::ZERO,
            kind: Kind::Value,
            expires_at_micros: 0,
            flags: 0,
        };
        let template = Record::encode(&key, head, None, &order.encode());
        let change = Change::new(Condition::NoneOf(Vec::new()), template).edited(Edit::Store);
        match serving.change(&change, DEADLINE).await {
            Ok(ChangeOutcome::Done { .. }) => Some(value),
            _ => None,
        }
    };
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let nodes: Vec<_> = cluster.nodes.keys().cloned().collect();
        let writers = (0..15).map(|n| {
            let serving = cluster.serving(&nodes[n % nodes.len()]);
            write(serving, format!("{round}-{n}"))
        });
        let done = futures::future::join_all(writers).await;
        acknowledged.extend(done.into_iter().flatten());
        if round == 0 {
            cluster.crash("n2").await;
        }
    }
    assert!(30 < acknowledged.len(), "{acknowledged:?}");
    let read = Read { key: key.clone(), r: None };
    let record = cluster.serving("n1").get(&read, DEADLINE).await.expect("read").expect("there");
    let there = Siblings::decode(&record.value()).expect("siblings").0;
    for value in &acknowledged {
        let times = there.iter().filter(|one| one.value == *value.as_bytes()).count();
        assert_eq!(times, 1, "{value}");
    }
}
