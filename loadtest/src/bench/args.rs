//! The command line of `tako bench`: options, their defaults, and the texts they accept.
//!
//! Raw input only: what the options mean together is checked once, in `plan`.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use anyhow::ensure;
use clap::{Args, ValueEnum};
use serde::{Serialize, Serializer};
use tako_types::limits::PARTITIONS_DEFAULT;

use super::{
    scenario::Scenario,
    workload::{self, Workload},
};

/// What is not said on the command line, nor by a workload or a scenario.
const KEYS_DEFAULT: u64 = 10_000;
const VALUE_BYTES_DEFAULT: usize = 1024;
const READ_SHARE_DEFAULT: f64 = 0.9;

/// Options of `tako bench`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct BenchArgs {
    /// Where to send requests; give it again to spread the connections
    #[arg(long = "url", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub urls: Vec<String>,

    /// Compare with another server in turns: `axum` (a bare handler in a process of its own) or a URL
    #[arg(long, value_name = "axum|URL")]
    pub peer: Option<String>,

    /// Rounds of a comparison; each measures the target, then the peer
    #[arg(long, default_value_t = 3, value_name = "COUNT")]
    pub rounds: u32,

    /// Worker threads of the bare axum peer (a node has 2)
    #[arg(long, default_value_t = 2, value_name = "COUNT")]
    pub peer_workers: usize,

    /// closed: the next request follows the answer; open: requests are due at a fixed rate
    #[arg(long, value_enum, default_value_t = Mode::Closed)]
    pub mode: Mode,

    /// Requests per second of an open loop, over all connections (`5000/s`, `20k/s`)
    #[arg(long, value_parser = parse_rate, value_name = "N/s")]
    pub rate: Option<f64>,

    /// Connections, over all URLs; with --protocol rpc, calls in flight
    #[arg(long, default_value_t = 64, value_name = "COUNT")]
    pub connections: usize,

    /// Client threads, each with its share of the connections
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    pub threads: usize,

    /// Requests written at once on a connection before their answers are read (closed loop)
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    pub pipeline: usize,

    /// Time measured after the warm-up (not used with --requests)
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,

    /// Measured requests; ends the run when they are done
    #[arg(long, value_name = "COUNT")]
    pub requests: Option<u64>,

    /// Load that runs before the measurement and is verified, but not counted
    #[arg(long, value_parser = parse_duration, default_value = "2s")]
    #[serde(serialize_with = "seconds")]
    pub warmup: Duration,

    /// Longest wait for one answer
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    #[serde(serialize_with = "seconds")]
    pub timeout: Duration,

    /// A load of YCSB instead of --read-share and --distribution
    #[arg(long, value_enum, value_name = "ycsb-a|…|ycsb-f")]
    pub workload: Option<Workload>,

    /// Phases and events from a file instead of --mode, --rate, --duration, --workload and the like
    #[arg(long, value_name = "FILE.yaml")]
    pub scenario: Option<PathBuf>,

    /// All times of the scenario times this: 0.2 for a look, 60 for a night
    #[arg(long, value_name = "FACTOR")]
    pub stretch: Option<f64>,

    /// Keys in use [default: 10000; 1000 with --workload]
    #[arg(long, value_name = "COUNT")]
    pub keys: Option<u64>,

    /// Bytes of each value, at least 32 [default: 1KiB; 1000 with --workload]
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub value_size: Option<usize>,

    /// Share of reads among the requests, 0.0 to 1.0 [default: 0.9]
    #[arg(long, value_name = "SHARE")]
    pub read_share: Option<f64>,

    /// How keys are picked: `uniform`, `zipf` or `zipf:EXPONENT` [default: uniform]
    #[arg(long, value_name = "uniform|zipf[:0.99]")]
    pub distribution: Option<Distribution>,

    /// Seed of values, of picks and of the order of reads and writes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// What every key begins with; give each bench that runs at the same time its own
    #[arg(long, default_value = "bench/")]
    pub prefix: String,

    /// Write every key before the load (the default)
    #[arg(long, overrides_with = "no_preload")]
    pub preload: bool,

    /// Use the keys as they are; a key that was never written here may be missing
    #[arg(long)]
    pub no_preload: bool,

    /// What is spoken with the target; a peer speaks HTTP
    #[arg(long, value_enum, default_value_t = Protocol::Http)]
    pub protocol: Protocol,

    /// RPC address of a node, for --protocol rpc; of several, each key goes to one
    #[arg(long = "rpc", value_name = "HOST:PORT")]
    pub rpc: Vec<String>,

    /// Partitions of the cluster, for --protocol rpc
    #[arg(long, default_value_t = PARTITIONS_DEFAULT, value_name = "COUNT")]
    pub partitions: u32,

    /// What every read is checked for
    #[arg(long, value_enum, default_value_t = Verify::Full)]
    pub verify: Verify,

    /// Form of the report on standard output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,

    /// Write each measured answer of the target to this file, by the time it was due (in
    /// milliseconds since 1970), with its kind and its latency in microseconds
    #[arg(long, value_name = "FILE.csv")]
    pub answers: Option<PathBuf>,

    /// Ask this server's /metrics once a second, for the series in the result; give it again for more
    #[arg(long = "metrics", value_name = "[NAME=]URL")]
    pub metrics: Vec<String>,

    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,

    /// Write the result with its series, as JSON, to this file
    #[arg(long, value_name = "FILE.json")]
    pub result: Option<PathBuf>,

    /// Serve the bare axum peer on this port (0: any) until standard input ends
    #[arg(long, hide = true, value_name = "PORT")]
    #[serde(skip)]
    pub serve_bare_axum: Option<u16>,
}

