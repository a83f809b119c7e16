//! A whole cluster's data into a new root, with as many partitions as wanted.
//!
//! ```text
//! mark the root ─► hold the source ─► fill each partition ─► count both sides ─► commit ─► let go
//! ```
//! Invariants: the source is only read, but for checkpoints that hold it meanwhile (they expire) and
//! those that a clone keeps. Nothing can start on the new root before every partition of it was
//! filled and, unless the caller does without, counted. A restore that ends anywhere is repeated
//! from the beginning. Not here: the configuration's content (the caller's).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use tako_types::{Clock, ClusterId, PartitionId, Version, limits::PARTITIONS_MAX};

use super::{
    AT_ONCE, Backup, BackupError, Backups, Count, Held, Observer, Origin, Progress, RecordFns,
    create::Mark, ranges::sources_of, root,
};
use crate::{Coverage, DueRow, Store};

/// What holds the newest steps while they are read; longer than any restore takes.
const HOLD: Duration = Duration::from_secs(7 * 86_400);
const HOLD_NAME: &str = "restore";
/// Due rows read at once.
const DUE_ROWS: usize = 10_000;

/// How the data get into the new root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Every record is read, checked and written: the new root needs nothing of the old one.
    Copy,
    /// The new databases name the old tables, which stay where they are: quick, whatever the data
    /// size, and only within one bucket.
    Clone,
}

/// What a restore is to do.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The new root's number of partitions is 2 to this.
    pub partitions_log2: u32,
    /// How.
    pub method: Method,
    /// Count both sides and compare.
    pub verify: bool,
    /// The new cluster's id: drawn for this attempt, unlike any other.
    pub cluster: ClusterId,
    /// The configuration document for the new root, and its number.
    pub configuration: Option<(u64, Bytes)>,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The new cluster's id.
    pub cluster: ClusterId,
    /// The step of the source that each of its partitions was taken at.
    pub steps: BTreeMap<PartitionId, Held>,
    /// What the new root's partitions hold, if they were counted.
    pub counts: Option<BTreeMap<PartitionId, Count>>,
}

/// One restore.
pub(super) struct Work<'a> {
    pub(super) from: &'a Backups,
    pub(super) into: Backups,
    /// What is read of the source.
    pub(super) held: BTreeMap<PartitionId, Held>,
}

/// Restores `backup`, or the newest steps without one, from the root of `from` into that of `into`.
///
/// Limits/cost: a copy reads and writes all records, and reads them again to verify; a clone costs
/// some ten requests per partition, and the reading of both sides if it is verified. Memory is
/// bounded by some batches.
///
/// # Errors
/// [`BackupError`]; then nothing can start on the new root, and a repeat begins anew.
pub async fn restore(
    from: &Backups,
    backup: Option<&Backup>,
    into: Store,
    options: &RestoreOptions,
    clock: Arc<dyn Clock>,
    records: RecordFns,
    observe: Observer<'_>,
) -> Result<Restored, BackupError> {
    if PARTITIONS_MAX.ilog2() < options.partitions_log2 {
        let what = format!("2^{} partitions are too many", options.partitions_log2);
        return Err(BackupError::Invalid(what));
    }
    if options.method == Method::Clone && !from.store().shares_bucket_with(&into) {
        let what = "a clone names the tables of the old root, so both roots must lie in one bucket \
                    (a folder is none); copy instead";
        return Err(BackupError::Invalid(what.to_owned()));
    }
    if from.store().shares_bucket_with(&into)
        && (is_below(from.store(), &into) || is_below(&into, from.store()))
    {
        let what = "one of the two roots lies within the other; take a prefix beside it";
        return Err(BackupError::Invalid(what.to_owned()));
    }
    let Some(source) = from.store().cluster_id(None).await? else {
        let what = "there is no cluster at the old root: it has no object `cluster`";
        return Err(BackupError::NotFound(what.to_owned()));
    };
    let into = Backups::open(into, options.partitions_log2, clock, records).await?;
    root::begin(&into, options.cluster).await?;
    let held = match backup {
        Some(backup) => backup.partitions.clone(),
        None => {
            let mark = Mark { name: HOLD_NAME, lifetime: Some(HOLD), known: None };
            from.mark_all(mark, observe).await.map_err(|(error, _)| error)?.partitions
        }
    };
    let work = Work { from, into, held };
    let outcome = work.fill_and_commit(source, backup, options, observe).await;
    if backup.is_none() {
        let held = work.held.iter().map(|(p, held)| (*p, held.checkpoint.id)).collect();
        from.unmark_all(held).await;
    }
    work.into.close().await;
    Ok(Restored { cluster: options.cluster, steps: work.held, counts: outcome? })
}

/// Whether the root of `a` lies below that of `b`, or is the same.
fn is_below(a: &Store, b: &Store) -> bool {
    a.root().prefix_matches(b.root())
}

