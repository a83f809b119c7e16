//! Reads every row of a partition's state from the store itself, past every cache.
//!
//! In: a checkpoint. Out: pages of records in key order, the snapshot's own rows checked here, and
//! the stretches that cannot be read. Invariant: a scan goes forward only, and after any error its
//! next page begins where the last good row ended; a block that is damaged is passed over by
//! ever wider steps, so that what lies behind it is read all the same. Nothing is written and
//! nothing enters a cache.
//! Not here: what a record is, what is done about a bad one, how fast it goes (the node's healing).

use std::{ops::Bound, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use slatedb::{DbIterator, DbReader, config::ScanOptions};
use tako_types::{PartitionId, limits::STORE_DEADLINE};

use crate::{
    Checkpoint, DueRow, Meta, SnapshotError,
    reader::close,
    rows::{DUE_VALUE, LISTING, META_KEY, RECORDS, decode_stat, listed_key},
    snapshots::{Shared, Through, bounded},
};

/// One GET fetches about so much; one block where damage was met, to come as near to it as can be.
const READ_BYTES: usize = 256 << 10;
const READ_BYTES_CAREFUL: usize = 1;
/// Hashes in the two bytes behind a stored key's first one.
const HASHES: u32 = 1 << 16;

/// Some rows of a scan.
#[derive(Debug, Default)]
pub struct ScannedPage {
    /// Stored keys and records, in key order.
    pub rows: Vec<(Bytes, Bytes)>,
    /// Bytes of all rows read, the snapshot's own included.
    pub bytes: u64,
    /// Own rows (meta, due, listing) that are not what is written there, in words.
    pub bad_own_rows: Vec<String>,
    /// What could not be read after these rows.
    pub unreadable: Option<Unreadable>,
    /// Whether there is more to read.
    pub more: bool,
}

/// A stretch of a state that the store gives no intact bytes of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The last key before it that was read; `None` at the beginning.
    pub after: Option<Bytes>,
    /// What is wrong.
    pub what: String,
}

/// See the module.
pub struct PartitionScan {
    shared: Arc<Shared>,
    partition: PartitionId,
    checkpoint: Checkpoint,
    db: Option<Arc<DbReader>>,
    rows: Option<DbIterator>,
    /// Where the next row is looked for.
    from: Bound<Bytes>,
    last: Option<Bytes>,
    /// Damage was met: block by block until a page was read without.
    careful: bool,
    /// Hashes to pass over at the next damage; grows while damage follows damage.
    stride: u32,
    total_bytes: u64,
}

impl PartitionScan {
    pub(crate) fn new(shared: Arc<Shared>, partition: PartitionId, checkpoint: Checkpoint) -> Self {
        Self {
            shared,
            partition,
            checkpoint,
            db: None,
            rows: None,
            from: Bound::Unbounded,
            last: None,
            careful: false,
            stride: 1,
            total_bytes: 0,
        }
    }

    /// Goes on in another checkpoint: the one at hand was collected.
    pub fn move_to(&mut self, checkpoint: Checkpoint) {
        self.checkpoint = checkpoint;
        self.let_go();
    }

