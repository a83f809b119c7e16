//! The new root of a restore: empty at first, marked while the restore goes on, committed at last.
//!
//! Invariant: `restoring` is there from before the first to after the last object of a restore, and
//! `cluster` is created after everything else. Whoever finds `restoring` without `cluster` keeps off
//! ([`crate::Store::cluster_id`]), but for a repeat, which takes everything away and begins anew.

use std::collections::BTreeMap;

use tako_types::{ClusterId, PartitionId};

use super::{BackupError, Backups, Origin, databases, document::Underway};
use crate::{
    Published, Store,
    snapshots::bounded,
    store::{RESTORED, RESTORING},
};

/// Taking one database away.
const WIPE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(600);

/// Marks a root that is empty, or that an earlier restore left unfinished; that is taken away.
///
/// `into` are the databases that will be made.
pub(super) async fn begin(into: &Backups, cluster: ClusterId) -> Result<(), BackupError> {
    let store = into.store();
    let marker = store.path(RESTORING);
    let left = match store.read(&marker).await? {
        Some(bytes) => Some(Underway::decode(&bytes).map_err(BackupError::Invalid)?),
        None => None,
    };
    if let Some(found) = store.cluster_id(None).await? {
        if left.is_some_and(|left| left.cluster() == found) {
            store.delete(&marker).await?;
            let what = format!("the restore of the cluster {found:?} here has ended already");
            return Err(BackupError::Exists(what));
        }
        return Err(BackupError::Exists("there is a cluster at this root already".to_owned()));
    }
    let own = Underway::new(cluster).encode();
    if left.is_some() {
        // First the mark: a restore that still goes on must not commit what is taken away here.
        store.overwrite(&marker, own.clone()).await?;
        wipe(into).await?;
    }
    if let Some(path) = store.any_object(&marker).await? {
        let what = format!("the new root is not empty: it holds {path}");
        return Err(BackupError::Exists(what));
    }
    match store.create(&marker, own).await? {
        Published::Written => Ok(()),
        Published::Exists(_) => Err(another()),
    }
}

/// Makes the restored root one that nodes may start on.
pub(super) async fn commit(
    store: &Store,
    cluster: ClusterId,
    origin: &Origin,
    configuration: Option<&(u64, bytes::Bytes)>,
) -> Result<(), BackupError> {
    let marker = store.path(RESTORING);
    if store.read(&marker).await? != Some(Underway::new(cluster).encode()) {
        return Err(another());
    }
    if let Some((number, bytes)) = configuration
        && let Published::Exists(_) = store.restore_config(*number, bytes.clone()).await?
    {
        let what = format!("somebody published configuration {number} in the new root meanwhile");
        return Err(BackupError::Exists(what));
    }
    if let Published::Exists(_) = store.create(&store.path(RESTORED), origin.encode()).await? {
        return Err(another());
    }
    match store.name_cluster(cluster).await? {
        Published::Written => {}
        Published::Exists(_) => return Err(another()),
    }
    Ok(store.delete(&marker).await?)
}

/// Takes away what an earlier restore made, and the holds that its clones have on the source.
async fn wipe(into: &Backups) -> Result<(), BackupError> {
    let store = into.store();
    let mut of_number = BTreeMap::<u32, Vec<PartitionId>>::new();
    for (log2, partition) in databases(store).await? {
        of_number.entry(log2).or_default().push(partition);
    }
    for (log2, partitions) in of_number {
        for partition in partitions {
            let admin = into.snapshots.shared.admin_of(log2, partition);
            let wiped =
                bounded(WIPE_DEADLINE, async { Ok(admin.delete_db(true).await.map(drop)?) }).await;
            match wiped {
                Err(error) if error.kind().retry() => {
                    return Err(BackupError::of(partition)(error));
                }
                // A folder without a manifest is none of a database; it goes below.
                Ok(()) | Err(_) => {}
            }
        }
    }
    for folder in ["partitions", "config"] {
        store.delete_below(folder).await?;
    }
    Ok(store.delete(&store.path(RESTORED)).await?)
}

fn another() -> BackupError {
    BackupError::Exists("another restore into this root, or a node, was faster".to_owned())
}
