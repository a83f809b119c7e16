//! HTTP/1.1 by hand: one connection, one request at a time, every wait bounded.
//!
//! Says whether a request that failed can have reached the server: a write that did not is
//! certainly not done. Shares nothing with Tako's own HTTP.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};

/// A head longer than this is none of Tako's.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header; names in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failed {
    /// Nothing was sent.
    NotSent(io::Error),
    /// Something was sent: whatever was asked for may have happened.
    Sent(io::Error),
}

/// A connection to one address, made when first needed and again after each failure.
#[derive(Debug)]
pub struct Http {
    address: String,
    stream: Option<TcpStream>,
}

impl Http {
    /// Does not connect.
    #[must_use]
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None }
    }

    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    /// [`Failed`]; the connection is closed then.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: &[u8],
        patience: Duration,
    ) -> Result<Answer, Failed> {
        let until = Instant::now() + patience;
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let connected = timeout_at(until, TcpStream::connect(&self.address)).await;
                let stream = in_time(connected).map_err(Failed::NotSent)?;
                // Only slower without.
                let _ = stream.set_nodelay(true);
                stream
            }
        };
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n", body.len());
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        let exchange = async {
            stream.write_all(&bytes).await?;
            read_answer(&mut stream).await
        };
        let (answer, last) = in_time(timeout_at(until, exchange).await).map_err(Failed::Sent)?;
        if !last {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    /// GET of a JSON document that must be there.
    pub async fn json(&mut self, path: &str, patience: Duration) -> Option<serde_json::Value> {
        let answer = self.ask("GET", path, &[], b"", patience).await.ok()?;
        (answer.status == 200).then(|| serde_json::from_slice(&answer.body).ok()).flatten()
    }
}

fn in_time<T>(result: Result<io::Result<T>, tokio::time::error::Elapsed>) -> io::Result<T> {
    result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// An answer, and whether the server ends the connection after it.
async fn read_answer(stream: &mut TcpStream) -> io::Result<(Answer, bool)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut bytes = Vec::with_capacity(1024);
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if HEAD_BYTES_MAX < bytes.len() {
            return Err(invalid());
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let mut body = bytes.split_off(end + 4);
    let head = String::from_utf8(bytes).map_err(|_| invalid())?;
    let mut lines = head.trim_end().split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(invalid)?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer { status, headers, body: Vec::new() };
    let last = answer.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
    if !matches!(status, 204 | 304) {
        let length: usize =
            answer.header("content-length").and_then(|s| s.parse().ok()).ok_or_else(invalid)?;
        while body.len() < length {
            if stream.read_buf(&mut body).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
    answer.body = body;
    Ok((answer, last))
}
