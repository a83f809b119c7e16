//! A node's wall clock over simulated time: with an offset, jumps and drift.
//!
//! Invariant: a reading follows from the simulation's start, tokio's clock and what was set; all
//! clocks with the same start agree until they are changed. Never the machine's wall clock.

use std::sync::Arc;

use parking_lot::Mutex;
use tako_types::Clock;
use tokio::time::Instant;

/// What every clock shows at the simulation's start: the first moment of 2030.
pub const EPOCH_MICROS: u64 = 1_893_456_000_000_000;

#[derive(Debug)]
struct State {
    /// What the clock showed at `since`.
    shown_micros: i128,
    since: Instant,
    drift_ppm: i64,
}

impl State {
    fn at(&self, now: Instant) -> i128 {
        let passed = now.saturating_duration_since(self.since).as_micros().cast_signed();
        self.shown_micros + passed + passed * i128::from(self.drift_ppm) / 1_000_000
    }
}

/// A wall clock; clones are the same clock.
#[derive(Debug, Clone)]
pub struct SimClock {
    start: Instant,
    state: Arc<Mutex<State>>,
}

impl SimClock {
    /// A clock that is right: [`EPOCH_MICROS`] and the time since the simulation's `start`.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        let shown_micros = i128::from(EPOCH_MICROS);
        let state = State { shown_micros, since: start, drift_ppm: 0 };
        Self { start, state: Arc::new(Mutex::new(state)) }
    }

    /// Shows the right time and so many microseconds more or less, whatever it showed before.
    pub fn skew(&self, by_micros: i64) {
        let right = i128::from(EPOCH_MICROS) + self.start.elapsed().as_micros().cast_signed();
        self.set(|_| right + i128::from(by_micros));
    }

    /// Moves it by so many microseconds, forth or back.
    pub fn jump(&self, by_micros: i64) {
        self.set(|shown| shown + i128::from(by_micros));
    }

    /// From now on it gains so many microseconds in each second; loses them where negative.
    pub fn set_drift(&self, ppm: i64) {
        self.set(|shown| shown);
        // At the least it stands still: backwards is what `jump` is for.
        self.state.lock().drift_ppm = ppm.max(-1_000_000);
    }

    fn set(&self, change: impl FnOnce(i128) -> i128) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.shown_micros = change(state.at(now));
        state.since = now;
    }
}

impl Clock for SimClock {
    fn now_micros(&self) -> u64 {
        let shown = self.state.lock().at(Instant::now());
        u64::try_from(shown.max(0)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_follows_simulated_time_and_what_was_set() {
        let start = Instant::now();
        let (clock, other) = (SimClock::new(start), SimClock::new(start));
        let shown = |clock: &SimClock| clock.now_micros().cast_signed() - EPOCH_MICROS as i64;
        assert_eq!(shown(&clock), 0);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(shown(&clock), 10_000_000);
        clock.jump(-4_000_000);
        clock.jump(1_000_000);
        assert_eq!((shown(&clock), shown(&other)), (7_000_000, 10_000_000));
        clock.set_drift(200);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(shown(&clock), 107_020_000);
        clock.set_drift(-500);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(shown(&clock), 109_019_000);
        clock.skew(5);
        assert_eq!((shown(&clock), shown(&other)), (112_000_005, 112_000_000));
        clock.jump(i64::MIN);
        assert_eq!(clock.now_micros(), 0, "not before 1970");
        assert_eq!(shown(&SimClock::new(start)), 112_000_000);
    }
}
