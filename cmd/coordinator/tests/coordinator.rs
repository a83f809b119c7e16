//! A whole coordinator in this process: files, documents, HTTP, a shared store, restarts.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tako_coordinator::{ConfigStore, Coordinator, CoordinatorError, CoordinatorOptions, Created};
use tako_flatbuf::{MemoryNetwork, Network, TcpNetwork};
use tako_journal::{Blocking, fault::MemDisk, replace_file};
use tako_snapshot::Store;
use tako_types::{ErrorKind, config::Published};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, oneshot},
    task::JoinHandle,
};

const CONFIG: &str = "\
master_coordinator: c1
coordinators: {c1: [localhost, 4701], c2: [localhost, 4702]}
active_deployment: d
deployments:
    d:
        hash: {buckets_per_key: 1}
        buckets:
            b1:
                n1: [localhost, 5711, 4711]
            b2:
                n2: [localhost, 5712, 4712]
";
const PATIENCE: Duration = Duration::from_secs(20);

struct Case {
    folder: TempDir,
    store: Option<Arc<dyn ConfigStore>>,
}

impl Case {
    fn new() -> Self {
        let case = Self { folder: TempDir::new().expect("a folder"), store: None };
        case.write(CONFIG);
        case
    }

    fn with_store() -> Self {
        Self { store: Some(Arc::new(Store::in_memory())), ..Self::new() }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("tako.yaml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).expect("writable");
    }

    fn options(&self, id: &str) -> CoordinatorOptions {
        let var = self.folder.path().join("var");
        CoordinatorOptions {
            bind: Some("127.0.0.1:0".to_owned()),
            store: self.store.clone(),
            watch_interval: Duration::from_millis(5),
            store_interval: Duration::from_millis(5),
            ..CoordinatorOptions::new(id, self.file(), var, Arc::new(TcpNetwork))
        }
    }

    async fn start(&self, id: &str) -> Running {
        serve(Coordinator::start(self.options(id)).await.expect("it starts"))
    }

    async fn refusal(&self, id: &str) -> CoordinatorError {
        match Coordinator::start(self.options(id)).await {
            Ok(_) => panic!("it started"),
            Err(error) => error,
        }
    }
}

fn serve(coordinator: Coordinator) -> Running {
    let address = coordinator.local_address();
    let reload = coordinator.reload_handle();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(coordinator.serve(async move {
        let _ = stopped.await;
    }));
    Running { address, reload, stop, task }
}

struct Running {
    address: String,
    reload: Arc<Notify>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).expect("it runs");
        self.task.await.expect("no panic");
    }

    /// Status line and headers in lower case, and the body.
    async fn get(&self, path: &str, header: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).await.expect("it listens");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("answered");
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
        let body = answer.split_off(end + 4);
        (String::from_utf8(answer).expect("text").to_lowercase(), body)
    }

    async fn published(&self) -> Published {
        Published::decode(&self.get("/configuration", "").await.1).expect("a document")
    }

    async fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&self.get("/status", "").await.1).expect("JSON")
    }

    /// Asks until the status is as wanted.
    async fn until(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let last = std::cell::RefCell::new(serde_json::Value::Null);
        let asking = async {
            loop {
                let status = self.status().await;
                if wanted(&status) {
                    return status;
                }
                last.replace(status);
                tokio::task::yield_now().await;
            }
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(status) => status,
            Err(_) => panic!("never as wanted: {}", last.borrow()),
        }
    }

    async fn until_epoch(&self, number: u64) {
        self.until(|status| status["epoch"]["number"] == number).await;
    }

    async fn until_error(&self, part: &str) {
        self.until(|s| s["last_error"].as_str().is_some_and(|e| e.contains(part))).await;
    }
}

#[tokio::test]
async fn the_document_is_served_with_its_number_and_hash() {
    let case = Case::new();
    let running = case.start("c1").await;
    let (head, body) = running.get("/configuration", "").await;
    let document = Published::decode(&body).expect("a document");
    assert_eq!(document.epoch.number, 1);
    assert_eq!(document.nodes().count(), 2);
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: application/json"));
    assert!(head.contains("x-timestamp: 1\r\n"), "{head}");
    let etag = head.lines().find_map(|l| l.strip_prefix("etag: ")).expect("an etag").to_owned();
    let (head, body) = running.get("/configuration", &format!("If-None-Match: {etag}\r\n")).await;
    assert!(head.starts_with("http/1.1 304") && body.is_empty(), "{head}");
    assert_eq!(running.get("/healthz", "").await.1, b"ok\n");
    running.stop().await;
}

