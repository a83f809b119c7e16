//! A node in this process with its HTTP on a real loopback port, and a client of raw bytes.
//!
//! The client parses answers strictly by itself, so that what is on the wire is what is tested.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part of this")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tako_flatbuf::{MemoryNetwork, Network, TcpNetwork};
use tako_gateway::{Gateway, GatewayOptions};
use tako_journal::{Blocking, FsDisk};
use tako_node_core::{
    configuration::ConfigSource,
    node::{JOURNAL_FILE_BYTES, Node, NodeOptions},
};
use tako_snapshot::{Store, Upkeep};
use tako_types::{Clock, NodeId, SystemClock, limits::HEALING_INTERVAL_MIN};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long anything awaited may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Greatest value in [`one_node`].
pub const VALUE_LIMIT: usize = 100_000;

pub fn one_node() -> String {
    configuration(1)
}

/// One bucket of `nodes` nodes, small values, short requests.
pub fn configuration(nodes: usize) -> String {
    let mut text = format!(
        "partitions: 4\nvalue_bytes_max: {VALUE_LIMIT}\nrequest_deadline: 3s\nsnapshot: {{interval: \
         300ms}}\nactive_deployment: d\ndeployments:\n  d:\n    hash: {{buckets_per_key: 1}}\n    \
         buckets:\n      b1:\n"
    );
    for n in 1..=nodes {
        text.push_str(&format!("        n{n}: [localhost, {}]\n", 4700 + n));
    }
    text
}

/// Wall time with an offset that tests move.
#[derive(Debug, Default)]
pub struct SkewedClock(AtomicI64);

impl SkewedClock {
    pub fn skew(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).expect("a short time");
        self.0.store(micros, Ordering::SeqCst);
    }
}

impl Clock for SkewedClock {
    fn now_micros(&self) -> u64 {
        SystemClock.now_micros().saturating_add_signed(self.0.load(Ordering::SeqCst))
    }
}

pub struct Place {
    dir: TempDir,
    network: MemoryNetwork,
    store: Store,
    nodes: Vec<Arc<Node>>,
    pub clock: Arc<SkewedClock>,
    pub address: SocketAddr,
    pub memcached: SocketAddr,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<()>,
}

impl Place {
    /// One serving node with default bounds.
    pub async fn one() -> Self {
        Self::with(GatewayOptions::default()).await
    }

    /// One serving node.
    pub async fn with(options: GatewayOptions) -> Self {
        let place = Self::started(&one_node(), options).await;
        place.ready().await;
        place
    }

    /// The node n1 of a configuration; it need not be ready.
    pub async fn started(config: &str, options: GatewayOptions) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("config.yaml"), config).expect("a small file");
        let network = MemoryNetwork::new();
        let store = Store::in_memory();
        let clock = Arc::new(SkewedClock::default());
        let node = start_node(&dir, &network, &store, &clock, "n1").await;
        let listener = TcpNetwork.listen("127.0.0.1:0").await.expect("a port");
        let address = listener.address().parse().expect("its address");
        let lines = TcpNetwork.listen("127.0.0.1:0").await.expect("a port");
        let memcached = lines.address().parse().expect("its address");
        let shutdown = CancellationToken::new();
        let gateway = Gateway::new(node.serving.clone(), options);
        let http = tako_gateway::serve(listener, gateway.clone(), shutdown.clone());
        let lines = tako_gateway::serve_memcached(lines, gateway, shutdown.clone());
        let served = tokio::spawn(async {
            tokio::join!(http, lines);
        });
        let nodes = vec![node];
        Self { dir, network, store, nodes, clock, address, memcached, shutdown, served }
    }

    /// Starts one more node of the configuration.
    pub async fn start(&mut self, id: &str) {
        let node = start_node(&self.dir, &self.network, &self.store, &self.clock, id).await;
        self.nodes.push(node);
    }

    /// Silences the network between one node and others.
    pub fn cut(&self, one: &str, others: &[&str]) {
        for other in others {
            self.network.cut_both(one, other);
        }
    }

    pub async fn ready(&self) {
        eventually("the node is ready", async || self.get("/readyz").await.status == 200).await;
    }

    pub async fn client(&self) -> Client {
        let tcp = TcpStream::connect(self.address).await.expect("connected");
        Client { tcp, buffer: Vec::new() }
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut client = self.client().await;
        client.ask(method, path, headers, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", b"").await
    }

    pub async fn put(&self, path: &str, body: &[u8]) -> Answer {
        self.ask("PUT", path, "", body).await
    }
}

