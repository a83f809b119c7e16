//! `GET /values/` over real connections: what is told, in which form, and what is refused.

mod common;

use common::Place;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

async fn put_all(place: &Place, names: &[&str]) {
    for name in names {
        assert_eq!(place.put(&format!("/values/{name}"), b"value").await.status, 200);
    }
}

fn keys(rows: &Value) -> Vec<&str> {
    let rows = rows.as_array().expect("a list");
    rows.iter().map(|row| row["key"].as_str().expect("a key")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_listed_in_the_order_of_keys_with_their_versions() {
    let place = Place::one().await;
    put_all(&place, &["b", "a/2", "a/1", "c"]).await;
    let put = place.ask("PUT", "/values/a/1?ttl=1h", "", b"longer").await;
    place.ask("DELETE", "/values/c", "", b"").await;
    let all = place.get("/values/").await;
    assert_eq!((all.status, all.header("content-type")), (200, Some("application/json")));
    let all = all.json();
    assert_eq!(keys(&all["values"]), ["a/1", "a/2", "b"]);
    assert_eq!(all["next"], Value::Null);
    let first = &all["values"][0];
    let etag = format!("\"{}\"", first["version"].as_str().expect("a version"));
    assert_eq!((put.header("etag"), first["bytes"].as_u64()), (Some(etag.as_str()), Some(6)));
    assert_eq!(first["timestamp"], put.timestamp());
    assert!(first["expires_at"].as_u64() > Some(put.timestamp()));
    assert_eq!(all["values"][1]["expires_at"], Value::Null);

    let within = place.get("/values/?prefix=a%2F&limit=1").await.json();
    assert_eq!((keys(&within["values"]), &within["next"]), (vec!["a/1"], &json!("a/1")));
    let rest = place.get("/values/?prefix=a/&after=a/1").await.json();
    assert_eq!((keys(&rest["values"]), &rest["next"]), (vec!["a/2"], &Value::Null));
    let none = place.get("/values/?prefix=x").await.json();
    assert_eq!(none, json!({"values": [], "next": null}));
    let mut client = place.client().await;
    let head = client.ask("HEAD", "/values/", "", b"").await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("application/json")));
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_end_with_where_to_go_on_and_a_cursor_means_any_bytes() {
    let place = Place::one().await;
    put_all(&place, &["a+b%2B%3F", "%FF%00", "z"]).await;
    let mut found = Vec::new();
    let mut path = "/values/?format=ndjson&limit=1".to_owned();
    for _ in 0..3 {
        let page = place.get(&path).await;
        assert_eq!(page.header("content-type"), Some("application/x-ndjson"));
        let lines: Vec<Value> =
            page.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let [row, end] = &lines[..] else { panic!("{lines:?}") };
        found.push(row.clone());
        let Some(next) = end["next"].as_str() else { break };
        path = format!("/values/?format=ndjson&limit=1&after={next}");
    }
    assert_eq!(found[0]["key"], "a b+?");
    assert_eq!(found[1]["key"], "z");
    assert_eq!((found[2]["key_base64"].as_str(), &found[2]["key"]), (Some("/wA="), &Value::Null));
    let accept = "Accept: application/x-ndjson\r\n";
    let lines = place.ask("GET", "/values/?prefix=z", accept, b"").await;
    assert_eq!(lines.text().lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_is_gathered_at_once_comes_in_pieces() {
    let place = Place::one().await;
    let sets: String = (0..2_100).map(|n| format!("set k{n:04} 0 0 1\r\nv\r\n")).collect();
    let mut lines = TcpStream::connect(place.memcached).await.expect("connected");
    lines.write_all(sets.as_bytes()).await.expect("sent");
    let mut stored = vec![0; 2_100 * b"STORED\r\n".len()];
    lines.read_exact(&mut stored).await.expect("answered");
    let mut client = place.client().await;
    let expected: Vec<String> = (0..2_100).map(|n| format!("k{n:04}")).collect();
    for limit in [2_000, 2_099, 2_100, 9_999] {
        let all = client.ask("GET", &format!("/values/?limit={limit}"), "", b"").await.json();
        let count = limit.min(2_100);
        assert_eq!(keys(&all["values"]), expected[..count]);
        let next = (limit < 2_100).then(|| expected[count - 1].clone());
        assert_eq!(all["next"], json!(next));
        let lines = format!("/values/?format=ndjson&limit={limit}");
        assert_eq!(client.ask("GET", &lines, "", b"").await.text().lines().count(), count + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused() {
    let place = Place::one().await;
    for (query, part) in [
        ("limit=0", "limit=0"),
        ("limit=-1", "above 0"),
        ("limit=x", "limit=x"),
        ("format=xml", "json and ndjson"),
        ("r=2", "r is unknown"),
        ("prefix=%zz", "hexadecimal"),
    ] {
        place.get(&format!("/values/?{query}")).await.problem(400, part);
    }
    let long = "k".repeat(4_097);
    place.get(&format!("/values/?after={long}")).await.problem(400, "longer than any key");
    place.put("/values/", b"v").await.problem(400, "the key is empty");
    place.ask("PATCH", "/values/", "", b"").await.problem(405, "GET");
}
