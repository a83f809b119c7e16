//! Claims about calls: over memory and TCP, broken, refused, late, dropped and by thousands.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::join_all;
use tako_types::{ErrorKind, NodeId, PartitionId};
use tokio::time::Instant;

use super::{Peer, PeerOptions, Peers};
use crate::{
    MemoryNetwork, Network, NodeState, PutOutcome, Request, Response, TcpNetwork,
    fixture::{Server, get, peer, put},
};

const LONG: Duration = Duration::from_secs(60);
const HEALTHY: Response = Response::Health { state: NodeState::Serving };

async fn check_calls(network: impl Network + Clone + 'static, at: &str) {
    let server = Server::start(&network, at).await;
    let peer = peer(network, &server.address);
    assert_eq!(peer.call(0, LONG, Request::Health).await, Ok(HEALTHY));
    assert_eq!(peer.remote().expect("Hello was answered").node, NodeId::new("server"));
    for bytes in [0, 1_000, 300 << 10, 5 << 20] {
        let answer = peer.call(0, LONG, put(&vec![7; bytes])).await.expect("taken");
        let Response::Put(PutOutcome::Superseded { version }) = answer else { panic!("a Put") };
        assert_eq!(version.micros, bytes as u64);
    }
    server.probe.gate.add_permits(1);
    let Ok(Response::Get { record: Some(record), .. }) = peer.call(0, LONG, get()).await else {
        panic!("a Get")
    };
    assert_eq!(record.value(), &b"client"[..]);
    let force = Request::ForceStep { partition: PartitionId(0) };
    let error = peer.call(17, LONG, force).await.expect_err("stale");
    assert_eq!((error.kind, error.detail), (ErrorKind::StaleEpoch, 17));
    assert_eq!(server.metrics.connections_open.load(Ordering::Relaxed), 2);
    assert_eq!(server.metrics.frames_bad.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn calls_are_answered_over_memory() {
    check_calls(MemoryNetwork::new(), "n1:0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_answered_over_tcp() {
    check_calls(TcpNetwork, "127.0.0.1:0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_calls_share_one_connection_and_few_writes() {
    let server = Server::start(&TcpNetwork, "127.0.0.1:0").await;
    let peer = peer(TcpNetwork, &server.address);
    server.probe.gate.add_permits(1_000);
    let calls = (0..3_000).map(|n| match n % 3 {
        0 => peer.call(0, LONG, get()),
        1 => peer.call(0, LONG, put(&[1; 200])),
        _ => peer.call(0, LONG, Request::Health),
    });
    for answer in join_all(calls).await {
        answer.expect("answered");
    }
    assert_eq!(server.metrics.connections_opened.load(Ordering::Relaxed), 1);
    let (frames, writes) = (&server.metrics.frames_sent, &server.metrics.writes);
    assert_eq!(frames.load(Ordering::Relaxed), 3_001);
    assert!(writes.load(Ordering::Relaxed) < 1_000, "answers were not coalesced");
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_holds_up_no_other_and_ends_at_its_deadline() {
    let network = MemoryNetwork::new();
    let server = Server::start(&network, "n1:1").await;
    let peer = peer(network, "n1:1");
    let start = Instant::now();
    let (slow, quick) = tokio::join!(
        peer.call(0, Duration::from_secs(2), get()),
        peer.call(0, LONG, Request::Health)
    );
    assert_eq!(quick, Ok(HEALTHY));
    assert_eq!(slow.expect_err("late").kind, ErrorKind::Deadline);
    assert_eq!(start.elapsed().as_secs(), 2);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.running(), 0, "the server did not drop the late call");
    assert_eq!(peer.call(0, LONG, Request::Health).await, Ok(HEALTHY));
    assert_eq!(server.metrics.connections_opened.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_dropped_call_is_forgotten_and_the_connection_goes_on() {
    let network = MemoryNetwork::new();
    let server = Server::start(&network, "n1:1").await;
    let peer = Arc::new(peer(network, "n1:1"));
    let call = {
        let peer = Arc::clone(&peer);
        tokio::spawn(async move { peer.call(0, LONG, get()).await })
    };
    server.started(2).await;
    call.abort();
    assert!(call.await.expect_err("aborted").is_cancelled());
    server.probe.gate.add_permits(1);
    assert_eq!(peer.call(0, LONG, Request::Health).await, Ok(HEALTHY));
    assert_eq!(server.metrics.connections_opened.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_broken_connection_fails_what_waits_and_the_next_call_opens_another() {
    let network = MemoryNetwork::new();
    let server = Server::start(&network, "n1:1").await;
    let peer = Arc::new(peer(network.as_host("c"), "n1:1"));
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let peer = Arc::clone(&peer);
            tokio::spawn(async move { peer.call(0, LONG, get()).await })
        })
        .collect();
    server.started(11).await;
    network.drop_connections("c");
    for call in waiting {
        let error = call.await.expect("no panic").expect_err("broken");
        assert_eq!(error.kind, ErrorKind::Unavailable);
    }
    assert_eq!(peer.call(0, LONG, Request::Health).await, Ok(HEALTHY));
}

#[tokio::test(start_paused = true)]
async fn a_refused_peer_fails_at_once_then_without_connecting_then_is_tried_again() {
    let network = MemoryNetwork::new();
    let peer = peer(network.clone(), "n1:1");
    let start = Instant::now();
    for _ in 0..100 {
        let error = peer.call(0, LONG, Request::Health).await.expect_err("nobody there");
        assert_eq!(error.kind, ErrorKind::Unavailable);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(peer.metrics().connects_failed.load(Ordering::Relaxed), 1);
    // Half a minute of calls: the pause doubles to a second and stays there.
    for _ in 0..3_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        peer.call(0, LONG, Request::Health).await.expect_err("nobody there");
    }
    let attempts = peer.metrics().connects_failed.load(Ordering::Relaxed);
    assert!((30..40).contains(&attempts), "{attempts} attempts");
    let _server = Server::start(&network, "n1:1").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(peer.call(0, LONG, Request::Health).await, Ok(HEALTHY));
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_peer_costs_one_time_out_and_then_fails_fast() {
    let network = MemoryNetwork::new();
    let _server = Server::start(&network, "n1:1").await;
    let peer = peer(network.as_host("c"), "n1:1");
    let two = Duration::from_secs(2);
    assert_eq!(peer.call(0, two, Request::Health).await, Ok(HEALTHY));
    network.cut_both("c", "n1");
    // The open connection is given up after the silence, then connecting times out.
    let mut late = 0;
    for _ in 0..10 {
        let start = Instant::now();
        peer.call(0, two, Request::Health).await.expect_err("cut off");
        late += u32::from(start.elapsed() == two);
    }
    assert!(late <= 3, "{late} calls waited for their deadline");
    network.heal_all();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(peer.call(0, two, Request::Health).await, Ok(HEALTHY));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_busy_and_calls_that_end_make_room() {
    let network = MemoryNetwork::new();
    let server = Server::start(&network, "n1:1").await;
    let mut options = PeerOptions::new(NodeId::new("client"));
    options.queued_bytes_max = 1 << 20;
    let peer = Peer::new(Arc::new(network.as_host("c")), "n1:1", options);
    peer.call(0, LONG, put(&[1; 100])).await.expect("taken");
    network.cut("c", "n1");
    let second = Duration::from_secs(1);
    let calls = join_all((0..20).map(|_| peer.call(0, second, put(&[1; 200 << 10])))).await;
    let kinds: Vec<_> = calls.into_iter().map(|call| call.expect_err("cut").kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == ErrorKind::Deadline).count(), 5);
    assert_eq!(kinds.iter().filter(|kind| **kind == ErrorKind::Busy).count(), 15);
    network.heal_all();
    peer.call(0, LONG, put(&[1; 200 << 10])).await.expect("there is room again");
    // Of the five late calls those that were not yet being written never were.
    assert!(server.probe.puts.load(Ordering::SeqCst) < 7);
}

#[tokio::test]
async fn too_many_calls_in_flight_are_busy() {
    let network = MemoryNetwork::new();
    let server = Server::start(&network, "n1:1").await;
    let mut options = PeerOptions::new(NodeId::new("client"));
    options.calls_max = 10;
    let peer = Peer::new(Arc::new(network), "n1:1", options);
    peer.call(0, LONG, Request::Health).await.expect("connected");
    server.probe.gate.add_permits(10);
    let calls = join_all((0..15).map(|_| peer.call(0, LONG, get()))).await;
    let busy = calls.iter().filter(|call| matches!(call, Err(e) if e.kind == ErrorKind::Busy));
    assert_eq!(busy.count(), 5);
    assert_eq!(calls.iter().filter(|call| call.is_ok()).count(), 10);
}

#[tokio::test]
async fn a_refused_hello_is_the_callers_error() {
    let network = MemoryNetwork::new();
    let _server = Server::start(&network, "n1:1").await;
    let options = PeerOptions::new(NodeId::new("stranger"));
    let peer = Peer::new(Arc::new(network), "n1:1", options);
    let error = peer.call(0, LONG, Request::Health).await.expect_err("refused");
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Conflict, "another cluster"));
}

#[test]
fn a_connection_outlives_the_runtime_of_its_first_call_where_another_one_drives_it() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (lasting, passing) = (runtime().expect("a runtime"), runtime().expect("a runtime"));
    let network = MemoryNetwork::new();
    let server = lasting.block_on(Server::start(&network, "n1:1"));
    let mut options = PeerOptions::new(NodeId::new("client"));
    options.runtime = Some(lasting.handle().clone());
    let peer = Peer::new(Arc::new(network), "n1:1", options);
    let first = passing.block_on(async {
        let call = std::pin::pin!(peer.call(0, LONG, Request::Health));
        // Sent from here, served there.
        futures::future::poll_immediate(call).await
    });
    assert!(first.is_none(), "nobody has driven it yet");
    drop(passing);
    lasting.block_on(async {
        let connected = async {
            while !peer.is_connected() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, connected).await.expect("driven from here");
        assert_eq!(peer.call(0, LONG, Request::Health).await, Ok(HEALTHY));
    });
    assert_eq!(server.metrics.connections_open.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn dropping_a_peer_closes_its_connections() {
    let network = MemoryNetwork::new();
    let server = Server::start(&network, "n1:1").await;
    let peer = peer(network, "n1:1");
    peer.call(0, LONG, Request::Health).await.expect("connected");
    drop(peer);
    while server.metrics.connections_open.load(Ordering::Relaxed) != 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn there_is_one_peer_per_address() {
    let options = PeerOptions::new(NodeId::new("client"));
    let peers = Peers::new(Arc::new(MemoryNetwork::new()), options);
    let first = peers.get("a:1");
    assert!(Arc::ptr_eq(&first, &peers.get("a:1")));
    assert!(!Arc::ptr_eq(&first, &peers.get("b:1")));
    peers.retain(|address| address == "b:1");
    assert!(!Arc::ptr_eq(&first, &peers.get("a:1")));
}
