//! Entries for fuzzers: every decoder of outside bytes, with what must hold of anything it takes.
//!
//! The ordinary tests call these with seeded bytes, a libFuzzer target with its own. A panic is a
//! finding.

use bytes::Bytes;

use crate::{
    Record, frame, merge_encoded,
    message::{decode_request, decode_response, encode_request, encode_response},
};

/// One frame, read as a request and as an answer; what is taken must encode again and read back.
pub fn frame(bytes: &[u8]) {
    let Ok(received) = frame::parse(&Bytes::copy_from_slice(bytes)) else { return };
    if let Ok((call, Ok(request))) = decode_request(&received)
        && let Ok(again) = encode_request(&call, &request)
    {
        let (call_again, request_again) = decode_request(&joined(&again)).expect("encoded here");
        assert_eq!(call_again, call);
        assert_eq!(request_again, Ok(request));
    }
    if let Ok((id, Ok(answer))) = decode_response(&received)
        && let Ok(again) = encode_response(id, &answer)
    {
        let (id_again, answer_again) = decode_response(&joined(&again)).expect("encoded here");
        assert_eq!(id_again, id);
        assert_eq!(answer_again, Ok(answer));
    }
}

/// One record; what is taken must encode again with the same checksum.
pub fn record(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let trusted = Record::decode_trusted(bytes.clone());
    if let Ok(record) = Record::decode(bytes.clone()) {
        let (value, content_type) = (record.value(), record.content_type());
        let again = Record::encode(&record.key(), *record.head(), content_type, &value);
        assert_eq!(again.crc(), record.crc());
        assert_eq!(again.head(), record.head());
        assert_eq!(again.value(), value);
        assert!(trusted.is_ok());
        let kept = merge_encoded(again.bytes().clone(), bytes.clone());
        assert_eq!(kept, merge_encoded(bytes, again.bytes().clone()));
    }
}

/// A frame to be sent as it would be received.
fn joined(frame: &frame::Frame) -> frame::Frame {
    let body: Vec<u8> =
        std::iter::once(&frame.head).chain(&frame.attachments).flatten().copied().collect();
    frame::Frame::received(frame.prefix(), Bytes::from(body))
}
