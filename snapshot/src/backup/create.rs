//! Making, listing, finding and deleting backups.
//!
//! Invariant: checkpoints first, then the document, create-only; to delete, the document first. So
//! every document names checkpoints that are there. Checkpoints without a document (a create or a
//! delete that was cut short) bear the backup's name, by which the next create or delete of it, or
//! any create an hour later, removes them. So no create goes on that began more than half an hour
//! ago: by then each knows of every backup whose checkpoints it takes for old, and none commits what
//! another may have taken away. The clocks of who makes backups may differ by the other half hour.
//! One name is to be worked on by one process at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use slatedb::{VersionedManifest, admin::Admin, config::CheckpointOptions};
use slatedb_common::clock::SystemClock as _;
use tako_types::{PartitionId, limits::STORE_DEADLINE};
use uuid::Uuid;

use super::{
    AT_ONCE, Backup, BackupError, BackupName, Backups, Held, Observer, Progress, document::Counts,
};
use crate::{Checkpoint, Published, SnapshotError, Store, clock::StoreClock, snapshots::bounded};

/// Where the objects of backups lie: `<root>/backups/<name>/`.
pub(crate) const FOLDER: &str = "backups";
pub(crate) const DOCUMENT: &str = "document";
const COUNTS: &str = "counts";
/// A checkpoint of a backup that has no document by then is of a create that ended early.
const ORPHAN_AGE: Duration = Duration::from_secs(3_600);
/// A create that takes longer, as its process stood still, is given up.
const CREATE_AGE_MAX: Duration = Duration::from_secs(ORPHAN_AGE.as_secs() / 2);

/// What a backup is to say besides.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The configuration document in force.
    pub configuration: Option<Bytes>,
    /// Partitions of which a step was asked for and not taken.
    pub not_stepped: Vec<PartitionId>,
}

/// A backup in a list.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: BackupName,
    /// Its document, or why that cannot be read.
    pub backup: Result<Backup, BackupError>,
    /// Whether counts of it were kept by a verification.
    pub verified: bool,
}

impl Backups {
    /// Makes a backup of the newest step of every partition.
    ///
    /// Limits/cost: independent of the data's size; per partition that has a step one PUT, two
    /// LIST and some ten GET.
    ///
    /// # Errors
    /// [`BackupError::Exists`] when there is one of that name; [`BackupError::TookTooLong`] when it
    /// stood still meanwhile. After any other error it may be there or not; [`Self::find`] tells. A
    /// repeat removes what is left of an earlier attempt.
    pub async fn create(
        &self,
        name: &BackupName,
        about: About,
        observe: Observer<'_>,
    ) -> Result<Backup, BackupError> {
        // Before anything is looked at.
        let created_micros = self.clock.now_micros();
        let known = Self::names_in(self.store()).await?;
        if known.contains(name) {
            return Err(exists(name));
        }
        let Some(cluster) = self.store().cluster_id(None).await? else {
            let what = "there is no cluster at this root: it has no object `cluster`";
            return Err(BackupError::NotFound(what.to_owned()));
        };
        // Counts without a document are of an older backup of that name.
        self.store().delete(&self.object(name, COUNTS)).await?;
        let known = known.iter().map(BackupName::checkpoint).collect();
        let mark = Mark { name: &name.checkpoint(), lifetime: None, known: Some(&known) };
        let marked = self.mark_all(mark, observe).await;
        let Marked { partitions, older } = match marked {
            Ok(marked) => marked,
            Err((error, made)) => {
                self.unmark_all(made).await;
                return Err(error);
            }
        };
        let ids = |held: &BTreeMap<PartitionId, Held>| {
            held.iter().map(|(p, held)| (*p, held.checkpoint.id)).collect::<Vec<_>>()
        };
        if let Err(error) = self.check_age(created_micros) {
            self.unmark_all(ids(&partitions)).await;
            return Err(error);
        }
        let backup = Backup {
            name: name.clone(),
            cluster,
            created_micros,
            partitions_log2: self.partitions_log2(),
            partitions,
            not_stepped: about.not_stepped,
            configuration: about.configuration,
        };
        let document = self.object(name, DOCUMENT);
        match self.store().create(&document, backup.encode()).await? {
            Published::Written => {
                // Its checkpoints may have gone between the last look at the time and this.
                if let Err(error) = self.check_age(created_micros) {
                    self.store().delete(&document).await?;
                    self.unmark_all(ids(&backup.partitions)).await;
                    return Err(error);
                }
            }
            Published::Exists(_) => {
                self.unmark_all(ids(&backup.partitions)).await;
                return Err(exists(name));
            }
        }
        self.unmark_all(older).await;
        Ok(backup)
    }

