//! Following: a replica that missed an announcement opens the newest step itself.

use std::time::Duration;

use futures::{StreamExt, stream};
use tako_types::PartitionId;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Snapshotter;

const EVERY: Duration = Duration::from_secs(1);
/// An announcement gets this long before the replica looks for the step itself.
const PATIENCE: Duration = Duration::from_secs(3);
/// Partitions opened at one time.
const AT_ONCE: usize = 4;

impl Snapshotter {
    /// Looks each second whether peers see later steps; runs until the shutdown.
    pub async fn follow(&self) {
        let mut behind: std::collections::HashMap<PartitionId, Instant> = Default::default();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = Instant::now();
            let own = self.engine.held(&self.links.config.current());
            let mut due = Vec::new();
            for p in own {
                if self.newest_step_known(p) <= self.engine.step(p).0 {
                    behind.remove(&p);
                } else if now - *behind.entry(p).or_insert(now) >= PATIENCE {
                    due.push(p);
                }
            }
            let opened = stream::iter(due).for_each_concurrent(AT_ONCE, |p| async move {
                if let Err(error) = self.engine.open_latest(p).await {
                    tracing::warn!(partition = p.0, "cannot open a later step: {error}");
                }
            });
            // A store that does not answer must not hold up the shutdown.
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = opened => {}
            }
        }
    }
}
