//! Entries for fuzzers: every decoder of outside bytes, with what must hold of anything it takes.
//!
//! The ordinary tests call these with seeded bytes, a libFuzzer target with its own. A panic is a
//! finding.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use tako_types::{
    Version,
    limits::{DOTS_MAX, SIBLINGS_MAX},
    merge_order,
};
use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    Record, Siblings, StoreOrder,
    frame::{self, PREFIX_BYTES},
    merge, merge_encoded,
    message::{decode_request, decode_response, encode_request, encode_response},
    stream::{FrameReader, ReadEnd},
};

/// What a decoded frame may take when encoded, in bytes: a node's name of 255 bytes can be shared
/// by all entries of a list.
const GROWTH_MAX: usize = 64;
const HEAD_BYTES_USUAL: usize = 4 << 10;
/// Frames up to here encode again after decoding; longer ones may meet a limit.
const SMALL_BYTES: usize = 64 << 10;

/// One frame, read as a request and as an answer; what is taken must encode again and read back.
///
/// # Panics
/// When that does not hold.
pub fn frame(bytes: &[u8]) {
    let Ok(received) = frame::parse(&Bytes::copy_from_slice(bytes)) else { return };
    assert_eq!(joined(&received).wire_bytes(), bytes.len());
    if let Ok((call, Ok(request))) = decode_request(&received) {
        match encode_request(&call, &request) {
            Ok(again) => {
                bounded(bytes, &again);
                let (call_again, request_again) =
                    decode_request(&joined(&again)).expect("encoded here");
                assert_eq!(call_again, call);
                assert_eq!(request_again, Ok(request));
            }
            Err(error) => assert!(SMALL_BYTES < bytes.len(), "does not encode: {error}"),
        }
    }
    if let Ok((id, Ok(answer))) = decode_response(&received) {
        match encode_response(id, &answer) {
            Ok(again) => {
                bounded(bytes, &again);
                let (id_again, answer_again) =
                    decode_response(&joined(&again)).expect("encoded here");
                assert_eq!(id_again, id);
                assert_eq!(answer_again, Ok(answer));
            }
            Err(error) => assert!(SMALL_BYTES < bytes.len(), "does not encode: {error}"),
        }
    }
}

/// What was decoded takes no more memory than a small multiple of what came.
fn bounded(bytes: &[u8], again: &frame::Frame) {
    let limit = HEAD_BYTES_USUAL + GROWTH_MAX * bytes.len();
    assert!(again.wire_bytes() <= limit, "{} bytes out of {}", again.wire_bytes(), bytes.len());
}

/// A stream of frames, however it is cut into pieces: the frames are those that its lengths say, and
/// its end is told apart from a torn frame. The first byte says how it is cut.
///
/// # Panics
/// When that does not hold.
pub fn stream(bytes: &[u8]) {
    let Some((piece, mut rest)) = bytes.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    let mut reader = FrameReader::new(Pieces { rest, piece }, None, Duration::from_secs(1));
    loop {
        // Nothing waits: the pieces are there. Time-outs want a runtime, which `ready` has.
        let next = ready(reader.next(Duration::from_secs(1)));
        match next {
            Ok(received) => {
                let length = PREFIX_BYTES + received.frame.prefix().body_bytes;
                assert!(length <= rest.len(), "a frame beyond the stream");
                let (expected, after) = rest.split_at(length);
                let same = frame::parse(&Bytes::copy_from_slice(expected)).expect("the same frame");
                assert_eq!(received.frame.head, same.head);
                assert_eq!(received.frame.attachments, same.attachments);
                rest = after;
            }
            Err(ReadEnd::Finished) => return assert!(rest.is_empty(), "frames passed over"),
            Err(ReadEnd::Torn) => {
                let whole = frame::parse(&Bytes::copy_from_slice(rest));
                return assert!(whole.is_err() && !rest.is_empty(), "a whole frame called torn");
            }
            Err(ReadEnd::Bad(error)) => {
                let whole = frame::parse(&Bytes::copy_from_slice(rest));
                let told = whole.expect_err("a sound frame called bad");
                return assert!(PREFIX_BYTES <= rest.len() && told == error, "{told} for {error}");
            }
            Err(end) => unreachable!("nothing waits or fails here: {end:?}"),
        }
    }
}

/// Bytes that come in pieces of one length.
struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.piece.min(self.rest.len()).min(out.remaining());
        let (now, later) = self.rest.split_at(length);
        out.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

/// The outcome of what does not wait.
fn ready<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime without threads or files");
    }
    RUNTIME.with(|runtime| {
        let _within = runtime.enter();
        future.now_or_never().expect("nothing to wait for")
    })
}

