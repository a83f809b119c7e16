//! The memcached protocols at a node: what clients rely on, and what they do wrong.

mod common;

use std::time::Duration;

use common::{Place, VALUE_LIMIT, configuration};
use tako_gateway::GatewayOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

struct Client(TcpStream);

impl Client {
    async fn of(place: &Place) -> Self {
        Self(TcpStream::connect(place.memcached).await.expect("connected"))
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("sent");
    }

    /// Exactly these bytes come next.
    async fn expect(&mut self, expected: &[u8]) {
        let mut got = vec![0; expected.len()];
        let mut filled = 0;
        while filled < got.len() {
            let read = self.0.read(&mut got[filled..]);
            match timeout(PATIENCE, read).await {
                Ok(Ok(more)) if more > 0 => filled += more,
                other => {
                    let (got, wanted) = (got[..filled].escape_ascii(), expected.escape_ascii());
                    panic!("{other:?} after {got}, not {wanted}");
                }
            }
            let so_far = &got[..filled];
            let (text, wanted) = (so_far.escape_ascii(), expected.escape_ascii());
            assert!(expected.starts_with(so_far), "{text}\n  not {wanted}");
        }
    }

    async fn says(&mut self, send: &str, expected: &str) {
        self.send(send.as_bytes()).await;
        self.expect(expected.as_bytes()).await;
    }

