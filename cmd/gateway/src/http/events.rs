//! `GET /events`: the event log of this process, page by page; who asks may wait for the next one.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::Uri,
    response::{IntoResponse, Response},
    routing::get,
};

use super::{on_other_method, problem::Problem};
use crate::events::EventLog;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// Longest wait: shorter than what proxies between give up after.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The route, of a process with this name.
pub fn event_routes(log: Arc<EventLog>, process: impl Into<Arc<str>>) -> Router {
    Router::new()
        .route("/events", get(on_events).fallback(on_other_method))
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
