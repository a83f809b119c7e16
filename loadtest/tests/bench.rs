//! The bench against servers that are right, and against servers that are wrong in one known way.
//!
//! Method: an axum server in this process keeps every version of every key and injects one fault;
//! `measure` must call it by its name. Nothing here depends on how fast the machine is, except
//! that 500 requests a second are easy.

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use common::args;
use tako_loadtest::bench::{Report, measure};
use tokio::{sync::watch, time::Instant};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Reads show the first version.
    Stale,
    /// Reads have one bit flipped.
    Corrupt,
    /// Reads find nothing.
    Missing,
    /// Reads show another key's value.
    WrongKey,
    /// Writes are refused and not done.
    Refuse,
    /// The 100th request starts a stall of 200 ms that holds all requests.
    StallOnce,
}

struct Server {
    fault: Fault,
    values: Mutex<HashMap<String, Vec<Bytes>>>,
    requests: AtomicU64,
    stall_end: Mutex<Option<Instant>>,
}

impl Server {
    async fn stall(&self) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        if self.fault != Fault::StallOnce {
            return;
        }
        let end = {
            let mut end = self.stall_end.lock().expect("not poisoned");
            if number == 100 {
                *end = Some(Instant::now() + Duration::from_millis(200));
            }
            *end
        };
        if let Some(end) = end {
            tokio::time::sleep_until(end).await;
        }
    }
}

async fn read(State(server): State<Arc<Server>>, Path(key): Path<String>) -> (StatusCode, Bytes) {
    server.stall().await;
    let values = server.values.lock().expect("not poisoned");
    let versions = match server.fault {
        Fault::WrongKey => values.iter().find(|(other, _)| **other != key).map(|(_, v)| v),
        _ => values.get(&key),
    };
    let version = match server.fault {
        Fault::Missing => None,
        Fault::Stale => versions.and_then(|versions| versions.first()),
        _ => versions.and_then(|versions| versions.last()),
    };
    match version {
        None => (StatusCode::NOT_FOUND, Bytes::new()),
        Some(value) if server.fault == Fault::Corrupt => {
            let mut value = value.to_vec();
            value[150] ^= 4;
            (StatusCode::OK, value.into())
        }
        Some(value) => (StatusCode::OK, value.clone()),
    }
}

