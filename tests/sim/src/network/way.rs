//! One direction of one connection: bytes cut into frames, and frames on their way.
//!
//! ```text
//! writer ─► Cutter ─► fate ─► queue by time of arrival ─► reader
//! ```
//! Invariant: a frame arrives whole or not at all. At most [`FLIGHT_BYTES_MAX`] and one frame (each
//! perhaps twice) are on their way. Decides nothing: fates come from outside.

use std::{
    collections::BTreeMap,
    task::{Context, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tako_types::limits::{FRAME_BYTES_MAX, FRAME_HEAD_BYTES_MAX};
use tokio::{io::ReadBuf, time::Instant};

use crate::chance::Chance;

/// Bytes on their way above which a writer waits.
pub(super) const FLIGHT_BYTES_MAX: usize = 1 << 20;

/// Bytes of a frame's two lengths.
const PREFIX_BYTES: usize = 8;

/// Most bytes of a plain stream that travel as one piece.
const PLAIN_BYTES_MAX: usize = 64 << 10;

/// What the cutter makes of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A whole frame.
    Frame(Bytes),
    /// Bytes of a stream that carries no frames.
    Plain(Bytes),
}

/// Cuts a stream at the ends of its frames; one whose lengths make no sense is plain from there on.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    partial: BytesMut,
    plain: bool,
}

impl Cutter {
    /// Takes from the front of `bytes`, at most to the end of a frame.
    pub(super) fn take(&mut self, bytes: &mut &[u8]) -> Option<Piece> {
        if self.plain {
            let piece = bytes.len().min(PLAIN_BYTES_MAX);
            return Some(Piece::Plain(bytes.copy_to_bytes(piece)));
        }
        self.take_up_to(PREFIX_BYTES, bytes);
        let body = self.number_at(0)?;
        let head = self.number_at(4);
        let sane = body <= FRAME_BYTES_MAX
            && head.is_none_or(|head| (1..=body.min(FRAME_HEAD_BYTES_MAX)).contains(&head));
        if !sane {
            self.plain = true;
            return self.rest().map(Piece::Plain);
        }
        head?;
        self.take_up_to(PREFIX_BYTES + body, bytes);
        let whole = self.partial.len() == PREFIX_BYTES + body;
        whole.then(|| Piece::Frame(self.partial.split().freeze()))
    }

    /// Whether the stream carries no frames, as far as can be seen.
    pub(super) fn is_plain(&self) -> bool {
        self.plain
    }

    /// What was begun and not ended.
    pub(super) fn rest(&mut self) -> Option<Bytes> {
        (!self.partial.is_empty()).then(|| self.partial.split().freeze())
    }

    fn take_up_to(&mut self, length: usize, bytes: &mut &[u8]) {
        let missing = length.saturating_sub(self.partial.len()).min(bytes.len());
        self.partial.extend_from_slice(&bytes[..missing]);
        bytes.advance(missing);
    }

    fn number_at(&self, at: usize) -> Option<usize> {
        let bytes = self.partial.get(at..at + 4)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes) as usize)
    }
}