    /// All backups, by name.
    ///
    /// # Errors
    /// [`BackupError`] of the store; a document that cannot be read is an error in its place only.
    pub async fn list(&self) -> Result<Vec<Listed>, BackupError> {
        let mut all = Vec::new();
        let objects = self.store().names(FOLDER).await?;
        for name in documents(&objects) {
            let verified = objects.contains(&format!("{name}/{COUNTS}"));
            let backup = match self.find(&name).await {
                // Deleted meanwhile.
                Err(BackupError::NotFound(_)) => continue,
                Err(error) if error.kind().retry() => return Err(error),
                other => other,
            };
            all.push(Listed { name, backup, verified });
        }
        Ok(all)
    }

    /// The names of all backups below a root: one LIST.
    ///
    /// # Errors
    /// [`BackupError`] of the store.
    pub async fn names_in(store: &Store) -> Result<Vec<BackupName>, BackupError> {
        Ok(documents(&store.names(FOLDER).await?))
    }

    /// The backup of a name.
    ///
    /// # Errors
    /// [`BackupError::NotFound`]; [`BackupError::Invalid`] when its document cannot be read.
    pub async fn find(&self, name: &BackupName) -> Result<Backup, BackupError> {
        let path = self.object(name, DOCUMENT);
        let Some(bytes) = self.store().read(&path).await? else {
            return Err(BackupError::NotFound(format!("there is no backup `{name}`")));
        };
        match Backup::decode(&bytes) {
            Ok(backup) if backup.name == *name => Ok(backup),
            Ok(backup) => {
                let what = format!("{path} is the document of `{}`", backup.name);
                Err(BackupError::Invalid(what))
            }
            Err(what) => Err(BackupError::Invalid(format!("{path} is damaged: {what}"))),
        }
    }

    /// Deletes a backup; its files go with later collections. Says whether there was anything of
    /// it. May be repeated.
    ///
    /// # Errors
    /// [`BackupError`]; then some of it may be left, which a repeat removes.
    pub async fn delete(&self, name: &BackupName) -> Result<bool, BackupError> {
        let document = self.object(name, DOCUMENT);
        let was_there = self.store().read(&document).await?.is_some();
        self.store().delete(&document).await?;
        let checkpoint = name.checkpoint();
        let removed: Vec<usize> = stream::iter(self.existing().await?)
            .map(|partition| self.unmark(partition, &checkpoint))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        self.store().delete(&self.object(name, COUNTS)).await?;
        Ok(was_there || removed.iter().any(|count| 0 < *count))
    }

    /// What an earlier verification counted in this very backup.
    pub(super) async fn counts(&self, backup: &Backup) -> Result<Option<Counts>, BackupError> {
        let path = self.object(&backup.name, COUNTS);
        let Some(bytes) = self.store().read(&path).await? else { return Ok(None) };
        let counts = Counts::decode(&bytes)
            .map_err(|what| BackupError::Invalid(format!("{path} is damaged: {what}")))?;
        Ok((counts.created_micros == backup.created_micros).then_some(counts))
    }

    /// Keeps the first counts of a backup.
    pub(super) async fn keep_counts(
        &self,
        backup: &Backup,
        counts: &Counts,
    ) -> Result<(), BackupError> {
        let path = self.object(&backup.name, COUNTS);
        let other = matches!(
            self.store().create(&path, counts.encode()).await?,
            Published::Exists(found) if Counts::decode(&found).is_ok_and(|found| {
                found.created_micros != backup.created_micros
            })
        );
        if other {
            self.store().delete(&path).await?;
            self.store().create(&path, counts.encode()).await?;
        }
        Ok(())
    }

    /// Refuses to go on with a create that began too long ago.
    fn check_age(&self, created_micros: u64) -> Result<(), BackupError> {
        let age = Duration::from_micros(self.clock.now_micros().saturating_sub(created_micros));
        if age <= CREATE_AGE_MAX {
            return Ok(());
        }
        Err(BackupError::TookTooLong { age, max: CREATE_AGE_MAX })
    }

    fn object(&self, name: &BackupName, part: &str) -> Path {
        self.store().path(&format!("{FOLDER}/{name}/{part}"))
    }
}

/// Which checkpoint is to be made of every partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark<'a> {
    pub(super) name: &'a str,
    pub(super) lifetime: Option<Duration>,
    /// Names of the checkpoints of backups that have a document; of others what is left is looked
    /// for.
    pub(super) known: Option<&'a BTreeSet<String>>,
}

/// Checkpoints of every partition that has a step.
pub(super) struct Marked {
    pub(super) partitions: BTreeMap<PartitionId, Held>,
    /// Those that were there before and belong to nothing.
    older: Vec<(PartitionId, u128)>,
}

