//! Keys of a snapshot's own rows: the meta row and the due rows, all under first byte 1.
//!
//! Invariant: due rows sort by time, so everything due is one range. Records (first byte 0) are
//! stored under the bytes the replicas speak of and are not interpreted here.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tako_types::Version;

/// First byte of a record's row.
pub(crate) const RECORDS: u8 = 0;
const OWN_ROWS: u8 = 1;
const META: u8 = b'm';
const DUE: u8 = b'd';
/// The only value of a due row: its format.
pub(crate) const DUE_VALUE: &[u8] = &[1];
/// marker, kind, time, version
const DUE_PREFIX_BYTES: usize = 2 + 8 + 16;

/// The meta row's key.
pub(crate) const META_KEY: &[u8] = &[OWN_ROWS, META];

/// Something to look at when a time has come: a tombstone's grace or a record's expiry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DueRow {
    /// When; microseconds since the Unix epoch.
    pub at_micros: u64,
    /// The record's stored key.
    pub key: Bytes,
    /// The record's version when the row was written.
    pub version: Version,
}

impl DueRow {
    /// `1 'd' time version key`, numbers big-endian.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(DUE_PREFIX_BYTES + self.key.len());
        out.put_slice(&[OWN_ROWS, DUE]);
        out.put_u64(self.at_micros);
        out.put_u64(self.version.micros);
        out.put_u64(self.version.origin);
        out.put_slice(&self.key);
        out.freeze()
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() <= DUE_PREFIX_BYTES || bytes[..2] != [OWN_ROWS, DUE] {
            return None;
        }
        bytes.advance(2);
        let at_micros = bytes.get_u64();
        let version = Version { micros: bytes.get_u64(), origin: bytes.get_u64() };
        Some(Self { at_micros, key: bytes, version })
    }

    /// All rows due at or before `until_micros`, as a range `start..end` of keys.
    pub(crate) fn range(until_micros: u64) -> (Bytes, Bytes) {
        let start = Bytes::from_static(&[OWN_ROWS, DUE]);
        let end = match until_micros.checked_add(1) {
            Some(after) => {
                let mut end = BytesMut::from(&start[..]);
                end.put_u64(after);
                end.freeze()
            }
            None => Bytes::from_static(&[OWN_ROWS, DUE + 1]),
        };
        (start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_rows_read_back_and_sort_by_time() {
        let row = |at_micros, key: &'static [u8]| DueRow {
            at_micros,
            key: Bytes::from_static(key),
            version: Version { micros: 5, origin: 6 },
        };
        let (early, late) = (row(255, b"\xff"), row(256, b"\0"));
        assert!(early.encode() < late.encode());
        assert_eq!(DueRow::decode(early.encode()), Some(early.clone()));
        assert_eq!(DueRow::decode(Bytes::from_static(META_KEY)), None);
        let (start, end) = DueRow::range(255);
        assert!(start <= early.encode() && early.encode() < end && end <= late.encode());
        let (_, end) = DueRow::range(u64::MAX);
        assert!(row(u64::MAX, b"\xff\xff").encode() < end);
    }
}
