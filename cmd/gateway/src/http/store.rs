//! `/store/<key>`: values with contexts and siblings: Vinz Clortho's interface, mended.
//!
//! A client reads with a context, and writes with the one it read: its value takes the place of all that
//! it had seen, and of nothing else. Values that were written without knowing of each other are siblings
//! until somebody who has seen them writes one. Owns headers and forms; what becomes of siblings is the
//! replica's that makes the change (node-core, `replication/change/siblings.rs`). Values here and those
//! of `/values/` never mix.

pub(super) mod context;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header, request::Parts,
    },
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use tako_flatbuf::{
    ChangeOutcome, Condition, Edit, Misfit, Record, RecordHead, Seen, Sibling, Siblings, StoreOrder,
};
use tako_node_core::replication::{Change, Read};
use tako_types::{
    Kind, NAMESPACE_STORE, StoredKey, Version,
    limits::{CLIENT_BYTES_MAX, SIBLINGS_MAX},
};

use super::{
    body::receive,
    key::key_in,
    problem::Problem,
    values::{changed_answer, content_type_of, deadline, query_of, version_headers},
};
use crate::Gateway;

const STORE: &str = "/store/";
/// Each header, and what Vinz Clortho called it.
const CONTEXT: [HeaderName; 2] =
    [HeaderName::from_static("x-tako-context"), HeaderName::from_static("x-vinzclortho-context")];
const CLIENT: [HeaderName; 2] =
    [HeaderName::from_static("x-tako-client"), HeaderName::from_static("x-vinzclortho-clientid")];
const SIBLINGS: HeaderName = HeaderName::from_static("x-tako-siblings");
const DEFAULT_TYPE: &str = "application/octet-stream";
/// What a value may be shorter than `value_bytes_max`, or half of that: its sibling's other fields need
/// room.
const ROOM_BYTES: usize = 4 << 10;

/// GET, HEAD, PUT, POST and DELETE.
pub(super) async fn on_store(
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

async fn get(gateway: &Gateway, head: &Parts) -> Result<Response, Problem> {
    let key = key_in(NAMESPACE_STORE, head.uri.path(), STORE)?;
    let query = query_of(head)?;
    let serving = &gateway.serving;
    let read = Read { key: key.clone(), r: query.r };
    let record = serving.get(&read, deadline(gateway)).await?;
    let record = record.filter(|it| it.is_live_at(serving.clock().now_micros()));
    let Some(record) = record else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "not found")
            .detail("there is no value of this key"));
    };
    let siblings = Siblings::decode(&record.value()).map_err(|error| unreadable(&error))?.0;
    let mut headers = version_headers(record.version());
    put_context(&mut headers, &key, &Seen { base: record.version(), dots: Vec::new() });
    headers.insert(SIBLINGS, siblings.len().into());
    if let [only] = siblings.as_slice() {
        headers.insert(header::CONTENT_TYPE, type_of(only));
        return Ok((headers, Body::from(only.value.clone())).into_response());
    }
    let boundary = boundary_of(&siblings, record.version());
    let content_type = format!("multipart/mixed; boundary={boundary}");
    if let Ok(content_type) = HeaderValue::from_str(&content_type) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    let body = Body::from(multipart(&siblings, &boundary));
    Ok((StatusCode::MULTIPLE_CHOICES, headers, body).into_response())
}

async fn put(gateway: &Gateway, head: &Parts, body: Body) -> Result<Response, Problem> {
    let key = key_in(NAMESPACE_STORE, head.uri.path(), STORE)?;
    let (seen, client) = order_of(head, &key)?;
    let content_type = content_type_of(&head.headers)?;
    let limit = gateway.serving.links().config.current().config.cluster.value_bytes_max;
    let limit = (limit.saturating_sub(ROOM_BYTES.min(limit / 2)), "less than value_bytes_max");
    let received = receive(gateway, &head.headers, body, limit).await?;
    let value = received.bytes.clone();
    let order = StoreOrder { seen: seen.clone(), client, is_delete: false, content_type, value };
    match change(gateway, &key, &order).await? {
        Ok(version) => {
            let mut headers = version_headers(version);
            put_context(&mut headers, &key, &seen.with(version));
            Ok((StatusCode::OK, headers).into_response())
        }
        Err(response) => Ok(response),
    }
}

async fn delete(gateway: &Gateway, head: &Parts) -> Result<Response, Problem> {
    let key = key_in(NAMESPACE_STORE, head.uri.path(), STORE)?;
    let (seen, client) = order_of(head, &key)?;
    let (content_type, value) = (None, Bytes::new());
    let order = StoreOrder { seen, client, is_delete: true, content_type, value };
    match change(gateway, &key, &order).await? {
        Ok(version) => Ok((StatusCode::NO_CONTENT, version_headers(version)).into_response()),
        Err(response) => Ok(response),
    }
}

