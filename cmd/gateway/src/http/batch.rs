//! `POST /batch`: many gets, puts and deletes in one request, a line of JSON each.
//!
//! Every item is made the request that it would be by itself, so it means the same, and its answer is
//! that request's. Invariants: nothing is begun before all of a batch has come; answers come in the order
//! of the items, each as soon as it and those before it are known; items run beside each other unless
//! one writes the key of another, then the later one waits.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderName, HeaderValue, Method, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, FuturesOrdered},
};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};

use super::{access::refused, body::receive, key::encode, problem::Problem, values::on_values};
use crate::{
    Gateway,
    access::{Grant, Refusal, Scope},
};

/// Longest batch; what is longer goes by several, or by single requests.
const BATCH_BYTES_MAX: usize = 16 << 20;
const ITEMS_MAX: usize = 10_000;
/// Items of one batch under way at one time.
const AT_ONCE: usize = 64;
/// Gets of one batch under way or unsent at one time: each may be as long as the longest value.
const GETS_AT_ONCE: usize = 8;
/// A piece of the answer ends when it is so long.
const PIECE_BYTES: usize = 64 << 10;
const LINES_TYPE: HeaderValue = HeaderValue::from_static("application/x-ndjson");
/// Fields that become a header of the item's request.
const HEADERS: [(&str, HeaderName); 5] = [
    ("content_type", header::CONTENT_TYPE),
    ("timestamp", HeaderName::from_static("x-timestamp")),
    ("ttl", HeaderName::from_static("x-tako-ttl")),
    ("if_match", header::IF_MATCH),
    ("if_none_match", header::IF_NONE_MATCH),
];

pub(super) async fn on_batch(
    State(gateway): State<Arc<Gateway>>,
    request: Request<Body>,
) -> Response {
    if request.method() != Method::POST {
        return Problem::method("POST").into_response();
    }
    let (head, body) = request.into_parts();
    let lines =
        match receive(&gateway, &head.headers, body, (BATCH_BYTES_MAX, "of one batch")).await {
            Ok(received) => received.bytes,
            Err(problem) => return problem.into_response(),
        };
    let items: VecDeque<_> = lines
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(n, line)| Item { line: n + 1, what: item_of(line) })
        .take(ITEMS_MAX + 1)
        .collect();
    if ITEMS_MAX < items.len() {
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "batch too large")
            .detail(format!("a batch has at most {ITEMS_MAX} items; nothing was done"))
            .into_response();
    }
    let (running, keys) = (FuturesOrdered::new(), HashMap::new());
    let grant = head.extensions.get::<Grant>().cloned();
    let batch = Batch { gateway, grant, items, running, keys, gets: 0 };
    let answers = stream::unfold(batch, async |mut batch| {
        let piece = batch.piece().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), batch))
    });
    ([(header::CONTENT_TYPE, LINES_TYPE)], Body::from_stream(answers)).into_response()
}

struct Item {
    /// Where it stands in the batch, from 1.
    line: usize,
    /// What to do, or why it cannot be told.
    what: Result<Asked, String>,
}

/// One item as a request.
pub(super) struct Asked {
    pub(super) key: Vec<u8>,
    pub(super) writes: bool,
    pub(super) request: Request<Body>,
}

struct Answered {
    text: Value,
    key: Option<(Vec<u8>, bool)>,
}

/// A batch that is being answered.
struct Batch {
    gateway: Arc<Gateway>,
    /// Who asks, where that matters.
    grant: Option<Grant>,
    items: VecDeque<Item>,
    running: FuturesOrdered<BoxFuture<'static, Answered>>,
    /// How those under way use their keys: so many read it, so many write it.
    keys: HashMap<Vec<u8>, (usize, usize)>,
    /// How many of those under way are gets.
    gets: usize,
}

