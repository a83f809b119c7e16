//! What steps, reads and rest cost in requests (DESIGN section 6, "Measured budget").

use super::*;
use crate::{PartitionWriter, settings::COMPACT_FROM_TABLES};

/// About a MiB of fresh rows.
fn big_step(n: u64) -> StepInput {
    let filler = "x".repeat(4000);
    let rows = (0..256).map(|i| row(&format!("{n}-{i}"), n * 1000 + i, &filler, true)).collect();
    step(rows, n)
}

#[tokio::test]
async fn a_step_takes_two_puts_and_four_with_compaction_on_average() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        let start = world.store.counts();
        let (mut worst_step, mut compactions) = (0, 0);
        let steps = 4 * COMPACT_FROM_TABLES as u64;
        for n in 1..=steps {
            let before = world.store.counts();
            writer.step(big_step(n)).await.expect("a step");
            let cost = world.store.counts().since(&before);
            worst_step = worst_step.max(cost.puts_and_lists());
            assert!(cost.gets <= 6, "step {n}: {cost:?}");
            let done = writer.maintain().await.expect("maintenance");
            compactions += u32::from(done.compacted);
        }
        let all = world.store.counts().since(&start);
        println!("{steps} steps, {compactions} compactions: {all:?}; worst step {worst_step}");
        assert!(compactions >= 3, "{compactions} compactions");
        assert!(worst_step <= 4, "a step took {worst_step} PUT and LIST");
        assert!(all.puts_and_lists() <= steps * 4, "{all:?}");
        node.close().await;
    }
}

/// A writer whose snapshot is to be compacted, at a node that does not wait for that.
async fn with_many_tables(world: &World) -> (Arc<Snapshots>, PartitionWriter) {
    let options = SnapshotOptions { maintain_patience: Duration::ZERO, ..options() };
    let node = world.node_with(options).await;
    let mut writer = node.writer(P).await.expect("a writer");
    for n in 1..=COMPACT_FROM_TABLES as u64 {
        writer.step(step(vec![row(&format!("k{n}"), n, "v", true)], n)).await.expect("a step");
    }
    (node, writer)
}

