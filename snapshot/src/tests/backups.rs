//! Named backups: what they hold, for how long, and what an interruption leaves.

use std::collections::{BTreeMap, BTreeSet};

use object_store::{ObjectStoreExt as _, PutPayload};
use tako_types::{ClusterId, ErrorKind, RecordStat, StepNumber};

use super::{leases::steps_until_compacted, *};
use crate::{
    backup::{About, Backup, BackupName, Backups, Count, RecordFns},
    fault::{Match, Op, When},
};

const LOG2: u32 = 5;

pub(super) fn records() -> RecordFns {
    RecordFns { merge, inspect }
}

/// Every record of these tests begins with its time; one that says `damaged` is.
fn inspect(_: &Bytes, record: &Bytes) -> Result<RecordStat, String> {
    let Some((micros, text)) = record.split_first_chunk() else { return Err("short".to_owned()) };
    match text {
        b"damaged" => Err("its checksum is wrong".to_owned()),
        _ => Ok(RecordStat::value(version(u64::from_be_bytes(*micros)), text.len())),
    }
}

pub(super) fn name(text: &str) -> BackupName {
    BackupName::new(text).expect("a name")
}

impl World {
    pub(super) async fn backups(&self) -> Backups {
        self.backups_of(&self.store, LOG2).await
    }

    pub(super) async fn backups_of(&self, store: &Store, log2: u32) -> Backups {
        Backups::open(store.clone(), log2, self.clock.clone(), records()).await.expect("valid")
    }

    async fn named(&self) {
        self.store.cluster_id(Some(ClusterId(1))).await.expect("an id");
    }

    /// The checkpoints of a partition that have a name.
    async fn named_checkpoints(&self, node: &Snapshots) -> usize {
        let admin = node.shared.admin(P);
        let all = admin.list_checkpoints(None).await.expect("a manifest");
        all.iter().filter(|checkpoint| checkpoint.name.is_some()).count()
    }
}

async fn create(backups: &Backups, text: &str) -> Backup {
    backups.create(&name(text), About::default(), &|_| {}).await.expect("a backup")
}

async fn verified(backups: &Backups, backup: &Backup) -> BTreeMap<PartitionId, Count> {
    let verified = backups.verify(backup, &|_| {}).await.expect("it can be read");
    assert_eq!(verified.damage, BTreeMap::new());
    verified.partitions
}

/// Steps by a writer of its own that replace all tables, and a collection.
///
/// One for each writer: times of files are not moved with the clock, so a manifest of just now is
/// collected as one of hours ago, and on a folder a writer that had not seen it looks no further.
async fn replace_and_collect(world: &World, node: &Snapshots, from: u64) {
    let mut writer = node.writer(P).await.expect("a writer");
    steps_until_compacted(&mut writer, from).await;
    world.clock.by_hours(3);
    writer.step(step(vec![row("later", from * 1_000, "y", true)], from)).await.expect("a step");
    let done = writer.maintain().await.expect("maintenance");
    assert!(done.collected, "{done:?}");
    writer.close().await;
}

