//! What a run does: the options after they were checked together, and the targets resolved.
//!
//! Nothing after this module sees raw option text.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use tako_types::limits::VALUE_BYTES_MAX_LIMIT;

use super::{
    args::{BenchArgs, Distribution, Mode, Protocol, Verify},
    ledger::{KEYS_MAX, Ledger},
    phase::{Kind, Phase, Ramp},
    pick::Picker,
    rpc::Nodes,
    scenario::{Part, Scenario},
    value::{self, Header},
    wire::Requests,
};

/// Refusals of one server whose words are logged, and how much of each.
const REFUSALS_TOLD: usize = 5;
const REFUSAL_BYTES: usize = 400;

/// One load, whichever server it goes to.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) pipeline: usize,
    pub(crate) warmup: Duration,
    pub(crate) requests: Option<u64>,
    pub(crate) timeout: Duration,
    /// Keys written beforehand, and their values' length.
    pub(crate) key_count: u64,
    pub(crate) value_bytes: usize,
    /// One after the other; at least one.
    pub(crate) phases: Vec<Phase>,
    pub(crate) seed: u64,
    pub(crate) verify: Verify,
    /// Each answer is kept for a file.
    pub(crate) log: bool,
}

impl Plan {
    /// `args` are resolved.
    pub(crate) fn new(args: &BenchArgs, scenario: Option<&Scenario>) -> anyhow::Result<Self> {
        check(args, scenario.is_some())?;
        let (warmup, phases) = match scenario {
            None => (args.warmup, vec![only_phase(args)?]),
            Some(scenario) => (Duration::ZERO, phases_of(scenario)),
        };
        for phase in &phases {
            let (mix, name) = (phase.mix, &phase.name);
            let special = 0.0 < mix.scans || 0.0 < mix.changes;
            ensure!(
                !special || args.protocol == Protocol::Http,
                "{name}: scans and changes are spoken over HTTP only"
            );
            ensure!(
                !special || args.peer.as_deref() != Some("axum"),
                "{name}: a bare handler knows neither scans nor changes; give a URL as --peer"
            );
            ensure!(
                mix.changes <= 0.0 || args.pipeline == 1,
                "{name}: a change waits for its own read: --pipeline must be 1"
            );
        }
        let connections = scenario.and_then(|it| it.connections).unwrap_or(args.connections);
        Ok(Self {
            connections,
            threads: args.threads.min(connections),
            pipeline: args.pipeline,
            warmup,
            requests: args.requests,
            timeout: args.timeout,
            key_count: args.key_count(),
            value_bytes: args.value_bytes(),
            phases,
            seed: args.seed,
            verify: args.verify,
            log: args.answers.is_some(),
        })
    }

    /// When the load is over, since it began; none: a number of requests ends it.
    pub(crate) fn end(&self) -> Option<Duration> {
        self.phases.last().and_then(|phase| phase.until)
    }

    /// The index of the phase at this time of the load; the last one after its end.
    pub(crate) fn phase_at(&self, since_start: Duration) -> usize {
        self.phases.iter().rposition(|phase| phase.from <= since_start).unwrap_or(0)
    }
}

