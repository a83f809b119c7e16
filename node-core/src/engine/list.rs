//! What this node has of a partition, in the order of clients' keys: index over snapshot.
//!
//! Order: the index is looked through first, then the view is taken. What a step covers meanwhile has
//! left the index, and is in the view; the other way round it would be in neither. The index is read by
//! pages in LSN order up to its end, as no lock may be held for long: a key that is written again
//! meanwhile only moves towards that end. Memory is bounded by the page that is asked for.

use std::collections::BTreeMap;

use bytes::Bytes;
use tako_flatbuf::{Listing, ListingQuery};
use tako_snapshot::{ListPage, ListRange, SnapshotError};
use tako_types::{
    Lsn, PartitionId, RecordStat, StoredKey,
    limits::{FRAME_HEAD_BYTES_MAX, LIST_ENTRIES_MAX},
};

use super::{Engine, EngineError};

/// Entries of the index looked at under one lock.
const INDEX_PAGE: usize = 4_096;
/// Namespace and key begin here in a stored key.
const NAMESPACE_AT: usize = 3;

/// The least keys of a range that were offered, at most so many.
struct Least {
    keys: BTreeMap<Bytes, RecordStat>,
    limit: usize,
    /// Some were left out, all greater than those that are there.
    cut: bool,
}

impl Least {
    fn offer(&mut self, key: &[u8], stat: RecordStat) {
        if self.limit <= self.keys.len() {
            let beyond = self.keys.last_key_value().is_none_or(|(last, _)| &last[..] < key);
            if beyond {
                self.cut = true;
                return;
            }
        }
        match self.keys.get_mut(key) {
            Some(there) => *there = stat.max(*there),
            None => {
                self.keys.insert(Bytes::copy_from_slice(key), stat);
            }
        }
        if self.limit < self.keys.len() {
            self.keys.pop_last();
            self.cut = true;
        }
    }

    /// Up to where nothing is lacking; `None`: everywhere.
    fn upto(&self) -> Option<&Bytes> {
        self.keys.last_key_value().map(|(key, _)| key).filter(|_| self.cut)
    }
}

impl Engine {
    /// Keys of a partition with what their newest records here are, tombstones left out.
    ///
    /// Limits/cost: at most `LIST_ENTRIES_MAX` keys; the whole index is looked through.
    ///
    /// # Errors
    /// [`EngineError`] when the view is not open or cannot be read.
    pub async fn list(&self, p: PartitionId, query: &ListingQuery) -> Result<Listing, EngineError> {
        let voting = self.is_voting(p);
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX).clamp(1, LIST_ENTRIES_MAX);
        let range = ListRange {
            namespace: query.namespace,
            prefix: query.prefix.clone(),
            after: query.after.clone(),
        };
        let uncovered = self.least_uncovered(p, &range, limit);
        let view = self.view(p).ok_or(EngineError::Opening(p))?;
        let (view, stored) = match &view.reader {
            None => (view, ListPage::default()),
            Some(reader) => match reader.list(&range, limit).await {
                Ok(page) => (view, page),
                Err(SnapshotError::Gone) => {
                    let view = self.reopen(p, &view).await?;
                    let page = match &view.reader {
                        Some(reader) => reader.list(&range, limit).await,
                        None => Ok(ListPage::default()),
                    };
                    let page =
                        page.map_err(|source| EngineError::Snapshot { partition: p, source })?;
                    (view, page)
                }
                Err(source) => return Err(EngineError::Snapshot { partition: p, source }),
            },
        };
        let (entries, upto) = merged(stored, uncovered, limit);
        Ok(Listing { entries, upto, step: view.meta.step, voting })
    }

    fn least_uncovered(&self, p: PartitionId, range: &ListRange, limit: usize) -> Least {
        let mut least = Least { keys: BTreeMap::new(), limit, cut: false };
        let mut after = Lsn(0);
        loop {
            let inner = self.partition(p).lock();
            let mut looked_at = 0;
            for (key, held) in inner.index.tail(after).take(INDEX_PAGE) {
                looked_at += 1;
                after = held.lsn;
                if let Some(name) = name_in(key, range) {
                    least.offer(name, held.stat);
                }
            }
            if looked_at < INDEX_PAGE {
                return least;
            }
        }
    }
}

