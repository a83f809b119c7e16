//! Connections that misbehave: slow, cut, half-closed, pipelined, garbage, too many, and the end
//! of the process.

mod common;

use std::time::Duration;

use common::{Client, Place, VALUE_LIMIT, configuration, eventually};
use tako_gateway::GatewayOptions;
use tokio::time::Instant;

/// Short times, so that a test sees them pass.
fn short() -> GatewayOptions {
    GatewayOptions {
        body_stall: Duration::from_millis(300),
        head_timeout: Duration::from_millis(300),
        ..GatewayOptions::default()
    }
}

/// One connection at a time: the next is served only when a slot was given back.
fn single(options: GatewayOptions) -> GatewayOptions {
    GatewayOptions { connections_max: 1, ..options }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_trickles_is_cut_off_and_its_slot_given_back() {
    let place = Place::with(single(short())).await;
    let mut slow = place.client().await;
    let began = Instant::now();
    for byte in b"GET /values/k HTTP/1.1\r\nX-Slow: ".iter().cycle() {
        if slow.try_send(&[*byte]).await.is_err() || began.elapsed() > Duration::from_secs(2) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slow.end().await;
    assert_eq!(place.get("/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_closed_after_the_head_timeout() {
    let place = Place::with(single(short())).await;
    let mut fresh = place.client().await;
    assert!(fresh.end().await.is_empty());
    drop(fresh);
    let mut used = place.client().await;
    assert_eq!(used.ask("GET", "/healthz", "", b"").await.status, 200);
    assert!(used.end().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stands_still_is_answered_408_and_not_stored() {
    let place = Place::with(single(short())).await;
    for headers in ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut slow = place.client().await;
        slow.send_head("PUT", "/values/k", headers).await;
        slow.send(b"3\r\n12").await;
        let answer = slow.answer().await;
        answer.problem(408, "stood still");
        assert_eq!(answer.header("connection"), Some("close"));
        slow.end().await;
        drop(slow);
        assert_eq!(place.get("/values/k").await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_is_cut_off_though_it_never_stands_still() {
    let place = Place::with(short()).await;
    let mut slow = place.client().await;
    slow.send_head("PUT", "/values/k", "Content-Length: 1000\r\n").await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        if slow.try_send(b"x").await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    slow.answer().await.problem(408, "bytes a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let place = Place::with(single(short())).await;
    place.put("/values/k", &vec![1; VALUE_LIMIT]).await;
    let mut deaf = place.client().await;
    // More than all socket buffers together hold.
    let request = b"GET /values/k HTTP/1.1\r\nHost: t\r\n\r\n".repeat(1000);
    let _ = deaf.try_send(&request).await;
    // The only slot comes back although the connection stays open here.
    assert_eq!(place.get("/healthz").await.status, 200);
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_cut_short_stores_nothing() {
    let place = Place::with(single(short())).await;
    for headers in ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut cut = place.client().await;
        cut.send_head("PUT", "/values/k", headers).await;
        cut.send(b"5\r\nabc").await;
        drop(cut);
        assert_eq!(place.get("/values/k").await.status, 404, "{headers}");

        let mut half = place.client().await;
        half.send_head("PUT", "/values/k", headers).await;
        half.send(b"5\r\nabc").await;
        half.half_close().await;
        if let Some(answer) = half.maybe_answer().await {
            answer.problem(400, "nothing was stored");
        }
        half.end().await;
        drop(half);
        assert_eq!(place.get("/values/k").await.status, 404, "{headers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_chunks_store_nothing() {
    let place = Place::one().await;
    for chunks in ["zz\r\nabc\r\n0\r\n\r\n", "fffffffffffffffff\r\nabc", "3\r\nabcdef\r\n0\r\n\r\n"]
    {
        let mut client = place.client().await;
        client.send_head("PUT", "/values/k", "Transfer-Encoding: chunked\r\n").await;
        client.send(chunks.as_bytes()).await;
        if let Some(answer) = client.maybe_answer().await {
            answer.problem(400, "malformed");
        }
        client.end().await;
        assert_eq!(place.get("/values/k").await.status, 404, "{chunks}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_client_gets_a_whole_answer_or_none_and_its_slot_is_given_back() {
    let place = Place::with(single(GatewayOptions::default())).await;
    place.put("/values/k", b"value").await;
    for _ in 0..20 {
        let mut half = place.client().await;
        half.send_head("GET", "/values/k", "").await;
        half.half_close().await;
        if let Some(answer) = half.maybe_answer().await {
            assert_eq!((answer.status, answer.text()), (200, "value"));
        }
        assert!(half.end().await.is_empty());
    }
    assert_eq!(place.get("/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_client_has_gone_is_cancelled_before_its_deadline() {
    let mut place = Place::started(&configuration(3), single(GatewayOptions::default())).await;
    place.start("n2").await;
    place.start("n3").await;
    place.ready().await;
    // Calls to the others now wait for their time-out of 2 seconds.
    place.cut("n1", &["n2", "n3"]);
    let began = Instant::now();
    for _ in 0..5 {
        let mut gone = place.client().await;
        gone.send_head("GET", "/values/k?r=3", "").await;
        gone.half_close().await;
        gone.end().await;
    }
    assert_eq!(place.get("/healthz").await.status, 200);
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_their_order() {
    let place = Place::one().await;
    let mut client = place.client().await;
    let mut all = String::new();
    for n in 0..100 {
        all += &format!("PUT /values/k{n} HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n{n:03}");
        all += &format!("GET /values/k{n} HTTP/1.1\r\nHost: t\r\n\r\n");
        all += "GET /values/never HTTP/1.1\r\nHost: t\r\n\r\n";
    }
    client.send(all.as_bytes()).await;
    for n in 0..100 {
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(client.answer().await.text(), format!("{n:03}"));
        client.answer().await.problem(404, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_before_the_body_was_read_leaves_no_body_to_be_taken_for_a_request() {
    let place = Place::one().await;
    place.put("/values/victim", b"v").await;
    let hidden = b"DELETE /values/victim HTTP/1.1\r\nHost: t\r\n\r\n";
    for (path, headers) in [
        ("/values/k?x=1", ""),
        ("/values/", ""),
        ("/nothing", ""),
        ("/values/k", "X-Timestamp: 0\r\n"),
        ("/values/k", "If-Unmodified-Since: x\r\n"),
        ("/values/k", "If-Match: x\r\n"),
    ] {
        let mut client = place.client().await;
        assert!(client.ask("PUT", path, headers, hidden).await.status >= 400);
        // Either closed, or in step for the next request.
        let next = b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
        if client.try_send(next).await.is_ok()
            && let Some(answer) = client.maybe_answer().await
        {
            assert_eq!((answer.status, answer.text()), (200, "ok\n"), "{path} {headers}");
        }
    }
    assert_eq!(place.get("/values/victim").await.text(), "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_and_the_connection_closed() {
    let place = Place::one().await;
    let garbage: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"set k 0 0 1\r\nv\r\n",
        b"GET\r\n\r\n",
        b"GET /values/k HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /values/k HTTP/1.1\r\nno colon\r\n\r\n",
        b"PUT /values/k HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nvv",
    ];
    for bytes in garbage {
        let mut client = place.client().await;
        client.send(bytes).await;
        if let Some(answer) = client.maybe_answer().await {
            assert!((400..=505).contains(&answer.status), "{answer:?}");
        }
        client.end().await;
    }
    place.get("/values/k").await.problem(404, "no value");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_head_is_refused() {
    let place = Place::one().await;
    let many = "X-One: 1\r\n".repeat(1000);
    let long = format!("X-Long: {}\r\n", "x".repeat(1 << 20));
    for headers in [many, long] {
        let mut client = place.client().await;
        let head = format!("GET /values/k HTTP/1.1\r\nHost: t\r\n{headers}\r\n");
        client.try_send(head.as_bytes()).await.expect("taken and thrown away");
        assert_eq!(client.answer().await.status, 431);
        client.end().await;
    }
    let mut client = place.client().await;
    let path = format!("/values/{}", "k".repeat(1 << 20));
    client.try_send(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await.expect("taken");
    assert!(matches!(client.answer().await.status, 414 | 431));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_connections_do_not_keep_others_waiting() {
    let place = Place::one().await;
    let mut idle: Vec<Client> = Vec::new();
    for _ in 0..1000 {
        idle.push(place.client().await);
    }
    for n in 0..100 {
        let path = format!("/values/{n}");
        assert_eq!(place.put(&path, b"v").await.status, 200);
        assert_eq!(place.get(&path).await.text(), "v");
    }
    // They were not forgotten either.
    for client in &mut idle {
        assert_eq!(client.ask("GET", "/healthz", "", b"").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_bound_wait_until_others_end() {
    let place =
        Place::with(GatewayOptions { connections_max: 2, ..GatewayOptions::default() }).await;
    let mut first = place.client().await;
    let mut second = place.client().await;
    assert_eq!(first.ask("GET", "/healthz", "", b"").await.status, 200);
    assert_eq!(second.ask("GET", "/healthz", "", b"").await.status, 200);
    let mut third = place.client().await;
    third.send_head("GET", "/healthz", "").await;
    let waited = tokio::time::timeout(Duration::from_millis(200), third.maybe_answer()).await;
    assert!(waited.is_err(), "no third connection is served: {waited:?}");
    drop(first);
    assert_eq!(third.answer().await.status, 200);
    assert_eq!(second.ask("GET", "/healthz", "", b"").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_over_the_memory_budget_are_told_to_come_back() {
    // The budget is never less than one greatest value: 64 MiB. A body of unknown length counts
    // as the greatest of the configuration.
    let limit = format!("value_bytes_max: {}", 64 << 20);
    let config = configuration(1).replace(&format!("value_bytes_max: {VALUE_LIMIT}"), &limit);
    let options = GatewayOptions { body_bytes_max: 0, ..short() };
    let place = Place::started(&config, options).await;
    place.ready().await;
    let mut holder = place.client().await;
    holder.send_head("PUT", "/values/a", "Transfer-Encoding: chunked\r\n").await;
    let began = Instant::now();
    // At a good pace, so that the holder is not cut off.
    let holding = tokio::spawn(async move {
        while began.elapsed() < Duration::from_secs(2) {
            let chunk = format!("{:x}\r\n{}\r\n", 1 << 15, "x".repeat(1 << 15));
            holder.send(chunk.as_bytes()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        holder.send(b"0\r\n\r\n").await;
        holder.answer().await
    });
    eventually("uploads are refused", async || {
        let answer = place.put("/values/b", &[0; 4096]).await;
        if answer.status == 503 {
            answer.problem(503, "uploaded at once");
        }
        answer.status == 503
    })
    .await;
    assert_eq!(holding.await.expect("held").status, 200);
    assert_eq!(place.put("/values/b", &[0; 4096]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_finishes_open_requests_and_takes_no_new_ones() {
    let place = Place::one().await;
    let mut idle = place.client().await;
    let mut fresh = place.client().await;
    assert_eq!(idle.ask("GET", "/healthz", "", b"").await.status, 200);
    let mut open = place.client().await;
    open.send_head("PUT", "/values/k", "Content-Length: 6\r\nExpect: 100-continue\r\n").await;
    // Now the request is surely being served.
    assert_eq!(open.answer().await.status, 100);
    open.send(b"abc").await;
    place.shutdown.cancel();
    assert!(idle.end().await.is_empty());
    assert!(fresh.end().await.is_empty());
    open.send(b"def").await;
    let answer = open.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    open.end().await;
    drop((idle, fresh, open));
    let mut served = place.served;
    tokio::time::timeout(Duration::from_secs(10), &mut served)
        .await
        .expect("ended in time")
        .expect("no panic");
    assert!(tokio::net::TcpStream::connect(place.address).await.is_err());
}
