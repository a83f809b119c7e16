//! Where work that blocks is done: on threads, or in place at paces from outside.
//!
//! In place, a whole cluster runs on one thread under simulated time: the disk is memory then, and
//! the pace stands for the time its calls would take. Not here: what the work is.

use std::{fmt, sync::Arc, time::Duration};

/// Gives the time the next piece of work takes.
pub type Pace = dyn Fn() -> Duration + Send + Sync;

/// See the module.
#[derive(Clone, Default)]
pub enum Blocking {
    /// On threads of their own and tokio's blocking threads.
    #[default]
    Threads,
    /// On the task that asks, after waiting for as long as the pace says.
    Here(Arc<Pace>),
}

impl fmt::Debug for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Threads) { "Threads" } else { "Here" })
    }
}

impl Blocking {
    /// Does a piece of work; a panic in it goes on here.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Threads => match tokio::task::spawn_blocking(work).await {
                Ok(done) => done,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // Blocking work is aborted only when the runtime ends before it began.
                    Err(_) => std::future::pending().await,
                },
            },
            Self::Here(pace) => {
                tokio::time::sleep(pace()).await;
                work()
            }
        }
    }
}
