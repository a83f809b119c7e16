//! A cluster that asks everybody who they are: certificates between members, TLS and tokens for clients.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::support::{Cluster, free_port, http, tako, wait_for};

/// Certificates and tokens, and commands that show them.
struct Secrets {
    folder: TempDir,
}

/// How a command ended, and what it said.
type Done = (Option<i32>, String);

impl Secrets {
    fn new() -> Self {
        let secrets = Self { folder: TempDir::new().expect("a folder") };
        let certs = secrets.path("certs");
        must(&["tls", "create", &certs, "--host", "127.0.0.1", "--host", "localhost"]);
        secrets.token("root", &["--scope", "admin"]);
        secrets.token("shop", &["--scope", "read", "--scope", "write", "--prefix", "cart/"]);
        secrets.token("eye", &["--scope", "monitor"]);
        secrets
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a plain name").to_owned()
    }

    /// Makes a token; it lies in a file of its name.
    fn token(&self, name: &str, scopes: &[&str]) {
        let file = self.path("tokens.yaml");
        let token = must(&[&["token", name, "--file", &file], scopes].concat());
        fs::write(self.path(name), token).expect("written");
    }

    fn said(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a token").trim().to_owned()
    }

    /// Runs a command with certificates and token.
    fn run(&self, certs: &str, token: Option<&str>, args: &[&str]) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tako"));
        command.args(args).args(["--log", "warn"]);
        command.env("TAKO_TLS", self.path(certs));
        if let Some(token) = token {
            command.env("TAKO_TOKEN", self.said(token));
        }
        let done = command.output().expect("the program runs");
        let said = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(said).expect("text"))
    }
}

fn must(args: &[&str]) -> String {
    let done = tako(args);
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert_eq!(done.status.code(), Some(0), "{args:?}\n{said}");
    said
}

