//! The search for orphans in the store, by hand, and what is told of it.
//!
//! Invariant: without the order to delete, nothing is deleted. What an orphan is and which may go:
//! `tako-snapshot`, `orphans.rs`.

use tako_flatbuf::OrphanReport;

use super::{Healer, healer::shortened};

/// Orphans that are told one by one.
const LISTED_MAX: usize = 256;

impl Healer {
    /// Looks through the store, and deletes what may go where `delete` says so.
    pub(super) async fn look_for_orphans(&self, delete: bool) {
        let snapshots = self.engine.snapshots();
        let mut report = OrphanReport::default();
        match snapshots.orphans().await {
            Ok(orphans) => {
                report.found = orphans.len() as u64;
                for orphan in orphans {
                    let mut said = orphan.to_string();
                    if delete {
                        match snapshots.delete_orphan(&orphan).await {
                            Ok(true) => {
                                report.deleted += 1;
                                said.insert_str(0, "deleted: ");
                            }
                            Ok(false) => said.insert_str(0, "kept: "),
                            Err(error) => {
                                tracing::warn!("{orphan} is not deleted: {error}");
                                said.insert_str(0, "not deleted: ");
                            }
                        }
                    }
                    tracing::warn!("orphan: {said}");
                    if report.listed.len() < LISTED_MAX {
                        report.listed.push(shortened(said));
                    }
                }
            }
            Err(error) => report.failed = Some(shortened(error.to_string())),
        }
        report.ended_micros = self.engine.clock().now_micros();
        self.state.lock().orphans = report;
    }
}