#[tokio::test]
async fn metrics_tell_of_troubles_and_every_name_is_documented() {
    let case = Case::new();
    let running = case.start("c1").await;
    let metrics = async || String::from_utf8(running.get("/metrics", "").await.1).expect("text");
    let text = metrics().await;
    assert!(text.contains("\ntako_epoch 1\n") && text.contains("\ntako_migration 0\n"), "{text}");
    assert!(text.contains("tako_coordinator_trouble{source=\"file\"} 0\n"), "{text}");
    let page = include_str!("../../../docs/metrics.md");
    for line in text.lines().filter(|line| line.starts_with("# HELP ")) {
        let (name, help) = line["# HELP ".len()..].split_once(' ').expect("a help");
        let row = page.lines().find(|row| row.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("{name} is not in docs/metrics.md"));
        assert!(row.ends_with(&format!("| {help} |")), "{row}");
    }
    case.write(&CONFIG.replace("4712", "99999"));
    running.until_error("port 99999").await;
    let text = metrics().await;
    assert!(text.contains("tako_coordinator_trouble{source=\"file\"} 1\n"), "{text}");
    running.stop().await;
}

#[tokio::test]
async fn a_changed_file_is_published_under_the_next_number() {
    let case = Case::new();
    let running = case.start("c1").await;
    case.write(&CONFIG.replace("hash:", "read_repair: no\n        hash:"));
    running.until_epoch(2).await;
    assert!(!running.published().await.config.active_deployment().read_repair);
    // A remark changes nothing.
    case.write(&format!("# remark\n{}", CONFIG.replace("hash:", "read_repair: no\n        hash:")));
    running.reload.notify_one();
    running.until_epoch(2).await;
    running.stop().await;
}

