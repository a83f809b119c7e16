//! A client's HTTP: connections from its host to processes, kept over several requests.
//!
//! Invariant: of a request that got no answer it is known whether a byte of it may have left; a
//! connection on which anything went wrong is never used again. What answers mean is
//! `contract.rs`'s matter.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tako_flatbuf::Network;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{door, network::HostNetwork};

/// Longer than any answer in the simulation.
const BODY_BYTES_MAX: usize = 1 << 20;

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// It came over a connection that had been used before.
    pub on_kept: bool,
}

impl Answer {
    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// Nobody was reached: the request never left.
    NotSent,
    /// The request, or a part of it, may have arrived.
    Lost,
}

type Sender = http1::SendRequest<Full<Bytes>>;

/// A connection and what drives it.
struct Line {
    sender: Sender,
    driver: JoinHandle<()>,
    is_kept: bool,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// See the module.
pub struct HttpClient {
    network: HostNetwork,
    kept: BTreeMap<String, Line>,
}

impl HttpClient {
    /// A client without connections at the host of `network`.
    #[must_use]
    pub fn new(network: HostNetwork) -> Self {
        Self { network, kept: BTreeMap::new() }
    }

    /// Ends the connections that are kept.
    pub fn hang_up(&mut self) {
        self.kept.clear();
    }

    /// Asks one process; connecting counts as waiting.
    ///
    /// # Errors
    /// [`NoAnswer`]; the connection is then closed.
    pub async fn ask(
        &mut self,
        process: &str,
        request: Request<Full<Bytes>>,
        patience: Duration,
    ) -> Result<Answer, NoAnswer> {
        let until = Instant::now() + patience;
        let connected = timeout_at(until, self.line(process)).await;
        let mut line = connected.ok().flatten().ok_or(NoAnswer::NotSent)?;
        let on_kept = line.is_kept;
        let exchange = async {
            let answer = line.sender.send_request(request).await.ok()?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.ok()?.to_bytes();
            Some(Answer { status: head.status.as_u16(), headers: head.headers, body, on_kept })
        };
        let answer = timeout_at(until, exchange).await.ok().flatten().ok_or(NoAnswer::Lost)?;
        if answer.header(header::CONNECTION.as_str()) != Some("close") {
            line.is_kept = true;
            self.kept.insert(process.to_owned(), line);
        }
        Ok(answer)
    }

    /// The kept connection if it still stands, else a new one.
    async fn line(&mut self, process: &str) -> Option<Line> {
        if let Some(mut line) = self.kept.remove(process)
            && line.sender.ready().await.is_ok()
        {
            return Some(line);
        }
        let stream = self.network.connect(&door::address(process)).await.ok()?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer is told.
            let _its_end = connection.await;
        });
        Some(Line { sender, driver, is_kept: false })
    }
}

#[cfg(test)]
mod tests;
