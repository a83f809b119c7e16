//! Loads of YCSB, scenarios with events and servers' counters, and the page, against a server in this
//! process that has listings and writes under conditions.
//!
//! Method: as in `bench.rs`. Figures are compared with each other and with what the server counted, never
//! with a time.

mod common;

use std::{
    collections::BTreeMap,
    path::Path as FilePath,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use clap::Parser;
use common::args;
use quick_xml::{Reader, XmlVersion, events::Event};
use serde_json::{Value, json};
use tako_loadtest::bench::{BenchArgs, Report, measure};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Writes under a condition are done without it.
    Unconditional,
    /// Listings are backwards.
    Backwards,
}

struct Server {
    fault: Fault,
    values: Mutex<BTreeMap<String, (u64, Bytes)>>,
    writes: AtomicU64,
    refused: AtomicU64,
    listings: AtomicU64,
}

async fn read(State(server): State<Arc<Server>>, Path(key): Path<String>) -> impl IntoResponse {
    let found = server.values.lock().expect("not poisoned").get(&key).cloned();
    match found {
        None => StatusCode::NOT_FOUND.into_response(),
        Some((version, value)) => {
            ([(header::ETAG, format!("\"{version}\""))], value).into_response()
        }
    }
}

async fn write(
    State(server): State<Arc<Server>>,
    Path(key): Path<String>,
    headers: HeaderMap,
    value: Bytes,
) -> StatusCode {
    let mut values = server.values.lock().expect("not poisoned");
    let now = values.get(&key).map(|(version, _)| format!("\"{version}\""));
    let holds = match (headers.get(header::IF_MATCH), headers.get(header::IF_NONE_MATCH)) {
        (Some(etag), _) => now.as_deref() == etag.to_str().ok(),
        (None, Some(_)) => now.is_none(),
        (None, None) => true,
    };
    if !holds && server.fault != Fault::Unconditional {
        server.refused.fetch_add(1, Ordering::Relaxed);
        return StatusCode::PRECONDITION_FAILED;
    }
    let version = server.writes.fetch_add(1, Ordering::Relaxed);
    values.insert(key, (version, value));
    StatusCode::OK
}

