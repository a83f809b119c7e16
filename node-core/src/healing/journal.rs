//! The node's own journal files: read again, and what is damaged written anew while it can be.
//!
//! Invariant: damage found at run time never becomes lost state silently. What is still needed of a
//! damaged file is appended again from memory, from the file as far as it can be read, or from
//! other replicas; then the file is not needed any more and goes with the next steps. Where an entry
//! is nowhere, the folder is marked to be refilled by the next start, as after a failed sync.

use std::time::Duration;

use tako_flatbuf::{Record, Request, Response};
use tako_journal::JournalError;
use tako_types::{PartitionId, StoredKey, limits::CALL_DEADLINE};
use tokio::time::{Instant, sleep};

use super::{Healer, pace::Pace};

/// Time of a forced step, as when a node drains.
const STEP_DEADLINE: Duration = Duration::from_secs(20);

impl Healer {
    /// Reads every complete file of the journal.
    pub(super) async fn scrub_journal(&self, by_hand: bool) {
        let journal = self.engine.journal().clone();
        let (mut file_count, mut bad_count, mut lost_count) = (0, 0, 0);
        for file in journal.complete_files() {
            let began = Instant::now();
            let reading = journal.clone();
            let check = move || reading.check_file(file);
            let (bytes, damage) = match journal.blocking().run(check).await {
                Ok(None) => continue,
                Ok(Some((bytes, damage))) => (bytes, damage.map(|it| it.to_string())),
                Err(error @ JournalError::Io { .. }) => (0, Some(error.to_string())),
                Err(error) => {
                    tracing::debug!(file, "journal file not checked: {error}");
                    continue;
                }
            };
            file_count += 1;
            if let Some(damage) = damage {
                bad_count += 1;
                lost_count += self.on_bad_file(file, &damage).await;
            }
            let pace = if by_hand || self.has_orders() {
                Pace::by_hand()
            } else {
                Pace::background(0, Duration::ZERO)
            };
            sleep(pace.pause(bytes, began.elapsed())).await;
        }
        let mut state = self.state.lock();
        state.journal.ended_micros = self.engine.clock().now_micros();
        state.journal.files = file_count;
        state.journal.bad = bad_count;
        state.journal.lost = lost_count;
    }

    /// Writes anew what is needed of a bad file; gives how many entries are nowhere.
    async fn on_bad_file(&self, file: u64, damage: &str) -> u64 {
        let lacking = match self.engine.rewrite_damaged_file(file).await {
            Ok(lacking) => lacking,
            Err(error) => {
                self.find(format!("{damage}; what it holds cannot be written anew: {error}"));
                return 0;
            }
        };
        let mut lost = 0;
        for (p, key) in lacking {
            if !self.restore(p, &key).await && self.engine.needs_of_file(p, &key, file) {
                lost += 1;
            }
        }
        if lost == 0 {
            self.find(format!("{damage}; what was needed of it is written anew"));
        } else {
            self.distrust().await;
            self.find(format!(
                "{damage}; {lost} entries of it are nowhere else: restart this node, it will refill"
            ));
        }
        self.cover_everything().await;
        lost
    }

    /// Gets an entry of this node's from whoever else has it.
    async fn restore(&self, p: PartitionId, key: &StoredKey) -> bool {
        let current = self.links().config.current();
        let me = self.engine.node();
        for node in current.placement(p).holders.iter().filter(|node| *node != me) {
            let request = Request::Fetch { partition: p, keys: vec![key.clone()] };
            let found: Option<Record> = match self.links().call(node, CALL_DEADLINE, request).await
            {
                Ok(Response::Fetch { records, .. }) => records.into_iter().next(),
                _ => None,
            };
            let Some(record) = found else { continue };
            match self.engine.restore_entry(p, &record).await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => tracing::warn!(partition = p.0, "not written anew: {error}"),
            }
        }
        false
    }

    /// Has the next start refill the folder.
    async fn distrust(&self) {
        let marked = self
            .identity
            .change(|identity| {
                identity.recovered = false;
                identity.refilled.clear();
            })
            .await;
        if let Err(error) = marked {
            tracing::error!("cannot mark the folder as one to be refilled: {error}");
        }
    }

    /// Forces a step of whatever is uncovered, so that old files go; best effort.
    async fn cover_everything(&self) {
        let current = self.links().config.current();
        for p in self.engine.held(&current) {
            if self.engine.partition_status(p).uncovered == 0 {
                continue;
            }
            let first = self.snapshotter.first_in_line(p);
            let request = Request::ForceStep { partition: p };
            if let Err(error) = self.links().call(&first, STEP_DEADLINE, request).await {
                tracing::warn!(partition = p.0, "no step was forced: {}", error.message);
            }
        }
    }
}
