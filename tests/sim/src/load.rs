//! What clients ask for, drawn from the seed; how it is sent is decided elsewhere.
//!
//! The checkers' limit (`loadtest/checkers/src/lib.rs`): a client's own timestamp below a tombstone
//! that was collected is outside the guarantee, and a request may be late by any time. So runs are
//! of two kinds ([`keeps_tombstones`]): where no tombstone is ever collected every key is asked
//! everything, else keys with timestamps are never deleted and never expire.
//! Invariants: every value, and every timestamp of a key, is given out once.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use tako_types::{Key, StoredKey};

use crate::{chance::Chance, clock::EPOCH_MICROS, contract::Known, scenario::Scenario};

/// What follows the value's number.
const PADDING_MAX: usize = 6_000;
/// Of a value that is refused: more than the scenarios' `value_bytes_max`.
const TOO_LARGE: usize = 70_000;
/// Timestamps further ahead than this are refused by a process with a right clock.
const DRIFT: u64 = 60_000_000;

/// A key, and what it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// As in the path of a request: escaped.
    pub name: String,
    /// Writes with the client's own timestamp.
    pub stamped: bool,
    /// Deletes and values with a time to live.
    pub removed: bool,
    /// Changes under conditions.
    pub changed: Changed,
}

/// How far a key is changed under conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// Not at all.
    No,
    /// By half of its writes: the others are plain ones.
    Half,
    /// By all of its writes.
    Only,
}

/// Keys that are only changed under conditions, besides the others; and as many that are written plainly
/// as well.
const CHANGED: usize = 2;

/// What key names end with: bytes that are written as escapes, and slashes that stay.
const ENDINGS: [&str; 8] = ["", "+%2B", "%3Fw=9", "", "%2F..//x", "%FF%00%0A", "%25", ""];

/// Whether the tombstones of a run are never collected.
#[must_use]
pub fn keeps_tombstones(chance: &Chance) -> bool {
    chance.part("tombstones are kept").yes(0.4)
}

/// The scenario of a run that never collects tombstones: not even on clocks that are hours ahead.
#[must_use]
pub fn without_collection(scenario: &Scenario) -> Scenario {
    Scenario { tombstone_grace: Duration::from_secs(7 * 86_400), ..scenario.clone() }
}

/// The keys of a run.
#[must_use]
pub fn keys(count: usize, tombstones_stay: bool) -> Vec<KeyUse> {
    let key = |n: usize| {
        let stamped = n % 3 == 2;
        KeyUse {
            name: format!("k{n}{}", ENDINGS[n % ENDINGS.len()]),
            stamped: stamped || tombstones_stay,
            removed: !stamped || tombstones_stay,
            changed: Changed::No,
        }
    };
    let changed = |name: String, changed| KeyUse { name, stamped: false, removed: true, changed };
    let only = (0..CHANGED).map(|n| changed(format!("c{n}"), Changed::Only));
    let half = (0..CHANGED).map(|n| changed(format!("m{n}"), Changed::Half));
    (0..count).map(key).chain(only).chain(half).collect()
}

/// The key of that name, as stored.
///
/// # Panics
/// Never: the names are short and their escapes whole.
#[must_use]
pub fn stored(name: &str) -> StoredKey {
    let mut bytes = Vec::new();
    let mut rest = name.bytes();
    let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16)).unwrap_or(0);
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => (digit(rest.next()) * 16 + digit(rest.next())) as u8,
            other => other,
        });
    }
    Key::new(0, Bytes::from(bytes)).expect("a short key").stored()
}

/// What is asked of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Its value.
    Get,
    /// Whether there is one.
    Head,
    /// A write.
    Put {
        /// The number by which it is known.
        value: u64,
        /// The bytes; they begin with the number.
        bytes: Bytes,
        /// Time to live.
        ttl: Option<Duration>,
        /// The client's own, in microseconds since 1970.
        timestamp: Option<u64>,
    },
    /// A delete.
    Delete {
        /// As in `Put`.
        timestamp: Option<u64>,
    },
    /// A write of this number, or a delete, where the key has what the client knows of it.
    Change {
        /// As in `Put`; `None`: a delete.
        new: Option<u64>,
        /// The bytes; none of a delete.
        bytes: Bytes,
        /// What the client read or wrote last; `None`: that there is nothing.
        expected: Option<Known>,
    },
}

impl Ask {
    /// The client's own timestamp.
    #[must_use]
    pub fn timestamp(&self) -> Option<u64> {
        match self {
            Self::Put { timestamp, .. } | Self::Delete { timestamp } => *timestamp,
            Self::Get | Self::Head | Self::Change { .. } => None,
        }
    }

    /// In words, for counts.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Put { ttl: Some(_), timestamp: None, .. } => "put with ttl",
            Self::Put { ttl: Some(_), timestamp: Some(_), .. } => "put with ttl and timestamp",
            Self::Put { timestamp: Some(_), .. } => "put with timestamp",
            Self::Put { .. } => "put",
            Self::Delete { timestamp: Some(_) } => "delete with timestamp",
            Self::Delete { .. } => "delete",
            Self::Change { new: None, .. } => "delete under a condition",
            Self::Change { .. } => "put under a condition",
        }
    }

    /// Whether it only reads.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }
}

