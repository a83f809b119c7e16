//! What a link does to frames: rates, set at run time, and the fates drawn from them.
//!
//! Invariant: every frame takes the same number of chances whatever the rates are, so that a rate
//! changed for a while leaves the fates of all other frames as they were.

use std::time::Duration;

use crate::chance::Chance;

/// What may happen to a frame that goes from one host to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkFaults {
    /// Least time on the way.
    pub latency_least: Duration,
    /// Longest time on the way; short ones are more frequent.
    pub latency_most: Duration,
    /// Share of frames that never arrive, in 0 to 1; of opening packets too, which are sent again.
    pub lose: f64,
    /// Share of frames that arrive twice, the second time later.
    pub duplicate: f64,
    /// Share of frames in whose place the whole connection is reset.
    pub reset: f64,
    /// Whether a frame with a short way overtakes earlier ones with a long one.
    pub reorder: bool,
}

impl LinkFaults {
    /// No faults: every frame once, in order, after 1 to 3 ms.
    #[must_use]
    pub fn quiet() -> Self {
        Self {
            latency_least: Duration::from_millis(1),
            latency_most: Duration::from_millis(3),
            lose: 0.0,
            duplicate: 0.0,
            reset: 0.0,
            reorder: false,
        }
    }

    /// Within a host: no faults and no time.
    #[must_use]
    pub fn loopback() -> Self {
        Self { latency_least: Duration::ZERO, latency_most: Duration::ZERO, ..Self::quiet() }
    }

    /// A time on the way.
    pub(super) fn latency(&self, chance: &mut Chance) -> Duration {
        chance.time(self.latency_least, self.latency_most)
    }

    /// Whether an opening packet is lost, and its time on the way.
    pub(super) fn opening(&self, chance: &mut Chance) -> (bool, Duration) {
        (yes(chance, self.lose), self.latency(chance))
    }

    /// The fate of one frame.
    pub(super) fn draw(&self, chance: &mut Chance) -> Fate {
        let reset = yes(chance, self.reset);
        let lost = yes(chance, self.lose);
        let twice = yes(chance, self.duplicate);
        let (delay, more) = (self.latency(chance), self.latency(chance));
        let again = twice.then_some(delay + more + Duration::from_millis(1));
        match (reset, lost) {
            (true, _) => Fate::Reset { delay },
            (false, true) => Fate::Lost,
            (false, false) => Fate::Arrives { delay, again },
        }
    }
}

impl Default for LinkFaults {
    fn default() -> Self {
        Self::quiet()
    }
}

/// What happens to one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The connection breaks; the other side hears of it after `delay`.
    Reset {
        delay: Duration,
    },
    Lost,
    /// After `delay`, and once more after `again`.
    Arrives {
        delay: Duration,
        again: Option<Duration>,
    },
}

/// What a cut does to frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutKind {
    /// Frames sent over it, or on their way when it comes, are gone; connections live on.
    Vanish,
    /// Frames wait, and arrive once it is healed; writers wait when too much is on its way.
    Stall,
}

/// As `Chance::yes`, but takes one chance also where the answer is sure.
fn yes(chance: &mut Chance, probability: f64) -> bool {
    /// Numbers below it are exact in an `f64`.
    const EXACT: u64 = 1 << 53;
    ((chance.number() % EXACT) as f64) < probability * EXACT as f64
}
