//! Byte streams between nodes: the one trait through which the network comes in.
//!
//! Two implementations: [`TcpNetwork`], and [`MemoryNetwork`] with faults, so that a whole cluster
//! runs in one process. Callers guarantee: they own time-outs. Implementers must: be cancel-safe in
//! `connect` and `accept`, and end `accept` with an error only when the listener is lost.

mod memory;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;

use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

pub use memory::MemoryNetwork;
pub use tcp::TcpNetwork;
pub use tls::{Certificates, TlsError, TlsListener, TlsNetwork};

/// A two-way byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Any stream.
pub type BoxStream = Box<dyn Stream>;

/// Where streams come from.
#[async_trait]
pub trait Network: Send + Sync {
    /// Opens a stream to `address` (`host:port`).
    ///
    /// # Errors
    /// As the system says; `ConnectionRefused` where nobody listens.
    async fn connect(&self, address: &str) -> io::Result<BoxStream>;

    /// Listens at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// As the system says; `AddrInUse` where somebody listens already.
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>>;
}

/// Takes streams that others open; listening ends when it is dropped.
#[async_trait]
pub trait Listener: Send + Sync {
    /// The next stream, and the address it came from.
    ///
    /// # Errors
    /// Passing ones of a single connection, or of too many open files: the caller waits and goes on.
    async fn accept(&self) -> io::Result<(BoxStream, String)>;

    /// Where it listens, with the real port.
    fn address(&self) -> String;
}
