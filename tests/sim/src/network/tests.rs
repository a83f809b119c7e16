//! Claims about the simulated network, on raw frames and under the real RPC.

mod rpc;

use std::io::ErrorKind;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn network(seed: u64) -> (SimNetwork, FaultCounts) {
    let counts = FaultCounts::default();
    (SimNetwork::new(&Chance::new(seed), &counts), counts)
}

fn slow(reorder: bool) -> LinkFaults {
    let latency_most = Duration::from_millis(200);
    LinkFaults { latency_most, reorder, ..LinkFaults::quiet() }
}

/// A stream from `a` to `b`, both ends, and what keeps `b` listening.
async fn pair(network: &SimNetwork) -> (BoxStream, BoxStream, Box<dyn Listener>) {
    let listener = network.as_host("b", 1).listen("b:1").await.expect("free");
    let a = network.as_host("a", 1);
    let (near, far) = tokio::join!(a.connect("b:1"), listener.accept());
    (near.expect("listens"), far.expect("comes").0, listener)
}

/// A frame that carries its number, of this many further bytes.
fn frame(number: u32, more: usize) -> Vec<u8> {
    let body = u32::try_from(4 + more).expect("short");
    let mut bytes = [body.to_le_bytes(), 4_u32.to_le_bytes(), number.to_le_bytes()].concat();
    bytes.resize(12 + more, number as u8);
    bytes
}

/// The number of the next frame, which must be whole; `None` if none comes within ten seconds.
async fn next(stream: &mut BoxStream) -> Option<u32> {
    let first = timeout(10 * SECOND, stream.read_u32_le()).await.ok()?;
    let body = first.expect("open") as usize;
    assert_eq!(stream.read_u32_le().await.expect("whole"), 4);
    let number = stream.read_u32_le().await.expect("whole");
    let mut more = vec![0; body - 4];
    stream.read_exact(&mut more).await.expect("whole");
    assert!(more.iter().all(|byte| *byte == number as u8), "frames are mixed");
    Some(number)
}

async fn all(stream: &mut BoxStream) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(number) = next(stream).await {
        numbers.push(number);
    }
    numbers
}

