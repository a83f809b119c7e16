//! Reads one state of a partition's snapshot.
//!
//! Invariant: a reader never moves: it shows the step of its checkpoint until it is dropped, and
//! sends nothing to the store but the blocks that a read needs and the cache lacks.

use std::{
    ops::{Bound, RangeBounds},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use slatedb::{
    DbIterator, DbReader,
    config::{ReadOptions, ScanOptions},
};
use tako_types::{PartitionId, RecordStat, limits::STORE_DEADLINE};

use crate::{
    Checkpoint, DueRow, Meta, SnapshotError,
    rows::{LISTING, ListRange, META_KEY, RECORDS, client_key, decode_stat},
    snapshots::{Shared, Through, bounded},
};

/// Bytes of records after which a page of a scan ends.
const PAGE_BYTES_MAX: usize = 8 << 20;
/// Read-ahead of a scan: fewer, larger GETs than one per block.
const SCAN_READ_BYTES: usize = 1 << 20;
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Some rows of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanPage {
    /// Stored keys and records, in key order.
    pub rows: Vec<(Bytes, Bytes)>,
    /// Whether the range may hold more after the last row.
    pub more: bool,
}

/// Some of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPage {
    /// Client keys in their order, with what their records are; tombstones and expired ones as well.
    pub rows: Vec<(Bytes, RecordStat)>,
    /// Whether the range may hold more after the last row.
    pub more: bool,
}

/// A partition's snapshot at one checkpoint.
pub struct PartitionReader {
    shared: Arc<Shared>,
    db: Option<Arc<DbReader>>,
    meta: Meta,
    checkpoint: Checkpoint,
}

impl PartitionReader {
    pub(crate) async fn open(
        shared: &Arc<Shared>,
        partition: PartitionId,
        checkpoint: Checkpoint,
    ) -> Result<Self, SnapshotError> {
        let db = shared.open_reader(partition, checkpoint, Through::Cache).await?;
        let manifest = db.manifest();
        let mut reader = Self {
            shared: shared.clone(),
            db: Some(Arc::new(db)),
            meta: Meta::default(),
            checkpoint: Checkpoint { manifest: manifest.id(), ..checkpoint },
        };
        if let Some(row) = reader.get(&Bytes::from_static(META_KEY)).await? {
            reader.meta = Meta::decode(row).map_err(SnapshotError::Corrupt)?;
        }
        Ok(reader)
    }

    /// Step, coverage and highest version of this state.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Which state this is.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// The merged record under a stored key, expired or not, tombstone or not.
    ///
    /// Limits/cost: the bytes may share memory with a whole block; copy what is kept for long.
    ///
    /// # Errors
    /// [`SnapshotError::Gone`] when the files were collected.
    pub async fn get(&self, key: &Bytes) -> Result<Option<Bytes>, SnapshotError> {
        let db = self.db()?;
        let read = async { Ok(db.get_with_options(key, &ReadOptions::default()).await?) };
        bounded(STORE_DEADLINE, read).await
    }

    /// Records of a key range in order: at most `limit`, and at most 8 MiB (but one at least).
    /// Go on with a range that starts after the last key while [`ScanPage::more`].
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn scan(
        &self,
        range: impl RangeBounds<Bytes>,
        limit: usize,
    ) -> Result<ScanPage, SnapshotError> {
        let bounds = records_within(&range);
        let options = ScanOptions {
            read_ahead_bytes: SCAN_READ_BYTES,
            cache_blocks: false,
            ..ScanOptions::default()
        };
        let db = self.db()?;
        bounded(STORE_DEADLINE, async {
            match bounds {
                Some(bounds) => page(db.scan_with_options(bounds, &options).await?, limit).await,
                None => Ok(ScanPage::default()),
            }
        })
        .await
    }

    /// What there is in a range of client keys, in their order: at most `limit`, and at most 8 MiB.
    ///
    /// Limits/cost: reads the listing rows alone, through the block cache; keys are copied.
    ///
    /// # Errors
    /// As [`Self::get`]; `Corrupt` for a row that is not what is written there.
    pub async fn list(&self, range: &ListRange, limit: usize) -> Result<ListPage, SnapshotError> {
        let Some(rows) = range.rows() else { return Ok(ListPage::default()) };
        let (rows, more) = self.listing_rows(rows, limit).await?;
        let rows = rows.into_iter().map(|(row, stat)| (client_key(&row), stat)).collect();
        Ok(ListPage { rows, more })
    }