/// The bytes of a value: its number, padding, an end by which a torn one is told.
#[must_use]
pub fn value_bytes(value: u64, padding: usize) -> Bytes {
    let mut text = format!("{value}:").into_bytes();
    text.resize(text.len() + padding, b'.');
    text.push(b';');
    text.into()
}

/// The number of a value; `None` for bytes that no client wrote.
#[must_use]
pub fn value_of(bytes: &[u8]) -> Option<u64> {
    let end = bytes.iter().position(|byte| *byte == b':')?;
    let (number, rest) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    let padding = rest.strip_suffix(b";")?;
    if padding.iter().any(|byte| *byte != b'.') {
        return None;
    }
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// What all clients have given out.
#[derive(Debug, Default)]
pub struct Given {
    values: u64,
    timestamps: BTreeSet<(String, u64)>,
}

impl Given {
    /// Draws what a client asks of a key. `now` is simulated time in microseconds; `seen` the
    /// highest version of the key that this client was told.
    pub fn draw(
        &mut self,
        chance: &mut Chance,
        key: &KeyUse,
        now: u64,
        (seen, known): (u64, Option<&Known>),
    ) -> Ask {
        if chance.yes(0.5) {
            return if chance.yes(0.06) { Ask::Head } else { Ask::Get };
        }
        let changes = match key.changed {
            Changed::No => false,
            Changed::Half => chance.yes(0.5),
            Changed::Only => true,
        };
        if changes {
            return self.change(chance, known);
        }
        let timestamp = (key.stamped && chance.yes(0.35))
            .then(|| self.timestamp(chance, &key.name, EPOCH_MICROS + now, seen));
        if key.removed && chance.yes(0.15) {
            return Ask::Delete { timestamp };
        }
        self.values += 1;
        let value = self.values;
        let padding = if chance.yes(0.004) {
            TOO_LARGE
        } else if chance.yes(0.2) {
            chance.below(PADDING_MAX)
        } else {
            0
        };
        let ttl = (key.removed && chance.yes(0.2))
            .then(|| Duration::from_millis(1_000 + chance.below(19_000) as u64));
        Ask::Put { value, bytes: value_bytes(value, padding), ttl, timestamp }
    }

    fn change(&mut self, chance: &mut Chance, known: Option<&Known>) -> Ask {
        let expected = known.cloned();
        if expected.is_some() && chance.yes(0.15) {
            return Ask::Change { new: None, bytes: Bytes::new(), expected };
        }
        self.values += 1;
        let padding = if chance.yes(0.2) { chance.below(PADDING_MAX) } else { 0 };
        let bytes = value_bytes(self.values, padding);
        Ask::Change { new: Some(self.values), bytes, expected }
    }

    /// Mostly such that it wins; some in the past, ahead, and too far ahead.
    fn timestamp(&mut self, chance: &mut Chance, name: &str, now: u64, seen: u64) -> u64 {
        let mut micros = match chance.below(100) {
            0..25 => now - 1 - chance.below(20_000_000) as u64,
            25..33 => now + chance.below(3_000_000) as u64,
            33..36 => now + chance.below(55_000_000) as u64,
            36..41 => now + DRIFT + 1_000_000 + chance.below(60_000_000) as u64,
            // A client that knows the last version and wants to win.
            _ => {
                let known = if seen < now + DRIFT - 5_000_000 { seen } else { 0 };
                now.max(known) + 300 + chance.below(20_000) as u64
            }
        };
        // Two writes of one key never share a timestamp: by it alone neither is told whether it won.
        while !self.timestamps.insert((name.to_owned(), micros)) {
            micros += 1;
        }
        micros
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_paths_of_the_keys_they_name() {
        assert_eq!(stored("k1+%2B").key().bytes().as_ref(), b"k1 +");
        assert_eq!(stored("k5%FF%00%0A").key().bytes().as_ref(), b"k5\xff\0\n");
        let names: BTreeSet<Bytes> =
            keys(16, false).iter().map(|key| stored(&key.name).key().bytes().clone()).collect();
        assert_eq!(names.len(), 16 + 2 * CHANGED);
    }

    #[test]
    fn keys_with_timestamps_are_not_removed_unless_tombstones_stay() {
        let plain = |stay| keys(8, stay).into_iter().filter(|key| key.changed == Changed::No);
        assert!(plain(false).all(|key| key.stamped != key.removed));
        assert!(plain(true).all(|key| key.stamped && key.removed));
    }

    #[test]
    fn a_value_is_known_by_its_number_and_a_torn_one_is_told() {
        let whole = value_bytes(4711, 90);
        assert_eq!(value_of(&whole), Some(4711));
        assert_eq!(value_of(&whole[..whole.len() - 1]), None);
        assert_eq!(value_of(b"x:;"), None);
    }
}