    /// Bytes of the tables, about; 0 before the first page.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Rows until `bytes_max` or `rows_max` is reached, the end, or damage.
    ///
    /// # Errors
    /// [`SnapshotError::Gone`] when the files were collected ([`Self::move_to`]); others where the
    /// store does not answer. Ask again: no row is lost by it.
    pub async fn page(
        &mut self,
        rows_max: usize,
        bytes_max: u64,
    ) -> Result<ScannedPage, SnapshotError> {
        let mut page = ScannedPage { more: true, ..ScannedPage::default() };
        let read = self.fill(&mut page, rows_max, bytes_max);
        let outcome = bounded(STORE_DEADLINE, read).await;
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut self.careful) {
                    self.rows = None;
                }
                Ok(page)
            }
            // The iterator is of no use after an error.
            Err(SnapshotError::Corrupt(_)) if !self.careful => {
                self.rows = None;
                self.careful = true;
                Ok(page)
            }
            Err(SnapshotError::Corrupt(what)) => {
                self.rows = None;
                page.unreadable = Some(Unreadable { after: self.last.clone(), what });
                page.more = self.pass_over();
                Ok(page)
            }
            // What was read stays read: the error comes again with the next page.
            Err(_) if !page.rows.is_empty() => {
                self.let_go();
                Ok(page)
            }
            Err(error) => {
                self.let_go();
                Err(error)
            }
        }
    }

    async fn fill(
        &mut self,
        page: &mut ScannedPage,
        rows_max: usize,
        bytes_max: u64,
    ) -> Result<(), SnapshotError> {
        while page.rows.len() < rows_max && page.bytes < bytes_max {
            let row = match &mut self.rows {
                Some(rows) => rows.next().await?,
                None => {
                    self.rows = Some(self.begin().await?);
                    continue;
                }
            };
            let Some(row) = row else {
                page.more = false;
                return Ok(());
            };
            page.bytes += (row.key.len() + row.value.len()) as u64;
            // A slice would keep its block in memory.
            let key = Bytes::copy_from_slice(&row.key);
            self.from = Bound::Excluded(key.clone());
            self.last = Some(key.clone());
            self.stride = 1;
            if key.first() == Some(&RECORDS) {
                page.rows.push((key, row.value));
            } else if let Err(what) = check_own(&key, row.value) {
                page.bad_own_rows.push(what);
            }
        }
        Ok(())
    }

    async fn begin(&mut self) -> Result<DbIterator, SnapshotError> {
        let db = match &self.db {
            Some(db) => db.clone(),
            None => {
                let (partition, checkpoint) = (self.partition, self.checkpoint);
                let opened =
                    self.shared.open_reader(partition, checkpoint, Through::Nothing).await?;
                let tables = opened.manifest();
                self.total_bytes = tables.all_sst_views().map(|view| view.estimate_size()).sum();
                self.db.insert(Arc::new(opened)).clone()
            }
        };
        let options = ScanOptions {
            read_ahead_bytes: if self.careful { READ_BYTES_CAREFUL } else { READ_BYTES },
            cache_blocks: false,
            ..ScanOptions::default()
        };
        let range: (Bound<Bytes>, Bound<Bytes>) = (self.from.clone(), Bound::Unbounded);
        Ok(db.scan_with_options(range, &options).await?)
    }

    /// Moves behind damage; `false` when nothing is left to read.
    fn pass_over(&mut self) -> bool {
        let (from, more) = behind(&self.from, self.first_hash(), self.stride);
        self.from = Bound::Included(from);
        self.stride = self.stride.saturating_mul(2);
        more
    }

    /// The partition's first hash.
    fn first_hash(&self) -> u32 {
        let log2 = self.shared.options.partitions_log2;
        u32::from(self.partition.0) << (u16::BITS - log2.min(u16::BITS))
    }

    fn let_go(&mut self) {
        self.rows = None;
        if let Some(db) = self.db.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            self.shared.tasks.spawn(async move { close(&db).await });
        }
    }
}

