//! Steps, merges, fencing, due rows and purges.

use tako_types::{ErrorKind, StepNumber};

use super::*;
use crate::SnapshotError;

#[tokio::test]
async fn a_step_is_read_back_with_its_meta_by_announcement_and_without() {
    for world in World::all() {
        let node = world.node().await;
        assert!(node.reader_latest(P).await.expect("a look").is_none());
        let mut writer = node.writer(P).await.expect("a writer");
        assert_eq!(writer.meta().step, StepNumber(0));
        // A database without a step is none for readers.
        assert!(node.reader_latest(P).await.expect("a look").is_none());

        let rows = vec![row("a", 5, "one", true), row("b", 6, "two", true)];
        let done = writer.step(step(rows, 17)).await.expect("a step");
        assert_eq!(done.meta.step, StepNumber(1));
        assert_eq!(done.meta.coverage, coverage(17));
        assert_eq!(done.meta.highest, version(6));

        let by_name = node.reader_at(P, done.checkpoint).await.expect("a reader");
        let found = node.reader_latest(P).await.expect("a look").expect("a reader");
        assert_eq!(found.checkpoint(), done.checkpoint, "no checkpoint of its own");
        for reader in [by_name, found] {
            assert_eq!(reader.meta(), &done.meta);
            assert_eq!(text(&reader, "a").await.as_deref(), Some("one"));
            assert_eq!(text(&reader, "b").await.as_deref(), Some("two"));
            assert_eq!(text(&reader, "c").await, None);
            reader.close().await;
        }
        assert_eq!(writer.get(&key("a")).await.expect("a read"), Some(record(5, "one")));
        writer.close().await;
        node.close().await;
    }
}

#[tokio::test]
async fn the_higher_version_wins_however_the_rows_arrive() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        writer.step(step(vec![row("a", 50, "new", true)], 1)).await.expect("a step");
        // Late, older, twice in one step, and a caller that wrongly calls it the newest.
        let late = vec![row("a", 40, "old", true), row("a", 45, "older", false)];
        writer.step(step(late, 2)).await.expect("a step");
        let twice = vec![row("b", 60, "first", true), row("b", 61, "second", true)];
        let done = writer.step(step(twice, 3)).await.expect("a step");
        assert_eq!(done.meta.highest, version(61));
        let reader = node.reader_at(P, done.checkpoint).await.expect("a reader");
        assert_eq!(text(&reader, "a").await.as_deref(), Some("new"));
        assert_eq!(text(&reader, "b").await.as_deref(), Some("second"));
        node.close().await;
    }
}

#[tokio::test]
async fn a_reader_keeps_its_step_while_later_ones_commit() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        let first = writer.step(step(vec![row("a", 1, "v1", true)], 1)).await.expect("a step");
        let old = node.reader_at(P, first.checkpoint).await.expect("a reader");
        let second = writer.step(step(vec![row("a", 2, "v2", true)], 2)).await.expect("a step");
        assert!(second.checkpoint.manifest > first.checkpoint.manifest);
        let new = node.reader_at(P, second.checkpoint).await.expect("a reader");
        assert_eq!(text(&old, "a").await.as_deref(), Some("v1"));
        assert_eq!(old.meta().step, StepNumber(1));
        assert_eq!(text(&new, "a").await.as_deref(), Some("v2"));
        node.close().await;
    }
}

#[tokio::test]
async fn steps_go_on_though_no_compaction_ever_ends() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        for n in 1..=80 {
            // The same key each time, as the meta row is.
            writer.step(step(vec![row("a", n, "v", true)], n)).await.expect("a step");
        }
        assert_eq!(writer.l0_tables(), 80);
        node.close().await;
    }
}

#[tokio::test]
async fn a_second_writer_fences_the_first_and_nothing_later_of_it_is_seen() {
    for world in World::all() {
        let (one, two) = (world.node().await, world.node().await);
        let mut old = one.writer(P).await.expect("a writer");
        old.step(step(vec![row("a", 1, "kept", true)], 5)).await.expect("a step");

        let mut new = two.writer(P).await.expect("a writer");
        assert_eq!(new.meta().step, StepNumber(1));
        assert_eq!(new.meta().coverage, coverage(5));
        let error = old.step(step(vec![row("a", 9, "lost", true)], 9)).await.expect_err("fenced");
        assert!(matches!(error, SnapshotError::Fenced), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let again = old.step(step(Vec::new(), 9)).await.expect_err("still of no use");
        assert_eq!(again.kind(), ErrorKind::Closed);

        let done = new.step(step(vec![row("b", 2, "mine", true)], 6)).await.expect("a step");
        assert_eq!(done.meta.step, StepNumber(2));
        assert_eq!(done.meta.coverage, coverage(6));
        let reader = one.reader_at(P, done.checkpoint).await.expect("a reader");
        assert_eq!(text(&reader, "a").await.as_deref(), Some("kept"));
        assert_eq!(text(&reader, "b").await.as_deref(), Some("mine"));
        one.close().await;
        two.close().await;
    }
}

#[tokio::test]
async fn due_rows_come_in_time_order_and_can_be_dropped() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        let mut input = step(vec![row("a", 1, "x", true), row("b", 2, "y", true)], 1);
        input.due = vec![due("b", 900, 2), due("a", 300, 1), due("a", 300, 0)];
        let done = writer.step(input).await.expect("a step");
        let reader = node.reader_at(P, done.checkpoint).await.expect("a reader");
        let all = [due("a", 300, 0), due("a", 300, 1), due("b", 900, 2)];
        assert_eq!(reader.due(u64::MAX, 10).await.expect("due"), all);
        assert_eq!(reader.due(899, 10).await.expect("due"), all[..2]);
        assert_eq!(reader.due(900, 1).await.expect("due"), all[..1]);
        assert_eq!(reader.due(299, 10).await.expect("due"), []);

        let input = StepInput { drop_due: vec![due("a", 300, 0)], ..step(Vec::new(), 2) };
        let done = writer.step(input).await.expect("a step");
        assert_eq!(writer.due(u64::MAX, 10).await.expect("due"), all[1..]);
        let reader = node.reader_at(P, done.checkpoint).await.expect("a reader");
        assert_eq!(reader.due(u64::MAX, 10).await.expect("due"), all[1..]);
        node.close().await;
    }
}

