//! Listing rows: they name exactly the keys of the records, in the order of clients' keys.

use super::*;
use crate::ListRange;

fn all_of(prefix: &'static str) -> ListRange {
    ListRange { namespace: 0, prefix: Bytes::from_static(prefix.as_bytes()), after: None }
}

/// Names and versions of a listing, page by page of two.
pub(super) async fn listed(reader: &PartitionReader, mut range: ListRange) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    loop {
        let page = reader.list(&range, 2).await.expect("a page");
        for (key, listed) in &page.rows {
            let name = String::from_utf8(key.to_vec()).expect("text");
            all.push((name, listed.version.micros));
        }
        match page.rows.last() {
            Some((last, _)) if page.more => range.after = Some(last.clone()),
            _ => return all,
        }
    }
}

fn of(names: &[(&str, u64)]) -> Vec<(String, u64)> {
    names.iter().map(|(name, micros)| ((*name).to_owned(), *micros)).collect()
}

#[tokio::test]
async fn keys_are_listed_in_their_order_at_their_newest_version() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        let rows = ["b", "a/2", "c", "a/1", "a"].map(|name| row(name, 5, "x", true));
        writer.step(step(rows.into(), 1)).await.expect("a step");
        // A newer one, and one that came too late.
        let rows = vec![row("b", 9, "longer", true), row("c", 3, "late", false)];
        let done = writer.step(step(rows, 2)).await.expect("a step");
        let reader = node.reader_at(P, done.checkpoint).await.expect("a reader");

        let whole = of(&[("a", 5), ("a/1", 5), ("a/2", 5), ("b", 9), ("c", 5)]);
        assert_eq!(listed(&reader, all_of("")).await, whole);
        assert_eq!(listed(&reader, all_of("a/")).await, of(&[("a/1", 5), ("a/2", 5)]));
        let behind = ListRange { after: Some(Bytes::from_static(b"a/1")), ..all_of("a") };
        assert_eq!(listed(&reader, behind).await, of(&[("a/2", 5)]));
        assert_eq!(listed(&reader, all_of("d")).await, of(&[]));
        let other = ListRange { namespace: 1, ..all_of("") };
        assert_eq!(listed(&reader, other).await, of(&[]));
        let page = reader.list(&all_of("b"), 9).await.expect("a page");
        assert_eq!(page.rows[0].1.value_bytes, "longer".len() as u64);
        // Records are where they were.
        assert_eq!(text(&reader, "b").await.as_deref(), Some("longer"));
        assert_eq!(reader.scan(.., 99).await.expect("a scan").rows.len(), 5);
        node.close().await;
    }
}

#[tokio::test]
async fn what_is_purged_is_listed_no_more() {
    for world in World::all() {
        let node = world.node().await;
        let mut writer = node.writer(P).await.expect("a writer");
        let rows = vec![row("gone", 5, "x", true), row("kept", 5, "x", true)];
        writer.step(step(rows, 1)).await.expect("a step");
        let purge = vec![due("gone", 7, 5)];
        let input = StepInput { purge, ..step(Vec::new(), 2) };
        let done = writer.step(input).await.expect("a step");
        let reader = node.reader_at(P, done.checkpoint).await.expect("a reader");
        assert_eq!(listed(&reader, all_of("")).await, of(&[("kept", 5)]));
        node.close().await;
    }
}
