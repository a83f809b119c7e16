//! The journal on real and failing disks: appending, sharing syncs, room, failure.

mod crash;
mod damage;

use std::{io, path::Path, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tako_types::{ClusterId, ErrorKind, Incarnation, Lsn, PartitionId};

use crate::{
    Blocking, Damage, Disk, Durability, Durable, Entry, EntryKind, FsDisk, Journal, JournalError,
    JournalOptions, Pending, Recovered, Sink, Writer,
    fault::{Call, Fault, FaultDisk, MemDisk},
};

/// Remembers everything it was given.
#[derive(Default)]
pub(super) struct Index(Mutex<Vec<Durable>>);

impl Sink for Index {
    fn on_durable(&self, batch: &[Durable]) {
        self.0.lock().extend_from_slice(batch);
    }
}

impl Index {
    fn all(&self) -> Vec<Durable> {
        self.0.lock().clone()
    }
}

pub(super) fn options(dir: &Path) -> JournalOptions {
    JournalOptions {
        dir: dir.into(),
        file_bytes: 4096,
        disk_bytes_max: 1 << 20,
        durability: Durability::Fsync,
        cluster: ClusterId(7),
        incarnation: Incarnation(5),
        queue_bytes_max: 1 << 20,
        blocking: Blocking::Threads,
    }
}

pub(super) fn entry(payload: impl Into<Vec<u8>>) -> Entry {
    let payload = Bytes::from(payload.into());
    Entry { partition: PartitionId(3), kind: EntryKind::Record, payload }
}

pub(super) fn open(
    options: JournalOptions,
    disk: &(impl Disk + Clone + 'static),
) -> (Arc<Journal>, Recovered, Arc<Index>) {
    let index = Arc::new(Index::default());
    let (journal, recovered) =
        Journal::open(options, Arc::new(disk.clone()), index.clone()).expect("opens");
    (journal, recovered, index)
}

/// A writer without threads.
pub(super) fn core(
    options: JournalOptions,
    disk: &(impl Disk + Clone + 'static),
) -> (Writer, Recovered, Arc<Index>) {
    let index = Arc::new(Index::default());
    let (writer, recovered) =
        Writer::open(options, Arc::new(disk.clone()), index.clone()).expect("opens");
    (writer, recovered, index)
}

pub(super) fn pend(payloads: &[Vec<u8>]) -> Vec<Pending> {
    payloads.iter().map(|p| Pending { entry: entry(p.clone()), reply: None }).collect()
}

pub(super) fn commit_all(writer: &mut Writer, payloads: &[Vec<u8>]) {
    let mut pending = pend(payloads);
    while !pending.is_empty() {
        writer.commit(&mut pending).expect("room");
    }
}

#[tokio::test]
async fn appended_entries_are_there_after_a_restart_in_order() {
    let dir = tempfile::tempdir().expect("temp folder");
    let (journal, recovered, index) = open(options(dir.path()), &FsDisk);
    assert!(recovered.created && recovered.damage.is_none());
    for number in 1..=100u64 {
        let lsn = journal.append(entry(vec![number as u8; 200])).await.expect("room");
        assert_eq!((lsn, journal.last_lsn()), (Lsn(number), Lsn(number)));
    }
    let known =
        Entry { partition: PartitionId(9), kind: EntryKind::Other(200), payload: Bytes::new() };
    journal.append(known.clone()).await.expect("room");
    let before = index.all();
    assert_eq!(journal.queued_bytes(), 0);
    journal.close();
    assert!(matches!(journal.append(entry("late")).await, Err(JournalError::Closed)));
    drop(journal);

    let (journal, recovered, index) = open(options(dir.path()), &FsDisk);
    let expected = Recovered { last_lsn: Lsn(101), entry_count: 101, ..Recovered::default() };
    assert_eq!(recovered, expected);
    assert_eq!(index.all(), before);
    assert_eq!(before[100].entry, known);
    for durable in index.all() {
        assert_eq!(journal.read(durable.location).expect("intact"), durable.entry.payload);
    }
    assert_eq!(journal.append(entry("next")).await.expect("room"), Lsn(102));
}

#[tokio::test]
async fn sixty_four_appenders_share_far_fewer_syncs() {
    let dir = tempfile::tempdir().expect("temp folder");
    let disk = FaultDisk::new(Arc::new(FsDisk));
    let options =
        JournalOptions { file_bytes: 1 << 20, disk_bytes_max: 8 << 20, ..options(dir.path()) };
    let (journal, _, index) = open(options, &disk);
    let before = disk.count(Call::SyncData);
    let appends = (0..64).map(|_| journal.append(entry(vec![1; 1024])));
    let answers = futures_join(appends).await;
    let mut lsns: Vec<u64> = answers.into_iter().map(|a| a.expect("room").0).collect();
    lsns.sort_unstable();
    assert_eq!(lsns, (1..=64).collect::<Vec<_>>());
    let syncs = disk.count(Call::SyncData) - before;
    // The spare's own sync may fall into the count.
    assert!(syncs <= 8, "{syncs} syncs for 64 appends");
    assert_eq!(index.all().len(), 64);
}

#[tokio::test]
async fn appends_that_are_ready_at_one_time_are_one_group() {
    let dir = tempfile::tempdir().expect("temp folder");
    let disk = FaultDisk::new(Arc::new(FsDisk));
    let options =
        JournalOptions { file_bytes: 1 << 20, disk_bytes_max: 8 << 20, ..options(dir.path()) };
    let (journal, _, index) = open(JournalOptions { durability: Durability::Os, ..options }, &disk);
    // Its spare file is made: what is written from now on are groups.
    journal.append(entry("first")).await.expect("room");
    while journal.disk_bytes() < 2 << 20 {
        tokio::task::yield_now().await;
    }
    let before = disk.count(Call::Write);
    let appends: Vec<_> = (0..16)
        .map(|_| {
            let journal = journal.clone();
            tokio::spawn(async move { journal.append(entry(vec![1; 100])).await })
        })
        .collect();
    for append in appends {
        append.await.expect("no panic").expect("room");
    }
    assert_eq!(disk.count(Call::Write) - before, 1);
    assert_eq!(index.all().len(), 17);
}

#[tokio::test]
async fn an_append_that_is_given_up_while_others_may_join_it_is_written() {
    let dir = tempfile::tempdir().expect("temp folder");
    let (journal, _, index) = open(options(dir.path()), &FsDisk);
    let mut given_up = Box::pin(journal.append(entry("given up")));
    assert!(futures_poll(given_up.as_mut()).await.is_none(), "it waits for others");
    drop(given_up);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while index.all().is_empty() {
        assert!(std::time::Instant::now() < until, "the committer sleeps");
        tokio::task::yield_now().await;
    }
    assert_eq!(index.all()[0].entry.payload, "given up");
}

/// Polls once.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(ready) => std::task::Poll::Ready(Some(ready)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

/// Polls all futures in one task, so that all are queued before any is answered.
async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut waiting {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if waiting.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test]
async fn an_entry_longer_than_a_file_gets_a_file_of_its_own_size() {
    let dir = tempfile::tempdir().expect("temp folder");
    let options = JournalOptions { disk_bytes_max: 100 << 20, ..options(dir.path()) };
    let (journal, _, _) = open(options.clone(), &FsDisk);
    journal.append(entry("small")).await.expect("room");
    let large: Vec<u8> = (0..40 << 20).map(|at: u32| (at / 4096) as u8).collect();
    journal.append(entry(large.clone())).await.expect("room");
    journal.append(entry("behind")).await.expect("room");
    drop(journal);
    let (journal, recovered, index) = open(options, &FsDisk);
    assert_eq!((recovered.damage, recovered.entry_count), (None, 3));
    let all = index.all();
    assert_eq!(journal.read(all[1].location).expect("intact"), large);
    for durable in &all {
        journal.release(durable.location);
    }
    let too_large = entry(vec![0; tako_types::limits::RECORD_BYTES_MAX + 1]);
    let error = journal.append(too_large).await.expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn the_first_failed_sync_is_final() {
    let disk = FaultDisk::new(Arc::new(MemDisk::default()));
    let (journal, _, index) = open(options(Path::new("/j")), &disk);
    journal.append(entry("one")).await.expect("room");
    disk.fail_always(Call::SyncData, Fault::Error(io::ErrorKind::Other));
    let error = journal.append(entry("two")).await.expect_err("sync fails");
    assert!(matches!(error, JournalError::Failed { .. }), "{error}");
    disk.heal();
    let error = journal.append(entry("three")).await.expect_err("final");
    assert!(matches!(error, JournalError::Failed { .. }), "{error}");
    assert!(journal.append_nowait(entry("four")).is_err());
    assert!(journal.is_failed().is_some_and(|reason| reason.contains("sync")));
    assert_eq!((index.all().len(), journal.last_lsn()), (1, Lsn(1)));
}

#[test]
fn a_short_write_is_completed_and_a_half_written_group_is_final() {
    let disk = FaultDisk::new(Arc::new(MemDisk::default()));
    let (mut writer, _, index) = core(options(Path::new("/j")), &disk);
    disk.fail_nth(Call::Write, 1, Fault::Short);
    writer.commit(&mut pend(&[vec![1; 300]])).expect("completed");
    // No room is final too once bytes are there.
    disk.fail_nth(Call::Write, 1, Fault::Short);
    disk.fail_nth(Call::Write, 2, Fault::Error(io::ErrorKind::StorageFull));
    let error = writer.commit(&mut pend(&[vec![2; 300]])).expect_err("half");
    assert!(matches!(error, JournalError::Failed { .. }), "{error}");
    writer.commit(&mut pend(&[vec![3]])).expect_err("final");
    assert_eq!(index.all().len(), 1);
    drop(writer);
    let (_, recovered, _) = core(options(Path::new("/j")), &disk);
    assert_eq!((recovered.entry_count, recovered.damage), (1, None));
    assert!(0 < recovered.torn_bytes);
}

#[test]
fn no_room_before_anything_is_written_passes_when_room_comes_back() {
    let disk = FaultDisk::new(Arc::new(MemDisk::default()));
    let (mut writer, _, index) = core(options(Path::new("/j")), &disk);
    disk.fail_nth(Call::Write, 1, Fault::Error(io::ErrorKind::StorageFull));
    let error = writer.commit(&mut pend(&[vec![1]])).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::Busy);
    writer.commit(&mut pend(&[vec![2]])).expect("room again");
    assert_eq!(index.all()[0].lsn, Lsn(1), "the refused one took no number");

    disk.set_space(Some(4096));
    let mut pending = pend(&vec![vec![3; 500]; 20]);
    let mut full = 0;
    while !pending.is_empty() {
        full += usize::from(writer.commit(&mut pending).is_err());
    }
    assert!(0 < full && full < 20);
    disk.set_space(None);
    writer.commit(&mut pend(&[vec![4]])).expect("room again");
    drop(writer);
    let (_, recovered, replayed) = core(options(Path::new("/j")), &disk);
    assert_eq!(recovered.damage, None);
    assert_eq!(replayed.all(), index.all());
    assert_eq!(index.all().len(), 22 - full);
}

#[tokio::test]
async fn a_full_budget_is_busy_until_entries_are_released() {
    let disk = MemDisk::default();
    let options = JournalOptions { disk_bytes_max: 4 * 4096, ..options(Path::new("/j")) };
    let (journal, _, index) = open(options.clone(), &disk);
    let error = loop {
        if let Err(error) = journal.append(entry(vec![1; 1000])).await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.kind().retry() && journal.disk_bytes() <= 4 * 4096);
    let count = index.all().len();
    for durable in index.all().iter().filter(|d| d.location.file <= 2) {
        journal.release(durable.location);
    }
    journal.append(entry(vec![2; 1000])).await.expect("room again");
    assert_eq!(journal.last_lsn(), Lsn(count as u64 + 1));
    let gone = index.all()[0].location;
    assert!(matches!(journal.read(gone), Err(JournalError::Gone { file: 1 })));
    drop(journal);
    let (_, recovered, _) = open(options, &disk);
    assert_eq!((recovered.damage, recovered.last_lsn), (None, Lsn(count as u64 + 1)));
}

#[test]
fn room_that_the_keeper_has_yet_to_free_counts_as_room() {
    let disk = MemDisk::default();
    let options = JournalOptions { disk_bytes_max: 4 * 4096, ..options(Path::new("/j")) };
    let (mut writer, _, index) = core(options, &disk);
    // The keeper's thread is not there yet to do what it is handed.
    writer.shared().keeper.set_threaded();
    while writer.commit(&mut pend(&[vec![1; 1000]])).is_ok() {}
    for durable in index.all().iter().filter(|d| d.location.file <= 2) {
        writer.release(durable.location);
    }
    writer.trim().expect("room for a mark");
    writer.commit(&mut pend(&[vec![2; 1000]])).expect("the released files make room");
}

#[test]
fn an_empty_journal_keeps_its_last_lsn() {
    let disk = MemDisk::default();
    let (mut writer, _, index) = core(options(Path::new("/j")), &disk);
    for _ in 0..30 {
        commit_all(&mut writer, &vec![vec![1; 700]; 2]);
    }
    for durable in index.all() {
        writer.release(durable.location);
    }
    writer.trim().expect("room for a mark");
    assert_eq!(writer.shared().keeper.used_bytes(), 4096, "only the current file is left");
    drop(writer);
    for _ in 0..3 {
        let (_, recovered, _) = core(options(Path::new("/j")), &disk);
        assert_eq!((recovered.last_lsn, recovered.damage), (Lsn(60), None));
    }
    let (mut writer, _, _) = core(options(Path::new("/j")), &disk);
    writer.adopt(Incarnation(6)).expect("room");
    let next = JournalOptions { incarnation: Incarnation(6), ..options(Path::new("/j")) };
    let (_, recovered, _) = core(next, &disk);
    assert_eq!((recovered.last_lsn, recovered.damage), (Lsn(60), None));
}

#[tokio::test]
async fn a_full_queue_is_busy_and_one_long_entry_still_passes() {
    let disk = MemDisk::default();
    let options = JournalOptions { queue_bytes_max: 100, ..options(Path::new("/j")) };
    let (journal, _, _) = open(options, &disk);
    journal.append(entry(vec![1; 500])).await.expect("alone in the queue");
    // Take the committer's way by filling the count itself: no race with the thread.
    journal.shared.queued_bytes.fetch_add(90, std::sync::atomic::Ordering::AcqRel);
    let error = journal.append(entry(vec![1; 20])).await.expect_err("full");
    assert!(matches!(error, JournalError::Busy { queued_bytes: 90, limit_bytes: 100 }), "{error}");
    journal.append(entry(vec![1; 10])).await.expect("fits");
}

#[test]
fn a_file_with_few_needed_bytes_is_named_when_disk_use_is_high() {
    let disk = MemDisk::default();
    let options = JournalOptions { disk_bytes_max: 6 * 4096, ..options(Path::new("/j")) };
    let (journal, _, index) = open(options, &disk);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(async {
        while index.all().last().is_none_or(|d| d.location.file < 4) {
            journal.append(entry(vec![1; 250])).await.expect("room");
        }
    });
    assert_eq!(journal.sparse_file(), None);
    for durable in index.all().iter().filter(|d| d.location.file == 1).skip(1) {
        journal.release(durable.location);
    }
    assert_eq!(journal.sparse_file(), Some(1));
}

#[test]
fn options_that_contradict_are_refused() {
    for options in [
        JournalOptions { file_bytes: 1000, ..options(Path::new("/j")) },
        JournalOptions { disk_bytes_max: 4096, ..options(Path::new("/j")) },
    ] {
        let sink = Arc::new(Index::default());
        let error = Writer::open(options, Arc::new(MemDisk::default()), sink).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn without_sync_entries_are_visible_and_recovered_after_a_process_end() {
    for durability in [Durability::Os, Durability::None] {
        let disk = FaultDisk::new(Arc::new(MemDisk::default()));
        let options = JournalOptions { durability, ..options(Path::new("/j")) };
        let (mut writer, _, index) = core(options.clone(), &disk);
        let before = disk.count(Call::SyncData);
        for _ in 0..20 {
            writer.commit(&mut pend(&[vec![1; 900]])).expect("room");
        }
        assert_eq!(disk.count(Call::SyncData), before, "no sync");
        drop(writer);
        let (_, recovered, replayed) = core(options, &disk);
        assert_eq!((recovered.damage, replayed.all()), (None, index.all()));
    }
}

pub(super) fn reason(damage: &Option<Damage>) -> String {
    damage.as_ref().map(ToString::to_string).unwrap_or_default()
}
