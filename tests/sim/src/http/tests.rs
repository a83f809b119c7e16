//! A client and the network between: reuse, cuts, resets, processes that are down.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    chance::Chance,
    counts::FaultCounts,
    network::{CutKind, SimNetwork},
};

const PATIENCE: Duration = Duration::from_secs(5);

fn network() -> SimNetwork {
    SimNetwork::new(&Chance::new(1), &FaultCounts::default())
}

/// Answers every request on every connection.
async fn serve(network: SimNetwork) {
    let listener = network.as_host("n1", 1).listen(&door::address("n1")).await.expect("free");
    loop {
        let (mut stream, _) = listener.accept().await.expect("open");
        tokio::spawn(async move {
            let (mut head, mut bytes) = (Vec::new(), [0; 100]);
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                head.extend_from_slice(&bytes[..count]);
                if head.ends_with(b"\r\n\r\n") {
                    head.clear();
                    let _gone =
                        stream.write_all(b"HTTP/1.1 404 -\r\ncontent-length: 0\r\n\r\n").await;
                }
            }
        });
    }
}

fn get() -> Request<Full<Bytes>> {
    Request::get("/values/k").header("host", "n1").body(Full::default()).expect("a request")
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_until_it_is_ended() {
    let network = network();
    tokio::spawn(serve(network.clone()));
    let mut client = HttpClient::new(network.as_host("c1", 1));
    for kept in [false, true, true] {
        let answer = client.ask("n1", get(), PATIENCE).await.expect("an answer");
        assert_eq!((answer.status, answer.on_kept), (404, kept));
    }
    client.hang_up();
    assert!(!client.ask("n1", get(), PATIENCE).await.expect("an answer").on_kept);
    network.reset_between("c1", "n1");
    let answer = client.ask("n1", get(), PATIENCE).await;
    assert!(!answer.is_ok_and(|answer| answer.on_kept), "of a connection that was reset");
}

#[tokio::test(start_paused = true)]
async fn what_is_cut_off_ends_by_time_out_and_was_perhaps_sent() {
    for kind in [CutKind::Stall, CutKind::Vanish] {
        let network = network();
        tokio::spawn(serve(network.clone()));
        let mut client = HttpClient::new(network.as_host("c1", 1));
        client.ask("n1", get(), PATIENCE).await.expect("an answer");
        network.cut_both("c1", "n1", kind);
        let began = Instant::now();
        let none = client.ask("n1", get(), PATIENCE).await.expect_err("no answer");
        assert_eq!((none, began.elapsed()), (NoAnswer::Lost, PATIENCE), "{kind:?}");
        let none = client.ask("n1", get(), PATIENCE).await.expect_err("no connection");
        assert_eq!(none, NoAnswer::NotSent);
        network.heal_all();
        assert!(!client.ask("n1", get(), PATIENCE).await.expect("an answer").on_kept);
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_down_is_not_sent_anything() {
    let network = network();
    let mut client = HttpClient::new(network.as_host("c1", 1));
    let none = client.ask("n1", get(), PATIENCE).await.expect_err("nobody listens");
    assert_eq!(none, NoAnswer::NotSent);
}