impl BenchArgs {
    /// With the defaults in the place of what was not said, and with the scenario's.
    ///
    /// # Errors
    /// A workload or a scenario beside what it takes the place of.
    pub(crate) fn resolved(&self, scenario: Option<&Scenario>) -> anyhow::Result<Self> {
        let mut args = self.clone();
        if let Some(scenario) = scenario {
            ensure!(
                args.keys.is_none()
                    && args.value_size.is_none()
                    && args.read_share.is_none()
                    && args.distribution.is_none(),
                "a scenario has its own keys and values: leave out --keys, --value-size, \
                 --read-share and --distribution"
            );
            args.keys = Some(scenario.keys);
            args.value_size = Some(scenario.value_bytes);
            args.connections = scenario.connections.unwrap_or(args.connections);
            args.warmup = Duration::ZERO;
            args.duration = scenario.phases.iter().map(|phase| phase.duration).sum();
            return Ok(args);
        }
        if args.workload.is_some() {
            ensure!(
                args.read_share.is_none() && args.distribution.is_none(),
                "--workload has its own reads and its own distribution: leave out --read-share and \
                 --distribution"
            );
        }
        let ycsb = args.workload.is_some();
        let (keys, bytes) = match ycsb {
            true => (workload::KEYS, workload::VALUE_BYTES),
            false => (KEYS_DEFAULT, VALUE_BYTES_DEFAULT),
        };
        args.keys.get_or_insert(keys);
        args.value_size.get_or_insert(bytes);
        if !ycsb {
            args.read_share.get_or_insert(READ_SHARE_DEFAULT);
            args.distribution.get_or_insert(Distribution::Uniform);
        }
        Ok(args)
    }

    /// See [`KEYS_DEFAULT`].
    pub(crate) fn key_count(&self) -> u64 {
        self.keys.unwrap_or(KEYS_DEFAULT)
    }

    /// See [`VALUE_BYTES_DEFAULT`].
    pub(crate) fn value_bytes(&self) -> usize {
        self.value_size.unwrap_or(VALUE_BYTES_DEFAULT)
    }
}

/// When a request is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As soon as the connection is free.
    Closed,
    /// At its place in a fixed rate, whether or not a connection is free then.
    Open,
}

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, `GET` and `PUT /values/<key>`.
    Http,
    /// Tako's own calls, Get and Put, straight to one replica.
    Rpc,
}

/// How hard answers are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Right key, intact bytes, and never older than a write acknowledged before the read began.
    Full,
    /// Right key and intact bytes.
    Content,
    /// The status alone.
    None,
}

/// Form of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// A table for people.
    Text,
    /// One JSON document.
    Json,
}

/// How keys are picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// Every key alike.
    Uniform,
    /// The key of rank r with weight r^-exponent; ranks are spread over the keys.
    Zipf {
        /// 0.99 is customary.
        exponent: f64,
    },
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let exponent = match text.split_once(':') {
            None if text == "uniform" => return Ok(Self::Uniform),
            None if text == "zipf" => Some(0.99),
            Some(("zipf", exponent)) => exponent.parse().ok(),
            _ => None,
        };
        match exponent {
            Some(exponent) if (0.0..=5.0).contains(&exponent) => Ok(Self::Zipf { exponent }),
            _ => Err("give `uniform`, `zipf`, or `zipf:EXPONENT` with 0 to 5".to_owned()),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf { exponent } => write!(f, "zipf:{exponent}"),
        }
    }
}

impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Splits `12.5ms` into the number and the unit.
fn number_and_unit(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = number.parse().map_err(|_| format!("`{text}` does not begin with a number"))?;
    Ok((number, unit.trim()))
}

pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text)?;
    let unit_seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{unit}` is not a unit of time (us, ms, s, m, h)")),
    };
    Duration::try_from_secs_f64(number * unit_seconds).map_err(|error| error.to_string())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range is checked")]
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let (number, unit) = number_and_unit(text)?;
    let unit_bytes = match unit {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "KiB" | "k" | "K" => 1024.0,
        "MiB" | "M" => 1024.0 * 1024.0,
        _ => return Err(format!("`{unit}` is not a unit of size (B, kB, KiB, MB, MiB)")),
    };
    let bytes = number * unit_bytes;
    if bytes <= 1e9 { Ok(bytes as usize) } else { Err("the limit is 1 GB".to_owned()) }
}

pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    let (number, unit) = number_and_unit(text.trim().trim_end_matches("/s"))?;
    let rate = match unit {
        "" => number,
        "k" => number * 1e3,
        "M" => number * 1e6,
        _ => return Err(format!("`{text}` is not a rate (5000/s, 20k/s)")),
    };
    if rate > 0.0 && rate <= 1e8 { Ok(rate) } else { Err("a rate is above 0".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_time_size_and_rate_read_as_written_and_others_are_refused() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(parse_duration("soon").is_err() && parse_duration("1 week").is_err());
        assert_eq!(parse_size("1KiB"), Ok(1024));
        assert_eq!(parse_size("48"), Ok(48));
        assert!(parse_size("1TiB").is_err() && parse_size("").is_err());
        assert_eq!(parse_rate("5000/s"), Ok(5e3));
        assert_eq!(parse_rate("20k/s"), Ok(2e4));
        assert!(parse_rate("0").is_err() && parse_rate("1/m").is_err());
    }

    #[test]
    fn a_distribution_is_uniform_or_zipf_with_an_exponent() {
        assert_eq!("uniform".parse(), Ok(Distribution::Uniform));
        assert_eq!("zipf".parse(), Ok(Distribution::Zipf { exponent: 0.99 }));
        assert_eq!("zipf:1.2".parse(), Ok(Distribution::Zipf { exponent: 1.2 }));
        assert!("zipf:9".parse::<Distribution>().is_err());
        assert!("pareto".parse::<Distribution>().is_err());
    }
}
