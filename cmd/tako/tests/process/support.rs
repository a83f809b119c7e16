//! A cluster of real processes in a temporary folder, HTTP by hand, and waits with a deadline.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::s3_server::S3Server;

/// Everything here takes seconds at most; a loaded machine gets more.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const IO_DEADLINE: Duration = Duration::from_secs(20);

/// A port that the system chose and that no other test was given.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let mut given = GIVEN.lock().expect("nobody panics with it");
        if given.get_or_insert_default().insert(port) {
            return port;
        }
    }
}

/// Looks until there is something; fails with what was waited for.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited too long for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The program, to be run to its end.
pub(crate) fn tako(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_tako")).args(args).output().expect("the program runs")
}

/// One HTTP request; the status and the body.
pub(crate) fn http(method: &str, port: u16, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(IO_DEADLINE))?;
    stream.set_write_timeout(Some(IO_DEADLINE))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(invalid)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(invalid)?;
    Ok((status, answer.split_off(end + 4)))
}

/// GET of a JSON document.
pub(crate) fn json(port: u16, path: &str) -> Option<Value> {
    let (status, body) = http("GET", port, path, b"").ok()?;
    (status == 200).then(|| serde_json::from_slice(&body).expect("JSON"))
}

/// Writes a value; whether it was acknowledged.
pub(crate) fn put(port: u16, key: &str, value: &str) -> bool {
    let answer = http("PUT", port, &format!("/values/{key}"), value.as_bytes());
    answer.is_ok_and(|(status, _)| status == 200)
}

/// Writes until it is acknowledged.
pub(crate) fn must_put(port: u16, key: &str, value: &str) {
    wait_for(&format!("a write of {key}"), || put(port, key, value).then_some(()));
}

/// Reads until there is an answer; `None` for a key that is not there.
pub(crate) fn must_get(port: u16, key: &str) -> Option<String> {
    wait_for(&format!("a read of {key}"), || {
        match http("GET", port, &format!("/values/{key}"), b"") {
            Ok((200, body)) => Some(Some(String::from_utf8(body).expect("text"))),
            Ok((404, _)) => Some(None),
            _ => None,
        }
    })
}

/// Waits until a port says that it is ready.
pub(crate) fn must_be_ready(port: u16) {
    wait_for(&format!("readiness at port {port}"), || {
        http("GET", port, "/readyz", b"").is_ok_and(|(status, _)| status == 200).then_some(())
    });
}

/// Whether a process runs; a dead one that nobody waited for does not.
pub(crate) fn lives(pid: Pid) -> bool {
    match fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) {
        Ok(line) => !line.is_empty(),
        Err(_) if Path::new("/proc/self").exists() => false,
        Err(_) => rustix::process::test_kill_process(pid).is_ok(),
    }
}

/// Ends a process; it may be gone already.
pub(crate) fn signal(pid: Pid, signal: Signal) {
    let _ = kill_process(pid, signal);
}

/// Waits for the end of a child.
pub(crate) fn must_end(child: &mut Child) -> ExitStatus {
    wait_for("the end of a process", || child.try_wait().expect("it can be waited for"))
}

/// A configuration in a folder of its own, and the ports in it.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    pub(crate) proxy: u16,
    pub(crate) coordinator: u16,
    /// HTTP and RPC port of n1, n2, ….
    pub(crate) nodes: Vec<(u16, u16)>,
    launcher: Option<Child>,
    by_hand: Vec<Child>,
    /// What the launcher is started with besides.
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) partitions: u32,
    /// More lines of the configuration.
    pub(crate) more: String,
}

impl Cluster {
    /// A configuration with one bucket of so many nodes.
    pub(crate) fn new(nodes: usize) -> Self {
        let cluster = Self {
            folder: tempfile::tempdir().expect("a temp folder"),
            proxy: free_port(),
            coordinator: free_port(),
            nodes: (0..nodes).map(|_| (free_port(), free_port())).collect(),
            launcher: None,
            by_hand: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            partitions: 4,
            more: String::new(),
        };
        cluster.configure("1s", nodes);
        cluster
    }

