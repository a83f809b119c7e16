//! docs/http.md as a client reads it: how a request is written, and what each answer promises.
//!
//! Invariant: nothing is concluded that the document does not say. An answer that it does not
//! allow is told as wrong.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, header};
use tako_checkers::{Outcome, Seen, Version};

use crate::{
    chance::Chance,
    http::{Answer, NoAnswer},
    load::{Ask, value_of},
};

/// A value that a client was given, with its tag: it asks whether it still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// As it came.
    pub etag: String,
    /// The value.
    pub value: u64,
    /// Its version.
    pub version: Version,
}

/// What an answer, or its lack, tells a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// This.
    Sure(Outcome),
    /// Nothing that a history can express: there is a value.
    There,
    /// What the contract does not allow, and the least that is sure all the same.
    Wrong(String, Outcome),
}

/// Writes a request; the same thing is asked in several ways.
///
/// # Errors
/// A key name that is no path.
pub fn request(
    process: &str,
    name: &str,
    ask: &Ask,
    level: Option<usize>,
    known: Option<&Known>,
    chance: &mut Chance,
) -> Result<Request<Full<Bytes>>, String> {
    let mut query = Vec::new();
    let mut headers: Vec<(&str, String)> = Vec::new();
    if let Some(level) = level {
        query.push(format!("{}={level}", if ask.is_read() { "r" } else { "w" }));
    }
    if let Some(micros) = ask.timestamp() {
        headers.push(("x-timestamp", micros.to_string()));
    }
    let (method, body) = match ask {
        Ask::Get => (Method::GET, Bytes::new()),
        Ask::Head => (Method::HEAD, Bytes::new()),
        Ask::Delete { .. } | Ask::Change { new: None, .. } => (Method::DELETE, Bytes::new()),
        Ask::Change { bytes, .. } => {
            (if chance.yes(0.3) { Method::POST } else { Method::PUT }, bytes.clone())
        }
        Ask::Put { bytes, ttl, .. } => {
            if let Some(ttl) = ttl {
                let text = ttl_text(*ttl);
                match chance.below(3) {
                    0 => query.push(format!("ttl={text}")),
                    1 => headers.push(("x-tako-ttl", text)),
                    _ => {
                        // The header wins.
                        query.push("ttl=3d".to_owned());
                        headers.push(("x-tako-ttl", text));
                    }
                }
            }
            if chance.yes(0.3) {
                headers.push(("content-type", "text/plain".to_owned()));
            }
            (if chance.yes(0.3) { Method::POST } else { Method::PUT }, bytes.clone())
        }
    };
    if let Ask::Change { expected, .. } = ask {
        headers.push(match expected {
            Some(known) => ("if-match", known.etag.clone()),
            None => ("if-none-match", "*".to_owned()),
        });
    }
    if let Some(known) = known.filter(|_| *ask == Ask::Get) {
        headers.push(("if-none-match", known.etag.clone()));
    }
    let path = match query.as_slice() {
        [] => format!("/values/{name}"),
        query => format!("/values/{name}?{}", query.join("&")),
    };
    let mut builder = Request::builder().method(method).uri(path).header(header::HOST, process);
    for (header, value) in headers {
        builder = builder.header(header, value);
    }
    builder.body(Full::new(body)).map_err(|error| format!("{name}: {error}"))
}

fn ttl_text(ttl: Duration) -> String {
    match ttl.subsec_millis() {
        0 => ttl.as_secs().to_string(),
        _ => format!("{}ms", ttl.as_millis()),
    }
}

/// What a client concludes. `too_large`: the value was longer than is allowed.
#[must_use]
pub fn told(
    ask: &Ask,
    too_large: bool,
    known: Option<&Known>,
    answer: &Result<Answer, NoAnswer>,
) -> Told {
    match (answer, ask.is_read()) {
        (Err(_), true) => Told::Sure(Outcome::Unavailable),
        (Err(NoAnswer::NotSent), false) => Told::Sure(Outcome::Refused),
        (Err(NoAnswer::Lost), false) => Told::Sure(Outcome::Unknown),
        (Ok(answer), true) => of_read(ask, known, answer),
        (Ok(answer), false) if matches!(ask, Ask::Change { .. }) => of_change(ask, answer),
        (Ok(answer), false) => of_write(ask, too_large, answer),
    }
}

