//! One client: bytes in, requests begun, answers out in the order of the requests.
//!
//! Requests of one connection run beside each other unless one writes what the other names; then the
//! later one waits. Bounds: `IN_FLIGHT_MAX` requests, `OUTPUT_BYTES_MAX` of answers not yet sent
//! (nothing is read meanwhile), values longer than `FREE_BYTES` by their share of `body_bytes_max`.
//! A client may be idle as long as it likes, but not in the middle of a request.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tako_flatbuf::BoxStream;
use tako_types::StoredKey;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Port,
    access::{Door, MECHANISM},
    binary,
    counters::add,
    execute::execute,
    flush::flush,
    request::{Next, Outcome, Reply, Request},
    stats, text,
};
use crate::{BODY_BYTES_PER_SECOND_MIN, BODY_UNIT, access::Scope, stream::ClientStream};

/// Requests of one connection that run at one time.
const IN_FLIGHT_MAX: usize = 64;
/// Answers are sent when there are so many bytes of them, or nothing more to do.
const OUTPUT_BYTES_MAX: usize = 128 << 10;
/// A request up to here is received without a share of the bytes for values.
const FREE_BYTES: usize = 8 << 10;
/// Read at once.
const READ_BYTES: usize = 4 << 10;

/// Serves one connection to its end.
pub(super) async fn run(stream: BoxStream, port: Arc<Port>, shutdown: CancellationToken) {
    add(&port.counters.total_connections, 1);
    add(&port.counters.curr_connections, 1);
    let stream = ClientStream::new(stream, port.gateway.options.body_stall);
    let mut connection = Connection {
        port: port.clone(),
        stream,
        input: BytesMut::new(),
        output: BytesMut::new(),
        skip: 0,
        share: None,
        is_large: false,
        running: FuturesOrdered::new(),
        keys: HashMap::new(),
        door: Door::new(port.gateway.options.access.clone()),
    };
    // Its own, for each wait enters and leaves the list of those who wait for one.
    let shutdown = shutdown.child_token();
    // A broken connection is the client's affair.
    if connection.serve(&shutdown).await.is_ok() {
        let _ = connection.stream.shutdown().await;
    }
    port.counters.curr_connections.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
}

type Running = BoxFuture<'static, Answered>;

/// A request that has ended.
struct Answered {
    reply: Reply,
    outcomes: Vec<Outcome>,
    keys: Vec<(StoredKey, bool)>,
    _share: Option<OwnedSemaphorePermit>,
}

/// How those under way use a key.
#[derive(Default)]
struct Use {
    reads: usize,
    writes: usize,
}

struct Connection {
    port: Arc<Port>,
    stream: ClientStream,
    input: BytesMut,
    output: BytesMut,
    /// Bytes of a value that is not taken, still to come.
    skip: usize,
    /// For the request that is being received.
    share: Option<OwnedSemaphorePermit>,
    /// The buffer grew for one.
    is_large: bool,
    running: FuturesOrdered<Running>,
    keys: HashMap<StoredKey, Use>,
    door: Door,
}

/// Whether the connection goes on.
enum Flow {
    On,
    End,
}

impl Connection {
    async fn serve(&mut self, shutdown: &CancellationToken) -> std::io::Result<()> {
        loop {
            let wanted = loop {
                self.skip_bytes();
                match self.next() {
                    Next::Part(wanted) => break wanted,
                    next => {
                        if let Flow::End = self.take(next).await? {
                            self.finish().await?;
                            return self.send().await;
                        }
                    }
                }
            };
            self.finish().await?;
            self.send().await?;
            if self.input.is_empty() && std::mem::take(&mut self.is_large) {
                // It is not kept for a connection that may idle.
                self.input = BytesMut::new();
            }
            if !self.receive(wanted, shutdown).await? {
                return Ok(());
            }
        }
    }

    fn skip_bytes(&mut self) {
        let now = self.skip.min(self.input.len());
        let _ = self.input.split_to(now);
        self.skip -= now;
    }

