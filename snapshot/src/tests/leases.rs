//! Compaction, collection and the checkpoints that hold files.

use tako_types::{ErrorKind, StepNumber};

use super::*;
use crate::settings::COMPACT_FROM_TABLES;
use crate::{Checkpoint, PartitionWriter, SnapshotError};

/// Steps that mix fresh keys, merges and deletes until a compaction has run; what should be there.
pub(super) async fn steps_until_compacted(
    writer: &mut PartitionWriter,
    from: u64,
) -> std::collections::BTreeMap<String, String> {
    let mut expected = std::collections::BTreeMap::new();
    for n in from.. {
        let mut rows = vec![row("always", n * 10, &format!("v{n}"), n % 2 == 0)];
        rows.push(row(&format!("once-{n}"), n * 10 + 1, "x", true));
        rows.push(row("never", n + 1, "older", false));
        if n == from {
            rows.push(row("never", 1_000_000, "newer", false));
        }
        writer.step(step(rows, n)).await.expect("a step");
        expected.insert("always".to_owned(), format!("v{n}"));
        expected.insert(format!("once-{n}"), "x".to_owned());
        let done = writer.maintain().await.expect("maintenance");
        let patience = 2 * COMPACT_FROM_TABLES as u64;
        assert!(n < from + patience, "no compaction in {patience} steps: {done:?}");
        if done.compacted {
            break;
        }
    }
    expected.insert("never".to_owned(), "newer".to_owned());
    expected
}

#[tokio::test]
async fn compaction_keeps_every_record_and_readers_of_older_steps() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        let first = writer.step(step(vec![row("old", 1, "x", true)], 1)).await.expect("a step");
        let old = node.reader_at(P, first.checkpoint).await.expect("a reader");
        let expected = steps_until_compacted(&mut writer, 2).await;
        assert!(writer.l0_tables() < 4, "{} tables left", writer.l0_tables());

        let done = writer.step(step(Vec::new(), 99)).await.expect("a step");
        let new = node.reader_at(P, done.checkpoint).await.expect("a reader");
        for (name, value) in &expected {
            assert_eq!(text(&new, name).await.as_ref(), Some(value), "{name}");
            let own = writer.get(&key(name)).await.expect("a read").expect("a record");
            assert_eq!(&own[8..], value.as_bytes());
        }
        assert_eq!(new.scan(.., 99).await.expect("a scan").rows.len(), expected.len() + 1);
        assert_eq!(text(&old, "old").await.as_deref(), Some("x"));
        assert_eq!(text(&old, "always").await, None);
        assert_eq!(old.meta().step, StepNumber(1));
        node.close().await;
    }
}

