//! The Rust client against real processes: found by a coordinator, over TCP, while nodes are killed.

use tako_node_core::client::{Client, Condition};

use crate::{
    migrate::started,
    support::{must_get, must_put},
};

#[test]
fn the_client_library_reads_and_writes_what_http_does_though_a_node_and_the_coordinator_are_killed()
{
    let cluster = started();
    must_put(cluster.proxy, "by-http", "one");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect([format!("127.0.0.1:{}", cluster.coordinator)]).await;
        let client = client.expect("the coordinator answers");
        let value = client.get("by-http").await.expect("read").expect("a value");
        assert_eq!(&value.bytes[..], b"one");
        let change = Condition::OneOf(vec![value.version]);
        client.put_if("by-http", change, "two").await.expect("nobody else changed it");
        cluster.kill("n2");
        cluster.kill("c1");
        client.put("by-client", "three").await.expect("two of three nodes are there");
        let keys = (0..100).map(|n| (format!("k{n}"), "v"));
        assert!(client.put_many(keys).await.iter().all(Result::is_ok));
        client.close().await;
    });
    assert_eq!(must_get(cluster.proxy, "by-http").as_deref(), Some("two"));
    assert_eq!(must_get(cluster.proxy, "by-client").as_deref(), Some("three"));
    assert_eq!(must_get(cluster.proxy, "k99").as_deref(), Some("v"));
}
