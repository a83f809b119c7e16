//! The bare axum peer: the least a server on the same stack can do for the same bytes.
//!
//! It runs as a process of its own, like a node, with as many workers: this same program with a
//! hidden option. Invariant: it lives no longer than its parent, for it ends with its standard
//! input.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Router,
    body::Bytes,
    extract::DefaultBodyLimit,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
    serve::ListenerExt as _,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::oneshot,
};

use super::{args::BenchArgs, plan::fixed_value};

/// The subcommand under which the embedding program runs [`super::run`].
const SUBCOMMAND: &str = "bench";
/// Longest wait for the child to listen.
const START_MAX: Duration = Duration::from_secs(10);

/// A running peer; killed when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    _child: Child,
}

impl Peer {
    /// Starts this program again as the bare server.
    pub(crate) async fn start(args: &BenchArgs) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut child = Command::new(program)
            .arg(SUBCOMMAND)
            .args(["--serve-bare-axum", "0"])
            .args(["--value-size", &args.value_bytes().to_string()])
            .args(["--peer-workers", &args.peer_workers.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the bare axum peer")?;
        let stdout = child.stdout.take().context("the peer has no standard output")?;
        let mut line = String::new();
        tokio::time::timeout(START_MAX, BufReader::new(stdout).read_line(&mut line))
            .await
            .context("the bare axum peer did not start in time")??;
        let addr = line.trim().parse().with_context(|| format!("the peer said `{line}`"))?;
        Ok(Self { addr, _child: child })
    }
}

/// The child's side: prints its address and serves until standard input ends.
pub(crate) async fn serve(port: u16, workers: usize, value_bytes: usize) -> anyhow::Result<()> {
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new().name("bare-axum".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build();
        let result = runtime
            .context("start a runtime")
            .and_then(|runtime| runtime.block_on(serve_here(port, value_bytes)));
        // The receiver is gone only when the process ends anyway.
        let _ = done.send(result);
    })?;
    ended.await.context("the server's thread ended without a result")?
}

async fn serve_here(port: u16, value_bytes: usize) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?)?;
    stdout.flush()?;
    let (done, ended) = oneshot::channel::<()>();
    std::thread::Builder::new().name("parent-watch".to_owned()).spawn(move || {
        // Ended, or broken: either way nobody needs this process any more.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(done);
    })?;
    let listener = listener.tap_io(|stream| {
        // Without it the peer is only slower.
        let _ = stream.set_nodelay(true);
    });
    tokio::select! {
        served = async { axum::serve(listener, router(value_bytes)).await } => Ok(served?),
        _ = ended => Ok(()),
    }
}

/// `GET` gives one fixed value, `PUT` takes any.
pub(crate) fn router(value_bytes: usize) -> Router {
    let value = Bytes::from(fixed_value(value_bytes));
    let read = move || {
        let value = value.clone();
        async move { ([(CONTENT_TYPE, "application/octet-stream")], value) }
    };
    let write = |body: Bytes| async move {
        drop(body);
        StatusCode::NO_CONTENT
    };
    Router::new().route("/values/{*key}", get(read).put(write)).layer(DefaultBodyLimit::disable())
}
