//! Restores into a new root: by copy and by clone, into fewer, as many and more partitions.

use std::collections::BTreeMap;

use object_store::path::Path;
use tako_types::{ClusterId, ErrorKind, StepNumber};

use super::{
    backups::{name, records},
    *,
};
use crate::{
    ListRange, StoreError,
    backup::{About, BackupError, Backups, Method, RestoreOptions, Restored, restore},
    fault::{Match, Op, When},
    store::RESTORING,
};

const OLD: ClusterId = ClusterId(1);
const NEW: ClusterId = ClusterId(2);
const LOG2: u32 = 2;
/// What all of a source's keys hold, by name.
type Content = BTreeMap<String, String>;

/// A cluster of four partitions, of which the last has never had a step.
struct Cluster {
    world: World,
    store: Store,
    content: Content,
}

fn partition_of(name: &str, log2: u32) -> PartitionId {
    let key = tako_types::Key::new(0, Bytes::copy_from_slice(name.as_bytes())).expect("short");
    key.stored().partition(log2)
}

fn with_log2(log2: u32) -> SnapshotOptions {
    SnapshotOptions { partitions_log2: log2, ..options() }
}

impl Cluster {
    async fn new(world: World) -> Self {
        let store = match world.store.is_local() {
            true => world.store.clone(),
            false => world.store.with_root(world.store.path("old")),
        };
        store.cluster_id(Some(OLD)).await.expect("an id");
        let mut cluster = Self { world, store, content: Content::new() };
        cluster.write(1, "one").await;
        cluster.write(2, "two").await;
        cluster
    }

    /// A step of each of the first three partitions: new keys, some again as merges, a due row each.
    async fn write(&mut self, n: u64, value: &str) {
        let node = self.node(&self.store, LOG2).await;
        for p in (0..3).map(PartitionId) {
            let mut names: Vec<String> = (0..40).map(|i| format!("{n}-{i}")).collect();
            names.extend((0..20).map(|i| format!("again-{i}")));
            names.retain(|name| partition_of(name, LOG2) == p);
            let mut writer = node.writer(p).await.expect("a writer");
            let rows = names.iter().map(|name| row(name, n * 10, value, !name.starts_with('a')));
            let mut input = step(rows.collect(), 100 * n);
            input.due = names.first().map(|name| due(name, n, n * 10)).into_iter().collect();
            writer.step(input).await.expect("a step");
            writer.close().await;
            self.content.extend(names.into_iter().map(|name| (name, value.to_owned())));
        }
        node.close().await;
    }

    async fn node(&self, store: &Store, log2: u32) -> Arc<Snapshots> {
        let clock = self.world.clock.clone();
        Snapshots::new(store.clone(), with_log2(log2), clock, merge).await.expect("valid")
    }

    async fn backups(&self) -> Backups {
        self.world.backups_of(&self.store, LOG2).await
    }

    /// A new root: another prefix of the same store, or a folder of its own.
    fn new_root(&self, folder: &tempfile::TempDir) -> Store {
        if self.world.store.is_local() {
            let url = folder.path().join("new").display().to_string();
            return Store::open(&StoreSettings::url(&url)).expect("a folder store");
        }
        self.store.with_root(self.world.store.path("new"))
    }

    async fn restore(
        &self,
        backup: Option<&str>,
        into: &Store,
        log2: u32,
        method: Method,
    ) -> Result<Restored, BackupError> {
        self.restore_as(NEW, backup, into, log2, method).await
    }

    async fn restore_as(
        &self,
        id: ClusterId,
        backup: Option<&str>,
        into: &Store,
        log2: u32,
        method: Method,
    ) -> Result<Restored, BackupError> {
        let backups = self.backups().await;
        let backup = match backup {
            Some(text) => Some(backups.find(&name(text)).await?),
            None => None,
        };
        let options = RestoreOptions {
            partitions_log2: log2,
            method,
            verify: true,
            cluster: id,
            configuration: Some((8, Bytes::from_static(b"document"))),
        };
        let clock = self.world.clock.clone();
        let into = into.clone();
        restore(&backups, backup.as_ref(), into, &options, clock, records(), &|_| {}).await
    }

