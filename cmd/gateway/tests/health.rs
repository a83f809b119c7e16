//! `/healthz`, `/readyz`, `/cluster` and `/events`.

mod common;

use std::{sync::Arc, time::Duration};

use common::{Place, configuration, eventually};
use tako_gateway::{Event, EventLog, GatewayOptions};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_healthy_at_once_and_ready_when_its_quorum_is_there() {
    let mut place = Place::started(&configuration(3), GatewayOptions::default()).await;
    let healthy = place.get("/healthz").await;
    assert_eq!((healthy.status, healthy.text()), (200, "ok\n"));
    place.get("/readyz").await.problem(503, "partition 0");
    let cluster = place.get("/cluster").await.json();
    assert_eq!(cluster["ready"], false);
    assert_eq!(cluster["nodes"][1]["live"], false);

    place.start("n2").await;
    place.start("n3").await;
    place.ready().await;
    let ready = place.get("/readyz").await;
    assert_eq!((ready.status, ready.text()), (200, "ready\n"));
    assert_eq!(place.ask("HEAD", "/readyz", "", b"").await.status, 200);
    assert_eq!(place.put("/values/k", b"v").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_page_names_configuration_and_nodes() {
    let place = Place::one().await;
    let answer = place.get("/cluster").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let cluster = answer.json();
    assert_eq!(cluster["process"], "n1");
    assert_eq!(cluster["active_deployment"], "d");
    assert_eq!(cluster["consistency"], "quorum");
    assert_eq!(cluster["partitions"], 4);
    assert_eq!(cluster["ready"], true);
    assert!(cluster["epoch"].as_u64().expect("a number") > 0);
    assert_eq!(cluster["sha256"].as_str().expect("a text").len(), 64);
    let nodes = cluster["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 1);
    assert_eq!(nodes[0]["id"], "n1");
    assert_eq!(nodes[0]["bucket"], "b1");
    assert_eq!(nodes[0]["rpc"], "localhost:4701");
    assert_eq!(nodes[0]["state"], "serving");
    assert_eq!(nodes[0]["live"], true);
    assert_eq!(nodes[0]["partitions"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_of_each_partition_what_no_step_has_covered_and_which_step_it_sees() {
    let place = Place::one().await;
    let own = async || place.get("/cluster").await.json()["nodes"][0].clone();
    let sum = |node: &serde_json::Value, field: &str| -> u64 {
        let held = node["held"].as_array().expect("a list");
        held.iter().map(|p| p[field].as_u64().expect("a number")).sum()
    };
    let before = own().await;
    assert_eq!(before["held"].as_array().expect("a list").len(), 4);
    assert_eq!((sum(&before, "uncovered"), &before["uncovered_partitions"]), (0, &0.into()));
    let steps = sum(&before, "step");
    assert_eq!(place.put("/values/k", b"v").await.status, 200);
    eventually("a step covers the write", async || {
        let now = own().await;
        sum(&now, "step") > steps && sum(&now, "uncovered") == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_given_page_by_page_and_awaited() {
    let events = Arc::new(EventLog::new("life"));
    let event = |text: &str| {
        let fields = [("p".to_owned(), 3.into())].into_iter().collect();
        let (part, text) = ("tako_test".to_owned(), text.to_owned());
        Event { at_micros: 7, level: "warn", part, text, fields }
    };
    events.push(event("first"));
    events.push(event("second"));
    let options = GatewayOptions { events: events.clone(), ..GatewayOptions::default() };
    let place = Place::with(options).await;
    let page = place.get("/events?limit=1").await.json();
    assert_eq!((&page["process"], &page["run"]), (&"n1".into(), &"life".into()));
    assert_eq!((&page["next"], &page["lost"]), (&1.into(), &0.into()));
    assert_eq!(page["events"].as_array().map(Vec::len), Some(1));
    let first = &page["events"][0];
    assert_eq!((&first["text"], &first["level"]), (&"first".into(), &"warn".into()));
    assert_eq!((&first["at"], &first["fields"]["p"]), (&7.into(), &3.into()));
    let page = place.get("/events?after=1&run=life").await.json();
    assert_eq!(page["events"][0]["text"], "second");
    let (awaited, ()) = tokio::join!(place.get("/events?after=2&run=life&wait=30"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        events.push(event("third"));
    });
    assert_eq!(awaited.json()["events"][0]["text"], "third");
    let none = place.get("/events?after=3&run=life").await.json();
    assert_eq!(none["events"], serde_json::json!([]));
    let anew = place.get("/events?after=3&run=another").await.json();
    assert_eq!(anew["events"].as_array().map(Vec::len), Some(3), "of another life: from the first");
    place.get("/events?after=x").await.problem(400, "after=x");
    place.get("/events?since=1").await.problem(400, "since is unknown");
    place.ask("POST", "/events", "", b"").await.problem(405, "GET");
}
