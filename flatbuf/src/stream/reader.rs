//! Reads whole frames from a stream.
//!
//! Invariant: nothing is allocated for a frame before its lengths were checked and, where there is
//! a budget, its bytes were taken from it. A frame that has started must be whole before its
//! deadline. Small frames are copied out of the read buffer, so that keeping one keeps only it.

use std::{io, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    error::WireError,
    frame::{Frame, PREFIX_BYTES, Prefix},
};

/// Bytes asked of the stream at once.
const READ_BYTES: usize = 64 << 10;

/// A whole frame.
pub(crate) struct Received {
    pub(crate) frame: Frame,
    /// Bytes of the frame in the budget; free again when dropped.
    pub(crate) budget: Option<OwnedSemaphorePermit>,
}

/// Why there is no further frame.
#[derive(Debug)]
pub(crate) enum ReadEnd {
    /// The other side finished, between two frames.
    Finished,
    /// No frame started for as long as is allowed.
    Idle,
    /// A frame broke off or was late.
    Torn,
    /// Not a frame.
    Bad(WireError),
    /// The stream failed.
    Failed(io::Error),
}

/// Cuts a stream into frames.
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    /// All frames being read or handled share it, over all connections.
    budget: Option<Arc<Semaphore>>,
    frame_max: Duration,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// `frame_max`: from a frame's first byte to its last, waiting for the budget included.
    pub(crate) fn new(stream: R, budget: Option<Arc<Semaphore>>, frame_max: Duration) -> Self {
        Self { stream, buffer: BytesMut::new(), budget, frame_max }
    }

    /// The next frame; waits at most `idle_max` for its first byte. Not cancel-safe: who stops
    /// waiting must close the stream.
    pub(crate) async fn next(&mut self, idle_max: Duration) -> Result<Received, ReadEnd> {
        if self.buffer.is_empty() {
            match timeout(idle_max, self.fill()).await {
                Err(_) => return Err(ReadEnd::Idle),
                Ok(Err(error)) => return Err(ReadEnd::Failed(error)),
                Ok(Ok(0)) => return Err(ReadEnd::Finished),
                Ok(Ok(_)) => {}
            }
        }
        if let Some(frame) = self.buffered().map_err(ReadEnd::Bad)? {
            return Ok(frame);
        }
        let deadline = Instant::now() + self.frame_max;
        timeout_at(deadline, self.rest_of_frame()).await.unwrap_or(Err(ReadEnd::Torn))
    }

    /// A frame that lies whole in the buffer, if the budget has room at once.
    fn buffered(&mut self) -> Result<Option<Received>, WireError> {
        let Some(prefix) = self.prefix()? else { return Ok(None) };
        if self.buffer.len() - PREFIX_BYTES < prefix.body_bytes {
            return Ok(None);
        }
        let budget = match &self.budget {
            None => None,
            Some(budget) => match Arc::clone(budget).try_acquire_many_owned(permits(prefix)) {
                Ok(permit) => Some(permit),
                Err(_) => return Ok(None),
            },
        };
        Ok(Some(self.take_buffered(prefix, budget)))
    }

    async fn rest_of_frame(&mut self) -> Result<Received, ReadEnd> {
        let prefix = loop {
            match self.prefix().map_err(ReadEnd::Bad)? {
                Some(prefix) => break prefix,
                None => match self.fill().await {
                    Ok(0) => return Err(ReadEnd::Torn),
                    Ok(_) => {}
                    Err(error) => return Err(ReadEnd::Failed(error)),
                },
            }
        };
        let budget = match &self.budget {
            None => None,
            // The budget is never closed.
            Some(budget) => Arc::clone(budget).acquire_many_owned(permits(prefix)).await.ok(),
        };
        if prefix.body_bytes <= self.buffer.len() - PREFIX_BYTES {
            return Ok(self.take_buffered(prefix, budget));
        }
        self.buffer.advance(PREFIX_BYTES);
        let mut body = BytesMut::with_capacity(prefix.body_bytes);
        body.extend_from_slice(&self.buffer);
        self.buffer.clear();
        while body.len() < prefix.body_bytes {
            let mut rest = (&mut body).limit(prefix.body_bytes);
            let missing = prefix.body_bytes - rest.get_ref().len();
            rest.set_limit(missing);
            match self.stream.read_buf(&mut rest).await {
                Ok(0) => return Err(ReadEnd::Torn),
                Ok(_) => {}
                Err(error) => return Err(ReadEnd::Failed(error)),
            }
        }
        Ok(Received { frame: Frame::received(prefix, body.freeze()), budget })
    }

    fn take_buffered(&mut self, prefix: Prefix, budget: Option<OwnedSemaphorePermit>) -> Received {
        self.buffer.advance(PREFIX_BYTES);
        let body = Bytes::copy_from_slice(&self.buffer[..prefix.body_bytes]);
        self.buffer.advance(prefix.body_bytes);
        Received { frame: Frame::received(prefix, body), budget }
    }

    fn prefix(&self) -> Result<Option<Prefix>, WireError> {
        self.buffer.first_chunk::<PREFIX_BYTES>().map(|bytes| Prefix::read(*bytes)).transpose()
    }

    /// Reads what is there; 0 at the stream's end.
    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.buffer).await
    }
}

fn permits(prefix: Prefix) -> u32 {
    // Checked against a limit far below u32::MAX.
    u32::try_from(prefix.body_bytes).unwrap_or(u32::MAX)
}