    /// Everything that a root holds, and that it is where it belongs, and listed there.
    async fn read_all(&self, store: &Store, log2: u32) -> Content {
        let node = self.node(store, log2).await;
        let mut content = Content::new();
        for p in (0..1u16 << log2).map(PartitionId) {
            let Some(reader) = node.reader_latest(p).await.expect("a look") else { continue };
            let range = ListRange { namespace: 0, prefix: Bytes::new(), after: None };
            let listed = reader.list(&range, 100_000).await.expect("a listing").rows;
            let names: Vec<_> = listed.iter().map(|(key, _)| key.clone()).collect();
            let mut held: Vec<Bytes> = Vec::new();
            for (key, record) in reader.scan(.., 100_000).await.expect("a page").rows {
                let key = tako_types::StoredKey::from_bytes(key).expect("a stored key");
                assert_eq!(key.partition(log2), p);
                held.push(key.key().bytes().clone());
                let name = String::from_utf8(key.key().bytes().to_vec()).expect("text");
                let value = String::from_utf8(record[8..].to_vec()).expect("text");
                assert_eq!(text(&reader, &name).await.as_ref(), Some(&value));
                assert_eq!(content.insert(name, value), None);
            }
            held.sort();
            assert_eq!(names, held, "partition {p}");
            reader.close().await;
        }
        node.close().await;
        content
    }

    /// The due rows, and what is said of nodes, in a restored root.
    async fn check_heritage(&self, store: &Store, log2: u32) {
        let node = self.node(store, log2).await;
        let mut rows = Vec::new();
        for p in (0..1u16 << log2).map(PartitionId) {
            let Some(reader) = node.reader_latest(p).await.expect("a look") else { continue };
            assert_eq!(reader.meta().highest, version(20), "partition {p}");
            assert_eq!(reader.meta().coverage, coverage(200), "partition {p}");
            let due = reader.due(u64::MAX, 1_000).await.expect("due rows");
            let here = |row: &DueRow| {
                let key = tako_types::StoredKey::from_bytes(row.key.clone()).expect("stored");
                key.partition(log2) == p
            };
            rows.extend(due.into_iter().filter(here));
            reader.close().await;
        }
        assert_eq!(rows.len(), 6, "one of each step of three partitions");
        node.close().await;
    }

    /// Steps, compaction and collection go on in a restored root.
    async fn live_on(&self, store: &Store, log2: u32) {
        let node = self.node(store, log2).await;
        for p in (0..1u16 << log2).map(PartitionId) {
            let mut writer = node.writer(p).await.expect("a writer");
            let before = writer.meta().step;
            let mut compacted = false;
            for n in 1..100 {
                let rows = vec![row("always", 1_000 * n, "v", n % 2 == 0)];
                writer.step(step(rows, 1_000 + n)).await.expect("a step");
                compacted |= writer.maintain().await.expect("maintenance").compacted;
                if compacted {
                    break;
                }
            }
            assert!(compacted, "partition {p}");
            for n in 1..4 {
                self.world.clock.by_hours(3);
                let rows = vec![row("always", 1_000_000 * n, "v", true)];
                writer.step(step(rows, 9_000 + n)).await.expect("a step");
                assert!(writer.maintain().await.expect("maintenance").collected, "partition {p}");
            }
            assert!(before < writer.meta().step);
            writer.close().await;
        }
        node.close().await;
    }
}

#[tokio::test]
async fn the_newest_steps_are_copied_into_fewer_as_many_and_more_partitions() {
    for log2 in [0, 1, 2, 3, 5] {
        for world in World::all() {
            let cluster = Cluster::new(world).await;
            let folder = tempfile::tempdir().expect("a temp folder");
            let into = cluster.new_root(&folder);
            let restored = cluster.restore(None, &into, log2, Method::Copy).await;
            let restored = restored.expect("restored");
            assert_eq!(cluster.read_all(&into, log2).await, cluster.content, "2^{log2}");
            cluster.check_heritage(&into, log2).await;
            let counted: u64 =
                restored.counts.expect("verified").values().map(|count| count.records).sum();
            assert_eq!(counted, cluster.content.len() as u64);
            assert_eq!(into.cluster_id(None).await.expect("read"), Some(NEW));
            let document = Bytes::from_static(b"document");
            assert_eq!(into.latest_config().await.expect("read"), Some((8, document)));
            let origin = into.origin().await.expect("read").expect("it was restored");
            assert_eq!((origin.clusters, origin.backup), (vec![OLD], None));
            // It needs nothing of the old root.
            cluster.store.delete_below("partitions").await.expect("deleted");
            assert_eq!(cluster.read_all(&into, log2).await, cluster.content, "2^{log2}");
        }
    }
}

#[tokio::test]
async fn a_restored_root_takes_steps_compacts_and_collects_like_any_other() {
    for method in [Method::Copy, Method::Clone] {
        for log2 in [1, 2, 3] {
            let cluster = Cluster::new(World::memory()).await;
            let into = cluster.store.with_root(Path::from("new"));
            cluster.restore(None, &into, log2, method).await.expect("restored");
            cluster.live_on(&into, log2).await;
            let node = cluster.node(&into, log2).await;
            for (name, value) in &cluster.content {
                let p = partition_of(name, log2);
                let reader = node.reader_latest(p).await.expect("a look").expect("a reader");
                let found = text(&reader, name).await;
                assert_eq!(found.as_ref(), Some(value), "{method:?} into 2^{log2}: {name}");
                reader.close().await;
            }
            // The old one does as well, and its files stay for the clone.
            cluster.live_on(&cluster.store, LOG2).await;
            let fresh = cluster.node(&into, log2).await;
            for (name, value) in &cluster.content {
                let p = partition_of(name, log2);
                let reader = fresh.reader_latest(p).await.expect("a look").expect("a reader");
                let found = text(&reader, name).await;
                assert_eq!(found.as_ref(), Some(value), "{method:?} into 2^{log2}: {name}");
                reader.close().await;
            }
            node.close().await;
            fresh.close().await;
        }
    }
}