/// See the module.
pub(super) struct Way {
    pub(super) chance: Chance,
    pub(super) cutter: Cutter,
    /// By time of arrival, then by number.
    queue: BTreeMap<(Instant, u64), Bytes>,
    /// Bytes in the queue.
    bytes: usize,
    sent: u64,
    /// Latest arrival of what was sent so far.
    last: Instant,
    /// Bytes of a plain stream vanished: what follows never arrives, for it would arrive garbled.
    torn: bool,
    /// When the stream's end arrives, once the writer ended it.
    end_at: Option<Instant>,
    /// A frame that arrived and is read in part.
    current: Bytes,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Way {
    pub(super) fn new(chance: Chance, now: Instant) -> Self {
        Self {
            chance,
            cutter: Cutter::default(),
            queue: BTreeMap::new(),
            bytes: 0,
            sent: 0,
            last: now,
            torn: false,
            end_at: None,
            current: Bytes::new(),
            reader: None,
            writer: None,
        }
    }

    /// True while a writer must wait; a frame that is not whole yet does not count.
    pub(super) fn is_full(&self) -> bool {
        FLIGHT_BYTES_MAX <= self.bytes
    }

    pub(super) fn is_ended(&self) -> bool {
        self.end_at.is_some()
    }

    /// Sends one piece; true if it overtakes an earlier one.
    pub(super) fn send(&mut self, bytes: Bytes, at: Instant, in_order: bool) -> bool {
        let overtakes = at < self.last && !in_order;
        let at = if in_order { at.max(self.last) } else { at };
        self.last = self.last.max(at);
        self.put(bytes, at);
        overtakes
    }

    /// Sends a piece once more; what is sent later need not wait for it.
    pub(super) fn send_again(&mut self, bytes: Bytes, at: Instant) {
        self.put(bytes, at);
    }

    fn put(&mut self, bytes: Bytes, at: Instant) {
        if self.torn {
            return;
        }
        self.bytes += bytes.len();
        self.sent += 1;
        self.queue.insert((at, self.sent), bytes);
    }

    /// Ends the stream, after all that was sent; a frame that was begun arrives torn.
    pub(super) fn end(&mut self, now: Instant, delay: Duration) {
        if self.end_at.is_some() {
            return;
        }
        if let Some(torn) = self.cutter.rest() {
            self.send(torn, now + delay, true);
        }
        let last = self.queue.last_key_value().map_or(self.last, |((at, _), _)| *at);
        self.end_at = Some(last.max(self.last).max(now + delay));
    }

    /// Loses all that is on its way; how many pieces there were.
    pub(super) fn lose_all(&mut self) -> usize {
        self.bytes = 0;
        let lost = std::mem::take(&mut self.queue).len();
        if lost > 0 {
            self.lost_one();
        }
        lost
    }

    /// A piece vanished; a plain stream ends with it, and its reader is not told.
    pub(super) fn lost_one(&mut self) {
        self.torn |= self.cutter.is_plain();
    }

    /// Nobody reads or writes any more.
    pub(super) fn clear(&mut self) {
        self.lose_all();
        self.current = Bytes::new();
    }

    /// Reads what was begun, then whole pieces that have arrived, telling `arrived` their lengths;
    /// false if there was nothing. `None` for `now`: nothing arrives.
    pub(super) fn read(
        &mut self,
        now: Option<Instant>,
        into: &mut ReadBuf<'_>,
        mut arrived: impl FnMut(usize),
    ) -> bool {
        let before = into.filled().len();
        loop {
            let count = self.current.len().min(into.remaining());
            into.put_slice(&self.current.split_to(count));
            if into.remaining() == 0 {
                break;
            }
            let Some(((at, _), _)) = self.queue.first_key_value() else { break };
            if now.is_none_or(|now| now < *at) {
                break;
            }
            let Some((_, piece)) = self.queue.pop_first() else { break };
            self.bytes -= piece.len();
            arrived(piece.len());
            self.current = piece;
        }
        before < into.filled().len()
    }

    /// True once the end has arrived and all was read.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        !self.torn
            && self.queue.is_empty()
            && self.current.is_empty()
            && self.end_at.is_some_and(|end_at| end_at <= now)
    }

    /// When something arrives next.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let end_at = self.end_at.filter(|_| !self.torn);
        self.queue.first_key_value().map(|((at, _), _)| *at).or(end_at)
    }

    /// Keeps who waits to read.
    pub(super) fn keep_reader(&mut self, cx: &Context<'_>) {
        keep(&mut self.reader, cx);
    }

    /// Keeps who waits to write.
    pub(super) fn keep_writer(&mut self, cx: &Context<'_>) {
        keep(&mut self.writer, cx);
    }

    /// The reader, to be woken once the lock is free.
    pub(super) fn take_reader(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.reader.take());
    }

    /// The writer, to be woken once the lock is free.
    pub(super) fn take_writer(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.writer.take());
    }
}

fn keep(kept: &mut Option<Waker>, cx: &Context<'_>) {
    match kept {
        Some(kept) => kept.clone_from(cx.waker()),
        None => *kept = Some(cx.waker().clone()),
    }
}
