//! What is said to a server, what it must answer, and a connection that says it.
//!
//! memcached's text protocol and Redis's (RESP 2) have answers that are known to the last byte. Over
//! HTTP the heads are not: there the status and the body are looked at. etcd is spoken through the JSON
//! gateway that every etcd has at its client port, since its own protocol, gRPC, would need a library: so
//! its figures include that gateway.

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::ValueEnum;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    Memcached,
    Redis,
    Etcd,
    /// `GET` and `PUT /values/<key>` of Tako.
    Http,
}

/// Requests sent at once, and their answers in order.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    send: Vec<u8>,
    answers: Vec<Answer>,
}

#[derive(Debug)]
enum Answer {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A success over HTTP with exactly this body.
    Body(Vec<u8>),
    /// A success over HTTP whose body has this in it.
    Within(Vec<u8>),
}

impl Protocol {
    pub(crate) fn get(self, turn: &mut Turn, key: &str, value: &str) {
        let (send, answer) = match self {
            Self::Memcached => {
                let answer = format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len());
                (format!("get {key}\r\n"), Answer::Bytes(answer.into()))
            }
            Self::Redis => {
                let answer = format!("${}\r\n{value}\r\n", value.len());
                (resp(&["GET", key]), Answer::Bytes(answer.into()))
            }
            Self::Etcd => {
                let body = format!("{{\"key\":\"{}\"}}", BASE64_STANDARD.encode(key));
                let found = format!("\"value\":\"{}\"", BASE64_STANDARD.encode(value));
                (post("/v3/kv/range", &body), Answer::Within(found.into()))
            }
            Self::Http => {
                let send = format!("GET /values/{key} HTTP/1.1\r\nhost: compare\r\n\r\n");
                (send, Answer::Body(value.into()))
            }
        };
        turn.add(&send, answer);
    }

    pub(crate) fn set(self, turn: &mut Turn, key: &str, value: &str) {
        let (send, answer) = match self {
            Self::Memcached => {
                let send = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
                (send, Answer::Bytes(b"STORED\r\n".into()))
            }
            Self::Redis => (resp(&["SET", key, value]), Answer::Bytes(b"+OK\r\n".into())),
            Self::Etcd => {
                let (key, value) = (BASE64_STANDARD.encode(key), BASE64_STANDARD.encode(value));
                let body = format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}");
                (post("/v3/kv/put", &body), Answer::Within(b"\"revision\"".into()))
            }
            Self::Http => {
                let bytes = value.len();
                let send = format!(
                    "PUT /values/{key} HTTP/1.1\r\nhost: compare\r\ncontent-length: {bytes}\r\n\r\n{value}"
                );
                (send, Answer::Within(Vec::new()))
            }
        };
        turn.add(&send, answer);
    }
}

/// A command of Redis.
fn resp(words: &[&str]) -> String {
    let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), words.collect::<String>())
}

fn post(path: &str, body: &str) -> String {
    let bytes = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: compare\r\ncontent-length: {bytes}\r\n\r\n{body}")
}

impl Turn {
    fn add(&mut self, send: &str, answer: Answer) {
        self.send.extend_from_slice(send.as_bytes());
        match (self.answers.last_mut(), answer) {
            // One comparison for as many as there are in a row.
            (Some(Answer::Bytes(all)), Answer::Bytes(next)) => all.extend_from_slice(&next),
            (_, answer) => self.answers.push(answer),
        }
    }
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    /// Received and not yet looked at.
    room: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| address.to_owned())?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, room: Vec::new() })
    }

    /// Sends a turn and looks at all of its answers.
    pub(crate) async fn exchange(&mut self, turn: &Turn) -> anyhow::Result<()> {
        self.stream.write_all(&turn.send).await?;
        for answer in &turn.answers {
            let right = match answer {
                Answer::Bytes(expected) => {
                    while self.room.len() < expected.len() && self.is_as_far(expected) {
                        self.receive().await?;
                    }
                    self.is_as_far(expected) && self.drop_front(expected.len())
                }
                Answer::Body(expected) => {
                    let (head, whole) = self.http().await?;
                    self.room[head..whole] == **expected && self.drop_front(whole)
                }
                Answer::Within(expected) => {
                    let (head, whole) = self.http().await?;
                    let within = expected.is_empty()
                        || self.room[head..whole].windows(expected.len()).any(|it| it == *expected);
                    within && self.drop_front(whole)
                }
            };
            ensure!(
                right,
                "another answer: {}",
                String::from_utf8_lossy(&self.room[..self.room.len().min(200)])
            );
        }
        Ok(())
    }

    /// Whether nothing received so far differs from `expected`.
    fn is_as_far(&self, expected: &[u8]) -> bool {
        let bytes = self.room.len().min(expected.len());
        self.room[..bytes] == expected[..bytes]
    }

    fn drop_front(&mut self, bytes: usize) -> bool {
        self.room.drain(..bytes);
        true
    }

    async fn receive(&mut self) -> anyhow::Result<()> {
        ensure!(self.stream.read_buf(&mut self.room).await? != 0, "the connection ended");
        Ok(())
    }

    /// Receives one successful answer over HTTP: where its body begins, and where it ends.
    async fn http(&mut self) -> anyhow::Result<(usize, usize)> {
        loop {
            if let Some((head, whole)) = measure(&self.room)?
                && whole <= self.room.len()
            {
                return Ok((head, whole));
            }
            self.receive().await?;
        }
    }
}

/// Length of the head and of all of an answer; none until its head is there.
fn measure(input: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(input)? else { return Ok(None) };
    if !matches!(response.code, Some(200..300)) {
        let shown = &input[..input.len().min(300)];
        bail!("refused: {}", String::from_utf8_lossy(shown));
    }
    let length = response.headers.iter().find(|it| it.name.eq_ignore_ascii_case("content-length"));
    let length = match (length, response.code) {
        (Some(length), _) => std::str::from_utf8(length.value)?.trim().parse::<usize>()?,
        (None, Some(204)) => 0,
        // etcd does so with more than 2 KiB of JSON.
        (None, _) => bail!("an answer in chunks, which is not spoken: take smaller values"),
    };
    Ok(Some((head, head + length)))
}
