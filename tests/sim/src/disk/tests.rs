//! A journal on simulated disks: crashes of process and machine, a full disk, damage.

use std::{collections::BTreeSet, io, path::Path};

use tako_journal::{
    Blocking, Disk, DiskFile, Durability, Durable, Entry, EntryKind, JournalOptions, Pending,
    Recovered, Sink, Writer,
};
use tako_types::{ClusterId, Incarnation, PartitionId};

use super::*;

const DIR: &str = "/data/journal";

#[derive(Default)]
struct Index(Mutex<Vec<Durable>>);

impl Sink for Index {
    fn on_durable(&self, batch: &[Durable]) {
        self.0.lock().extend_from_slice(batch);
    }
}

fn open(disk: &SimDisk) -> Option<(Writer, Recovered, Arc<Index>)> {
    let options = JournalOptions {
        dir: DIR.into(),
        file_bytes: 64 << 10,
        disk_bytes_max: 1 << 20,
        durability: Durability::Fsync,
        cluster: ClusterId(7),
        incarnation: Incarnation(5),
        queue_bytes_max: 1 << 20,
        blocking: Blocking::Threads,
    };
    let index = Arc::new(Index::default());
    let (writer, recovered) = Writer::open(options, Arc::new(disk.clone()), index.clone()).ok()?;
    Some((writer, recovered, index))
}

/// Appends one entry; whether it is acknowledged.
fn append(writer: &mut Writer, bytes: usize) -> bool {
    let entry = Entry {
        partition: PartitionId(1),
        kind: EntryKind::Record,
        payload: vec![7; bytes].into(),
    };
    writer.commit(&mut vec![Pending { entry, reply: None }]).is_ok()
}

fn disk() -> SimDisk {
    SimDisk::new(FaultCounts::default())
}

fn write(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.create(Path::new(name)).expect("free name");
    assert_eq!(file.write_at(bytes, 0).expect("room"), bytes.len());
    file
}

