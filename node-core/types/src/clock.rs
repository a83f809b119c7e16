//! The clock: a parameter for wall time, and the hybrid logical clock that issues versions.
//!
//! Invariant: one [`HybridClock`] never issues a version twice, and never one that is not above
//! every version it has observed within the allowed drift.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{Version, limits::CLOCK_DRIFT_MAX};

/// Wall time; the only way time of day enters Tako.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Microseconds since the Unix epoch; may jump in either direction.
    fn now_micros(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_micros(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

/// A version lies further ahead of the clock than is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the timestamp is {ahead:?} ahead of the clock, the limit is {CLOCK_DRIFT_MAX:?}")]
pub struct Drift {
    /// How far ahead.
    pub ahead: Duration,
}

/// Issues versions: the wall clock in microseconds, bumped to be strictly increasing.
#[derive(Debug, Clone)]
pub struct HybridClock {
    clock: Arc<dyn Clock>,
    last_micros: Arc<AtomicU64>,
    /// Highest issued above a version beyond the drift; the others do not follow it.
    beyond_micros: Arc<AtomicU64>,
    origin: u64,
}

impl HybridClock {
    /// A clock that issues versions of `origin`, all above `floor_micros`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, origin: u64, floor_micros: u64) -> Self {
        let last_micros = Arc::new(AtomicU64::new(floor_micros));
        Self { clock, last_micros, beyond_micros: Arc::default(), origin }
    }

    /// The next version: above all issued and observed before.
    #[must_use]
    pub fn next(&self) -> Version {
        let now = self.clock.now_micros();
        let previous = self
            .last_micros
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| {
                Some(now.max(last.saturating_add(1)))
            })
            .unwrap_or_else(|last| last);
        Version { micros: now.max(previous.saturating_add(1)), origin: self.origin }
    }

    /// A version above `other`, never issued before.
    ///
    /// One beyond the drift is somebody's broken clock: the version is above it all the same, else
    /// its key could never be written again, but later ones of [`Self::next`] do not follow. It
    /// has an origin of its own, as the wall clock may come by that time again.
    #[must_use]
    pub fn above(&self, other: Version) -> Version {
        if self.observe(other).is_ok() {
            return self.next();
        }
        let least = self.next().micros.max(other.micros.saturating_add(1));
        let previous = self
            .beyond_micros
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| {
                Some(least.max(last.saturating_add(1)))
            })
            .unwrap_or_else(|last| last);
        Version { micros: least.max(previous.saturating_add(1)), origin: !self.origin }
    }

    /// The receive rule: later versions will be above `version`.
    ///
    /// # Errors
    /// [`Drift`] when it lies more than [`CLOCK_DRIFT_MAX`] ahead; the clock is then left alone.
    pub fn observe(&self, version: Version) -> Result<(), Drift> {
        self.check(version)?;
        self.last_micros.fetch_max(version.micros, Ordering::AcqRel);
        Ok(())
    }

    /// Whether `version` is within the allowed drift of the wall clock.
    ///
    /// # Errors
    /// [`Drift`] when it is not.
    pub fn check(&self, version: Version) -> Result<(), Drift> {
        let ahead = Duration::from_micros(version.micros.saturating_sub(self.clock.now_micros()));
        if ahead > CLOCK_DRIFT_MAX { Err(Drift { ahead }) } else { Ok(()) }
    }

    /// Wall time, microseconds since the Unix epoch.
    #[must_use]
    pub fn now_micros(&self) -> u64 {
        self.clock.now_micros()
    }

    /// The highest microseconds issued or observed.
    #[must_use]
    pub fn last_micros(&self) -> u64 {
        self.last_micros.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[derive(Debug, Default)]
    struct Hand(AtomicU64);
    impl Clock for Hand {
        fn now_micros(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn versions_increase_when_the_clock_stands_or_goes_back_an_hour() {
        let hand = Arc::new(Hand(AtomicU64::new(7_200_000_000)));
        let clock = HybridClock::new(hand.clone(), 9, 0);
        let mut last = clock.next();
        for step in 0..1000 {
            if step == 500 {
                hand.0.store(3_600_000_000, Ordering::Relaxed);
            }
            let next = clock.next();
            assert!(next > last);
            last = next;
        }
    }

    #[test]
    fn an_observed_version_is_passed_and_one_a_day_ahead_is_refused() {
        let clock = HybridClock::new(Arc::new(Hand(AtomicU64::new(1_000_000))), 9, 0);
        let seen = Version { micros: 30_000_000, origin: 1 };
        clock.observe(seen).expect("within the drift");
        assert!(clock.next() > seen);
        let far = Version { micros: 86_400_000_000, origin: 1 };
        assert!(clock.observe(far).is_err());
        assert!(clock.next() < far);
    }

    #[test]
    fn versions_above_one_beyond_the_drift_differ_and_nothing_else_follows_them() {
        let hand = Arc::new(Hand(AtomicU64::new(1_000_000)));
        let clock = HybridClock::new(hand.clone(), 9, 0);
        let far = Version { micros: 86_400_000_000, origin: 1 };
        let first = clock.above(far);
        let second = clock.above(far);
        assert!(far < first && first < second, "{first} {second}");
        assert!(clock.next() < far);
        let near = Version { micros: 2_000_000, origin: 1 };
        assert!(near < clock.above(near));
        // The wall clock jumps to where the far version lies.
        hand.0.store(far.micros - 10, Ordering::Relaxed);
        for _ in 0..20 {
            let again = clock.above(far);
            assert!(again != first && again != second, "{again} twice");
        }
    }

    #[test]
    fn the_first_version_is_above_the_floor() {
        let clock = HybridClock::new(Arc::new(Hand::default()), 9, 77);
        assert_eq!(clock.next().micros, 78);
    }
}
