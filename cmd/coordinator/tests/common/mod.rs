//! Coordinators on machines of their own that share a store, and nodes that are always where they
//! should be; all in memory, in simulated time.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "every test file uses its own part")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tako_coordinator::{
    ConfigStore, Coordinator, CoordinatorError, CoordinatorOptions, Created, InForce, StoreError,
};
use tako_flatbuf::{
    CallHead, Caller, MemoryNetwork, Network, NodeState, PartitionStanding, Request, Response,
    RpcError, ServeOptions, Service, Standing, serve,
};
use tako_journal::{Blocking, fault::MemDisk, read_all, replace_file};
use tako_snapshot::Store;
use tako_types::{
    Incarnation, Lsn, NodeId, StepNumber,
    config::{Phase, Published},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// In simulated time.
const PATIENCE: Duration = Duration::from_secs(600);
pub const FILE: &str = "/etc/tako.yaml";

/// A configuration of three coordinators that moves between `d` (on n1) and `t` (on n2).
pub fn file(active: &str, target: Option<&str>, more: &str) -> String {
    let target = target.map_or(String::new(), |name| format!("target_deployment: {name}\n"));
    format!(
        "partitions: 2\nactive_deployment: {active}\n{target}{more}\
         coordinators: {{c1: [c1, 80], c2: [c2, 80], c3: [c3, 80]}}\ndeployments:\n  \
         d: {{hash: {{buckets_per_key: 1}}, buckets: {{b1: {{n1: [n1, 47]}}}}}}\n  \
         t: {{hash: {{buckets_per_key: 1}}, buckets: {{b1: {{n2: [n2, 47]}}}}}}\n"
    )
}

/// All that the coordinators share.
pub struct World {
    pub network: MemoryNetwork,
    store: Arc<Store>,
    /// The phase in which the nodes are not ready.
    pub stuck_in: Arc<Mutex<Option<Phase>>>,
    /// Whether the nodes hold what no step has covered, and never end one.
    pub hangs: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl World {
    pub async fn new() -> Self {
        let network = MemoryNetwork::new();
        let world = Self {
            store: Arc::new(Store::in_memory()),
            stuck_in: Arc::default(),
            hangs: Arc::default(),
            stop: CancellationToken::new(),
            network,
        };
        for id in ["n1", "n2"] {
            let host = world.network.as_host(id);
            let listener = host.listen(&format!("{id}:47")).await.expect("free");
            let node = Arc::new(Node {
                id: NodeId::new(id),
                store: world.store.clone(),
                stuck_in: world.stuck_in.clone(),
                hangs: world.hangs.clone(),
            });
            tokio::spawn(serve(listener, node, ServeOptions::default(), world.stop.clone()));
        }
        world
    }

    /// A machine with this file.
    pub fn machine(&self, id: &str, text: &str) -> Machine {
        let machine = Machine {
            id: id.to_owned(),
            network: self.network.clone(),
            disk: MemDisk::default(),
            store: Arc::new(Access {
                store: self.store.clone(),
                is_away: AtomicBool::new(false),
                is_slow: AtomicBool::new(false),
                loses_answer: AtomicBool::new(false),
            }),
        };
        machine.write(text);
        machine
    }

    pub async fn newest(&self) -> Published {
        let latest = ConfigStore::latest(&*self.store).await.expect("it is there");
        Published::decode(&latest.expect("one").1).expect("a document")
    }

    /// The document with a number.
    pub async fn document(&self, number: u64) -> Published {
        let bytes = self.store.config(number).await.expect("it is there").expect("published");
        Published::decode(&bytes).expect("a document")
    }

    /// Waits for a phase, or for none.
    pub async fn until_phase(&self, phase: Option<Phase>) -> Published {
        until(&format!("{phase:?}"), async || {
            let newest = self.newest().await;
            (newest.migration.as_ref().map(|it| it.phase) == phase).then_some(newest)
        })
        .await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Looks until there is something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    match timeout(PATIENCE, looking).await {
        Ok(found) => found,
        Err(_) => panic!("never: {what}"),
    }
}

/// A coordinator's machine; what is on its disk outlives the process.
pub struct Machine {
    pub id: String,
    network: MemoryNetwork,
    disk: MemDisk,
    store: Arc<Access>,
}

impl Machine {
    pub fn write(&self, text: &str) {
        replace_file(&self.disk, Path::new("/etc"), "tako.yaml", text.as_bytes()).expect("written");
    }

    pub fn read(&self, path: &str) -> Option<String> {
        let bytes = read_all(&self.disk, Path::new(path)).ok()?;
        Some(String::from_utf8(bytes).expect("text"))
    }

    /// What is on its disk now.
    pub fn disk(&self) -> MemDisk {
        self.disk.deep_copy()
    }

    /// As a restored image of the machine does.
    pub fn roll_back_to(&mut self, disk: MemDisk) {
        self.disk = disk;
    }

    /// Whether it reaches the store.
    pub fn set_store_away(&self, is_away: bool) {
        self.store.is_away.store(is_away, Ordering::SeqCst);
    }

    /// Whether what it publishes takes a second to reach the store.
    pub fn set_store_slow(&self, is_slow: bool) {
        self.store.is_slow.store(is_slow, Ordering::SeqCst);
    }

    /// What it publishes next is there, and it does not hear of it.
    pub fn lose_next_answer(&self) {
        self.store.loses_answer.store(true, Ordering::SeqCst);
    }

    pub fn options(&self) -> CoordinatorOptions {
        CoordinatorOptions {
            bind: Some(format!("{}:80", self.id)),
            store: Some(self.store.clone()),
            disk: Arc::new(self.disk.clone()),
            blocking: Blocking::Here(Arc::new(|| Duration::ZERO)),
            ..CoordinatorOptions::new(
                self.id.as_str(),
                FILE.into(),
                "/var".into(),
                Arc::new(self.network.as_host(&self.id)),
            )
        }
    }

    pub async fn try_start(&self) -> Result<Running, CoordinatorError> {
        let coordinator = Coordinator::start(self.options()).await?;
        let in_force = coordinator.in_force();
        let task = tokio::spawn(coordinator.serve(std::future::pending()));
        let (id, network) = (self.id.clone(), self.network.clone());
        Ok(Running { id, network, in_force, task })
    }

    pub async fn start(&self) -> Running {
        self.try_start().await.unwrap_or_else(|error| panic!("{} starts: {error}", self.id))
    }
}

/// A coordinator's process.
pub struct Running {
    id: String,
    network: MemoryNetwork,
    in_force: InForce,
    task: JoinHandle<()>,
}

impl Drop for Running {
    /// As a crash does.
    fn drop(&mut self) {
        self.task.abort();
        self.network.drop_connections(&self.id);
    }
}

impl Running {
    /// It dies; its port is free afterwards.
    pub async fn kill(mut self) {
        self.task.abort();
        let _aborted = (&mut self.task).await;
    }

    pub fn published(&self) -> Published {
        self.in_force.published()
    }

    pub async fn until_epoch(&self, number: u64) -> Published {
        let what = format!("{} at {number}", self.id);
        until(&what, async || {
            let published = self.published();
            (published.epoch.number == number).then_some(published)
        })
        .await
    }

    /// Status, head in lower case, and body of a request.
    pub async fn request(&self, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut stream =
            self.network.as_host("client").connect(&format!("{}:80", self.id)).await.expect("open");
        let length = body.len();
        let head =
            format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        // One that is refused by its length may not be read.
        let _sent = stream.write_all(body).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("answered");
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
        let body = answer.split_off(end + 4);
        let head = String::from_utf8(answer).expect("text").to_lowercase();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        (status, head, body)
    }

    /// Orders a file; status and JSON.
    pub async fn order(&self, text: &str) -> (u16, Value) {
        let (status, _, body) = self.request("PUT /configuration HTTP/1.1", text.as_bytes()).await;
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    /// Orders a file that must be taken.
    pub async fn must_take(&self, text: &str) {
        let (status, body) = self.order(text).await;
        assert_eq!(status, 200, "{body}");
    }

    pub async fn status(&self) -> Value {
        let (_, _, body) = self.request("GET /status HTTP/1.1", b"").await;
        serde_json::from_slice(&body).expect("JSON")
    }

    pub async fn until_error(&self, part: Option<&str>) {
        until(&format!("{} says {part:?}", self.id), async || {
            let status = self.status().await;
            let error = status["last_error"].as_str();
            match (part, error) {
                (Some(part), Some(error)) => error.contains(part),
                (None, None) => true,
                _ => false,
            }
            .then_some(())
        })
        .await;
    }
}

/// The store as one machine reaches it.
struct Access {
    store: Arc<Store>,
    is_away: AtomicBool,
    is_slow: AtomicBool,
    loses_answer: AtomicBool,
}

impl Access {
    fn check(&self) -> Result<(), StoreError> {
        match self.is_away.load(Ordering::SeqCst) {
            true => Err(StoreError::new("the store is away")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl ConfigStore for Access {
    async fn latest(&self) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.check()?;
        ConfigStore::latest(&*self.store).await
    }

    async fn document(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        self.check()?;
        ConfigStore::document(&*self.store, number).await
    }

    async fn create(&self, number: u64, bytes: Bytes) -> Result<Created, StoreError> {
        self.check()?;
        if self.is_slow.load(Ordering::SeqCst) {
            sleep(Duration::from_secs(1)).await;
        }
        let created = ConfigStore::create(&*self.store, number, bytes).await;
        match self.loses_answer.swap(false, Ordering::SeqCst) {
            true => Err(StoreError::new("no answer")),
            false => created,
        }
    }
}

/// A node that has the newest document, and holds nothing.
struct Node {
    id: NodeId,
    store: Arc<Store>,
    stuck_in: Arc<Mutex<Option<Phase>>>,
    hangs: Arc<AtomicBool>,
}

#[async_trait]
impl Service for Node {
    async fn call(&self, _: &Caller, _: &CallHead, request: Request) -> Result<Response, RpcError> {
        let hello =
            Response::Hello { cluster: None, node: self.id.clone(), incarnation: Incarnation(1) };
        let latest = ConfigStore::latest(&*self.store).await;
        let latest = latest.map_err(|error| RpcError::unavailable(error.to_string()))?;
        let document = latest.and_then(|(_, bytes)| Published::decode(&bytes).ok());
        let document = document.ok_or_else(|| RpcError::unavailable("nothing is published"))?;
        let phase = document.migration.as_ref().map(|migration| migration.phase);
        let number = document.epoch.number;
        let is_stuck = phase.is_some() && phase == *self.stuck_in.lock();
        let hangs = self.hangs.load(Ordering::SeqCst);
        let row = |partition| PartitionStanding {
            partition,
            holder: document.placement(partition).holders.contains(&self.id),
            adopted_lsn: Some(Lsn(0)),
            last_lsn: Lsn(0),
            step: StepNumber(1),
            uncovered: u64::from(hangs),
            recovered: true,
            voting: true,
            coverage: Vec::new(),
        };
        match request {
            Request::Hello { .. } => Ok(hello),
            Request::Standing { .. } => Ok(Response::Standing(Standing {
                cluster: None,
                epoch: if is_stuck { number - 1 } else { number },
                noted: if is_stuck { 0 } else { number },
                state: NodeState::Serving,
                incarnation: Incarnation(1),
                partitions: document.partitions().map(row).collect(),
                more: false,
            })),
            Request::ForceStep { .. } if hangs => std::future::pending().await,
            _ => Err(RpcError::unavailable("it does nothing else")),
        }
    }
}
