//! What a lease of a quarter of an hour keeps, and for how long.

use super::*;
use crate::{Checkpoint, PartitionWriter, SnapshotError};

/// Steps until a compaction has replaced the tables of the newest one; that one's checkpoint.
async fn step_whose_tables_were_compacted(writer: &mut PartitionWriter) -> Checkpoint {
    // More than one block each, as opening a reader reads the meta's.
    let big = "x".repeat(9_000);
    for n in 1..100 {
        let rows = vec![row("first", n * 10, &big, false), row("second", n * 10 + 1, &big, false)];
        let done = writer.step(step(rows, n)).await.expect("a step");
        if writer.maintain().await.expect("maintenance").compacted {
            return done.checkpoint;
        }
    }
    panic!("no compaction");
}

/// One more step, and whether garbage was collected after it.
async fn step_collects(writer: &mut PartitionWriter, n: u64) -> bool {
    writer.step(step(vec![row("later", n, "y", true)], n)).await.expect("a step");
    writer.maintain().await.expect("maintenance").collected
}

#[tokio::test]
async fn a_view_keeps_its_files_for_half_a_lease_after_the_step_that_replaced_it() {
    for world in World::all() {
        // The reader's own node: its cache holds nothing of the files.
        let (node, other) = (world.node().await, world.node().await);
        let mut writer = node.writer(P).await.expect("a writer");
        let newest = step_whose_tables_were_compacted(&mut writer).await;
        let view = other.reader_at(P, newest).await.expect("a reader");
        // Quiet: all leases are over, though the view shows the newest state.
        world.clock.by_hours(3);
        assert!(step_collects(&mut writer, 9_000).await);
        assert!(text(&view, "first").await.is_some(), "the step's announcement is on its way");
        world.clock.by_minutes(7);
        assert!(text(&view, "first").await.is_some());

        world.clock.by_hours(3);
        assert!(step_collects(&mut writer, 9_001).await);
        let error = view.get(&key("second")).await.expect_err("its files are garbage by now");
        assert!(matches!(error, SnapshotError::Gone), "{error:?}");
        node.close().await;
        other.close().await;
    }
}

#[tokio::test]
async fn a_new_writer_collects_nothing_while_readers_move_on_to_its_first_step() {
    for world in World::all() {
        let (node, other) = (world.node().await, world.node().await);
        let mut writer = node.writer(P).await.expect("a writer");
        let newest = step_whose_tables_were_compacted(&mut writer).await;
        let view = other.reader_at(P, newest).await.expect("a reader");
        world.clock.by_hours(3);
        let mut next = other.writer(P).await.expect("a writer");
        assert!(!step_collects(&mut next, 9_000).await);
        world.clock.by_minutes(7);
        assert!(!step_collects(&mut next, 9_001).await);
        assert!(text(&view, "first").await.is_some(), "its replica may yet be on it");
        world.clock.by_minutes(1);
        assert!(step_collects(&mut next, 9_002).await);
        let error = view.get(&key("second")).await.expect_err("its files are garbage by now");
        assert!(matches!(error, SnapshotError::Gone), "{error:?}");
        node.close().await;
        other.close().await;
    }
}

#[tokio::test]
async fn a_manifest_names_the_steps_of_one_lease_and_of_the_time_between_collections() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        let mut most = 0;
        for n in 1..=50 {
            world.clock.by_minutes(5);
            step_collects(&mut writer, n).await;
            let manifest = node.shared.admin(P).read_manifest(None).await.expect("a look");
            most = most.max(manifest.expect("there is one").checkpoints().len());
        }
        // A step every 5 minutes: 3 within the lease, 12 until the next collection, and 2
        // compactions.
        assert!(most <= 3 + 12 + 2, "{most} checkpoints");
        node.close().await;
    }
}

#[tokio::test]
async fn a_lease_too_short_to_move_on_in_is_refused() {
    let short = SnapshotOptions { lease: Duration::from_secs(60), ..options() };
    let store = Store::in_memory();
    let error = Snapshots::new(store, short, Arc::<Moved>::default(), merge).await.err();
    assert!(matches!(error, Some(SnapshotError::Invalid(_))), "{error:?}");
}
