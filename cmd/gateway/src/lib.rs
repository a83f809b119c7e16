//! The ways in for clients: HTTP and the memcached protocols, on nodes and proxies.
//!
//! ```text
//! server (connections) ─► http (routes) ─► key, headers, body ─► replication::Serving ─► answer
//! memcached (connections) ─► text, binary ─► operations ───────► replication::Serving ─► answer
//! ```
//! Owns what is a client's mistake and how it is told; knows nothing of replicas. Errors become
//! HTTP in one place (`http/problem.rs`), and lines in one (`memcached/execute.rs`). Calls: tako-node-core. Called by: cmd/tako.

mod access;
mod events;
mod http;
mod memcached;
mod server;
mod stream;

use std::sync::Arc;

use tako_node_core::replication::Serving;
use tokio::sync::Semaphore;

pub use access::{Access, Scope, TokensError, digest_of};
pub use events::{EVENTS_MAX, Event, EventLog, EventPage, LogLevel};
pub use http::{event_routes, fuzz};
pub use memcached::{fuzz as memcached_fuzz, serve_memcached};
pub use server::serve;

/// Bounds of one gateway.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// Client connections at one time; more wait to be accepted.
    pub connections_max: usize,
    /// Bytes of request bodies held at one time over all connections.
    pub body_bytes_max: usize,
    /// A body, of a request or an answer, must move on within this time.
    pub body_stall: std::time::Duration,
    /// The head of a request must be whole this long after the connection began or the answer
    /// before it ended: idle connections live no longer.
    pub head_timeout: std::time::Duration,
    /// What `GET /events` shows; ends its waiting when the process stops.
    pub events: Arc<EventLog>,
    /// Who may do what; anybody everything without.
    pub access: Option<Arc<Access>>,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            body_bytes_max: 256 << 20,
            body_stall: std::time::Duration::from_secs(20),
            head_timeout: std::time::Duration::from_secs(30),
            events: Arc::new(EventLog::new("")),
            access: None,
        }
    }
}

/// One process's way in.
pub struct Gateway {
    serving: Arc<Serving>,
    options: GatewayOptions,
    /// In units of [`BODY_UNIT`].
    body_budget: Arc<Semaphore>,
}

/// Longest head of a request, and longest piece of a body taken at once: what one connection
/// may make the process hold besides its body. The longest key, written as escapes, is 12 KiB.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A body must come at this pace at least, beside the first `body_stall`: bodies hold shares of
/// `body_bytes_max` while they come.
const BODY_BYTES_PER_SECOND_MIN: usize = 16 << 10;

/// Bodies are counted in units of this many bytes.
const BODY_UNIT: usize = 1 << 10;

impl Gateway {
    /// A gateway to what `serving` serves.
    #[must_use]
    pub fn new(serving: Arc<Serving>, options: GatewayOptions) -> Arc<Self> {
        // One greatest body must always fit.
        let bytes = options.body_bytes_max.max(tako_types::limits::VALUE_BYTES_MAX_LIMIT);
        let body_budget = Arc::new(Semaphore::new(bytes / BODY_UNIT + 1));
        Arc::new(Self { serving, options, body_budget })
    }
}