    /// One line, without its end.
    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let byte = timeout(PATIENCE, self.0.read_u8()).await.expect("in time").expect("a line");
            line.push(byte);
        }
        String::from_utf8(line).expect("text").trim_end().to_owned()
    }

    /// What comes until the server ends the connection.
    async fn end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("the end in time");
        drop(end);
        rest
    }

    /// The token that `gets` tells.
    async fn token(&mut self, key: &str) -> String {
        self.send(format!("gets {key}\r\n").as_bytes()).await;
        let line = self.line().await;
        let token = line.split(' ').nth(4).unwrap_or_else(|| panic!("{line}")).to_owned();
        self.line().await;
        self.expect(b"END\r\n").await;
        token
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn classic_commands_answer_as_memcached_does() {
    let place = Place::one().await;
    let c = &mut Client::of(&place).await;
    c.says("get k\r\n", "END\r\n").await;
    c.says("set k 7 0 5\r\nhello\r\n", "STORED\r\n").await;
    c.says("get k nothing k\r\n", "VALUE k 7 5\r\nhello\r\nVALUE k 7 5\r\nhello\r\nEND\r\n").await;
    c.says("add k 0 0 1\r\nx\r\n", "NOT_STORED\r\n").await;
    c.says("add new 0 0 1\r\nx\r\n", "STORED\r\n").await;
    c.says("replace none 0 0 1\r\nx\r\n", "NOT_STORED\r\n").await;
    c.says("replace k 8 0 2\r\nab\r\n", "STORED\r\n").await;
    c.says("append k 0 0 2\r\ncd\r\nprepend k 0 0 1\r\n_\r\n", "STORED\r\nSTORED\r\n").await;
    c.says("append none 0 0 1\r\nx\r\n", "NOT_STORED\r\n").await;
    c.says("get k\r\n", "VALUE k 8 5\r\n_abcd\r\nEND\r\n").await;
    let token = c.token("k").await;
    c.says(&format!("cas k 0 0 1 {token}\r\n1\r\n"), "STORED\r\n").await;
    c.says(&format!("cas k 0 0 1 {token}\r\n2\r\n"), "EXISTS\r\n").await;
    c.says("cas none 0 0 1 7\r\n2\r\n", "NOT_FOUND\r\n").await;
    c.says("incr k 41\r\n", "42\r\n").await;
    c.says("decr k 50\r\n", "0\r\n").await;
    c.says("incr none 1\r\n", "NOT_FOUND\r\n").await;
    let no_number = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
    c.says("incr new 1\r\n", no_number).await;
    c.says("touch k 100\r\ntouch none 1\r\n", "TOUCHED\r\nNOT_FOUND\r\n").await;
    c.says("gat 0 k none\r\n", "VALUE k 0 1\r\n0\r\nEND\r\n").await;
    c.says("delete k\r\ndelete k\r\nget k\r\n", "DELETED\r\nNOT_FOUND\r\nEND\r\n").await;
    c.says("set e 0 0 0\r\n\r\nget e\r\n", "STORED\r\nVALUE e 0 0\r\n\r\nEND\r\n").await;
    c.says("verbosity 1\r\n", "OK\r\n").await;
    c.send(b"version\r\n").await;
    assert!(c.line().await.starts_with("VERSION 1.6.0-tako"));
    c.send(b"flush_all\r\n").await;
    assert!(c.line().await.starts_with("SERVER_ERROR flush_all is refused"));
    c.says("get e\r\n", "VALUE e 0 0\r\n\r\nEND\r\n").await;
    c.send(b"quit\r\n").await;
    assert!(c.end().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_deleted_where_the_configuration_allows_it() {
    let config = format!("memcached_flush_all: yes\n{}", configuration(1));
    let place = Place::started(&config, GatewayOptions::default()).await;
    place.ready().await;
    let c = &mut Client::of(&place).await;
    let sets: String = (0..1_500).map(|n| format!("set k{n} 0 0 1 noreply\r\nx\r\n")).collect();
    c.send(sets.as_bytes()).await;
    place.put("/values/by%20http", b"x").await;
    c.says("flush_all 10\r\n", "CLIENT_ERROR flush_all takes no delay here").await;
    c.line().await;
    c.says("flush_all x\r\n", "CLIENT_ERROR bad command line format\r\n").await;
    c.says("get k0\r\n", "VALUE k0 0 1\r\nx\r\nEND\r\n").await;
    // What was sent before it is deleted, what comes after it is not.
    c.says("set a 0 0 1\r\nx\r\nflush_all\r\nset b 0 0 1\r\nx\r\n", "STORED\r\nOK\r\nSTORED\r\n")
        .await;
    c.says("get k0 k1499 a b\r\n", "VALUE b 0 1\r\nx\r\nEND\r\n").await;
    let left = place.get("/values/").await.json();
    assert_eq!(left["values"].as_array().map(Vec::len), Some(1), "{left}");
    // The binary one, and one that is not answered.
    let mut flush = vec![0x80, 0x08];
    flush.resize(24, 0);
    c.send(&flush).await;
    let mut done = vec![0x81, 0x08];
    done.resize(24, 0);
    c.expect(&done).await;
    c.says("set b 0 0 1\r\nx\r\nflush_all noreply\r\nget b\r\n", "STORED\r\nEND\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_of_expiry_are_relative_absolute_or_past() {
    let place = Place::one().await;
    let c = &mut Client::of(&place).await;
    c.says("set past 0 -1 1\r\nx\r\nget past\r\n", "STORED\r\nEND\r\n").await;
    c.says("set rel 0 100 1\r\nx\r\nset never 0 0 1\r\nx\r\n", "STORED\r\nSTORED\r\n").await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after");
    let absolute = now.as_secs() + 100;
    c.says(&format!("set abs 0 {absolute} 1\r\nx\r\n"), "STORED\r\n").await;
    c.says("set month 0 2592000 1\r\nx\r\n", "STORED\r\n").await;
    c.says("set old 0 2592001 1\r\nx\r\nget old\r\n", "STORED\r\nEND\r\n").await;
    for (key, least, most) in [("rel", 99, 100), ("abs", 98, 101), ("month", 2_591_999, 2_592_000)]
    {
        c.send(format!("mg {key} t\r\n").as_bytes()).await;
        let line = c.line().await;
        let left: i64 = line.strip_prefix("HD t").expect(&line).parse().expect(&line);
        assert!((least..=most).contains(&left), "{key}: {line}");
    }
    c.says("mg never t\r\n", "HD t-1\r\n").await;
    place.clock.skew(Duration::from_secs(101));
    c.says("get rel abs\r\n", "END\r\n").await;
    c.says("add rel 0 0 1\r\ny\r\n", "STORED\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn meta_commands_answer_with_the_flags_they_were_asked_for() {
    let place = Place::one().await;
    let c = &mut Client::of(&place).await;
    c.says("mn\r\nmg k v\r\nmg k v q\r\n", "MN\r\nEN\r\n").await;
    c.says("ms k 2 F5 T0\r\nhi\r\n", "HD\r\n").await;
    c.says("mg k s v f t Oq1 k\r\n", "VA 2 s2 f5 t-1 Oq1 kk\r\nhi\r\n").await;
    c.says("mg k\r\n", "HD\r\n").await;
    c.says("ms k 1 ME\r\nx\r\nms k 1 MR q\r\nx\r\nms none 1 MR\r\nx\r\n", "NS\r\nNS\r\n").await;
    c.says("ms k 1 MA\r\ny\r\nms k 1 MP\r\nw\r\nmg k v\r\n", "HD\r\nHD\r\nVA 3\r\nwxy\r\n").await;
    c.says("ms new 1 MA\r\ny\r\nms new 1 MA N60\r\ny\r\n", "NS\r\nHD\r\n").await;
    c.send(b"mg k c\r\n").await;
    let token = c.line().await.strip_prefix("HD c").expect("a token").to_owned();
    c.says(&format!("ms k 1 C{token} k\r\n1\r\n"), "HD kk\r\n").await;
    c.says(&format!("ms k 1 C{token} Oo\r\n2\r\n"), "EX Oo\r\n").await;
    c.says("ms none 1 C5\r\n2\r\n", "NF\r\n").await;
    c.says("ma k v\r\nma k D9 MD v\r\nma none\r\nma k q\r\n", "VA 1\r\n2\r\nVA 1\r\n0\r\nNF\r\n")
        .await;
    c.says("ma made N0 J13 v\r\nma made N0 J13 v\r\n", "VA 2\r\n13\r\nVA 2\r\n14\r\n").await;
    c.says("md k C1\r\nmd k q\r\nmd k\r\nmd k q\r\n", "EX\r\nNF\r\n").await;
    // "a b" in base64: a key that no line could hold.
    c.says("ms YSBi 1 b\r\nx\r\nmg YSBi b k v\r\n", "HD b\r\nVA 1 b kYSBi\r\nx\r\n").await;
    assert_eq!(place.get("/values/a%20b").await.body, b"x");
    c.send(b"me YSBi b\r\n").await;
    assert!(c.line().await.starts_with("ME YSBi exp=-1 cas="));
    c.says("me none\r\n", "EN\r\n").await;
    for (line, said) in [
        ("mg k h", "CLIENT_ERROR flag h is unknown or not available here\r\n"),
        ("mg k Tx", "CLIENT_ERROR bad token behind flag T\r\n"),
        ("ma k MX", "CLIENT_ERROR invalid mode for ma\r\n"),
        ("mg", "CLIENT_ERROR bad command line format\r\n"),
        ("mg ++ b", "CLIENT_ERROR bad command line format\r\n"),
    ] {
        c.says(&format!("{line}\r\n"), said).await;
    }
}

/// A binary request.
fn binary(opcode: u8, token: u64, extras: &[u8], key: &str, value: &[u8]) -> Vec<u8> {
    let body = (extras.len() + key.len() + value.len()) as u32;
    let mut out = vec![0x80, opcode];
    out.extend((key.len() as u16).to_be_bytes());
    out.extend([extras.len() as u8, 0, 0, 0]);
    out.extend(body.to_be_bytes());
    out.extend(*b"opaq");
    out.extend(token.to_be_bytes());
    out.extend([extras, key.as_bytes(), value].concat());
    out
}

struct Answer {
    opcode: u8,
    status: u16,
    token: u64,
    extras: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
}

async fn answer(client: &mut Client) -> Answer {
    let mut head = [0; 24];
    timeout(PATIENCE, client.0.read_exact(&mut head)).await.expect("in time").expect("a header");
    assert_eq!((head[0], &head[12..16]), (0x81, b"opaq".as_slice()));
    let number = |range: std::ops::Range<usize>| {
        head[range].iter().fold(0u64, |all, byte| (all << 8) | u64::from(*byte))
    };
    let mut body = vec![0; number(8..12) as usize];
    client.0.read_exact(&mut body).await.expect("a body");
    let (extras, key) = (number(4..5) as usize, number(2..4) as usize);
    let rest = body.split_off(extras);
    Answer {
        opcode: head[1],
        status: number(6..8) as u16,
        token: number(16..24),
        extras: body,
        key: rest[..key].to_vec(),
        value: rest[key..].to_vec(),
    }
}

async fn asked(client: &mut Client, request: Vec<u8>) -> Answer {
    client.send(&request).await;
    answer(client).await
}

/// Delta, initial value and expiry.
fn counted(delta: u64, initial: u64, expiry: u32) -> Vec<u8> {
    [&delta.to_be_bytes()[..], &initial.to_be_bytes(), &expiry.to_be_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_commands_answer_as_memcached_does() {
    let place = Place::one().await;
    let c = &mut Client::of(&place).await;
    let set = [0, 0, 0, 9, 0, 0, 0, 0];
    let stored = asked(c, binary(0x01, 0, &set, "k", b"v1")).await;
    assert_eq!((stored.opcode, stored.status), (0x01, 0));
    let got = asked(c, binary(0x00, 0, &[], "k", b"")).await;
    assert_eq!((got.status, got.extras, got.value), (0, vec![0, 0, 0, 9], b"v1".to_vec()));
    assert_eq!(got.token, stored.token);
    let got = asked(c, binary(0x0c, 0, &[], "k", b"")).await;
    assert_eq!((got.key, got.value), (b"k".to_vec(), b"v1".to_vec()));
    assert_eq!(asked(c, binary(0x01, got.token ^ 1, &set, "k", b"v2")).await.status, 0x02);
    assert_eq!(asked(c, binary(0x01, got.token, &set, "k", b"v2")).await.status, 0);
    assert_eq!(asked(c, binary(0x01, 5, &set, "none", b"v2")).await.status, 0x01);
    assert_eq!(asked(c, binary(0x02, 0, &set, "k", b"x")).await.status, 0x02);
    assert_eq!(asked(c, binary(0x03, 0, &set, "none", b"x")).await.status, 0x01);
    assert_eq!(asked(c, binary(0x0e, 0, &[], "k", b"+")).await.status, 0);
    assert_eq!(asked(c, binary(0x0f, 0, &[], "none", b"+")).await.status, 0x05);
    assert_eq!(asked(c, binary(0x05, 0, &counted(1, 0, 0), "k", b"")).await.status, 0x06);
    let made = asked(c, binary(0x05, 0, &counted(1, 10, 0), "n", b"")).await;
    assert_eq!((made.status, made.value), (0, 10u64.to_be_bytes().to_vec()));
    let less = asked(c, binary(0x06, 0, &counted(3, 0, 0), "n", b"")).await;
    assert_eq!(less.value, 7u64.to_be_bytes().to_vec());
    assert_eq!(asked(c, binary(0x05, 0, &counted(1, 1, u32::MAX), "no", b"")).await.status, 0x01);
    assert_eq!(asked(c, binary(0x1c, 0, &[0, 0, 0, 9], "k", b"")).await.status, 0);
    let got = asked(c, binary(0x1d, 0, &[0, 0, 0, 0], "k", b"")).await;
    assert_eq!((got.status, got.value), (0, b"v2+".to_vec()));
    // Quiet: a hit, no miss, no success; then the noop tells that all were answered.
    let quiet = [
        binary(0x09, 0, &[], "none", b""),
        binary(0x0d, 0, &[], "k", b""),
        binary(0x11, 0, &set, "q", b"quiet"),
        binary(0x14, 0, &[], "q", b""),
        binary(0x14, 0, &[], "q", b""),
        binary(0x0a, 0, &[], "", b""),
    ];
    let first = asked(c, quiet.concat()).await;
    assert_eq!((first.opcode, first.key), (0x0d, b"k".to_vec()));
    let second = answer(c).await;
    assert_eq!((second.opcode, second.status), (0x14, 0x01), "a second delete is no success");
    assert_eq!(answer(c).await.opcode, 0x0a);
    assert_eq!(asked(c, binary(0x04, 0, &[], "k", b"")).await.status, 0);
    assert!(asked(c, binary(0x0b, 0, &[], "", b"")).await.value.starts_with(b"1.6.0-tako"));
    assert_eq!(asked(c, binary(0x08, 0, &[], "", b"")).await.status, 0x83);
    assert_eq!(asked(c, binary(0x55, 0, &[], "k", b"some")).await.status, 0x81);
    assert_eq!(asked(c, binary(0x00, 0, &[1], "k", b"")).await.status, 0x04);
    let mut stats = 0;
    c.send(&binary(0x10, 0, &[], "", b"")).await;
    while !answer(c).await.key.is_empty() {
        stats += 1;
    }
    assert!(stats > 10);
    assert_eq!(asked(c, binary(0x07, 0, &[], "", b"")).await.status, 0);
    assert!(c.end().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order_and_see_each_other() {
    let place = Place::one().await;
    let c = &mut Client::of(&place).await;
    let (mut send, mut expected) = (String::new(), String::new());
    for n in 0..500 {
        let key = n % 7;
        send += &format!(
            "set k{key} 0 0 3\r\n{n:03}\r\nget k{key}\r\nset q{key} 0 0 1 noreply\r\nx\r\n"
        );
        expected += &format!("STORED\r\nVALUE k{key} 0 3\r\n{n:03}\r\nEND\r\n");
    }
    send += "incr c 1\r\nset c 0 0 1\r\n5\r\nincr c 1\r\nincr c 1\r\nget c\r\n";
    expected += "NOT_FOUND\r\nSTORED\r\n6\r\n7\r\nVALUE c 0 1\r\n7\r\nEND\r\n";
    c.says(&send, &expected).await;
    // A client that ends its side gets all answers.
    c.send(b"get c\r\nget k0\r\nget nothing").await;
    c.0.shutdown().await.expect("half closed");
    assert!(c.end().await.starts_with(b"VALUE c 0 1\r\n7\r\nEND\r\nVALUE k0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_sense_is_told_and_the_next_request_is_understood() {
    let place = Place::one().await;
    let c = &mut Client::of(&place).await;
    let long = "k".repeat(251);
    let bad = "CLIENT_ERROR bad command line format\r\n";
    for (line, said) in [
        ("nonsense", "ERROR\r\n"),
        ("", "ERROR\r\n"),
        ("get", "ERROR\r\n"),
        ("GET k", "ERROR\r\n"),
        (&format!("get {long}"), bad),
        ("set k 0 0", bad),
        ("set k 0 0 -1", bad),
        ("set k 0 0 x", bad),
        ("set k 0 0 99999999999999999999", bad),
        ("set k x 0 1\r\nv", bad),
        ("set k 4294967296 0 1\r\nv", bad),
        ("set k 0 x 1\r\nv", bad),
        ("set k 0 0 1 more words\r\nv", bad),
        (&format!("set {long} 0 0 1\r\nv"), bad),
        ("cas k 0 0 1\r\nv", bad),
        ("cas k 0 0 1 -5\r\nv", bad),
        ("set k 0 0 1\r\nlong", "CLIENT_ERROR bad data chunk\r\n"),
        ("incr k -1", "CLIENT_ERROR invalid numeric delta argument\r\n"),
        ("incr k", bad),
        ("touch k x", "CLIENT_ERROR invalid exptime argument\r\n"),
        ("gat x k", "CLIENT_ERROR invalid exptime argument\r\n"),
        ("delete k 5", bad),
        ("delete", "ERROR\r\n"),
        ("quit now", "ERROR\r\n"),
        ("verbosity", "ERROR\r\n"),
        ("verbosity noreply", ""),
        ("verbosity much", bad),
        ("stats nonsense", "ERROR\r\n"),
    ] {
        c.says(&format!("{line}\r\nverbosity 0\r\n"), &format!("{said}OK\r\n")).await;
    }
    let key = "k".repeat(250);
    let (length, value) = (VALUE_LIMIT, "v".repeat(VALUE_LIMIT));
    c.says(&format!("set {key} 0 0 {length}\r\n{value}\r\n"), "STORED\r\n").await;
    let over = length + 1;
    let large = "SERVER_ERROR object too large for cache\r\n";
    c.says(
        &format!("set {key} 0 0 {over}\r\n{value}v\r\nverbosity 0\r\n"),
        &format!("{large}OK\r\n"),
    )
    .await;
    c.says(&format!("append {key} 0 0 1\r\nx\r\n"), large).await;
    c.says(&format!("get {key}\r\n"), &format!("VALUE {key} 0 {length}\r\n{value}\r\nEND\r\n"))
        .await;
    c.send(b"get a\0b\r\n").await;
    assert_eq!(c.end().await, b"CLIENT_ERROR control characters in a line\r\n");
    let c = &mut Client::of(&place).await;
    c.send(&vec![b'x'; (64 << 10) + 1]).await;
    assert_eq!(c.end().await, b"CLIENT_ERROR line too long\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stands_still_ends_and_stores_nothing_and_an_idle_client_may_stay() {
    let options =
        GatewayOptions { body_stall: Duration::from_millis(300), ..GatewayOptions::default() };
    let place = Place::with(options).await;
    let idle = &mut Client::of(&place).await;
    idle.says("get k\r\n", "END\r\n").await;
    for part in ["set k 0 0 100\r\nsome", "set k 0 0 100000\r\nsome", "get", "\u{80}"] {
        let slow = &mut Client::of(&place).await;
        slow.send(part.as_bytes()).await;
        assert!(slow.end().await.is_empty());
    }
    let cut = &mut Client::of(&place).await;
    cut.send(b"set k 0 0 100\r\nsome").await;
    cut.0.shutdown().await.expect("half closed");
    assert!(cut.end().await.is_empty());
    idle.says("get k\r\n", "END\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_is_never_said_not_to_be_there() {
    // Two of three nodes were never started.
    let place = Place::started(&configuration(3), GatewayOptions::default()).await;
    let c = &mut Client::of(&place).await;
    for request in
        ["get k", "set k 0 0 1\r\nx", "delete k", "add k 0 0 1\r\nx", "incr k 1", "mg k v"]
    {
        c.send(format!("{request}\r\n").as_bytes()).await;
        let line = c.line().await;
        assert!(line.starts_with("SERVER_ERROR unavailable"), "{request}: {line}");
    }
    let c = &mut Client::of(&place).await;
    assert_eq!(asked(c, binary(0x00, 0, &[], "k", b"")).await.status, 0x86);
    assert_eq!(asked(c, binary(0x09, 0, &[], "k", b"")).await.status, 0x86);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_those_of_http() {
    let place = Place::one().await;
    let c = &mut Client::of(&place).await;
    assert_eq!(place.put("/values/k", b"by http").await.status, 200);
    c.says("get k\r\n", "VALUE k 0 7\r\nby http\r\nEND\r\n").await;
    c.says("set k 3 0 8\r\nby lines\r\n", "STORED\r\n").await;
    assert_eq!(place.get("/values/k").await.body, b"by lines");
    place.shutdown.cancel();
    assert!(c.end().await.is_empty());
}
