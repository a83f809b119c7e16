//! Threads that run when the others leave a core free: those of a node's upkeep.

use rustix::process::{getpriority_process, setpriority_process};
use tako_snapshot::Upkeep;
use tokio::runtime::{Builder, Runtime};

use crate::failure::Failure;

/// How much further back in the queue for a core: a third of the share of a thread of the requests, so
/// that steps keep up with the writes when both want all of it.
const NICER: i32 = 5;

/// A runtime of such threads; ends with this.
pub(crate) struct LowPriority(Option<Runtime>);

impl LowPriority {
    pub(crate) fn start() -> Result<Self, Failure> {
        // A new thread has the place of the one that starts it, which may be one of these already.
        let place = getpriority_process(None).map(|own| own + NICER);
        let runtime = Builder::new_multi_thread()
            .thread_name("upkeep")
            .on_thread_start(move || step_back(place))
            .enable_all()
            .build()
            .map_err(|error| Failure::unavailable(format!("cannot start threads: {error}")))?;
        Ok(Self(Some(runtime)))
    }

    pub(crate) fn upkeep(&self) -> Upkeep {
        self.0.as_ref().map_or_else(Upkeep::default, |runtime| Upkeep::on(runtime.handle().clone()))
    }
}

impl Drop for LowPriority {
    fn drop(&mut self) {
        // Waiting for its threads is not for a thread of the requests.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// For the thread that calls it, as Linux has it.
fn step_back(place: rustix::io::Result<i32>) {
    if let Err(error) = place.and_then(|place| setpriority_process(None, place)) {
        tracing::debug!(%error, "upkeep runs beside the requests");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn upkeep_runs_behind_the_requests() {
        let own = getpriority_process(None).expect("of this thread");
        let threads = LowPriority::start().expect("threads");
        let there = threads.upkeep().run(async { getpriority_process(None) }).await;
        assert_eq!(there.expect("done").expect("of that thread"), (own + NICER).min(19));
        // Such a thread is started by one of those.
        let blocking = async { tokio::task::spawn_blocking(|| getpriority_process(None)).await };
        let there = threads.upkeep().run(blocking).await.expect("done").expect("done");
        assert_eq!(there.expect("of that thread"), (own + NICER).min(19));
        assert_eq!(getpriority_process(None).expect("of this thread"), own, "no other thread");
    }
}