#[tokio::test]
async fn a_collected_checkpoint_is_gone_and_a_live_one_is_not() {
    for world in World::all() {
        let (node, late) = (world.node().await, world.node().await);
        let mut writer = node.writer(P).await.expect("a writer");
        // More than one block, as opening a reader reads the meta's.
        let big = "x".repeat(9_000);
        let rows = vec![row("a", 1, "x", true), row("big", 2, &big, true)];
        let first = writer.step(step(rows, 1)).await.expect("a step");
        // Opened by a node with a cold cache, and without a read yet.
        let lagging = late.reader_at(P, first.checkpoint).await.expect("a reader");
        steps_until_compacted(&mut writer, 2).await;

        // All leases are over; the next steps bring new ones and collect.
        world.clock.by_hours(3);
        let fresh = writer.step(step(vec![row("b", 9_000, "y", true)], 80)).await.expect("a step");
        let done = writer.maintain().await.expect("maintenance");
        assert!(done.collected, "{done:?}");
        // Again, with a compaction in between: it replaces what the first collection kept.
        world.clock.by_hours(3);
        steps_until_compacted(&mut writer, 100).await;
        world.clock.by_hours(3);
        let last = writer.step(step(vec![row("b", 9_001, "z", true)], 200)).await.expect("a step");
        let done = writer.maintain().await.expect("maintenance");
        assert!(done.collected, "{done:?}");

        let error = node.reader_at(P, first.checkpoint).await.err().expect("collected");
        assert!(matches!(error, SnapshotError::Gone), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = node.reader_at(P, fresh.checkpoint).await.err().expect("collected");
        assert!(matches!(error, SnapshotError::Gone), "{error:?}");
        let unknown = Checkpoint { id: 77, manifest: 1 };
        let error = node.reader_at(P, unknown).await.err().expect("never was");
        assert!(matches!(error, SnapshotError::Gone), "{error:?}");
        let error = lagging.scan(.., 10).await.expect_err("its file was collected");
        assert!(matches!(error, SnapshotError::Gone), "{error:?}");
        let error = lagging.get(&key("big")).await.expect_err("its file was collected");
        assert!(matches!(error, SnapshotError::Gone), "{error:?}");

        let reader = late.reader_at(P, last.checkpoint).await.expect("a live one");
        assert_eq!(text(&reader, "b").await.as_deref(), Some("z"));
        assert_eq!(text(&reader, "a").await.as_deref(), Some("x"));
        node.close().await;
        late.close().await;
    }
}

#[tokio::test]
async fn a_starting_node_uses_a_live_step_and_leases_one_where_none_is_left() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        let done = writer.step(step(vec![row("a", 1, "x", true)], 1)).await.expect("a step");
        // A take-over moves the manifest but not the records.
        let _taken = node.writer(P).await.expect("a writer");
        let before = world.store.counts();
        let reader = node.reader_latest(P).await.expect("a look").expect("a reader");
        assert_eq!(reader.checkpoint(), done.checkpoint);
        assert_eq!(world.store.counts().since(&before).puts, 0);

        // Too little of the lease is left.
        world.clock.by_hours(2);
        let before = world.store.counts();
        let reader = node.reader_latest(P).await.expect("a look").expect("a reader");
        assert_ne!(reader.checkpoint(), done.checkpoint);
        assert_eq!(world.store.counts().since(&before).puts, 1);
        assert_eq!(reader.meta(), &done.meta);
        assert_eq!(text(&reader, "a").await.as_deref(), Some("x"));
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_go_on_while_a_compaction_runs_and_a_take_over_ends_it() {
    const STEPS_BESIDE: u32 = 8;
    for world in World::all() {
        let impatient =
            || crate::SnapshotOptions { maintain_patience: Duration::from_millis(5), ..options() };
        let (one, two) = (world.node_with(impatient()).await, world.node_with(impatient()).await);
        let mut writer = one.writer(P).await.expect("a writer");
        let (mut n, mut beside) = (0, 0);
        let mut compacted = 0;
        while compacted < 2 {
            n += 1;
            assert!(n < 2_000, "{compacted} compactions, {beside} steps beside them");
            let rows = vec![row("always", n, &format!("v{n}"), n % 3 == 0)];
            writer.step(step(rows, n)).await.expect("a step");
            let mut done = writer.maintain().await.expect("maintenance");
            beside += u32::from(done.running);
            // Enough beside this one: each further step is one table more for all that follow.
            while done.running && beside.is_multiple_of(STEPS_BESIDE) {
                done = writer.maintain().await.expect("maintenance");
            }
            compacted += u32::from(done.compacted);
        }
        assert!(beside > 0);
        // Leave one running, and take over from elsewhere.
        while !writer.maintain().await.expect("maintenance").running {
            n += 1;
            let rows = vec![row("always", n, &format!("v{n}"), true)];
            writer.step(step(rows, n)).await.expect("a step");
        }
        let mut next = two.writer(P).await.expect("a writer");
        writer.close().await;
        assert_eq!(next.meta().step, StepNumber(n));
        let done = next.step(step(Vec::new(), n)).await.expect("a step");
        let reader = two.reader_at(P, done.checkpoint).await.expect("a reader");
        assert_eq!(text(&reader, "always").await, Some(format!("v{n}")));
        one.close().await;
        two.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_who_has_a_step_taken_waits_for_the_compaction_after_it() {
    let world = World::memory();
    let default = crate::SnapshotOptions { cache_memory_bytes: 8 << 20, ..Default::default() };
    let node = world.node_with(default).await;
    let mut writer = node.writer(P).await.expect("a writer");
    let began = loop {
        let n = writer.meta().step.0 + 1;
        writer.step(step(vec![row("key", n, "v", true)], n)).await.expect("a step");
        world.fault.slow(Some(Duration::from_secs(3)));
        let began = tokio::time::Instant::now();
        if writer.maintain().await.expect("maintenance").running {
            break began;
        }
        world.fault.slow(None);
        assert!(n < 100, "no compaction");
    };
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    world.fault.slow(None);
    writer.close().await;
    node.close().await;
}

#[tokio::test]
async fn a_compaction_that_fails_costs_nothing_but_time() {
    use crate::fault::{Match, Op, When};
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        world.fault.fail_from(Match::op(Op::Put).on("/compactions/"), 4, When::Before);
        let steps = COMPACT_FROM_TABLES as u64 + 4;
        for n in 1..=steps {
            writer.step(step(vec![row("a", n, &format!("v{n}"), true)], n)).await.expect("a step");
            let done = writer.maintain().await.expect("the writer goes on");
            assert!(!done.compacted, "{done:?}");
        }
        assert!(world.fault.failed() > 0);
        world.fault.clear();
        // What a dead worker had claimed is free after half a minute.
        world.clock.by_hours(1);
        let expected = steps_until_compacted(&mut writer, steps + 1).await;
        let reader = node.reader_latest(P).await.expect("a look").expect("a reader");
        assert_eq!(text(&reader, "a").await.as_deref(), Some(format!("v{steps}").as_str()));
        assert_eq!(text(&reader, "always").await.as_ref(), expected.get("always"));
        node.close().await;
    }
}