#[tokio::test]
async fn a_backup_outlives_steps_compactions_and_collections_and_its_files_go_with_it() {
    for world in World::all() {
        world.named().await;
        let (node, backups) = (world.node().await, world.backups().await);
        let mut writer = node.writer(P).await.expect("a writer");
        // More than one block.
        let big = "x".repeat(9_000);
        let (a, b) = (key_of_p(0), key_of_p(1));
        let rows = vec![row(&a, 1, "first", true), row(&b, 2, &big, true)];
        writer.step(step(rows, 1)).await.expect("a step");
        let backup = create(&backups, "before").await;
        assert_eq!(backup.partitions.keys().copied().collect::<Vec<_>>(), [P]);
        assert_eq!(backup.partitions[&P].step, StepNumber(1));
        let counted = verified(&backups, &backup).await;
        assert_eq!(counted[&P].records, 2);
        let tables = async || {
            let names = node.store().names("partitions/5-3/db/compacted").await;
            names.expect("a list").into_iter().collect::<BTreeSet<_>>()
        };
        let first = tables().await;
        assert_eq!(first.len(), 1);

        // The open writer goes on, and everything of the first step is replaced.
        writer.step(step(vec![row(&a, 9, "second", true)], 2)).await.expect("a step");
        writer.close().await;
        replace_and_collect(&world, &node, 100).await;
        replace_and_collect(&world, &node, 1_000).await;
        let cold = world.node().await;
        let checkpoint = backup.partitions[&P].checkpoint;
        let reader = cold.reader_at(P, checkpoint).await.expect("it is held");
        assert_eq!(text(&reader, &a).await.as_deref(), Some("first"));
        assert_eq!(text(&reader, &b).await.as_deref(), Some(big.as_str()));
        reader.close().await;
        let again = world.backups().await;
        assert_eq!(verified(&again, &backup).await, counted);
        let now = node.reader_latest(P).await.expect("a look").expect("a reader");
        assert_eq!(text(&now, &a).await.as_deref(), Some("second"));

        assert!(first.is_subset(&tables().await), "its table is held");
        assert!(again.delete(&name("before")).await.expect("deleted"));
        assert!(!again.delete(&name("before")).await.expect("nothing is left"));
        replace_and_collect(&world, &node, 2_000).await;
        replace_and_collect(&world, &node, 3_000).await;
        assert!(first.is_disjoint(&tables().await), "nothing needs it any more");
        let gone = cold.reader_at(P, checkpoint).await.err().expect("its files went");
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        let error = again.find(&name("before")).await.expect_err("deleted");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        for node in [node, cold] {
            node.close().await;
        }
    }
}

#[tokio::test]
async fn a_node_that_starts_never_reads_by_a_checkpoint_that_may_be_deleted_at_any_time() {
    for world in World::all() {
        world.named().await;
        let (node, backups) = (world.node().await, world.backups().await);
        let mut writer = node.writer(P).await.expect("a writer");
        let done = writer.step(step(vec![row("a", 1, "x", true)], 1)).await.expect("a step");
        let backup = create(&backups, "b").await;
        let found = node.reader_latest(P).await.expect("a look").expect("a reader");
        assert_eq!(found.checkpoint(), done.checkpoint, "the step's own lease");
        // That one is over: the backup's is the newest there is.
        world.clock.by_hours(1);
        let found = node.reader_latest(P).await.expect("a look").expect("a reader");
        assert_ne!(found.checkpoint().id, backup.partitions[&P].checkpoint.id);
        assert_eq!(text(&found, "a").await.as_deref(), Some("x"));
        node.close().await;
    }
}

#[tokio::test]
async fn backups_are_listed_shown_and_named_once() {
    for world in World::all() {
        let backups = world.backups().await;
        let error = backups.create(&name("a"), About::default(), &|_| {}).await.expect_err("none");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        world.named().await;
        let about = About {
            configuration: Some(Bytes::from_static(b"{}")),
            not_stepped: vec![PartitionId(2)],
        };
        let empty = backups.create(&name("empty"), about, &|_| {}).await.expect("of nothing");
        assert_eq!(empty.partitions, BTreeMap::new());
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        writer.step(step(vec![row(&key_of_p(0), 1, "x", true)], 1)).await.expect("a step");
        let full = create(&backups, "full.1").await;
        let error = backups.create(&name("full.1"), About::default(), &|_| {}).await;
        assert_eq!(error.expect_err("twice").kind(), ErrorKind::Conflict);
        assert_eq!(world.named_checkpoints(&node).await, 1, "the refused one left none");
        verified(&backups, &full).await;

        let listed = backups.list().await.expect("a list");
        let listed: Vec<_> =
            listed.into_iter().map(|l| (l.backup.expect("readable"), l.verified)).collect();
        assert_eq!(listed, [(empty.clone(), false), (full.clone(), true)]);
        assert_eq!(backups.find(&name("empty")).await.expect("there"), empty);
        assert_eq!(full.cluster, ClusterId(1));
        node.close().await;
    }
}

