//! From a request's path to a key: everything after the prefix, percent-decoded once.
//!
//! `+` is a space (as in Tako), `%2B` is a plus sign, slashes belong to the key, and any bytes can
//! be written as `%XX`. A `%` that does not start an escape is refused.

use axum::http::StatusCode;
use bytes::Bytes;
use tako_types::{Key, KeyError, NAMESPACE_VALUES, StoredKey, limits::KEY_BYTES_MAX};

use super::problem::Problem;

/// The key of a value that a path names after `prefix`.
pub(crate) fn key_of(path: &str, prefix: &str) -> Result<StoredKey, Problem> {
    key_in(NAMESPACE_VALUES, path, prefix)
}

/// The same of any namespace.
pub(super) fn key_in(namespace: u8, path: &str, prefix: &str) -> Result<StoredKey, Problem> {
    let encoded = path.strip_prefix(prefix).unwrap_or_default().as_bytes();
    let bytes = decode(encoded)?;
    Key::new(namespace, bytes).map(|key| key.stored()).map_err(|error| match error {
        KeyError::TooLong { .. } => Problem::new(StatusCode::URI_TOO_LONG, "key too long")
            .detail(error.to_string())
            .limit(KEY_BYTES_MAX),
        KeyError::Empty => Problem::invalid(format!("the key is empty; write it after {prefix}")),
    })
}

pub(super) fn decode(encoded: &[u8]) -> Result<Bytes, Problem> {
    if !encoded.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Bytes::copy_from_slice(encoded));
    }
    let mut out = Vec::with_capacity(encoded.len());
    let mut rest = encoded.iter();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|d| char::from(*d).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => {
                        let text = "a % in the address is not followed by two hexadecimal digits; \
                                    write a percent sign as %25";
                        return Err(Problem::invalid(text));
                    }
                }
            }
            other => *other,
        });
    }
    Ok(Bytes::from(out))
}

/// A key as it can stand in an address; [`decode`] gives it back.
pub(super) fn encode(key: &[u8]) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(*byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: &[u8]) {
        let key = key_of(path, "/values/").expect("a key").key();
        assert_eq!(key.bytes().as_ref(), expected, "{path}");
    }

    #[test]
    fn paths_are_decoded_exactly_once() {
        check("/values/users/1", b"users/1");
        check("/values/a+b%2Bc", b"a b+c");
        check("/values/%252B", b"%2B");
        check("/values//x//", b"/x//");
        check("/values/%00%ff%2F", b"\0\xff/");
    }

    #[test]
    fn an_encoded_key_is_decoded_to_itself() {
        let all: Vec<u8> = (0..=255).collect();
        let encoded = encode(&all);
        assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#&+=".contains(&byte)));
        assert_eq!(decode(encoded.as_bytes()).expect("escapes"), all);
    }

    #[test]
    fn bad_escapes_empty_and_long_keys_are_refused() {
        for path in ["/values/", "/values/%", "/values/%1", "/values/%zz"] {
            assert!(key_of(path, "/values/").is_err(), "{path}");
        }
        assert!(key_of(&format!("/values/{}", "k".repeat(4096)), "/values/").is_ok());
        assert!(key_of(&format!("/values/{}", "k".repeat(4097)), "/values/").is_err());
        // Three characters of path are one byte of key.
        assert!(key_of(&format!("/values/{}", "%41".repeat(4096)), "/values/").is_ok());
    }
}
