//! One remote node.
//!
//! Two connections, opened when first needed: one for small frames, one for great requests and
//! answers, so that a small call never waits behind a great one.

use std::{sync::Arc, time::Duration};

use tako_types::{ClusterId, ErrorKind, NodeId, limits::CALL_DEADLINE};
use tokio::{runtime::Handle, time::Instant};

use super::{
    connection::{Remote, SendError},
    lane::Lane,
};
use crate::{
    CallHead, Network, Request, Response, RpcError,
    message::encode_request,
    metrics::{RpcMetrics, add},
};

/// Requests above this take the bulk connection.
const SMALL_BYTES_MAX: usize = 256 << 10;

/// A call whose connection turned out closed before it was sent is sent on a new one, so often.
const SENDS_MAX: usize = 3;

/// What a busy caller is told to wait.
const BUSY_WAIT_MS: u64 = 10;

/// Says the cluster this process belongs to, once it knows.
pub(super) type ClusterOf = Arc<dyn Fn() -> Option<ClusterId> + Send + Sync>;

/// Who we are to peers, and bounds.
#[derive(Clone)]
pub struct PeerOptions {
    /// Our id, said in Hello.
    pub node: NodeId,
    /// Our cluster, asked at each Hello.
    pub cluster: ClusterOf,
    /// Bytes that may wait to be written, per connection; above it calls are `Busy`.
    pub queued_bytes_max: usize,
    /// Calls in flight per connection; above it calls are `Busy`.
    pub calls_max: usize,
    /// Time to connect, Hello included.
    pub connect_max: Duration,
    /// A connection on which calls wait and nothing was heard for so long is given up as soon as
    /// a call's deadline passes.
    pub silence_max: Duration,
    /// From an answer's first byte to its last; also for a write to move.
    pub frame_max: Duration,
    /// Where to count.
    pub metrics: Arc<RpcMetrics>,
    /// What drives the connections; else whatever the first call on one comes from.
    pub runtime: Option<Handle>,
}

impl PeerOptions {
    /// The usual bounds, for a process that is `node`.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            cluster: Arc::new(|| None),
            queued_bytes_max: 128 << 20,
            calls_max: 4_096,
            connect_max: CALL_DEADLINE,
            silence_max: CALL_DEADLINE + CALL_DEADLINE / 2,
            frame_max: Duration::from_secs(30),
            metrics: Arc::default(),
            runtime: None,
        }
    }
}

impl std::fmt::Debug for PeerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerOptions").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Calls to one remote node; connections close when it is dropped.
pub struct Peer {
    address: String,
    small: Lane,
    bulk: Lane,
    metrics: Arc<RpcMetrics>,
}

impl Peer {
    /// A peer at `address` (`host:port`); does not connect.
    #[must_use]
    pub fn new(network: Arc<dyn Network>, address: &str, options: PeerOptions) -> Self {
        let metrics = Arc::clone(&options.metrics);
        Self {
            address: address.to_owned(),
            small: Lane::new(Arc::clone(&network), address, options.clone()),
            bulk: Lane::new(network, address, options),
            metrics,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Who answered the last Hello, if any did.
    #[must_use]
    pub fn remote(&self) -> Option<Remote> {
        self.small.remote().or_else(|| self.bulk.remote())
    }

    /// True while a connection is open.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.small.is_open() || self.bulk.is_open()
    }

    /// Asks and waits for the answer.
    ///
    /// Guarantee: cancel-safe; a call dropped before it was written is not written.
    ///
    /// # Errors
    /// Those of the peer, and: `Unavailable` when it cannot be reached or the connection breaks,
    /// `Deadline` when `deadline` passes (in both the outcome is unknown, but for one with
    /// [`RpcError::NOTHING_DONE`]), `Busy` when too much
    /// waits here, `Invalid` when the request does not fit a frame, `Corrupt` when the answer's
    /// record is damaged.
    pub async fn call(
        &self,
        epoch: u64,
        deadline: Duration,
        request: Request,
    ) -> Result<Response, RpcError> {
        self.call_traced(epoch, deadline, None, request).await
    }

    /// As [`Self::call`], with a W3C `traceparent` for the peer.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_traced(
        &self,
        epoch: u64,
        deadline: Duration,
        trace_parent: Option<String>,
        request: Request,
    ) -> Result<Response, RpcError> {
        let until = Instant::now() + deadline;
        let mut head = CallHead { id: 0, epoch, deadline_ms: 0, trace_parent };
        let mut sends = 1;
        loop {
            let lane = self.lane_of(&request);
            let connection = lane.connection(until).await.map_err(not_sent)?;
            let left = until.saturating_duration_since(Instant::now());
            head.deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
            head.id = connection.next_id();
            let frame = encode_request(&head, &request)?;
            match connection.send(head.id, frame) {
                Ok(call) => return call.answer(until).await,
                Err(SendError::Busy) => {
                    add(&self.metrics.calls_busy, 1);
                    let text = format!("too much waits for the peer at {}", self.address);
                    return Err(RpcError::busy(text, BUSY_WAIT_MS));
                }
                Err(SendError::Closed(error)) if sends == SENDS_MAX => return Err(error),
                Err(SendError::Closed(_)) => sends += 1,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn metrics(&self) -> &RpcMetrics {
        &self.metrics
    }

    fn lane_of(&self, request: &Request) -> &Lane {
        let bulk = match request {
            Request::Put { record, .. }
            | Request::Accept { record, .. }
            | Request::Change { record, .. } => SMALL_BYTES_MAX < record.bytes().len(),
            // Their answers are long.
            Request::Tail { .. } | Request::Fetch { .. } | Request::Configuration { .. } => true,
            _ => false,
        };
        if bulk { &self.bulk } else { &self.small }
    }
}

/// The failure of a connection that nothing was sent over yet.
fn not_sent(error: RpcError) -> RpcError {
    match error.kind {
        ErrorKind::Unavailable | ErrorKind::Deadline => {
            RpcError { detail: RpcError::NOTHING_DONE, ..error }
        }
        _ => error,
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("address", &self.address).finish_non_exhaustive()
    }
}
