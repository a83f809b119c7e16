//! What must hold of any request: of its path, query and headers, as far as they are read here.
//!
//! The replay of the corpora calls this with seeded bytes, libFuzzer with its own (`tests/fuzz`).
//! A panic is a finding. Not here: the HTTP syntax itself (hyper's), bodies.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use tako_types::{
    StoredKey, Version,
    limits::{CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX},
};

use super::{
    Query, STAT, VALUES, condition_of, content_type_of, not_modified, query_of, timestamp_of,
    ttl_of, version_headers,
};
use crate::http::key::key_of;

/// Lines: the target (path and query), then `name: value` each.
///
/// # Panics
/// When something does not hold.
pub fn http_request(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for line in lines.take(32) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    key_of_any(target);
    let Ok(mut request) = Request::builder().uri(target).body(()) else { return };
    *request.headers_mut() = headers;
    let (head, ()) = request.into_parts();
    for prefix in [VALUES, STAT] {
        if head.uri.path().starts_with(prefix)
            && let Ok(key) = key_of(head.uri.path(), prefix)
        {
            same_key(&key, prefix);
        }
    }
    let query = query_of(&head);
    if let Ok(query) = &query
        && let Ok(Some(ttl)) = ttl_of(&head.headers, query)
    {
        assert!(Duration::from_millis(1) <= ttl, "a ttl that is over at once");
    }
    let timestamp = timestamp_of(&head.headers);
    let none_said = timestamp.as_ref().is_ok_and(Option::is_none);
    assert_eq!(none_said, !head.headers.contains_key("x-timestamp"), "a timestamp is ignored");
    let micros = timestamp.ok().flatten();
    assert_ne!(micros, Some(0), "no version is 0");
    let condition = condition_of(&head.headers, &Query::default());
    let asks = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_UNMODIFIED_SINCE]
        .iter()
        .any(|name| head.headers.contains_key(name));
    assert_eq!(matches!(condition, Ok(None)), !asks, "a condition is ignored");
    if let Ok(Some(text)) = content_type_of(&head.headers) {
        assert!(text.len() <= CONTENT_TYPE_BYTES_MAX);
        // It is given back as it came.
        let back = HeaderValue::from_str(&text).expect("a header again");
        assert_eq!(Some(&back), head.headers.get(header::CONTENT_TYPE));
    }
    conditions(&head.headers, micros.unwrap_or(1));
}

/// The bytes as a client's key: written as escapes, or as they are where they need none, they come
/// out again; and too long or empty ones are refused.
fn key_of_any(bytes: &[u8]) {
    let escaped: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
    let key = key_of(&format!("{VALUES}{escaped}"), VALUES);
    assert_eq!(key.is_ok(), (1..=KEY_BYTES_MAX).contains(&bytes.len()));
    if let Ok(key) = key {
        assert_eq!(key.key().bytes(), bytes);
        same_key(&key, VALUES);
    }
}

/// However a key was written, its canonical form stands for the same.
fn same_key(key: &StoredKey, prefix: &str) {
    let mut path = prefix.to_owned();
    for byte in key.key().bytes() {
        match byte {
            b' ' => path.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                path.push(char::from(*byte));
            }
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
    assert_eq!(key_of(&path, prefix).expect("the same key"), *key);
    assert_eq!(StoredKey::from_bytes(key.as_bytes().clone()).as_ref(), Some(key));
}

/// The headers of an answer for any version say that version, and a client that repeats the tag is
/// told that nothing changed.
fn conditions(request: &HeaderMap, micros: u64) {
    let version = Version { micros, origin: micros.rotate_left(17) };
    let own = version_headers(version);
    let _any_answer = not_modified(request, &own);
    let tag = own[header::ETAG].clone();
    let mut repeated = HeaderMap::new();
    repeated.insert(header::IF_NONE_MATCH, tag.clone());
    assert!(not_modified(&repeated, &own), "its own tag");
    let of_a_write = condition_of(&repeated, &Query::default()).expect("its own tag");
    assert!(of_a_write.is_some_and(|it| !it.holds(Some(version)) && it.holds(None)));
    let next = version_headers(Version { origin: version.origin ^ 1, ..version });
    assert!(!not_modified(&repeated, &next), "another version's tag");
    assert_eq!(timestamp_of(&own).ok().flatten(), Some(micros), "the timestamp that it shows");
    assert!(!own[header::LAST_MODIFIED].is_empty());
}
