//! Frames waiting to be written, and the loop that writes them.
//!
//! Many push, one writes: whatever gathered while the last write ran goes out as one write.
//! Invariant: no more than `bytes_max` wait, save one frame alone; bytes count until written.

use std::{collections::VecDeque, io, io::IoSlice, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{Notify, OwnedSemaphorePermit},
    time::timeout,
};

use crate::{
    frame::Frame,
    metrics::{RpcMetrics, add},
};

/// Pieces up to this are copied together; greater ones are written from where they are.
const COPY_BYTES_MAX: usize = 8 << 10;

/// One write gathers about this much.
const BATCH_BYTES: usize = 512 << 10;

/// A frame and what is freed once it is written.
pub(crate) struct Outgoing {
    pub(crate) id: u64,
    pub(crate) frame: Frame,
    #[expect(dead_code, reason = "held, not read")]
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushError {
    Full,
    Closed,
}

/// The queue.
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    bytes_max: usize,
    /// Something to write, or closed.
    filled: Notify,
    /// Something was written.
    drained: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Outgoing>,
    /// Queued and being written.
    bytes: usize,
    closed: bool,
}

impl Outbox {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let queue = Mutex::new(Queue::default());
        Self { queue, bytes_max, filled: Notify::new(), drained: Notify::new() }
    }

    /// Queues a frame if there is room.
    pub(crate) fn push(&self, outgoing: Outgoing) -> Result<(), PushError> {
        self.push_within(outgoing, self.bytes_max)
    }

    /// Queues a frame in any case; the caller bounds how many it holds.
    pub(crate) fn push_answer(&self, outgoing: Outgoing) -> Result<(), PushError> {
        self.push_within(outgoing, usize::MAX)
    }

    fn push_within(&self, outgoing: Outgoing, bytes_max: usize) -> Result<(), PushError> {
        let bytes = outgoing.frame.wire_bytes();
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(PushError::Closed);
        }
        if queue.bytes != 0 && bytes_max < queue.bytes.saturating_add(bytes) {
            return Err(PushError::Full);
        }
        let was_empty = queue.frames.is_empty();
        queue.bytes += bytes;
        queue.frames.push_back(outgoing);
        drop(queue);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes a frame back that nobody waits for any more, if it still waits.
    pub(crate) fn forget(&self, id: u64) {
        let mut queue = self.queue.lock();
        if let Some(index) = queue.frames.iter().position(|outgoing| outgoing.id == id)
            && let Some(outgoing) = queue.frames.remove(index)
        {
            queue.bytes -= outgoing.frame.wire_bytes();
        }
    }

    /// Waits until no more than `bytes_max` wait to be written.
    pub(crate) async fn has_room(&self) {
        loop {
            let mut drained = std::pin::pin!(self.drained.notified());
            drained.as_mut().enable();
            if self.queue.lock().bytes <= self.bytes_max {
                return;
            }
            drained.await;
        }
    }

    /// Takes no more; what waits is still written.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.filled.notify_one();
    }

    /// Takes no more and drops what waits.
    pub(crate) fn abandon(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        let frames = std::mem::take(&mut queue.frames);
        drop(queue);
        drop(frames);
        self.filled.notify_one();
    }

    /// The next frames to write together; `None` when closed and empty.
    async fn take(&self) -> Option<Vec<Outgoing>> {
        loop {
            {
                let mut queue = self.queue.lock();
                let mut bytes = 0;
                let mut batch = Vec::new();
                while bytes < BATCH_BYTES
                    && let Some(outgoing) = queue.frames.pop_front()
                {
                    bytes += outgoing.frame.wire_bytes();
                    batch.push(outgoing);
                }
                if !batch.is_empty() {
                    return Some(batch);
                }
                if queue.closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    fn written(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.bytes = queue.bytes.saturating_sub(bytes);
        drop(queue);
        self.drained.notify_waiters();
    }
}

/// Writes frames until the outbox is closed and empty, then ends the stream's outward half.
///
/// # Errors
/// As the stream says; `TimedOut` when it takes no byte for `stall_max`.
pub(crate) async fn write_frames<W: AsyncWrite + Unpin>(
    outbox: &Outbox,
    mut stream: W,
    stall_max: Duration,
    metrics: &RpcMetrics,
) -> io::Result<()> {
    while let Some(batch) = outbox.take().await {
        let frames = batch.len();
        let mut pieces = Pieces::of(&batch);
        let bytes = pieces.remaining();
        while pieces.has_remaining() {
            match timeout(stall_max, stream.write_buf(&mut pieces)).await {
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(Ok(_)) => add(&metrics.writes, 1),
            }
        }
        timeout(stall_max, stream.flush()).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
        add(&metrics.frames_sent, frames as u64);
        add(&metrics.bytes_sent, bytes as u64);
        drop(batch);
        outbox.written(bytes);
    }
    timeout(stall_max, stream.shutdown()).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Many pieces as one buffer, written with one vectored write where the stream can.
struct Pieces {
    pieces: VecDeque<Bytes>,
    remaining: usize,
}

impl Pieces {
    fn of(batch: &[Outgoing]) -> Self {
        let mut pieces = VecDeque::new();
        let mut small = BytesMut::new();
        let mut remaining = 0;
        for Outgoing { frame, .. } in batch {
            remaining += frame.wire_bytes();
            small.extend_from_slice(&frame.prefix_bytes());
            for piece in std::iter::once(&frame.head).chain(&frame.attachments) {
                if piece.len() <= COPY_BYTES_MAX {
                    small.extend_from_slice(piece);
                } else {
                    if !small.is_empty() {
                        pieces.push_back(small.split().freeze());
                    }
                    pieces.push_back(piece.clone());
                }
            }
        }
        if !small.is_empty() {
            pieces.push_back(small.freeze());
        }
        Self { pieces, remaining }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slot, piece) in into.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "cannot advance past the end");
        self.remaining -= count;
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
    }
}
