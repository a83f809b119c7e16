//! The memcached protocols: text (classic and meta) and binary, told apart by a connection's first byte.
//!
//! ```text
//! connection (bytes, order) ─► text or binary: bytes ─► Request ─► execute: operations ─► Serving
//!                           ◄─ the request's reply ◄── what each came to
//! ```
//! What clients may rely on: docs/memcached.md. Invariants: answers come in the order of the requests; a
//! request begins once those before it on the connection that touch its keys have ended; "not there" is
//! said only when that is known. Nothing here knows of replicas.

mod access;
mod binary;
mod connection;
mod counters;
mod execute;
mod flush;
pub mod fuzz;
mod request;
mod stats;
mod text;

use std::sync::Arc;

use tako_flatbuf::Listener;
use tokio_util::sync::CancellationToken;

use self::counters::Counters;
use crate::{Gateway, server::accept};

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
    let connections_max = gateway.options.connections_max;
    let port = Arc::new(Port { gateway, counters: Counters::new() });
    accept(listener, connections_max, &shutdown, |stream| {
        connection::run(stream, port.clone(), shutdown.clone())
    })
    .await;
}