#[tokio::test]
async fn a_refused_change_is_told_and_the_old_one_stays() {
    let case = Case::new();
    let running = case.start("c1").await;
    let before = running.published().await.epoch;
    for (text, part) in [
        (
            CONFIG.replace("4712", "99999"),
            "deployments.d.buckets.b2.n2: line 11, column 39: port 99999",
        ),
        (CONFIG.replace("b2:", "b3:"), "accepted only as a migration"),
        (format!("{CONFIG}partitions: 64\n"), "fixed for a cluster's data"),
    ] {
        case.write(&text);
        running.until_error(part).await;
        assert_eq!(running.published().await.epoch, before);
    }
    std::fs::remove_file(case.file()).expect("it was there");
    running.until_error("No such file").await;
    case.write(CONFIG);
    running.until(|status| status["last_error"].is_null()).await;
    assert_eq!(running.published().await.epoch, before);
    running.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_the_number_and_ten_documents_are_kept() {
    let case = Case::new();
    for round in 0..12u32 {
        case.write(&format!("{CONFIG}request_deadline: {}s\n", round + 1));
        let running = case.start("c1").await;
        assert_eq!(running.published().await.epoch.number, u64::from(round) + 1);
        running.stop().await;
        let running = case.start("c1").await;
        assert_eq!(running.published().await.epoch.number, u64::from(round) + 1);
        running.stop().await;
    }
    let folder = case.folder.path().join("var/etc/coordinator-c1");
    assert_eq!(names(&folder).len(), 10);
    assert_eq!(names(&folder)[9], "00000000000000000012.json");
    // A torn newest document is passed over, and never hides the one before.
    std::fs::write(folder.join("00000000000000000013.json"), b"{\"epoch\"").expect("written");
    let running = case.start("c1").await;
    assert_eq!(running.published().await.epoch.number, 12);
    running.stop().await;
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_documents_own_number_is_taken_when_it_is_higher() {
    let case = Case::new();
    case.write(&format!("{CONFIG}epoch: 40\n"));
    let running = case.start("c1").await;
    assert_eq!(running.published().await.epoch.number, 40);
    case.write(&format!("{CONFIG}epoch: 39\ndurability: os\n"));
    running.until_error("39 is not above 40").await;
    case.write(&format!("{CONFIG}epoch: 40\ndurability: os\n"));
    running.until_error("epoch 40 has two different documents").await;
    case.write(&format!("{CONFIG}durability: os\n"));
    running.until_epoch(41).await;
    running.stop().await;
}

#[tokio::test]
async fn a_coordinator_that_cannot_start_says_why() {
    let case = Case::new();
    let running = case.start("c1").await;
    let mut options = case.options("c1");
    options.bind = Some(running.address.clone());
    let error = Coordinator::start(options).await.err().expect("the port is taken");
    assert!(error.to_string().starts_with(&format!("cannot listen on {}", running.address)));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    running.stop().await;

    let mut options = case.options("c9");
    options.bind = None;
    let error = Coordinator::start(options).await.err().expect("unknown");
    assert_eq!(error.to_string(), "the configuration has no coordinator `c9`; it has: c1, c2");

    case.write(&CONFIG.replace("active_deployment: d", "active_deployment: x"));
    let error = case.refusal("c1").await;
    assert!(error.to_string().contains("active_deployment: line 3"), "{error}");
    std::fs::remove_file(case.file()).expect("it was there");
    assert!(case.refusal("c1").await.to_string().contains("tako.yaml"));
}

#[tokio::test]
async fn coordinators_of_one_store_agree_and_only_the_master_numbers() {
    let case = Case::with_store();
    let error = case.refusal("c2").await;
    assert!(error.to_string().contains("the master coordinator `c1` gives the numbers"), "{error}");
    let master = case.start("c1").await;
    let other = case.start("c2").await;
    assert_eq!(other.published().await.epoch, master.published().await.epoch);
    case.write(&format!("{CONFIG}durability: os\n"));
    master.until_epoch(2).await;
    other.until_epoch(2).await;
    assert_eq!(other.published().await.epoch, master.published().await.epoch);
    master.stop().await;
    other.stop().await;
    // Without its disk the master goes on where the store stands.
    std::fs::remove_dir_all(case.folder.path().join("var")).expect("it was there");
    case.write(CONFIG);
    let master = case.start("c1").await;
    assert_eq!(master.published().await.epoch.number, 3);
    master.stop().await;
}

#[tokio::test]
async fn a_number_that_somebody_else_took_is_passed_by() {
    let case = Case::with_store();
    let master = case.start("c1").await;
    let mut config = master.published().await.config.as_ref().clone();
    config.cluster.request_deadline = Duration::from_secs(3);
    let theirs = tako_ring::publish(Arc::new(config), 2, None).expect("publishable");
    let store = case.store.clone().expect("a store");
    assert_eq!(store.create(2, theirs.encode().into()).await.expect("created"), Created::Yes);
    assert_eq!(store.create(2, "x".into()).await.expect("asked"), Created::Exists);
    master.until_epoch(2).await;
    case.write(&format!("{CONFIG}durability: os\n"));
    master.until_epoch(3).await;
    assert_eq!(store.latest().await.expect("there").expect("one").0, 3);
    master.stop().await;
}

#[tokio::test]
async fn who_is_told_to_look_takes_the_file_at_once() {
    let case = Case::new();
    let mut options = case.options("c1");
    options.watch_interval = Duration::from_secs(3_600);
    let running = serve(Coordinator::start(options).await.expect("it starts"));
    running.until_epoch(1).await;
    for number in [2, 3] {
        case.write(&format!("{CONFIG}request_deadline: {number}s\n"));
        running.reload.notify_one();
        running.until_epoch(number).await;
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_starts_while_the_file_is_written_does_not_publish_a_half() {
    let network = MemoryNetwork::new();
    let disk = MemDisk::default();
    let write = |text: &str| {
        replace_file(&disk, Path::new("/"), "tako.yaml", text.as_bytes()).expect("written");
    };
    let options = || CoordinatorOptions {
        disk: Arc::new(disk.clone()),
        blocking: Blocking::Here(Arc::new(|| Duration::ZERO)),
        ..CoordinatorOptions::new(
            "c1",
            "/tako.yaml".into(),
            "/var".into(),
            Arc::new(network.as_host("c1")),
        )
    };
    write(&format!("{CONFIG}request_deadline: 7s\n"));
    drop(Coordinator::start(options()).await.expect("it starts"));
    // A part that makes sense by itself.
    write(CONFIG);
    let start = tokio::spawn(Coordinator::start(options()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    write(&format!("{CONFIG}request_deadline: 7s\n"));
    let coordinator = start.await.expect("no panic").expect("it starts");
    let published = coordinator.in_force().published();
    assert_eq!(published.epoch.number, 1, "a half was published");
    assert_eq!(published.config.cluster.request_deadline, Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn at_the_end_a_connection_that_stays_open_is_waited_for_no_longer_than_the_grace() {
    let (network, case) = (MemoryNetwork::new(), Case::new());
    let options = CoordinatorOptions {
        network: Arc::new(network.as_host("c1")),
        bind: Some("c1:80".to_owned()),
        ..case.options("c1")
    };
    let coordinator = Coordinator::start(options).await.expect("it starts");
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(coordinator.serve(async move {
        let _ = stopped.await;
    }));
    let client = network.as_host("client");
    let mut stream = client.connect("c1:80").await.expect("it listens");
    stream.write_all(b"GET /configuration HTTP/1.1\r\n").await.expect("sent");
    // The head is not whole: the request is open.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = tokio::time::Instant::now();
    stop.send(()).expect("it runs");
    task.await.expect("no panic");
    assert!(asked.elapsed() <= Duration::from_secs(5), "{:?}", asked.elapsed());
    let mut rest = Vec::new();
    let _cut_or_ended = stream.read_to_end(&mut rest).await;
    assert!(client.connect("c1:80").await.is_err(), "it still listens");
}

#[tokio::test(start_paused = true)]
async fn at_rest_it_asks_the_store_for_one_listing_and_one_document_each_half_minute() {
    let case = Case::new();
    let store = Store::in_memory();
    let var = case.folder.path().join("var");
    let options = CoordinatorOptions {
        network: Arc::new(MemoryNetwork::new().as_host("c1")),
        bind: Some("c1:80".to_owned()),
        store: Some(Arc::new(store.clone())),
        ..CoordinatorOptions::new("c1", case.file(), var, Arc::new(TcpNetwork))
    };
    let running = serve(Coordinator::start(options).await.expect("it starts"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = store.counts();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let cost = store.counts().since(&before);
    assert_eq!((cost.puts, cost.deletes), (0, 0), "{cost:?}");
    assert!((19..=21).contains(&cost.lists) && cost.gets <= cost.lists, "{cost:?}");
    running.stop().await;
}
