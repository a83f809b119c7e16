//! Claims about the server facing streams that are slow, broken, hostile or too many.

use std::{sync::atomic::Ordering, time::Duration};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tako_types::{NodeId, limits::FRAME_BYTES_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    BoxStream, CallHead, MemoryNetwork, Network, NodeState, PROTOCOL, Request, Response,
    fixture::{Server, get, put},
    frame::{self, Prefix},
    message::{Answer, decode_response, encode_request},
};

const LONG: Duration = Duration::from_secs(60);

fn wire(id: u64, request: &Request) -> Vec<u8> {
    let head = CallHead { id, ..CallHead::default() };
    let frame = encode_request(&head, request).expect("fits");
    let mut bytes = frame.prefix_bytes().to_vec();
    for piece in std::iter::once(&frame.head).chain(&frame.attachments) {
        bytes.extend_from_slice(piece);
    }
    bytes
}

async fn answer(stream: &mut BoxStream) -> (u64, Answer) {
    let mut bytes = vec![0; 8];
    stream.read_exact(&mut bytes).await.expect("an answer");
    let prefix = Prefix::read(*bytes.first_chunk().expect("8")).expect("sound");
    bytes.resize(8 + prefix.body_bytes, 0);
    stream.read_exact(&mut bytes[8..]).await.expect("an answer");
    let frame = frame::parse(&bytes.into()).expect("a frame");
    let (id, answer) = decode_response(&frame).expect("sound");
    (id, answer.expect("no damaged record"))
}

async fn is_closed(stream: &mut BoxStream) {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await;
    end.expect("closed").ok();
}

/// A stream on which Hello was said and answered.
async fn greeted(network: &MemoryNetwork) -> BoxStream {
    let mut stream = network.connect("n1:1").await.expect("listens");
    let hello = Request::Hello { cluster: None, node: NodeId::new("raw"), protocol: PROTOCOL };
    stream.write_all(&wire(0, &hello)).await.expect("open");
    assert!(matches!(answer(&mut stream).await, (0, Ok(Response::Hello { .. }))));
    stream
}

async fn set_up() -> (MemoryNetwork, Server) {
    let network = MemoryNetwork::new();
    let server = Server::start(&network, "n1:1").await;
    (network, server)
}

#[tokio::test]
async fn a_frame_in_single_bytes_is_answered() {
    let (network, _server) = set_up().await;
    let mut stream = greeted(&network).await;
    for byte in wire(3, &Request::Health) {
        stream.write_all(&[byte]).await.expect("open");
        tokio::task::yield_now().await;
    }
    let healthy = Ok(Response::Health { state: NodeState::Serving });
    assert_eq!(answer(&mut stream).await, (3, healthy));
}