async fn send(stream: &mut BoxStream, numbers: std::ops::Range<u32>) {
    for number in numbers {
        stream.write_all(&frame(number, number as usize)).await.expect("open");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_arrive_whole_in_order_or_not_as_the_link_says() {
    for reorder in [false, true] {
        let (network, counts) = network(1);
        network.set_faults(slow(reorder));
        let (mut near, mut far, _listening) = pair(&network).await;
        let start = Instant::now();
        send(&mut near, 0..100).await;
        let mut numbers = all(&mut far).await;
        assert!(Duration::from_millis(1) <= start.elapsed());
        assert_eq!(numbers.is_sorted(), !reorder);
        assert_eq!(counts.all().contains_key("frame overtook another"), reorder);
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_frame_is_lost_and_the_next_arrives() {
    let (network, counts) = network(2);
    let (mut near, mut far, _listening) = pair(&network).await;
    network.set_link_faults("a", "b", Some(LinkFaults { lose: 1.0, ..LinkFaults::quiet() }));
    send(&mut near, 0..3).await;
    network.set_link_faults("a", "b", None);
    send(&mut near, 3..5).await;
    assert_eq!(all(&mut far).await, [3, 4]);
    assert_eq!(counts.all()["frame lost"], 3);
    send(&mut far, 7..8).await;
    assert_eq!(next(&mut near).await, Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_duplicated_frame_arrives_twice_at_different_times() {
    let (network, counts) = network(3);
    network.set_faults(LinkFaults { duplicate: 1.0, ..slow(true) });
    let (mut near, mut far, _listening) = pair(&network).await;
    send(&mut near, 9..10).await;
    assert_eq!(next(&mut far).await, Some(9));
    let first = Instant::now();
    assert_eq!(next(&mut far).await, Some(9));
    assert!(first < Instant::now());
    assert_eq!(next(&mut far).await, None);
    assert_eq!(counts.all()["frame duplicated"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_reset_breaks_both_ends_and_a_new_stream_opens() {
    let (network, counts) = network(4);
    let (mut near, mut far, listener) = pair(&network).await;
    network.set_faults(LinkFaults { reset: 1.0, ..LinkFaults::quiet() });
    near.write_all(&frame(1, 0)).await.expect("known only afterwards");
    assert_eq!(far.read_u8().await.expect_err("reset").kind(), ErrorKind::ConnectionReset);
    assert_eq!(near.read_u8().await.expect_err("reset").kind(), ErrorKind::ConnectionReset);
    assert!(near.write_all(&frame(1, 0)).await.is_err());
    assert_eq!(counts.all()["connection reset"], 1);
    network.set_faults(LinkFaults::quiet());
    let a = network.as_host("a", 1);
    let (near, far) = tokio::join!(a.connect("b:1"), listener.accept());
    send(&mut near.expect("listens"), 5..6).await;
    assert_eq!(next(&mut far.expect("comes").0).await, Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_one_way_cut_stops_one_way_and_frames_vanish_or_stall() {
    for (kind, after) in [(CutKind::Vanish, vec![3]), (CutKind::Stall, vec![1, 2, 3])] {
        let (network, _) = network(5);
        let (mut near, mut far, _listening) = pair(&network).await;
        send(&mut near, 1..2).await;
        network.cut("a", "b", kind);
        send(&mut near, 2..3).await;
        assert_eq!(next(&mut far).await, None, "a frame crossed the cut");
        send(&mut far, 8..9).await;
        assert_eq!(next(&mut near).await, Some(8));
        network.heal("a", "b");
        send(&mut near, 3..4).await;
        assert_eq!(all(&mut far).await, after, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn connecting_over_a_cut_hangs_until_it_is_healed_or_times_out_if_told_to() {
    let (network, counts) = network(6);
    let listener = network.as_host("b", 1).listen("b:1").await.expect("free");
    let a = network.as_host("a", 1);
    network.cut("b", "a", CutKind::Vanish);
    assert!(timeout(60 * SECOND, a.connect("b:1")).await.is_err());
    let connecting = tokio::spawn({
        let a = a.clone();
        async move { a.connect("b:1").await.map(|_| ()) }
    });
    tokio::time::sleep(SECOND).await;
    network.set_connect_max(Some(SECOND));
    let late = a.connect("b:1").await.err().expect("late");
    assert_eq!(late.kind(), ErrorKind::TimedOut);
    network.heal_all();
    connecting.await.expect("no panic").expect("healed");
    listener.accept().await.expect("came");
    assert_eq!(counts.all()["connect met a cut"], 3);
    network.set_refusing("b", true);
    let refused = a.connect("b:1").await.err().expect("refused");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_life_has_no_effect_and_the_next_listens_at_the_same_address() {
    let (network, _) = network(7);
    let (mut near, mut far, old_listener) = pair(&network).await;
    let old = network.as_host("b", 1);
    // Half a frame was written when the host crashed.
    far.write_all(&frame(1, 50)[..30]).await.expect("open");
    network.crash("b");
    let reset = near.read_u8().await.expect_err("reset");
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    assert_eq!(far.read(&mut [0]).await.expect("an end"), 0);
    assert!(far.write_all(b"x").await.is_err());
    assert!(old.connect("b:1").await.is_err());
    assert!(old.listen("b:2").await.is_err());
    assert!(network.as_host("b", 1).listen("b:1").await.is_err());
    let a = network.as_host("a", 1);
    let nobody = a.connect("b:1").await.err().expect("nobody");
    assert_eq!(nobody.kind(), ErrorKind::ConnectionRefused);

    let listener = network.as_host("b", 2).listen("b:1").await.expect("free at once");
    let (near, far) = tokio::join!(a.connect("b:1"), listener.accept());
    send(&mut near.expect("listens"), 6..7).await;
    assert_eq!(next(&mut far.expect("comes").0).await, Some(6));
    assert!(timeout(SECOND, old_listener.accept()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_crash_behind_a_cut_is_heard_of_after_the_heal() {
    let (network, _) = network(8);
    let (mut near, _far, _listener) = pair(&network).await;
    network.cut_both("a", "b", CutKind::Stall);
    network.crash("b");
    assert!(timeout(60 * SECOND, near.read_u8()).await.is_err(), "a reset crossed the cut");
    send(&mut near, 0..1).await;
    network.heal_both("a", "b");
    assert_eq!(near.read_u8().await.expect_err("reset").kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_plain_stream_is_late_but_whole_and_in_order_and_ends() {
    let (network, counts) = network(9);
    network.set_faults(slow(true));
    let (mut near, mut far, _listening) = pair(&network).await;
    let rates = LinkFaults { lose: 1.0, duplicate: 1.0, ..slow(true) };
    network.set_faults(rates);
    for word in ["GET / ", "HTTP/1.1", "\r\n", "\r\n"] {
        near.write_all(word.as_bytes()).await.expect("open");
    }
    near.shutdown().await.expect("open");
    let mut text = String::new();
    far.read_to_string(&mut text).await.expect("whole");
    assert_eq!(text, "GET / HTTP/1.1\r\n\r\n");
    assert!(counts.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_plain_stream_waits_over_a_stalling_cut_and_goes_on() {
    let (network, _) = network(13);
    let (mut near, mut far, _listening) = pair(&network).await;
    network.cut("a", "b", CutKind::Stall);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("open");
    let mut head = [0; 18];
    assert!(timeout(SECOND, far.read_exact(&mut head)).await.is_err(), "it came over the cut");
    network.heal("a", "b");
    far.read_exact(&mut head).await.expect("healed");
    assert_eq!(&head, b"GET / HTTP/1.1\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn after_bytes_that_vanished_nothing_more_of_a_plain_stream_arrives() {
    let (network, _) = network(14);
    let (mut near, mut far, _listening) = pair(&network).await;
    near.write_all(b"GET / HTTP").await.expect("open");
    let mut some = [0; 10];
    far.read_exact(&mut some).await.expect("open");
    near.write_all(b"/1.1\r\n").await.expect("open");
    network.cut("a", "b", CutKind::Vanish);
    near.write_all(b"\r\n").await.expect("nobody knows yet");
    network.heal("a", "b");
    near.write_all(b"more").await.expect("nobody knows yet");
    near.shutdown().await.expect("nobody knows yet");
    let read = timeout(SECOND, far.read(&mut some)).await;
    assert!(read.is_err(), "{read:?} of a stream with a hole");
    far.write_all(b"HTTP/1.1 200 OK").await.expect("the other way is whole");
    near.read_exact(&mut some).await.expect("the other way is whole");
}

#[tokio::test(start_paused = true)]
async fn a_plain_stream_is_reset_like_any() {
    let (network, counts) = network(15);
    let (mut near, mut far, _listening) = pair(&network).await;
    network.set_faults(LinkFaults { reset: 1.0, ..LinkFaults::quiet() });
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written, then reset");
    let error = far.read(&mut [0; 1]).await.expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(counts.all().contains_key("connection reset"));
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_when_too_much_is_on_its_way_but_one_great_frame_passes() {
    let (network, _) = network(10);
    let (mut near, mut far, _listening) = pair(&network).await;
    let great = 32 << 20;
    near.write_all(&frame(1, great)).await.expect("open");
    let waiting = timeout(SECOND, near.write_all(&frame(2, 0))).await;
    assert!(waiting.is_err(), "more is on its way than may be");
    let second = frame(2, 0);
    let (wrote, read) = tokio::join!(near.write_all(&second), next(&mut far));
    wrote.expect("room again");
    assert_eq!(read, Some(1));
    assert_eq!(next(&mut far).await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_waits_over_a_stalling_cut_hears_of_the_reset_after_the_heal() {
    let (network, _) = network(11);
    let (mut near, _far, _listening) = pair(&network).await;
    network.cut_both("a", "b", CutKind::Stall);
    near.write_all(&frame(1, 2 << 20)).await.expect("open");
    network.reset_between("a", "b");
    assert!(timeout(SECOND, near.write_all(&frame(2, 0))).await.is_err());
    let healing = async {
        tokio::time::sleep(SECOND).await;
        network.heal_all();
    };
    let second = frame(2, 0);
    let (wrote, ()) = tokio::join!(near.write_all(&second), healing);
    assert_eq!(wrote.expect_err("reset").kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_end_ends_the_others_reads_after_what_was_sent_and_fails_its_writes() {
    let (network, _) = network(12);
    network.set_faults(slow(true));
    let (mut near, mut far, _listening) = pair(&network).await;
    send(&mut near, 0..20).await;
    drop(near);
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).await.expect("an end");
    assert_eq!(bytes.len(), (0..20).map(|number| frame(0, number).len()).sum::<usize>());
    tokio::time::sleep(SECOND).await;
    assert!(far.write_all(&frame(1, 0)).await.is_err());
    drop(far);
    assert_eq!(network.0.state.lock().connections_open(), 0);
}