/// Makes the change; its version, or what is answered where it was not made.
async fn change(
    gateway: &Gateway,
    key: &StoredKey,
    order: &StoreOrder,
) -> Result<Result<Version, Response>, Problem> {
    let (version, kind) = (Version::ZERO, Kind::Value);
    let head = RecordHead { version, kind, expires_at_micros: 0, flags: 0 };
    let template = Record::encode(key, head, None, &order.encode());
    let any = Condition::NoneOf(Vec::new());
    let change = Change::new(any, template).edited(Edit::Store);
    match gateway.serving.change(&change, deadline(gateway)).await {
        Ok(ChangeOutcome::Done { version, .. }) => Ok(Ok(version)),
        Ok(ChangeOutcome::Cannot(Misfit::TooLong)) => {
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too many siblings").detail(format!(
                "a key has at most {SIBLINGS_MAX} siblings, together no longer than \
                 value_bytes_max: read them, and write one value with their context"
            )))
        }
        Ok(ChangeOutcome::Cannot(misfit)) => Err(unreadable(&format!("{misfit:?}"))),
        other => changed_answer(StatusCode::OK, other).map(Err),
    }
}

/// The context and the client that a request names.
fn order_of(head: &Parts, key: &StoredKey) -> Result<(Seen, Option<String>), Problem> {
    if let Some(query) = head.uri.query().filter(|query| !query.is_empty()) {
        return Err(Problem::invalid(format!(
            "{query}: writes here take no query, a majority takes them (write a ? in a key as %3F)"
        )));
    }
    let others = [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_UNMODIFIED_SINCE,
        HeaderName::from_static("x-timestamp"),
        HeaderName::from_static("x-tako-ttl"),
    ];
    if let Some(name) = others.iter().find(|name| head.headers.contains_key(*name)) {
        return Err(Problem::invalid(format!(
            "{name} is not for /store: a write goes by X-Tako-Context, has no other time than its \
             own, and stays"
        )));
    }
    let seen = match one_of(&head.headers, &CONTEXT)? {
        // What nobody was given: with it a delete would mean everything.
        Some(text) => match context::decode(text.as_bytes(), key).map_err(Problem::invalid)? {
            seen if seen == Seen::default() => {
                return Err(Problem::invalid("the context is not one that was given: it is empty"));
            }
            seen => seen,
        },
        None => Seen::default(),
    };
    let client = one_of(&head.headers, &CLIENT)?.map(|text| match text.to_str() {
        Ok(text) if (1..=CLIENT_BYTES_MAX).contains(&text.len()) => Ok(text.to_owned()),
        _ => Err(Problem::invalid(format!(
            "X-Tako-Client is not text of 1 to {CLIENT_BYTES_MAX} bytes"
        ))),
    });
    Ok((seen, client.transpose()?))
}

/// The value of a header under either name.
fn one_of<'a>(
    headers: &'a HeaderMap,
    names: &[HeaderName; 2],
) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut all = names.iter().flat_map(|name| headers.get_all(name));
    match (all.next(), all.next()) {
        (first, None) => Ok(first),
        _ => Err(Problem::invalid(format!("{} is there more than once", names[0]))),
    }
}

fn put_context(headers: &mut HeaderMap, key: &StoredKey, seen: &Seen) {
    if let Ok(context) = HeaderValue::from_str(&context::encode(seen, key)) {
        for name in CONTEXT {
            headers.insert(name, context.clone());
        }
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        .detail(format!("what is stored under this key cannot be read: {error}"))
}

fn type_of(sibling: &Sibling) -> HeaderValue {
    let named = sibling.content_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
    named.unwrap_or(HeaderValue::from_static(DEFAULT_TYPE))
}

/// What no value holds.
fn boundary_of(siblings: &[Sibling], version: Version) -> String {
    let mut boundary = format!("tako-{version}");
    let holds = |one: &Sibling, text: &str| {
        one.value.windows(text.len()).any(|window| window == text.as_bytes())
    };
    while siblings.iter().any(|one| holds(one, &boundary)) {
        boundary.push('x');
    }
    boundary
}

fn multipart(siblings: &[Sibling], boundary: &str) -> Bytes {
    let bytes: usize = siblings.iter().map(|one| one.value.len() + 512).sum();
    let mut out = BytesMut::with_capacity(bytes);
    for one in siblings {
        out.put_slice(format!("--{boundary}\r\nContent-Type: ").as_bytes());
        out.put_slice(type_of(one).as_bytes());
        out.put_slice(format!("\r\nContent-Length: {}\r\n", one.value.len()).as_bytes());
        if let Some(client) = &one.client {
            out.put_slice(format!("X-Tako-Client: {client}\r\n").as_bytes());
        }
        out.put_slice(b"\r\n");
        out.put_slice(&one.value);
        out.put_slice(b"\r\n");
    }
    out.put_slice(format!("--{boundary}--\r\n").as_bytes());
    out.freeze()
}
