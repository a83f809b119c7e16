//! What the coordinator answers over HTTP: `/configuration`, `/healthz`, `/status`, `/metrics`.
//!
//! What is asked is answered from memory alone: it costs no file, store or lock that is held for
//! long. What is ordered (`PUT /configuration`) is in `ordered.rs`.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use serde_json::json;
use tako_types::{NodeId, config::Published};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    metrics,
    ordered::{self, BODY_BYTES_MAX, Ordered},
};

/// A document and the bytes it travels as.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) published: Published,
    pub(crate) bytes: Bytes,
}

impl Document {
    /// What stands for it in `ETag`.
    pub(crate) fn etag(&self) -> String {
        let epoch = self.published.epoch;
        format!("\"{}-{}\"", epoch.number, hex(&epoch.sha256))
    }

    /// Whether a list as in `If-Match` names it.
    pub(crate) fn is_one_of(&self, known: &str) -> bool {
        let etag = self.etag();
        known.split(',').any(|one| one.trim() == etag || one.trim() == "*")
    }
}

/// What the requests read.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) id: Arc<str>,
    pub(crate) document: watch::Receiver<Arc<Document>>,
    pub(crate) troubles: Arc<Mutex<Troubles>>,
    pub(crate) progress: Arc<watch::Sender<Option<Progress>>>,
    /// Files to be taken, one after the other.
    pub(crate) orders: mpsc::Sender<Ordered>,
}

/// How a migration goes on.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// The document that this was said of.
    pub(crate) number: u64,
    /// Since when that document is being carried out here.
    pub(crate) since: Instant,
    /// What the file orders.
    pub(crate) goal: &'static str,
    /// Why the next document is not published yet; empty when only the order is missing.
    pub(crate) waits_for: Vec<String>,
    /// Nodes that the file gives up.
    pub(crate) gives_up: BTreeSet<NodeId>,
}

/// What is wrong now, by where it comes from.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    file: Option<String>,
    store: Option<String>,
    migration: Option<String>,
    backups: Option<String>,
}

/// Where a trouble comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    /// The configuration file, and publishing what it says.
    File,
    /// Documents of other coordinators in the store.
    Store,
    /// Carrying out a migration.
    Migration,
    /// Backups by the configuration's rules.
    Backups,
}

impl Source {
    /// Each, in the order in which `last_error` looks.
    pub(crate) const ALL: [Self; 4] = [Self::File, Self::Store, Self::Migration, Self::Backups];

    /// As metrics name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Store => "store",
            Self::Migration => "migration",
            Self::Backups => "backups",
        }
    }
}

impl Troubles {
    fn of(&mut self, source: Source) -> &mut Option<String> {
        match source {
            Source::File => &mut self.file,
            Source::Store => &mut self.store,
            Source::Migration => &mut self.migration,
            Source::Backups => &mut self.backups,
        }
    }
}

impl Shared {
    /// Notes a trouble or its end; says whether that is news.
    pub(crate) fn note(&self, source: Source, trouble: Option<String>) -> bool {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = troubles.of(source);
        let is_news = *slot != trouble;
        *slot = trouble;
        is_news
    }

    /// `GET /status` while `document` is in force.
    pub(crate) fn status(&self, document: &Published) -> serde_json::Value {
        let epoch = document.epoch;
        json!({
            "id": &*self.id,
            "epoch": { "number": epoch.number, "sha256": hex(&epoch.sha256) },
            "active_deployment": document.config.active,
            "master": document.config.master(),
            "migration": migration(self, document),
            "warnings": document.config.warnings(),
            "last_error": self.last_error(),
        })
    }

    fn last_error(&self) -> Option<String> {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        Source::ALL.iter().find_map(|source| troubles.of(*source).clone())
    }

    /// Whether something is wrong there now.
    pub(crate) fn has_trouble(&self, source: Source) -> bool {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.of(source).is_some()
    }

    /// For how long a migration's phase is being carried out here.
    pub(crate) fn waits_since(&self, document: &Published) -> Option<Duration> {
        document.migration.as_ref()?;
        let progress = self.progress.borrow();
        let now = progress.as_ref().filter(|it| it.number == document.epoch.number)?;
        Some(now.since.elapsed())
    }
}

pub(crate) fn router(shared: Shared) -> Router {
    let limit = DefaultBodyLimit::max(BODY_BYTES_MAX);
    Router::new()
        .route("/configuration", get(configuration).put(ordered::put).layer(limit))
        .route("/healthz", get(async || "ok\n"))
        .route("/status", get(status))
        .route("/metrics", get(counted))
        .with_state(shared)
}

async fn configuration(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let document = shared.document.borrow().clone();
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let about = [
        (
            header::HeaderName::from_static("x-timestamp"),
            document.published.epoch.number.to_string(),
        ),
        (header::ETAG, document.etag()),
    ];
    if known.is_some_and(|known| document.is_one_of(known)) {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (about, kind, document.bytes.clone()).into_response()
}

async fn status(State(shared): State<Shared>) -> Json<serde_json::Value> {
    let document = shared.document.borrow().clone();
    Json(shared.status(&document.published))
}

async fn counted(State(shared): State<Shared>) -> Response {
    let document = shared.document.borrow().clone();
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, metrics::text(&shared, &document.published)).into_response()
}

/// The migration under way, or null.
fn migration(shared: &Shared, document: &Published) -> serde_json::Value {
    let Some(migration) = &document.migration else { return serde_json::Value::Null };
    let progress = shared.progress.borrow().clone();
    // A document that came a moment ago has the goal of the one before it.
    let goal = progress.as_ref().map(|progress| progress.goal);
    let gives_up = progress.as_ref().map(|progress| names(&progress.gives_up));
    let now = progress.as_ref().filter(|progress| progress.number == document.epoch.number);
    json!({
        "phase": migration.phase.as_str(),
        "other": migration.other,
        "goal": goal,
        "accept_loss": gives_up,
        "waits_for": now.map(|progress| &progress.waits_for),
    })
}

fn names(nodes: &BTreeSet<NodeId>) -> Vec<&str> {
    nodes.iter().map(NodeId::as_str).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
