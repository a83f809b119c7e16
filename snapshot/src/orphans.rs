//! What lies in the store and belongs to nothing: found always, deleted only on demand.
//!
//! Known under a cluster's root: `cluster`, the marks of a restore, `config/`, `backups/`, and
//! `partitions/<k>-<p>/db` of the configured k. Invariant: nothing that a view or a backup needs is ever deleted. Only two kinds
//! are deleted at all, and only when old: databases of another number of partitions in which no
//! backup holds a checkpoint, and checkpoints of backups whose document is gone. Everything else is
//! told and left to a person: an unknown object may be somebody else's, and a checkpoint without a
//! name may be what a copy elsewhere rests on.
//! Calls: the store and SlateDB's administration. Called by: the node's healing, by hand.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore, path::Path};
use slatedb::{VersionedManifest, admin::AdminBuilder};
use slatedb_common::clock::SystemClock as _;
use tako_types::{
    PartitionId,
    limits::{ORPHAN_AGE_MIN, STORE_DEADLINE},
};
use uuid::Uuid;

use crate::{
    SnapshotError, Snapshots, StoreError,
    backup::{CHECKPOINT, DOCUMENT, FOLDER},
    clock::StoreClock,
    snapshots::{Shared, bounded},
    store::{RESTORED, RESTORING},
};

/// What lies right under the root besides partitions.
/// `probe` is where a node that starts tries what the store does.
const KNOWN_FOLDERS: [&str; 4] = ["config", FOLDER, "partitions", "probe"];
const KNOWN_OBJECTS: [&str; 3] = ["cluster", RESTORING, RESTORED];
/// One database's objects are listed and deleted within this time.
const FOLDER_DEADLINE: Duration = Duration::from_secs(120);

/// Something that belongs to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// What it is.
    pub kind: OrphanKind,
    /// Where it lies: an object, a folder, or the database of a checkpoint.
    pub path: String,
    /// Bytes of its objects; 0 for a checkpoint.
    pub bytes: u64,
    /// How long it has not changed.
    pub age: Duration,
}

/// Kinds of orphans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrphanKind {
    /// A database of another number of partitions; `needed` by a checkpoint that does not expire.
    Database {
        /// A checkpoint in it does not expire.
        needed: bool,
    },
    /// The checkpoint of a backup without a document.
    Backup {
        /// The checkpoint.
        id: u128,
        /// The backup's name.
        name: String,
    },
    /// A checkpoint that does not expire and has no name.
    Checkpoint {
        /// The checkpoint.
        id: u128,
    },
    /// An object or folder that nothing of Tako's is called.
    Stray,
}

impl Orphan {
    /// Whether [`Snapshots::delete_orphan`] would delete it.
    #[must_use]
    pub fn may_go(&self) -> bool {
        let deletable = match &self.kind {
            OrphanKind::Database { needed } => !needed,
            OrphanKind::Backup { .. } => true,
            OrphanKind::Checkpoint { .. } | OrphanKind::Stray => false,
        };
        deletable && ORPHAN_AGE_MIN <= self.age
    }
}

impl std::fmt::Display for Orphan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = &self.path;
        match &self.kind {
            OrphanKind::Database { needed: false } => {
                write!(f, "a database of another number of partitions: {path}")?;
            }
            OrphanKind::Database { needed: true } => {
                write!(f, "a database of another number of partitions, with a backup: {path}")?;
            }
            OrphanKind::Backup { name, .. } => {
                write!(f, "the checkpoint of backup `{name}`, which is gone: {path}")?;
            }
            OrphanKind::Checkpoint { id } => {
                write!(f, "a checkpoint {} for ever without a name: {path}", Uuid::from_u128(*id))?;
            }
            OrphanKind::Stray => write!(f, "nothing of Tako's: {path}")?,
        }
        write!(f, " ({} bytes, {} h old)", self.bytes, self.age.as_secs() / 3_600)
    }
}

impl Snapshots {
    /// Everything under the root that belongs to nothing.
    ///
    /// Cost: some LISTs, and one or two requests per partition.
    ///
    /// # Errors
    /// [`SnapshotError`] where the store does not answer; nothing is said to be an orphan then.
    pub async fn orphans(&self) -> Result<Vec<Orphan>, SnapshotError> {
        let shared = &self.shared;
        // Before the checkpoints are looked at: a backup writes its document last, and one that
        // comes in between is too young to go.
        let backups = shared.names_in(FOLDER).await?;
        let mut orphans = shared.strays().await?;
        for folder in shared.folders_in("partitions").await? {
            match shared.partition_of(&folder) {
                Some(p) => orphans.extend(shared.checkpoints_of(p, &backups).await?),
                None => orphans.push(shared.database(&folder).await?),
            }
        }
        Ok(orphans)
    }

