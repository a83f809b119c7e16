//! A stream that was accepted: its handshake is made by the first read or write.
//!
//! Until that is done one task alone may poll it: the handshake wakes whoever polled last.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Timeout, timeout},
};
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};

use super::BoxStream;

/// Whoever takes longer has no certificate, or no good intentions.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Accepted {
    stage: Stage,
    from: String,
}

enum Stage {
    Handshake(Pin<Box<Timeout<Accept<BoxStream>>>>),
    Open(Box<TlsStream<BoxStream>>),
    Failed,
}

impl Accepted {
    pub(super) fn new(config: Arc<ServerConfig>, stream: BoxStream, from: String) -> Self {
        let accept = TlsAcceptor::from(config).accept(stream);
        Self { stage: Stage::Handshake(Box::pin(timeout(HANDSHAKE_MAX, accept))), from }
    }

    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Pin<&mut TlsStream<BoxStream>>>> {
        if let Stage::Handshake(accept) = &mut self.stage {
            let late = || io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long");
            match ready!(accept.as_mut().poll(cx)).unwrap_or_else(|_| Err(late())) {
                Ok(stream) => self.stage = Stage::Open(Box::new(stream)),
                Err(error) => {
                    self.stage = Stage::Failed;
                    tell(&self.from, &error);
                    return Poll::Ready(Err(error));
                }
            }
        }
        match &mut self.stage {
            Stage::Open(stream) => Poll::Ready(Ok(Pin::new(stream.as_mut()))),
            _ => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        }
    }
}

/// Logs why a caller was turned away, once a second at most: anybody can make it happen.
fn tell(from: &str, error: &io::Error) {
    static LAST_SECOND: AtomicU64 = AtomicU64::new(0);
    // Who goes away in the middle (a health check of a balancer) is no trouble.
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if LAST_SECOND.swap(now, Ordering::Relaxed) != now {
        tracing::warn!("TLS with {from} was not begun: {error}");
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stage {
            Stage::Open(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            // Nothing was said: dropping it is enough.
            _ => Poll::Ready(Ok(())),
        }
    }
}
