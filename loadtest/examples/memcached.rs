//! A load of memcached's text protocol on one or more servers in turn: `memcached get HOST:PORT …`.
//!
//! Every connection has `--depth` requests under way and sends the next ones when all were answered.
//! Answers are compared with what was stored, byte by byte.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

#[derive(Parser)]
struct Args {
    /// What is asked
    what: What,
    /// Servers, each with the same load in turn; the last one is what the others are compared with
    #[arg(required = true)]
    servers: Vec<String>,
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

fn key(number: usize) -> String {
    format!("key-{number:08}")
}

/// The value of a key: printable, and unlike others'.
fn value(number: usize, bytes: usize) -> String {
    let line = format!("{number:08}-");
    line.chars().cycle().take(bytes).collect()
}

/// Requests of one turn, and the answers they must have.
fn turn(args: &Args, first: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut requests, mut answers) = (String::new(), String::new());
    for n in 0..args.depth {
        let number = (first + n * 7919) % args.keys;
        let (key, value) = (key(number), value(number, args.value_bytes));
        match args.what {
            What::Get => {
                requests += &format!("get {key}\r\n");
                answers += &format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len());
            }
            What::Set => {
                requests += &format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
                answers += "STORED\r\n";
            }
        }
    }
    (requests.into(), answers.into())
}

async fn exchange(
    stream: &mut TcpStream,
    send: &[u8],
    expected: &[u8],
    room: &mut Vec<u8>,
) -> anyhow::Result<()> {
    stream.write_all(send).await?;
    room.resize(expected.len(), 0);
    stream.read_exact(room).await?;
    if room != expected {
        bail!("another answer: {}", String::from_utf8_lossy(&room[..room.len().min(200)]));
    }
    Ok(())
}

async fn connect(server: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// All keys, so that every get finds one.
async fn fill(args: &Args, server: &str) -> anyhow::Result<()> {
    let (mut stream, mut room) = (connect(server).await?, Vec::new());
    for first in (0..args.keys).step_by(50) {
        let mut send = String::new();
        let count = 50.min(args.keys - first);
        for number in first..first + count {
            let (key, value) = (key(number), value(number, args.value_bytes));
            send += &format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
        }
        exchange(&mut stream, send.as_bytes(), "STORED\r\n".repeat(count).as_bytes(), &mut room)
            .await?;
    }
    Ok(())
}

/// A turn that takes longer is counted as this long.
const MICROS_MAX: u64 = 60_000_000;

/// Requests per second, and how long turns took in microseconds.
async fn load(args: &Args, server: &str) -> anyhow::Result<(f64, Histogram<u64>)> {
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for client in 0..args.connections {
        let turns: Vec<_> = (0..64).map(|n| turn(args, client * 1_000_003 + n * 104_729)).collect();
        let mut stream = connect(server).await?;
        clients.spawn(async move {
            let mut took = Histogram::<u64>::new_with_bounds(1, MICROS_MAX, 3)?;
            let (mut room, mut at) = (Vec::new(), 0);
            while Instant::now() < until {
                let (send, expected) = &turns[at % turns.len()];
                let sent = Instant::now();
                exchange(&mut stream, send, expected, &mut room).await?;
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

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    for server in &args.servers {
        fill(&args, server).await.with_context(|| format!("filling {server}"))?;
    }
    let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); args.servers.len()];
    for round in 1..=args.rounds {
        let mut rates = Vec::new();
        for server in &args.servers {
            let (rate, took) = load(&args, server).await.with_context(|| server.clone())?;
            let (p50, p99) = (took.value_at_quantile(0.5), took.value_at_quantile(0.99));
            println!("round {round} {server}: {rate:.0}/s, p50 {p50} us, p99 {p99} us");
            rates.push(rate);
        }
        let peer = rates[rates.len() - 1];
        for (ratios, rate) in ratios.iter_mut().zip(&rates) {
            ratios.push(rate / peer);
        }
    }
    for (server, mut ratios) in args.servers.iter().zip(ratios) {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        println!(
            "{server}: {median:.2} of the last ({:.2} to {:.2})",
            ratios[0],
            ratios[ratios.len() - 1]
        );
    }
    Ok(())
}
