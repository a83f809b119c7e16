//! The same load on several servers in turn, each in its own protocol: `compare get SERVER…`.
//!
//! Every connection has `--depth` requests under way and sends the next ones when all were answered.
//! Answers are compared with what was stored, byte by byte. All servers have their turn in each round, so
//! that a change of the machine's mood hits all; ratios are made within a round.

mod protocol;

use std::{
    io::Write as _,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use protocol::{Client, Protocol};
use tokio::task::JoinSet;

#[derive(Parser)]
struct Args {
    /// What is asked
    what: What,
    /// [NAME=][PROTOCOL://]HOST:PORT, with memcached (the default), redis, etcd or http (Tako's own); the
    /// first is compared with each of the others
    #[arg(required = true)]
    servers: Vec<Server>,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests of a connection under way at one time
    #[arg(long, default_value_t = 1)]
    depth: usize,
    #[arg(long, default_value_t = 10_000)]
    keys: usize,
    #[arg(long, default_value_t = 1024)]
    value_bytes: usize,
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Get,
    Set,
}

#[derive(Clone)]
struct Server {
    name: String,
    protocol: Protocol,
    address: String,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, whole) = text.split_once('=').map_or((None, text), |(n, rest)| (Some(n), rest));
        let (protocol, address) = whole.split_once("://").unwrap_or(("memcached", whole));
        let protocol = <Protocol as ValueEnum>::from_str(protocol, false)?;
        let name = name.unwrap_or(whole).to_owned();
        Ok(Self { name, protocol, address: address.to_owned() })
    }
}

fn key(number: usize) -> String {
    format!("key-{number:08}")
}

/// The value of a key: printable, and unlike others'.
fn value(number: usize, bytes: usize) -> String {
    let line = format!("{number:08}-");
    line.chars().cycle().take(bytes).collect()
}

/// Requests of one turn, and the answers they must have.
fn turn(args: &Args, protocol: Protocol, first: usize) -> protocol::Turn {
    let mut turn = protocol::Turn::default();
    for n in 0..args.depth {
        let number = (first + n * 7919) % args.keys;
        let (key, value) = (key(number), value(number, args.value_bytes));
        match args.what {
            What::Get => protocol.get(&mut turn, &key, &value),
            What::Set => protocol.set(&mut turn, &key, &value),
        }
    }
    turn
}

/// All keys, so that every get finds one.
async fn fill(args: &Args, server: &Server) -> anyhow::Result<()> {
    const CLIENTS: usize = 16;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let mut connection = Client::connect(&server.address).await?;
        let (protocol, bytes) = (server.protocol, args.value_bytes);
        let numbers = (client..args.keys).step_by(CLIENTS);
        clients.spawn(async move {
            for number in numbers {
                let mut turn = protocol::Turn::default();
                protocol.set(&mut turn, &key(number), &value(number, bytes));
                connection.exchange(&turn).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(filled) = clients.join_next().await {
        filled??;
    }
    Ok(())
}

/// A turn that takes longer is counted as this long.
const MICROS_MAX: u64 = 60_000_000;

/// Requests per second, and how long turns took in microseconds.
async fn load(args: &Args, server: &Server) -> anyhow::Result<(f64, Histogram<u64>)> {
    let mut clients = JoinSet::new();
    let began = Instant::now();
    let until = began + Duration::from_secs(args.seconds);
    for client in 0..args.connections {
        let turn = |n: usize| turn(args, server.protocol, client * 1_000_003 + n * 104_729);
        let turns: Vec<_> = (0..64).map(turn).collect();
        let mut connection = Client::connect(&server.address).await?;
        clients.spawn(async move {
            let mut took = Histogram::<u64>::new_with_bounds(1, MICROS_MAX, 3)?;
            let mut at = 0;
            while Instant::now() < until {
                let sent = Instant::now();
                connection.exchange(&turns[at % turns.len()]).await?;
                took.saturating_record(u64::try_from(sent.elapsed().as_micros())?);
                at += 1;
            }
            anyhow::Ok(took)
        });
    }
    let mut all = Histogram::<u64>::new_with_bounds(1, MICROS_MAX, 3)?;
    while let Some(took) = clients.join_next().await {
        all.add(took??)?;
    }
    let rate = all.len() as f64 * args.depth as f64 / began.elapsed().as_secs_f64();
    Ok((rate, all))
}

/// One server's rounds.
#[derive(Default)]
struct Rounds {
    rates: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

fn sorted(figures: &[f64]) -> Vec<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(figures: &[f64]) -> f64 {
    sorted(figures)[figures.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.rounds == 0 || args.keys == 0 || args.depth == 0 || args.connections == 0 {
        bail!("--rounds, --keys, --depth and --connections are above 0");
    }
    for server in &args.servers {
        fill(&args, server).await.with_context(|| format!("filling {}", server.name))?;
    }
    let mut all: Vec<Rounds> = args.servers.iter().map(|_| Rounds::default()).collect();
    for round in 1..=args.rounds {
        for (server, rounds) in args.servers.iter().zip(&mut all) {
            let (rate, took) = load(&args, server).await.with_context(|| server.name.clone())?;
            let (p50, p99) = (took.value_at_quantile(0.5), took.value_at_quantile(0.99));
            let mut stderr = std::io::stderr();
            writeln!(
                stderr,
                "round {round} {}: {rate:.0}/s, p50 {p50} us, p99 {p99} us",
                server.name
            )?;
            rounds.rates.push(rate);
            rounds.p50.push(p50 as f64);
            rounds.p99.push(p99 as f64);
        }
    }
    let first = &args.servers[0].name;
    let mut stdout = std::io::stdout();
    writeln!(
        stdout,
        "| server | rate/s | p50 ms | p99 ms | {first} / it |\n|---|---|---|---|---|"
    )?;
    for (at, (server, rounds)) in args.servers.iter().zip(&all).enumerate() {
        let ratio = |(own, other): (&f64, &f64)| own / other;
        let ratios: Vec<f64> = all[0].rates.iter().zip(&rounds.rates).map(ratio).collect();
        let ratios = sorted(&ratios);
        let ratio = match at {
            0 => String::new(),
            _ => {
                format!("{:.2} ({:.2}–{:.2})", median(&ratios), ratios[0], ratios[ratios.len() - 1])
            }
        };
        writeln!(
            stdout,
            "| {} | {:.0} | {:.2} | {:.2} | {ratio} |",
            server.name,
            median(&rounds.rates),
            median(&rounds.p50) / 1e3,
            median(&rounds.p99) / 1e3
        )?;
    }
    Ok(())
}