    /// The same, with its snapshots at a server.
    pub(crate) fn over_s3(nodes: usize, server: &S3Server, test: &str) -> Self {
        let mut cluster = Self::new(nodes);
        cluster.arguments = vec!["--store".to_owned(), server.url(test)];
        cluster.environment = vec![
            ("AWS_ENDPOINT", server.endpoint.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", server.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", server.secret_access_key.clone()),
        ];
        cluster
    }

    /// The same, started and ready.
    pub(crate) fn started(nodes: usize) -> Self {
        let mut cluster = Self::new(nodes);
        cluster.start();
        cluster
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("cluster.yaml")
    }

    pub(crate) fn var(&self) -> PathBuf {
        self.folder.path().join("var")
    }

    /// Writes the configuration with the first nodes of the cluster.
    pub(crate) fn configure(&self, interval: &str, nodes: usize) {
        let first: Vec<usize> = (1..=nodes).collect();
        self.configure_move(interval, &[("d", &first)], "d", None);
    }

    /// Writes a configuration with these deployments, each of one bucket with these nodes.
    pub(crate) fn configure_move(
        &self,
        interval: &str,
        deployments: &[(&str, &[usize])],
        active: &str,
        target: Option<&str>,
    ) {
        let buckets = deployments.iter().map(|(name, nodes)| (*name, 1, vec![*nodes]));
        self.configure_buckets(interval, &buckets.collect::<Vec<_>>(), active, target);
    }

    /// Writes a configuration with these deployments: name, buckets per key, and the nodes of each
    /// bucket.
    pub(crate) fn configure_buckets(
        &self,
        interval: &str,
        deployments: &[(&str, usize, Vec<&[usize]>)],
        active: &str,
        target: Option<&str>,
    ) {
        let text = self.text(interval, deployments, active, target);
        // As a whole, for the coordinator may be reading.
        let draft = self.folder.path().join("draft");
        fs::write(&draft, text).expect("written");
        fs::rename(draft, self.config()).expect("in place");
    }

    /// A file of its own with one deployment, for `tako migrate --to`.
    pub(crate) fn layout(&self, name: &str, nodes: &[usize]) -> String {
        let path = self.folder.path().join(format!("{name}.yaml"));
        let text = self.text("1s", &[(name, 1, vec![nodes])], name, None);
        fs::write(&path, text).expect("written");
        path.to_str().expect("a temporary folder has a plain name").to_owned()
    }

    fn text(
        &self,
        interval: &str,
        deployments: &[(&str, usize, Vec<&[usize]>)],
        active: &str,
        target: Option<&str>,
    ) -> String {
        let target = target.map_or(String::new(), |name| format!("target_deployment: {name}\n"));
        let mut text = format!(
            "active_deployment: {active}\n{target}\
             coordinators: {{c1: [127.0.0.1, {}]}}\n\
             partitions: {}\n\
             snapshot: {{interval: {interval}}}\n\
             {}\
             deployments:\n",
            self.coordinator, self.partitions, self.more
        );
        for (name, per_key, buckets) in deployments {
            text += &format!("  {name}:\n    hash: {{buckets_per_key: {per_key}}}\n    buckets:\n");
            for (at, nodes) in buckets.iter().enumerate() {
                text += &format!("      b{}:\n", at + 1);
                for n in *nodes {
                    let (http, rpc) = self.nodes[n - 1];
                    text += &format!("        n{n}: [127.0.0.1, {http}, {rpc}]\n");
                }
            }
        }
        text
    }

