//! The memcached protocols: text (classic and meta) and binary, told apart by a connection's first byte.
//!
//! ```text
//! connection (bytes, order) ─► text or binary: bytes ─► Request ─► execute: operations ─► Serving
//!                           ◄─ the request's reply ◄── what each came to
//! ```
//! What clients may rely on: docs/memcached.md. Invariants: answers come in the order of the requests; a
//! request begins once those before it on the connection that touch its keys have ended; "not there" is
//! said only when that is known. Nothing here knows of replicas.

mod binary;
mod connection;
mod counters;
mod execute;
pub mod fuzz;
mod request;
mod stats;
mod text;

use std::{sync::Arc, time::Duration};

use tako_flatbuf::Listener;
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::counters::Counters;
use crate::Gateway;

/// What all connections of a port share.
struct Port {
    gateway: Arc<Gateway>,
    counters: Counters,
}

/// Serves the memcached protocols until the shutdown; then finishes requests under way and returns.
pub async fn serve_memcached(
    listener: Box<dyn Listener>,
    gateway: Arc<Gateway>,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(gateway.options.connections_max));
    let port = Arc::new(Port { gateway, counters: Counters::new() });
    let connections = TaskTracker::new();
    loop {
        let slot = tokio::select! {
            () = shutdown.cancelled() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: others must end first.
                tracing::warn!("cannot accept a connection: {error}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (port, shutdown) = (port.clone(), shutdown.clone());
        connections.spawn(async move {
            connection::run(stream, port, shutdown).await;
            drop(slot);
        });
    }
    // New clients are refused from here on, not left to wait.
    drop(listener);
    connections.close();
    connections.wait().await;
}
