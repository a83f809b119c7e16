//! What must hold of any bytes that HTTP brings: requests (`values/fuzz.rs`), contexts of `/store`, lines
//! of a batch. A panic is a finding.

use axum::http::{Method, header};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use tako_types::{Key, NAMESPACE_VALUES, limits::DOTS_MAX};

pub use super::values::fuzz::http_request;
use super::{
    batch::item_of,
    key::key_of,
    store::context::{decode, encode},
};

/// The bytes as a context: as they came, and as what stands under a checksum that is right, of the key
/// whose digest they name. What is taken is given back as it came.
///
/// # Panics
/// When that does not hold.
pub fn store_context(bytes: &[u8]) {
    let key = Key::new(1, Bytes::from_static(b"k")).expect("a short key").stored();
    if let Ok(seen) = decode(bytes, &key) {
        assert_eq!(encode(&seen, &key).as_bytes(), bytes.trim_ascii(), "another form of it");
    }
    let mut body = bytes.to_vec();
    if let Some(digest) = body.get_mut(1..9) {
        digest.copy_from_slice(&key.digest().to_be_bytes());
    }
    body.extend(crc32c::crc32c(&body).to_be_bytes());
    let text = BASE64_URL_SAFE_NO_PAD.encode(body);
    if let Ok(seen) = decode(text.as_bytes(), &key) {
        assert!(seen.dots.len() <= DOTS_MAX);
        assert_eq!(encode(&seen, &key), text);
        let other = Key::new(1, Bytes::from_static(b"other")).expect("a short key").stored();
        assert!(decode(text.as_bytes(), &other).is_err(), "another key's is taken");
    }
}

/// The bytes as a line of a batch: the request that is made of it is for its key, and writes only where
/// it says so.
///
/// # Panics
/// When that does not hold.
pub fn batch_line(bytes: &[u8]) {
    let Ok(asked) = item_of(bytes) else { return };
    let head = asked.request;
    assert_eq!(asked.writes, head.method() != Method::GET);
    match key_of(head.uri().path(), "/values/") {
        Ok(key) => assert_eq!(key.key().bytes(), &asked.key[..], "another key"),
        // As the same key is refused by itself.
        Err(_) => assert!(Key::new(NAMESPACE_VALUES, asked.key.into()).is_err()),
    }
    assert!(head.headers().contains_key(header::CONTENT_LENGTH));
    let query = head.uri().query().unwrap_or_default();
    let is_level = |pair: &str| pair.starts_with("r=") || pair.starts_with("w=");
    assert!(query.split('&').all(|pair| pair.is_empty() || is_level(pair)), "{query}");
}