    fn next(&mut self) -> Next {
        if self.skip > 0 || self.input.is_empty() {
            return Next::Part(1);
        }
        let serving = &self.port.gateway.serving;
        let limit = serving.links().config.current().config.cluster.value_bytes_max;
        let limit = self.door.value_bytes_max(limit);
        let now_micros = serving.clock().now_micros();
        match self.input[0] {
            binary::REQUEST => binary::next(&mut self.input, now_micros, limit),
            _ => text::next(&mut self.input, now_micros, limit),
        }
    }

    async fn take(&mut self, next: Next) -> std::io::Result<Flow> {
        let next = match next {
            Next::Request(request) => {
                self.begin(request).await?;
                return Ok(Flow::On);
            }
            other => other,
        };
        // What it was taken for came to nothing.
        self.share = None;
        match next {
            Next::Part(_) | Next::Request(_) => {}
            Next::Say(said) => {
                self.finish().await?;
                let is_error = said.starts_with(b"ERROR") || said.starts_with(b"CLIENT_ERROR");
                add(&self.port.counters.protocol_errors, u64::from(is_error));
                self.output.extend_from_slice(&said);
            }
            Next::SayAndSkip(said, skip) => {
                self.finish().await?;
                add(&self.port.counters.protocol_errors, 1);
                self.output.extend_from_slice(&said);
                self.skip = skip;
            }
            Next::Stats { group, reply } => {
                self.finish().await?;
                match self.door.instead_of_all(Scope::Monitor, self.now_micros()) {
                    Some(refusal) => self.answer(&reply, &[refusal]).await?,
                    None => stats::write(&self.port, &group, &reply, &mut self.output),
                }
            }
            Next::LogIn { mechanism, message, reply } => {
                self.finish().await?;
                self.log_in(&mechanism, message, &reply);
            }
            Next::Flush(reply) => {
                self.finish().await?;
                if let Some(refusal) = self.door.instead_of_all(Scope::Admin, self.now_micros()) {
                    return self.answer(&reply, &[refusal]).await.map(|()| Flow::On);
                }
                // What was answered before is not kept back for as long as this takes.
                self.send().await?;
                let outcome = flush(&self.port).await;
                self.answer(&reply, &[outcome]).await?;
            }
            Next::End(said) => {
                self.finish().await?;
                self.output.extend_from_slice(&said);
                return Ok(Flow::End);
            }
        }
        Ok(Flow::On)
    }

    /// A client says who it is, or asks how it can.
    fn log_in(&mut self, mechanism: &[u8], message: Option<Bytes>, reply: &binary::Reply) {
        let outcome = match message {
            _ if !self.door.is_guarded() => Outcome::Refused("there is nothing to log in for"),
            None => return reply.write_text(MECHANISM, &mut self.output),
            Some(message) if mechanism == MECHANISM.as_bytes() => self.door.log_in(&message),
            Some(_) => Outcome::Denied(format!("the mechanism is {MECHANISM}")),
        };
        match outcome {
            Outcome::Written { .. } => reply.write_text("Authenticated", &mut self.output),
            outcome => reply.write(&[outcome], &mut self.output),
        }
    }

    fn now_micros(&self) -> u64 {
        self.port.gateway.serving.clock().now_micros()
    }

    /// Begins a request, once it may run beside those under way.
    async fn begin(&mut self, Request { operations, reply }: Request) -> std::io::Result<()> {
        if self.door.is_guarded()
            && let Some(outcome) = self.door.instead_of(&operations, &reply, self.now_micros())
        {
            self.share = None;
            self.finish().await?;
            let outcomes = vec![outcome; operations.len()];
            return self.answer(&reply, &outcomes).await;
        }
        // The usual case: nothing else waits to be answered, and nothing more has come.
        if self.running.is_empty() && self.input.is_empty() {
            let outcomes = execute(&self.port, operations).await;
            self.share = None;
            return self.answer(&reply, &outcomes).await;
        }
        let keys: Vec<_> = operations.iter().map(|one| (one.key(), !one.is_read())).collect();
        while self.running.len() >= IN_FLIGHT_MAX || self.conflicts(&keys) {
            self.answer_one().await?;
        }
        for (key, writes) in &keys {
            let used = self.keys.entry(key.clone()).or_default();
            if *writes { used.writes += 1 } else { used.reads += 1 }
        }
        let (port, share) = (self.port.clone(), self.share.take());
        let mut running: Running = Box::pin(async move {
            let outcomes = execute(&port, operations).await;
            Answered { reply, outcomes, keys, _share: share }
        });
        // What is in memory is answered at once.
        if self.running.is_empty()
            && let Some(answered) = (&mut running).now_or_never()
        {
            return self.end(answered).await;
        }
        self.running.push_back(running);
        Ok(())
    }

