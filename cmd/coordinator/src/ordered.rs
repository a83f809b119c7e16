//! `PUT /configuration`: a file that takes the place of the one on the coordinator's disk.
//!
//! In: the text of a configuration, maybe the document that it was made for (`If-Match`). It goes
//! through a queue to the publisher, which answers with the document in force afterwards or with a
//! [`Refusal`]. Invariant: orders are carried out one after the other, and few wait. Whoever reaches
//! the port can order: it is opened beyond this machine only where the operator says so.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tako_types::{Epoch, ErrorKind, limits::CONFIGURATION_BYTES_MAX};
use tokio::sync::{mpsc::error::TrySendError, oneshot};

use crate::{
    CoordinatorError,
    http::{Document, Shared},
};

/// Orders that wait behind the one that is being carried out.
pub(crate) const WAITING_MAX: usize = 1;
/// First line of a file that was ordered so: what was written by hand is kept, once.
pub(crate) const MARK: &str = "# Ordered over HTTP. What was written here by hand last is kept \
                               beside this file, as .before.\n";
/// Longest text; the file is longer by its first line.
pub(crate) const BODY_BYTES_MAX: usize = CONFIGURATION_BYTES_MAX - MARK.len();

/// A file to be taken.
#[derive(Debug)]
pub(crate) struct Ordered {
    pub(crate) text: String,
    /// The documents that it may follow, as `If-Match` names them; any, where it says nothing.
    pub(crate) unless_changed: Option<String>,
    /// What became of it.
    pub(crate) reply: oneshot::Sender<Result<Arc<Document>, Refusal>>,
}

/// Why a file was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is no configuration.
    Text(String),
    /// It may not follow what is in force.
    NotNow(String),
    /// Another coordinator gives the numbers.
    NotHere { master: String, why: String },
    /// It was made for another document than this one.
    Changed(Epoch),
    /// Something is away.
    Unavailable(String),
}

impl Refusal {
    /// Of an error before anything was changed.
    pub(crate) fn of(error: &CoordinatorError) -> Self {
        match error {
            CoordinatorError::NotMaster { master, .. } => {
                Self::NotHere { master: master.clone(), why: error.to_string() }
            }
            CoordinatorError::Changed { in_force } => Self::Changed(*in_force),
            // The path is that of a file which says something else.
            CoordinatorError::Config { source, .. } => Self::NotNow(source.to_string()),
            error if error.kind() == ErrorKind::Unavailable => Self::Unavailable(error.to_string()),
            error => Self::NotNow(error.to_string()),
        }
    }

    /// Of an error after the file was replaced, and not put back.
    pub(crate) fn later(error: &CoordinatorError) -> Self {
        if error.is_refusal() {
            return Self::of(error);
        }
        Self::Unavailable(format!("the file is in place and will be taken later: {error}"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, title, detail) = match self {
            Self::Text(why) => (StatusCode::BAD_REQUEST, "no configuration", why),
            Self::NotNow(why) => (StatusCode::CONFLICT, "not allowed now", why),
            Self::NotHere { master, why } => {
                let body = json!({ "title": "another coordinator is master", "status": 409,
                                   "detail": why, "master": master });
                return problem(StatusCode::CONFLICT, &body);
            }
            Self::Changed(in_force) => {
                let why = CoordinatorError::Changed { in_force }.to_string();
                (StatusCode::PRECONDITION_FAILED, "the configuration has changed", why)
            }
            Self::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, "not now", why),
        };
        problem(status, &json!({ "title": title, "status": status.as_u16(), "detail": detail }))
    }
}

fn problem(status: StatusCode, body: &serde_json::Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, kind, body.to_string()).into_response()
}

/// The handler; the body limit is the router's.
pub(crate) async fn put(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            let (status, text) = (error.status(), error.body_text());
            let body = json!({ "title": "no body", "status": status.as_u16(), "detail": text });
            return problem(status, &body);
        }
    };
    let Ok(text) = String::from_utf8(body.into()) else {
        return Refusal::Text("it is not UTF-8".to_owned()).into_response();
    };
    let unless_changed = match headers.get(header::IF_MATCH).map(|value| value.to_str()) {
        None => None,
        Some(Ok(known)) => Some(known.to_owned()),
        // Nothing that could be meant by it is in force.
        Some(Err(_)) => Some(String::new()),
    };
    let (reply, answer) = oneshot::channel();
    match shared.orders.try_send(Ordered { text, unless_changed, reply }) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => {
            return Refusal::Unavailable("another order waits already".to_owned()).into_response();
        }
        Err(TrySendError::Closed(_)) => return ending(),
    }
    match answer.await {
        Ok(Ok(document)) => {
            let etag = [(header::ETAG, document.etag())];
            (etag, Json(shared.status(&document.published))).into_response()
        }
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => ending(),
    }
}

fn ending() -> Response {
    Refusal::Unavailable("the coordinator is ending".to_owned()).into_response()
}
