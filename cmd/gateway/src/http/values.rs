//! `/values/<key>` and `/stat/<key>`: the old Tako's interface, mended.

mod conditions;
pub(super) mod fuzz;

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header, request::Parts,
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
pub(super) use conditions::changed_answer;
use conditions::condition_of;
use tako_flatbuf::{Record, RecordHead};
use tako_node_core::replication::{Change, Read, Write, Written};
use tako_types::{
    Kind, StoredKey, Version, config::parse_duration, limits::CONTENT_TYPE_BYTES_MAX,
};

use super::{
    body::receive,
    key::{decode, key_of},
    problem::Problem,
};
use crate::Gateway;

const TIMESTAMP: HeaderName = HeaderName::from_static("x-timestamp");
/// On the answer of a write that lost against something newer.
const SUPERSEDED: HeaderName = HeaderName::from_static("x-tako-superseded");
const TTL: HeaderName = HeaderName::from_static("x-tako-ttl");
const DEFAULT_TYPE: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// What a record is before it gets a version.
const UNSTAMPED: RecordHead =
    RecordHead { version: Version::ZERO, kind: Kind::Value, expires_at_micros: 0, flags: 0 };
const VALUES: &str = "/values/";
const STAT: &str = "/stat/";

/// What may stand after `?`.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) r: Option<usize>,
    w: Option<usize>,
    ttl: Option<Duration>,
}

/// GET, HEAD, PUT, POST and DELETE of a value.
pub(super) async fn on_values(
    State(gateway): State<Arc<Gateway>>,
    request: Request<Body>,
) -> Response {
    let (head, body) = request.into_parts();
    let result = match head.method {
        Method::GET | Method::HEAD => get(&gateway, &head).await,
        Method::PUT | Method::POST => put(&gateway, &head, body).await,
        Method::DELETE => delete(&gateway, &head).await,
        _ => Err(Problem::method("GET, HEAD, PUT, POST, DELETE")),
    };
    result.unwrap_or_else(IntoResponse::into_response)
}

/// The timestamp of a value as text.
pub(super) async fn on_stat(
    State(gateway): State<Arc<Gateway>>,
    request: Request<Body>,
) -> Response {
    let (head, _) = request.into_parts();
    let result = match head.method {
        Method::GET | Method::HEAD => stat(&gateway, &head).await,
        _ => Err(Problem::method("GET, HEAD")),
    };
    result.unwrap_or_else(IntoResponse::into_response)
}

async fn get(gateway: &Gateway, head: &Parts) -> Result<Response, Problem> {
    let key = key_of(head.uri.path(), VALUES)?;
    let record = read_live(gateway, key, head).await?;
    let mut headers = version_headers(record.version());
    if not_modified(&head.headers, &headers) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let content_type = record.content_type().and_then(|text| HeaderValue::from_str(text).ok());
    headers.insert(header::CONTENT_TYPE, content_type.unwrap_or(DEFAULT_TYPE));
    let mut response = Response::new(Body::from(record.value()));
    *response.headers_mut() = headers;
    Ok(response)
}

async fn stat(gateway: &Gateway, head: &Parts) -> Result<Response, Problem> {
    let key = key_of(head.uri.path(), STAT)?;
    let record = read_live(gateway, key, head).await?;
    let mut headers = version_headers(record.version());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok((headers, timestamp_text(record.version())).into_response())
}

/// The record of a key, if there is one now; else 404, which only R replicas can say.
async fn read_live(gateway: &Gateway, key: StoredKey, head: &Parts) -> Result<Record, Problem> {
    let query = query_of(head)?;
    let serving = &gateway.serving;
    let record = serving.get(&Read { key, r: query.r }, deadline(gateway)).await?;
    record.filter(|record| record.is_live_at(serving.clock().now_micros())).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "not found").detail("there is no value of this key")
    })
}

async fn put(gateway: &Gateway, head: &Parts, body: Body) -> Result<Response, Problem> {
    let key = key_of(head.uri.path(), VALUES)?;
    let query = query_of(head)?;
    let condition = condition_of(&head.headers, &query)?;
    let timestamp_micros = timestamp_of(&head.headers)?;
    let ttl = ttl_of(&head.headers, &query)?;
    let content_type = content_type_of(&head.headers)?;
    let limit = gateway.serving.links().config.current().config.cluster.value_bytes_max;
    let limit = (limit, "value_bytes_max in the configuration");
    let received = receive(gateway, &head.headers, body, limit).await?;
    let now = gateway.serving.clock().now_micros();
    let expires_at_micros =
        ttl.map_or(0, |ttl| now.saturating_add(u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX)));
    if let Some(condition) = condition {
        let head = RecordHead { kind: Kind::Value, expires_at_micros, ..UNSTAMPED };
        let template = Record::encode(&key, head, content_type.as_deref(), &received.bytes);
        let change = Change::new(condition, template);
        let changed = gateway.serving.change(&change, deadline(gateway)).await;
        return changed_answer(StatusCode::OK, changed);
    }
    let write = Write {
        key,
        kind: Kind::Value,
        value: received.bytes.clone(),
        content_type,
        flags: 0,
        expires_at_micros,
        timestamp_micros,
        w: query.w,
    };
    let written = gateway.serving.put(write, deadline(gateway)).await?;
    Ok(written_answer(StatusCode::OK, written))
}