    fn conflicts(&self, keys: &[(StoredKey, bool)]) -> bool {
        !self.keys.is_empty()
            && keys.iter().any(|(key, writes)| {
                let used = self.keys.get(key);
                used.is_some_and(|used| used.writes > 0 || (*writes && used.reads > 0))
            })
    }

    async fn answer_one(&mut self) -> std::io::Result<()> {
        match self.running.next().await {
            Some(answered) => self.end(answered).await,
            None => Ok(()),
        }
    }

    async fn end(&mut self, answered: Answered) -> std::io::Result<()> {
        for (key, writes) in &answered.keys {
            let Some(used) = self.keys.get_mut(key) else { continue };
            if *writes {
                used.writes -= 1
            } else {
                used.reads -= 1
            }
            if used.reads + used.writes == 0 {
                self.keys.remove(key);
            }
        }
        self.answer(&answered.reply, &answered.outcomes).await
    }

    async fn answer(&mut self, reply: &Reply, outcomes: &[Outcome]) -> std::io::Result<()> {
        let now_micros = self.now_micros();
        reply.write(outcomes, now_micros, &mut self.output);
        if OUTPUT_BYTES_MAX <= self.output.len() {
            self.send().await?;
        }
        Ok(())
    }

    /// Awaits all that run.
    async fn finish(&mut self) -> std::io::Result<()> {
        while !self.running.is_empty() {
            self.answer_one().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> std::io::Result<()> {
        if !self.output.is_empty() {
            add(&self.port.counters.bytes_written, self.output.len() as u64);
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await?;
            // What one large answer took is not kept for a connection that may idle.
            match OUTPUT_BYTES_MAX < self.output.capacity() {
                true => self.output = BytesMut::new(),
                false => self.output.clear(),
            }
        }
        Ok(())
    }

    /// Receives until `wanted` bytes are there, or anything where nothing is known to be missing;
    /// `false` where the client or this process has ended.
    async fn receive(
        &mut self,
        wanted: usize,
        shutdown: &CancellationToken,
    ) -> std::io::Result<bool> {
        let stall = self.port.gateway.options.body_stall;
        if FREE_BYTES < wanted && self.share.is_none() {
            self.is_large = true;
            let units = u32::try_from(wanted / BODY_UNIT + 1).unwrap_or(u32::MAX);
            let budget = self.port.gateway.body_budget.clone();
            match timeout(stall, budget.acquire_many_owned(units)).await {
                Ok(Ok(share)) => self.share = Some(share),
                _ => {
                    let said = b"SERVER_ERROR busy: too many bytes are being uploaded at once\r\n";
                    self.output.extend_from_slice(said);
                    self.send().await?;
                    return Ok(false);
                }
            }
        }
        let began = Instant::now();
        let missing = wanted.saturating_sub(self.input.len());
        self.input.reserve(missing.max(READ_BYTES));
        loop {
            let in_the_middle = !self.input.is_empty() || self.skip > 0;
            // What a client that sends at the least pace needs for a request of that length.
            let seconds = wanted.max(self.skip) / BODY_BYTES_PER_SECOND_MIN;
            let pace = Duration::from_secs(seconds as u64);
            let read = self.stream.read_buf(&mut self.input);
            let got = tokio::select! {
                biased;
                got = read => got?,
                () = shutdown.cancelled() => return Ok(false),
                () = sleep_until((began + stall + pace).min(Instant::now() + stall)), if in_the_middle => {
                    return Ok(false);
                }
            };
            if got == 0 {
                return Ok(false);
            }
            add(&self.port.counters.bytes_read, got as u64);
            if wanted <= self.input.len() || self.skip > 0 {
                return Ok(true);
            }
        }
    }
}