#[tokio::test]
async fn a_purged_record_is_gone_for_good_unless_the_same_step_brings_a_row_of_it() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        for micros in 1..4 {
            // Merge rows: the delete must hide all of them.
            let rows = ["gone", "stays"].map(|name| row(name, micros, "tomb", false));
            writer.step(step(rows.to_vec(), micros)).await.expect("a step");
        }
        let tombs = vec![due("gone", 7, 3), due("stays", 7, 3)];
        let input = StepInput { due: tombs.clone(), ..step(Vec::new(), 4) };
        writer.step(input).await.expect("a step");
        let mut input = step(vec![row("stays", 2, "late", false)], 5);
        input.purge = tombs.clone();
        let done = writer.step(input).await.expect("a step");
        let reader = node.reader_at(P, done.checkpoint).await.expect("a reader");
        assert_eq!(text(&reader, "gone").await, None);
        assert_eq!(text(&reader, "stays").await.as_deref(), Some("tomb"));
        assert_eq!(reader.due(u64::MAX, 9).await.expect("due"), tombs[1..]);
        let page = reader.scan(.., 10).await.expect("a scan");
        assert_eq!(page.rows.len(), 1, "{page:?}");
        node.close().await;
    }
}

#[tokio::test]
async fn a_scan_shows_records_only_in_order_and_by_pages() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        let names: Vec<String> = (0..50).map(|i| format!("key-{i}")).collect();
        let mut input = step(names.iter().map(|name| row(name, 3, name, true)).collect(), 1);
        input.due = vec![due("key-1", 5, 3)];
        let done = writer.step(input).await.expect("a step");
        let reader = node.reader_at(P, done.checkpoint).await.expect("a reader");
        let mut expected: Vec<Bytes> = names.iter().map(|name| key(name)).collect();
        expected.sort();

        let mut seen = Vec::new();
        let mut from = std::ops::Bound::Unbounded;
        loop {
            let page = reader.scan((from, std::ops::Bound::Unbounded), 7).await.expect("a page");
            seen.extend(page.rows.into_iter().map(|(key, _)| key));
            if !page.more {
                break;
            }
            from = std::ops::Bound::Excluded(seen.last().expect("a row").clone());
        }
        assert_eq!(seen, expected);
        let part = expected[10].clone()..expected[20].clone();
        assert_eq!(reader.scan(part, 99).await.expect("a page").rows.len(), 10);
        let backwards = expected[20].clone()..expected[10].clone();
        assert_eq!(reader.scan(backwards, 99).await.expect("a page").rows.len(), 0);
        node.close().await;
    }
}

#[tokio::test]
async fn a_clock_that_went_back_an_hour_delays_no_step() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        writer.step(step(vec![row("a", 1, "x", true)], 1)).await.expect("a step");
        world.clock.by_hours(-1);
        let started = std::time::Instant::now();
        writer.step(step(vec![row("a", 2, "y", true)], 2)).await.expect("a step");
        let mut other = node.writer(P).await.expect("a writer");
        other.step(step(vec![row("a", 3, "z", true)], 3)).await.expect("a step");
        // The engine waits 10 s and then closes where its clock goes back.
        assert!(started.elapsed() < Duration::from_secs(5));
        node.close().await;
    }
}

#[tokio::test]
async fn what_is_no_stored_key_is_refused_and_the_writer_goes_on() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        for bad in [Bytes::new(), Bytes::from_static(b"\x01m"), Bytes::from(vec![0; 70_000])] {
            let mut input = step(vec![row("a", 1, "x", true)], 1);
            input.rows[0].key = bad;
            let error = writer.step(input).await.expect_err("not a stored key");
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        let done = writer.step(step(vec![row("a", 1, "x", true)], 1)).await.expect("a step");
        assert_eq!(done.meta.step, StepNumber(1));
        node.close().await;
        let closed = node.writer(P).await.err().expect("closed");
        assert_eq!(closed.kind(), ErrorKind::Closed);
    }
}
