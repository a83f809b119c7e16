//! A client's stream with the two guards that HTTP itself has not: a client that does not read
//! its answer is cut off, and one that still writes when the answer is out gets to read it.
//!
//! Invariant: no write waits longer than `stall`, no shutdown longer than [`LINGER`]. Reads are
//! guarded above: the head by hyper, the body by `http/body.rs`.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tako_flatbuf::BoxStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long bytes of a client are thrown away after the last answer. Closing at once would reset
/// the connection, and the client could lose the answer that tells why (413, 408, 400).
const LINGER: Duration = Duration::from_secs(2);

/// Bytes thrown away between two looks at the clock and the other tasks.
const LINGER_READS_MAX: usize = 64;

/// A guarded stream.
pub(crate) struct ClientStream {
    inner: BoxStream,
    stall: Duration,
    /// Runs while a write, or at the end the linger, waits.
    timer: Option<Pin<Box<Sleep>>>,
    is_shut: bool,
}

impl ClientStream {
    pub(crate) fn new(inner: BoxStream, stall: Duration) -> Self {
        Self { inner, stall, timer: None, is_shut: false }
    }

    /// Passes on what a write came to; fails it when it has waited too long.
    fn guard<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.timer = None;
            return result;
        }
        let stall = self.stall;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.guard(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.guard(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Ends the own side, then throws away what comes until the client ends its side as well.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            self.is_shut = true;
            self.timer = Some(Box::pin(sleep(LINGER)));
        }
        if self.timer.as_mut().is_none_or(|timer| timer.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        let mut space = [0; 4096];
        for _ in 0..LINGER_READS_MAX {
            let mut buf = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                // The end, or a reset: nobody waits for more.
                _ => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