    /// Deletes an orphan; `false` where it must stay ([`Orphan::may_go`]).
    ///
    /// # Errors
    /// [`SnapshotError`]; then some of it may be gone, and the rest is found again.
    pub async fn delete_orphan(&self, orphan: &Orphan) -> Result<bool, SnapshotError> {
        if !orphan.may_go() {
            return Ok(false);
        }
        match &orphan.kind {
            OrphanKind::Database { .. } => self.shared.delete_folder(&orphan.path).await?,
            OrphanKind::Backup { id, .. } => {
                let path = parsed(&orphan.path)?;
                let admin = AdminBuilder::new(path, self.shared.store.object_store())
                    .with_system_clock(StoreClock::new(self.shared.wall.clone()))
                    .build();
                let id = Uuid::from_u128(*id);
                let deleted = async { Ok(admin.delete_checkpoint(id).await?) };
                bounded(STORE_DEADLINE, deleted).await?;
            }
            OrphanKind::Checkpoint { .. } | OrphanKind::Stray => return Ok(false),
        }
        Ok(true)
    }
}

impl Shared {
    fn now(&self) -> DateTime<Utc> {
        StoreClock::new(self.wall.clone()).now()
    }

    fn age_of(&self, changed: DateTime<Utc>) -> Duration {
        (self.now() - changed).to_std().unwrap_or_default()
    }

    async fn list(&self, folder: &Path) -> Result<object_store::ListResult, SnapshotError> {
        let store = self.store.object_store();
        let list = || async { store.list_with_delimiter(Some(folder)).await };
        Ok(self.store.bounded("list", folder, list).await?)
    }

    /// Names of folders in one under the root.
    async fn folders_in(&self, folder: &str) -> Result<Vec<Path>, SnapshotError> {
        Ok(self.list(&self.store.path(folder)).await?.common_prefixes)
    }

    /// Names of objects, at any depth, below a folder under the root.
    async fn names_in(&self, folder: &str) -> Result<BTreeSet<String>, SnapshotError> {
        let folder = self.store.path(folder);
        let objects = self.objects_in(&folder).await?;
        let name = |object: ObjectMeta| {
            let parts: Vec<_> = object.location.prefix_match(&folder)?.collect();
            Some(parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>().join("/"))
        };
        Ok(objects.into_iter().filter_map(name).collect())
    }

    async fn objects_in(&self, folder: &Path) -> Result<Vec<ObjectMeta>, SnapshotError> {
        let store = self.store.object_store();
        let listing = async {
            let listed: Result<Vec<_>, _> = store.list(Some(folder)).try_collect().await;
            listed.map_err(|source| {
                StoreError::Io { doing: "list", path: folder.to_string(), source }.into()
            })
        };
        bounded(FOLDER_DEADLINE, listing).await
    }

    /// What lies right under the root, or under `partitions`, and bears no name of Tako's.
    async fn strays(&self) -> Result<Vec<Orphan>, SnapshotError> {
        let mut strays = Vec::new();
        let root = self.list(self.store.root()).await?;
        let partitions = self.list(&self.store.path("partitions")).await?;
        let known = |path: &Path| path.filename().is_some_and(|name| KNOWN_OBJECTS.contains(&name));
        let objects = root.objects.into_iter().filter(|object| !known(&object.location));
        for object in objects.chain(partitions.objects) {
            strays.push(Orphan {
                kind: OrphanKind::Stray,
                path: object.location.to_string(),
                bytes: object.size,
                age: self.age_of(object.last_modified),
            });
        }
        for folder in root.common_prefixes {
            if !folder.filename().is_some_and(|name| KNOWN_FOLDERS.contains(&name)) {
                strays.push(self.folder(&folder, OrphanKind::Stray).await?);
            }
        }
        Ok(strays)
    }

    /// The partition whose folder it is, in the number of partitions that is configured.
    fn partition_of(&self, folder: &Path) -> Option<PartitionId> {
        let (log2, p) = database_of(folder.filename()?)?;
        (log2 == self.options.partitions_log2).then_some(p)
    }

    async fn folder(&self, folder: &Path, kind: OrphanKind) -> Result<Orphan, SnapshotError> {
        let objects = self.objects_in(folder).await?;
        let newest = objects.iter().map(|object| object.last_modified).max();
        Ok(Orphan {
            kind,
            path: folder.to_string(),
            bytes: objects.iter().map(|object| object.size).sum(),
            age: newest.map_or(Duration::ZERO, |newest| self.age_of(newest)),
        })
    }

    /// A folder under `partitions` that is none of this number of partitions.
    async fn database(&self, folder: &Path) -> Result<Orphan, SnapshotError> {
        if folder.filename().and_then(database_of).is_none() {
            return self.folder(folder, OrphanKind::Stray).await;
        }
        let manifest = self.manifest(&folder.clone().join("db")).await?;
        let needed = manifest
            .is_some_and(|it| it.checkpoints().iter().any(|known| known.expire_time.is_none()));
        self.folder(folder, OrphanKind::Database { needed }).await
    }