/// Until what runs has ended; whether it compacted.
async fn compacted(writer: &mut PartitionWriter) -> bool {
    loop {
        let done = writer.maintain().await.expect("maintenance");
        if !done.running {
            break done.compacted;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_compaction_begins_while_it_is_held_and_one_does_as_soon_as_it_is_not() {
    let world = World::memory();
    let (node, mut writer) = with_many_tables(&world).await;
    node.hold_compaction(true);
    assert!(!writer.maintain().await.expect("maintenance").running);
    node.hold_compaction(false);
    assert!(compacted(&mut writer).await);
    node.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_compaction_that_is_held_stands_still_until_it_is_not_or_two_minutes_are_over() {
    for released in [true, false] {
        let world = World::memory();
        let (node, mut writer) = with_many_tables(&world).await;
        let turn = node.shared.compacting.acquire().await.expect("nobody compacts");
        assert!(writer.maintain().await.expect("maintenance").running, "it awaits its turn");
        node.hold_compaction(true);
        let begun = tokio::time::Instant::now();
        drop(turn);
        tokio::time::sleep(Duration::from_secs(60)).await;
        // Said again for the next document of the same move.
        node.hold_compaction(true);
        tokio::time::sleep(Duration::from_secs(50)).await;
        let before = world.store.counts();
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(world.store.counts(), before);
        assert!(writer.maintain().await.expect("maintenance").running, "it stands still");
        if released {
            node.hold_compaction(false);
        }
        assert!(compacted(&mut writer).await);
        let seconds = begun.elapsed().as_secs();
        let expected = if released { 119..120 } else { 120..125 };
        assert!(expected.contains(&seconds), "{seconds}, released: {released}");
        node.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_ends_waits_for_no_compaction_that_is_held() {
    let world = World::memory();
    let (node, mut writer) = with_many_tables(&world).await;
    let turn = node.shared.compacting.acquire().await.expect("nobody compacts");
    assert!(writer.maintain().await.expect("maintenance").running, "it awaits its turn");
    node.hold_compaction(true);
    drop(turn);
    tokio::time::sleep(Duration::from_secs(1)).await;
    writer.close().await;
    // It has left its place, so that another partition's compaction may begin.
    let place = tokio::time::timeout(Duration::from_secs(1), node.shared.compacting.acquire());
    drop(place.await.expect("a place").expect("the node is open"));
    node.close().await;
}

#[tokio::test]
async fn a_move_to_an_announced_step_takes_one_list_and_few_gets() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        let mut done = writer.step(big_step(1)).await.expect("a step");
        for n in 2..5 {
            done = writer.step(big_step(n)).await.expect("a step");
            let before = world.store.counts();
            let reader = node.reader_at(P, done.checkpoint).await.expect("a reader");
            let cost = world.store.counts().since(&before);
            println!("move: {cost:?}");
            assert!(cost.puts == 0 && cost.lists <= 2 && cost.gets <= 8, "{cost:?}");
            drop(reader);
        }
        let _ = done;
        node.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn at_rest_nothing_is_asked_of_the_store() {
    let world = World::memory();
    let node = world.node().await;
    let mut writer = node.writer(P).await.expect("a writer");
    let done = writer.step(step(vec![row("a", 1, "x", true)], 1)).await.expect("a step");
    let _reader = node.reader_at(P, done.checkpoint).await.expect("a reader");
    writer.maintain().await.expect("nothing to do");
    let before = world.store.counts();
    // Virtual time: half an hour passes as soon as every task is idle.
    tokio::time::sleep(Duration::from_secs(1800)).await;
    let cost = world.store.counts().since(&before);
    assert_eq!(cost.requests(), 0, "{cost:?}");
    node.close().await;
}

#[tokio::test]
async fn a_get_of_a_plain_row_reads_one_block_however_many_tables_there_are() {
    for world in World::all() {
        let (node, cold) = (world.node().await, world.node().await);
        let mut writer = node.writer(P).await.expect("a writer");
        let mut done = None;
        for n in 1..=7 {
            done = Some(writer.step(big_step(n)).await.expect("a step"));
        }
        let reader = cold.reader_at(P, done.expect("steps").checkpoint).await.expect("a reader");
        // Warms filters and the indexes of tables that hold the names asked for.
        for n in 1..=7 {
            text(&reader, &format!("{n}-0")).await.expect("a record");
        }
        for n in 1..=7 {
            let before = world.store.counts();
            text(&reader, &format!("{n}-200")).await.expect("a record");
            let cost = world.store.counts().since(&before);
            assert!(cost.gets <= 2, "{n}: {cost:?}");
            let before = world.store.counts();
            text(&reader, &format!("{n}-200")).await.expect("a record");
            assert_eq!(world.store.counts().since(&before).requests(), 0, "cached");
        }
        // The newest row is a Put in the newest table: one block, or two on a false positive.
        let before = world.store.counts();
        text(&reader, "7-100").await.expect("a record");
        let cost = world.store.counts().since(&before);
        assert!(cost.gets <= 1, "{cost:?}");
        let before = world.store.counts();
        assert_eq!(text(&reader, "nothing").await, None);
        assert!(world.store.counts().since(&before).gets <= 1);
        node.close().await;
        cold.close().await;
    }
}

/// A writer that has made so many steps that their tables were compacted again and again.
async fn sixty_steps(node: &Snapshots) -> PartitionWriter {
    let mut writer = node.writer(P).await.expect("a writer");
    for n in 1..=60 {
        writer.step(step(vec![row(&format!("{n}"), n, "x", true)], n)).await.expect("a step");
        writer.maintain().await.expect("maintenance");
    }
    writer
}

#[tokio::test]
async fn after_many_steps_a_start_a_collection_and_a_take_over_ask_little() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = sixty_steps(&node).await;
        // With the last step's lease, and where that is over.
        for (hours, puts) in [(0, 0), (3, 1)] {
            world.clock.by_hours(hours);
            let cold = world.node().await;
            let before = world.store.counts();
            let reader = cold.reader_latest(P).await.expect("a look").expect("a reader");
            let cost = world.store.counts().since(&before);
            println!("start, {hours} h later: {cost:?}");
            assert!(cost.puts == puts && cost.lists <= 3 && cost.gets <= 16, "{cost:?}");
            reader.close().await;
            cold.close().await;
        }
        writer.step(step(vec![row("later", 100, "x", true)], 100)).await.expect("a step");
        let before = world.store.counts();
        assert!(writer.maintain().await.expect("maintenance").collected);
        let cost = world.store.counts().since(&before);
        println!("collection: {cost:?}");
        assert!(cost.deletes >= 60, "one for each file that goes: {cost:?}");
        assert!(cost.puts_and_lists() <= 12, "{cost:?}");
        assert!(cost.gets <= 30 + cost.deletes, "{cost:?}");

        let cold = world.node().await;
        let before = world.store.counts();
        let next = cold.writer(P).await.expect("a take-over");
        let cost = world.store.counts().since(&before);
        println!("take-over: {cost:?}");
        assert!(cost.puts_and_lists() <= 6 && cost.gets <= 20, "{cost:?}");
        drop(next);
        cold.close().await;
        node.close().await;
    }
}