#[tokio::test]
async fn a_flipped_bit_in_a_table_is_found_with_its_partition_and_the_others_are_read() {
    for world in World::all() {
        world.named().await;
        let (node, backups) = (world.node().await, world.backups().await);
        for partition in [P, PartitionId(9)] {
            let mut writer = node.writer(partition).await.expect("a writer");
            let rows =
                (0..40).map(|n| row(&key_of(partition, n), n as u64 + 1, &"v".repeat(500), true));
            writer.step(step(rows.collect(), 1)).await.expect("a step");
        }
        let backup = create(&backups, "b").await;
        let store = world.store.object_store();
        let folder = "partitions/5-9/db/compacted";
        let table = world.store.names(folder).await.expect("a list")[0].clone();
        let path = world.store.path(&format!("{folder}/{table}"));
        let mut bytes =
            store.get(&path).await.expect("there").bytes().await.expect("read").to_vec();
        bytes[2_000] ^= 4;
        store.put(&path, PutPayload::from(bytes)).await.expect("written");

        // With a cold cache.
        let cold = world.backups().await;
        let verified = cold.verify(&backup, &|_| {}).await.expect("the store answers");
        let damaged: Vec<_> = verified.damage.keys().copied().collect();
        assert_eq!(damaged, [PartitionId(9)], "{:?}", verified.damage);
        assert_eq!(verified.partitions[&P].records, 40);
        let listed = cold.list().await.expect("a list");
        assert!(!listed[0].verified, "what was counted beside damage is not kept");
        node.close().await;
    }
}

#[tokio::test]
async fn a_record_with_a_wrong_checksum_and_a_count_that_changed_are_damage() {
    let world = World::memory();
    world.named().await;
    let (node, backups) = (world.node().await, world.backups().await);
    let mut writer = node.writer(P).await.expect("a writer");
    let inside = key_of_p(0);
    writer.step(step(vec![row(&inside, 1, "fine", true)], 1)).await.expect("a step");
    let first = create(&backups, "first").await;
    assert_eq!(verified(&backups, &first).await[&P].records, 1);
    writer.step(step(vec![row(&key_of_p(1), 2, "damaged", true)], 2)).await.expect("a step");
    let second = create(&backups, "second").await;
    let verified = backups.verify(&second, &|_| {}).await.expect("read");
    let what = verified.damage.get(&P).expect("found");
    assert!(what.contains(&key_of_p(1)) && what.contains("checksum"), "{what}");

    // As if the checkpoint showed something else than at first.
    let forged = Backup { partitions: second.partitions, ..first };
    let verified = backups.verify(&forged, &|_| {}).await.expect("read");
    assert!(verified.compared && verified.damage.contains_key(&P));
    node.close().await;
}

fn key_of_p(n: usize) -> String {
    key_of(P, n)
}

/// The nth key of a partition.
fn key_of(partition: PartitionId, n: usize) -> String {
    let is_there = |name: &String| {
        let key = tako_types::Key::new(0, Bytes::from(name.clone())).expect("short");
        key.stored().partition(LOG2) == partition
    };
    (0..).map(|n| format!("key-{n}")).filter(is_there).nth(n).expect("there are many")
}

