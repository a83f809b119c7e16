//! Unmodified memcached clients against a cluster: those that `tests/clients/install` fetched.

use std::{
    env,
    io::{self, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::support::{Cluster, free_port, must_get, must_put, tako};

const SKIPPED: &str = "SKIPPED: clients of the memcached port; tests/clients/install fetches them";
/// memccapable's tests, without those that ask for a flush.
const CAPABLE: [&str; 50] = [
    "ascii version",
    "ascii quit",
    "ascii verbosity",
    "ascii set",
    "ascii set noreply",
    "ascii get",
    "ascii gets",
    "ascii mget",
    "ascii add",
    "ascii add noreply",
    "ascii replace",
    "ascii replace noreply",
    "ascii cas",
    "ascii cas noreply",
    "ascii delete",
    "ascii delete noreply",
    "ascii incr",
    "ascii incr noreply",
    "ascii decr",
    "ascii decr noreply",
    "ascii append",
    "ascii append noreply",
    "ascii prepend",
    "ascii prepend noreply",
    "ascii stat",
    "binary noop",
    "binary quit",
    "binary quitq",
    "binary set",
    "binary setq",
    "binary add",
    "binary addq",
    "binary replace",
    "binary replaceq",
    "binary delete",
    "binary deleteq",
    "binary get",
    "binary getq",
    "binary getk",
    "binary getkq",
    "binary incr",
    "binary incrq",
    "binary decr",
    "binary decrq",
    "binary version",
    "binary append",
    "binary appendq",
    "binary prepend",
    "binary prependq",
    "binary stat",
];

fn must_run(what: &str, command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !out.contains("FAIL"), "{what}: {out}\n{err}");
}

/// A cluster whose proxy has a memcached port, started with these besides.
fn cluster(more: &[&str]) -> (Cluster, u16) {
    let mut cluster = Cluster::new(3);
    let port = free_port().to_string();
    let arguments = ["--memcached", &port].into_iter().chain(more.iter().copied());
    cluster.arguments = arguments.map(str::to_owned).collect();
    cluster.start();
    (cluster, port.parse().expect("a port"))
}

/// Where the clients of others are, if they are.
fn clients() -> Option<PathBuf> {
    let tools = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/clients");
    if tools.join("rust").exists() {
        return Some(tools);
    }
    assert!(env::var_os("TAKO_REQUIRE_CLIENTS").is_none(), "{SKIPPED}");
    // Past the capture of the test harness, which hides what passes.
    let _ = writeln!(io::stderr(), "\n{SKIPPED}\n");
    None
}

/// The scripts in Python and JavaScript, with the client libraries of their languages.
fn converse(tools: &Path, arguments: &[&str]) {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/python/conversation.py");
    let mut python = Command::new(tools.join("python/bin/python"));
    must_run("Python", python.arg(script).args(arguments));
    let mut node = Command::new("node");
    must_run("Node", node.arg(tools.join("node/conversation.mjs")).args(arguments));
}

#[test]
fn unmodified_clients_find_what_they_expect() {
    let Some(tools) = clients() else { return };
    let (mut cluster, port) = cluster(&[]);
    let at = ["127.0.0.1".to_owned(), port.to_string()];
    converse(&tools, &[&at[0], &at[1]]);
    must_run("Go", Command::new(tools.join("go-client")).args(&at));
    let rust = tools.join("rust/debug/tako-memcached-client");
    must_run("Rust", Command::new(rust).args(&at));
    for test in CAPABLE {
        let mut capable = Command::new("memccapable");
        must_run(test, capable.args(["-h", &at[0], "-p", &at[1], "-t", "20", "-T", test]));
    }
    assert!(cluster.stop().success());
}

#[test]
fn unmodified_clients_log_in_by_sasl() {
    let Some(tools) = clients() else { return };
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("tokens.yaml");
    let file = file.to_str().expect("a plain name");
    let scopes = ["--scope", "read", "--scope", "write", "--scope", "monitor"];
    let made = tako(&[&["token", "app", "--file", file], &scopes[..]].concat());
    let token = String::from_utf8(made.stdout).expect("a token");
    let (mut cluster, port) = cluster(&["--tokens", file]);
    converse(&tools, &["127.0.0.1", &port.to_string(), "app", token.trim()]);
    assert!(cluster.stop().success());
}

#[test]
fn a_proxy_serves_memcached_beside_http_and_what_stops_it_ends_its_clients() {
    let (mut cluster, port) = cluster(&[]);
    must_put(cluster.proxy, "k", "by http");
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    client.write_all(b"get k\r\nset k 0 0 8\r\nby lines\r\nincr k 1\r\n").expect("sent");
    let expected = b"VALUE k 0 7\r\nby http\r\nEND\r\nSTORED\r\n\
        CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
    let mut got = vec![0; expected.len()];
    client.read_exact(&mut got).expect("answers");
    assert_eq!(got.escape_ascii().to_string(), expected.escape_ascii().to_string());
    assert_eq!(must_get(cluster.proxy, "k").as_deref(), Some("by lines"));
    assert!(cluster.stop().success());
    assert_eq!(client.read(&mut got).expect("the end"), 0);
}
