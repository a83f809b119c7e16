//! From signals to a shutdown: the first asks for an orderly end, the second ends at once.
//!
//! An end of standard input counts as the first signal where the process was started by
//! `tako cluster`, so that nothing outlives a launcher that was killed.

use std::{
    io::{self, Read as _},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// Exit code of a process that a second signal ended.
pub(crate) const AT_ONCE: u8 = 130;
/// Signals this close together are one: some tools send to a process and to its group.
const TOGETHER: Duration = Duration::from_millis(300);

/// SIGTERM and SIGINT.
pub(crate) struct Stops {
    terminate: Signal,
    interrupt: Signal,
    last: Option<Instant>,
}

impl Stops {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            last: None,
        })
    }

    /// Waits for the next of them; cancel-safe.
    pub(crate) async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if self.last.is_none_or(|last| TOGETHER < last.elapsed()) {
                self.last = Some(Instant::now());
                return;
            }
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::unavailable(format!("cannot receive signals: {error}")))
}

/// A token that the first signal cancels; a second one ends the process.
pub(crate) fn shutdown(stop_with_parent: bool) -> Result<CancellationToken, Failure> {
    let token = CancellationToken::new();
    let mut stops = Stops::new()?;
    let stopping = token.clone();
    tokio::spawn(async move {
        stops.next().await;
        stopping.cancel();
        stops.next().await;
        tracing::warn!("stopped at once by a second signal");
        std::process::exit(AT_ONCE.into());
    });
    if stop_with_parent {
        let stopping = token.clone();
        // A thread of its own: a read of standard input cannot be called off.
        std::thread::spawn(move || {
            let mut ignored = [0; 256];
            loop {
                match io::stdin().read(&mut ignored) {
                    Ok(0) => break,
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                    _ => {}
                }
            }
            stopping.cancel();
        });
    }
    Ok(token)
}

/// SIGHUP and SIGUSR1: look for a new configuration at once.
///
/// Taken before anything else, so that one that comes while a process starts does not end it.
pub(crate) struct Looks {
    hangup: Signal,
    user: Signal,
}

impl Looks {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            user: listen(SignalKind::user_defined1())?,
        })
    }

    /// Passes them on for as long as the process lives.
    pub(crate) fn pass_to(mut self, look: Arc<Notify>) {
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = self.hangup.recv() => {}
                    _ = self.user.recv() => {}
                }
                look.notify_one();
            }
        });
    }
}
