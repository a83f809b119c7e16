//! Reading a request's body: within its limit, a memory budget and a stall time-out.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, timeout, timeout_at},
};

use super::problem::Problem;
use crate::{BODY_BYTES_PER_SECOND_MIN, BODY_UNIT, Gateway};

/// A body in memory, and its share of the budget.
pub(crate) struct Received<'a> {
    pub(crate) bytes: Bytes,
    _share: SemaphorePermit<'a>,
}

/// Reads a whole body of at most `limit` bytes; `whose` limit it is, in words.
pub(crate) async fn receive<'a>(
    gateway: &'a Gateway,
    headers: &HeaderMap,
    mut body: Body,
    (limit, whose): (usize, &'static str),
) -> Result<Received<'a>, Problem> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(too_large(limit, whose));
    }
    // A body of unknown length may become as long as the limit.
    let units = u32::try_from(length.unwrap_or(limit) / BODY_UNIT + 1).unwrap_or(u32::MAX);
    let stall = gateway.options.body_stall;
    let share = timeout(stall, gateway.body_budget.acquire_many(units))
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy")
                .detail("too many bytes are being uploaded at once; try again")
        })?;
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut total = 0;
    let began = Instant::now();
    loop {
        let pace = Duration::from_secs((total / BODY_BYTES_PER_SECOND_MIN) as u64);
        let until = (began + stall + pace).min(Instant::now() + stall);
        let frame = match timeout_at(until, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => {
                return Err(Problem::invalid(
                    "the body ended before its announced length, or its chunks are malformed; \
                     nothing was stored, send it again",
                ));
            }
            Err(_) => {
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too slow").detail(format!(
                    "the body stood still for {stall:?} or came at less than \
                         {BODY_BYTES_PER_SECOND_MIN} bytes a second; nothing was stored, send it \
                         again"
                )));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        total += data.len();
        if total > limit {
            return Err(too_large(limit, whose));
        }
        match &first {
            // A small body is one frame: it is kept as it came.
            None => first = Some(data),
            Some(head) => {
                if rest.is_empty() {
                    rest.reserve(length.unwrap_or(total).max(total));
                    rest.extend_from_slice(head);
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    let bytes = if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() };
    Ok(Received { bytes, _share: share })
}

fn too_large(limit: usize, whose: &str) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too large")
        .detail(format!("the limit is {limit} bytes ({whose})"))
        .limit(limit)
}
