//! Named backups, and restores of a whole cluster from the object store alone.
//!
//! ```text
//! create:  a checkpoint of each partition, without expiry ─► one document (the commit point)
//! verify:  every record of those checkpoints ─► counts and digests, compared with earlier ones
//! restore: mark the new root ─► each partition: copy, or clone ─► count both ─► `cluster`
//! ```
//! Invariants: a backup is there when its document is, and then all of it is; what a document names
//! is collected by nobody (DESIGN section 14.9). A root on which a restore has not ended has no
//! `cluster` object, and no node starts on it. Records come in by two functions ([`RecordFns`]), as
//! this crate does not know them. Not here: taking steps before a backup, schedules, the
//! configuration that a restored cluster goes by (all callers').

mod clone;
mod copy;
mod count;
mod create;
mod document;
mod error;
mod name;
mod ranges;
mod restore;
mod root;
mod time;
mod verify;

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use tako_types::{Clock, PartitionId, RecordStat, limits::PARTITIONS_MAX};

pub use count::Count;
pub use create::{About, Listed};
pub(crate) use create::{DOCUMENT, FOLDER};
pub use document::{Backup, Held, Origin};
pub use error::BackupError;
pub use name::BackupName;
pub(crate) use name::CHECKPOINT;
pub use restore::{Method, RestoreOptions, Restored, restore};
pub use time::{from_utc, utc};
pub use verify::Verified;

use crate::{MergeFn, SnapshotOptions, Snapshots, Store};

/// Block cache of a backup or restore: blocks are read once, filters and indexes a few times.
const CACHE_BYTES: usize = 32 << 20;
/// Partitions worked on at once: their waits for the store overlap.
const AT_ONCE: usize = 4;

/// Looks into the encoded record that lies under a stored key, checksum included: what a listing tells
/// of it, or what is wrong with it.
pub type InspectFn = fn(key: &Bytes, record: &Bytes) -> Result<RecordStat, String>;

/// What this crate has to be told about records.
#[derive(Debug, Clone, Copy)]
pub struct RecordFns {
    /// The merge of two records of one key.
    pub merge: MergeFn,
    /// The check of one.
    pub inspect: InspectFn,
}

/// How far a long work is; shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, as a participle.
    pub doing: &'static str,
    /// Partitions that are done.
    pub done: usize,
    /// Of so many.
    pub of: usize,
}

/// Who is told of progress.
pub type Observer<'a> = &'a (dyn Fn(Progress) + Sync);

/// The backups of one cluster's root.
pub struct Backups {
    snapshots: Arc<Snapshots>,
    inspect: InspectFn,
    clock: Arc<dyn Clock>,
}

impl Backups {
    /// Backups of the `2^partitions_log2` partitions below the root of `store`; sends nothing.
    ///
    /// # Errors
    /// [`BackupError`] for impossible numbers.
    pub async fn open(
        store: Store,
        partitions_log2: u32,
        clock: Arc<dyn Clock>,
        records: RecordFns,
    ) -> Result<Self, BackupError> {
        let options = SnapshotOptions {
            partitions_log2,
            cache_memory_bytes: CACHE_BYTES,
            ..SnapshotOptions::default()
        };
        let snapshots = Snapshots::new(store, options, clock.clone(), records.merge).await?;
        Ok(Self { snapshots, inspect: records.inspect, clock })
    }

    /// Waits for handles that are being closed.
    pub async fn close(&self) {
        self.snapshots.close().await;
    }

    fn store(&self) -> &Store {
        self.snapshots.store()
    }

    /// k, where the cluster has 2^k partitions.
    #[must_use]
    pub fn partitions_log2(&self) -> u32 {
        self.snapshots.shared.options.partitions_log2
    }

    /// The partitions that have a database.
    async fn existing(&self) -> Result<BTreeSet<PartitionId>, BackupError> {
        let log2 = self.partitions_log2();
        let found = databases(self.store()).await?;
        Ok(found
            .into_iter()
            .filter(|(of, _)| *of == log2)
            .map(|(_, partition)| partition)
            .collect())
    }
}

/// k, where the root of `store` holds databases of 2^k partitions; `None` where it holds none.
///
/// # Errors
/// [`BackupError::Invalid`] when there are databases of several numbers.
pub async fn partitions_log2_of(store: &Store) -> Result<Option<u32>, BackupError> {
    let numbers: BTreeSet<u32> = databases(store).await?.into_iter().map(|(k, _)| k).collect();
    match numbers.len() {
        0 | 1 => Ok(numbers.into_iter().next()),
        _ => {
            let shown: Vec<_> = numbers.iter().map(|k| (1u32 << k).to_string()).collect();
            let what = format!("the root holds data of {} partitions", shown.join(" and of "));
            Err(BackupError::Invalid(what))
        }
    }
}

/// The databases below a root, by the names of their folders.
async fn databases(store: &Store) -> Result<Vec<(u32, PartitionId)>, BackupError> {
    let names = store.folders("partitions").await?;
    Ok(names.iter().filter_map(|name| database_of(name)).collect())
}

/// Reads `<k>-<p>`.
fn database_of(name: &str) -> Option<(u32, PartitionId)> {
    let (log2, partition) = name.split_once('-')?;
    let (log2, partition): (u32, u16) = (log2.parse().ok()?, partition.parse().ok()?);
    let there_is = log2 <= PARTITIONS_MAX.ilog2() && u32::from(partition) < 1 << log2;
    (there_is && name == format!("{log2}-{partition}")).then_some((log2, PartitionId(partition)))
}
