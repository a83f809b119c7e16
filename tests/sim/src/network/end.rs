//! One end of a connection, as the code under test holds it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{Shared, state::State, traffic::Step};

/// See the module.
pub(super) struct End {
    shared: Arc<Shared>,
    /// The connection's number, and which side this is.
    at: (u64, usize),
    reading: Alarm,
    writing: Alarm,
}

impl End {
    pub(super) fn new(shared: &Arc<Shared>, at: (u64, usize)) -> Self {
        let (reading, writing) = (Alarm::default(), Alarm::default());
        Self { shared: Arc::clone(shared), at, reading, writing }
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let at = self.at;
            match self.shared.change(|state, wakers| state.read(at, cx, into, wakers)) {
                Step::Done(result) => return Poll::Ready(result),
                Step::Wait(until) => ready!(self.reading.poll(cx, until)),
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let at = self.at;
            match self.shared.change(|state, wakers| state.write(at, cx, bytes, wakers)) {
                Step::Done(result) => return Poll::Ready(result),
                Step::Wait(until) => ready!(self.writing.poll(cx, until)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shared.change(|state, _| state.check(self.at)))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.change(|state, wakers| state.shut(self.at, wakers));
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let at = self.at;
        self.shared.change(|state, wakers| state.drop_side(at, wakers));
    }
}

impl Shared {
    /// Changes the state, then wakes whom the change concerns.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State, &mut Vec<Waker>) -> T) -> T {
        let mut wakers = Vec::new();
        let result = change(&mut self.state.lock(), &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}

/// A sleep that is made when first needed.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once it is `until`; never without one.
    fn poll(&mut self, cx: &mut Context<'_>, until: Option<Instant>) -> Poll<()> {
        let Some(until) = until else { return Poll::Pending };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        sleep.as_mut().poll(cx)
    }
}
