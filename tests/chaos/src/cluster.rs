//! A cluster of real processes: a coordinator, nodes of one bucket, a proxy.
//!
//! Each process has a folder of its own, and in a sandbox a network of its own. Invariant: all end
//! with this value; one that ends by itself is reported and started again (`watch`).

use std::{
    collections::{BTreeMap, HashMap},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::{
    lanes::Lanes,
    process::{Process, Spec, is_crash},
    sandbox,
    store::ObjectStore,
};

const HTTP_PORT: u16 = 5711;
const RPC_PORT: u16 = 4711;
/// Of the partitions of the cluster.
pub const PARTITIONS_LOG2: u32 = 2;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A node's disk where it is a small one: two journal files, a spare, caches and the filler's room.
const SMALL_DISK_BYTES: u64 = 192 << 20;

/// How to make a cluster.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program.
    pub tako: PathBuf,
    /// For everything written.
    pub folder: PathBuf,
    /// How many.
    pub nodes: usize,
    /// Give every node and the proxy a network of its own.
    pub networks: bool,
    /// Give every node a small disk of its own.
    pub small_disks: bool,
    /// How long deletes are remembered.
    pub tombstone_grace: Duration,
}

/// One process and what the others may know of it.
#[derive(Debug)]
pub struct Member {
    /// Such as `n1`.
    pub id: String,
    /// Where it answers HTTP.
    pub http: String,
    /// Where it answers nodes; empty for others.
    pub rpc: String,
    /// Its network in a sandbox.
    pub network: usize,
    /// Its `--var`.
    pub var: PathBuf,
    /// The process.
    pub process: tokio::sync::Mutex<Process>,
    /// Held by a fault that is at it.
    pub fault: Arc<tokio::sync::Mutex<()>>,
    /// Started again when it ends.
    wanted: AtomicBool,
}

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    /// How it was made.
    pub settings: Settings,
    /// Nodes, in order.
    pub nodes: Vec<Member>,
    /// The proxy.
    pub proxy: Member,
    /// The coordinator.
    pub coordinator: Member,
    /// Its store.
    pub store: ObjectStore,
    /// Between processes without networks of their own.
    lanes: Lanes,
    /// How many faults cut from one process to another.
    cuts: Mutex<HashMap<(String, String), usize>>,
    events: Mutex<Events>,
    began: Instant,
}

/// What happened.
#[derive(Debug, Default)]
struct Events {
    lines: Vec<String>,
    counts: BTreeMap<String, u64>,
    wrong: Vec<String>,
    verbose: bool,
}

