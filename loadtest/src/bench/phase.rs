//! One phase of a load: how long, how fast, of what.
//!
//! A load without a scenario is one phase; its warm-up belongs to it.

use std::time::Duration;

use super::{
    args::Distribution,
    pick::Picker,
    workload::{Mix, Picks, Workload},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) name: String,
    /// What it consists of, in words.
    pub(crate) load: String,
    /// Since the load began.
    pub(crate) from: Duration,
    /// Since the load began; none: a number of requests ends it.
    pub(crate) until: Option<Duration>,
    /// None: a closed loop. All phases of a load have one, or none has.
    pub(crate) rate: Option<Ramp>,
    pub(crate) mix: Mix,
    pub(crate) picker: Picker,
    pub(crate) value_bytes: usize,
}

/// Requests per second at the beginning and at the end of a phase, and evenly between.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ramp {
    pub(crate) from: f64,
    pub(crate) to: f64,
}

impl Ramp {
    /// The same all the time.
    pub(crate) fn flat(rate: f64) -> Self {
        Self { from: rate, to: rate }
    }

    /// Requests within `seconds`.
    pub(crate) fn places(self, seconds: f64) -> f64 {
        f64::midpoint(self.from, self.to) * seconds
    }

    /// When place `place`, from 0, of a phase of `seconds` is due: the time at which that many are
    /// due before it.
    pub(crate) fn due(self, place: f64, seconds: f64) -> f64 {
        // The root of from·t + (to−from)/seconds·t²/2 = place, without a division by the slope.
        let slope = if seconds.is_finite() { (self.to - self.from) / seconds } else { 0.0 };
        let root = (self.from * self.from + 2.0 * slope * place).max(0.0).sqrt();
        if place <= 0.0 { 0.0 } else { 2.0 * place / (self.from + root) }
    }
}

/// Reads and keys of a phase, before they are prepared.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// In words.
    pub(crate) name: String,
    pub(crate) mix: Mix,
    pub(crate) picks: Picks,
}

impl Kind {
    pub(crate) fn of(workload: Workload) -> Self {
        Self { name: workload.name(), mix: workload.mix(), picks: workload.picks() }
    }

    pub(crate) fn plain(read_share: f64, distribution: Distribution) -> Self {
        let name = format!("read share {read_share}, {distribution}");
        Self { name, mix: Mix::reads(read_share), picks: Picks::Of(distribution) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_a_ramp_come_as_fast_as_its_rate_then_is() {
        for (from, to) in [(100.0, 100.0), (0.0, 1000.0), (1000.0, 0.0), (50.0, 5000.0)] {
            let (ramp, seconds) = (Ramp { from, to }, 10.0);
            assert_eq!(ramp.due(0.0, seconds), 0.0);
            let end = ramp.due(ramp.places(seconds), seconds);
            assert!((end - seconds).abs() < 1e-6, "{ramp:?}: {end}");
            let mut before = 0.0;
            for place in 1..100 {
                let place = ramp.places(seconds) * f64::from(place) / 100.0;
                let due = ramp.due(place, seconds);
                assert!(before < due);
                before = due;
                let rate = from + (to - from) * due / seconds;
                let until = f64::midpoint(from, rate) * due;
                assert!((until - place).abs() < 1e-6 * place, "{ramp:?} {place}: {until}");
            }
        }
    }
}
