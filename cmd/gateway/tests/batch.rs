//! `POST /batch` over real connections: each item as if it were alone, in order, and what is refused.

mod common;

use common::{Answer, Place};
use serde_json::{Value, json};

async fn batch(place: &Place, items: &[Value]) -> Vec<Value> {
    let lines: String = items.iter().map(|item| format!("{item}\n")).collect();
    rows(&place.ask("POST", "/batch", "", lines.as_bytes()).await)
}

fn rows(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    answer.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn statuses(rows: &[Value]) -> Vec<u64> {
    rows.iter().map(|row| row["status"].as_u64().expect("a status")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_answered_in_order_as_if_each_were_alone() {
    let place = Place::one().await;
    place.put("/values/there", b"before").await;
    let rows = batch(
        &place,
        &[
            json!({"op": "get", "key": "there"}),
            json!({"op": "put", "key": "a b/+", "value": "one", "content_type": "text/css"}),
            json!({"op": "get", "key": "missing"}),
            json!({"op": "put", "key_base64": "/wA=", "value_base64": "/v8="}),
            json!({"op": "delete", "key": "there"}),
            json!({"op": "get", "key_base64": "/wA="}),
            json!({"op": "put", "key": "old", "value": "x", "timestamp": 1000}),
            json!({"op": "put", "key": "old", "value": "y", "timestamp": 999}),
            json!({"op": "get", "key": "a b/+", "r": 9}),
        ],
    )
    .await;
    assert_eq!(statuses(&rows), [200, 200, 404, 200, 204, 200, 200, 200, 400]);
    assert_eq!((&rows[0]["value"], &rows[0]["line"]), (&json!("before"), &json!(1)));
    assert!(rows[2]["error"].as_str().expect("why").contains("there is no value"));
    assert_eq!(rows[5]["value_base64"], "/v8=");
    assert_eq!((&rows[7]["superseded"], &rows[7]["timestamp"]), (&json!(true), &json!(1000)));
    let got = place.get("/values/a%20b/%2B").await;
    assert_eq!((got.text(), got.header("content-type")), ("one", Some("text/css")));
    assert_eq!(
        got.header("etag"),
        Some(format!("\"{}\"", rows[1]["version"].as_str().expect("one")).as_str())
    );
    place.get("/values/there").await.problem(404, "no value");
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_one_key_are_done_in_their_order() {
    let place = Place::one().await;
    let mut items = Vec::new();
    for n in 0..100 {
        items.push(json!({"op": "put", "key": "k", "value": n.to_string()}));
        items.push(json!({"op": "get", "key": "k"}));
        items.push(json!({"op": "get", "key": format!("other-{n}")}));
    }
    let rows = batch(&place, &items).await;
    assert_eq!(rows.len(), 300);
    // More gets than are under way at one time, with more bytes than one piece has.
    let long = "v".repeat(20_000);
    let mut gets = vec![json!({"op": "put", "key": "long", "value": long})];
    gets.extend((0..50).map(|_| json!({"op": "get", "key": "long"})));
    let answers = batch(&place, &gets).await;
    assert!(answers[1..].iter().all(|row| row["value"] == long.as_str()), "all of it");
    for (n, three) in rows.chunks(3).enumerate() {
        assert_eq!(three[1]["value"], n.to_string());
        assert_eq!(three[1]["version"], three[0]["version"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_hold_for_their_item() {
    let place = Place::one().await;
    let put = |value: &str| json!({"op": "put", "key": "k", "value": value});
    let with = |mut item: Value, name: &str, value: &Value| {
        item[name] = value.clone();
        item
    };
    let once = with(put("1"), "if_none_match", &json!("*"));
    let first = batch(&place, &[once.clone(), once]).await;
    assert_eq!(statuses(&first), [200, 412]);
    let version = &first[0]["version"];
    let again = with(put("2"), "if_match", version);
    let delete = with(json!({"op": "delete", "key": "k"}), "if_match", version);
    let rows = batch(&place, &[again, delete, json!({"op": "get", "key": "k"})]).await;
    assert_eq!(statuses(&rows), [200, 412, 200]);
    assert_eq!(rows[2]["value"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_line_is_told_there_and_the_others_go_on() {
    let place = Place::one().await;
    let lines = b"{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\"}\nnonsense\n\n[]\n{\"op\":\"copy\",\"key\":\"a\"}\n\
        {\"op\":\"get\"}\n{\"op\":\"put\",\"key\":\"a\"}\n{\"op\":\"get\",\"key\":\"a\",\"value\":\"\"}\n\
        {\"op\":\"get\",\"key\":\"a\",\"color\":1}\n{\"op\":\"get\",\"key_base64\":\"?\"}\n{\"op\":\"get\",\"key\":\"\"}\n\
        {\"op\":\"put\",\"key\":\"a\",\"value\":\"2\",\"ttl\":\"never\"}\n\xff\xfe\n{\"op\":\"get\",\"key\":\"a\"}";
    let rows = rows(&place.ask("POST", "/batch", "", lines).await);
    let numbers: Vec<_> = rows.iter().map(|row| row["line"].as_u64().expect("a line")).collect();
    assert_eq!(numbers, [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    assert_eq!(statuses(&rows)[1..12], [400; 11]);
    for row in &rows[1..12] {
        assert!(!row["error"].as_str().expect("why").is_empty(), "{row}");
    }
    assert_eq!((&rows[12]["status"], &rows[12]["value"]), (&json!(200), &json!("1")));
    place.ask("GET", "/batch", "", b"").await.problem(405, "POST");
    assert_eq!(place.ask("POST", "/batch", "", b"").await.text(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_batch_is_done_that_is_cut_short_or_too_large() {
    let place = Place::one().await;
    let item = b"{\"op\":\"put\",\"key\":\"k\",\"value\":\"v\"}\n";
    let mut client = place.client().await;
    client.send_head("POST", "/batch", "Content-Length: 1000\r\n").await;
    client.send(item).await;
    client.half_close().await;
    client.end().await;
    let many = item.repeat(10_001);
    place.ask("POST", "/batch", "", &many).await.problem(413, "10000 items");
    let long = format!("Content-Length: {}\r\n", 17 << 20);
    let mut client = place.client().await;
    client.send_head("POST", "/batch", &long).await;
    client.answer().await.problem(413, "16777216");
    place.get("/values/k").await.problem(404, "no value");
}
