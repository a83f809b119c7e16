//! Claims about frames over streams: cut anywhere, whole again; bounded; late.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncWriteExt, duplex},
    sync::Semaphore,
};

use super::{FrameReader, Outbox, Outgoing, PushError, ReadEnd, write_frames};
use crate::{RpcMetrics, frame::Frame};

const LONG: Duration = Duration::from_secs(60);

fn frame(head: usize, attachments: &[usize]) -> Frame {
    let attachments = attachments.iter().map(|bytes| Bytes::from(vec![2; *bytes])).collect();
    Frame { head: Bytes::from(vec![1; head]), attachments }
}

fn outgoing(id: u64, frame: Frame) -> Outgoing {
    Outgoing { id, frame, permit: None }
}

#[tokio::test]
async fn frames_of_all_sizes_arrive_in_order_through_a_narrow_pipe() {
    for pipe in [1, 7, 1 << 10, 1 << 20] {
        let sizes =
            [(1, vec![]), (100, vec![0]), (9_000, vec![1, 70_000]), (8_192, vec![8_193; 3])];
        let (near, far) = duplex(pipe);
        let outbox = Outbox::new(usize::MAX);
        for (id, (head, attachments)) in (0..).zip(&sizes) {
            outbox.push(outgoing(id, frame(*head, attachments))).expect("room");
        }
        outbox.close();
        let metrics = RpcMetrics::default();
        let writing = write_frames(&outbox, near, LONG, &metrics);
        let reading = async {
            let mut reader = FrameReader::new(far, None, LONG);
            for (head, attachments) in &sizes {
                let received = reader.next(LONG).await.expect("a frame").frame;
                assert_eq!(received.head, vec![1; *head]);
                let attached: usize = attachments.iter().sum();
                assert_eq!(received.prefix().body_bytes, head + attached);
                assert!(received.attachments.iter().flatten().all(|byte| *byte == 2));
            }
            assert!(matches!(reader.next(LONG).await, Err(ReadEnd::Finished)));
        };
        let (wrote, ()) = tokio::join!(writing, reading);
        wrote.expect("open");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_waits_for_the_budget_and_no_longer_than_its_deadline() {
    let (mut near, far) = duplex(1 << 10);
    let budget = Arc::new(Semaphore::new(100));
    let mut reader = FrameReader::new(far, Some(Arc::clone(&budget)), Duration::from_secs(30));
    let bytes = [&[60, 0, 0, 0, 60, 0, 0, 0][..], &[1; 60]].concat();
    near.write_all(&[bytes.clone(), bytes].concat()).await.expect("open");
    let first = reader.next(LONG).await.expect("there is room");
    assert_eq!(budget.available_permits(), 40);
    let waiting = tokio::spawn(async move { (reader.next(LONG).await.map(|_| ()), reader) });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(first);
    let (second, mut reader) = waiting.await.expect("no panic");
    second.expect("room again");
    budget.forget_permits(100);
    near.write_all(&[[60, 0, 0, 0, 60, 0, 0, 0]].concat()).await.expect("open");
    assert!(matches!(reader.next(LONG).await, Err(ReadEnd::Torn)));
}

#[tokio::test]
async fn a_full_outbox_takes_no_more_until_something_is_forgotten() {
    let outbox = Outbox::new(100);
    outbox.push(outgoing(1, frame(200, &[]))).expect("one alone always fits");
    assert_eq!(outbox.push(outgoing(2, frame(1, &[]))), Err(PushError::Full));
    outbox.forget(1);
    outbox.push(outgoing(3, frame(1, &[]))).expect("room");
    outbox.abandon();
    assert_eq!(outbox.push(outgoing(4, frame(1, &[]))), Err(PushError::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_does_not_move_times_out() {
    let (near, _far) = duplex(10);
    let outbox = Outbox::new(1 << 20);
    outbox.push(outgoing(1, frame(100, &[]))).expect("room");
    let metrics = RpcMetrics::default();
    let error = write_frames(&outbox, near, LONG, &metrics).await.expect_err("nobody reads");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}
