//! `GET /values/`: which values there are, in the order of their keys.
//!
//! Sent as it is gathered, so that neither the first bytes nor this process's memory depend on how many
//! there are. Invariant: an answer that broke off is never taken for a whole one: as JSON it is no JSON
//! then, as lines its last line says so.

use std::{io, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, Request, header, request::Parts},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use serde_json::{Value, json};
use tako_node_core::replication::{List, Lister, RequestError};
use tako_types::{NAMESPACE_VALUES, RecordStat, limits::KEY_BYTES_MAX};

use super::{
    access::refused,
    key::{decode, encode},
    problem::Problem,
    values::on_values,
};
use crate::{Gateway, access::Grant};

const LIMIT_DEFAULT: usize = 1_000;
/// Values gathered before they are sent.
const AT_ONCE: usize = 1_000;
const LINES_TYPE: HeaderValue = HeaderValue::from_static("application/x-ndjson");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Lines,
}

#[derive(Debug)]
struct Query {
    list: List,
    limit: usize,
    format: Format,
}

/// A listing; what is no GET or HEAD is for a value without a key.
pub(super) async fn on_listing(
    State(gateway): State<Arc<Gateway>>,
    request: Request<Body>,
) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return on_values(State(gateway), request).await;
    }
    let (head, _) = request.into_parts();
    list(gateway, &head).await.unwrap_or_else(IntoResponse::into_response)
}

async fn list(gateway: Arc<Gateway>, head: &Parts) -> Result<Response, Problem> {
    let Query { list, limit, format } = query_of(head)?;
    if let Some(grant) = head.extensions.get::<Grant>()
        && let Err(refusal) = grant.may_list(&list.prefix)
    {
        return Ok(refused(&refusal));
    }
    let content_type = match format {
        Format::Json => HeaderValue::from_static("application/json"),
        Format::Lines => LINES_TYPE,
    };
    let headers = [(header::CONTENT_TYPE, content_type)];
    if head.method == Method::HEAD {
        return Ok(headers.into_response());
    }
    let lister = gateway.serving.list(list);
    let mut rows = Rows { gateway, lister, left: limit, format, stage: Stage::Begins, last: None };
    // What cannot be begun is said by the status.
    let first = rows.piece().await?;
    if rows.stage == Stage::Ended {
        return Ok((headers, Body::from(first)).into_response());
    }
    let rest = stream::unfold(rows, async |mut rows| {
        if rows.stage == Stage::Ended {
            return None;
        }
        let piece = match rows.piece().await {
            Ok(piece) => Ok(piece),
            Err(error) => rows.broken_off(&error),
        };
        Some((piece, rows))
    });
    let whole = stream::StreamExt::chain(stream::iter([Ok::<_, io::Error>(first)]), rest);
    Ok((headers, Body::from_stream(whole)).into_response())
}

fn query_of(head: &Parts) -> Result<Query, Problem> {
    let list = List { namespace: NAMESPACE_VALUES, prefix: Bytes::new(), after: None };
    let mut query = Query { list, limit: LIMIT_DEFAULT, format: accepted(&head.headers) };
    for pair in head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value.as_bytes())?;
        let text = std::str::from_utf8(&value).unwrap_or("?");
        match name {
            "prefix" | "after" if KEY_BYTES_MAX < value.len() => {
                let text = format!("{name} is longer than any key");
                return Err(Problem::invalid(text).limit(KEY_BYTES_MAX));
            }
            "prefix" => query.list.prefix = value,
            "after" => query.list.after = Some(value),
            "limit" => {
                query.limit = text.parse().ok().filter(|limit| 0 < *limit).ok_or_else(|| {
                    Problem::invalid(format!("limit={text}: not a number of values above 0"))
                })?;
            }
            "format" => {
                query.format = match text {
                    "json" => Format::Json,
                    "ndjson" => Format::Lines,
                    _ => {
                        let text = format!("format={text}: there are json and ndjson");
                        return Err(Problem::invalid(text));
                    }
                };
            }
            _ => {
                return Err(Problem::invalid(format!(
                    "{name} is unknown; there are prefix, after, limit and format (a value's key \
                     stands after /values/)"
                )));
            }
        }
    }
    Ok(query)
}