async fn list(
    State(server): State<Arc<Server>>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Json<Value> {
    server.listings.fetch_add(1, Ordering::Relaxed);
    let limit = query["limit"].parse().expect("a number");
    let values = server.values.lock().expect("not poisoned");
    let found = values
        .range::<String, _>(&query["after"]..)
        .filter(|(key, _)| **key != query["after"] && key.starts_with(&query["prefix"]))
        .take(limit);
    let mut rows: Vec<Value> =
        found.map(|(key, (_, value))| json!({"key": key, "bytes": value.len()})).collect();
    if server.fault == Fault::Backwards {
        rows.reverse();
    }
    Json(json!({"values": rows, "next": null}))
}

async fn metrics(State(server): State<Arc<Server>>) -> String {
    let writes = server.writes.load(Ordering::Relaxed);
    format!(
        "# a comment\ntako_votes_total{{from=\"cache\"}} {writes}\n\
         tako_store_requests_total{{kind=\"put\"}} {writes}\ntako_uncovered_bytes 17\n"
    )
}

async fn serve(fault: Fault) -> (String, Arc<Server>) {
    let server = Arc::new(Server {
        fault,
        values: Mutex::default(),
        writes: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        listings: AtomicU64::new(0),
    });
    let router = Router::new()
        .route("/values/", get(list))
        .route("/values/{*key}", get(read).put(write))
        .route("/metrics", get(metrics))
        .with_state(server.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, server)
}

async fn run(args: &BenchArgs) -> Report {
    let (_keep, stop) = watch::channel(false);
    measure(args, stop).await.expect("runs")
}

async fn workload(fault: Fault, name: &str, options: &str) -> (Report, Arc<Server>) {
    let (url, server) = serve(fault).await;
    let options = format!("--url {url} --workload {name} --requests 2000 {options}");
    (run(&args(&options)).await, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loads_of_ycsb_pass_on_a_right_server_and_do_what_they_are_named_for() {
    for name in ["ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "ycsb-e", "ycsb-f"] {
        let (report, server) = workload(Fault::None, name, "--connections 8").await;
        assert!(report.passed && report.target.errors.is_empty(), "{name}: {report}");
        let target = &report.target;
        let (reads, writes) = (target.reads.requests, target.writes.requests);
        assert_eq!(reads + writes, 2000, "{name}");
        let keys = server.values.lock().expect("not poisoned").len();
        let inserted = u64::try_from(keys - 50).expect("the preload's 50 keys are there");
        let listings = server.listings.load(Ordering::Relaxed);
        let part = |of: u64, whole: u64| (whole * 8 / 10..=whole * 12 / 10).contains(&of);
        match name {
            "ycsb-a" => assert!(part(writes, 1000) && inserted == 0, "{report}"),
            "ycsb-b" => assert!((50..=150).contains(&writes) && inserted == 0, "{report}"),
            "ycsb-c" => assert_eq!((writes, inserted), (0, 0)),
            "ycsb-d" => assert!((50..=150).contains(&writes) && inserted == writes, "{report}"),
            "ycsb-e" => {
                assert!(inserted == writes && listings == reads && 0 < target.listed, "{report}");
            }
            _ => {
                assert!(part(writes, 1000) && inserted == 0, "{report}");
                let refused = server.refused.load(Ordering::Relaxed);
                assert_eq!(target.changed_again, refused);
                // Reads, and the reads of the changes.
                assert!(target.verification.reads_checked == reads + writes, "{report}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_brings_its_own_keys_and_values_unless_they_are_said() {
    let (url, server) = serve(Fault::None).await;
    // Without the common options of these tests, which say both.
    let of = |options: &str| {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            bench: BenchArgs,
        }
        let text = format!("bench --url {url} --workload ycsb-c --requests 10 {options}");
        Cli::parse_from(text.split_whitespace()).bench
    };
    let report = run(&of("")).await;
    assert_eq!((report.options.keys, report.options.value_size), (Some(1000), Some(1000)));
    assert!(server.values.lock().expect("not poisoned").values().all(|(_, v)| v.len() == 1000));
    let report = run(&of("--keys 7 --value-size 99")).await;
    assert_eq!((report.target.preloaded, report.options.value_size), (Some(7), Some(99)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ignores_conditions_loses_updates_and_one_that_lists_backwards_is_caught() {
    // One key, so that changes meet.
    let (report, _) = workload(Fault::Unconditional, "ycsb-f", "--connections 16 --keys 1").await;
    let wrong = &report.target.verification.violations;
    assert!(!report.passed && wrong.contains_key("lost update"), "{report}");
    let (report, _) = workload(Fault::Backwards, "ycsb-e", "").await;
    let wrong = &report.target.verification.violations;
    assert!(!report.passed && wrong.contains_key("wrong listing"), "{report}");
}

/// Two phases and four events with names that a page must not take for its own.
const SCENARIO: &str = "
about: 'less < more & \"quoted\" <script>alert(1)</script>'
keys: 40
value_size: 100
connections: 4
phases:
  - {name: \"a<b & ]]>\", duration: 1s, rate: 400/s, read_share: 0.5}
  - {name: second, duration: 1s, rate: {from: 400/s, to: 800/s}, workload: ycsb-f, value_size: 64}
events:
  - {at: 0.2s, name: \"</svg><b>\", run: 'echo here > \"FILE\"'}
  - {at: 1500ms, name: late, run: 'test -e \"FILE\"'}
";

async fn scenario(url: &str, folder: &FilePath, text: &str, options: &str) -> Report {
    let file = folder.join("scenario.yaml");
    let mark = folder.join("mark");
    let text = text.replace("FILE", &mark.display().to_string());
    std::fs::write(&file, text).expect("written");
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }
    let text = format!(
        "bench --url {url} --metrics one={url} --metrics http://127.0.0.1:1 --scenario {} --report {} \
         --result {} {options}",
        file.display(),
        folder.join("page.html").display(),
        folder.join("result.json").display()
    );
    run(&Cli::parse_from(text.split_whitespace()).bench).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scenario_runs_its_phases_and_events_and_leaves_a_page_and_a_result() {
    let (url, server) = serve(Fault::None).await;
    let folder = tempfile::tempdir().expect("temp folder");
    let report = scenario(&url, folder.path(), SCENARIO, "").await;
    assert!(report.passed && !report.ended_early, "{report}");
    let course = report.course.as_ref().expect("no peer");

    // Every place of the rates, each in its phase.
    let [first, second] = &course.phases[..] else { panic!("two phases: {report}") };
    let of =
        |phase: &tako_loadtest::bench::PhaseFigures| phase.reads.requests + phase.writes.requests;
    assert_eq!((of(first), of(second), report.target.total.requests), (400, 600, 1000));
    assert_eq!((first.from, first.until, second.until), (0.0, Some(1.0), Some(2.0)));
    assert_eq!(second.rate, Some([400.0, 800.0]));
    let answered = |points: &[tako_loadtest::bench::Point]| -> u64 {
        points.iter().map(|point| point.reads.answered + point.writes.answered).sum()
    };
    assert_eq!(answered(&course.points), 1000);
    let sizes: Vec<usize> =
        server.values.lock().expect("not poisoned").values().map(|(_, v)| v.len()).collect();
    assert!(sizes.iter().all(|size| [64, 100].contains(size)) && sizes.contains(&64));

    let names: Vec<&str> = course.events.iter().map(|event| &*event.name).collect();
    assert_eq!(names, ["</svg><b>", "late"]);
    assert!(course.events.iter().all(|event| event.failure.is_none()), "{report}");

    let [one, nobody] = &course.servers[..] else { panic!("two servers") };
    assert_eq!((one.name.as_str(), nobody.name.as_str()), ("one", "127.0.0.1:1"));
    assert!(one.points.iter().flatten().any(|it| it.uncovered_bytes == Some(17.0)), "{one:?}");
    assert!(nobody.points.iter().all(Option::is_none));

    let result = std::fs::read(folder.path().join("result.json")).expect("written");
    let result: Value = serde_json::from_slice(&result).expect("JSON");
    assert_eq!(result["course"]["phases"][1]["name"], "second");
    assert_eq!(result["passed"], true);

    let page = std::fs::read_to_string(folder.path().join("page.html")).expect("written");
    check_page(&page);
    for there in ["Latency of reads", "Latency of writes", "Not yet in the store", "ycsb", "p99.9"]
    {
        assert!(page.contains(there), "{there}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_fails_fails_the_run_and_a_stretch_changes_times_alone() {
    let (url, _) = serve(Fault::None).await;
    let folder = tempfile::tempdir().expect("temp folder");
    let text = SCENARIO.replace("test -e", "test ! -e");
    let report = scenario(&url, folder.path(), &text, "--stretch 0.1").await;
    assert!(!report.passed, "{report}");
    assert_eq!(report.target.total.requests, 100);
    let course = report.course.as_ref().expect("no peer");
    assert_eq!(course.events[1].failure.as_deref(), Some("exit code 1"));
    assert!(report.to_string().contains("FAILED: exit code 1"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_without_a_scenario_has_a_page_too() {
    let (url, _) = serve(Fault::None).await;
    let folder = tempfile::tempdir().expect("temp folder");
    let file = folder.path().join("page.html");
    run(&args(&format!("--url {url} --requests 50 --report {}", file.display()))).await;
    check_page(&std::fs::read_to_string(file).expect("written"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_that_contradict_each_other_are_refused() {
    let folder = tempfile::tempdir().expect("temp folder");
    let file = folder.path().join("scenario.yaml");
    std::fs::write(&file, "phases: [{name: p, duration: 1s}]").expect("written");
    let path = file.display();
    for (options, said) in [
        ("--workload ycsb-a --read-share 0.5".to_owned(), "--read-share"),
        ("--workload ycsb-a --distribution zipf".to_owned(), "--distribution"),
        ("--workload ycsb-f --pipeline 2".to_owned(), "--pipeline must be 1"),
        ("--workload ycsb-e --protocol rpc --rpc 127.0.0.1:1".to_owned(), "HTTP only"),
        ("--workload ycsb-e --peer axum".to_owned(), "bare handler"),
        ("--stretch 2".to_owned(), "--stretch is for --scenario"),
        (format!("--scenario {path}"), "leave out --keys"),
        (format!("--scenario {path} --mode open --rate 5/s"), "leave out --keys"),
        ("--scenario /nowhere.yaml".to_owned(), "cannot read the scenario"),
        ("--peer http://127.0.0.1:1 --report r.html".to_owned(), "no series"),
        ("--metrics 127.0.0.1:1".to_owned(), "not an http:// URL"),
    ] {
        let (_keep, stop) = watch::channel(false);
        let error = measure(&args(&options), stop).await.expect_err(&options);
        assert!(format!("{error:#}").contains(said), "{options}: {error:#}");
    }
}

/// The page is well-formed, asks for nothing from elsewhere, and has nothing to run.
fn check_page(page: &str) {
    let mut reader = Reader::from_str(page);
    reader.config_mut().check_end_names = true;
    let (mut open, mut pictures) = (0, 0);
    loop {
        match reader.read_event().expect("well-formed") {
            Event::Start(tag) => {
                open += 1;
                pictures += u32::from(tag.name().as_ref() == b"svg");
                check_tag(&tag);
            }
            Event::Empty(tag) => check_tag(&tag),
            Event::End(_) => open -= 1,
            Event::Text(text) => drop(text.xml10_content().expect("text")),
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(open, 0);
    assert!(1 < pictures);
    assert!(!page.contains("url(") && !page.contains("@import"));
}

fn check_tag(tag: &quick_xml::events::BytesStart<'_>) {
    let known = [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "p",
        "ul",
        "li",
        "b",
        "i",
        "figure",
        "figcaption",
        "div",
        "svg",
        "path",
        "rect",
        "text",
        "g",
        "circle",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "details",
        "summary",
    ];
    let name = String::from_utf8_lossy(tag.name().as_ref()).into_owned();
    assert!(known.contains(&&*name), "<{name}>");
    for attribute in tag.attributes() {
        let attribute = attribute.expect("well-formed");
        let key = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
        assert!(!["href", "src"].contains(&&*key) && !key.starts_with("on"), "{key}");
        attribute.normalized_value(XmlVersion::Implicit1_0).expect("escaped");
    }
}
