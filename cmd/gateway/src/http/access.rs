//! Who asks over HTTP, and whether that one may: before any route sees the request.
//!
//! `Authorization: Bearer TOKEN`, or `Basic` with the token as the password. Invariant: with tokens at
//! the gateway, what is not named here as open or by its scope is refused. What only a route knows (the
//! prefix of a listing, the items of a batch) that route asks the [`Grant`] that is left with the request.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{key::decode, problem::Problem};
use crate::{
    Gateway,
    access::{Access, Grant, Refusal, Scope},
};

/// Lets a request through, or answers it.
pub(super) async fn admit(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    if let Some(access) = &gateway.options.access {
        match check(&gateway, access, &request) {
            Ok(None) => {}
            Ok(Some(grant)) => {
                request.extensions_mut().insert(grant);
            }
            Err(Denial::Unsaid(text)) => return unauthenticated(text),
            Err(Denial::Refused(refusal)) => return refused(&refusal),
        }
    }
    next.run(request).await
}

/// Why a request is not let through.
enum Denial {
    /// No token is said: how to.
    Unsaid(&'static str),
    Refused(Refusal),
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// `None` for what is open to all.
fn check(
    gateway: &Gateway,
    access: &Arc<Access>,
    request: &Request<Body>,
) -> Result<Option<Grant>, Denial> {
    let path = request.uri().path();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    // Balancers ask these, and the status page is the same everywhere: nothing of what is stored.
    if matches!(path, "/" | "/healthz" | "/readyz") || path.starts_with("/page/") {
        return Ok(None);
    }
    let mut grant = grant_of(access, request.headers())?;
    grant.request(gateway.serving.clock().now_micros())?;
    let scope = if reads { Scope::Read } else { Scope::Write };
    let key = ["/values/", "/store/", "/stat/"].iter().find_map(|it| path.strip_prefix(it));
    match (path, key) {
        // Its items are asked for one by one.
        ("/batch", _) => Ok(()),
        ("/cluster" | "/metrics" | "/events", _) => grant.may(Scope::Monitor),
        ("/log-level", _) if reads => grant.may(Scope::Monitor),
        ("/log-level", _) => grant.may(Scope::Admin),
        // A listing asks by its prefix.
        (_, Some("")) => grant.may(scope),
        (_, Some(key)) => match decode(key.as_bytes()) {
            Ok(key) => grant.may_touch(scope, &key),
            // It names no key, and is refused for that.
            Err(_) => grant.may(scope),
        },
        // There is nothing there, which anybody with a token may know.
        (_, None) => Ok(()),
    }?;
    Ok(Some(grant))
}

fn grant_of(access: &Arc<Access>, headers: &HeaderMap) -> Result<Grant, Denial> {
    let Some(said) = headers.get(header::AUTHORIZATION) else {
        let text = "say a token, as in Authorization: Bearer TOKEN";
        return Err(Denial::Unsaid(text));
    };
    let said = said.to_str().unwrap_or_default();
    let (scheme, said) = said.split_once(' ').unwrap_or((said, ""));
    let grant = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => access.enter(None, said.trim().as_bytes()),
        "basic" => {
            let pair = BASE64_STANDARD.decode(said.trim()).unwrap_or_default();
            let pair = String::from_utf8(pair).unwrap_or_default();
            let (name, secret) = pair.split_once(':').unwrap_or_default();
            access.enter(Some(name).filter(|name| !name.is_empty()), secret.as_bytes())
        }
        _ => return Err(Denial::Unsaid("Authorization is Bearer TOKEN, or Basic")),
    };
    grant.ok_or(Denial::Refused(Refusal::Unknown))
}

fn unauthenticated(text: &str) -> Response {
    let mut answer =
        Problem::new(StatusCode::UNAUTHORIZED, "who is asking?").detail(text).into_response();
    // Not Basic: a browser would ask with a window of its own, over and over.
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}

/// A refusal as an answer.
pub(super) fn refused(refusal: &Refusal) -> Response {
    let text = refusal.to_string();
    match refusal {
        Refusal::Unknown => unauthenticated(&text),
        Refusal::Scope(_) | Refusal::Key => {
            Problem::new(StatusCode::FORBIDDEN, "not allowed").detail(text).into_response()
        }
        Refusal::Rate(wait) => {
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many requests");
            let mut answer = problem.detail(text).into_response();
            let seconds = HeaderValue::from(wait.as_secs() + 1);
            answer.headers_mut().insert(header::RETRY_AFTER, seconds);
            answer
        }
    }
}
