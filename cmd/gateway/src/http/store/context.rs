//! The context that clients carry from an answer to a request: what they have seen of a key.
//!
//! Opaque to them: base64url of `1, the key's digest, base, count, dots, crc32c`, numbers big-endian.
//! Checked before it is believed; it holds numbers and nothing that could be run. Not signed: whoever may
//! write a key may as well delete it.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::{Buf, BufMut};
use tako_flatbuf::Seen;
use tako_types::{StoredKey, Version, limits::DOTS_MAX};

const FORMAT: u8 = 1;
const CRC_BYTES: usize = 4;
/// format, digest, base, count
const HEAD_BYTES: usize = 1 + 8 + 16 + 1;
const DOT_BYTES: usize = 16;

pub(in crate::http) fn encode(seen: &Seen, key: &StoredKey) -> String {
    let mut out = Vec::with_capacity(HEAD_BYTES + DOT_BYTES * seen.dots.len() + CRC_BYTES);
    out.put_u8(FORMAT);
    out.put_u64(key.digest());
    out.put_u64(seen.base.micros);
    out.put_u64(seen.base.origin);
    out.put_u8(u8::try_from(seen.dots.len()).unwrap_or(u8::MAX));
    for dot in &seen.dots {
        out.put_u64(dot.micros);
        out.put_u64(dot.origin);
    }
    out.put_u32(crc32c::crc32c(&out));
    BASE64_URL_SAFE_NO_PAD.encode(out)
}

pub(in crate::http) fn decode(text: &[u8], key: &StoredKey) -> Result<Seen, &'static str> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.trim_ascii());
    let bytes = bytes.map_err(|_| "the context is not one that was given: it is no base64url")?;
    let Some((mut body, crc)) = bytes.split_last_chunk::<CRC_BYTES>() else {
        return Err("the context is not one that was given: it is too short");
    };
    if u32::from_be_bytes(*crc) != crc32c::crc32c(body) {
        return Err("the context is not one that was given: its checksum is wrong");
    }
    if body.len() < HEAD_BYTES || body.get_u8() != FORMAT {
        return Err("the context is of a form that this release does not know");
    }
    if body.get_u64() != key.digest() {
        return Err("the context is another key's");
    }
    let version = |body: &mut &[u8]| Version { micros: body.get_u64(), origin: body.get_u64() };
    let base = version(&mut body);
    let count = usize::from(body.get_u8());
    if DOTS_MAX < count || body.len() != count * DOT_BYTES {
        return Err("the context is not one that was given: its length is wrong");
    }
    let dots = (0..count).map(|_| version(&mut body)).collect();
    Ok(Seen { base, dots })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tako_types::Key;

    use super::*;

    fn key(name: &'static str) -> StoredKey {
        Key::new(1, Bytes::from_static(name.as_bytes())).expect("short").stored()
    }

    #[test]
    fn a_context_reads_back_for_its_key_and_nothing_else_is_one() {
        let dots = (0..DOTS_MAX as u64).map(|micros| Version { micros, origin: 3 }).collect();
        let seen = Seen { base: Version { micros: 1, origin: 2 }, dots };
        for seen in [seen, Seen::default()] {
            let text = encode(&seen, &key("k"));
            assert_eq!(decode(text.as_bytes(), &key("k")).as_ref(), Ok(&seen));
            assert_eq!(decode(text.as_bytes(), &key("other")), Err("the context is another key's"));
            for at in 0..text.len() {
                assert!(decode(&text.as_bytes()[..at], &key("k")).is_err());
                let mut changed = text.clone().into_bytes();
                changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
                assert!(decode(&changed, &key("k")).is_err(), "{at}");
            }
        }
        for text in ["", "AAAA", "not base64!", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(decode(text.as_bytes(), &key("k")).is_err(), "{text}");
        }
    }
}
