//! Serves calls from other nodes.
//!
//! ```text
//! serve ──> accept ──> connection: read frame ──> poll the call once ──> ready: answer queued
//!                          ^                            └─> pending: a task of its own ──┘
//!                          └── one write for all answers queued meanwhile
//! ```
//! Calls: `stream`, `message`, the given [`Service`]. Called by: node-core and the coordinator.

mod connection;
mod seen;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tako_types::{
    NodeId,
    limits::{FRAME_BYTES_MAX, REQUEST_DEADLINE},
};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    CallHead, Listener, Request, Response, RpcError,
    metrics::{RpcMetrics, add},
};

/// Pause after the listener failed, so that a lack of file handles does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who is on the other end of a connection, as said in its Hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The caller's id.
    pub node: NodeId,
    /// Where the connection came from.
    pub address: String,
}

/// What answers the calls.
///
/// Callers guarantee: a Hello is the first call on a connection; an error to it closes the
/// connection. Implementers must: bear being dropped at any await (the caller left or the deadline
/// passed), and not block the thread.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Answers one call.
    async fn call(
        &self,
        caller: &Caller,
        head: &CallHead,
        request: Request,
    ) -> Result<Response, RpcError>;
}

/// Bounds of a server.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Connections at once; more are closed at once and counted.
    pub connections_max: usize,
    /// Calls in progress or with an unwritten answer, per connection; more are not read.
    pub calls_max: usize,
    /// Bytes of all frames being received or handled; raised to one greatest frame.
    pub request_bytes_max: usize,
    /// Bytes of unwritten answers above which a connection is not read.
    pub answer_bytes_max: usize,
    /// From a frame's first byte to its last; also for the Hello, and for a write to move.
    pub frame_max: Duration,
    /// How long a connection may say nothing.
    pub idle_max: Duration,
    /// Longest deadline of a call, and the deadline of one that names none.
    pub call_max: Duration,
    /// How long calls may take to finish once shutdown is asked for.
    pub finish_max: Duration,
    /// Where to count.
    pub metrics: Arc<RpcMetrics>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            calls_max: 4_096,
            request_bytes_max: 512 << 20,
            answer_bytes_max: 16 << 20,
            frame_max: Duration::from_secs(30),
            idle_max: Duration::from_secs(15 * 60),
            call_max: 6 * REQUEST_DEADLINE,
            finish_max: REQUEST_DEADLINE,
            metrics: Arc::default(),
        }
    }
}

/// Serves until `shutdown`; then takes nothing new, lets calls in progress finish and answers them.
///
/// Guarantee: when this returns, or is dropped, no call is in progress.
pub async fn serve<S: Service + ?Sized>(
    listener: Box<dyn Listener>,
    service: Arc<S>,
    options: ServeOptions,
    shutdown: CancellationToken,
) {
    let budget = Arc::new(Semaphore::new(options.request_bytes_max.max(FRAME_BYTES_MAX)));
    let slots = Arc::new(Semaphore::new(options.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            add(&options.metrics.connections_refused, 1);
            continue;
        };
        let (service, options) = (Arc::clone(&service), options.clone());
        let (budget, shutdown) = (Arc::clone(&budget), shutdown.clone());
        connections.spawn(async move {
            connection::run(stream, address, service, options, budget, shutdown).await;
            drop(slot);
        });
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if timeout(options.finish_max, finished).await.is_err() {
        tracing::warn!("calls did not finish in time and were dropped");
        connections.shutdown().await;
    }
}
