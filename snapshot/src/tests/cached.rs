//! The block cache on disk: found again after a restart, and never a reason not to start.

use std::path::Path;

use super::*;

fn with_disk(folder: &Path) -> SnapshotOptions {
    SnapshotOptions { cache_disk: Some((folder.to_owned(), 64 << 20)), ..options() }
}

fn value() -> String {
    "v".repeat(2000)
}

async fn one_step(world: &World) -> crate::Checkpoint {
    let node = world.node().await;
    let mut writer = node.writer(P).await.expect("a writer");
    let rows = (0..100).map(|i| row(&format!("k{i}"), i + 1, &value(), true)).collect();
    let done = writer.step(step(rows, 1)).await.expect("a step");
    writer.close().await;
    node.close().await;
    done.checkpoint
}

async fn read_all(world: &World, options: SnapshotOptions, at: crate::Checkpoint) -> (bool, u64) {
    let node = world.node_with(options).await;
    let reader = node.reader_at(P, at).await.expect("a reader");
    let before = world.store.counts();
    for i in 0..100 {
        assert_eq!(text(&reader, &format!("k{i}")).await.as_deref(), Some(value().as_str()));
    }
    let gets = world.store.counts().since(&before).gets;
    reader.close().await;
    let on_disk = node.cache_on_disk();
    node.close().await;
    (on_disk, gets)
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_found_on_disk_after_a_restart() {
    for world in World::all() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let at = one_step(&world).await;
        let (on_disk, cold) = read_all(&world, with_disk(folder.path()), at).await;
        assert!(on_disk, "on disk");
        assert!(cold > 0, "read from the store");
        let (_, warm) = read_all(&world, with_disk(folder.path()), at).await;
        assert_eq!(warm, 0, "after {cold} cold reads");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_folder_costs_reads_and_nothing_else() {
    for world in World::all() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let at = one_step(&world).await;
        read_all(&world, with_disk(folder.path()), at).await;
        for part in ["blocks", "meta"] {
            for (index, entry) in
                std::fs::read_dir(folder.path().join(part)).expect("a folder").enumerate()
            {
                let path = entry.expect("an entry").path();
                let len = std::fs::metadata(&path).expect("a file").len();
                match index % 3 {
                    0 => std::fs::write(&path, vec![0xa5; len.min(1 << 20) as usize])
                        .expect("damage"),
                    1 => std::fs::write(&path, b"short").expect("damage"),
                    _ => std::fs::remove_file(&path).expect("damage"),
                }
            }
        }
        read_all(&world, with_disk(folder.path()), at).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_no_use_leaves_the_cache_in_memory() {
    let world = World::memory();
    let folder = tempfile::tempdir().expect("a temp folder");
    let at = one_step(&world).await;
    let file = folder.path().join("file");
    std::fs::write(&file, b"in the way").expect("a file");
    assert!(!read_all(&world, with_disk(&file), at).await.0);
    let tiny = SnapshotOptions { cache_disk: Some((folder.path().join("t"), 4096)), ..options() };
    assert!(!read_all(&world, tiny, at).await.0);
    // Something in the way of one part: that part is emptied and made anew.
    let blocked = folder.path().join("blocked");
    std::fs::create_dir(&blocked).expect("a folder");
    std::fs::write(blocked.join("blocks"), b"in the way").expect("a file");
    read_all(&world, with_disk(&blocked), at).await;
}

/// Fills more than `folder` holds while reading every value, twice.
async fn read_while_it_fails(world: &World, folder: &Path, spoil: impl FnOnce(&Path)) {
    let node = world.node_with(with_disk(folder)).await;
    let mut writer = node.writer(P).await.expect("a writer");
    let rows = (0..2_000).map(|i| row(&format!("w{i}"), 1_000 + i, &value(), true)).collect();
    let done = writer.step(step(rows, 2)).await.expect("a step");
    let reader = node.reader_at(P, done.checkpoint).await.expect("a reader");
    spoil(folder);
    for i in (0..2_000).chain(0..2_000) {
        assert_eq!(text(&reader, &format!("w{i}")).await.as_deref(), Some(value().as_str()));
    }
    reader.close().await;
    writer.close().await;
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_deleted_under_a_running_node_costs_reads_and_nothing_else() {
    let world = World::memory();
    let folder = tempfile::tempdir().expect("a temp folder");
    let at = one_step(&world).await;
    read_while_it_fails(&world, folder.path(), |folder| {
        std::fs::remove_dir_all(folder).expect("deleted");
    })
    .await;
    read_all(&world, with_disk(folder.path()), at).await;
}

/// Needs a small file system of its own, which only root may mount; says so where it cannot.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_cache_costs_reads_and_nothing_else() {
    let run = |command: &mut std::process::Command| {
        command.output().is_ok_and(|output| output.status.success())
    };
    let folder = tempfile::tempdir().expect("a temp folder");
    let mount = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"];
    if !run(std::process::Command::new("mount").args(mount).arg(folder.path())) {
        println!("SKIPPED: a full disk under the cache: no small file system can be mounted here");
        return;
    }
    let world = World::memory();
    one_step(&world).await;
    read_while_it_fails(&world, &folder.path().join("cache"), |_| ()).await;
    assert!(run(std::process::Command::new("umount").arg(folder.path())), "unmounted");
}
