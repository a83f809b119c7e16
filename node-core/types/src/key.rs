//! Keys: what a client names, its hash, its partition, and the bytes under which it is stored.

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use crate::{PartitionId, limits::KEY_BYTES_MAX};

/// Namespace of HTTP values and memcached.
pub const NAMESPACE_VALUES: u8 = 0;
/// Namespace of `/store` (siblings and contexts).
pub const NAMESPACE_STORE: u8 = 1;

/// First byte of a stored key that holds a record; 1 is the snapshot's own meta rows.
const STORED_RECORD: u8 = 0;
/// marker + hash + namespace
const STORED_PREFIX_BYTES: usize = 1 + 2 + 1;
/// Namespace and key, which the hash is of, begin here.
const HASHED_FROM: usize = 1 + 2;

/// Why bytes are not a key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// Keys need at least one byte.
    #[error("the key is empty")]
    Empty,
    /// Longer than [`KEY_BYTES_MAX`].
    #[error("the key has {bytes} bytes, the limit is {KEY_BYTES_MAX}")]
    TooLong {
        /// Length of what was given.
        bytes: usize,
    },
}

/// A client's key: any 1 to 4,096 bytes in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    namespace: u8,
    bytes: Bytes,
}

impl Key {
    /// Checks the length and makes a key.
    ///
    /// # Errors
    /// [`KeyError`] when `bytes` is empty or too long.
    pub fn new(namespace: u8, bytes: Bytes) -> Result<Self, KeyError> {
        if bytes.is_empty() {
            return Err(KeyError::Empty);
        }
        if bytes.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong { bytes: bytes.len() });
        }
        Ok(Self { namespace, bytes })
    }

    /// The client's bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> u8 {
        self.namespace
    }

    /// xxh3-64 of namespace and key: fixes the partition for ever.
    #[must_use]
    pub fn hash(&self) -> u64 {
        xxh3_64(&self.stored().0[HASHED_FROM..])
    }

    /// The bytes under which the record is journalled, cached and stored.
    #[must_use]
    pub fn stored(&self) -> StoredKey {
        let mut out = BytesMut::with_capacity(STORED_PREFIX_BYTES + self.bytes.len());
        out.put_slice(&[STORED_RECORD, 0, 0, self.namespace]);
        out.put_slice(&self.bytes);
        let top = top_of_hash(&out);
        out[1..HASHED_FROM].copy_from_slice(&top.to_be_bytes());
        StoredKey(out.freeze())
    }
}

/// What of a stored key's hash stands in it: the hash is that of all that follows, in one piece, as
/// every request makes it.
fn top_of_hash(stored: &[u8]) -> u16 {
    (xxh3_64(&stored[HASHED_FROM..]) >> 48) as u16
}

/// `0 ++ top 16 bits of the hash (big-endian) ++ namespace ++ key`: what replicas speak of.
///
/// Guarantee: the records of one partition are one contiguous range of stored keys, for every
/// partition count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoredKey(Bytes);

impl StoredKey {
    /// Takes bytes that came from the wire, the journal or the snapshot.
    ///
    /// Returns `None` unless they have the shape above and the hash in them is right.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        if bytes.len() <= STORED_PREFIX_BYTES || bytes[0] != STORED_RECORD {
            return None;
        }
        let is_short = bytes.len() - STORED_PREFIX_BYTES <= KEY_BYTES_MAX;
        let hash = u16::from_be_bytes([bytes[1], bytes[2]]);
        (is_short && hash == top_of_hash(&bytes)).then_some(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The partition, in a cluster of `2^partitions_log2` of them (0 to 12).
    #[must_use]
    pub fn partition(&self, partitions_log2: u32) -> PartitionId {
        let top = u16::from_be_bytes([self.0[1], self.0[2]]);
        PartitionId(if partitions_log2 == 0 { 0 } else { top >> (16 - partitions_log2) })
    }

    /// The same key in memory of its own: keeps nothing else alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// xxh3-64 of the stored bytes: names the key in the record cache and in announcements.
    #[must_use]
    pub fn digest(&self) -> u64 {
        xxh3_64(&self.0)
    }

    /// The client's key.
    #[must_use]
    pub fn key(&self) -> Key {
        Key { namespace: self.0[3], bytes: self.0.slice(STORED_PREFIX_BYTES..) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_key_reads_back_and_names_its_partition() {
        let key = Key::new(NAMESPACE_VALUES, Bytes::from_static(b"users/1")).expect("short key");
        let stored = key.stored();
        assert_eq!(StoredKey::from_bytes(stored.as_bytes().clone()), Some(stored.clone()));
        assert_eq!(stored.key(), key);
        for log2 in 0..=12 {
            let expected = if log2 == 0 { 0 } else { key.hash() >> (64 - log2) };
            assert_eq!(u64::from(stored.partition(log2).0), expected);
        }
    }

    #[test]
    fn bytes_with_a_wrong_hash_or_shape_are_no_stored_key() {
        let key = Key::new(NAMESPACE_VALUES, Bytes::from_static(b"k")).expect("short key");
        let mut bytes = key.stored().as_bytes().to_vec();
        bytes[1] ^= 1;
        assert_eq!(StoredKey::from_bytes(Bytes::from(bytes)), None);
        assert_eq!(StoredKey::from_bytes(Bytes::from_static(&[0, 1, 2])), None);
        assert_eq!(StoredKey::from_bytes(Bytes::new()), None);
    }

    #[test]
    fn the_key_hash_is_fixed_for_ever() {
        let key = Key::new(NAMESPACE_VALUES, Bytes::from_static(b"hello")).expect("short key");
        assert_eq!(key.hash(), xxhash_rust::xxh3::xxh3_64(b"\0hello"));
        assert_eq!(key.hash(), 18_014_393_158_498_619_308);
    }

    #[test]
    fn empty_and_long_keys_are_refused_with_the_limit() {
        assert_eq!(Key::new(0, Bytes::new()), Err(KeyError::Empty));
        let error = Key::new(0, Bytes::from(vec![1; 4097])).expect_err("too long");
        assert_eq!(error.to_string(), "the key has 4097 bytes, the limit is 4096");
    }
}