    /// Listing rows of all namespaces behind a row, or from the first: their keys and what they tell.
    pub(crate) async fn listings(
        &self,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<(Vec<(Bytes, RecordStat)>, bool), SnapshotError> {
        let first = || Bound::Included(Bytes::from_static(&[LISTING]));
        let end = Bound::Excluded(Bytes::from_static(&[LISTING + 1]));
        self.listing_rows((after.map_or_else(first, Bound::Excluded), end), limit).await
    }

    async fn listing_rows(
        &self,
        rows: (Bound<Bytes>, Bound<Bytes>),
        limit: usize,
    ) -> Result<(Vec<(Bytes, RecordStat)>, bool), SnapshotError> {
        let db = self.db()?;
        let options = ScanOptions { cache_blocks: true, ..ScanOptions::default() };
        bounded(STORE_DEADLINE, async {
            let mut rows = db.scan_with_options(rows, &options).await?;
            let mut page = Vec::new();
            let mut bytes = 0;
            while page.len() < limit && bytes < PAGE_BYTES_MAX {
                let Some(row) = rows.next().await? else { return Ok((page, false)) };
                let stat = decode_stat(&row.value)
                    .ok_or_else(|| SnapshotError::Corrupt("a listing row's value".to_owned()))?;
                bytes += row.key.len() + row.value.len();
                page.push((row.key, stat));
            }
            Ok((page, true))
        })
        .await
    }

    /// Rows due at or before a time (microseconds since the Unix epoch), earliest first.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn due(&self, until_micros: u64, limit: usize) -> Result<Vec<DueRow>, SnapshotError> {
        let (start, end) = DueRow::range(until_micros);
        let db = self.db()?;
        bounded(STORE_DEADLINE, async { due_rows(db.scan(start..end).await?, limit).await }).await
    }

    /// Due rows of any time after a row, in order; from the first one without.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn due_after(
        &self,
        row: Option<&DueRow>,
        limit: usize,
    ) -> Result<Vec<DueRow>, SnapshotError> {
        let (start, end) = DueRow::range(u64::MAX);
        let start = row.map_or(Bound::Included(start), |row| Bound::Excluded(row.encode()));
        let range = (start, Bound::Excluded(end));
        let db = self.db()?;
        bounded(STORE_DEADLINE, async { due_rows(db.scan(range).await?, limit).await }).await
    }

    /// Closes the handle. Dropping it does the same in the background.
    pub async fn close(mut self) {
        if let Some(db) = self.db.take() {
            close(&db).await;
        }
    }

    fn db(&self) -> Result<&DbReader, SnapshotError> {
        self.db.as_deref().ok_or(SnapshotError::Closed)
    }
}

impl Drop for PartitionReader {
    fn drop(&mut self) {
        if let Some(db) = self.db.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            self.shared.tasks.spawn(async move { close(&db).await });
        }
    }
}

pub(crate) async fn close(db: &DbReader) {
    match tokio::time::timeout(CLOSE_DEADLINE, db.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "snapshot reader did not close cleanly"),
        Err(_) => tracing::warn!("snapshot reader did not close within {CLOSE_DEADLINE:?}"),
    }
}

/// The part of a range that holds records; `None` when that is empty.
pub(crate) fn records_within(
    range: &impl RangeBounds<Bytes>,
) -> Option<(Bound<Bytes>, Bound<Bytes>)> {
    let after_records = Bytes::from_static(&[RECORDS + 1]);
    let start = range.start_bound().cloned();
    let end = match range.end_bound().cloned() {
        Bound::Included(end) if end < after_records => Bound::Included(end),
        Bound::Excluded(end) if end < after_records => Bound::Excluded(end),
        _ => Bound::Excluded(after_records),
    };
    // The engine panics on ranges that end before they start.
    let empty = match (&start, &end) {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (
            Bound::Included(start) | Bound::Excluded(start),
            Bound::Included(end) | Bound::Excluded(end),
        ) => start >= end,
    };
    (!empty).then_some((start, end))
}

/// Reads a page off an iterator.
pub(crate) async fn page(mut rows: DbIterator, limit: usize) -> Result<ScanPage, SnapshotError> {
    let mut page = ScanPage::default();
    let mut bytes = 0;
    while page.rows.len() < limit && bytes < PAGE_BYTES_MAX {
        let Some(row) = rows.next().await? else { return Ok(page) };
        bytes += row.key.len() + row.value.len();
        page.rows.push((row.key, row.value));
    }
    page.more = true;
    Ok(page)
}

/// Reads due rows off an iterator.
pub(crate) async fn due_rows(
    mut rows: DbIterator,
    limit: usize,
) -> Result<Vec<DueRow>, SnapshotError> {
    let mut due = Vec::new();
    while due.len() < limit {
        let Some(row) = rows.next().await? else { break };
        let decoded = DueRow::decode(row.key);
        due.push(decoded.ok_or_else(|| SnapshotError::Corrupt("a due row's key".to_owned()))?);
    }
    Ok(due)
}
