//! `If-Match` and `If-None-Match` of a write, and the answers to writes that bear one.
//!
//! In: the headers of a PUT, POST or DELETE. Out: a [`Condition`], or a clear refusal: a condition is
//! never ignored. An entity tag that names no version of this cluster matches no value, as a tag of
//! another server would not.

use axum::{
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use tako_flatbuf::{ChangeOutcome, Condition};
use tako_node_core::replication::{RequestError, Written};
use tako_types::{ErrorKind, Version, limits::CONDITION_VERSIONS_MAX};

use super::{super::problem::Problem, Query, TIMESTAMP, etag, header_value, written_answer};

/// The condition of a write, if it has one.
pub(super) fn condition_of(
    headers: &HeaderMap,
    query: &Query,
) -> Result<Option<Condition>, Problem> {
    if headers.contains_key(header::IF_UNMODIFIED_SINCE) {
        let text = "If-Unmodified-Since tells seconds only; use If-Match with the value's ETag";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "not available").detail(text));
    }
    let has = |name: &HeaderName| headers.contains_key(name);
    let condition = match (has(&header::IF_MATCH), has(&header::IF_NONE_MATCH)) {
        (false, false) => return Ok(None),
        (true, true) => {
            return Err(Problem::invalid("give one of If-Match and If-None-Match, not both"));
        }
        (true, false) => match tags(headers, &header::IF_MATCH)? {
            Tags::Any => Condition::Present,
            // A weak tag never matches here (RFC 9110, 13.1.1).
            Tags::These(tags) => {
                let strong = tags.into_iter().filter(|tag| !tag.is_weak);
                Condition::OneOf(strong.filter_map(|tag| tag.version).collect())
            }
        },
        (false, true) => match tags(headers, &header::IF_NONE_MATCH)? {
            Tags::Any => Condition::Absent,
            Tags::These(tags) => {
                Condition::NoneOf(tags.into_iter().filter_map(|tag| tag.version).collect())
            }
        },
    };
    if has(&TIMESTAMP) {
        let text = "a write with a condition gets its timestamp from the cluster: leave out \
                    X-Timestamp, or the condition";
        return Err(Problem::invalid(text));
    }
    if query.w.is_some() {
        let text = "a write with a condition is taken by a majority: leave out w, or the condition";
        return Err(Problem::invalid(text));
    }
    Ok(Some(condition))
}

enum Tags {
    Any,
    These(Vec<Tag>),
}

struct Tag {
    is_weak: bool,
    /// `None` for one that this cluster never gave out.
    version: Option<Version>,
}

/// The entity tags of all headers of that name.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Tags, Problem> {
    let wrong = || {
        Problem::invalid(format!(
            "{name} is neither * nor a list of entity tags, each in double quotes"
        ))
    };
    let mut found = Vec::new();
    let mut is_any = false;
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| wrong())?;
        for tag in text.split(',').map(str::trim) {
            if tag == "*" {
                is_any = true;
                continue;
            }
            let (is_weak, rest) = tag.strip_prefix("W/").map_or((false, tag), |rest| (true, rest));
            let inner = rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let inner = inner.filter(|inner| !inner.contains('"')).ok_or_else(wrong)?;
            found.push(Tag { is_weak, version: inner.parse().ok() });
        }
    }
    if CONDITION_VERSIONS_MAX < found.len() {
        let text =
            format!("{name} has {} tags, the limit is {CONDITION_VERSIONS_MAX}", found.len());
        return Err(Problem::invalid(text));
    }
    match is_any {
        true if found.is_empty() => Ok(Tags::Any),
        true => Err(wrong()),
        false => Ok(Tags::These(found)),
    }
}

/// The answer to a write with a condition.
pub(in crate::http) fn changed_answer(
    done: StatusCode,
    changed: Result<ChangeOutcome, RequestError>,
) -> Result<Response, Problem> {
    match changed {
        Ok(ChangeOutcome::Done { version, .. }) => {
            Ok(written_answer(done, Written { version, won: true }))
        }
        Ok(ChangeOutcome::Fails { version }) => {
            let detail = match version {
                Some(version) => format!("the value there is now has the ETag {}", etag(version)),
                None => "there is no value of this key now".to_owned(),
            };
            let title = "the condition does not hold";
            let problem = Problem::new(StatusCode::PRECONDITION_FAILED, title).detail(detail);
            let mut response = problem.into_response();
            if let Some(version) = version {
                response.headers_mut().insert(header::ETAG, header_value(&etag(version)));
            }
            Ok(response)
        }
        Ok(ChangeOutcome::Cannot(misfit)) => {
            Err(Problem::invalid(format!("what is there cannot be changed so: {misfit:?}")))
        }
        Ok(ChangeOutcome::Unknown { reason }) => {
            let title = "outcome unknown";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, title)
                .detail(format!("it may have been done; read the key and see: {reason}")))
        }
        // Its own words are those of a plain write, of which nobody knows.
        Err(RequestError::Deadline(time)) => Err(Problem::from(RequestError::Deadline(time))
            .detail(format!("nothing was changed: not done within {time:?}"))),
        Err(error) if error.kind() == ErrorKind::Invalid => Err(error.into()),
        Err(error) => {
            let detail = format!("nothing was changed: {error}");
            Err(Problem::from(error).detail(detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(headers: &[(HeaderName, &str)]) -> Result<Option<Condition>, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).expect("a header"));
        }
        condition_of(&map, &Query::default()).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn tags_become_versions_and_what_is_none_is_refused() {
        let version = |micros| Version { micros, origin: 0xab };
        let (one, two) = (version(17), version(18));
        let both = format!("{} , {}", etag(one), etag(two));
        let weak = format!("W/{}, {}, \"other\"", etag(one), etag(two));
        let (m, n) = (header::IF_MATCH, header::IF_NONE_MATCH);
        let cases = [
            ((m.clone(), "*"), Condition::Present),
            ((n.clone(), " * "), Condition::Absent),
            ((m.clone(), both.as_str()), Condition::OneOf(vec![one, two])),
            ((n.clone(), both.as_str()), Condition::NoneOf(vec![one, two])),
            ((m.clone(), weak.as_str()), Condition::OneOf(vec![two])),
            ((n.clone(), weak.as_str()), Condition::NoneOf(vec![one, two])),
        ];
        for (header, expected) in cases {
            assert_eq!(read(&[header]), Ok(Some(expected)));
        }
        let twice = [(m.clone(), etag(one)), (m.clone(), etag(two))];
        let twice: Vec<_> = twice.iter().map(|(name, tag)| (name.clone(), tag.as_str())).collect();
        assert_eq!(read(&twice), Ok(Some(Condition::OneOf(vec![one, two]))));
        assert_eq!(read(&[]), Ok(None));
        let many = vec![etag(one); CONDITION_VERSIONS_MAX + 1].join(",");
        for wrong in ["", "17-ab", "\"a", "*, \"a\"", "\"a\"\"b\"", "w/\"a\"", many.as_str()] {
            assert!(read(&[(m.clone(), wrong)]).is_err(), "{wrong}");
        }
        assert!(read(&[(m.clone(), "*"), (n, "*")]).is_err());
        assert!(read(&[(m.clone(), "*"), (TIMESTAMP, "1")]).is_err());
        assert!(read(&[(header::IF_UNMODIFIED_SINCE, "x")]).is_err());
        let query = Query { w: Some(1), ..Query::default() };
        let headers = HeaderMap::from_iter([(m, HeaderValue::from_static("*"))]);
        assert!(condition_of(&headers, &query).is_err());
    }
}
