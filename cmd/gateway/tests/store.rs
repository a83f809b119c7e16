//! `/store/<key>` over real connections: contexts, siblings, the old header names, and what is refused.

mod common;

use common::{Answer, Place, VALUE_LIMIT};

async fn put(place: &Place, key: &str, headers: &str, value: &[u8]) -> Answer {
    let answer = place.ask("PUT", &format!("/store/{key}"), headers, value).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

fn context(answer: &Answer) -> String {
    let context = answer.header("x-tako-context").expect("a context");
    assert_eq!(answer.header("x-vinzclortho-context"), Some(context));
    format!("X-Tako-Context: {context}\r\n")
}

/// Content types and values of the parts of a 300.
fn parts(answer: &Answer) -> Vec<(String, String)> {
    assert_eq!(answer.status, 300, "{}", answer.text());
    let content_type = answer.header("content-type").expect("a type");
    let boundary = content_type.strip_prefix("multipart/mixed; boundary=").expect("multipart");
    let body = answer.text().strip_suffix(&format!("--{boundary}--\r\n")).expect("its end");
    body.split(&format!("--{boundary}\r\n"))
        .skip(1)
        .map(|part| {
            let (head, value) = part.split_once("\r\n\r\n").expect("a head");
            let value = value.strip_suffix("\r\n").expect("an end");
            let mut lines = head.split("\r\n");
            let content_type = lines.next().expect("a line").strip_prefix("Content-Type: ");
            let length = format!("Content-Length: {}", value.len());
            assert_eq!(lines.next(), Some(length.as_str()));
            (content_type.expect("a type").to_owned(), value.to_owned())
        })
        .collect()
}

fn values(answer: &Answer) -> Vec<String> {
    parts(answer).into_iter().map(|(_, value)| value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn blind_values_become_siblings_and_their_context_makes_one_of_them() {
    let place = Place::one().await;
    put(&place, "k", "Content-Type: text/css\r\n", b"one").await;
    let one = place.get("/store/k").await;
    assert_eq!(
        (one.status, one.text(), one.header("content-type")),
        (200, "one", Some("text/css"))
    );
    assert_eq!(one.header("x-tako-siblings"), Some("1"));
    put(&place, "k", "", b"two").await;
    let both = place.get("/store/k").await;
    let expected = [("text/css", "one"), ("application/octet-stream", "two")];
    assert_eq!(parts(&both), expected.map(|(of, value)| (of.to_owned(), value.to_owned())));
    assert_eq!(both.header("x-tako-siblings"), Some("2"));
    let head = place.ask("HEAD", "/store/k", "", b"").await;
    assert_eq!((head.status, head.body.len()), (300, 0));

    put(&place, "k", &context(&both), b"three").await;
    assert_eq!(place.get("/store/k").await.text(), "three");
    // Who knew the first one only takes the place of that.
    put(&place, "k", &context(&one), b"late").await;
    assert_eq!(values(&place.get("/store/k").await), ["three", "late"]);
    // The other interface knows nothing of it.
    place.get("/values/k").await.problem(404, "no value");
    put(&place, "plain", "", b"x").await;
    place.put("/values/plain", b"y").await;
    assert_eq!(place.get("/store/plain").await.text(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writers_context_covers_what_it_had_seen_and_its_own_value() {
    let place = Place::one().await;
    let first = put(&place, "k", "", b"mine").await;
    put(&place, "k", "", b"others").await;
    put(&place, "k", &context(&first), b"mine again").await;
    assert_eq!(values(&place.get("/store/k").await), ["others", "mine again"]);
    // A client that names itself needs no context for its own.
    let named = "X-Tako-Client: c1\r\n";
    put(&place, "n", named, b"1").await;
    put(&place, "n", "X-VinzClortho-ClientId: c2\r\n", b"other").await;
    put(&place, "n", "X-VinzClortho-ClientId: c1\r\n", b"2").await;
    assert_eq!(values(&place.get("/store/n").await), ["other", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_is_not_found_and_old_contexts_cover_nothing_new() {
    let place = Place::one().await;
    put(&place, "k", "", b"one").await;
    let seen = context(&place.get("/store/k").await);
    put(&place, "k", "", b"two").await;
    // What it had not seen stays.
    assert_eq!(place.ask("DELETE", "/store/k", &seen, b"").await.status, 204);
    assert_eq!(place.get("/store/k").await.text(), "two");
    assert_eq!(place.ask("DELETE", "/store/k", "", b"").await.status, 204);
    place.get("/store/k").await.problem(404, "no value");
    assert_eq!(place.ask("DELETE", "/store/k", "", b"").await.status, 204);
    put(&place, "k", "", b"new").await;
    put(&place, "k", &seen, b"late").await;
    assert_eq!(values(&place.get("/store/k").await), ["new", "late"]);
    let old = seen.replace("X-Tako-Context", "X-VinzClortho-Context");
    assert_eq!(place.ask("DELETE", "/store/k", &old, b"").await.status, 204);
    assert_eq!(values(&place.get("/store/k").await), ["new", "late"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_written_at_once_are_all_there() {
    let place = Place::one().await;
    let writers = (0..30).map(|n| {
        let place = &place;
        async move { put(place, "k", "", n.to_string().as_bytes()).await }
    });
    futures::future::join_all(writers).await;
    let mut found: Vec<u32> =
        values(&place.get("/store/k").await).iter().map(|n| n.parse().expect("one")).collect();
    found.sort_unstable();
    assert_eq!(found, (0..30).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_and_changes_nothing() {
    let place = Place::one().await;
    let other = context(&put(&place, "other", "", b"x").await);
    let good = context(&put(&place, "k", "", b"value").await);
    for (headers, part) in [
        ("X-Tako-Context: nonsense!\r\n".to_owned(), "base64url"),
        ("X-Tako-Context: AAAA\r\n".to_owned(), "too short"),
        ("X-Tako-Context: gASVCwAAAAAAAABdlCgpgZRlLg\r\n".to_owned(), "checksum"),
        (other, "another key's"),
        (format!("{good}{good}"), "more than once"),
        ("X-Tako-Client: \r\n".to_owned(), "1 to 64 bytes"),
        (format!("X-Tako-Client: {}\r\n", "c".repeat(65)), "1 to 64 bytes"),
        ("If-Match: *\r\n".to_owned(), "X-Tako-Context"),
        ("X-Tako-TTL: 60\r\n".to_owned(), "x-tako-ttl"),
        ("X-Timestamp: 60\r\n".to_owned(), "x-timestamp"),
    ] {
        place.ask("PUT", "/store/k", &headers, b"y").await.problem(400, part);
        place.ask("DELETE", "/store/k", &headers, b"").await.problem(400, part);
    }
    place.ask("PUT", "/store/k?w=1", "", b"y").await.problem(400, "w=1");
    place.ask("PATCH", "/store/k", "", b"").await.problem(405, "GET");
    place.get("/store/").await.problem(400, "empty");
    assert_eq!(place.get("/store/k").await.text(), "value");
    // Together they may be no longer than one value.
    let long = vec![b'x'; VALUE_LIMIT - 5_000];
    put(&place, "long", "", &long).await;
    place.ask("PUT", "/store/long", "", &long).await.problem(413, "their context");
    let seen = context(&place.get("/store/long").await);
    put(&place, "long", &seen, &long).await;
    let longer = vec![b'x'; VALUE_LIMIT];
    place.ask("PUT", "/store/long", "", &longer).await.problem(413, "value_bytes_max");
}
