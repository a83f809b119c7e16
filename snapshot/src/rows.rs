//! Keys of a snapshot's own rows: the meta row and the due rows, all under first byte 1, and the
//! listing rows under first byte 2.
//!
//! Invariants: due rows sort by time, so everything due is one range; listing rows sort by namespace
//! and client key, whatever its hash, and of two under one key the greater bytes are the newer one.
//! Records (first byte 0) are stored under the bytes the replicas speak of and are not interpreted here.

use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tako_types::{RecordStat, StoredKey, Version};

/// First byte of a record's row.
pub(crate) const RECORDS: u8 = 0;
const OWN_ROWS: u8 = 1;
const META: u8 = b'm';
const DUE: u8 = b'd';
/// The only value of a due row: its format.
pub(crate) const DUE_VALUE: &[u8] = &[1];
/// marker, kind, time, version
const DUE_PREFIX_BYTES: usize = 2 + 8 + 16;

/// First byte of a listing row.
pub(crate) const LISTING: u8 = 2;
/// First byte of the value of a listing row: its format.
const STAT_FORMAT: u8 = 1;
/// format, version, kind, expiry, length
const STAT_BYTES: usize = 1 + 16 + 1 + 8 + 8;
/// first byte, namespace
const LISTING_PREFIX_BYTES: usize = 2;
/// Where namespace and client key begin in a record's key.
const NAMESPACE_FROM: usize = 3;

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

/// Which keys a listing is of: those of a namespace that begin with a prefix, behind a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRange {
    /// Of which namespace.
    pub namespace: u8,
    /// What all keys begin with; may be empty.
    pub prefix: Bytes,
    /// All keys are greater than this.
    pub after: Option<Bytes>,
}

impl ListRange {
    /// Whether a client key of the namespace is meant.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) && self.after.as_ref().is_none_or(|after| &after[..] < key)
    }

    /// The range of rows; `None` where it is empty.
    pub(crate) fn rows(&self) -> Option<(Bound<Bytes>, Bound<Bytes>)> {
        let row = |key: &[u8]| {
            let mut out = BytesMut::with_capacity(LISTING_PREFIX_BYTES + key.len());
            out.put_slice(&[LISTING, self.namespace]);
            out.put_slice(key);
            out
        };
        let first = row(&self.prefix);
        let mut end = first.clone();
        // The least bytes above all that begin so; the first byte is no 0xff, so there are some.
        while let Some(last) = end.last_mut() {
            match last.checked_add(1) {
                Some(above) => {
                    *last = above;
                    break;
                }
                None => end.truncate(end.len() - 1),
            }
        }
        let end = end.freeze();
        let start = match self.after.as_ref().filter(|after| **after >= self.prefix) {
            Some(after) => Bound::Excluded(row(after).freeze()),
            None => Bound::Included(first.freeze()),
        };
        let is_empty = matches!(&start, Bound::Excluded(after) if end <= *after);
        (!is_empty).then_some((start, Bound::Excluded(end)))
    }
}

/// Key of the listing row of the record under a stored key.
pub(crate) fn listing_key(stored: &[u8]) -> Bytes {
    let named = stored.get(NAMESPACE_FROM..).unwrap_or_default();
    let mut out = BytesMut::with_capacity(1 + named.len());
    out.put_u8(LISTING);
    out.put_slice(named);
    out.freeze()
}

/// The stored key that a listing row is of; `None` for what is no such row.
pub(crate) fn listed_key(row: &[u8]) -> Option<StoredKey> {
    let (&[LISTING, namespace], key) = row.split_first_chunk::<LISTING_PREFIX_BYTES>()? else {
        return None;
    };
    let key = tako_types::Key::new(namespace, Bytes::copy_from_slice(key)).ok()?;
    Some(key.stored())
}

/// The client's key of a listing row, in memory of its own.
pub(crate) fn client_key(row: &[u8]) -> Bytes {
    Bytes::copy_from_slice(row.get(LISTING_PREFIX_BYTES..).unwrap_or_default())
}

