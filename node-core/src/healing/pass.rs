//! One pass over a partition's snapshot: every row from the store, checked, compared, mended.
//!
//! Invariant: a pass ends with every row read or said to be unreadable, or is not called whole.
//! While the store is away it waits where it is. The rows of a page are compared with the caches
//! of all replicas against the step they were read in.

use std::time::Duration;

use bytes::Bytes;
use tako_flatbuf::{PartitionScrub, Record, Request, Response};
use tako_snapshot::{PartitionScan, ScannedPage, SnapshotError};
use tako_types::{
    PartitionId, StepNumber, StoredKey, Version,
    limits::{CALL_DEADLINE, HEALING_PAGE_BYTES, TAIL_ENTRIES_MAX},
};
use tokio::time::{Instant, sleep};

use super::{Healer, pace::Pace};

/// Wait while the store does not answer, doubled up to the second.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);
/// States that may be collected under one page before the partition's files are called missing.
const GONE_MAX: u32 = 3;

/// What is wrong with a row.
struct BadRow {
    key: Bytes,
    why: String,
    /// The version that it claims, where it says one.
    claimed: Option<Version>,
}

impl Healer {
    /// Reads the whole partition; with a `slot` of time in the background, else as fast as is good.
    pub(super) async fn pass(&self, p: PartitionId, slot: Option<Duration>) {
        let Some(view) = self.engine.view(p) else { return };
        let begun_micros = self.engine.clock().now_micros();
        let report = PartitionScrub {
            partition: p,
            running: true,
            begun_micros,
            ..PartitionScrub::default()
        };
        self.state.lock().partitions.insert(p, report);
        let whole = match &view.reader {
            None => true,
            Some(reader) => {
                let scan = self.engine.snapshots().scan(p, reader.checkpoint());
                let step = view.meta.step;
                drop(view);
                self.read_all(p, scan, step, slot).await
            }
        };
        let ended_micros = self.engine.clock().now_micros();
        self.count(p, |report| {
            report.running = false;
            report.whole = whole;
            report.ended_micros = ended_micros;
        });
        let report = self.state.lock().partitions.get(&p).copied().unwrap_or_default();
        tracing::info!(
            partition = p.0,
            whole,
            records = report.records,
            bytes = report.bytes,
            bad = report.bad,
            healed = report.healed,
            unreadable = report.unreadable,
            stale = report.stale,
            "snapshot scrubbed"
        );
    }

    fn count(&self, p: PartitionId, change: impl FnOnce(&mut PartitionScrub)) {
        if let Some(report) = self.state.lock().partitions.get_mut(&p) {
            change(report);
        }
    }

    /// `false` when it was broken off.
    async fn read_all(
        &self,
        p: PartitionId,
        mut scan: PartitionScan,
        mut step: StepNumber,
        slot: Option<Duration>,
    ) -> bool {
        let mut again_after = AGAIN_AFTER;
        let mut gone = 0;
        loop {
            let began = Instant::now();
            match scan.page(TAIL_ENTRIES_MAX, HEALING_PAGE_BYTES).await {
                Ok(page) => {
                    (gone, again_after) = (0, AGAIN_AFTER);
                    let (more, bytes) = (page.more, page.bytes);
                    let total_bytes = scan.total_bytes();
                    self.count(p, |report| report.total_bytes = total_bytes);
                    self.examine(p, step, page).await;
                    if !more {
                        return true;
                    }
                    let hurry = slot.is_none() || self.has_orders();
                    let pace = match slot {
                        Some(slot) if !hurry => Pace::background(total_bytes, slot),
                        _ => Pace::by_hand(),
                    };
                    sleep(pace.pause(bytes, began.elapsed())).await;
                }
                Err(SnapshotError::Gone) if gone < GONE_MAX => {
                    gone += 1;
                    match self.engine.snapshots().reader_latest(p).await {
                        Ok(Some(newest)) => {
                            step = newest.meta().step;
                            scan.move_to(newest.checkpoint());
                        }
                        Ok(None) | Err(_) => sleep(again_after).await,
                    }
                }
                Err(SnapshotError::Gone) => {
                    self.count(p, |report| report.unreadable += 1);
                    self.find(format!(
                        "partition {p}: files of its newest step are missing in the store; only a \
                         backup has what they held"
                    ));
                    return false;
                }
                Err(error) => {
                    tracing::warn!(partition = p.0, "scrub waits for the store: {error}");
                    sleep(again_after).await;
                    again_after = (again_after * 2).min(AGAIN_AFTER_MAX);
                }
            }
            let current = self.links().config.current();
            let held = current.placement(p).holders.contains(self.engine.node());
            let wanted = slot.is_none() || current.config.active_deployment().background_healing;
            if !held || !wanted {
                return false;
            }
        }
    }

