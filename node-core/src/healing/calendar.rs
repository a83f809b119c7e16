//! Whose turn it is: every partition and the journal once per interval, evenly spread. Pure.
//!
//! Invariant: a turn comes by the time of day alone, so all nodes agree about it without a word,
//! and a restart neither begins anew nor skips what is still to come. A turn that passed while the
//! node was away is not made up for: another replica took it. At most one is under way at a time,
//! as one task asks for them one by one. Times are microseconds since the Unix epoch.

use std::{collections::HashMap, time::Duration};

use tako_types::{NodeId, PartitionId};
use xxhash_rust::xxh3::xxh3_64;

/// What has turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    /// A partition's snapshot.
    Partition(PartitionId),
    /// The node's own journal files.
    Journal,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Calendar {
    interval_micros: u64,
    partitions: u16,
    /// The journal's place in the interval, by node.
    journal_phase_micros: u64,
    /// Turns before this are nobody's here.
    since_micros: u64,
    /// Rounds whose turn has come already.
    done: HashMap<Place, u64>,
}

impl Calendar {
    /// The turns from `now` on.
    pub(super) fn new(interval: Duration, partitions: u32, me: &NodeId, now: u64) -> Self {
        let interval_micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX).max(1);
        Self {
            interval_micros,
            partitions: u16::try_from(partitions).unwrap_or(u16::MAX),
            journal_phase_micros: xxh3_64(me.as_str().as_bytes()) % interval_micros,
            since_micros: now,
            done: HashMap::new(),
        }
    }

    /// Whether it is the calendar of these settings.
    pub(super) fn is_of(&self, interval: Duration, partitions: u32) -> bool {
        Duration::from_micros(self.interval_micros) == interval
            && u32::from(self.partitions) == partitions
    }

    /// Time between the turns of two partitions.
    pub(super) fn slot(&self) -> Duration {
        Duration::from_micros(self.interval_micros / u64::from(self.partitions.max(1)))
    }

    /// The turn that has come and waits longest, which is over by this; else how long until the
    /// next one.
    pub(super) fn next(&mut self, now: u64) -> Result<Place, Duration> {
        let places = (0..self.partitions).map(PartitionId).map(Place::Partition);
        let first = places
            .chain([Place::Journal])
            .map(|place| {
                let done = self.done.get(&place).copied();
                let done = done.unwrap_or_else(|| self.round(place, self.since_micros));
                (self.begins(place, done + 1), place)
            })
            .min();
        let Some((at, place)) = first else { return Err(Duration::MAX) };
        if now < at {
            return Err(Duration::from_micros(at - now));
        }
        self.done.insert(place, self.round(place, now));
        Ok(place)
    }

    /// Where in the interval a turn is.
    fn phase(&self, place: Place) -> u64 {
        let count = 2 * u128::from(self.partitions.max(1));
        match place {
            Place::Journal => self.journal_phase_micros,
            Place::Partition(p) => {
                let half_slots = 2 * u128::from(p.0) + 1;
                let phase = u128::from(self.interval_micros) * half_slots / count;
                u64::try_from(phase).unwrap_or(u64::MAX)
            }
        }
    }

    /// Number of the last round whose turn came at or before `now`; round 1 is the first since the
    /// epoch.
    fn round(&self, place: Place, now: u64) -> u64 {
        let phase = self.phase(place);
        if now < phase { 0 } else { (now - phase) / self.interval_micros + 1 }
    }

    /// When the turn of a round (1 or later) comes.
    fn begins(&self, place: Place, round: u64) -> u64 {
        let before = round.saturating_sub(1).saturating_mul(self.interval_micros);
        before.saturating_add(self.phase(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const MINUTE: u64 = 60_000_000;

    fn calendar(now: u64) -> Calendar {
        Calendar::new(HOUR, 4, &NodeId::new("n1"), now)
    }

    /// What comes between two times, looked for as soon as it may be there.
    fn turns(calendar: &mut Calendar, mut now: u64, until: u64) -> Vec<(u64, Place)> {
        let mut turns = Vec::new();
        while now < until {
            match calendar.next(now) {
                Ok(place) => turns.push((now, place)),
                Err(wait) => now += u64::try_from(wait.as_micros()).expect("short"),
            }
        }
        turns
    }

    #[test]
    fn everything_has_one_turn_per_interval_and_partitions_are_evenly_apart() {
        let start = 1_000 * 60 * MINUTE;
        let day = turns(&mut calendar(start), start, start + 24 * 60 * MINUTE);
        assert_eq!(day.len(), 24 * 5);
        let places: Vec<_> = (0..4).map(PartitionId).map(Place::Partition).collect();
        for place in places.iter().copied().chain([Place::Journal]) {
            let at: Vec<u64> = day.iter().filter(|turn| turn.1 == place).map(|it| it.0).collect();
            assert_eq!(at.len(), 24, "{place:?}");
            assert!(at.windows(2).all(|pair| pair[1] - pair[0] == 60 * MINUTE), "{place:?}");
        }
        let partitions: Vec<u64> =
            day.iter().filter(|turn| turn.1 != Place::Journal).map(|turn| turn.0).collect();
        assert!(partitions.windows(2).all(|pair| pair[1] - pair[0] == 15 * MINUTE));
        assert_eq!(calendar(start).slot(), Duration::from_secs(15 * 60));
    }

    #[test]
    fn a_restart_takes_no_turn_again_and_goes_on_with_the_next() {
        let start = 1_000 * 60 * MINUTE;
        let middle = start + 30 * MINUTE;
        let mut whole = turns(&mut calendar(start), start, start + 60 * MINUTE);
        let mut parts = turns(&mut calendar(start), start, middle);
        parts.extend(turns(&mut calendar(middle), middle, start + 60 * MINUTE));
        whole.sort_unstable();
        parts.sort_unstable();
        assert_eq!(whole, parts);
    }

    #[test]
    fn after_a_long_pass_each_missed_turn_comes_once_and_the_oldest_first() {
        let start = 1_000 * 60 * MINUTE;
        let mut calendar = calendar(start);
        let late = start + 150 * MINUTE;
        let missed: Vec<Place> = std::iter::from_fn(|| calendar.next(late).ok()).collect();
        assert_eq!(missed.len(), 5, "{missed:?}");
        let partitions: Vec<_> =
            missed.iter().filter(|place| **place != Place::Journal).copied().collect();
        assert_eq!(
            partitions,
            (0..4).map(|p| Place::Partition(PartitionId(p))).collect::<Vec<_>>()
        );
    }
}
