//! SlateDB's clock over ours: wall time that never goes back.
//!
//! Invariant: within one [`StoreClock`] no reading is below an earlier one, nor below the floor
//! (the last tick in the manifest). SlateDB refuses writes, and its tickers panic, otherwise.
//! One per handle, so that a partition whose last writer had a fast clock does not push the
//! others ahead.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use slatedb::manifest::VersionedManifest;
use slatedb_common::clock::{SystemClock, SystemClockTicker};
use tako_types::Clock;
use tokio::time::Instant;

/// `max(wall, last reading and the time since)`, in microseconds since the Unix epoch.
///
/// It goes on at its own pace while the wall clock is behind: the engine measures the age of a
/// dead compaction with it.
#[derive(Debug)]
pub(crate) struct StoreClock {
    wall: Arc<dyn Clock>,
    opened: Instant,
    /// What the clock would have shown at `opened`, had it always been as far ahead as it is now.
    origin_micros: AtomicI64,
}

impl StoreClock {
    pub(crate) fn new(wall: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { wall, opened: Instant::now(), origin_micros: AtomicI64::new(0) })
    }

    /// The same, above what a manifest shows as its last tick.
    pub(crate) fn after_millis(wall: Arc<dyn Clock>, millis: i64) -> Arc<Self> {
        let clock = Self::new(wall);
        clock.raise_to_millis(millis);
        clock
    }

    /// Later readings are at or above `millis`.
    pub(crate) fn raise_to_millis(&self, millis: i64) {
        self.read_above(millis.saturating_mul(1000));
    }

    fn read_above(&self, micros: i64) -> i64 {
        let elapsed = i64::try_from(self.opened.elapsed().as_micros()).unwrap_or(i64::MAX);
        let origin = micros.saturating_sub(elapsed);
        let before = self.origin_micros.fetch_max(origin, Ordering::AcqRel);
        before.max(origin).saturating_add(elapsed)
    }
}

impl SystemClock for StoreClock {
    fn now(&self) -> DateTime<Utc> {
        let wall = i64::try_from(self.wall.now_micros()).unwrap_or(i64::MAX);
        let now = self.read_above(wall);
        DateTime::from_timestamp_micros(now).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    fn sleep<'a>(&'a self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn ticker<'a>(&'a self, duration: Duration) -> SystemClockTicker<'a> {
        SystemClockTicker::new(self, duration)
    }
}

/// Where a clock must start to go on with a database: at the newest time that its manifest shows.
///
/// That is the last tick, or the time in the name of a table: tables are named when they are
/// written, after the tick of their rows, and the engine refuses one named before another.
pub(crate) fn floor_millis(manifest: &VersionedManifest) -> i64 {
    let l0 = manifest.l0().iter();
    let compacted = manifest.compacted().iter().flat_map(|run| run.sst_views());
    let named = l0.chain(compacted).flat_map(|view| [view.id, view.sst.id.value()]);
    let newest = named.map(|id| id.timestamp_ms()).max().unwrap_or(0);
    manifest.last_l0_clock_tick().max(i64::try_from(newest).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[derive(Debug)]
    struct Hand(AtomicU64);
    impl Clock for Hand {
        fn now_micros(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_goes_back_nor_below_the_last_tick_and_never_stands_still() {
        let hand = Arc::new(Hand(AtomicU64::new(5_000_000)));
        let clock = StoreClock::new(hand.clone());
        assert_eq!(clock.now().timestamp_millis(), 5_000);
        hand.0.store(1_000_000, Ordering::Relaxed);
        assert_eq!(clock.now().timestamp_millis(), 5_000);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.now().timestamp_millis(), 7_000);
        clock.raise_to_millis(9_000);
        assert_eq!(clock.now().timestamp_millis(), 9_000);
        hand.0.store(10_000_000, Ordering::Relaxed);
        assert_eq!(clock.now().timestamp_millis(), 10_000);
    }
}