    async fn examine(&self, p: PartitionId, step: StepNumber, page: ScannedPage) {
        let mut held = Vec::with_capacity(page.rows.len());
        let mut bad = Vec::new();
        let row_count = page.rows.len() as u64;
        for (key, bytes) in page.rows {
            match self.check(p, &key, bytes) {
                Ok(row) => held.push(row),
                Err(row) => bad.push(row),
            }
        }
        let bad_count = (bad.len() + page.bad_own_rows.len()) as u64;
        self.count(p, |report| {
            report.records += row_count;
            report.bytes += page.bytes;
            report.bad += bad_count;
            report.unreadable += u64::from(page.unreadable.is_some());
        });
        for what in page.bad_own_rows {
            self.find(format!("partition {p}: {what}"));
        }
        if let Some(unreadable) = page.unreadable {
            let after = unreadable.after.as_deref().map_or_else(
                || "its beginning".to_owned(),
                |key| format!("key {:016x}", xxhash_rust::xxh3::xxh3_64(key)),
            );
            self.find(format!(
                "partition {p}: a block behind {after} cannot be read ({}); only a backup has it",
                unreadable.what
            ));
        }
        for row in bad {
            self.on_bad_row(p, row).await;
        }
        let stale = self.audit_everybody(p, step, held).await;
        if 0 < stale {
            self.count(p, |report| report.stale += stale);
            self.find(format!(
                "partition {p}: {stale} cached records were older than the snapshot"
            ));
        }
    }

    /// Digest and version of a sound row.
    fn check(&self, p: PartitionId, key: &Bytes, bytes: Bytes) -> Result<(u64, Version), BadRow> {
        let bad = |why: String, claimed| BadRow { key: key.clone(), why, claimed };
        match Record::decode(bytes.clone()) {
            Ok(record) if record.key().as_bytes() != key => {
                Err(bad("it is another key's record".to_owned(), None))
            }
            Ok(record) if record.key().partition(self.engine.partitions_log2()) != p => {
                Err(bad("its key is of another partition".to_owned(), None))
            }
            Ok(record) => Ok((record.key().digest(), record.version())),
            Err(error) => {
                let claimed = Record::decode_trusted(bytes).ok().map(|record| record.version());
                Err(bad(error.to_string(), claimed))
            }
        }
    }

    async fn on_bad_row(&self, p: PartitionId, row: BadRow) {
        let digest = xxhash_rust::xxh3::xxh3_64(&row.key);
        let named = format!("partition {p}: the record of key {digest:016x} is bad ({})", row.why);
        let Some(key) = StoredKey::from_bytes(row.key) else {
            return self.find(format!("{named}; it is no key of Tako's"));
        };
        match self.mend(p, &key, row.claimed).await {
            Ok(()) => {
                self.count(p, |report| report.healed += 1);
                self.find(format!("{named}; healed by a replica's intact one"));
            }
            Err(why) => self.find(format!("{named}; not healed: {why}")),
        }
    }

    /// Has every replica compare its cache with what the step was read to hold.
    async fn audit_everybody(
        &self,
        p: PartitionId,
        step: StepNumber,
        held: Vec<(u64, Version)>,
    ) -> u64 {
        if held.is_empty() {
            return 0;
        }
        let me = self.engine.node();
        let mut stale = 0;
        match self.engine.audit(p, step, &held).await {
            Ok(audited) => stale += audited.stale,
            Err(error) => tracing::debug!(partition = p.0, "no audit here: {error}"),
        }
        let current = self.links().config.current();
        for node in current.placement(p).holders.iter().filter(|node| *node != me) {
            if self.links().membership.read_rank(node) != 0 {
                continue;
            }
            let request = Request::Audit { partition: p, step, held: held.clone() };
            match self.links().call(node, CALL_DEADLINE, request).await {
                Ok(Response::Audit(answer)) => stale += answer.stale,
                Ok(_) => tracing::warn!(%node, "an audit was answered by something else"),
                Err(error) => {
                    tracing::debug!(partition = p.0, %node, "no audit: {}", error.message);
                }
            }
        }
        stale
    }
}