impl Backups {
    /// Makes a checkpoint of every partition that has a step; what was made comes with the error.
    pub(super) async fn mark_all(
        &self,
        mark: Mark<'_>,
        observe: Observer<'_>,
    ) -> Result<Marked, (BackupError, Vec<(PartitionId, u128)>)> {
        let existing = self.existing().await.map_err(|error| (error, Vec::new()))?;
        let (mut done, of) = (0, existing.len());
        let mut marked = Marked { partitions: BTreeMap::new(), older: Vec::new() };
        let mut failed = None;
        let mut made = Vec::new();
        let mut all = stream::iter(existing)
            .map(async |partition| (partition, self.mark(partition, mark).await))
            .buffer_unordered(AT_ONCE);
        while let Some((partition, outcome)) = all.next().await {
            done += 1;
            observe(Progress { doing: "marking", done, of });
            match outcome {
                Ok(None) => {}
                Ok(Some((held, older))) => {
                    made.push((partition, held.checkpoint.id));
                    marked.partitions.insert(partition, held);
                    marked.older.extend(older.into_iter().map(|id| (partition, id)));
                }
                Err(error) => failed = failed.or(Some(BackupError::of(partition)(error))),
            }
        }
        match failed {
            None => Ok(marked),
            Some(error) => Err((error, made)),
        }
    }

    /// A checkpoint of a partition's newest step, and those without use; `None` where no step was
    /// ever committed.
    async fn mark(
        &self,
        partition: PartitionId,
        Mark { name, lifetime, known }: Mark<'_>,
    ) -> Result<Option<(Held, Vec<u128>)>, SnapshotError> {
        let young = StoreClock::new(self.snapshots.shared.wall.clone()).now() - ORPHAN_AGE;
        let admin = self.snapshots.shared.admin(partition);
        let made = bounded(STORE_DEADLINE, async {
            let Some(latest) = admin.read_manifest(None).await? else { return Ok(None) };
            if !latest.initialized() || latest.all_sst_views().next().is_none() {
                return Ok(None);
            }
            let options = CheckpointOptions {
                lifetime,
                name: Some(name.to_owned()),
                ..CheckpointOptions::default()
            };
            let made = admin.create_detached_checkpoint(&options).await?;
            let checkpoint = Checkpoint { id: made.id.as_u128(), manifest: made.manifest_id };
            let orphans = latest.checkpoints().iter().filter(|it| {
                let (Some(of), Some(known)) = (&it.name, known) else { return false };
                let is_backups = BackupName::is_of_checkpoint(of);
                of == name || (is_backups && !known.contains(of) && it.create_time < young)
            });
            Ok(Some((checkpoint, orphans.map(|it| it.id.as_u128()).collect())))
        });
        let Some((checkpoint, older)) = made.await? else { return Ok(None) };
        let reader = self.snapshots.reader_at(partition, checkpoint).await;
        let step = match reader {
            Ok(reader) => {
                let step = reader.meta().step;
                reader.close().await;
                step
            }
            Err(error) => {
                self.unmark_all(vec![(partition, checkpoint.id)]).await;
                return Err(error);
            }
        };
        Ok(Some((Held { checkpoint, step }, older)))
    }

    /// Removes checkpoints that nothing names any more. What fails is logged: it is found by its
    /// name later, or expires.
    pub(super) async fn unmark_all(&self, checkpoints: Vec<(PartitionId, u128)>) {
        stream::iter(checkpoints)
            .for_each_concurrent(AT_ONCE, async |(partition, id)| {
                let admin = self.snapshots.shared.admin(partition);
                if let Err(error) = remove(&admin, id).await {
                    tracing::warn!(%partition, %error, "a checkpoint without use is left");
                }
            })
            .await;
    }

    /// Removes all of a partition's checkpoints of that name; how many these were.
    async fn unmark(&self, partition: PartitionId, name: &str) -> Result<usize, BackupError> {
        let admin = self.snapshots.shared.admin(partition);
        let look = async {
            let latest = admin.read_manifest(None).await?;
            Ok(latest.map(|latest| named(&latest, name)).unwrap_or_default())
        };
        let found = bounded(STORE_DEADLINE, look).await.map_err(BackupError::of(partition))?;
        for id in &found {
            remove(&admin, *id).await.map_err(BackupError::of(partition))?;
        }
        Ok(found.len())
    }
}

async fn remove(admin: &Admin, id: u128) -> Result<(), SnapshotError> {
    let removing = async { Ok(admin.delete_checkpoint(Uuid::from_u128(id)).await?) };
    bounded(STORE_DEADLINE, removing).await
}

/// The checkpoints of a name.
fn named(manifest: &VersionedManifest, name: &str) -> Vec<u128> {
    let of_name = manifest.checkpoints().iter().filter(|it| it.name.as_deref() == Some(name));
    of_name.map(|checkpoint| checkpoint.id.as_u128()).collect()
}

/// The backups among the objects below the folder of backups, by name.
fn documents(objects: &[String]) -> Vec<BackupName> {
    let names = objects.iter().filter_map(|object| object.strip_suffix("/document"));
    let mut names: Vec<_> = names.filter_map(|name| BackupName::new(name).ok()).collect();
    names.sort();
    names
}

fn exists(name: &BackupName) -> BackupError {
    BackupError::Exists(format!("there is a backup `{name}` already"))
}