impl Cluster {
    /// Makes folders, networks or forwarders, and the configuration; starts no process.
    ///
    /// # Errors
    /// What of the surroundings fails.
    pub fn new(settings: Settings, store: ObjectStore) -> anyhow::Result<Self> {
        let folder = settings.folder.clone();
        std::fs::create_dir_all(folder.join("log"))?;
        if let ObjectStore::Folder(path) = &store {
            std::fs::create_dir_all(path)?;
        }
        let mut ports = Ports::default();
        let our_host = our_host(settings.networks);
        let coordinator_port = ports.free(settings.networks, 4710)?;
        let mut lanes = Lanes::default();
        let (mut at, mut listens) = (Vec::new(), Vec::new());
        for number in (1..=settings.nodes).chain([sandbox::PROXY]) {
            if settings.networks {
                sandbox::add_network(number)?;
            }
            let host =
                if settings.networks { sandbox::host(number) } else { "127.0.0.1".to_owned() };
            let http = ports.free(settings.networks, HTTP_PORT)?;
            let (rpc, own) = if settings.networks {
                (RPC_PORT, RPC_PORT)
            } else {
                // Others reach it through a forwarder.
                let listener = TcpListener::bind((host.as_str(), 0))?;
                let (rpc, own) = (listener.local_addr()?.port(), ports.free(false, RPC_PORT)?);
                lanes.add(listener, &format!("n{number}"), format!("{host}:{own}"))?;
                (rpc, own)
            };
            at.push((number, host, http, rpc));
            listens.push(format!("127.0.0.1:{own}"));
        }
        let config = folder.join("cluster.yaml");
        std::fs::write(&config, configuration(&settings, our_host, coordinator_port, &at))?;
        let make = |id: &str, role: &str, own: &[&str], place: (usize, &str, u16, u16)| {
            let (network, host, http, rpc) = place;
            let var = folder.join(id);
            let path = |path: &Path| path.display().to_string();
            let mut line = Vec::new();
            if settings.networks && role != "coordinator" {
                line.extend(sandbox::prefix(network));
            }
            line.extend([path(&settings.tako), role.to_owned(), "--id".to_owned(), id.to_owned()]);
            line.extend(own.iter().map(|word| (*word).to_owned()));
            line.extend(["--var".to_owned(), path(&var)]);
            if settings.networks {
                line.push("--insecure".to_owned());
            }
            let log = folder.join(format!("log/{id}.log"));
            let spec = Spec { id: id.to_owned(), line, log, environment: store.environment() };
            Member {
                id: id.to_owned(),
                http: format!("{host}:{http}"),
                rpc: if role == "node" { format!("{host}:{rpc}") } else { String::new() },
                network,
                var,
                process: tokio::sync::Mutex::new(Process::new(spec)),
                fault: Arc::default(),
                wanted: AtomicBool::new(false),
            }
        };
        let url = store.url();
        let source = format!("{our_host}:{coordinator_port}");
        let own = ["--coordinator", &source, "--store", &url];
        let nodes: Vec<Member> = at
            .iter()
            .zip(&listens)
            .take(settings.nodes)
            .map(|((n, host, http, rpc), listen)| {
                let mut own = own.to_vec();
                if !settings.networks {
                    own.extend(["--rpc-listen", listen]);
                }
                make(&format!("n{n}"), "node", &own, (*n, host, *http, *rpc))
            })
            .collect();
        if settings.small_disks {
            for node in &nodes {
                sandbox::small_disk(&node.var, SMALL_DISK_BYTES)?;
            }
        }
        let (n, host, http, _) = at.last().context("the proxy has a place")?;
        let port = http.to_string();
        let own = ["--coordinator", &source, "--host", host, "--port", &port];
        let proxy = make("p1", "proxy", &own, (*n, host, *http, 0));
        let file = config.display().to_string();
        let own = ["--config", &file, "--store", &url];
        let coordinator = make("c1", "coordinator", &own, (0, our_host, coordinator_port, 0));
        Ok(Self {
            settings,
            nodes,
            proxy,
            coordinator,
            store,
            lanes,
            cuts: Mutex::default(),
            events: Mutex::default(),
            began: Instant::now(),
        })
    }

    /// Drops what goes from one process to another, until [`Self::mend`] was called as often.
    ///
    /// # Errors
    /// What the system says.
    pub fn cut(&self, from: &Member, to: &Member) -> anyhow::Result<()> {
        let mut cuts = self.cuts.lock();
        let count = cuts.entry((from.id.clone(), to.id.clone())).or_default();
        *count += 1;
        if *count > 1 {
            return Ok(());
        }
        if self.settings.networks {
            return sandbox::cut(from.network, to.network);
        }
        self.lanes.set(&from.id, &to.id, true);
        Ok(())
    }

    /// Undoes one [`Self::cut`].
    ///
    /// # Errors
    /// What the system says.
    pub fn mend(&self, from: &Member, to: &Member) -> anyhow::Result<()> {
        let mut cuts = self.cuts.lock();
        let count = cuts.entry((from.id.clone(), to.id.clone())).or_default();
        *count = count.saturating_sub(1);
        if *count > 0 {
            return Ok(());
        }
        if self.settings.networks {
            return sandbox::mend(from.network, to.network);
        }
        self.lanes.set(&from.id, &to.id, false);
        Ok(())
    }