impl Batch {
    /// The answers that are there, at least one; `None` after the last.
    async fn piece(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        self.begin();
        let mut next = self.running.next().await;
        while let Some(answered) = next {
            if let Some((key, writes)) = &answered.key
                && let Some(used) = self.keys.get_mut(key)
            {
                self.gets -= usize::from(!*writes);
                *(if *writes { &mut used.1 } else { &mut used.0 }) -= 1;
                if *used == (0, 0) {
                    self.keys.remove(key);
                }
            }
            out.put_slice(answered.text.to_string().as_bytes());
            out.put_u8(b'\n');
            if PIECE_BYTES <= out.len() {
                break;
            }
            self.begin();
            next = self.running.next().now_or_never().flatten();
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    /// Whether who asks may; each item counts as a request.
    fn admit(&mut self, asked: &Asked) -> Result<(), Refusal> {
        let Some(grant) = &mut self.grant else { return Ok(()) };
        grant.request(self.gateway.serving.clock().now_micros())?;
        let scope = if asked.writes { Scope::Write } else { Scope::Read };
        grant.may_touch(scope, &asked.key)
    }

    /// Begins what may run beside those under way.
    fn begin(&mut self) {
        while self.running.len() < AT_ONCE
            && let Some(item) = self.items.front()
        {
            if let Ok(asked) = &item.what
                && let Some((readers, writers)) = self.keys.get(&asked.key)
                && (0 < *writers || (asked.writes && 0 < *readers))
            {
                return;
            }
            if item.what.as_ref().is_ok_and(|asked| !asked.writes) && GETS_AT_ONCE <= self.gets {
                return;
            }
            let Some(Item { line, what }) = self.items.pop_front() else { return };
            let answer: BoxFuture<'static, Answered> = match what {
                Err(error) => {
                    let text = json!({ "line": line, "status": 400, "error": error });
                    Box::pin(std::future::ready(Answered { text, key: None }))
                }
                Ok(asked) if let Err(refusal) = self.admit(&asked) => {
                    let answer = refused(&refusal);
                    Box::pin(async move { Answered { text: told(line, answer).await, key: None } })
                }
                Ok(Asked { key, writes, request }) => {
                    let used = self.keys.entry(key.clone()).or_default();
                    *(if writes { &mut used.1 } else { &mut used.0 }) += 1;
                    self.gets += usize::from(!writes);
                    let gateway = self.gateway.clone();
                    Box::pin(async move {
                        let response = on_values(State(gateway), request).await;
                        let text = told(line, response).await;
                        Answered { text, key: Some((key, writes)) }
                    })
                }
            };
            self.running.push_back(answer);
        }
    }
}

/// What an item asks for.
pub(super) fn item_of(line: &[u8]) -> Result<Asked, String> {
    let value: Value =
        serde_json::from_slice(line).map_err(|error| format!("this is no JSON: {error}"))?;
    let Value::Object(mut fields) = value else {
        return Err("an object is wanted, such as {\"op\":\"get\",\"key\":\"k\"}".to_owned());
    };
    let (op, method) = match fields.remove("op") {
        Some(Value::String(op)) if op == "get" => (op, Method::GET),
        Some(Value::String(op)) if op == "put" => (op, Method::PUT),
        Some(Value::String(op)) if op == "delete" => (op, Method::DELETE),
        _ => return Err("op is get, put or delete".to_owned()),
    };
    let key = bytes_of(&mut fields, "key", "key_base64")?.ok_or("there is no key")?;
    let value = bytes_of(&mut fields, "value", "value_base64")?;
    let value = match (value, op == "put") {
        (Some(value), true) => value,
        (None, true) => return Err("put needs a value, or value_base64".to_owned()),
        (None, false) => Vec::new(),
        (Some(_), false) => return Err(format!("{op} takes no value")),
    };
    let mut query = String::new();
    for name in ["r", "w"] {
        if let Some(number) = fields.remove(name) {
            let number = number.as_u64().ok_or_else(|| format!("{name} is no number"))?;
            query += &format!("{}{name}={number}", if query.is_empty() { "?" } else { "&" });
        }
    }
    let uri = format!("/values/{}{query}", encode(&key));
    let writes = method != Method::GET;
    let mut request = Request::builder().method(method).uri(uri);
    for (field, name) in HEADERS {
        if let Some(text) = fields.remove(field) {
            let text = match text {
                Value::String(text) if field.starts_with("if_") => quoted(&text),
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                _ => return Err(format!("{field} is neither text nor a number")),
            };
            request = request.header(name, text);
        }
    }
    if let Some(name) = fields.keys().next() {
        return Err(format!("{name} is unknown"));
    }
    request
        .header(header::CONTENT_LENGTH, value.len())
        .body(Body::from(value))
        .map(|request| Asked { key, writes, request })
        .map_err(|error| format!("this cannot be asked for: {error}"))
}

/// A version as an entity tag; what is one already, or `*`, as it is.
fn quoted(text: &str) -> String {
    match text.starts_with(['"', '*', 'W']) {
        true => text.to_owned(),
        false => format!("\"{text}\""),
    }
}

/// Text, or any bytes in base64; `None` without either.
fn bytes_of(
    fields: &mut Map<String, Value>,
    text: &str,
    base64: &str,
) -> Result<Option<Vec<u8>>, String> {
    match (fields.remove(text), fields.remove(base64)) {
        (None, None) => Ok(None),
        (Some(Value::String(value)), None) => Ok(Some(value.into_bytes())),
        (None, Some(Value::String(value))) => {
            let bytes = BASE64_STANDARD.decode(value);
            bytes.map(Some).map_err(|error| format!("{base64} is no base64: {error}"))
        }
        (Some(_), Some(_)) => Err(format!("give {text} or {base64}, not both")),
        _ => Err(format!("{text} and {base64} are strings")),
    }
}

/// The answer to an item's request as a line.
async fn told(line: usize, response: Response) -> Value {
    let (head, body) = response.into_parts();
    let mut text = json!({ "line": line, "status": head.status.as_u16() });
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(etag) = header("etag") {
        text["version"] = etag.trim_matches('"').into();
    }
    if let Some(micros) = header("x-timestamp").and_then(|micros| micros.parse::<u64>().ok()) {
        text["timestamp"] = micros.into();
    }
    if header("x-tako-superseded").is_some() {
        text["superseded"] = true.into();
    }
    // Made here as a whole, it cannot fail.
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if head.status == StatusCode::OK && header("content-type").is_some() {
        text["content_type"] = header("content-type").into();
        match std::str::from_utf8(&body) {
            Ok(value) => text["value"] = value.into(),
            Err(_) => text["value_base64"] = BASE64_STANDARD.encode(&body).into(),
        }
    } else if !head.status.is_success() {
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        if let Some(detail) = problem["detail"].as_str() {
            text["error"] = detail.into();
        }
    }
    text
}
