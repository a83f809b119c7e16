//! What servers count about themselves, second by second: `GET /metrics`, as docs/metrics.md has it.
//!
//! In: URLs and when the load began. Out: one [`Series`] per server, with what its counters rose by in
//! each second. A second without an answer has nothing; the next one then has the rise of both. A
//! counter that fell belongs to a process that was started again, and rose from 0.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval_at, timeout},
};

use super::{
    plan::resolve,
    wire::{Connection, WireError},
};

/// Longest wait for an answer; shorter than the time between two questions.
const ANSWER_MAX: Duration = Duration::from_millis(800);

/// One server's seconds, from 0.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// What it is called: the name that was given, or host and port.
    pub name: String,
    /// By second since the load began; none where it did not answer at the end of it. The last one
    /// may be shorter.
    pub points: Vec<Option<Counted>>,
}

/// What a server counted in one second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Counted {
    /// Votes by where the record was: index, cache, snapshot (`tako_votes_total`).
    pub votes: BTreeMap<String, f64>,
    /// Requests to the object store by kind (`tako_store_requests_total`).
    pub store_requests: BTreeMap<String, f64>,
    /// What no step had brought into the store at the end of the second (`tako_uncovered_bytes`);
    /// none where it is no node.
    pub uncovered_bytes: Option<f64>,
}

/// Names are resolved at once; the rest of it runs in tasks.
pub(crate) struct Scraper {
    tasks: JoinSet<(usize, Series)>,
}

/// Where to ask.
pub(crate) struct Server {
    name: String,
    addr: SocketAddr,
    request: String,
}

impl Server {
    /// Of `URL` or `NAME=URL`. Errors: no http:// URL, or a host that is not known.
    pub(crate) async fn resolve(text: &str) -> anyhow::Result<Self> {
        let (name, url) = match text.split_once('=') {
            Some((name, url)) if !name.contains(':') => (Some(name), url),
            _ => (None, text),
        };
        let (addr, host, base) = resolve(url).await?;
        let request = format!("GET {base}/metrics HTTP/1.1\r\nhost: {host}\r\n\r\n");
        Ok(Self { name: name.unwrap_or(host).to_owned(), addr, request })
    }
}

impl Scraper {
    /// Asks each server at `start` and then once a second, until `over` holds true.
    pub(crate) fn start(
        servers: Vec<Server>,
        start: Instant,
        over: &watch::Receiver<bool>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        for (at, server) in servers.into_iter().enumerate() {
            let over = over.clone();
            tasks.spawn(async move { (at, watch_one(server, start, over).await) });
        }
        Self { tasks }
    }

    /// Waits for their ends.
    pub(crate) async fn series(self) -> Vec<Series> {
        let mut series = self.tasks.join_all().await;
        series.sort_by_key(|(at, _)| *at);
        series.into_iter().map(|(_, series)| series).collect()
    }
}

async fn watch_one(server: Server, start: Instant, mut over: watch::Receiver<bool>) -> Series {
    let mut second = interval_at(start.into(), Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut connection, mut before) = (None, None);
    let mut points = Vec::new();
    let mut last = false;
    while !last {
        // The second that a load ends in is told as well.
        last = tokio::select! {
            _ = second.tick() => false,
            // An error means that the load is gone.
            _ = over.wait_for(|over| *over) => true,
        };
        let at = start.elapsed();
        let asked = timeout(ANSWER_MAX, ask(&server, &mut connection)).await;
        let now = asked.ok().and_then(Result::ok).map(|text| Sample::parse(&text));
        if now.is_none() {
            connection = None;
        }
        // Whether the last question comes just before a second is over, or just after, is chance.
        let at = if last { at + Duration::from_millis(500) } else { at };
        let ended = usize::try_from(at.as_secs()).unwrap_or(0);
        if points.len() < ended {
            // Seconds that were skipped have nothing.
            points.resize(ended - 1, None);
            points.push(now.as_ref().map(|now| now.since(before.as_ref())));
        }
        before = now.or(before);
    }
    Series { name: server.name, points }
}

async fn ask(server: &Server, connection: &mut Option<Connection>) -> Result<String, WireError> {
    let connection = match connection {
        Some(connection) if !connection.is_closing() => connection,
        stale => stale.insert(Connection::open(server.addr).await?),
    };
    connection.out().extend_from_slice(server.request.as_bytes());
    let answer = connection.answer().await?;
    match answer.status {
        200 => Ok(String::from_utf8_lossy(answer.body).into_owned()),
        _ => Err(WireError::Malformed),
    }
}

/// The counters of one moment.
#[derive(Debug, Default, PartialEq)]
struct Sample {
    votes: BTreeMap<String, f64>,
    store_requests: BTreeMap<String, f64>,
    uncovered_bytes: Option<f64>,
}

impl Sample {
    /// Of a text in Prometheus' format; what is not known is passed over.
    fn parse(text: &str) -> Self {
        let mut sample = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            let label = labels.split('"').nth(1).unwrap_or_default().to_owned();
            match name {
                "tako_votes_total" => *sample.votes.entry(label).or_default() += value,
                "tako_store_requests_total" => {
                    *sample.store_requests.entry(label).or_default() += value;
                }
                "tako_uncovered_bytes" => sample.uncovered_bytes = Some(value),
                _ => {}
            }
        }
        sample
    }

    fn since(&self, before: Option<&Self>) -> Counted {
        let rise = |now: &BTreeMap<String, f64>, of: fn(&Self) -> &BTreeMap<String, f64>| {
            // Without an earlier sample nobody knows what belongs to this second.
            let Some(before) = before.map(of) else { return BTreeMap::new() };
            let rise = |(label, now): (&String, &f64)| {
                let was = before.get(label).copied().unwrap_or(0.0);
                (label.clone(), if was <= *now { now - was } else { *now })
            };
            now.iter().map(rise).collect()
        };
        Counted {
            votes: rise(&self.votes, |sample| &sample.votes),
            store_requests: rise(&self.store_requests, |sample| &sample.store_requests),
            uncovered_bytes: self.uncovered_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "\
# HELP tako_votes_total Answers of this replica for a key.
# TYPE tako_votes_total counter
tako_votes_total{from=\"cache\"} 10
tako_votes_total{from=\"snapshot\"} 2
tako_request_seconds_bucket{operation=\"read\",le=\"0.001\"} 7
tako_store_requests_total{kind=\"put\"} 4
tako_uncovered_bytes 1.5e3
nonsense
";

    #[test]
    fn counters_give_what_they_rose_by_and_gauges_what_they_are() {
        let first = Sample::parse(FIRST);
        let later = FIRST.replace("} 10", "} 25").replace("1.5e3", "0");
        let counted = Sample::parse(&later).since(Some(&first));
        assert_eq!(counted.votes, [("cache".into(), 15.0), ("snapshot".into(), 0.0)].into());
        assert_eq!(counted.store_requests, [("put".into(), 0.0)].into());
        assert_eq!(counted.uncovered_bytes, Some(0.0));
        let restarted = Sample::parse("tako_votes_total{from=\"cache\"} 3\n").since(Some(&first));
        assert_eq!(restarted.votes, [("cache".into(), 3.0)].into());
        assert_eq!(restarted.uncovered_bytes, None);
        assert!(first.since(None).votes.is_empty());
    }
}
