//! `/values` and `/stat` over real connections: answers, headers, keys, limits, time.

mod common;

use std::time::Duration;

use common::{Place, VALUE_LIMIT, configuration};
use tako_gateway::GatewayOptions;

#[tokio::test(flavor = "multi_thread")]
async fn a_value_reads_back_with_exact_headers() {
    let place = Place::one().await;
    let put = place.put("/values/users/1", b"one").await;
    assert_eq!((put.status, put.body.as_slice()), (200, b"".as_slice()));
    assert_eq!(put.header("content-length"), Some("0"));
    let etag = put.header("etag").expect("a version").to_owned();
    assert!(etag.starts_with(&format!("\"{}-", put.timestamp())) && etag.ends_with('"'));

    let mut client = place.client().await;
    for method in ["GET", "HEAD"] {
        let got = client.ask(method, "/values/users/1", "", b"").await;
        assert_eq!(got.status, 200);
        assert_eq!(got.body, if method == "GET" { b"one".as_slice() } else { b"" });
        assert_eq!(got.header("content-length"), Some("3"), "{method}");
        assert_eq!(got.header("content-type"), Some("application/octet-stream"));
        assert_eq!(got.header("etag"), Some(etag.as_str()));
        assert_eq!(got.timestamp(), put.timestamp());
        let modified = got.header("last-modified").expect("a date");
        assert!(modified.ends_with(" GMT") && modified.len() == 29, "{modified}");
    }
    for method in ["GET", "HEAD"] {
        let stat = client.ask(method, "/stat/users/1", "", b"").await;
        assert_eq!(stat.status, 200);
        assert_eq!(stat.timestamp(), put.timestamp());
        assert!(stat.header("last-modified").is_some());
        assert_eq!(stat.header("content-type"), Some("text/plain"));
        if method == "GET" {
            assert_eq!(stat.text(), format!("{:012}", put.timestamp()));
        } else {
            assert!(stat.body.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn post_writes_as_put_and_a_deleted_value_is_not_found() {
    let place = Place::one().await;
    let posted = place.ask("POST", "/values/k", "Content-Type: text/csv\r\n", b"a,b").await;
    assert_eq!(posted.status, 200);
    let got = place.get("/values/k").await;
    assert_eq!((got.text(), got.header("content-type")), ("a,b", Some("text/csv")));

    let deleted = place.ask("DELETE", "/values/k", "", b"").await;
    assert_eq!(deleted.status, 204);
    assert!(deleted.timestamp() > posted.timestamp());
    place.get("/values/k").await.problem(404, "no value");
    place.get("/stat/k").await.problem(404, "no value");
    assert_eq!(place.ask("HEAD", "/values/k", "", b"").await.status, 404);
    assert_eq!(place.ask("DELETE", "/values/never", "", b"").await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_value_is_found_with_length_0() {
    let place = Place::one().await;
    assert_eq!(place.put("/values/empty", b"").await.status, 200);
    let got = place.get("/values/empty").await;
    assert_eq!((got.status, got.header("content-length")), (200, Some("0")));
    assert_eq!(place.get("/stat/empty").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_a_key_names_the_same_bytes() {
    let place = Place::one().await;
    let mut client = place.client().await;
    // The bytes, as each of several paths spells them.
    let keys: [&[&str]; 9] = [
        &["a/b/c", "a%2Fb%2fc", "%61/b/c"],
        &["a//b", "a/%2Fb"],
        &["/a", "%2Fa"],
        &["a/../b/./", "a/%2E%2E/b/%2E/"],
        &["a+b", "a%20b"],
        &["a%2Bb"],
        &["a%252Bb"],
        &["%00%FF", "%00%ff"],
        &["%E3%81%9F%E3%81%93", "たこ"],
    ];
    for (n, spellings) in keys.iter().enumerate() {
        let path = format!("/values/{}", spellings[0]);
        assert_eq!(client.ask("PUT", &path, "", &[n as u8]).await.status, 200, "{path}");
    }
    for (n, spellings) in keys.iter().enumerate() {
        for spelling in *spellings {
            let got = client.ask("GET", &format!("/values/{spelling}"), "", b"").await;
            assert_eq!((got.status, got.body), (200, vec![n as u8]), "{spelling}");
            let stat = client.ask("GET", &format!("/stat/{spelling}"), "", b"").await;
            assert_eq!(stat.status, 200, "{spelling}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_malformed_and_too_long_keys_are_refused() {
    let place = Place::one().await;
    let mut client = place.client().await;
    for root in ["/values/", "/stat/"] {
        // To get this one of `/values/` is a listing.
        let method = if root == "/values/" { "DELETE" } else { "GET" };
        client.ask(method, root, "", b"").await.problem(400, "empty");
        client.ask("GET", &format!("{root}a%"), "", b"").await.problem(400, "%25");
        client.ask("GET", &format!("{root}a%zz"), "", b"").await.problem(400, "%25");
        let long = format!("{root}{}", "k".repeat(4097));
        let problem = client.ask("GET", &long, "", b"").await.problem(414, "4096");
        assert_eq!(problem["limit_bytes"], 4096);
    }
    for longest in ["k".repeat(4096), "%01".repeat(4096)] {
        let path = format!("/values/{longest}");
        assert_eq!(client.ask("PUT", &path, "", b"v").await.status, 200);
        assert_eq!(client.ask("GET", &path, "", b"").await.text(), "v");
    }
    let long = format!("/values/{}", "%01".repeat(4097));
    client.ask("DELETE", &long, "", b"").await.problem(414, "4096");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_at_the_limit_is_taken_and_one_byte_more_is_refused() {
    let place = Place::one().await;
    let most = vec![7; VALUE_LIMIT];
    let more = vec![7; VALUE_LIMIT + 1];
    assert_eq!(place.put("/values/most", &most).await.status, 200);
    assert_eq!(place.get("/values/most").await.body, most);

    let mut client = place.client().await;
    let refused = client.ask("PUT", "/values/more", "", &more).await;
    assert_eq!(refused.problem(413, "value_bytes_max")["limit_bytes"], VALUE_LIMIT);
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(client.end().await.is_empty(), "nothing after the answer");

    for (value, status) in [(&most, 200), (&more, 413)] {
        let mut client = place.client().await;
        client.send_head("PUT", "/values/chunks", "Transfer-Encoding: chunked\r\n").await;
        for chunk in value.chunks(30_000) {
            client.send(format!("{:x}\r\n", chunk.len()).as_bytes()).await;
            client.send(chunk).await;
            client.send(b"\r\n").await;
        }
        client.send(b"0\r\n\r\n").await;
        assert_eq!(client.answer().await.status, status);
    }
    assert_eq!(place.get("/values/chunks").await.body, most);
    assert_eq!(place.get("/values/more").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_far_too_much_still_reads_why_it_was_refused() {
    let place = Place::one().await;
    let mut client = place.client().await;
    let bytes = 8 << 20;
    client.send_head("PUT", "/values/k", &format!("Content-Length: {bytes}\r\n")).await;
    // Without an ear for the answer, as simple clients do it.
    client.try_send(&vec![0; bytes]).await.expect("taken and thrown away");
    client.answer().await.problem(413, "100000");
    client.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_not_sent_100_for_a_body_too_large() {
    let place = Place::one().await;
    let mut client = place.client().await;
    let expect = "Expect: 100-continue\r\n";
    client.send_head("PUT", "/values/k", &format!("Content-Length: 3\r\n{expect}")).await;
    assert_eq!(client.answer().await.status, 100);
    client.send(b"abc").await;
    assert_eq!(client.answer().await.status, 200);
    client.send_head("PUT", "/values/k", &format!("Content-Length: 100001\r\n{expect}")).await;
    client.answer().await.problem(413, "100000");
    assert_eq!(place.get("/values/k").await.text(), "abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_higher_timestamp_wins_and_every_writer_is_told_which() {
    let place = Place::one().await;
    let mut client = place.client().await;
    let new = client.ask("PUT", "/values/k", "X-Timestamp: 2000\r\n", b"new").await;
    assert_eq!((new.status, new.header("x-timestamp")), (200, Some("000000002000")));
    assert_eq!(new.header("x-tako-superseded"), None);
    let old = client.ask("POST", "/values/k", "X-Timestamp: 1000\r\n", b"old").await;
    assert_eq!((old.status, old.header("x-timestamp")), (200, Some("000000002000")));
    assert_eq!(old.header("etag"), new.header("etag"));
    assert_eq!(old.header("x-tako-superseded"), Some("true"));
    let got = client.ask("GET", "/values/k", "", b"").await;
    assert_eq!((got.text(), got.header("x-timestamp")), ("new", Some("000000002000")));
    assert_eq!(got.header("last-modified"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    let stat = client.ask("GET", "/stat/k", "", b"").await;
    assert_eq!(stat.text(), "000000002000");
    let deleted = client.ask("DELETE", "/values/k", "X-Timestamp: 1500\r\n", b"").await;
    assert_eq!((deleted.status, deleted.header("x-timestamp")), (204, Some("000000002000")));
    assert_eq!(client.ask("GET", "/values/k", "", b"").await.text(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_that_is_none_or_far_ahead_is_refused() {
    let place = Place::one().await;
    let day_ahead = 86_400_000_000 + 1_000_000 * u64::from(u32::MAX);
    for (text, part) in [
        ("soon", "microseconds"),
        ("", "microseconds"),
        ("0", "microseconds"),
        ("-5", "microseconds"),
        ("1.5", "microseconds"),
        ("99999999999999999999", "microseconds"),
        ("18446744073709551615", "ahead"),
        (day_ahead.to_string().as_str(), "ahead"),
    ] {
        let headers = format!("X-Timestamp: {text}\r\n");
        place.ask("PUT", "/values/k", &headers, b"v").await.problem(400, part);
        place.ask("DELETE", "/values/k", &headers, b"").await.problem(400, part);
    }
    assert_eq!(place.get("/values/k").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_version_is_not_sent_again() {
    let place = Place::one().await;
    let etag = place.put("/values/k", b"v").await.header("etag").expect("a version").to_owned();
    for known in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
        for method in ["GET", "HEAD"] {
            let headers = format!("If-None-Match: {known}\r\n");
            let got = place.ask(method, "/values/k", &headers, b"").await;
            assert_eq!((got.status, got.header("etag")), (304, Some(etag.as_str())), "{known}");
        }
    }
    let got = place.ask("GET", "/values/k", "If-None-Match: \"1-0\"\r\n", b"").await;
    assert_eq!((got.status, got.text()), (200, "v"));
    assert_eq!(place.ask("GET", "/values/no", "If-None-Match: *\r\n", b"").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_made_only_where_its_condition_holds() {
    let place = Place::one().await;
    let ask = async |method: &str, condition: &str, body: &[u8]| {
        place.ask(method, "/values/k", &format!("{condition}\r\n"), body).await
    };
    let none = ask("PUT", "If-Match: *", b"never").await;
    none.problem(412, "there is no value");
    assert_eq!(none.header("etag"), None);
    let made = ask("PUT", "If-None-Match: *", b"first").await;
    let first = made.header("etag").expect("a version").to_owned();
    assert_eq!((made.status, made.header("x-tako-superseded")), (200, None));
    assert!(made.header("x-timestamp").is_some());
    for method in ["PUT", "POST", "DELETE"] {
        let refused = ask(method, "If-None-Match: *", b"").await;
        refused.problem(412, &first);
        assert_eq!(refused.header("etag"), Some(first.as_str()));
        ask(method, "If-Match: \"1-0\", \"no version\"", b"").await.problem(412, "ETag");
        ask(method, &format!("If-Match: W/{first}"), b"").await.problem(412, "ETag");
        ask(method, &format!("If-None-Match: {first}"), b"").await.problem(412, "ETag");
    }
    assert_eq!(place.get("/values/k").await.text(), "first");
    let second = ask("POST", &format!("If-Match: \"1-0\", {first}"), b"second").await;
    let second = second.header("etag").expect("a version").to_owned();
    let got = place.get("/values/k").await;
    assert_eq!((got.text(), got.header("etag")), ("second", Some(second.as_str())));
    ask("PUT", &format!("If-Match: {first}"), b"late").await.problem(412, "ETag");
    let gone = ask("DELETE", &format!("If-Match: {second}"), b"").await;
    assert_eq!(gone.status, 204);
    assert_eq!(place.get("/values/k").await.status, 404);
    let short = place.ask("PUT", "/values/k?ttl=1h", "If-None-Match: *\r\n", b"v").await;
    assert_eq!(short.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_is_none_or_cannot_be_kept_is_refused_and_nothing_is_written() {
    let place = Place::one().await;
    for (query, headers, status, part) in [
        ("", "If-Unmodified-Since: x", 501, "If-Match"),
        ("", "If-Match: x", 400, "double quotes"),
        ("", "If-None-Match: \"a", 400, "double quotes"),
        ("", "If-Match: *\r\nIf-None-Match: *", 400, "not both"),
        ("", "If-None-Match: *\r\nX-Timestamp: 17", 400, "X-Timestamp"),
        ("?w=1", "If-None-Match: *", 400, "majority"),
    ] {
        for method in ["PUT", "POST", "DELETE"] {
            let path = format!("/values/k{query}");
            let answer = place.ask(method, &path, &format!("{headers}\r\n"), b"").await;
            answer.problem(status, part);
        }
    }
    assert_eq!(place.get("/values/k").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_cannot_be_served_is_refused() {
    let place = Place::one().await;
    for (query, part) in [
        ("x=1", "r, w and ttl"),
        ("k2", "r, w and ttl"),
        ("r=", "number of replicas"),
        ("w=one", "number of replicas"),
        ("w=-1", "number of replicas"),
        ("w=2", ""),
        ("w=0", ""),
        ("ttl=", "ttl"),
        ("ttl=0", "ttl"),
        ("ttl=-1", "ttl"),
        ("ttl=soon", "ttl"),
        ("ttl=%zz", "%25"),
    ] {
        place.put(&format!("/values/k?{query}"), b"v").await.problem(400, part);
    }
    for query in ["r=2", "r=0", "x=1", "r=%ff"] {
        place.get(&format!("/values/k?{query}")).await.problem(400, "");
        place.get(&format!("/stat/k?{query}")).await.problem(400, "");
    }
    let headers = "X-Tako-TTL: soon\r\n";
    place.ask("PUT", "/values/k", headers, b"v").await.problem(400, "ttl");
    place.get("/values/k").await.problem(404, "no value");
    assert_eq!(place.put("/values/k?w=1&ttl=1h", b"v").await.status, 200);
    assert_eq!(place.get("/values/k?r=1").await.status, 200);
    assert_eq!(place.get("/values/k?").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_gone_after_its_time_to_live() {
    let place = Place::one().await;
    let ways = [
        ("/values/a?ttl=20", ""),
        ("/values/b?ttl=20s", ""),
        ("/values/c", "X-Tako-TTL: 20\r\n"),
        ("/values/d?ttl=90", "X-Tako-TTL: 20s\r\n"),
        ("/values/e?ttl=0+days,%200:00:20", ""),
    ];
    for (path, headers) in ways {
        let put = place.ask("PUT", path, headers, b"v").await;
        assert_eq!(put.status, 200, "{path}");
    }
    assert_eq!(place.put("/values/long?ttl=60", b"v").await.status, 200);
    for key in ["a", "b", "c", "d", "e"] {
        assert_eq!(place.get(&format!("/values/{key}")).await.status, 200, "{key}");
    }
    place.clock.skew(Duration::from_secs(21));
    for key in ["a", "b", "c", "d", "e"] {
        place.get(&format!("/values/{key}")).await.problem(404, "no value");
        place.get(&format!("/stat/{key}")).await.problem(404, "no value");
    }
    assert_eq!(place.get("/values/long").await.status, 200);
    let bounded = format!("X-Tako-TTL: {}\r\n", u64::MAX);
    assert_eq!(place.ask("PUT", "/values/f", &bounded, b"v").await.status, 200);
    assert_eq!(place.get("/values/f").await.status, 200, "for ever, as far as numbers go");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_type_is_kept_up_to_its_limit() {
    let place = Place::one().await;
    let longest = format!("text/{}", "x".repeat(251));
    let headers = format!("Content-Type: {longest}\r\n");
    assert_eq!(place.ask("PUT", "/values/k", &headers, b"v").await.status, 200);
    assert_eq!(place.get("/values/k").await.header("content-type"), Some(longest.as_str()));
    let headers = format!("Content-Type: {longest}x\r\n");
    place.ask("PUT", "/values/k", &headers, b"w").await.problem(400, "256");
    assert_eq!(place.get("/values/k").await.text(), "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_405_with_what_is_allowed_and_other_paths_404() {
    let place = Place::one().await;
    for (method, path, allow) in [
        ("PATCH", "/values/k", "GET, HEAD, PUT, POST, DELETE"),
        ("OPTIONS", "/values/k", "GET, HEAD, PUT, POST, DELETE"),
        ("BREW", "/values/k", "GET, HEAD, PUT, POST, DELETE"),
        ("PUT", "/stat/k", "GET, HEAD"),
        ("DELETE", "/stat/k", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("PUT", "/readyz", "GET, HEAD"),
        ("DELETE", "/cluster", "GET, HEAD"),
    ] {
        let answer = place.ask(method, path, "", b"").await;
        answer.problem(405, allow);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    for path in ["/page/", "/values", "/stat", "/nothing", "/values%2Fk", "/cluster/", "*"] {
        place.get(path).await.problem(404, "/values/<key>");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_said_to_be_absent() {
    let place = Place::started(&configuration(3), GatewayOptions::default()).await;
    place.get("/values/k").await.problem(503, "");
    place.get("/stat/k").await.problem(503, "");
    place.put("/values/k", b"v").await.problem(503, "");
    place.ask("DELETE", "/values/k", "", b"").await.problem(503, "");
}
