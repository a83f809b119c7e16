//! Orphans: what is found, and that nothing goes which anything needs.

use object_store::ObjectStoreExt as _;
use slatedb::{admin::AdminBuilder, config::CheckpointOptions};

use super::*;
use crate::{Orphan, OrphanKind, snapshots::Shared};

async fn one_step(world: &World, node: &Snapshots) {
    let mut writer = node.writer(P).await.expect("a writer");
    writer.step(step(vec![row("k", 1, "v", true)], 1)).await.expect("a step");
    writer.close().await;
    assert!(world.store.counts().puts > 0);
}

async fn make_checkpoint(shared: &Shared, name: Option<&str>) {
    let admin = AdminBuilder::new(shared.db_path(P), shared.store.object_store()).build();
    let options =
        CheckpointOptions { name: name.map(str::to_owned), ..CheckpointOptions::default() };
    admin.create_detached_checkpoint(&options).await.expect("a checkpoint");
}

async fn put_object(world: &World, path: &str) {
    world.store.object_store().put(&path.into(), "x".into()).await.expect("written");
}

fn kinds(orphans: &[Orphan]) -> Vec<String> {
    let kind = |orphan: &Orphan| match &orphan.kind {
        OrphanKind::Database { needed } => format!("database needed={needed} {}", orphan.path),
        OrphanKind::Backup { name, .. } => format!("backup {name}"),
        OrphanKind::Checkpoint { .. } => "checkpoint".to_owned(),
        OrphanKind::Stray => format!("stray {}", orphan.path),
    };
    let mut kinds: Vec<_> = orphans.iter().map(kind).collect();
    kinds.sort();
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_belongs_to_nothing_is_found_and_only_what_is_old_and_unneeded_goes() {
    let world = World::memory();
    let node = world.node().await;
    one_step(&world, &node).await;
    assert_eq!(node.orphans().await.expect("listed"), []);

    make_checkpoint(&node.shared, Some("backup-kept")).await;
    put_object(&world, "backups/kept/document").await;
    make_checkpoint(&node.shared, Some("backup-gone")).await;
    make_checkpoint(&node.shared, Some("somebody else's")).await;
    make_checkpoint(&node.shared, None).await;
    // A database of 8 partitions that nothing is kept of, and one that a backup needs.
    for (p, keeps) in [(PartitionId(1), false), (PartitionId(2), true)] {
        let other = world.node_with(SnapshotOptions { partitions_log2: 3, ..options() }).await;
        let mut writer = other.writer(p).await.expect("a writer");
        writer.step(step(vec![row("k", 1, "v", true)], 1)).await.expect("a step");
        writer.close().await;
        if keeps {
            let db = other.shared.db_path(p);
            let admin = AdminBuilder::new(db, world.store.object_store()).build();
            let options = CheckpointOptions {
                name: Some("backup-kept".to_owned()),
                ..CheckpointOptions::default()
            };
            admin.create_detached_checkpoint(&options).await.expect("a checkpoint");
        }
        other.close().await;
    }
    put_object(&world, "cluster").await;
    put_object(&world, "config/00000000000000000001").await;
    put_object(&world, "notes.txt").await;
    put_object(&world, "elsewhere/a/b").await;

    let found = node.orphans().await.expect("listed");
    let all = [
        "backup gone",
        "checkpoint",
        "database needed=false partitions/3-1",
        "database needed=true partitions/3-2",
        "stray elsewhere",
        "stray notes.txt",
    ];
    assert_eq!(kinds(&found), all);
    for orphan in &found {
        assert!(!node.delete_orphan(orphan).await.expect("asked"), "too young: {orphan}");
    }
    assert_eq!(kinds(&node.orphans().await.expect("listed")), all);

    world.clock.by_hours(8 * 24);
    for orphan in node.orphans().await.expect("listed") {
        let goes = matches!(orphan.kind, OrphanKind::Backup { .. })
            || orphan.kind == OrphanKind::Database { needed: false };
        assert_eq!(node.delete_orphan(&orphan).await.expect("deleted"), goes, "{orphan}");
    }
    let left = [all[1], all[3], all[4], all[5]];
    assert_eq!(kinds(&node.orphans().await.expect("listed")), left);
    // What lives is as it was.
    let reader = node.reader_latest(P).await.expect("a look").expect("a step");
    assert_eq!(text(&reader, "k").await.as_deref(), Some("v"));
    reader.close().await;
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_has_no_orphans_to_tell_of() {
    let world = World::memory();
    let node = world.node().await;
    one_step(&world, &node).await;
    world.fault.refuse_all();
    assert!(node.orphans().await.is_err());
    world.fault.clear();
    node.close().await;
}