/// Numbers big-endian, so that the order of bytes is that of [`RecordStat`].
pub(crate) fn encode_stat(stat: &RecordStat) -> Bytes {
    let mut out = BytesMut::with_capacity(STAT_BYTES);
    out.put_u8(STAT_FORMAT);
    out.put_u64(stat.version.micros);
    out.put_u64(stat.version.origin);
    out.put_u8(u8::from(stat.is_tombstone));
    out.put_u64(stat.expires_at_micros);
    out.put_u64(stat.value_bytes);
    out.freeze()
}

pub(crate) fn decode_stat(mut bytes: &[u8]) -> Option<RecordStat> {
    if bytes.len() != STAT_BYTES || bytes.get_u8() != STAT_FORMAT {
        return None;
    }
    let version = Version { micros: bytes.get_u64(), origin: bytes.get_u64() };
    let is_tombstone = match bytes.get_u8() {
        0 => false,
        1 => true,
        _ => return None,
    };
    let (expires_at_micros, value_bytes) = (bytes.get_u64(), bytes.get_u64());
    Some(RecordStat { version, is_tombstone, expires_at_micros, value_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_rows_sort_by_key_and_their_values_as_records_are_merged() {
        let stored = |key: &'static [u8]| {
            let key = tako_types::Key::new(0, Bytes::from_static(key)).expect("short");
            key.stored()
        };
        let rows: Vec<_> = [b"a".as_slice(), b"a\0", b"aa", b"b", b"\xff\xff"]
            .map(|key| listing_key(stored(key).as_bytes()))
            .into();
        assert!(rows.is_sorted());
        for row in &rows {
            assert_eq!(listing_key(listed_key(row).expect("a key").as_bytes()), row);
            assert_eq!([&[LISTING, 0][..], &client_key(row)].concat(), row.as_ref());
        }
        let stat = |micros, is_tombstone, value_bytes| RecordStat {
            version: Version { micros, origin: 7 },
            is_tombstone,
            expires_at_micros: 3,
            value_bytes,
        };
        let all = [stat(1, true, 9), stat(2, false, 1), stat(2, false, 300), stat(2, true, 0)];
        assert!(all.is_sorted());
        assert!(all.iter().map(encode_stat).is_sorted());
        for one in &all {
            assert_eq!(decode_stat(&encode_stat(one)).as_ref(), Some(one));
        }
        for bad in [&b""[..], b"\x01", &[2; STAT_BYTES], &[1; STAT_BYTES + 1]] {
            assert_eq!(decode_stat(bad), None);
        }
        assert_eq!(listed_key(b"\x02"), None);
        assert_eq!(listed_key(b"\x01\x00a"), None);
    }

    #[test]
    fn a_range_of_listing_rows_holds_what_it_says_and_nothing_else() {
        let keys: [&[u8]; 8] =
            [b"", b"a", b"a\0", b"a\xff", b"a\xff\xff", b"b", b"\xff", b"\xff\xff"];
        for prefix in keys {
            for after in std::iter::once(None).chain(keys.map(Some)) {
                let bytes = |key: &'static [u8]| Bytes::from_static(key);
                let range =
                    ListRange { namespace: 0, prefix: bytes(prefix), after: after.map(bytes) };
                let rows = range.rows();
                for key in &keys[1..] {
                    let row = Bytes::from([&[LISTING, 0], *key].concat());
                    let within = rows.as_ref().is_some_and(|(start, end)| {
                        std::ops::RangeBounds::contains(&(start.clone(), end.clone()), &row)
                    });
                    assert_eq!(within, range.contains(key), "{range:?} {key:?}");
                }
                // Of the next namespace nothing.
                let next = Bytes::from_static(&[LISTING, 1, b'a']);
                let within = rows.is_some_and(|rows| std::ops::RangeBounds::contains(&rows, &next));
                assert!(!within, "{range:?}");
            }
        }
    }

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
