//! Versions: the total order over the records of one key, and the merge built on it.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A record's version.
///
/// Shape: microseconds first, origin second; ordered so. Text form `<micros>-<origin, hex>`.
/// Units: microseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Version {
    /// Hybrid logical clock at the serving node, or the client's own timestamp.
    pub micros: u64,
    /// Who issued it: a hash of node id and process start, or of the record for a client's own.
    pub origin: u64,
}

impl Version {
    /// Below every version that is ever issued; stands for "no record".
    pub const ZERO: Self = Self { micros: 0, origin: 0 };

    /// The version in one number, for clients that have room for no more (memcached's `cas unique`).
    ///
    /// Never 0, and below 2^63: libmemcached has room for 19 digits, and some languages know no
    /// unsigned numbers. Two versions of a key have the same one by a chance of 2^-63.
    #[must_use]
    pub fn token(self) -> u64 {
        let mix = |word: u64| {
            let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        };
        (mix(mix(self.micros).wrapping_add(self.origin)) >> 1).max(1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.micros, self.origin)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (micros, origin) = text.split_once('-')?;
            Some(Self {
                micros: micros.parse().ok()?,
                origin: u64::from_str_radix(origin, 16).ok()?,
            })
        };
        parse().ok_or_else(|| format!("`{text}` is not a version (microseconds-origin)"))
    }
}

/// What a record says about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// The key has a value.
    Value = 0,
    /// The key was deleted.
    Tombstone = 1,
}

impl Kind {
    /// Reads a kind from its byte.
    #[must_use]
    pub fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Value),
            1 => Some(Self::Tombstone),
            _ => None,
        }
    }
}

/// Which of two records of one key wins: the greater.
///
/// Shape: (version, kind, encoded bytes). Higher version; on equality the tombstone; then the
/// greater bytes. Guarantee: a total order, so merging by it is commutative, associative and
/// idempotent.
#[must_use]
pub fn merge_order(a: (Version, Kind, &[u8]), b: (Version, Kind, &[u8])) -> Ordering {
    a.0.cmp(&b.0).then_with(|| a.1.cmp(&b.1)).then_with(|| a.2.cmp(b.2))
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn a_version_reads_back_from_its_text() {
        let version = Version { micros: 1_790_000_000_000_000, origin: 0xdead_beef };
        assert_eq!(version.to_string().parse::<Version>(), Ok(version));
        assert!("17".parse::<Version>().is_err());
        assert!("x-1".parse::<Version>().is_err());
    }

    #[test]
    fn tokens_differ_and_fit_into_19_digits() {
        let versions = (0..100_000u64).map(|n| Version { micros: n / 10, origin: n % 10 });
        let mut tokens: Vec<u64> = versions.map(Version::token).collect();
        assert!(tokens.iter().all(|token| (1..1 << 63).contains(token)));
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), 100_000);
    }
}
