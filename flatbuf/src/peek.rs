//! The first frame of a connection, for a program that stands between two processes.
//!
//! Reads the Hello and gives its bytes back, to be passed on as they are. Bounded: a first frame
//! longer than any Hello is refused before it is read.

use std::io;

use bytes::{Bytes, BytesMut};
use tako_types::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::{
    Request,
    frame::{PREFIX_BYTES, Prefix, parse},
    message::decode_request,
};

/// A Hello holds two ids and a number.
const HELLO_BYTES_MAX: usize = 4 << 10;

/// Reads the first frame of a connection: who calls, and the frame's bytes.
///
/// # Errors
/// Those of the stream, and `InvalidData` where the first frame is no Hello.
pub async fn read_hello(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(NodeId, Bytes)> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix).await?;
    let length = Prefix::read(prefix).map_err(|error| invalid(error.to_string()))?.body_bytes;
    if HELLO_BYTES_MAX < length {
        return Err(invalid(format!("a first frame of {length} bytes is no Hello")));
    }
    let mut bytes = BytesMut::zeroed(PREFIX_BYTES + length);
    bytes[..PREFIX_BYTES].copy_from_slice(&prefix);
    stream.read_exact(&mut bytes[PREFIX_BYTES..]).await?;
    let bytes = bytes.freeze();
    let frame = parse(&bytes).map_err(|error| invalid(error.to_string()))?;
    match decode_request(&frame) {
        Ok((_, Ok(Request::Hello { node, .. }))) => Ok((node, bytes)),
        Ok(_) => Err(invalid("the first frame is no Hello".to_owned())),
        Err(error) => Err(invalid(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CallHead, PROTOCOL, message::encode_request};

    fn bytes_of(request: &Request) -> Vec<u8> {
        let call = CallHead { id: 1, ..CallHead::default() };
        let frame = encode_request(&call, request).expect("encoded");
        let mut bytes = frame.prefix_bytes().to_vec();
        bytes.extend_from_slice(&frame.head);
        bytes
    }

    #[tokio::test]
    async fn a_hello_names_its_caller_and_what_follows_stays_unread() {
        let node = NodeId::new("n7");
        let hello = bytes_of(&Request::Hello { cluster: None, node, protocol: PROTOCOL });
        let mut stream: &[u8] = &[&hello[..], b"more"].concat();
        let (who, bytes) = read_hello(&mut stream).await.expect("a Hello");
        assert_eq!((who.as_str(), &bytes[..], stream), ("n7", &hello[..], &b"more"[..]));
    }

    #[tokio::test]
    async fn what_is_no_hello_is_refused_and_a_long_frame_is_not_read() {
        let health = bytes_of(&Request::Health);
        let long = [0xff, 0xff, 0, 0, 8, 0, 0, 0];
        for bytes in [&health[..], &long[..], &[0; 8], &[0xff; 64]] {
            let error = read_hello(&mut &*bytes).await.expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        let torn = read_hello(&mut &health[..4]).await.expect_err("torn");
        assert_eq!(torn.kind(), io::ErrorKind::UnexpectedEof);
    }
}