/// What the options mean together.
fn check(args: &BenchArgs, scenario: bool) -> anyhow::Result<()> {
    if scenario {
        ensure!(
            args.mode == Mode::Closed
                && args.rate.is_none()
                && args.requests.is_none()
                && args.pipeline == 1
                && args.peer.is_none()
                && args.workload.is_none(),
            "a scenario has its own load: leave out --mode, --rate, --requests, --pipeline, --peer \
             and --workload"
        );
    } else {
        ensure!(args.stretch.is_none(), "--stretch is for --scenario");
    }
    ensure!(
        args.peer.is_none() || (args.report.is_none() && args.metrics.is_empty()),
        "rounds with a peer have no series: leave out --report and --metrics, or --peer"
    );
    match (args.mode, args.rate) {
        (Mode::Open, None) => bail!("an open loop needs --rate"),
        (Mode::Closed, Some(_)) => bail!("--rate is for --mode open"),
        _ => {}
    }
    ensure!(args.rate.is_none() || args.pipeline == 1, "--pipeline is for --mode closed");
    ensure!((1..=10_000).contains(&args.connections), "--connections is 1 to 10000");
    ensure!((1..=256).contains(&args.threads), "--threads is 1 to 256");
    ensure!((1..=1024).contains(&args.pipeline), "--pipeline is 1 to 1024");
    match args.protocol {
        Protocol::Http => ensure!(args.rpc.is_empty(), "--rpc is for --protocol rpc"),
        Protocol::Rpc => {
            ensure!(args.pipeline == 1, "--pipeline is for --protocol http");
            ensure!(
                args.value_bytes() <= VALUE_BYTES_MAX_LIMIT,
                "--value-size is at most {VALUE_BYTES_MAX_LIMIT} bytes over RPC"
            );
        }
    }
    ensure!((1..=100).contains(&args.rounds), "--rounds is 1 to 100");
    ensure!((1..=256).contains(&args.peer_workers), "--peer-workers is 1 to 256");
    ensure!((1..=KEYS_MAX).contains(&args.key_count()), "--keys is 1 to 100 million");
    ensure!(
        args.value_bytes() >= value::HEADER_BYTES,
        "--value-size is at least {} bytes: the header by which values are verified",
        value::HEADER_BYTES
    );
    let share = args.read_share.unwrap_or(0.0);
    ensure!((0.0..=1.0).contains(&share), "--read-share is 0.0 to 1.0");
    ensure!(!args.timeout.is_zero(), "--timeout is above 0");
    ensure!(!args.duration.is_zero(), "--duration is above 0");
    ensure!(args.prefix.len() <= 1024, "--prefix is at most 1024 bytes");
    Ok(())
}

/// The phase of a load that has but one.
fn only_phase(args: &BenchArgs) -> anyhow::Result<Phase> {
    let Kind { name: load, mix, picks } = match (args.workload, args.read_share) {
        (Some(workload), _) => Kind::of(workload),
        (None, Some(share)) => {
            Kind::plain(share, args.distribution.unwrap_or(Distribution::Uniform))
        }
        (None, None) => bail!("neither --read-share nor --workload"),
    };
    Ok(Phase {
        name: args.workload.map_or_else(|| "load".to_owned(), |workload| workload.name()),
        load: describe(&load, args.key_count(), args.value_bytes()),
        from: Duration::ZERO,
        until: args.requests.is_none().then(|| args.warmup + args.duration),
        rate: args.rate.map(Ramp::flat),
        mix,
        picker: Picker::new(picks, args.key_count()),
        value_bytes: args.value_bytes(),
    })
}

/// A phase's load in words.
fn describe(kind: &str, keys: u64, value_bytes: usize) -> String {
    format!("{kind}, {keys} keys, {value_bytes} bytes")
}

fn phases_of(scenario: &Scenario) -> Vec<Phase> {
    let mut from = Duration::ZERO;
    let phase = |part: &Part| {
        let until = from + part.duration;
        let phase = Phase {
            name: part.name.clone(),
            load: describe(&part.kind.name, part.keys, part.value_bytes),
            from,
            until: Some(until),
            rate: part.rate,
            mix: part.kind.mix,
            picker: Picker::new(part.kind.picks, part.keys),
            value_bytes: part.value_bytes,
        };
        from = until;
        phase
    };
    scenario.phases.iter().map(phase).collect()
}

/// One server, or several that hold the same values, and what is known of those values.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) label: String,
    pub(crate) way: Way,
    pub(crate) ledger: Ledger,
    /// What every key begins with.
    pub(crate) prefix: String,
    /// When all keys had been written and acknowledged.
    pub(crate) preloaded: OnceLock<Instant>,
    /// A server that answers every read with one fixed value: only the bytes are checked.
    pub(crate) fixed: bool,
}

/// How it is reached.
#[derive(Debug)]
pub(crate) enum Way {
    /// Connections are dealt out over these in turn; there is at least one.
    Http(Vec<Arc<End>>),
    /// Keys are dealt out over these.
    Rpc(Arc<Nodes>),
}

/// Where an HTTP connection goes.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) addr: SocketAddr,
    pub(crate) requests: Requests,
    /// Refusals that were told.
    told: AtomicUsize,
}

impl End {
    fn new(addr: SocketAddr, requests: Requests) -> Self {
        Self { addr, requests, told: AtomicUsize::new(0) }
    }

