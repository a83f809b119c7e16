//! A restore into a new root, cut short and repeated, and what the new root holds.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use object_store::path::Path;
use tako_checkers::Dump;
use tako_coordinator::RECORDS;
use tako_flatbuf::{Record, merge_encoded};
use tako_snapshot::{
    PartitionReader, SnapshotOptions, Snapshots, Store,
    backup::{Backup, BackupError, Backups, Method, RestoreOptions, restore},
};
use tako_types::{Clock, ClusterId};
use tokio::time::timeout;

use crate::{
    chance::Chance,
    clock::EPOCH_MICROS,
    dump::answer,
    load::{KeyUse, stored},
    store::SimStore,
};

/// The host that restores.
const HOST: &str = "r1";
const ROOT: &str = "cluster-2";
/// Tries after which a restore must have ended.
const TRIES_MAX: u64 = 4;
/// Longest time of one try.
const TRY_MAX: Duration = Duration::from_secs(600);

/// What a restore is made of.
pub(super) struct Source<'a> {
    pub(super) store: &'a SimStore,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) partitions_log2: u32,
    pub(super) backup: &'a Backup,
}

/// The new root, and 2 to this is its number of partitions.
pub(super) struct NewRoot {
    store: Store,
    clock: Arc<dyn Clock>,
    partitions_log2: u32,
}

/// Restores a backup; the first try may end in the middle of anything.
pub(super) async fn restored(from: &Source<'_>, chance: &mut Chance) -> Result<NewRoot, String> {
    let same = from.partitions_log2;
    let partitions_log2 = *chance.pick(&[same, same, same + 1, same.saturating_sub(1)]);
    let method = if chance.yes(0.5) { Method::Copy } else { Method::Clone };
    let dies_after =
        chance.yes(0.5).then(|| chance.time(Duration::ZERO, Duration::from_millis(2_500)));
    let root = Path::from(ROOT);
    for life in 1..=TRIES_MAX {
        let options = RestoreOptions {
            partitions_log2,
            method,
            verify: true,
            cluster: ClusterId(u128::from(chance.number())),
            configuration: None,
        };
        let view = from.store.view(HOST, life);
        let trying = async {
            let (source, clock) = (view.clone(), from.clock.clone());
            let backups = Backups::open(source, from.partitions_log2, clock, RECORDS).await?;
            let (into, clock) = (view.with_root(root.clone()), from.clock.clone());
            let backup = Some(from.backup);
            let done = restore(&backups, backup, into, &options, clock, RECORDS, &|_| {}).await;
            backups.close().await;
            done
        };
        let limit = dies_after.filter(|_| life == 1).unwrap_or(TRY_MAX);
        let done = timeout(limit, trying).await;
        from.store.crash(HOST, life);
        let is_there = match done {
            Ok(Ok(_)) => true,
            // An earlier try had its effect and was not told; or only its mark came late, and the
            // next try begins anew.
            Ok(Err(BackupError::Exists(_))) if 1 < life => {
                let store = from.store.sound().with_root(root.clone());
                store.cluster_id(None).await.map_err(|error| error.to_string())?.is_some()
            }
            Ok(Err(error)) => return Err(format!("a restore of {}: {error}", from.backup.name)),
            Err(_) if limit == TRY_MAX => return Err("a restore does not end".to_owned()),
            Err(_) => false,
        };
        if is_there {
            let store = from.store.sound().with_root(root);
            let named = store.cluster_id(None).await.map_err(|error| error.to_string())?;
            named.ok_or("a restore has ended, and the new root has no cluster")?;
            return Ok(NewRoot { store, clock: from.clock.clone(), partitions_log2 });
        }
    }
    Err(format!("a restore has not ended after {TRIES_MAX} tries"))
}

impl NewRoot {
    /// What it answers for the keys as of that moment, in microseconds since the world began.
    pub(super) async fn dump(&self, keys: &[KeyUse], at: u64) -> Result<Dump, String> {
        let log2 = self.partitions_log2;
        let options = SnapshotOptions {
            partitions_log2: log2,
            cache_memory_bytes: 1 << 20,
            ..SnapshotOptions::default()
        };
        let opening =
            Snapshots::new(self.store.clone(), options, self.clock.clone(), merge_encoded);
        let snapshots = opening.await.map_err(|error| error.to_string())?;
        let mut readers: BTreeMap<_, Option<PartitionReader>> = BTreeMap::new();
        let mut dump = Dump { replica: "a restored backup".to_owned(), ..Dump::default() };
        for KeyUse { name, .. } in keys {
            let key = stored(name);
            let p = key.partition(log2);
            let reader = match readers.entry(p) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let newest = snapshots.reader_latest(p).await;
                    place.insert(newest.map_err(|error| format!("restored {p}: {error}"))?)
                }
            };
            let record = match reader {
                None => None,
                Some(reader) => {
                    let bytes = reader.get(key.as_bytes()).await;
                    bytes.map_err(|error| format!("restored {name}: {error}"))?
                }
            };
            let record = record.map(Record::decode).transpose();
            let record = record.map_err(|error| format!("restored {name}: {error}"))?;
            dump.answers.insert(name.clone(), answer(record.as_ref(), EPOCH_MICROS + at));
        }
        for reader in readers.into_values().flatten() {
            reader.close().await;
        }
        snapshots.close().await;
        Ok(dump)
    }
}
