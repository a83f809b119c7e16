//! What a step writes, as a pure function of what was gathered.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tako_flatbuf::Record;
use tako_snapshot::{Coverage, DueRow, Meta, StepInput, StepRow};
use tako_types::{Incarnation, Kind, Lsn, NodeId, StoredKey, Version};

use super::gather::Gathered;

/// Due rows looked at in one step.
pub(super) const DUE_ROWS_MAX: usize = 4_096;

/// Due rows, sorted by what becomes of them.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// The record is still the tombstone (or expired value) that the row was written for.
    pub(super) purge: Vec<DueRow>,
    /// The key moved on; the row means nothing any more.
    pub(super) dropped: Vec<DueRow>,
}

/// Decides about one due row; a key that this very step writes is left for later.
pub(super) fn sort_due(due: &mut Due, row: DueRow, stored: Option<Bytes>, gathered: &Gathered) {
    let record = stored.map(Record::decode);
    let record = match record {
        None => return due.dropped.push(row),
        Some(Ok(record)) => record,
        Some(Err(_)) => return,
    };
    if gathered.newest.contains_key(&record.key()) {
        return;
    }
    let gone = record.kind() == Kind::Tombstone || record.head().expires_at_micros > 0;
    if gone && record.version() == row.version {
        due.purge.push(row);
    } else {
        due.dropped.push(row);
    }
}

/// When a record may be purged; `None` for one that lasts.
fn due_at(record: &Record, grace: Duration, now_micros: u64) -> Option<u64> {
    let grace = u64::try_from(grace.as_micros()).unwrap_or(u64::MAX);
    let from = match (record.kind(), record.head().expires_at_micros) {
        (Kind::Tombstone, _) => now_micros.max(record.version().micros),
        (Kind::Value, 0) => return None,
        (Kind::Value, expires) => now_micros.max(expires),
    };
    Some(from.saturating_add(grace))
}

/// The step's batch. `records` may lack some of what was gathered: then the coverage of whoever
/// holds them ends before the first that is lacking.
pub(super) fn step_input(
    base: &Meta,
    gathered: &Gathered,
    records: BTreeMap<StoredKey, Record>,
    due: Due,
    grace: Duration,
    now_micros: u64,
) -> StepInput {
    let mut coverage = base.coverage.clone();
    for (node, pulled) in &gathered.pulled {
        let left_out = pulled
            .entries
            .iter()
            .filter(|(key, _)| !records.contains_key(*key))
            .map(|(_, (lsn, _, _))| *lsn)
            .min();
        let upto = left_out.map_or(pulled.upto, |lsn| Lsn(lsn.0 - 1).min(pulled.upto));
        let held = coverage.entry(node.clone()).or_default();
        if pulled.incarnation > held.0 {
            *held = (pulled.incarnation, upto);
        } else if pulled.incarnation == held.0 {
            held.1 = held.1.max(upto);
        }
    }
    let highest = records.values().map(Record::version).fold(base.highest, Version::max);
    let mut due_rows = Vec::new();
    let rows = records
        .into_values()
        .map(|record| {
            let key = record.key().as_bytes().clone();
            if let Some(at_micros) = due_at(&record, grace, now_micros) {
                due_rows.push(DueRow { at_micros, key: key.clone(), version: record.version() });
            }
            StepRow {
                key,
                stat: record.stat(),
                newest: record.version() > base.highest,
                record: record.bytes().clone(),
            }
        })
        .collect();
    StepInput {
        rows,
        due: due_rows,
        purge: due.purge,
        drop_due: due.dropped,
        coverage,
        highest,
        ..StepInput::default()
    }
}

/// Closes the folders of nodes that are gone: should one come back, its records may be older than
/// what is purged now, so it has to start anew. Whoever is there was asked.
///
/// `known` are the newest folders heard of; one that no step pulled from is closed as well.
pub(super) fn close_gone(
    coverage: &mut Coverage,
    known: Vec<(NodeId, Incarnation)>,
    is_there: impl Fn(&NodeId) -> bool,
) {
    for (node, folder) in known {
        if !is_there(&node) {
            let at = coverage.entry(node).or_default();
            at.0 = at.0.max(folder);
        }
    }
    for (_, at) in coverage.iter_mut().filter(|(node, _)| !is_there(node)) {
        // Folders are named by microseconds, so a new one is above this however often it is done.
        *at = (Incarnation(at.0.0.saturating_add(1)), Lsn(0));
    }
}

#[cfg(test)]
mod tests;