    async fn manifest(&self, db: &Path) -> Result<Option<VersionedManifest>, SnapshotError> {
        let admin = AdminBuilder::new(db.clone(), self.store.object_store())
            .with_system_clock(StoreClock::new(self.wall.clone()))
            .build();
        bounded(STORE_DEADLINE, async { Ok(admin.read_manifest(None).await?) }).await
    }

    /// Checkpoints of a live database that do not expire and that nothing accounts for.
    async fn checkpoints_of(
        &self,
        p: PartitionId,
        backups: &BTreeSet<String>,
    ) -> Result<Vec<Orphan>, SnapshotError> {
        let db = self.db_path(p);
        let Some(manifest) = self.manifest(&db).await? else { return Ok(Vec::new()) };
        let lasting = manifest.checkpoints().iter().filter(|known| known.expire_time.is_none());
        let orphan = |known: &slatedb::Checkpoint| {
            let id = known.id.as_u128();
            let kind = match known.name.as_deref().map(|name| name.strip_prefix(CHECKPOINT)) {
                Some(Some(name)) if is_accounted_for(name, backups) => return None,
                Some(Some(name)) => OrphanKind::Backup { id, name: name.to_owned() },
                // Somebody else's, with a name to ask about.
                Some(None) => return None,
                None => OrphanKind::Checkpoint { id },
            };
            let age = self.age_of(known.create_time);
            Some(Orphan { kind, path: db.to_string(), bytes: 0, age })
        };
        Ok(lasting.filter_map(orphan).collect())
    }

    async fn delete_folder(&self, folder: &str) -> Result<(), SnapshotError> {
        let folder = parsed(folder)?;
        let objects = self.objects_in(&folder).await?;
        let store = self.store.object_store();
        let paths = futures::stream::iter(objects.into_iter().map(|object| Ok(object.location)));
        let deleting = async {
            let deleted: Result<Vec<_>, _> = store.delete_stream(paths.boxed()).try_collect().await;
            deleted.map(drop).map_err(|source| {
                StoreError::Io { doing: "delete", path: folder.to_string(), source }.into()
            })
        };
        bounded(FOLDER_DEADLINE, deleting).await
    }
}

fn parsed(path: &str) -> Result<Path, SnapshotError> {
    Path::parse(path).map_err(|error| SnapshotError::Invalid(error.to_string()))
}

/// Reads `<k>-<p>`.
fn database_of(name: &str) -> Option<(u32, PartitionId)> {
    let (log2, p) = name.split_once('-')?;
    let (log2, p): (u32, u16) = (log2.parse().ok()?, p.parse().ok()?);
    let fits = log2 <= tako_types::limits::PARTITIONS_MAX.ilog2() && u32::from(p) < 1 << log2;
    (fits && name == format!("{log2}-{p}")).then_some((log2, PartitionId(p)))
}

/// Whether a backup has a document, of all objects below `backups/`.
fn is_accounted_for(name: &str, backups: &BTreeSet<String>) -> bool {
    backups.contains(&format!("{name}/{DOCUMENT}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_databases_folder_is_two_numbers_and_nothing_else() {
        assert_eq!(database_of("5-31"), Some((5, PartitionId(31))));
        for name in ["5-32", "5", "05-1", "5-01", "13-0", "a-b", "5-1-1", ""] {
            assert_eq!(database_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_backup_is_accounted_for_by_its_own_name_only() {
        let backups = BTreeSet::from(["daily-1/document".to_owned(), "weekly/counts".to_owned()]);
        assert!(is_accounted_for("daily-1", &backups));
        assert!(!is_accounted_for("weekly", &backups), "counts alone are no backup");
        assert!(!is_accounted_for("daily", &backups));
        assert!(!is_accounted_for("daily-12", &backups));
    }

    #[test]
    fn what_is_young_or_needed_or_unknown_never_goes() {
        let orphan = |kind, age| Orphan { kind, path: "p".to_owned(), bytes: 1, age };
        let old = ORPHAN_AGE_MIN;
        let young = ORPHAN_AGE_MIN - Duration::from_secs(1);
        let database = |needed| OrphanKind::Database { needed };
        let backup = || OrphanKind::Backup { id: 1, name: "b".to_owned() };
        assert!(orphan(database(false), old).may_go() && orphan(backup(), old).may_go());
        assert!(!orphan(database(false), young).may_go() && !orphan(backup(), young).may_go());
        assert!(!orphan(database(true), old).may_go());
        assert!(!orphan(OrphanKind::Checkpoint { id: 1 }, old).may_go());
        assert!(!orphan(OrphanKind::Stray, old).may_go());
    }
}
