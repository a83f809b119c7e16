//! What must hold of any bytes that are read as a row of Tako's own or a small object in the store.
//!
//! Called as `tako_types::fuzz` is. A panic is a finding.

use bytes::Bytes;
use tako_types::Version;

use crate::{
    DueRow, Meta,
    backup::{Backup, Origin},
    store::{cluster_of, cluster_text, name_of, number_of},
};

/// Fewest bytes of one entry of the coverage.
const ENTRY_BYTES_MIN: usize = 2 + 8 + 8;

/// A meta row and the key of a due row: what is taken is written as the same, and a step from it
/// only moves forward.
///
/// # Panics
/// When that does not hold.
pub fn own_row(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(meta) = Meta::decode(bytes.clone()) {
        assert!(meta.coverage.len() * ENTRY_BYTES_MIN <= bytes.len(), "made up coverage");
        let encoded = meta.encode();
        assert!(encoded.len() <= bytes.len());
        assert_eq!(Meta::decode(encoded), Ok(meta.clone()));
        let next = meta.advanced(&meta.coverage, Version::ZERO);
        assert_eq!((&next.coverage, next.highest), (&meta.coverage, meta.highest));
        assert!(meta.step < next.step);
    }
    if let Some(row) = DueRow::decode(bytes.clone()) {
        assert_eq!(row.encode(), bytes);
        let (start, end) = DueRow::range(row.at_micros);
        assert!(start <= bytes && bytes < end, "not among what is due at its time");
        if let Some(before) = row.at_micros.checked_sub(1) {
            assert!(DueRow::range(before).1 <= bytes, "due before its time");
        }
    }
}

/// The cluster's id and the name of a document: what is taken is exactly what would be written. The
/// documents of backups and restores: what is taken is written as something that reads as the same.
///
/// # Panics
/// When that does not hold.
pub fn small_object(bytes: &[u8]) {
    if let Some(id) = cluster_of(bytes) {
        assert_eq!(cluster_text(id).as_bytes(), bytes);
    }
    if let Some((name, number)) =
        std::str::from_utf8(bytes).ok().and_then(|name| Some((name, number_of(name)?)))
    {
        assert_eq!(name_of(number), name);
    }
    if let Ok(backup) = Backup::decode(bytes) {
        assert_eq!(Backup::decode(&backup.encode()), Ok(backup));
    }
    if let Ok(origin) = Origin::decode(bytes) {
        assert_eq!(Origin::decode(&origin.encode()), Ok(origin));
    }
}
