//! `GET /events`: the event log of this process, page by page; who asks may wait for the next one.
//! `/log-level`: what the process writes to its log.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{on_other_method, problem::Problem};
use crate::events::EventLog;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// Longest wait: shorter than what proxies between give up after.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Longest level that is taken.
const LEVEL_BYTES_MAX: usize = 4 << 10;

/// The routes, of a process with this name.
pub fn event_routes(log: Arc<EventLog>, process: impl Into<Arc<str>>) -> Router {
    Router::new()
        .route("/events", get(on_events).fallback(on_other_method))
        .route("/log-level", get(on_level).put(on_new_level).fallback(on_no_level))
        .with_state((log, process.into()))
}

async fn on_events(State((log, process)): State<(Arc<EventLog>, Arc<str>)>, uri: Uri) -> Response {
    let asked = match asked(&uri) {
        Ok(asked) => asked,
        Err(problem) => return problem.into_response(),
    };
    let page = log.page(asked.run.as_deref(), asked.after, asked.limit, asked.wait).await;
    Json(page.json(&process)).into_response()
}

type Told = State<(Arc<EventLog>, Arc<str>)>;

async fn on_level(State((log, _)): Told) -> Response {
    match &log.level {
        Some(level) => format!("{}\n", level.get()).into_response(),
        None => no_level().into_response(),
    }
}

async fn on_new_level(State((log, _)): Told, body: Body) -> Response {
    let Some(level) = &log.level else { return no_level().into_response() };
    let text = axum::body::to_bytes(body, LEVEL_BYTES_MAX).await.unwrap_or_default();
    match level.set(String::from_utf8_lossy(&text).trim()) {
        Ok(()) => {
            tracing::info!(level = level.get(), "another log level, by order");
            format!("{}\n", level.get()).into_response()
        }
        Err(why) => Problem::invalid(why).into_response(),
    }
}

async fn on_no_level() -> Problem {
    Problem::method("GET, HEAD, PUT")
}

fn no_level() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "nothing here").detail("the level of this log is fixed")
}

struct Asked {
    run: Option<String>,
    after: u64,
    limit: usize,
    wait: Duration,
}

fn asked(uri: &Uri) -> Result<Asked, Problem> {
    let mut asked = Asked { run: None, after: 0, limit: LIMIT_DEFAULT, wait: Duration::ZERO };
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = || {
            let bad = |_| Problem::invalid(format!("{name}={value}: not a number from 0"));
            value.parse::<u64>().map_err(bad)
        };
        match name {
            "run" => asked.run = Some(value.to_owned()),
            "after" => asked.after = number()?,
            "limit" => {
                asked.limit = usize::try_from(number()?).unwrap_or(LIMIT_MAX).clamp(1, LIMIT_MAX);
            }
            "wait" => asked.wait = Duration::from_secs(number()?).min(WAIT_MAX),
            _ => {
                let text = format!("{name} is unknown; there are run, after, limit and wait");
                return Err(Problem::invalid(text));
            }
        }
    }
    Ok(asked)
}