#[tokio::test]
async fn a_clone_shows_fewer_as_many_and_more_partitions_without_copying() {
    for log2 in [0, 1, 2, 3, 5] {
        let cluster = Cluster::new(World::memory()).await;
        let into = cluster.store.with_root(Path::from("new"));
        let restored = cluster.restore(None, &into, log2, Method::Clone).await.expect("restored");
        assert_eq!(cluster.read_all(&into, log2).await, cluster.content, "2^{log2}");
        cluster.check_heritage(&into, log2).await;
        assert_eq!(restored.counts.map(|counts| counts.is_empty()), Some(false));
    }
}

#[tokio::test]
async fn a_backup_is_restored_as_it_was_by_both_methods() {
    for method in [Method::Copy, Method::Clone] {
        for log2 in [1, 2, 3] {
            let mut cluster = Cluster::new(World::memory()).await;
            let backups = cluster.backups().await;
            backups.create(&name("then"), About::default(), &|_| {}).await.expect("a backup");
            let then = cluster.content.clone();
            cluster.write(3, "three").await;
            let into = cluster.store.with_root(Path::from("new"));
            cluster.restore(Some("then"), &into, log2, method).await.expect("restored");
            assert_eq!(cluster.read_all(&into, log2).await, then, "{method:?} 2^{log2}");
            let newest = cluster.store.with_root(Path::from("newest"));
            cluster.restore(None, &newest, log2, method).await.expect("restored");
            assert_eq!(cluster.read_all(&newest, log2).await, cluster.content);
            let error = cluster.restore(Some("never"), &newest, 2, method).await;
            assert_eq!(error.expect_err("no such").kind(), ErrorKind::NotFound);
        }
    }
}

#[tokio::test]
async fn a_record_older_than_what_was_restored_by_copy_does_not_win_over_it() {
    let cluster = Cluster::new(World::memory()).await;
    let into = cluster.store.with_root(Path::from("new"));
    cluster.restore(None, &into, 0, Method::Copy).await.expect("restored");
    let node = cluster.node(&into, 0).await;
    let mut writer = node.writer(PartitionId(0)).await.expect("a writer");
    let late = vec![row("again-1", 15, "late", true)];
    writer.step(step(late, 1)).await.expect("a step");
    let found = writer.get(&key("again-1")).await.expect("a read").expect("a record");
    assert_eq!(&found[8..], b"two");
    node.close().await;
}

#[tokio::test]
async fn a_root_that_is_not_empty_and_one_that_cannot_be_cloned_into_are_refused() {
    let cluster = Cluster::new(World::memory()).await;
    let into = cluster.store.with_root(Path::from("new"));
    into.publish_config(1, Bytes::from_static(b"x")).await.expect("published");
    let error = cluster.restore(None, &into, 2, Method::Copy).await.expect_err("not empty");
    assert!(error.to_string().contains("config/"), "{error}");
    let own = cluster.store.clone();
    let error = cluster.restore(None, &own, 2, Method::Copy).await.expect_err("itself");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let below = cluster.store.with_root(Path::from("old/new"));
    let error = cluster.restore(None, &below, 2, Method::Copy).await.expect_err("within");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");

    let folder = tempfile::tempdir().expect("a temp folder");
    let cluster = Cluster::new(World::folder()).await;
    let into = cluster.new_root(&folder);
    let error = cluster.restore(None, &into, 2, Method::Clone).await.expect_err("a folder");
    assert!(error.to_string().contains("one bucket"), "{error}");
    let nothing = into.any_object(&Path::from("none")).await;
    assert_eq!(nothing.expect("a list"), None);
}

