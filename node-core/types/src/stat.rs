//! What a listing tells of a record: everything but its value.

use crate::Version;

/// A record without its value. Ordered as two records of one key are merged, as far as both differ in
/// what stands here: the greater one stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RecordStat {
    /// Which write it is.
    pub version: Version,
    /// There is no value since then.
    pub is_tombstone: bool,
    /// Microseconds since the Unix epoch; 0 = never.
    pub expires_at_micros: u64,
    /// Length of the value.
    pub value_bytes: u64,
}

impl RecordStat {
    /// A value that does not expire.
    #[must_use]
    pub fn value(version: Version, value_bytes: usize) -> Self {
        Self { version, value_bytes: value_bytes as u64, ..Self::default() }
    }

    /// True for a value that has not expired at `now_micros` (microseconds since the Unix epoch).
    #[must_use]
    pub fn is_live_at(&self, now_micros: u64) -> bool {
        let expires = self.expires_at_micros;
        !self.is_tombstone && (expires == 0 || expires > now_micros)
    }
}