    /// All processes, in the order of starting.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        [&self.coordinator].into_iter().chain(&self.nodes).chain([&self.proxy])
    }

    /// Replicas that a write needs.
    #[must_use]
    pub fn w(&self) -> usize {
        self.settings.nodes / 2 + 1
    }

    /// Replicas that a read needs.
    #[must_use]
    pub fn r(&self) -> usize {
        self.settings.nodes - self.w() + 1
    }

    /// Starts a process; from then on it is started again when it ends by itself.
    ///
    /// # Errors
    /// What the system says.
    pub async fn start(&self, member: &Member) -> anyhow::Result<()> {
        let mut process = member.process.lock().await;
        process.start().with_context(|| format!("cannot start {}", member.id))?;
        member.wanted.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Starts what does not run.
    ///
    /// # Errors
    /// What the system says.
    pub async fn start_all(&self) -> anyhow::Result<()> {
        for member in self.members() {
            self.start(member).await?;
        }
        Ok(())
    }

    /// Kills a process with -9.
    pub async fn kill(&self, member: &Member) {
        member.wanted.store(false, Ordering::SeqCst);
        member.process.lock().await.kill();
    }

    /// Ends a process in good order.
    ///
    /// # Errors
    /// What the system says.
    pub async fn stop(&self, member: &Member, patience: Duration) -> anyhow::Result<()> {
        member.wanted.store(false, Ordering::SeqCst);
        let ended = member.process.lock().await.stop(patience).await?;
        match ended {
            Some(status) if is_crash(status) => {
                self.wrong(format!("{} ended with {status} when told to stop", member.id));
            }
            Some(_) => {}
            None => {
                self.count(&format!("{} did not stop in {patience:?} and was killed", member.id))
            }
        }
        Ok(())
    }

    /// Starts again what ended by itself, for ever.
    pub async fn watch(&self) {
        loop {
            sleep(LOOK_EVERY).await;
            for member in self.members() {
                let Ok(mut process) = member.process.try_lock() else { continue };
                let Ok(Some(status)) = process.ended() else { continue };
                self.say(format_args!("{} ended by itself: {status}", member.id));
                self.count("ended by itself, started again");
                if is_crash(status) {
                    self.wrong(format!("{} ended with {status}", member.id));
                }
                if member.wanted.load(Ordering::SeqCst)
                    && let Err(error) = process.start()
                {
                    self.wrong(format!("{} cannot be started again: {error}", member.id));
                }
            }
        }
    }

    /// Tells what happens.
    pub fn verbose(&self) {
        self.events.lock().verbose = true;
    }

    /// Notes a line of the run's story.
    pub fn say(&self, what: std::fmt::Arguments<'_>) {
        let line = format!("{:>8.3} s: {what}", self.began.elapsed().as_secs_f64());
        let mut events = self.events.lock();
        if events.verbose {
            eprintln!("{line}");
        }
        events.lines.push(line);
    }

    /// Counts a fault, or what else is worth a number.
    pub fn count(&self, kind: &str) {
        *self.events.lock().counts.entry(kind.to_owned()).or_default() += 1;
    }

    /// Notes what must not be.
    pub fn wrong(&self, what: String) {
        self.say(format_args!("WRONG: {what}"));
        self.events.lock().wrong.push(what);
    }

    /// The story, the numbers, and what must not be.
    #[must_use]
    pub fn events(&self) -> (Vec<String>, BTreeMap<String, u64>, Vec<String>) {
        let events = self.events.lock();
        (events.lines.clone(), events.counts.clone(), events.wrong.clone())
    }

    /// Lines of the processes' logs that only a bug makes.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        let mut found = Vec::new();
        for member in self.members() {
            let path = self.settings.folder.join(format!("log/{}.log", member.id));
            let text = std::fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines = text.lines().filter(|line| line.contains("panicked at"));
            found.extend(lines.take(5).map(|line| format!("{}: {line}", member.id)));
        }
        found
    }
}

/// Where this program, the coordinator and the store's forwarder listen.
#[must_use]
pub fn our_host(networks: bool) -> &'static str {
    if networks { sandbox::OUR_HOST } else { "127.0.0.1" }
}

/// Deletes what is in a folder; the folder may be a mounted disk.
///
/// # Errors
/// Those of the folder.
pub fn empty(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Ports of the system's choosing, held until all are chosen.
#[derive(Debug, Default)]
struct Ports(Vec<TcpListener>);

impl Ports {
    fn free(&mut self, networks: bool, usual: u16) -> anyhow::Result<u16> {
        if networks {
            return Ok(usual);
        }
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        self.0.push(listener);
        Ok(port)
    }
}

fn configuration(
    settings: &Settings,
    our_host: &str,
    coordinator: u16,
    at: &[(usize, String, u16, u16)],
) -> String {
    let mut text = format!(
        "active_deployment: d\n\
         coordinators: {{c1: [{our_host}, {coordinator}]}}\n\
         partitions: {}\n\
         snapshot: {{interval: 2s}}\n\
         journal: {{memory: 1MiB, disk: 128MiB}}\n\
         cache: {{records: 1MiB, memory: 4MiB, disk: 0}}\n\
         tombstone_grace: {}ms\n\
         deployments:\n  d:\n    hash: {{buckets_per_key: 1}}\n    buckets:\n      b1:\n",
        1 << PARTITIONS_LOG2,
        settings.tombstone_grace.as_millis(),
    );
    for (n, host, http, rpc) in at.iter().take(settings.nodes) {
        text += &format!("        n{n}: [{host}, {http}, {rpc}]\n");
    }
    text
}
