//! Where work runs that no request waits for: steps, the views of new ones, compaction, healing.
//!
//! Why apart from the requests: a step of many partitions takes every core for a moment, and a
//! request must not queue behind it. The program gives a runtime whose threads the system runs after
//! those of the requests; a simulation gives none, and all runs in one place.

use std::future::Future;

use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::SnapshotError;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Upkeep(Option<Handle>);

impl Upkeep {
    /// On a runtime of its own, which must outlive everything that was given this.
    #[must_use]
    pub fn on(runtime: Handle) -> Self {
        Self(Some(runtime))
    }

    /// Starts a task that `tasks` counts.
    pub fn spawn<T: Send + 'static>(
        &self,
        tasks: &TaskTracker,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        match &self.0 {
            Some(runtime) => tasks.spawn_on(task, runtime),
            None => tasks.spawn(task),
        }
    }

    /// Does `work` there and waits for it; it is dropped with the caller. Who is there already does it
    /// itself.
    ///
    /// # Errors
    /// [`SnapshotError::Closed`] when the runtime ended under it.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let elsewhere = |runtime: &&Handle| {
            Handle::try_current().map_or(true, |current| current.id() != runtime.id())
        };
        let Some(runtime) = self.0.as_ref().filter(elsewhere) else { return Ok(work.await) };
        match AbortOnDropHandle::new(runtime.spawn(work)).await {
            Ok(done) => Ok(done),
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(SnapshotError::Closed),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::{runtime::Builder, sync::oneshot};

    use super::*;

    fn apart() -> tokio::runtime::Runtime {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("apart").build().expect("a runtime")
    }

    fn thread_name() -> Option<String> {
        thread::current().name().map(str::to_owned)
    }

    #[tokio::test]
    async fn work_is_done_on_the_runtime_it_was_given_and_without_one_by_the_caller() {
        let runtime = apart();
        let upkeep = Upkeep::on(runtime.handle().clone());
        let tasks = TaskTracker::new();
        let there = Some("apart".to_owned());
        assert_eq!(upkeep.run(async { thread_name() }).await.expect("done"), there);
        assert_eq!(upkeep.spawn(&tasks, async { thread_name() }).await.expect("done"), there);
        let here = Upkeep::default().run(async { thread_name() }).await.expect("done");
        assert_eq!(here, thread_name());
        runtime.shutdown_background();
    }

    #[tokio::test]
    async fn work_ends_with_who_waits_for_it_and_an_ended_runtime_is_an_error() {
        let runtime = apart();
        let upkeep = Upkeep::on(runtime.handle().clone());
        let (held, dropped) = oneshot::channel::<()>();
        let (begun, begins) = oneshot::channel();
        let work = upkeep.run(async move {
            let _ = begun.send(());
            let _held = held;
            std::future::pending::<()>().await;
        });
        tokio::select! {
            _ = work => unreachable!("it never ends by itself"),
            _ = begins => {}
        }
        assert!(dropped.await.is_err(), "the work was dropped");
        runtime.shutdown_background();
        assert!(matches!(upkeep.run(async {}).await, Err(SnapshotError::Closed)));
    }

    #[tokio::test]
    #[should_panic(expected = "of the work")]
    async fn a_panic_of_the_work_is_the_callers() {
        let runtime = apart();
        let upkeep = Upkeep::on(runtime.handle().clone());
        let done = upkeep.run(async { panic!("of the work") }).await;
        runtime.shutdown_background();
        done.expect("not reached");
    }
}
