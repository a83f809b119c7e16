//! A scan reads everything from the store, and what cannot be read is the only thing it lacks.

use futures::TryStreamExt as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use super::*;
use crate::{PartitionScan, SnapshotError, Unreadable, fault::Match};

const KEYS: u64 = 400;

async fn committed(world: &World) -> crate::Checkpoint {
    let node = world.node().await;
    let mut writer = node.writer(P).await.expect("a writer");
    // More than a scan reads ahead.
    let value = "v".repeat(2_000);
    let rows = (0..KEYS).map(|i| row(&format!("k{i}"), i + 1, &value, true)).collect();
    let input = StepInput { due: vec![due("k1", 5, 1)], ..step(rows, 1) };
    let done = writer.step(input).await.expect("a step");
    writer.close().await;
    node.close().await;
    done.checkpoint
}

/// Everything that a scan gives in pages of so many bytes.
async fn read_all(scan: &mut PartitionScan, bytes: u64) -> (Vec<Bytes>, Vec<Unreadable>) {
    let (mut keys, mut unreadable) = (Vec::new(), Vec::new());
    for _ in 0..10_000 {
        let page = scan.page(1_000, bytes).await.expect("the store answers");
        assert!(page.bad_own_rows.is_empty(), "{:?}", page.bad_own_rows);
        keys.extend(page.rows.into_iter().map(|(key, _)| key));
        unreadable.extend(page.unreadable);
        if !page.more {
            return (keys, unreadable);
        }
    }
    panic!("the scan does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_reads_every_row_once_and_from_the_store_each_time() {
    for world in World::all() {
        let at = committed(&world).await;
        let node = world.node().await;
        for _ in 0..2 {
            let before = world.store.counts();
            let mut scan = node.scan(P, at);
            let (keys, unreadable) = read_all(&mut scan, 10_000).await;
            assert_eq!(unreadable, []);
            let mut expected: Vec<_> = (0..KEYS).map(|i| key(&format!("k{i}"))).collect();
            expected.sort();
            assert_eq!(keys, expected);
            let read = world.store.counts().since(&before);
            assert!(read.get_bytes > KEYS * 2_000, "{read:?}");
            assert_eq!(read.puts, 0);
            assert!(scan.total_bytes() > KEYS * 2_000);
        }
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_damaged_block_the_rest_is_read() {
    let world = World::memory();
    let at = committed(&world).await;
    let store = world.store.object_store();
    let objects: Vec<_> = store.list(None).try_collect().await.expect("listed");
    let table = objects.iter().max_by_key(|object| object.size).expect("a table");
    let bytes = store.get(&table.location).await.expect("there").bytes().await.expect("read");
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    store.put(&table.location, bytes.into()).await.expect("written");

    let node = world.node().await;
    let (keys, unreadable) = read_all(&mut node.scan(P, at), 100_000).await;
    assert!(!unreadable.is_empty());
    assert!(unreadable[0].after.is_some(), "{unreadable:?}");
    // A block holds two of these rows; the hashes passed over hold few more.
    let lacking = KEYS as usize - keys.len();
    assert!((1..40).contains(&lacking), "{lacking} rows are lacking");
    assert!(keys.is_sorted() && keys.last() == expected_last().as_ref());
    node.close().await;
}

fn expected_last() -> Option<Bytes> {
    (0..KEYS).map(|i| key(&format!("k{i}"))).max()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_in_between_costs_no_row_and_is_no_damage() {
    let world = World::memory();
    let at = committed(&world).await;
    let node = world.node().await;
    let mut scan = node.scan(P, at);
    let first = scan.page(1_000, 20_000).await.expect("the store answers");
    let mut count = first.rows.len();
    world.fault.fail_from(Match::any(), 0, crate::fault::When::Before);
    let mut failed = 0;
    while failed < 2 {
        match scan.page(1_000, 1_000_000).await {
            Ok(page) => {
                assert!(page.more && page.unreadable.is_none(), "{page:?}");
                count += page.rows.len();
            }
            Err(error) => {
                assert!(!matches!(error, SnapshotError::Corrupt(_)), "{error}");
                failed += 1;
            }
        }
    }
    world.fault.clear();
    let (keys, unreadable) = read_all(&mut scan, 1_000_000).await;
    assert_eq!((count + keys.len(), unreadable), (KEYS as usize, vec![]));
    node.close().await;
}
