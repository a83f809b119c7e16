//! How fast a snapshot is read: a bounded share of the store's and the network's time. Pure.
//!
//! Invariant: over any stretch of a pass no more bytes per second are read than the pace says,
//! a page apart. Limits and their arithmetic: `tako_types::limits`.

use std::time::Duration;

use tako_types::limits::{
    HEALING_BYTES_PER_SECOND_MAX, HEALING_BYTES_PER_SECOND_MIN, SCRUB_BYTES_PER_SECOND,
};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    bytes_per_second: u64,
}

impl Pace {
    /// So that `total_bytes` are read within half of a turn's time, where the limits allow it.
    pub(super) fn background(total_bytes: u64, slot: Duration) -> Self {
        let seconds = (slot / 2).as_secs().max(1);
        let wanted = total_bytes / seconds;
        let bytes_per_second =
            wanted.clamp(HEALING_BYTES_PER_SECOND_MIN, HEALING_BYTES_PER_SECOND_MAX);
        Self { bytes_per_second }
    }

    /// Somebody waits for it.
    pub(super) fn by_hand() -> Self {
        Self { bytes_per_second: SCRUB_BYTES_PER_SECOND }
    }

    /// How long to wait after `bytes` that took so long.
    pub(super) fn pause(self, bytes: u64, took: Duration) -> Duration {
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_second);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).saturating_sub(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MIB: u64 = 1 << 20;

    #[test]
    fn a_pass_takes_half_of_its_turn_within_the_limits() {
        // A day for 32 partitions: 45 minutes each; 4 GiB in half of it are 3.03 MiB/s.
        let slot = Duration::from_secs(86_400 / 32);
        let pace = Pace::background(4_096 * MIB, slot);
        let whole = 4_096 * pace.pause(MIB, Duration::ZERO);
        assert!(slot * 49 / 100 < whole && whole < slot * 51 / 100, "{whole:?}");
        assert_eq!(Pace::background(0, slot).pause(MIB, Duration::ZERO), 4 * SECOND);
        let large = Pace::background(u64::MAX, slot);
        assert_eq!(large.pause(8 * MIB, Duration::ZERO), SECOND);
        assert_eq!(Pace::by_hand().pause(64 * MIB, Duration::ZERO), SECOND);
    }

    #[test]
    fn what_reading_took_is_no_pause_any_more() {
        let pace = Pace::by_hand();
        assert_eq!(pace.pause(64 * MIB, SECOND / 4), SECOND * 3 / 4);
        assert_eq!(pace.pause(64 * MIB, 2 * SECOND), Duration::ZERO);
    }
}
