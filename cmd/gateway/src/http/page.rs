//! The status page: `/` and what it loads from `/page/`, which are part of the program.
//!
//! Owns the files' bytes, their types and the policy under which a browser runs them. They hold no
//! data: what the page shows it fetches from `/cluster`, `/metrics` and `/events` of this process.

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::problem::Problem;

/// Nothing but what this process serves, no script or style within the page, nothing elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// A file of the page.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const PAGE: Asset = Asset {
    name: "",
    content_type: "text/html; charset=utf-8",
    text: include_str!("page/status.html"),
};

/// What the page loads, by its name below `/page/`.
const PARTS: [Asset; 9] = [
    Asset {
        name: "status.css",
        content_type: "text/css; charset=utf-8",
        text: include_str!("page/status.css"),
    },
    script("status.js", include_str!("page/status.js")),
    script("cluster.js", include_str!("page/cluster.js")),
    script("process.js", include_str!("page/process.js")),
    script("events.js", include_str!("page/events.js")),
    script("dom.js", include_str!("page/dom.js")),
    script("metrics.js", include_str!("page/metrics.js")),
    script("chart.js", include_str!("page/chart.js")),
    script("ring.js", include_str!("page/ring.js")),
];

const fn script(name: &'static str, text: &'static str) -> Asset {
    Asset { name, content_type: "text/javascript; charset=utf-8", text }
}

pub(super) async fn on_page(headers: HeaderMap) -> Response {
    PAGE.answer(&headers)
}

pub(super) async fn on_part(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match PARTS.iter().find(|part| part.name == name) {
        Some(part) => part.answer(&headers),
        None => Problem::new(StatusCode::NOT_FOUND, "nothing here")
            .detail(format!("the page has no part {name}"))
            .into_response(),
    }
}

impl Asset {
    /// The file, or 304 to who has it. It is asked for each time, so that a page never runs with
    /// the script of another version.
    fn answer(&self, asked: &HeaderMap) -> Response {
        let etag = format!("\"{:08x}-{}\"", crc32c::crc32c(self.text.as_bytes()), self.text.len());
        let had = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let is_own = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag;
        let is_had = had.is_some_and(|had| had.split(',').any(|tag| is_own(tag.trim())));
        let mut response = match is_had {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => self.text.into_response(),
        };
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: &'static str| {
            headers.insert(name, HeaderValue::from_static(value));
        };
        set(header::CONTENT_TYPE, self.content_type);
        set(header::CACHE_CONTROL, "no-cache");
        set(header::CONTENT_SECURITY_POLICY, POLICY);
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(header::REFERRER_POLICY, "no-referrer");
        if let Ok(etag) = HeaderValue::try_from(etag) {
            headers.insert(header::ETAG, etag);
        }
        response
    }
}