/// The client's key, where it is in the range.
fn name_in<'a>(key: &'a StoredKey, range: &ListRange) -> Option<&'a [u8]> {
    let (namespace, name) = key.as_bytes().get(NAMESPACE_AT..)?.split_first()?;
    (*namespace == range.namespace && range.contains(name)).then_some(name)
}

/// Both together: keys with a value, and up to where all of them are there.
fn merged(
    stored: ListPage,
    uncovered: Least,
    limit: usize,
) -> (Vec<(Bytes, RecordStat)>, Option<Bytes>) {
    let stored_upto = stored.rows.last().map(|(key, _)| key.clone()).filter(|_| stored.more);
    let mut upto = match (stored_upto, uncovered.upto().cloned()) {
        (Some(stored), Some(uncovered)) => Some(stored.min(uncovered)),
        (stored, uncovered) => stored.or(uncovered),
    };
    let mut all = uncovered.keys;
    for (key, stat) in stored.rows {
        let there = all.entry(key).or_default();
        *there = stat.max(*there);
    }
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for (key, stat) in all {
        if upto.as_ref().is_some_and(|upto| *upto < key) {
            break;
        }
        if entries.len() == limit || FRAME_HEAD_BYTES_MAX / 2 < bytes {
            // What comes now was not given: the last one that was is where to go on.
            upto = entries.last().map(|(key, _): &(Bytes, _)| key.clone());
            break;
        }
        if !stat.is_tombstone {
            bytes += key.len();
            entries.push((key, stat));
        }
    }
    (entries, upto)
}

#[cfg(test)]
mod tests {
    use tako_types::Version;

    use super::*;

    fn stat(micros: u64, is_tombstone: bool) -> RecordStat {
        let version = Version { micros, origin: 1 };
        RecordStat { is_tombstone, ..RecordStat::value(version, 1) }
    }

    fn page(names: &[(&'static str, u64)], more: bool) -> ListPage {
        let row = |(name, micros): &(&'static str, u64)| {
            (Bytes::from_static(name.as_bytes()), stat(*micros, false))
        };
        ListPage { rows: names.iter().map(row).collect(), more }
    }

    fn check(
        stored: ListPage,
        uncovered: &[(&str, u64, bool)],
        limit: usize,
        names: &[&str],
        upto: Option<&str>,
    ) {
        let mut least = Least { keys: BTreeMap::new(), limit, cut: false };
        for (name, micros, gone) in uncovered {
            least.offer(name.as_bytes(), stat(*micros, *gone));
        }
        let (entries, at) = merged(stored, least, limit);
        let found: Vec<_> = entries.iter().map(|(key, _)| &key[..]).collect();
        assert_eq!(found, names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
        assert_eq!(at.as_deref(), upto.map(str::as_bytes));
    }

    #[test]
    fn a_page_ends_where_either_side_may_hold_more() {
        check(page(&[("a", 1), ("c", 1)], false), &[("b", 2, false)], 9, &["a", "b", "c"], None);
        // The snapshot has more behind c, so d may not be the next one.
        let rows = [("a", 1), ("c", 1)];
        check(page(&rows, true), &[("d", 2, false)], 2, &["a", "c"], Some("c"));
        // The index has more behind b.
        let uncovered = [("x", 2, false), ("b", 2, false), ("a", 2, false)];
        check(page(&[("c", 1)], false), &uncovered, 2, &["a", "b"], Some("b"));
        check(page(&[("a", 1), ("b", 1)], false), &[("aa", 2, false)], 2, &["a", "aa"], Some("aa"));
    }

    #[test]
    fn the_newer_record_tells_whether_there_is_a_value() {
        let rows = [("a", 5), ("b", 5), ("c", 5)];
        let uncovered = [("a", 6, true), ("b", 4, true), ("d", 1, true)];
        check(page(&rows, false), &uncovered, 9, &["b", "c"], None);
        // Nothing but tombstones: still further on.
        let gone = [("a", 6, true), ("b", 6, true), ("c", 6, true)];
        check(page(&[], false), &gone, 2, &[], Some("b"));
    }
}
