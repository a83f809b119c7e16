//! The record's checksum and the origin of client-supplied versions.
//!
//! Both run over the fields in one fixed order, little-endian, each variable field after its
//! length; so neither depends on how FlatBuffers lays a record out. The order never changes.

use crc32c::{crc32c, crc32c_append};
use xxhash_rust::xxh3::Xxh3Default;

use super::RecordHead;

/// Stands for the length of an absent content type.
const ABSENT: u32 = u32::MAX;

/// CRC-32C over all fields but itself.
pub(super) fn checksum(
    head: &RecordHead,
    key: &[u8],
    content_type: Option<&str>,
    value: &[u8],
) -> u32 {
    let mut fixed = [0; 16 + 1 + 8 + 4 + 4 + 4 + 8];
    fixed[..8].copy_from_slice(&head.version.micros.to_le_bytes());
    fixed[8..16].copy_from_slice(&head.version.origin.to_le_bytes());
    fixed[16] = head.kind as u8;
    fixed[17..25].copy_from_slice(&head.expires_at_micros.to_le_bytes());
    fixed[25..29].copy_from_slice(&head.flags.to_le_bytes());
    fixed[29..33].copy_from_slice(&length(key.len()).to_le_bytes());
    fixed[33..37].copy_from_slice(&content_type_length(content_type).to_le_bytes());
    fixed[37..45].copy_from_slice(&(value.len() as u64).to_le_bytes());
    let mut crc = crc32c_append(crc32c(&fixed), key);
    if let Some(text) = content_type {
        crc = crc32c_append(crc, text.as_bytes());
    }
    crc32c_append(crc, value)
}

/// xxh3-64 of (kind, expiry, flags, content type, value); the version is not part of it.
pub(super) fn content_hash(head: &RecordHead, content_type: Option<&str>, value: &[u8]) -> u64 {
    let mut hasher = Xxh3Default::new();
    hasher.update(&[head.kind as u8]);
    hasher.update(&head.expires_at_micros.to_le_bytes());
    hasher.update(&head.flags.to_le_bytes());
    hasher.update(&content_type_length(content_type).to_le_bytes());
    hasher.update(content_type.unwrap_or_default().as_bytes());
    hasher.update(value);
    hasher.digest()
}

fn content_type_length(content_type: Option<&str>) -> u32 {
    content_type.map_or(ABSENT, |text| length(text.len()))
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(ABSENT)
}