impl Work<'_> {
    async fn fill_and_commit(
        &self,
        source: ClusterId,
        backup: Option<&Backup>,
        options: &RestoreOptions,
        observe: Observer<'_>,
    ) -> Result<Option<BTreeMap<PartitionId, Count>>, BackupError> {
        let counts = self.fill(options, observe).await?;
        let origin = self.origin(source, backup).await?;
        let configuration = options.configuration.as_ref();
        root::commit(self.into.store(), options.cluster, &origin, configuration).await?;
        Ok(counts)
    }

    /// Fills all partitions and counts them; nothing was committed yet.
    async fn fill(
        &self,
        options: &RestoreOptions,
        observe: Observer<'_>,
    ) -> Result<Option<BTreeMap<PartitionId, Count>>, BackupError> {
        let partitions: BTreeSet<PartitionId> = (0..1u16 << options.partitions_log2)
            .map(PartitionId)
            .filter(|partition| self.sources(*partition).next().is_some())
            .collect();
        let of = partitions.len();
        let (mut done, mut read) = (0, BTreeMap::<PartitionId, Count>::new());
        let doing = match options.method {
            Method::Copy => "copying",
            Method::Clone => "cloning",
        };
        let mut all = stream::iter(partitions.clone())
            .map(async |partition| match options.method {
                Method::Copy => self.copy(partition).await,
                Method::Clone => self.clone_into(partition).await,
            })
            .buffer_unordered(AT_ONCE);
        while let Some(counts) = all.next().await {
            for (source, count) in counts? {
                *read.entry(source).or_default() += count;
            }
            done += 1;
            observe(Progress { doing, done, of });
        }
        if !options.verify {
            return Ok(None);
        }
        if options.method == Method::Clone {
            read = without_damage(self.from.count(&self.held, observe).await?)?;
        }
        let mut shown = BTreeMap::new();
        for partition in partitions {
            shown.insert(partition, self.into.newest(partition).await?);
        }
        let written = without_damage(self.into.count(&shown, observe).await?)?;
        self.compare(&read, &written)?;
        Ok(Some(written))
    }

    /// The partitions of the source that hold something of a new one.
    pub(super) fn sources(
        &self,
        partition: PartitionId,
    ) -> impl Iterator<Item = (PartitionId, Held)> {
        let (log2, from_log2) = (self.into.partitions_log2(), self.from.partitions_log2());
        sources_of(partition, log2, from_log2).filter_map(|p| Some((p, *self.held.get(&p)?)))
    }

    /// Whether both sides hold the same, as finely as the greater partitions are.
    fn compare(
        &self,
        read: &BTreeMap<PartitionId, Count>,
        written: &BTreeMap<PartitionId, Count>,
    ) -> Result<(), BackupError> {
        let (from_log2, into_log2) = (self.from.partitions_log2(), self.into.partitions_log2());
        let common = from_log2.min(into_log2);
        let grouped = |counts: &BTreeMap<PartitionId, Count>, log2: u32| {
            let mut groups = BTreeMap::<u16, Count>::new();
            for (partition, count) in counts {
                *groups.entry(partition.0 >> (log2 - common)).or_default() += *count;
            }
            groups.retain(|_, count| *count != Count::default());
            groups
        };
        let (read, written) = (grouped(read, from_log2), grouped(written, into_log2));
        let groups: BTreeSet<u16> = read.keys().chain(written.keys()).copied().collect();
        let differs = groups.into_iter().find(|group| read.get(group) != written.get(group));
        let Some(group) = differs else { return Ok(()) };
        let told = |side: &BTreeMap<u16, Count>| {
            let count = side.get(&group).copied().unwrap_or_default();
            format!("{} records with the digest {:032x}", count.records, count.digest)
        };
        Err(BackupError::Differs(format!(
            "partition {group} of {}: the source has {}, the new root {}",
            1u32 << common,
            told(&read),
            told(&written)
        )))
    }

    async fn origin(
        &self,
        source: ClusterId,
        backup: Option<&Backup>,
    ) -> Result<Origin, BackupError> {
        let store = self.from.store();
        let before = store.origin().await?.map(|origin| origin.clusters).unwrap_or_default();
        Ok(Origin {
            clusters: std::iter::once(source).chain(before).collect(),
            root: store.root().to_string(),
            backup: backup.map(|backup| backup.name.to_string()),
            created_micros: self.from.clock.now_micros(),
        })
    }
}

impl Backups {
    /// The newest state of a partition, as one that was just written.
    async fn newest(&self, partition: PartitionId) -> Result<Held, BackupError> {
        let found = self.snapshots.reader_latest(partition).await;
        let Some(reader) = found.map_err(BackupError::of(partition))? else {
            let what = "nothing was written".to_owned();
            return Err(BackupError::Damaged { partition, what });
        };
        let held = Held { checkpoint: reader.checkpoint(), step: reader.meta().step };
        reader.close().await;
        Ok(held)
    }
}

fn without_damage(
    (counts, damage): (BTreeMap<PartitionId, Count>, BTreeMap<PartitionId, String>),
) -> Result<BTreeMap<PartitionId, Count>, BackupError> {
    match damage.into_iter().next() {
        None => Ok(counts),
        Some((partition, what)) => Err(BackupError::Damaged { partition, what }),
    }
}

/// What every step into a new partition says of where its records came from.
#[derive(Debug, Default)]
pub(super) struct Heritage {
    /// The newest folder of every node that the source knew: a new one is above it.
    pub(super) coverage: Coverage,
    pub(super) highest: Version,
}

impl Heritage {
    pub(super) fn add(&mut self, reader: &crate::PartitionReader) {
        let meta = reader.meta();
        self.highest = self.highest.max(meta.highest);
        for (node, at) in &meta.coverage {
            let entry = self.coverage.entry(node.clone()).or_default();
            *entry = (*entry).max(*at);
        }
    }
}

/// The next due rows of a state after `last`, and whether there may be more.
pub(super) async fn due_page(
    reader: &crate::PartitionReader,
    source: PartitionId,
    last: Option<&DueRow>,
) -> Result<(Vec<DueRow>, bool), BackupError> {
    let page = reader.due_after(last, DUE_ROWS).await.map_err(BackupError::of(source))?;
    let more = page.len() == DUE_ROWS;
    Ok((page, more))
}