#[tokio::test(start_paused = true)]
async fn a_started_frame_must_arrive_in_time_and_an_idle_connection_may_wait() {
    let (network, server) = set_up().await;
    let mut idle = greeted(&network).await;
    let mut stream = greeted(&network).await;
    stream.write_all(&wire(3, &put(&[1; 10_000]))[..5_000]).await.expect("open");
    is_closed(&mut stream).await;
    assert_eq!(server.metrics.frames_torn.load(Ordering::Relaxed), 1);
    idle.write_all(&wire(4, &Request::Health)).await.expect("open");
    assert_eq!(answer(&mut idle).await.0, 4);
    // In the end it is closed all the same.
    let end = tokio::time::timeout(Duration::from_secs(3_600), idle.read(&mut [0; 1])).await;
    assert_eq!(end.expect("closed").expect("orderly"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_say_hello_is_closed() {
    let (network, server) = set_up().await;
    let mut silent = network.connect("n1:1").await.expect("listens");
    is_closed(&mut silent).await;
    let mut rude = network.connect("n1:1").await.expect("listens");
    rude.write_all(&wire(1, &Request::Health)).await.expect("open");
    is_closed(&mut rude).await;
    assert_eq!(server.metrics.frames_bad.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_half_closed_client_still_gets_its_answers() {
    let (network, server) = set_up().await;
    let mut stream = greeted(&network).await;
    stream.write_all(&wire(3, &get())).await.expect("open");
    server.started(2).await;
    stream.shutdown().await.expect("open");
    tokio::task::yield_now().await;
    server.probe.gate.add_permits(1);
    assert!(matches!(answer(&mut stream).await, (3, Ok(Response::Get { .. }))));
    is_closed(&mut stream).await;
}

#[tokio::test]
async fn a_broken_connection_drops_its_calls() {
    let (network, server) = set_up().await;
    let mut stream = greeted(&network.as_host("c")).await;
    stream.write_all(&wire(3, &get())).await.expect("open");
    server.started(2).await;
    network.drop_connections("c");
    while server.running() != 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_bad_frame_closes_its_connection_alone_and_is_counted() {
    let (network, server) = set_up().await;
    let mut other = greeted(&network).await;
    let too_long = u32::try_from(FRAME_BYTES_MAX + 1).expect("fits").to_le_bytes();
    let too_long = [&too_long[..], &[8, 0, 0, 0]].concat();
    let garbage = [&[16, 0, 0, 0, 16, 0, 0, 0][..], &[0xff; 16]].concat();
    for (count, bytes) in (1..).zip([too_long, garbage]) {
        let mut stream = greeted(&network).await;
        stream.write_all(&bytes).await.expect("open");
        is_closed(&mut stream).await;
        assert_eq!(server.metrics.frames_bad.load(Ordering::Relaxed), count);
    }
    other.write_all(&wire(4, &Request::Health)).await.expect("open");
    assert_eq!(answer(&mut other).await.0, 4);
}

#[tokio::test]
async fn a_damaged_record_fails_its_call_alone_and_is_counted() {
    let (network, server) = set_up().await;
    let mut stream = greeted(&network).await;
    let mut bytes = wire(3, &put(&[0xab; 100]));
    let at = bytes.iter().rposition(|byte| *byte == 0xab).expect("the value");
    bytes[at] ^= 1;
    bytes.extend_from_slice(&wire(4, &Request::Health));
    stream.write_all(&bytes).await.expect("open");
    let (id, failed) = answer(&mut stream).await;
    assert_eq!((id, failed.expect_err("damaged").kind), (3, tako_types::ErrorKind::Corrupt));
    assert_eq!(answer(&mut stream).await.0, 4);
    assert_eq!(server.metrics.records_bad.load(Ordering::Relaxed), 1);
    assert_eq!(server.probe.puts.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn seeded_garbage_after_hello_never_stops_the_server() {
    let (network, _server) = set_up().await;
    let mut random = StdRng::seed_from_u64(4);
    for _ in 0..200 {
        let mut stream = greeted(&network).await;
        let mut bytes = wire(1, &put(b"some value"));
        if random.random_bool(0.3) {
            random.fill_bytes(&mut bytes);
        } else {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        // The server may close before all is written.
        let _closed = stream.write_all(&bytes).await;
    }
    let mut stream = greeted(&network).await;
    stream.write_all(&wire(4, &Request::Health)).await.expect("open");
    assert_eq!(answer(&mut stream).await.0, 4);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_no_answers_is_not_read_and_at_last_dropped() {
    let (network, server) = {
        let network = MemoryNetwork::new();
        let small = |options: &mut super::ServeOptions| options.answer_bytes_max = 64 << 10;
        let server = Server::start_with(&network, "n1:1", small).await;
        (network, server)
    };
    let mut stream = greeted(&network).await;
    let sent = async {
        let mut id = 0;
        while stream.write_all(&wire(id, &Request::Health)).await.is_ok() {
            id += 1;
        }
    };
    tokio::time::timeout(LONG, sent).await.expect("the server gave the connection up");
    assert!(server.metrics.frames_received.load(Ordering::Relaxed) < 20_000);
    assert_eq!(server.metrics.connections_open.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_call_whose_frame_comes_again_is_made_and_answered_once() {
    let network = MemoryNetwork::new();
    let server = Server::start(&network, "n1:1").await;
    let mut stream = greeted(&network).await;
    for id in [5, 5, 4, 6, 4, 5] {
        stream.write_all(&wire(id, &Request::Health)).await.expect("open");
    }
    for id in [5, 4, 6] {
        assert_eq!(answer(&mut stream).await.0, id);
    }
    stream.write_all(&wire(7, &Request::Health)).await.expect("open");
    assert_eq!(answer(&mut stream).await.0, 7, "nothing came between");
    assert_eq!(server.metrics.frames_repeated.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn requests_beyond_the_bound_of_calls_wait_unread() {
    let network = MemoryNetwork::new();
    let few = |options: &mut super::ServeOptions| options.calls_max = 4;
    let server = Server::start_with(&network, "n1:1", few).await;
    let mut stream = greeted(&network).await;
    for id in 1..=10 {
        stream.write_all(&wire(id, &get())).await.expect("open");
    }
    server.started(1 + 4).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.running(), 4);
    server.probe.gate.add_permits(10);
    let mut ids = Vec::new();
    for _ in 1..=10 {
        ids.push(answer(&mut stream).await.0);
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_and_counted() {
    let network = MemoryNetwork::new();
    let few = |options: &mut super::ServeOptions| options.connections_max = 2;
    let server = Server::start_with(&network, "n1:1", few).await;
    let first = greeted(&network).await;
    let _second = greeted(&network).await;
    let mut third = network.connect("n1:1").await.expect("listens");
    is_closed(&mut third).await;
    assert_eq!(server.metrics.connections_refused.load(Ordering::Relaxed), 1);
    drop(first);
    while server.metrics.connections_open.load(Ordering::Relaxed) != 1 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    greeted(&network).await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_answers_what_runs_takes_nothing_new_and_ends() {
    let (network, server) = set_up().await;
    let mut stream = greeted(&network).await;
    stream.write_all(&wire(3, &get())).await.expect("open");
    server.started(2).await;
    server.shutdown.cancel();
    while network.connect("n1:1").await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!server.task.is_finished());
    server.probe.gate.add_permits(1);
    assert!(matches!(answer(&mut stream).await, (3, Ok(Response::Get { .. }))));
    is_closed(&mut stream).await;
    tokio::time::timeout(LONG, server.task).await.expect("ends").expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn shutdown_drops_calls_that_never_end() {
    let (network, server) = set_up().await;
    let mut stream = greeted(&network).await;
    stream.write_all(&wire(3, &get())).await.expect("open");
    server.started(2).await;
    server.shutdown.cancel();
    tokio::time::timeout(LONG, server.task).await.expect("ends").expect("no panic");
    assert_eq!(server.probe.running.load(Ordering::SeqCst), 0);
}