    /// The arguments, then the coordinator to ask; exit code and both outputs.
    pub(crate) fn order(&self, args: &[&str]) -> (Option<i32>, String) {
        let coordinator = format!("127.0.0.1:{}", self.coordinator);
        let done = tako(&[args, &["--log", "warn", "-c", &coordinator]].concat());
        let said = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(said).expect("text"))
    }

    /// An order that must succeed; what it says.
    pub(crate) fn must_order(&self, args: &[&str]) -> String {
        let (code, said) = self.order(args);
        assert_eq!(code, Some(0), "{args:?}\n{said}");
        said
    }

    /// Starts `tako cluster` without waiting.
    pub(crate) fn launch(&self, more: &[&str]) -> Child {
        let log = File::create(self.folder.path().join("launcher.log")).expect("a log");
        Command::new(env!("CARGO_BIN_EXE_tako"))
            .arg("cluster")
            .arg(self.config())
            .args(["-p", &self.proxy.to_string(), "--var"])
            .arg(self.var())
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the launcher starts")
    }

    /// Starts `tako cluster` and waits until it says that it is ready.
    pub(crate) fn start(&mut self) {
        let mut launcher = self.launch(&[]);
        wait_for("the cluster to be ready", || {
            let ended = launcher.try_wait().expect("it can be waited for");
            assert!(ended.is_none(), "the launcher ended: {ended:?}\n{}", self.launcher_log());
            self.launcher_log().contains("is ready").then_some(())
        });
        self.launcher = Some(launcher);
    }

    pub(crate) fn launcher_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("launcher.log")).unwrap_or_default()
    }

    pub(crate) fn launcher(&self) -> Pid {
        pid_of(self.launcher.as_ref().expect("started"))
    }

    /// Waits for the launcher's end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        must_end(self.launcher.as_mut().expect("started"))
    }

    /// Stops it in good order.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        signal(self.launcher(), Signal::TERM);
        self.ended()
    }

    /// The process of an id, by its pid file.
    pub(crate) fn pid(&self, id: &str) -> Option<Pid> {
        let text = fs::read_to_string(self.var().join(format!("run/{id}.pid"))).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// All processes with a pid file.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        let ids = (1..=self.nodes.len()).map(|n| format!("n{n}"));
        let ids = ids.chain(["c1".to_owned(), "p1".to_owned()]);
        ids.filter_map(|id| self.pid(&id)).collect()
    }

    /// Kills the process of an id with -9 and waits until it is gone.
    pub(crate) fn kill(&self, id: &str) {
        let pid = self.pid(id).expect("it has a pid file");
        signal(pid, Signal::KILL);
        wait_for(&format!("the end of {id}"), || (!lives(pid)).then_some(()));
    }

    /// Kills with -9 what was started by hand last.
    pub(crate) fn kill_last_by_hand(&mut self) {
        let mut child = self.by_hand.pop().expect("something was started");
        child.kill().expect("it runs");
        child.wait().expect("it was ours");
    }

    /// Runs the command by which the launcher says a killed node is started again.
    pub(crate) fn start_as_printed(&mut self) {
        let log = self.launcher_log();
        let line = log.lines().skip_while(|line| !line.trim().starts_with("kill -9")).nth(1);
        let line = line.expect("the launcher prints it").trim();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {line} --stop-with-parent")]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.by_hand.push(child.spawn().expect("it starts"));
    }

    /// Starts a process as a person would; it ends with the test.
    pub(crate) fn start_by_hand(&mut self, role: &str, id: &str) {
        let log = File::create(self.var().join(format!("log/{id}.log"))).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tako"));
        command.args([role, "--id", id, "--stop-with-parent"]);
        command.arg("--var").arg(self.var()).envs(self.environment.iter().cloned());
        if role == "coordinator" {
            command.arg("--config").arg(self.config());
        }
        if role != "proxy" && !self.arguments.is_empty() {
            command.args(&self.arguments);
        } else if role == "coordinator" {
            command.arg("--store").arg(format!("file://{}/store", self.var().display()));
        }
        if role != "coordinator" {
            command.args(["--coordinator", &format!("127.0.0.1:{}", self.coordinator)]);
        }
        if role == "proxy" {
            command.args(["--port", &self.proxy.to_string()]);
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn();
        self.by_hand.push(child.expect("it starts"));
    }
}

/// The process of a child.
pub(crate) fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed()).expect("a child has a process id")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- launcher\n{}", self.launcher_log());
            for entry in fs::read_dir(self.var().join("log")).into_iter().flatten().flatten() {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                eprintln!("--- {}\n{text}", entry.path().display());
            }
        }
        // Before the launcher: it takes the pid files away.
        for pid in self.pids().into_iter().filter(|pid| lives(*pid)) {
            signal(pid, Signal::KILL);
        }
        for mut child in self.launcher.take().into_iter().chain(self.by_hand.drain(..)) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