async fn delete(gateway: &Gateway, head: &Parts) -> Result<Response, Problem> {
    let key = key_of(head.uri.path(), VALUES)?;
    let query = query_of(head)?;
    if let Some(condition) = condition_of(&head.headers, &query)? {
        let head = RecordHead { kind: Kind::Tombstone, ..UNSTAMPED };
        let change = Change::new(condition, Record::encode(&key, head, None, &[]));
        let changed = gateway.serving.change(&change, deadline(gateway)).await;
        return changed_answer(StatusCode::NO_CONTENT, changed);
    }
    let write = Write {
        key,
        kind: Kind::Tombstone,
        value: Bytes::new(),
        content_type: None,
        flags: 0,
        expires_at_micros: 0,
        timestamp_micros: timestamp_of(&head.headers)?,
        w: query.w,
    };
    let written = gateway.serving.put(write, deadline(gateway)).await?;
    Ok(written_answer(StatusCode::NO_CONTENT, written))
}

fn written_answer(status: StatusCode, written: Written) -> Response {
    let mut headers = HeaderMap::with_capacity(3);
    if !written.won {
        headers.insert(SUPERSEDED, HeaderValue::from_static("true"));
    }
    headers.insert(TIMESTAMP, header_value(&timestamp_text(written.version)));
    headers.insert(header::ETAG, header_value(&etag(written.version)));
    (status, headers).into_response()
}

pub(super) fn deadline(gateway: &Gateway) -> Duration {
    gateway.serving.links().config.current().config.cluster.request_deadline
}

fn etag(version: Version) -> String {
    format!("\"{version}\"")
}

/// At least 12 digits, as the old Tako wrote it.
fn timestamp_text(version: Version) -> String {
    format!("{:012}", version.micros)
}

fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

pub(super) fn version_headers(version: Version) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    let mut text = String::with_capacity(48);
    let _ = write!(text, "\"{version}\"");
    headers.insert(header::ETAG, header_value(&text));
    text.clear();
    let _ = write!(text, "{:012}", version.micros);
    headers.insert(TIMESTAMP, header_value(&text));
    let written = UNIX_EPOCH + Duration::from_micros(version.micros.min(LAST_DATE_MICROS));
    text.clear();
    let _ = write!(text, "{}", httpdate::HttpDate::from(written));
    headers.insert(header::LAST_MODIFIED, header_value(&text));
    headers
}

/// The end of the year 9999, the last that an HTTP date can name.
const LAST_DATE_MICROS: u64 = 253_402_300_799_000_000;

fn not_modified(request: &HeaderMap, own: &HeaderMap) -> bool {
    let (Some(asked), Some(etag)) = (request.get(header::IF_NONE_MATCH), own.get(header::ETAG))
    else {
        return false;
    };
    let etag = etag.as_bytes();
    asked
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(|tag| tag.trim_ascii())
        .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag)
}

fn timestamp_of(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(TIMESTAMP) else { return Ok(None) };
    let micros = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
    match micros {
        Some(micros) if micros > 0 => Ok(Some(micros)),
        _ => Err(Problem::invalid(
            "X-Timestamp is not a number of microseconds since the Unix epoch, 1 or more",
        )),
    }
}

fn ttl_of(headers: &HeaderMap, query: &Query) -> Result<Option<Duration>, Problem> {
    match headers.get(TTL) {
        Some(value) => value.to_str().ok().and_then(parse_ttl).map(Some).ok_or_else(bad_ttl),
        None => Ok(query.ttl),
    }
}

/// Seconds, or a duration such as `90s`, `1h`, `1d 0:00:00`; at least a millisecond.
fn parse_ttl(text: &str) -> Option<Duration> {
    let ttl = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => parse_duration(text).ok()?,
    };
    (ttl >= Duration::from_millis(1)).then_some(ttl)
}

fn bad_ttl() -> Problem {
    Problem::invalid("the ttl is neither a number of seconds above 0 nor a duration such as 90s")
}

pub(super) fn content_type_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(None) };
    match value.to_str() {
        Ok(text) if text.len() <= CONTENT_TYPE_BYTES_MAX => Ok(Some(text.to_owned())),
        _ => Err(Problem::invalid(format!(
            "Content-Type is not text of at most {CONTENT_TYPE_BYTES_MAX} bytes"
        ))),
    }
}

pub(super) fn query_of(head: &Parts) -> Result<Query, Problem> {
    let mut query = Query::default();
    let Some(text) = head.uri.query() else { return Ok(query) };
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value.as_bytes())?;
        let value = std::str::from_utf8(&value).unwrap_or("?");
        let number = || {
            value
                .parse::<usize>()
                .map(Some)
                .map_err(|_| Problem::invalid(format!("{name}={value}: not a number of replicas")))
        };
        match name {
            "r" => query.r = number()?,
            "w" => query.w = number()?,
            "ttl" => query.ttl = Some(parse_ttl(value).ok_or_else(bad_ttl)?),
            _ => {
                return Err(Problem::invalid(format!(
                    "{name} is unknown; there are r, w and ttl (write a ? in a key as %3F)"
                )));
            }
        }
    }
    Ok(query)
}