async fn write(
    State(server): State<Arc<Server>>,
    Path(key): Path<String>,
    value: Bytes,
) -> StatusCode {
    server.stall().await;
    if server.fault == Fault::Refuse {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    server.values.lock().expect("not poisoned").entry(key).or_default().push(value);
    StatusCode::NO_CONTENT
}

async fn serve(fault: Fault) -> (String, Arc<Server>) {
    let server = Arc::new(Server {
        fault,
        values: Mutex::default(),
        requests: AtomicU64::new(0),
        stall_end: Mutex::default(),
    });
    let router =
        Router::new().route("/values/{*key}", get(read).put(write)).with_state(server.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, server)
}

async fn bench(fault: Fault, options: &str) -> Report {
    let (url, _) = serve(fault).await;
    let (_keep, stop) = watch::channel(false);
    measure(&args(&format!("--url {url} {options}")), stop).await.expect("runs")
}

async fn check_caught(fault: Fault, options: &str, name: &str) {
    let report = bench(fault, options).await;
    let verification = &report.target.verification;
    assert!(!report.passed, "{fault:?} passed: {report}");
    assert!(verification.violations.contains_key(name), "{fault:?}: {report}");
    assert!(!verification.examples.is_empty() && verification.examples.len() <= 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_server_passes_in_every_mode() {
    for options in [
        "--read-share 0.5",
        "--read-share 0.5 --pipeline 8 --threads 2",
        "--read-share 0.5 --distribution zipf --mode open --rate 500/s",
        "--read-share 0.5 --keys 3 --connections 16",
        "--read-share 0.7 --no-preload --keys 2000",
        "--read-share 0.5 --value-size 300KiB --pipeline 4 --keys 5",
    ] {
        let report = bench(Fault::None, options).await;
        assert!(report.passed && report.target.errors.is_empty(), "{options}: {report}");
        assert!(report.target.reads.requests > 0 && report.target.writes.requests > 0);
        assert!(report.target.verification.reads_checked >= report.target.reads.requests);
        assert_eq!(report.target.unfinished, 0);
        let keys = report.options.keys.filter(|_| !options.contains("no-preload"));
        assert_eq!(report.target.preloaded, keys);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_answers_are_caught_and_named() {
    check_caught(Fault::Stale, "--read-share 0.5", "stale").await;
    check_caught(Fault::Corrupt, "", "corrupt").await;
    check_caught(Fault::Corrupt, "--verify content", "corrupt").await;
    check_caught(Fault::Missing, "", "missing").await;
    check_caught(Fault::WrongKey, "", "wrong key").await;
    check_caught(Fault::WrongKey, "--verify content", "wrong key").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_level_lets_old_values_pass_and_none_lets_all_pass() {
    assert!(bench(Fault::Stale, "--read-share 0.5 --verify content").await.passed);
    assert!(bench(Fault::Corrupt, "--verify none").await.passed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_fails_when_every_request_fails_and_errors_are_counted_by_kind() {
    let report = bench(Fault::Refuse, "--no-preload --read-share 0 --requests 40").await;
    assert!(!report.passed);
    assert_eq!(report.target.errors.get("HTTP 503"), Some(&40));

    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = free.local_addr().expect("bound");
    drop(free);
    let (_keep, stop) = watch::channel(false);
    let nobody = args(&format!("--url http://{addr} --no-preload"));
    let report = measure(&nobody, stop).await.expect("runs");
    assert!(!report.passed);
    assert!(report.target.errors.keys().all(|kind| kind.starts_with("connect")), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unacknowledged_preload_ends_the_bench() {
    let (url, _) = serve(Fault::Refuse).await;
    let (_keep, stop) = watch::channel(false);
    let error = measure(&args(&format!("--url {url} --keys 2")), stop).await.expect_err("refused");
    assert!(error.to_string().contains("0 of 2 keys"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_loop_shows_the_queue_behind_one_stall_and_a_closed_loop_does_not() {
    // 1.5 s at 500/s with 200 ms of stall: 100 of 750 requests wait, 50 ms or more for 10 %.
    let common = "--connections 2 --no-preload --duration 1500ms --read-share 0.5";
    let open = bench(Fault::StallOnce, &format!("{common} --mode open --rate 500/s")).await;
    let latency = open.target.total.latency.expect("requests");
    assert!(latency.p90_us > 25_000.0, "{open}");
    assert!(latency.max_us > 190_000.0, "{open}");
    assert!((740..=750).contains(&open.target.total.requests), "{open}");

    let closed = bench(Fault::StallOnce, common).await;
    let latency = closed.target.total.latency.expect("requests");
    assert!(latency.max_us > 190_000.0 && latency.p90_us < 25_000.0, "{closed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_of_requests_is_kept_exactly() {
    for options in ["", "--mode open --rate 2000/s", "--pipeline 16 --threads 2"] {
        let report = bench(Fault::None, &format!("--requests 333 {options}")).await;
        assert_eq!(report.target.total.requests, 333, "{report}");
        assert!(report.target.total.rate_per_second > 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_of_answers_holds_each_measured_answer_of_the_target_by_time() {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("answers.csv");
    let options =
        format!("--requests 100 --threads 2 --read-share 0.5 --answers {}", path.display());
    let report = bench(Fault::None, &options).await;
    let text = std::fs::read_to_string(&path).expect("written");
    let lines: Vec<Vec<&str>> = text.lines().skip(1).map(|l| l.split(',').collect()).collect();
    let of = |kind| lines.iter().filter(|line| line[1] == kind).count() as u64;
    let Report { target, .. } = &report;
    assert_eq!((of("read"), of("write")), (target.reads.requests, target.writes.requests));
    assert!(lines.is_sorted_by_key(|line| line[0].parse::<u64>().expect("milliseconds")));
    let micros = lines.iter().map(|line| line[2].parse::<f64>().expect("microseconds"));
    let max_us = target.total.latency.expect("answers").max_us;
    assert!((micros.fold(0.0, f64::max) - max_us).abs() < 0.002 * max_us + 1.0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_measured_in_turns_and_compared() {
    let (peer, _) = serve(Fault::None).await;
    let report = bench(Fault::None, &format!("--peer {peer} --rounds 2 --read-share 0.5")).await;
    let ratios = report.ratios.as_ref().expect("both sides ran");
    assert_eq!(ratios.rate.per_round.len(), 2);
    assert!(ratios.rate.of_medians > 0.0 && ratios.rate.min <= ratios.rate.max);
    assert!(report.passed && report.peer.as_ref().is_some_and(|peer| peer.reads.requests > 0));
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["options"]["value_size"], 200);
    assert!(json["target"]["reads"]["latency"]["p99_us"].is_number());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_peer_fails_the_run() {
    let (peer, _) = serve(Fault::Corrupt).await;
    let report = bench(Fault::None, &format!("--peer {peer} --rounds 1")).await;
    assert!(!report.passed && report.target.verification.violations.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_the_run_with_the_figures_so_far() {
    let (url, server) = serve(Fault::None).await;
    let (stop, stopped) = watch::channel(false);
    let args = args(&format!("--url {url} --duration 1h --no-preload"));
    let running = tokio::spawn(async move { measure(&args, stopped).await });
    while server.requests.load(Ordering::Relaxed) < 50 {
        tokio::task::yield_now().await;
    }
    stop.send_replace(true);
    let report = running.await.expect("joined").expect("runs");
    assert!(report.ended_early && report.passed && report.target.total.requests > 0, "{report}");
    assert!(report.target.seconds < 60.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_that_contradict_each_other_are_refused() {
    for options in [
        "--mode open",
        "--rate 5/s",
        "--mode open --rate 5/s --pipeline 2",
        "--value-size 31",
        "--read-share 1.5",
        "--connections 0",
        "--keys 0",
        "--url https://127.0.0.1:1",
        "--rpc 127.0.0.1:1",
        "--protocol rpc",
        "--protocol rpc --rpc 127.0.0.1:1 --pipeline 2",
        "--protocol rpc --rpc 127.0.0.1:1 --partitions 33",
        "--protocol rpc --rpc 127.0.0.1:1 --partitions 8192",
        "--protocol rpc --rpc 127.0.0.1:1 --value-size 65MiB",
    ] {
        let (_keep, stop) = watch::channel(false);
        assert!(measure(&args(options), stop).await.is_err(), "{options}");
    }
}