fn of_read(ask: &Ask, known: Option<&Known>, answer: &Answer) -> Told {
    let wrong = |what: &str| {
        let text = format!("a {} was answered {}: {what}", ask.kind(), answer.status);
        Told::Wrong(text, Outcome::Unavailable)
    };
    match answer.status {
        200 if *ask == Ask::Head => {
            version_of(answer).map_or_else(|why| wrong(&why), |_| Told::There)
        }
        200 => match (version_of(answer), value_of(&answer.body)) {
            (Ok(version), Some(value)) => Told::Sure(Outcome::Found { value, version }),
            (Err(why), _) => wrong(&why),
            (Ok(_), None) => wrong("bytes that no client wrote"),
        },
        304 => match (known, version_of(answer)) {
            (Some(known), Ok(version)) if known.version == version => {
                Told::Sure(Outcome::Found { value: known.value, version })
            }
            (None, _) => wrong("no tag was sent"),
            (_, version) => wrong(&format!("its version is {version:?}")),
        },
        404 => Told::Sure(Outcome::Absent { version: None }),
        503 => Told::Sure(Outcome::Unavailable),
        _ => wrong(&text(answer)),
    }
}

fn of_write(ask: &Ask, too_large: bool, answer: &Answer) -> Told {
    let wrong = |what: &str| {
        let text = format!("a {} was answered {}: {what}", ask.kind(), answer.status);
        Told::Wrong(text, Outcome::Unknown)
    };
    let done = if matches!(ask, Ask::Delete { .. }) { 204 } else { 200 };
    match answer.status {
        status if status == done && !too_large => match (version_of(answer), ask.timestamp()) {
            (Err(why), _) => wrong(&why),
            (Ok(version), Some(own)) if version.micros < own => {
                wrong(&format!("{version} holds, but {own} was sent"))
            }
            (Ok(version), _) if answer.header("x-tako-superseded").is_some() => {
                Told::Sure(Outcome::Superseded { version })
            }
            (Ok(version), Some(own)) if own != version.micros => {
                wrong(&format!("it was not superseded, but {version} holds, and {own} was sent"))
            }
            (Ok(version), _) => Told::Sure(Outcome::Acked { version }),
        },
        // How far ahead a timestamp lies is for the process' clock to say.
        400 if ask.timestamp().is_some() => Told::Sure(Outcome::Refused),
        408 => Told::Sure(Outcome::Refused),
        413 if too_large => Told::Sure(Outcome::Refused),
        503 => Told::Sure(Outcome::Unknown),
        _ => wrong(&text(answer)),
    }
}

fn of_change(ask: &Ask, answer: &Answer) -> Told {
    let wrong = |what: &str| {
        let text = format!("a {} was answered {}: {what}", ask.kind(), answer.status);
        Told::Wrong(text, Outcome::Unknown)
    };
    let done = if matches!(ask, Ask::Change { new: None, .. }) { 204 } else { 200 };
    match answer.status {
        status if status == done => match version_of(answer) {
            Ok(version) => Told::Sure(Outcome::Applied { version }),
            Err(why) => wrong(&why),
        },
        412 => Told::Sure(Outcome::Mismatch { seen: Seen::Untold }),
        408 => Told::Sure(Outcome::Refused),
        503 if text(answer).contains("\"outcome unknown\"") => Told::Sure(Outcome::Unknown),
        503 if text(answer).contains("nothing was changed") => Told::Sure(Outcome::Refused),
        _ => wrong(&text(answer)),
    }
}

/// The version that an answer names, in its tag and in its timestamp.
fn version_of(answer: &Answer) -> Result<Version, String> {
    let etag = answer.header("etag").unwrap_or_default();
    let micros = answer.header("x-timestamp").unwrap_or_default();
    let parts = etag.trim_matches('"').split_once('-');
    let version = parts.and_then(|(micros, origin)| {
        Some(Version::new(micros.parse().ok()?, u64::from_str_radix(origin, 16).ok()?))
    });
    match version {
        Some(version) if micros.parse() == Ok(version.micros) => Ok(version),
        _ => Err(format!("ETag {etag} and X-Timestamp {micros} name no version")),
    }
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).trim().to_owned()
}