async fn start_node(
    dir: &TempDir,
    network: &MemoryNetwork,
    store: &Store,
    clock: &Arc<SkewedClock>,
    id: &str,
) -> Arc<Node> {
    let options = NodeOptions {
        id: NodeId::new(id),
        var: dir.path().join(id),
        source: ConfigSource::File(dir.path().join("config.yaml")),
        store: Some(store.clone()),
        accept_loss: false,
        clock: clock.clone(),
        seed: id.bytes().map(u64::from).sum(),
        network: Arc::new(network.as_host(id)),
        disk: Arc::new(FsDisk),
        blocking: Blocking::Threads,
        upkeep: Upkeep::default(),
        journal_file_bytes: JOURNAL_FILE_BYTES,
        healing_interval_min: HEALING_INTERVAL_MIN,
    };
    Node::start(options, CancellationToken::new()).await.expect("a node starts")
}

/// One connection.
pub struct Client {
    tcp: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.tcp.write_all(bytes).await.expect("sent");
    }

    /// Sends what the other side may no longer want.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        timeout(PATIENCE, self.tcp.write_all(bytes)).await.expect("moved on")
    }

    pub async fn send_head(&mut self, method: &str, path: &str, headers: &str) {
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: t\r\n{headers}\r\n").as_bytes()).await;
    }

    pub async fn ask(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let length = match method {
            "PUT" | "POST" => format!("Content-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        self.send_head(method, path, &format!("{length}{headers}")).await;
        self.send(body).await;
        self.answer_to(method).await
    }

    /// Ends the client's side.
    pub async fn half_close(&mut self) {
        self.tcp.shutdown().await.expect("shut down");
    }

    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    pub async fn answer_to(&mut self, method: &str) -> Answer {
        timeout(PATIENCE, self.read_answer(method))
            .await
            .expect("an answer in time")
            .expect("an answer before the end")
    }

    /// An answer, or `None` where the connection ends before one.
    pub async fn maybe_answer(&mut self) -> Option<Answer> {
        timeout(PATIENCE, self.read_answer("GET")).await.expect("an answer or the end in time")
    }

    /// Waits for the end of the connection; gives the bytes that came before it.
    pub async fn end(&mut self) -> Vec<u8> {
        while timeout(PATIENCE, self.more()).await.expect("the end in time") {}
        std::mem::take(&mut self.buffer)
    }

    async fn more(&mut self) -> bool {
        self.tcp.read_buf(&mut self.buffer).await.is_ok_and(|count| count > 0)
    }

    async fn read_answer(&mut self, method: &str) -> Option<Answer> {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.buffer.drain(..head_end + 4).collect()).expect("a text");
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().expect("a status line");
        let status = status_line.split(' ').nth(1).expect("a status").parse().expect("a number");
        let headers: Vec<(String, String)> = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").expect("a header");
                (name.to_ascii_lowercase(), value.to_owned())
            })
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if let Some(encoding) = answer.header("transfer-encoding") {
            assert_eq!(encoding, "chunked");
            answer.body = self.chunks().await?;
            return Some(answer);
        }
        if method != "HEAD" && !matches!(status, 100 | 204 | 304) {
            let length: usize =
                answer.header("content-length").expect("a length").parse().expect("a number");
            while self.buffer.len() < length {
                if !self.more().await {
                    return None;
                }
            }
            answer.body = self.buffer.drain(..length).collect();
        }
        Some(answer)
    }
}

impl Client {
    /// A body in chunks, whole; `None` where the connection ends within it.
    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line_end = loop {
                if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                    break at;
                }
                if !self.more().await {
                    return None;
                }
            };
            let line =
                String::from_utf8(self.buffer.drain(..line_end + 2).collect()).expect("text");
            let length = usize::from_str_radix(line.trim(), 16).expect("a length");
            while self.buffer.len() < length + 2 {
                if !self.more().await {
                    return None;
                }
            }
            body.extend(self.buffer.drain(..length));
            assert_eq!(self.buffer.drain(..2).collect::<Vec<_>>(), b"\r\n");
            if length == 0 {
                return Some(body);
            }
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(own, _)| own == name);
        let first = all.next();
        assert!(all.next().is_none(), "{name} is there once");
        first.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The timestamp in the header, checked for its form.
    pub fn timestamp(&self) -> u64 {
        let text = self.header("x-timestamp").expect("a timestamp");
        assert!(text.len() >= 12 && text.bytes().all(|b| b.is_ascii_digit()), "{text}");
        text.parse().expect("a number")
    }

    /// Checks that this is a problem that tells its reader something.
    pub fn problem(&self, status: u16, part: &str) -> serde_json::Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert!(self.body.ends_with(b"\n"), "{self:?}");
        assert_eq!(self.header("retry-after"), (status == 503).then_some("1"));
        let json = self.json();
        assert_eq!(json["status"], status);
        assert!(!json["title"].as_str().expect("a title").is_empty());
        let detail = json["detail"].as_str().expect("a detail");
        assert!(!detail.is_empty() && detail.contains(part), "`{part}` in {detail}");
        json
    }
}

/// Awaits a condition by polling; panics with `what` when it does not come.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < until, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