impl Drop for PartitionScan {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Where to go on `stride` hashes behind `from`, and whether anything can lie there.
///
/// Records are stored under `0 ++ hash ++ …`; behind the last hash come the snapshot's own rows,
/// which are one stretch, and then the listing rows, which are passed over by their first letters.
fn behind(from: &Bound<Bytes>, first_hash: u32, stride: u32) -> (Bytes, bool) {
    let own_rows = Bytes::from_static(&[RECORDS + 1]);
    let hash = match from {
        Bound::Unbounded => first_hash,
        Bound::Included(key) | Bound::Excluded(key) => match key.as_ref() {
            [RECORDS, high, low, ..] => u32::from(u16::from_be_bytes([*high, *low])),
            [LISTING, named @ ..] => {
                // Namespace and two bytes of the key, as far as there are so many.
                let mut first = [0; 4];
                first[1..].iter_mut().zip(named).for_each(|(to, from)| *to = *from);
                let next = u32::from_be_bytes(first).saturating_add(stride).to_be_bytes();
                let key = Bytes::from([&[LISTING], &next[1..]].concat());
                return (key, next[0] == 0);
            }
            _ => return (Bytes::from_static(&[LISTING]), true),
        },
    };
    let next = hash.saturating_add(stride);
    if HASHES <= next {
        return (own_rows, true);
    }
    let mut key = BytesMut::with_capacity(3);
    key.put_u8(RECORDS);
    key.put_u16(next as u16);
    (key.freeze(), true)
}

/// Whether an own row is what is written there.
fn check_own(key: &Bytes, value: Bytes) -> Result<(), String> {
    if key.as_ref() == META_KEY {
        return Meta::decode(value).map(drop);
    }
    if key.first() == Some(&LISTING) {
        return match (listed_key(key), decode_stat(&value)) {
            (Some(_), Some(_)) => Ok(()),
            _ => Err("a listing row is not what is written there".to_owned()),
        };
    }
    match DueRow::decode(key.clone()) {
        Some(_) if value.as_ref() == DUE_VALUE => Ok(()),
        Some(_) => Err("a due row has another value than its format".to_owned()),
        None => Err("a row of an unknown kind".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_passed_over_by_hashes_and_then_own_rows_are_left() {
        let key = |bytes: &'static [u8]| Bytes::from_static(bytes);
        let from = Bound::Excluded(key(&[0, 1, 255, 0, 7]));
        assert_eq!(behind(&from, 0, 1), (key(&[0, 2, 0]), true));
        assert_eq!(behind(&from, 0, 256), (key(&[0, 2, 255]), true));
        assert_eq!(behind(&Bound::Unbounded, 0x4000, 1), (key(&[0, 0x40, 1]), true));
        let last = Bound::Included(key(&[0, 255, 254]));
        assert_eq!(behind(&last, 0, 2), (key(&[1]), true));
        assert_eq!(behind(&Bound::Included(key(&[1])), 0, 2), (key(&[2]), true));
    }

    #[test]
    fn damage_among_listing_rows_is_passed_over_by_their_first_letters() {
        let after = |bytes: &'static [u8], stride| {
            behind(&Bound::Excluded(Bytes::from_static(bytes)), 0, stride)
        };
        assert_eq!(after(&[2], 1), (Bytes::from_static(&[2, 0, 0, 1]), true));
        assert_eq!(after(&[2, 0, b'a'], 2), (Bytes::from_static(&[2, 0, b'a', 2]), true));
        assert_eq!(after(&[2, 0, b'a', 255, 9], 1), (Bytes::from_static(&[2, 0, b'b', 0]), true));
        assert_eq!(after(&[2, 0, 255, 255], 1), (Bytes::from_static(&[2, 1, 0, 0]), true));
        assert!(!after(&[2, 255, 255, 255], 1).1);
    }

    #[test]
    fn own_rows_are_checked_by_their_formats() {
        let meta = Bytes::from_static(META_KEY);
        assert!(check_own(&meta, Meta::default().encode()).is_ok());
        assert!(check_own(&meta, Bytes::from_static(b"x")).is_err());
        let due = DueRow {
            at_micros: 1,
            key: Bytes::from_static(&[0, 0, 0, 0, 1]),
            version: tako_types::Version::ZERO,
        };
        assert!(check_own(&due.encode(), Bytes::from_static(DUE_VALUE)).is_ok());
        assert!(check_own(&due.encode(), Bytes::from_static(b"?")).is_err());
        assert!(check_own(&Bytes::from_static(&[1, b'z']), Bytes::new()).is_err());
    }
}