/// Fails each store call of a create in turn, then looks at what is left and repeats it.
async fn fail_every_call_of_a_create(world: fn() -> World, when: When) {
    for n in 0.. {
        let world = world();
        world.named().await;
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        writer.step(step(vec![row(&key_of_p(0), 1, "x", true)], 1)).await.expect("a step");
        let backups = world.backups().await;
        world.fault.fail_from(Match::any(), n, when);
        let outcome = backups.create(&name("b"), About::default(), &|_| {}).await;
        let failed = world.fault.failed();
        world.fault.clear();
        let what = format!("call {n}, {when:?}: {outcome:?}");

        // It is there whole, or not at all; then a repeat makes it.
        let backup = match world.backups().await.find(&name("b")).await {
            Ok(backup) => backup,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{what}");
                assert!(outcome.is_err(), "{what}");
                create(&world.backups().await, "b").await
            }
        };
        assert_eq!(verified(&world.backups().await, &backup).await[&P].records, 1, "{what}");
        assert_eq!(world.named_checkpoints(&node).await, 1, "nothing is left over: {what}");
        assert!(backups.delete(&name("b")).await.expect("deleted"), "{what}");
        assert_eq!(world.named_checkpoints(&node).await, 0, "{what}");
        node.close().await;
        if failed == 0 {
            assert!(n > 5, "a backup takes some calls");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_cut_short_anywhere_leaves_a_backup_or_none_and_can_be_repeated() {
    for world in [World::memory, World::folder] {
        for when in [When::Before, When::After] {
            fail_every_call_of_a_create(world, when).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_cut_short_anywhere_can_be_repeated_until_nothing_is_left() {
    for when in [When::Before, When::After] {
        for n in 0.. {
            let world = World::memory();
            world.named().await;
            let node = world.node().await;
            let mut writer = node.writer(P).await.expect("a writer");
            writer.step(step(vec![row(&key_of_p(0), 1, "x", true)], 1)).await.expect("a step");
            let backups = world.backups().await;
            let backup = create(&backups, "b").await;
            verified(&backups, &backup).await;
            world.fault.fail_from(Match::any(), n, when);
            let outcome = backups.delete(&name("b")).await;
            let failed = world.fault.failed();
            world.fault.clear();
            let what = format!("call {n}, {when:?}: {outcome:?}");
            if let Ok(found) = backups.find(&name("b")).await {
                // Its checkpoint is still there.
                verified(&world.backups().await, &found).await;
            }
            world.backups().await.delete(&name("b")).await.expect("a repeat");
            assert_eq!(world.named_checkpoints(&node).await, 0, "{what}");
            assert_eq!(world.store.names("backups").await.expect("a list"), [""; 0], "{what}");
            node.close().await;
            if failed == 0 {
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_a_create_left_that_nobody_repeats_goes_with_any_other_an_hour_later() {
    let world = World::memory();
    world.named().await;
    let (node, backups) = (world.node().await, world.backups().await);
    let mut writer = node.writer(P).await.expect("a writer");
    writer.step(step(vec![row("a", 1, "x", true)], 1)).await.expect("a step");
    world.fault.fail_from(Match::op(Op::Put).on("backups/"), 0, When::Before);
    backups.create(&name("dead"), About::default(), &|_| {}).await.expect_err("no document");
    world.fault.clear();
    assert_eq!(world.named_checkpoints(&node).await, 1);
    create(&backups, "soon").await;
    assert_eq!(world.named_checkpoints(&node).await, 2, "it might still be under way");
    world.clock.by_hours(2);
    create(&backups, "later").await;
    assert_eq!(world.named_checkpoints(&node).await, 2, "those with a document");
    node.close().await;
}

/// A world with one step, and what a create comes to during which `meanwhile` happens.
async fn create_during(
    world: &World,
    meanwhile: impl Fn() + Sync,
) -> Result<Backup, crate::backup::BackupError> {
    world.named().await;
    let node = world.node().await;
    let mut writer = node.writer(P).await.expect("a writer");
    writer.step(step(vec![row("a", 1, "x", true)], 1)).await.expect("a step");
    writer.close().await;
    node.close().await;
    world.backups().await.create(&name("late"), About::default(), &|_| meanwhile()).await
}

async fn is_nothing_left_of_it(world: &World) {
    let node = world.node().await;
    assert_eq!(world.named_checkpoints(&node).await, 0);
    assert_eq!(world.store.names("backups").await.expect("a list"), [""; 0]);
    node.close().await;
}

#[tokio::test]
async fn a_create_that_stood_still_for_so_long_that_others_may_clean_up_after_it_commits_nothing() {
    let world = World::memory();
    let meanwhile = || {
        world.clock.by_minutes(31);
        // Not even for the moment until it would be taken back.
        world.fault.fail_from(Match::op(Op::Put).on("backups/"), 0, When::Before);
    };
    let error = create_during(&world, meanwhile).await.expect_err("too late");
    assert_eq!(error.kind(), ErrorKind::Deadline, "{error}");
    assert!(error.to_string().contains("try again"), "{error}");
    is_nothing_left_of_it(&world).await;

    let world = World::memory();
    create_during(&world, || world.clock.by_minutes(29)).await.expect("in time");
}

#[tokio::test(start_paused = true)]
async fn a_create_that_stood_still_while_its_document_was_written_takes_it_back() {
    let world = World::memory();
    let marked = tokio::sync::Notify::new();
    let creating = create_during(&world, || {
        world.fault.slow(Some(Duration::from_millis(10)));
        marked.notify_one();
    });
    let stands_still = async {
        marked.notified().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        world.clock.by_hours(2);
    };
    let (created, ()) = tokio::join!(creating, stands_still);
    let error = created.expect_err("others may have taken its checkpoints away");
    assert_eq!(error.kind(), ErrorKind::Deadline, "{error}");
    is_nothing_left_of_it(&world).await;
}
