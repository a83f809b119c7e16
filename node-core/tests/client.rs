//! The client library over running clusters: its calls, its patience, what it refuses.

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Cluster, eventually, get, one_bucket};
use tako_node_core::{
    client::{Client, ClientError, ClientOptions, Condition, ConnectError, Misfit, Put},
    configuration::ConfigSource,
};
use tako_types::Version;

const THREE: [&str; 3] = ["n1", "n2", "n3"];

fn options(cluster: &Cluster, limit: Duration) -> ClientOptions {
    let source = ConfigSource::File(cluster.dir.path().join("config.yaml"));
    ClientOptions {
        network: Arc::new(cluster.network.as_host("user")),
        seed: 1,
        request_deadline: Some(limit),
        ..ClientOptions::new(source)
    }
}

async fn client(cluster: &Cluster) -> Client {
    Client::with(options(cluster, Duration::from_secs(20))).await.expect("a client")
}

async fn text(client: &Client, key: &str) -> Option<String> {
    let value = client.get(key).await.expect("read")?;
    Some(String::from_utf8_lossy(&value.bytes).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_does_what_it_says() {
    let cluster = Cluster::started(&one_bucket(3), &THREE).await;
    let client = client(&cluster).await;
    assert_eq!(client.get("k").await.expect("read"), None);
    let first = client.put("k", "one").await.expect("written");
    assert_eq!(get(cluster.serving("n1"), "k").await.expect("read").as_deref(), Some("one"));
    let put = Put::new("two").content_type("text/plain").flags(7).ttl(Duration::from_secs(3600));
    let second = client.put_if("k", Condition::OneOf(vec![first]), put).await.expect("written");
    let value = client.get("k").await.expect("read").expect("a value");
    assert_eq!((&value.bytes[..], value.version), (&b"two"[..], second));
    assert_eq!((value.content_type.as_deref(), value.flags), (Some("text/plain"), 7));
    assert!(value.expires_at_micros > second.micros);
    let refused = client.put_if("k", Condition::Absent, "three").await;
    assert!(
        matches!(refused, Err(ClientError::Condition { version }) if version == Some(second)),
        "{refused:?}"
    );
    client.append("k", "+").await.expect("edited");
    assert_eq!(text(&client, "k").await.as_deref(), Some("two+"));
    let misfit = client.add("k", 1).await;
    assert!(matches!(misfit, Err(ClientError::Misfit(Misfit::NoNumber))), "{misfit:?}");
    client.put("n", "41").await.expect("written");
    assert_eq!(client.add("n", 1).await.expect("counted"), 42);
    assert_eq!(client.subtract("n", 50).await.expect("counted"), 0);
    let gone = client.delete_if("k", Condition::OneOf(vec![first])).await;
    assert!(matches!(gone, Err(ClientError::Condition { version: Some(_) })), "{gone:?}");
    client.delete("k").await.expect("deleted");
    client.delete("k").await.expect("deleted, though there is none");
    assert_eq!(client.get("k").await.expect("read"), None);
    client.put("short", Put::new("v").ttl(Duration::from_millis(1))).await.expect("written");
    eventually("it expires", async || client.get("short").await.expect("read").is_none()).await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_each_item_in_order_and_of_one_key_the_last_stays() {
    let cluster = Cluster::started(&one_bucket(3), &THREE).await;
    let client = Arc::new(client(&cluster).await);
    let puts = (0..300).map(|n| (format!("k{:03}", n % 200), n.to_string()));
    // As a task of its own, as users of many threads have it.
    let writer = client.clone();
    let versions = tokio::spawn(async move { writer.put_many(puts).await }).await;
    let versions = versions.expect("no panic");
    assert_eq!(versions.len(), 300);
    let versions: Vec<Version> = versions.into_iter().map(|it| it.expect("written")).collect();
    assert!(versions[5] < versions[205], "one key's in turn");
    let keys: Vec<String> = (0..201).map(|n| format!("k{n:03}")).chain(["".to_owned()]).collect();
    let values = client.get_many(&keys).await;
    for (n, value) in values.iter().enumerate().take(200) {
        let value = value.as_ref().expect("read").as_ref().expect("a value");
        let newest = if n < 100 { n + 200 } else { n };
        assert_eq!(
            (&value.bytes[..], value.version),
            (newest.to_string().as_bytes(), versions[newest])
        );
    }
    assert!(matches!(values[200], Ok(None)));
    assert!(matches!(values[201], Err(ClientError::Invalid(_))), "alone");
    let mut listing = client.list("k1", Some(Bytes::from("k149")));
    let page = listing.next(30).await.expect("listed");
    assert_eq!((&page[0].key[..], page.len()), (&b"k150"[..], 30));
    assert_eq!((page[0].stat.version, page[0].stat.value_bytes), (versions[150], 3));
    let rest = listing.next(30).await.expect("listed");
    assert_eq!((&rest[19].key[..], rest.len()), (&b"k199"[..], 20));
    let deleted = client.delete_many(&keys[..10]).await;
    assert!(deleted.iter().all(Result::is_ok));
    assert!(client.get_many(&keys[..10]).await.iter().all(|value| matches!(value, Ok(None))));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_for_replicas_that_come_back() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    let client = Arc::new(client(&cluster).await);
    client.put("k", "before").await.expect("written");
    cluster.crash("n2").await;
    cluster.crash("n3").await;
    let (writer, changer) = (client.clone(), client.clone());
    let written = tokio::spawn(async move { writer.put("k", "after").await });
    let changed =
        tokio::spawn(async move { changer.put_if("other", Condition::Absent, "new").await });
    // A request that is not patient has failed by now.
    assert!(get(cluster.serving("n1"), "k").await.is_err(), "one of three is no quorum");
    assert!(!written.is_finished() && !changed.is_finished());
    cluster.start("n2").await;
    cluster.start("n3").await;
    written.await.expect("no panic").expect("written once two are there");
    changed.await.expect("no panic").expect("changed once two are there");
    assert_eq!(text(&client, "k").await.as_deref(), Some("after"));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_happened_is_told_apart_from_what_did_not() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    let limit = Duration::from_secs(2);
    let client = Client::with(options(&cluster, limit)).await.expect("a client");
    cluster.crash("n2").await;
    cluster.crash("n3").await;
    let put = client.put("k", "v").await;
    assert!(matches!(put, Err(ClientError::Unknown { .. })), "one may have it: {put:?}");
    let changed = client.put_if("other", Condition::Absent, "v").await;
    assert!(matches!(changed, Err(ClientError::Unavailable(_))), "{changed:?}");
    let read = client.get("k").await;
    assert!(matches!(read, Err(ClientError::Unavailable(_))), "{read:?}");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_refused_in_words() {
    let config = format!("value_bytes_max: 1KiB\n{}", one_bucket(3));
    let cluster = Cluster::started(&config, &THREE).await;
    let client = client(&cluster).await;
    let says = |result: Result<Version, ClientError>, words: &str| {
        let error = result.expect_err("refused");
        assert!(matches!(error, ClientError::Invalid(_)), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    };
    says(client.put("", "v").await, "empty");
    says(client.delete("k".repeat(5_000)).await, "4096");
    says(client.put("k", vec![0; 1_025]).await, "value_bytes_max");
    says(client.put_if("k", Condition::Absent, vec![0; 1_025]).await, "value_bytes_max");
    says(client.put("k", Put::new("v").content_type("t".repeat(257))).await, "256");
    client.close().await;
}

#[tokio::test]
async fn without_a_configuration_there_is_no_client_and_the_reason_is_told() {
    let limit = Duration::from_millis(300);
    let source = ConfigSource::Coordinators(vec!["127.0.0.1:1".to_owned()]);
    let options = ClientOptions { connect_deadline: limit, ..ClientOptions::new(source) };
    let error = Client::with(options).await.err().expect("nobody listens there");
    assert!(matches!(error, ConnectError::Configuration(_)));
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}
