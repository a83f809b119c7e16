//! Claims about both networks, and about the faults of the one in memory.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{BoxStream, MemoryNetwork, Network, TcpNetwork};

/// A stream from `client` to `server`, both ends.
async fn pair(client: &dyn Network, server: &dyn Network, at: &str) -> (BoxStream, BoxStream) {
    let listener = server.listen(at).await.expect("free");
    let address = listener.address();
    let (near, far) = tokio::join!(client.connect(&address), listener.accept());
    (near.expect("listens"), far.expect("comes").0)
}

async fn echoes(near: &mut BoxStream, far: &mut BoxStream) {
    near.write_all(b"ping").await.expect("open");
    let mut bytes = [0; 4];
    far.read_exact(&mut bytes).await.expect("open");
    far.write_all(&bytes).await.expect("open");
    near.read_exact(&mut bytes).await.expect("open");
    assert_eq!(&bytes, b"ping");
}

#[tokio::test]
async fn bytes_go_both_ways_and_the_end_is_seen_on_both_networks() {
    let memory = MemoryNetwork::new();
    for (network, at) in [(&memory as &dyn Network, "a:0"), (&TcpNetwork, "127.0.0.1:0")] {
        let (mut near, mut far) = pair(network, network, at).await;
        echoes(&mut near, &mut far).await;
        near.shutdown().await.expect("open");
        assert_eq!(far.read(&mut [0; 1]).await.expect("an end"), 0);
    }
}

#[tokio::test]
async fn where_nobody_listens_any_more_is_refused_on_both_networks() {
    let memory = MemoryNetwork::new();
    for (network, at) in [(&memory as &dyn Network, "a:0"), (&TcpNetwork, "127.0.0.1:0")] {
        let listener = network.listen(at).await.expect("free");
        let address = listener.address();
        let twice = network.listen(&address).await.err().expect("taken");
        assert_eq!(twice.kind(), ErrorKind::AddrInUse);
        drop(listener);
        let error = network.connect(&address).await.err().expect("nobody");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_stalls_one_direction_until_it_is_healed() {
    let network = MemoryNetwork::new();
    let (a, b) = (network.as_host("a"), network.as_host("b"));
    let (mut near, mut far) = pair(&a, &b, "b:1").await;
    network.cut("a", "b");
    far.write_all(b"x").await.expect("this way is open");
    near.read_exact(&mut [0; 1]).await.expect("this way is open");
    let second = std::time::Duration::from_secs(1);
    let stalled = tokio::time::timeout(second, near.write_all(b"y")).await;
    assert!(stalled.is_err(), "bytes moved over a cut");
    let waiting = tokio::spawn(async move {
        near.write_all(b"y").await.expect("healed");
        near
    });
    network.heal("a", "b");
    far.read_exact(&mut [0; 1]).await.expect("healed");
    echoes(&mut waiting.await.expect("no panic"), &mut far).await;
}

#[tokio::test(start_paused = true)]
async fn connecting_waits_over_a_cut_in_either_direction() {
    let network = MemoryNetwork::new();
    let listener = network.as_host("b").listen("b:1").await.expect("free");
    for (from, to) in [("a", "b"), ("b", "a")] {
        network.cut(from, to);
        let a = network.as_host("a");
        let connecting = tokio::spawn(async move { a.connect("b:1").await.map(|_| ()) });
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(!connecting.is_finished());
        network.heal(from, to);
        connecting.await.expect("no panic").expect("healed");
        listener.accept().await.expect("came");
    }
}

#[tokio::test]
async fn dropped_connections_are_reset_at_both_ends_and_new_ones_open() {
    let network = MemoryNetwork::new();
    let (a, b) = (network.as_host("a"), network.as_host("b"));
    let (mut near, mut far) = pair(&a, &b, "b:1").await;
    let reading = tokio::spawn(async move { far.read(&mut [0; 1]).await });
    tokio::task::yield_now().await;
    network.drop_connections("b");
    let error = reading.await.expect("no panic").expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(near.write_all(b"x").await.is_err());
    let (mut near, mut far) = pair(&a, &b, "b:2").await;
    network.drop_connections_between("a", "c");
    echoes(&mut near, &mut far).await;
}

#[tokio::test]
async fn a_refusing_host_refuses_until_told_otherwise() {
    let network = MemoryNetwork::new();
    let _listener = network.listen("b:1").await.expect("free");
    network.set_refusing("b", true);
    let error = network.connect("b:1").await.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    network.set_refusing("b", false);
    network.connect("b:1").await.expect("taken");
}