/// What a memcached port answers to these bytes.
fn memcached(port: u16, bytes: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream.write_all(bytes.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn a_guarded_cluster_serves_those_who_show_who_they_are_and_nobody_else() {
    let secrets = Secrets::new();
    let mut cluster = Cluster::new(3);
    let port = free_port();
    let (certs, tokens) = (secrets.path("certs"), secrets.path("tokens.yaml"));
    let args = ["--tls", &certs, "--tokens", &tokens, "--memcached-plain", "--memcached"];
    cluster.arguments = args.iter().map(ToString::to_string).chain([port.to_string()]).collect();
    cluster.start();
    let log = cluster.launcher_log();
    assert!(log.contains("curl --cacert") && log.contains("Bearer $TAKO_TOKEN"), "{log}");
    let url = format!("https://127.0.0.1:{}", cluster.proxy);
    let coordinator = format!("127.0.0.1:{}", cluster.coordinator);
    let at = |args: &[&str]| {
        args.iter().map(ToString::to_string).chain(["--url".to_owned(), url.clone()]).collect()
    };
    let ask = |certs: &str, token: Option<&str>, args: &[&str]| {
        let args: Vec<String> = at(args);
        secrets.run(certs, token, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };

    // Clients.
    let value = secrets.path("value");
    fs::write(&value, "a value").expect("written");
    let put = ["ctl", "put", "cart/1", "--file", &value];
    assert_eq!(
        ask("certs", Some("shop"), &put).0,
        Some(0),
        "{:?}",
        ask("certs", Some("shop"), &put)
    );
    let get = ["ctl", "get", "cart/1"];
    assert_eq!(ask("certs", Some("shop"), &get), (Some(0), "a value".to_owned()));
    let (code, said) = ask("certs", None, &get);
    assert!(code == Some(2) && said.contains("say a token"), "{code:?} {said}");
    let (code, said) = ask("certs", Some("eye"), &get);
    assert!(code == Some(2) && said.contains("lacks the scope `read`"), "{code:?} {said}");
    let (code, said) = ask("certs", Some("shop"), &["ctl", "get", "other"]);
    assert!(code == Some(2) && said.contains("other keys"), "{code:?} {said}");
    // Plain HTTP is no way in, and does the port no harm.
    assert!(http("GET", cluster.proxy, "/values/cart/1", b"").is_err());
    assert_eq!(ask("certs", Some("root"), &get), (Some(0), "a value".to_owned()));
    let shop = format!("shop {}", secrets.said("shop"));
    let log_in = format!("set x 0 0 {}\r\n{shop}\r\n", shop.len());
    assert_eq!(
        memcached(port, &format!("get cart/1\r\n{log_in}get cart/1\r\nget b\r\nquit\r\n")),
        "CLIENT_ERROR unauthenticated\r\nSTORED\r\nVALUE cart/1 0 7\r\na value\r\nEND\r\n\
         CLIENT_ERROR the token is for other keys\r\n"
    );

    // Members and operators.
    must(&["tls", "create", &secrets.path("strangers"), "--host", "127.0.0.1"]);
    let status = ["ctl", "status", "-c", &coordinator];
    assert_eq!(secrets.run("certs", Some("eye"), &status).0, Some(0));
    let (code, said) = secrets.run("strangers", Some("eye"), &status);
    assert!(code == Some(6) && said.contains("invalid peer certificate"), "{code:?} {said}");
    let plain = tako(&status);
    assert_eq!(plain.status.code(), Some(6), "{plain:?}");
    for order in [&["migrate", "status"][..], &["ctl", "safe-to-stop", "n1"], &["ctl", "ring"]] {
        let (code, said) = secrets.run("certs", None, &[order, &["-c", &coordinator]].concat());
        assert_eq!(code, Some(0), "{order:?} {said}");
    }
    let set = |token: &str, level: &str| {
        let order = ["ctl", "log", "n1", "c1", "--set-level", level, "-c", &coordinator];
        secrets.run("certs", Some(token), &order)
    };
    let (code, said) = set("eye", "debug");
    assert!(code == Some(1) && said.contains("lacks the scope `admin`"), "{code:?} {said}");
    let (code, said) = set("root", "info,=x=");
    assert!(code == Some(1) && said.contains("info,=x="), "{code:?} {said}");
    // Each order is logged by the level that it brings.
    for level in ["error", "info,tako_ring=debug"] {
        let (code, said) = set("root", level);
        assert!(code == Some(0) && said.contains(&format!("n1  {level}")), "{code:?} {said}");
    }
    wait_for("n1 to say more", || {
        let log = fs::read_to_string(cluster.var().join("log/n1.log")).expect("a log");
        assert!(!log.contains("level=\"error\""), "{log}");
        log.contains("level=\"info,tako_ring=debug\"").then_some(())
    });
    cluster.kill("n3");
    cluster.start_as_printed();
    wait_for("n3 to serve again", || {
        let (code, _) = secrets.run("certs", Some("eye"), &status);
        (code == Some(0)).then_some(())
    });

    // What changes takes effect without a restart.
    let renew = ["--host", "127.0.0.1", "--host", "localhost", "--renew"];
    must(&[&["tls", "create", &certs], &renew[..]].concat());
    let left: String = fs::read_to_string(&tokens).expect("tokens");
    let (before, after) = left.split_once("shop:").expect("it was made");
    let (_, rest) = after.split_once("eye:").expect("made after it");
    fs::write(&tokens, format!("{before}eye:{rest}")).expect("written");
    wait_for("the token to be forgotten", || {
        let (code, said) = ask("certs", Some("shop"), &get);
        (code == Some(2) && said.contains("not known")).then_some(())
    });
    assert_eq!(ask("certs", Some("root"), &get), (Some(0), "a value".to_owned()));
    assert_eq!(secrets.run("certs", Some("eye"), &status).0, Some(0));
    fs::write(&tokens, "root: nothing").expect("written");
    wait_for("the log to tell of it", || {
        let log = fs::read_to_string(cluster.var().join("log/p1.log")).unwrap_or_default();
        log.contains("the tokens in force stay: ").then_some(())
    });
    assert_eq!(ask("certs", Some("root"), &get), (Some(0), "a value".to_owned()));
    let log = fs::read_to_string(cluster.var().join("log/n1.log")).expect("a log");
    for token in ["root", "shop", "eye"] {
        assert!(!log.contains(&secrets.said(token)), "a token is in the log");
    }
    assert_eq!(cluster.stop().code(), Some(0), "{}", cluster.launcher_log());
}

#[test]
fn secrets_that_cannot_be_used_and_ports_without_are_refused_with_the_reason() {
    let secrets = Secrets::new();
    let cluster = Cluster::new(1);
    let config = cluster.config();
    let config = config.to_str().expect("a plain name");
    let var = cluster.var();
    let var = var.to_str().expect("a plain name");
    let check = |args: &[&str], wanted: &[&str]| {
        let common = ["proxy", "--config", config, "--var", var, "--port", "0"];
        let done = tako(&[&common[..], args].concat());
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{args:?} {said}");
        assert!(wanted.iter().all(|word| said.contains(word)), "{args:?} {said}");
    };
    let (certs, tokens) = (secrets.path("certs"), secrets.path("tokens.yaml"));
    let missing = secrets.path("missing");
    check(&["--tls", &missing], &["cannot read", "ca.pem"]);
    check(&["--tokens", &missing], &["cannot read the tokens", "missing"]);
    check(&["--tokens", &secrets.path("root")], &["root", "NAME: {sha256"]);
    check(&["--host", "0.0.0.0"], &["--tls and --tokens", "--insecure"]);
    check(&["--host", "0.0.0.0", "--tls", &certs], &["--tls and --tokens"]);
    check(&["--host", "0.0.0.0", "--tokens", &tokens], &["--tls and --tokens"]);
    check(&["--memcached-plain"], &["--tokens"]);
    let key = Path::new(&certs).join("key.pem");
    let other = PathBuf::from(secrets.path("other"));
    must(&["tls", "create", other.to_str().expect("a plain name"), "--host", "a"]);
    fs::copy(other.join("key.pem"), &key).expect("copied");
    check(&["--tls", &certs], &["key.pem", "not the key of"]);

    let made = tako(&["tls", "create", &certs, "--host", "a"]);
    assert_eq!(made.status.code(), Some(4), "it is written over: {made:?}");
    let twice = tako(&["token", "root", "--scope", "read", "--file", &tokens]);
    assert_eq!(twice.status.code(), Some(2), "a name twice: {twice:?}");
}
