//! What a run does: the options after they were checked together, and the targets resolved.
//!
//! Nothing after this module sees raw option text.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tako_types::limits::VALUE_BYTES_MAX_LIMIT;

use super::{
    args::{BenchArgs, Mode, Protocol, Verify},
    ledger::Ledger,
    pick::Picker,
    rpc::Nodes,
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
    /// Requests per second of an open loop; `None` is a closed one.
    pub(crate) rate: Option<f64>,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) requests: Option<u64>,
    pub(crate) timeout: Duration,
    pub(crate) key_count: u64,
    pub(crate) value_bytes: usize,
    pub(crate) read_share: f64,
    pub(crate) picker: Picker,
    pub(crate) seed: u64,
    pub(crate) verify: Verify,
    /// Each answer is kept for a file.
    pub(crate) log: bool,
}

impl Plan {
    pub(crate) fn new(args: &BenchArgs) -> anyhow::Result<Self> {
        let rate = match (args.mode, args.rate) {
            (Mode::Open, None) => bail!("an open loop needs --rate"),
            (Mode::Closed, Some(_)) => bail!("--rate is for --mode open"),
            (_, rate) => rate,
        };
        ensure!(rate.is_none() || args.pipeline == 1, "--pipeline is for --mode closed");
        ensure!((1..=10_000).contains(&args.connections), "--connections is 1 to 10000");
        ensure!((1..=256).contains(&args.threads), "--threads is 1 to 256");
        ensure!((1..=1024).contains(&args.pipeline), "--pipeline is 1 to 1024");
        match args.protocol {
            Protocol::Http => ensure!(args.rpc.is_empty(), "--rpc is for --protocol rpc"),
            Protocol::Rpc => {
                ensure!(args.pipeline == 1, "--pipeline is for --protocol http");
                ensure!(
                    args.value_size <= VALUE_BYTES_MAX_LIMIT,
                    "--value-size is at most {VALUE_BYTES_MAX_LIMIT} bytes over RPC"
                );
            }
        }
        ensure!((1..=100).contains(&args.rounds), "--rounds is 1 to 100");
        ensure!((1..=256).contains(&args.peer_workers), "--peer-workers is 1 to 256");
        ensure!((1..=100_000_000).contains(&args.keys), "--keys is 1 to 100 million");
        ensure!(
            args.value_size >= value::HEADER_BYTES,
            "--value-size is at least {} bytes: the header by which values are verified",
            value::HEADER_BYTES
        );
        ensure!((0.0..=1.0).contains(&args.read_share), "--read-share is 0.0 to 1.0");
        ensure!(!args.timeout.is_zero(), "--timeout is above 0");
        ensure!(!args.duration.is_zero(), "--duration is above 0");
        ensure!(args.prefix.len() <= 1024, "--prefix is at most 1024 bytes");
        Ok(Self {
            connections: args.connections,
            threads: args.threads.min(args.connections),
            pipeline: args.pipeline,
            rate,
            warmup: args.warmup,
            duration: args.duration,
            requests: args.requests,
            timeout: args.timeout,
            key_count: args.keys,
            value_bytes: args.value_size,
            read_share: args.read_share,
            picker: Picker::new(args.distribution, args.keys),
            seed: args.seed,
            verify: args.verify,
            log: args.answers.is_some(),
        })
    }
}

/// One server, or several that hold the same values, and what is known of those values.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) label: String,
    pub(crate) way: Way,
    pub(crate) ledger: Ledger,
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
            Protocol::Http => Self::http(&args.urls, &args.prefix, run, args.keys).await,
            Protocol::Rpc => {
                let nodes =
                    Nodes::resolve(&args.rpc, args.partitions, &args.prefix, args.seed, run);
                let way = Way::Rpc(nodes.await?);
                let label = format!("rpc {}", args.rpc.join(" "));
                let ledger = Ledger::new(run, usize::try_from(args.keys)?);
                Ok(Arc::new(Self { label, way, ledger, fixed: false }))
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
            let (host, base) = split_url(url)?;
            let with_port = if has_port(host) { host.to_owned() } else { format!("{host}:80") };
            let addr = tokio::net::lookup_host(&with_port)
                .await
                .with_context(|| format!("resolve {url}"))?
                .next()
                .with_context(|| format!("{url} has no address"))?;
            ends.push(Arc::new(End::new(addr, Requests::new(host, base, prefix))));
        }
        let ledger = Ledger::new(run, usize::try_from(key_count)?);
        Ok(Arc::new(Self { label: urls.join(" "), way: Way::Http(ends), ledger, fixed: false }))
    }

    /// A server on `addr` that answers every read with the value of [`fixed_value`].
    pub(crate) fn fixed(label: &str, addr: SocketAddr, prefix: &str, key_count: u64) -> Arc<Self> {
        let key_count = usize::try_from(key_count).unwrap_or(usize::MAX);
        let requests = Requests::new(&addr.to_string(), "", prefix);
        Arc::new(Self {
            label: label.to_owned(),
            way: Way::Http(vec![Arc::new(End::new(addr, requests))]),
            ledger: Ledger::new(0, key_count),
            fixed: true,
        })
    }
}

/// What the bare peer answers: a value that passes the same check as any other.
pub(crate) fn fixed_value(bytes: usize) -> Vec<u8> {
    let mut value = Vec::new();
    value::append(&mut value, Header { run: 0, key: 0, number: 1 }, 0, bytes);
    value
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