#[test]
fn what_was_acknowledged_survives_any_mix_of_crashes_of_process_and_machine() {
    for seed in 0..60 {
        let mut chance = Chance::new(seed);
        let counts = FaultCounts::default();
        let mut disk = SimDisk::new(counts.clone());
        let mut shown = BTreeSet::new();
        for round in 0..12 {
            disk.die_after(chance.below(40) as u64);
            if let Some((mut writer, recovered, index)) = open(&disk) {
                assert_eq!(recovered.damage, None, "seed {seed}, round {round}");
                let found: BTreeSet<_> = index.0.lock().iter().map(|d| d.lsn).collect();
                assert!(shown.is_subset(&found), "seed {seed}, round {round}");
                while append(&mut writer, chance.below(9000)) {}
                shown = index.0.lock().iter().map(|d| d.lsn).collect();
            }
            assert!(disk.is_dead());
            let kind = if chance.yes(0.5) { Crash::Kept } else { Crash::Torn };
            disk = disk.after_crash(kind, &mut chance);
        }
        assert!(0 < counts.all()["process crashed"] && 0 < counts.all()["disk torn"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_process_changes_nothing_and_its_end_is_told_at_the_chosen_change() {
    let disk = disk();
    disk.die_after(3);
    let waiting = tokio::spawn({
        let disk = disk.clone();
        async move { disk.died().await }
    });
    let file = write(&disk, "/a", b"one");
    assert!(!disk.is_dead());
    file.write_at(b"two", 3).expect("the last change");
    assert!(disk.is_dead());
    waiting.await.expect("told");
    let error = file.write_at(b"three", 6).expect_err("dead");
    assert_eq!(error.to_string(), "the process has crashed");
    file.sync_data().expect_err("dead");
    disk.remove(Path::new("/a")).expect_err("dead");
    assert!(!disk.exists(Path::new("/a")));
    let next = disk.after_crash(Crash::Kept, &mut Chance::new(1));
    file.write_at(b"late", 0).expect_err("still dead");
    let bytes = tako_journal::read_all(&next, Path::new("/a")).expect("kept");
    assert_eq!(bytes, b"onetwo");
}

#[test]
fn unsynced_bytes_of_an_earlier_process_can_still_be_lost() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..40 {
        let mut chance = Chance::new(seed);
        let disk = disk();
        let file = write(&disk, "/a", &[1; 4]);
        file.sync_data().expect("sound");
        disk.sync_dir(Path::new("/")).expect("sound");
        file.write_at(&[2; 4], 4).expect("room");
        let disk = disk.after_crash(Crash::Kept, &mut chance);
        assert_eq!(disk.boot_id().expect("alive"), "boot-0");
        let disk = disk.after_crash(Crash::Torn, &mut chance);
        assert_eq!(disk.boot_id().expect("alive"), "boot-1");
        let bytes = tako_journal::read_all(&disk, Path::new("/a")).expect("synced");
        assert_eq!(bytes[..4], [1; 4]);
        lost += usize::from(bytes.len() == 4);
        kept += usize::from(bytes.len() == 8);
    }
    assert!(5 < lost && 5 < kept, "{lost} lost, {kept} kept");
}

#[test]
fn an_earlier_state_comes_back_and_an_empty_disk_is_empty() {
    let mut chance = Chance::new(3);
    let disk = disk();
    disk.remember();
    write(&disk, "/a", b"a");
    disk.remember();
    let mut found = BTreeSet::new();
    for _ in 0..20 {
        write(&disk.after_crash(Crash::Kept, &mut chance), "/b", b"b");
        let back = disk.after_crash(Crash::RolledBack, &mut chance);
        found.insert(back.image().paths().len());
        assert!(disk.after_crash(Crash::Empty, &mut chance).image().paths().is_empty());
    }
    assert_eq!(found, BTreeSet::from([0, 1]));
}

#[test]
fn a_full_disk_refuses_growth_until_there_is_room_and_chosen_calls_fail() {
    let counts = FaultCounts::default();
    let disk = SimDisk::new(counts.clone());
    let file = write(&disk, "/a", &[1; 100]);
    disk.set_space(Some(120));
    assert_eq!(file.write_at(&[2; 50], 50).expect("in place"), 50);
    let error = file.write_at(&[2; 50], 90).expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    disk.set_space(None);
    file.write_at(&[2; 50], 90).expect("room");
    disk.fail_nth(Call::SyncData, 2, Fault::Error(io::ErrorKind::Other));
    file.sync_data().expect("the first");
    file.sync_data().expect_err("the second");
    assert_eq!((counts.all()["disk full"], counts.all()["sync failed"]), (1, 1));
}

#[test]
fn a_flipped_bit_is_there_for_the_next_process_and_stays() {
    let mut chance = Chance::new(9);
    let disk = disk();
    assert_eq!(disk.damage(&mut chance), None);
    let (mut writer, ..) = open(&disk).expect("opens");
    while !disk.image().paths().iter().any(|path| path.ends_with("00000000000000000002.log")) {
        assert!(append(&mut writer, 5000));
    }
    let (mut damaged, mut torn) = (0, 0);
    for _ in 0..20 {
        let next = disk.after_crash(Crash::Kept, &mut chance);
        let flipped = next.damage(&mut chance).expect("there are files");
        let Flipped { path, at, byte: is } = flipped.clone();
        assert!(next.is_flipped(&flipped) && !disk.is_flipped(&flipped));
        let later = next.after_crash(Crash::Torn, &mut chance);
        let byte = |disk: &SimDisk| {
            let bytes = tako_journal::read_all(disk, &path).expect("there");
            bytes[at]
        };
        let before = disk.image();
        let mut was = 0;
        before.edit(&path, |bytes| was = bytes[at]);
        assert_ne!(byte(&later), was);
        assert_eq!(byte(&later), is);
        let (_, recovered, _) = open(&later).expect("opens");
        damaged += usize::from(recovered.damage.is_some());
        torn += usize::from(0 < recovered.torn_bytes);
    }
    assert!(0 < damaged && 20 <= damaged + torn, "{damaged} damaged, {torn} torn");
}

#[test]
fn a_file_that_is_written_to_does_not_rot() {
    let mut chance = Chance::new(3);
    let disk = disk();
    let (mut writer, ..) = open(&disk).expect("opens");
    let count = || {
        let is_log = |path: &&std::path::PathBuf| path.extension().is_some_and(|it| it == "log");
        disk.image().paths().iter().filter(is_log).count()
    };
    assert!(append(&mut writer, 5000));
    assert_eq!(disk.rot(&mut chance), None);
    while count() < 4 {
        assert!(append(&mut writer, 5000));
    }
    for _ in 0..20 {
        let rotten = disk.rot(&mut chance).expect("some are complete");
        let name = rotten.path.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(*name < *"00000000000000000003.log", "{name}");
    }
    assert!(append(&mut writer, 5000), "the process goes on");
}

#[test]
fn the_record_stays_short_over_a_long_run() {
    let disk = disk();
    let (mut writer, _, index) = open(&disk).expect("opens");
    let mut released = 0;
    for _ in 0..600 {
        assert!(append(&mut writer, 10_000));
        let all = index.0.lock().clone();
        while released + 20 < all.len() {
            writer.release(all[released].location);
            released += 1;
        }
        assert!(disk.0.faults.recorded_bytes() < 2 << 20);
    }
}
