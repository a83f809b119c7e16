//! Tokens at a real port: what each may do over HTTP and memcached, and what is told who may not.

mod common;

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use common::Place;
use tako_gateway::{Access, GatewayOptions, digest_of};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

fn line(name: &str, rest: &str) -> String {
    let hex: String = digest_of(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}: {{sha256: {hex}, {rest}}}\n")
}

/// A node whose tokens are their own names.
async fn guarded() -> (TempDir, Arc<Access>, Place) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("tokens.yaml");
    let text = line("shop", "scopes: [read, write], prefixes: [cart/]")
        + &line("reader", "scopes: [read]")
        + &line("writer", "scopes: [write]")
        + &line("eye", "scopes: [monitor]")
        + &line("slow", "scopes: [read], rate: 2")
        + &line("root", "scopes: [admin]");
    std::fs::write(&path, text).expect("written");
    let access = Access::open(&path).expect("tokens");
    let options = GatewayOptions { access: Some(access.clone()), ..GatewayOptions::default() };
    (folder, access, Place::with(options).await)
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_is_for_those_whose_scopes_and_prefixes_name_it() {
    let (_folder, _access, place) = guarded().await;
    let check = async |token: &str, method: &str, path: &str, status: u16| {
        let answer = place.ask(method, path, &bearer(token), b"").await;
        assert_eq!(answer.status, status, "{token} {method} {path}: {}", answer.text());
    };
    for (token, method, path, status) in [
        ("root", "PUT", "/values/other/1", 200),
        ("shop", "PUT", "/values/cart/1", 200),
        ("shop", "GET", "/values/cart/1", 200),
        ("shop", "GET", "/stat/cart/1", 200),
        ("shop", "GET", "/values/car%74/1", 200),
        ("shop", "GET", "/values/other/1", 403),
        ("shop", "GET", "/stat/other/1", 403),
        ("shop", "PUT", "/values/other/1", 403),
        ("shop", "DELETE", "/values/other/1", 403),
        ("shop", "PUT", "/store/other", 403),
        ("shop", "PUT", "/store/cart/1", 200),
        ("shop", "GET", "/values/?prefix=cart/1", 200),
        ("shop", "GET", "/values/?prefix=car", 403),
        ("shop", "GET", "/values/?prefix=cart/&prefix=", 403),
        ("shop", "GET", "/values/", 403),
        ("shop", "GET", "/cluster", 403),
        ("reader", "GET", "/values/other/1", 200),
        ("reader", "GET", "/values/", 200),
        ("reader", "HEAD", "/values/other/1", 200),
        ("reader", "POST", "/values/other/1", 403),
        ("reader", "GET", "/metrics", 403),
        ("writer", "PUT", "/values/other/2", 200),
        ("writer", "GET", "/values/other/2", 403),
        ("eye", "GET", "/metrics", 200),
        ("eye", "GET", "/cluster", 200),
        ("eye", "GET", "/events", 200),
        ("eye", "GET", "/values/other/1", 403),
        ("root", "GET", "/events", 200),
        ("eye", "GET", "/log-level", 404),
        ("eye", "PUT", "/log-level", 403),
        ("root", "PUT", "/log-level", 404),
        ("root", "GET", "/values/%zz", 400),
        ("shop", "GET", "/values/%zz", 400),
        ("root", "GET", "/nothing", 404),
        ("nobody", "GET", "/nothing", 401),
        ("nobody", "GET", "/values/other/1", 401),
        ("", "GET", "/metrics", 401),
    ] {
        check(token, method, path, status).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_only_health_is_told_and_a_name_and_password_do_as_well() {
    let (_folder, _access, place) = guarded().await;
    for path in ["/values/a", "/values/", "/store/a", "/stat/a", "/batch", "/cluster", "/metrics"] {
        let answer = place.get(path).await;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(answer.text().contains("Authorization: Bearer TOKEN"), "{}", answer.text());
    }
    assert_eq!(place.get("/healthz").await.status, 200);
    assert_eq!(place.get("/readyz").await.status, 200);
    assert_eq!(place.get("/").await.status, 200);
    assert_eq!(place.get("/page/status.js").await.status, 200);
    for (pair, status) in [
        ("reader:reader", 404),
        (":reader", 404),
        ("root:reader", 401),
        ("reader:", 401),
        ("reader", 401),
    ] {
        let header = format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(pair));
        let answer = place.ask("GET", "/values/nothing", &header, b"").await;
        assert_eq!(answer.status, status, "{pair}");
    }
    let strange = "Authorization: Digest x\r\n";
    assert_eq!(place.ask("GET", "/values/a", strange, b"").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_judged_item_by_item() {
    let (_folder, _access, place) = guarded().await;
    let batch = "{\"op\":\"put\",\"key\":\"cart/9\",\"value\":\"x\"}\n\
                 {\"op\":\"put\",\"key\":\"other/9\",\"value\":\"x\"}\n\
                 {\"op\":\"get\",\"key\":\"cart/9\"}\n";
    let answer = place.ask("POST", "/batch", &bearer("shop"), batch.as_bytes()).await;
    let text = answer.text();
    let statuses: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|line| line["status"].as_u64().expect("a status"))
        .collect();
    assert_eq!(statuses, [200, 403, 200], "{text}");
    let answer = place.ask("GET", "/values/other/9", &bearer("root"), b"").await;
    assert_eq!(answer.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_asks_too_often_is_told_when_to_come_again() {
    let (_folder, _access, place) = guarded().await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let answer = place.ask("GET", "/values/a", &bearer("slow"), b"").await;
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses[..2], [404, 404]);
    assert!(statuses.contains(&429), "{statuses:?}");
    let other = place.ask("GET", "/values/a", &bearer("reader"), b"").await;
    assert_eq!(other.status, 404, "others are not concerned");
}

struct Memcached(TcpStream);

impl Memcached {
    async fn of(place: &Place) -> Self {
        Self(TcpStream::connect(place.memcached).await.expect("connected"))
    }

    async fn says(&mut self, send: &[u8], expected: &[u8]) {
        self.0.write_all(send).await.expect("sent");
        let mut got = vec![0; expected.len()];
        let read = timeout(common::PATIENCE, self.0.read_exact(&mut got)).await;
        let sent = send.escape_ascii();
        read.unwrap_or_else(|_| panic!("no answer to {sent}")).expect("an answer");
        assert_eq!(got.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_clients_log_in_in_text_and_get_what_their_token_allows() {
    let (_folder, access, place) = guarded().await;
    let mut client = Memcached::of(&place).await;
    client.says(b"get cart/1\r\n", b"CLIENT_ERROR unauthenticated\r\n").await;
    client.says(b"mg cart/1 v\r\n", b"CLIENT_ERROR unauthenticated\r\n").await;
    client.says(b"stats\r\n", b"CLIENT_ERROR unauthenticated\r\n").await;
    client.says(b"flush_all\r\n", b"CLIENT_ERROR unauthenticated\r\n").await;
    client.says(b"version\r\n", b"VERSION ").await;
    let mut client = Memcached::of(&place).await;
    // Nobody's upload takes this process's memory.
    let long = [&b"set x 0 0 2000\r\n"[..], &[b'v'; 2000], b"\r\nget x\r\n"].concat();
    let refused = b"SERVER_ERROR object too large for cache\r\nCLIENT_ERROR unauthenticated\r\n";
    client.says(&long, refused).await;
    let mut client = Memcached::of(&place).await;
    let failed = b"CLIENT_ERROR authentication failure\r\n";
    client.says(b"set x 0 0 9\r\nshop shep\r\n", b"CLIENT_ERROR").await;
    let mut client = Memcached::of(&place).await;
    client.says(b"set x 0 0 9\r\nroot shop\r\n", failed).await;
    client.says(b"get cart/1\r\n", b"CLIENT_ERROR unauthenticated\r\n").await;
    client.says(b"set x 0 0 9\r\nshop shop\r\n", b"STORED\r\n").await;
    client.says(b"set cart/1 0 0 1\r\na\r\n", b"STORED\r\n").await;
    client.says(b"get cart/1\r\n", b"VALUE cart/1 0 1\r\na\r\nEND\r\n").await;
    let keys = b"CLIENT_ERROR the token is for other keys\r\n";
    client.says(b"set other 0 0 1\r\na\r\n", keys).await;
    client.says(b"get cart/1 other\r\n", keys).await;
    client.says(b"get x\r\n", keys).await;
    client.says(b"stats\r\n", b"CLIENT_ERROR the token lacks the scope `monitor`\r\n").await;
    client.says(b"flush_all\r\n", b"CLIENT_ERROR the token lacks the scope `admin`\r\n").await;

    // What answers with a value reads it.
    let mut writer = Memcached::of(&place).await;
    writer.says(b"set x 0 0 13\r\nwriter writer\r\n", b"STORED\r\n").await;
    writer.says(b"set n 0 0 1\r\n1\r\n", b"STORED\r\n").await;
    let reads = b"CLIENT_ERROR the token lacks the scope `read`\r\n";
    writer.says(b"incr n 1\r\n", reads).await;
    writer.says(b"gat 0 n\r\n", reads).await;

    let path = access.file().to_owned();
    std::fs::write(&path, line("reader", "scopes: [read]")).expect("written");
    access.reload().expect("tokens");
    client.says(b"get cart/1\r\n", b"CLIENT_ERROR the token is not known here\r\n").await;
    client.says(b"get cart/1\r\n", b"CLIENT_ERROR unauthenticated\r\n").await;
}

/// A request of the binary protocol.
fn binary(opcode: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(key.len() + value.len()).expect("short");
    let mut out = vec![0x80, opcode, 0, u8::try_from(key.len()).expect("short"), 0, 0, 0, 0];
    out.extend(length.to_be_bytes());
    out.extend([0; 12]);
    out.extend_from_slice(key);
    out.extend_from_slice(value);
    out
}

/// The head of an answer up to its status.
fn said(opcode: u8, status: u8) -> Vec<u8> {
    vec![0x81, opcode, 0, 0, 0, 0, 0, status]
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_clients_log_in_by_sasl_plain_in_binary() {
    let (_folder, _access, place) = guarded().await;
    for (mechanism, message, status) in [
        (&b"PLAIN"[..], &b"\0reader\0reader"[..], 0),
        (b"PLAIN", b"somebody\0reader\0reader", 0),
        (b"PLAIN", b"\0reader\0root", 0x20),
        (b"PLAIN", b"\0reader", 0x20),
        (b"PLAIN", b"", 0x20),
        (b"CRAM-MD5", b"\0reader\0reader", 0x20),
    ] {
        let mut client = Memcached::of(&place).await;
        client.says(&binary(0x21, mechanism, message), &said(0x21, status)).await;
        let mut client = Memcached::of(&place).await;
        client.says(&binary(0x00, b"k", b""), &said(0x00, 0x20)).await;
    }
    let mut client = Memcached::of(&place).await;
    let mut mechanisms = said(0x20, 0);
    mechanisms.extend([0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    mechanisms.extend(b"PLAIN");
    client.says(&binary(0x20, b"", b""), &mechanisms).await;
    let mut entered = said(0x21, 0);
    entered.extend([0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    entered.extend(b"Authenticated");
    client.says(&binary(0x21, b"PLAIN", b"\0reader\0reader"), &entered).await;
    client.says(&binary(0x00, b"k", b""), &said(0x00, 0x01)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_no_tokens_nothing_is_asked_for() {
    let place = Place::one().await;
    let mut client = Memcached::of(&place).await;
    client.says(&binary(0x21, b"PLAIN", b"\0a\0b"), &said(0x21, 0x83)).await;
    let answer = place.ask("PUT", "/values/a", &bearer("anything"), b"x").await;
    assert_eq!(answer.status, 200);
}