    /// Logs what the server said to the first few requests that it refused: the report only counts.
    pub(crate) fn tell_refusal(&self, status: u16, body: &[u8]) {
        if self.told.fetch_add(1, Ordering::Relaxed) < REFUSALS_TOLD {
            let said = &body[..body.len().min(REFUSAL_BYTES)];
            tracing::warn!(status, "refused: {}", String::from_utf8_lossy(said).trim_end());
        }
    }
}

impl Target {
    /// The target that the options name. `run` tells this process's values from those of others.
    pub(crate) async fn named(args: &BenchArgs, run: u32) -> anyhow::Result<Arc<Self>> {
        match args.protocol {
            Protocol::Http => Self::http(&args.urls, &args.prefix, run, args.key_count()).await,
            Protocol::Rpc => {
                let nodes =
                    Nodes::resolve(&args.rpc, args.partitions, &args.prefix, args.seed, run);
                let way = Way::Rpc(nodes.await?);
                let label = format!("rpc {}", args.rpc.join(" "));
                let ledger = Ledger::new(run, args.key_count());
                Ok(Self::new(label, way, ledger, &args.prefix, false))
            }
        }
    }

    /// Resolves the URLs of HTTP servers.
    pub(crate) async fn http(
        urls: &[String],
        prefix: &str,
        run: u32,
        key_count: u64,
    ) -> anyhow::Result<Arc<Self>> {
        let mut ends = Vec::new();
        for url in urls {
            let (addr, host, base) = resolve(url).await?;
            ends.push(Arc::new(End::new(addr, Requests::new(host, base, prefix))));
        }
        let ledger = Ledger::new(run, key_count);
        Ok(Self::new(urls.join(" "), Way::Http(ends), ledger, prefix, false))
    }

    /// A server on `addr` that answers every read with the value of [`fixed_value`].
    pub(crate) fn fixed(label: &str, addr: SocketAddr, prefix: &str, key_count: u64) -> Arc<Self> {
        let requests = Requests::new(&addr.to_string(), "", prefix);
        let way = Way::Http(vec![Arc::new(End::new(addr, requests))]);
        Self::new(label.to_owned(), way, Ledger::new(0, key_count), prefix, true)
    }

    fn new(label: String, way: Way, ledger: Ledger, prefix: &str, fixed: bool) -> Arc<Self> {
        let (prefix, preloaded) = (prefix.to_owned(), OnceLock::new());
        Arc::new(Self { label, way, ledger, prefix, preloaded, fixed })
    }
}

/// What the bare peer answers: a value that passes the same check as any other.
pub(crate) fn fixed_value(bytes: usize) -> Vec<u8> {
    let mut value = Vec::new();
    value::append(&mut value, Header { run: 0, key: 0, number: 1 }, 0, bytes);
    value
}

/// The address, the host and the path that a URL names.
pub(crate) async fn resolve(url: &str) -> anyhow::Result<(SocketAddr, &str, &str)> {
    let (host, base) = split_url(url)?;
    let with_port = if has_port(host) { host.to_owned() } else { format!("{host}:80") };
    let addr = tokio::net::lookup_host(&with_port)
        .await
        .with_context(|| format!("resolve {url}"))?
        .next()
        .with_context(|| format!("{url} has no address"))?;
    Ok((addr, host, base))
}

fn has_port(host: &str) -> bool {
    // A colon inside brackets belongs to an IPv6 address.
    host.rsplit(']').next().is_some_and(|end| end.contains(':'))
}

/// Splits `http://host:port/base/` into host and `/base`.
fn split_url(url: &str) -> anyhow::Result<(&str, &str)> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("`{url}` is not an http:// URL (no other scheme is spoken)"))?;
    let (host, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let clean = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && b != b'@' && b != b'?');
    ensure!(!host.is_empty() && clean(host) && clean(base), "`{url}` is not host, port and path");
    Ok((host, base.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_host_port_and_path_over_plain_http() {
        assert_eq!(split_url("http://a:1").expect("good"), ("a:1", ""));
        assert_eq!(split_url("http://[::1]:1/x/").expect("good"), ("[::1]:1", "/x"));
        assert!(has_port("[::1]:1") && !has_port("[::1]") && !has_port("a"));
        for bad in ["a:1", "https://a", "http://", "http://a b", "http://u@h/"] {
            assert!(split_url(bad).is_err(), "{bad}");
        }
    }
}