fn accepted(headers: &HeaderMap) -> Format {
    match headers.get(header::ACCEPT) {
        Some(accept) if accept == LINES_TYPE => Format::Lines,
        _ => Format::Json,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begins,
    GoesOn,
    Ended,
}

/// A body that is being sent.
struct Rows {
    gateway: Arc<Gateway>,
    lister: Lister,
    /// Values that may still be given.
    left: usize,
    format: Format,
    stage: Stage,
    /// The last key that was given.
    last: Option<Bytes>,
}

impl Rows {
    /// The next piece of the body.
    async fn piece(&mut self) -> Result<Bytes, RequestError> {
        let serving = &self.gateway.serving;
        let deadline = serving.links().config.current().config.cluster.request_deadline;
        let is_last = self.left <= AT_ONCE;
        // With the last ones comes one more, to know whether there is any.
        let wanted = if is_last { self.left.saturating_add(1) } else { AT_ONCE };
        let mut page = self.lister.next(serving, wanted, deadline).await?;
        let ended = page.len() < wanted;
        if is_last {
            page.truncate(self.left);
        }
        self.left -= page.len();
        let mut out = BytesMut::new();
        let begins = self.stage == Stage::Begins;
        if begins && self.format == Format::Json {
            out.put_slice(b"{\"values\":[");
        }
        for (n, (key, stat)) in page.iter().enumerate() {
            if self.format == Format::Json {
                out.put_slice(if begins && n == 0 { b"\n" } else { b",\n" });
            }
            put_json(&mut out, &row(key, stat));
            if self.format == Format::Lines {
                out.put_u8(b'\n');
            }
        }
        if let Some((key, _)) = page.pop() {
            self.last = Some(key);
        }
        self.stage = Stage::GoesOn;
        if ended || is_last {
            self.stage = Stage::Ended;
            let next = self.last.as_ref().filter(|_| !ended).map(|key| encode(key));
            match self.format {
                Format::Json => {
                    out.put_slice(b"\n],\"next\":");
                    put_json(&mut out, &json!(next));
                    out.put_slice(b"}\n");
                }
                Format::Lines => {
                    put_json(&mut out, &json!({ "next": next }));
                    out.put_u8(b'\n');
                }
            }
        }
        Ok(out.freeze())
    }

    /// The end of a body that cannot go on.
    fn broken_off(&mut self, error: &RequestError) -> io::Result<Bytes> {
        tracing::warn!("a listing broke off: {error}");
        self.stage = Stage::Ended;
        match self.format {
            // The connection is closed within the body.
            Format::Json => Err(io::Error::other(error.to_string())),
            Format::Lines => {
                let next = self.last.as_ref().map(|key| encode(key));
                let mut out = BytesMut::new();
                put_json(&mut out, &json!({ "error": error.to_string(), "next": next }));
                out.put_u8(b'\n');
                Ok(out.freeze())
            }
        }
    }
}

fn row(key: &Bytes, stat: &RecordStat) -> Value {
    let mut row = json!({
        "version": stat.version.to_string(),
        "timestamp": stat.version.micros,
        "bytes": stat.value_bytes,
    });
    match std::str::from_utf8(key) {
        Ok(text) => row["key"] = text.into(),
        Err(_) => row["key_base64"] = BASE64_STANDARD.encode(key).into(),
    }
    if stat.expires_at_micros != 0 {
        row["expires_at"] = stat.expires_at_micros.into();
    }
    row
}

fn put_json(out: &mut BytesMut, value: &Value) {
    out.put_slice(value.to_string().as_bytes());
}