#[tokio::test]
async fn a_repeat_marks_the_root_as_its_own_before_it_takes_anything_away() {
    let cluster = Cluster::new(World::memory()).await;
    let into = cluster.store.with_root(Path::from("new"));
    let mark = async || into.read(&into.path(RESTORING)).await.expect("read").expect("there");
    // The first one may go on for all that its repeat knows; it commits only under its own mark.
    cluster.world.fault.fail_from(Match::op(Op::Put).on("new/partitions"), 4, When::Before);
    cluster.restore(None, &into, 1, Method::Copy).await.expect_err("cut short");
    let first = mark().await;
    cluster.world.fault.clear();
    cluster.world.fault.fail_from(Match::op(Op::Delete).on("new/"), 1, When::Before);
    let other = ClusterId(3);
    let repeat = cluster.restore_as(other, None, &into, 1, Method::Copy).await;
    repeat.expect_err("nothing can be taken away");
    cluster.world.fault.clear();
    assert_ne!(mark().await, first);
    cluster.restore_as(other, None, &into, 1, Method::Copy).await.expect("repeated");
    assert_eq!(cluster.read_all(&into, 1).await, cluster.content);
}

#[tokio::test]
async fn damage_in_the_source_ends_a_restore_and_nothing_can_start_on_the_new_root() {
    for method in [Method::Copy, Method::Clone] {
        let cluster = Cluster::new(World::memory()).await;
        let node = cluster.node(&cluster.store, LOG2).await;
        let mut names = (0..).map(|n| format!("bad-{n}"));
        let bad = names.find(|name| partition_of(name, LOG2).0 == 1).expect("some");
        let mut writer = node.writer(PartitionId(1)).await.expect("a writer");
        writer.step(step(vec![row(&bad, 30, "damaged", true)], 3)).await.expect("a step");
        let into = cluster.store.with_root(Path::from("new"));
        let error = cluster.restore(None, &into, 3, method).await.expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().starts_with("partition 1:"), "{error}");
        let error = into.cluster_id(Some(ClusterId(9))).await.expect_err("half restored");
        assert!(matches!(error, StoreError::Restoring { .. }), "{error}");
        assert!(!error.kind().retry(), "nobody waits for it");
        into.publish_config(9, Bytes::from_static(b"x")).await.expect_err("nor by coordinators");
        node.close().await;
    }
}

/// Fails a restore from its nth store call on, then repeats it.
async fn interrupted(n: u64, when: When, method: Method, matching: Match) -> bool {
    let cluster = Cluster::new(World::memory()).await;
    let into = cluster.store.with_root(Path::from("new"));
    cluster.world.fault.fail_from(matching, n, when);
    let outcome = cluster.restore(None, &into, 1, method).await;
    let failed = cluster.world.fault.failed();
    cluster.world.fault.clear();
    let what = format!("call {n}, {when:?}, {method:?}: {outcome:?}");
    if outcome.is_err() && into.cluster_id(None).await.expect("a look").is_none() {
        // Another attempt, with an id of its own.
        let again = cluster.restore(None, &into, 1, method).await;
        if let Err(error) = again {
            panic!("{what}: {error}");
        }
    }
    assert_eq!(into.cluster_id(None).await.expect("a look"), Some(NEW), "{what}");
    assert_eq!(cluster.read_all(&into, 1).await, cluster.content, "{what}");
    // What is left of the marker is told from a restore that goes on.
    if let Err(error) = cluster.restore(None, &into, 1, method).await {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    // The source is held by no more than the clone needs.
    let node = cluster.node(&cluster.store, LOG2).await;
    for p in (0..3).map(PartitionId) {
        let all = node.shared.admin(p).list_checkpoints(None).await.expect("a manifest");
        let lasting = all.iter().filter(|checkpoint| checkpoint.expire_time.is_none()).count();
        assert_eq!(lasting, usize::from(method == Method::Clone), "{what}");
    }
    node.close().await;
    failed == 0
}

#[tokio::test(start_paused = true)]
async fn a_restore_cut_short_at_any_change_is_repeated_and_leaves_nothing_half() {
    for method in [Method::Copy, Method::Clone] {
        for when in [When::Before, When::After] {
            for op in [Op::Put, Op::Delete] {
                // Where the answer is lost the state is that of the next one refused.
                let every = if when == When::Before { 1 } else { 5 };
                for n in (0..).step_by(every) {
                    if interrupted(n, when, method, Match::op(op)).await {
                        break;
                    }
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_restore_cut_short_at_any_call_is_repeated() {
    // These are many: some of them.
    for method in [Method::Copy, Method::Clone] {
        for n in (0..).step_by(23) {
            if interrupted(n, When::Before, method, Match::any()).await {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_step_number_goes_on_in_a_whole_clone_and_begins_anew_elsewhere() {
    let cluster = Cluster::new(World::memory()).await;
    let whole = cluster.store.with_root(Path::from("whole"));
    cluster.restore(None, &whole, LOG2, Method::Clone).await.expect("restored");
    let node = cluster.node(&whole, LOG2).await;
    let reader = node.reader_latest(PartitionId(0)).await.expect("a look").expect("a reader");
    assert_eq!(reader.meta().step, StepNumber(2));
    reader.close().await;
    node.close().await;
}