/// One record, also with its checksum put right; what is taken must encode again with the same
/// checksum.
///
/// # Panics
/// When that does not hold.
pub fn record(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let trusted = Record::decode_trusted(bytes.clone());
    if let Ok(record) = Record::decode(bytes.clone()) {
        assert!(trusted.as_ref().is_ok_and(|it| *it == record));
        let again = encoded(&record);
        assert_eq!(again.crc(), record.crc());
        let kept = merge_encoded(again.bytes().clone(), bytes.clone());
        assert_eq!(kept, merge_encoded(bytes.clone(), again.bytes().clone()));
    }
    if let Ok(record) = trusted {
        assert_eq!(*record.detached().bytes(), bytes);
        let again = encoded(&record);
        let read = Record::decode(again.bytes().clone()).expect("encoded here");
        assert!(read == again && read.head() == record.head() && read.key() == record.key());
        assert_eq!((read.value(), read.content_type()), (record.value(), record.content_type()));
        // The checksum speaks of every field: none other fits this content.
        assert_eq!(Record::decode(bytes).is_ok(), record.crc() == read.crc());
        assert!(!record.is_live_at(u64::MAX) || record.head().expires_at_micros == 0);
    }
}

/// What the values of `/store` hold, and an order to change them; what is taken must encode again and
/// read back, and takes no more memory than a small multiple of what came.
///
/// # Panics
/// When that does not hold.
pub fn siblings(bytes: &[u8]) {
    let came = Bytes::copy_from_slice(bytes);
    let limit = HEAD_BYTES_USUAL + GROWTH_MAX * bytes.len();
    if let Ok(siblings) = Siblings::decode(&came) {
        let again = siblings.encode();
        assert!(again.len() <= limit, "{} bytes out of {}", again.len(), bytes.len());
        assert_eq!(Siblings::decode(&again).as_ref(), Ok(&siblings));
        assert!(siblings.0.len() <= SIBLINGS_MAX);
    }
    if let Ok(order) = StoreOrder::decode(&came) {
        let again = order.encode();
        assert!(again.len() <= limit, "{} bytes out of {}", again.len(), bytes.len());
        assert_eq!(StoreOrder::decode(&again).as_ref(), Ok(&order));
        assert!(order.seen.dots.len() <= DOTS_MAX);
        let newer = Version { micros: u64::MAX, origin: u64::MAX };
        assert!(order.seen.with(newer).covers(newer));
    }
}

fn encoded(record: &Record) -> Record {
    Record::encode(&record.key(), *record.head(), record.content_type(), &record.value())
}

/// Operands of a merge, sound or not, cut out of the bytes at the places that the first two say:
/// the merge is commutative, associative and idempotent, and keeps the newest sound one.
///
/// # Panics
/// When that does not hold.
pub fn operands(bytes: &[u8]) {
    let [first, second, rest @ ..] = bytes else { return };
    let rest = Bytes::copy_from_slice(rest);
    let a_end = usize::from(*first) * 4 % (rest.len() + 1);
    let b_end = a_end + usize::from(*second) * 4 % (rest.len() - a_end + 1);
    let (a, b, c) = (rest.slice(..a_end), rest.slice(a_end..b_end), rest.slice(b_end..));
    three(&a, &b, &c);
    // The same three as records, and one that is damaged.
    let sound = |bytes: &Bytes| Record::decode_trusted(bytes.clone()).ok().map(|it| encoded(&it));
    if let (Some(a), Some(b)) = (sound(&a), sound(&b)) {
        three(a.bytes(), b.bytes(), &c);
        let kept = merge(a.clone(), b.clone());
        assert_eq!(kept, merge(b.clone(), a.clone()));
        assert_eq!(*kept.bytes(), merge_encoded(a.bytes().clone(), b.bytes().clone()));
        let order = |one: &Record, other: &Record| {
            let place = |it: &Record| (it.version(), it.kind(), it.bytes().clone());
            let ((v, k, bytes), (w, l, others)) = (place(one), place(other));
            merge_order((v, k, &bytes), (w, l, &others))
        };
        assert!(order(&kept, &a).is_ge() && order(&kept, &b).is_ge());
        assert!(kept.version() == a.version().max(b.version()));
    }
}

fn three(a: &Bytes, b: &Bytes, c: &Bytes) {
    let merged = |x: &Bytes, y: &Bytes| merge_encoded(x.clone(), y.clone());
    let ab = merged(a, b);
    assert!(ab == *a || ab == *b, "a third one");
    assert_eq!(ab, merged(b, a), "commutative");
    assert_eq!(merged(&ab, c), merged(a, &merged(b, c)), "associative");
    assert_eq!(merged(&ab, a), ab, "idempotent");
    let is_sound = |bytes: &Bytes| Record::decode(bytes.clone()).is_ok();
    assert_eq!(is_sound(&ab), is_sound(a) || is_sound(b), "a sound one is kept");
}

/// A frame to be sent as it would be received.
fn joined(frame: &frame::Frame) -> frame::Frame {
    let body: Vec<u8> =
        std::iter::once(&frame.head).chain(&frame.attachments).flatten().copied().collect();
    frame::Frame::received(frame.prefix(), Bytes::from(body))
}
