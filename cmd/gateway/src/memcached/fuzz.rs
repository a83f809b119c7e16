//! Any bytes as what a memcached client sends.
//!
//! Claim: cutting requests from them ends, never panics, and either takes bytes, asks for more than
//! there are, or ends the connection.

use bytes::BytesMut;

use super::{
    binary,
    request::{Next, Outcome},
    text,
};

const VALUE_BYTES_MAX: usize = 64 << 10;

/// One client's bytes.
pub fn connection(bytes: &[u8]) {
    let mut input = BytesMut::from(bytes);
    while !input.is_empty() {
        let before = input.len();
        let next = match input[0] {
            binary::REQUEST => binary::next(&mut input, 1_000_000, VALUE_BYTES_MAX),
            _ => text::next(&mut input, 1_000_000, VALUE_BYTES_MAX),
        };
        match next {
            Next::Part(wanted) => {
                assert!(before < wanted, "it wants what is there");
                return;
            }
            Next::End(_) => return,
            Next::SayAndSkip(_, skip) => {
                let skip = skip.min(input.len());
                let _ = input.split_to(skip);
            }
            Next::Request(request) => {
                let mut out = BytesMut::new();
                let missing = vec![Outcome::Missing; request.operations.len()];
                request.reply.write(&missing, 1_000_000, &mut out);
            }
            Next::Say(_) | Next::Flush(_) | Next::Stats { .. } | Next::LogIn { .. } => {}
        }
        assert!(input.len() < before, "nothing was taken");
    }
}
