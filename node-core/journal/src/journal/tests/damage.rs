//! Torn tails and damage: every byte of the last group, every group, every file.

use std::path::{Path, PathBuf};

use tako_types::{ClusterId, Incarnation, Lsn};

use super::{core, open, options, pend, reason};
use crate::{
    Disk, Durable, JournalOptions, Recovered,
    disk::write_all_at,
    fault::MemDisk,
    files::path_of,
    format::{FileHeader, GroupHeader, GroupKind},
    parse::{Parsed, parse},
};

const DIR: &str = "/j";

fn file(number: u64) -> PathBuf {
    path_of(Path::new(DIR), number)
}

/// `groups` groups of two entries, 700 bytes each; about two groups in a file of 4 KiB.
fn written(groups: usize) -> (MemDisk, Vec<Durable>) {
    let disk = MemDisk::default();
    let (mut writer, _, index) = core(options(Path::new(DIR)), &disk);
    for number in 0..groups {
        writer.commit(&mut pend(&[vec![number as u8 + 1; 150], vec![0xee; 150]])).expect("room");
    }
    (disk, index.all())
}

fn parsed(disk: &MemDisk, number: u64) -> Parsed {
    let mut parsed_file = None;
    disk.edit(&file(number), |bytes| parsed_file = parse(bytes, number, ClusterId(7)).ok());
    parsed_file.expect("a sound file")
}

fn reopened(disk: &MemDisk) -> (Recovered, Vec<Durable>) {
    let (_, recovered, index) = core(options(Path::new(DIR)), disk);
    (recovered, index.all())
}

fn last_file(entries: &[Durable]) -> u64 {
    entries.last().expect("entries").location.file
}

#[test]
fn a_torn_tail_is_cut_at_every_byte_and_the_rest_recovers() {
    let (disk, entries) = written(10);
    let last = last_file(&entries);
    let (start, group) = *parsed(&disk, last).groups.last().expect("a group");
    let end = group.end(start);
    for cut in start..end {
        let torn = disk.deep_copy();
        let mut was_torn = false;
        torn.edit(&file(last), |bytes| {
            was_torn = bytes[cut as usize..].iter().any(|byte| *byte != 0);
            bytes[cut as usize..].fill(0);
        });
        // Only zeros were cut off: the group is still whole.
        let kept = if was_torn { entries.len() - 2 } else { entries.len() };
        let (recovered, replayed) = reopened(&torn);
        assert_eq!(recovered.damage, None, "cut {cut}");
        assert_eq!(replayed, entries[..kept], "cut {cut}");
        let counted = 0 < recovered.torn_bytes;
        assert_eq!(counted, was_torn && start < cut, "cut {cut}");
        let (again, _) = reopened(&torn);
        assert_eq!((again.torn_bytes, again.last_lsn), (0, Lsn(kept as u64)), "cut {cut}");
    }
}

#[test]
fn a_flipped_bit_in_the_last_group_is_torn() {
    let (disk, entries) = written(10);
    let last = last_file(&entries);
    let (start, group) = *parsed(&disk, last).groups.last().expect("a group");
    for at in (start..group.end(start)).step_by(3) {
        let flipped = disk.deep_copy();
        flipped.edit(&file(last), |bytes| bytes[at as usize] ^= 0x10);
        let (recovered, replayed) = reopened(&flipped);
        assert_eq!((recovered.damage, recovered.torn_bytes > 0), (None, true), "at {at}");
        assert_eq!(replayed, entries[..entries.len() - 2], "at {at}");
    }
}

#[test]
fn a_flipped_bit_in_any_earlier_group_is_damage_and_the_others_are_replayed() {
    let (disk, entries) = written(20);
    let last = last_file(&entries);
    let mut lsn = 1;
    for number in 1..=last {
        let sound = parsed(&disk, number);
        for (start, group) in &sound.groups {
            let end = group.end(*start);
            let is_last = number == last && end == sound.end;
            for at in [*start, start + 16, start + 24, start + 63, start + 64, start + 100, end - 1]
            {
                let flipped = disk.deep_copy();
                flipped.edit(&file(number), |bytes| bytes[at as usize] ^= 1);
                let (recovered, replayed) = reopened(&flipped);
                assert_eq!(recovered.damage.is_some(), !is_last, "file {number} at {at}");
                let others = entries.iter().filter(|d| d.lsn.0 != lsn && d.lsn.0 != lsn + 1);
                assert!(replayed.iter().eq(others), "file {number} at {at}");
            }
            lsn += 2;
        }
    }
    assert_eq!(lsn as usize, entries.len() + 1);
}

#[test]
fn any_missing_file_is_noticed() {
    let (disk, entries) = written(20);
    let last = last_file(&entries);
    assert!(3 < last);
    for missing in 1..=last {
        let broken = disk.deep_copy();
        broken.remove(&file(missing)).expect("was there");
        let (recovered, replayed) = reopened(&broken);
        let text = reason(&recovered.damage);
        assert!(text.contains(&format!("file {missing} ")) && text.contains("missing"), "{text}");
        assert!(replayed.iter().eq(entries.iter().filter(|d| d.location.file != missing)));
        assert!(Lsn(entries.len() as u64) < recovered.last_lsn);
    }
    for number in 1..=last {
        disk.remove(&file(number)).expect("was there");
    }
    let (recovered, _) = reopened(&disk);
    assert!(recovered.created, "an empty folder says so; the identity knows better");
}

#[test]
fn bad_headers_foreign_clusters_and_foreign_incarnations_are_damage() {
    let (disk, entries) = written(20);
    for number in [1, 2, last_file(&entries)] {
        let broken = disk.deep_copy();
        broken.edit(&file(number), |bytes| bytes[41] ^= 1);
        let (recovered, replayed) = reopened(&broken);
        assert!(reason(&recovered.damage).contains("checksum"), "{recovered:?}");
        assert!(replayed.iter().eq(entries.iter().filter(|d| d.location.file != number)));

        let broken = disk.deep_copy();
        broken.edit(&file(number), |bytes| bytes.truncate(2000));
        assert!(reason(&reopened(&broken).0.damage).contains("bytes long"));
    }
    let cluster = JournalOptions { cluster: ClusterId(8), ..options(Path::new(DIR)) };
    let (_, recovered, index) = core(cluster, &disk.deep_copy());
    assert!(reason(&recovered.damage).contains("cluster") && index.all().is_empty());
    for incarnation in [4, 6] {
        let foreign =
            JournalOptions { incarnation: Incarnation(incarnation), ..options(Path::new(DIR)) };
        let (_, recovered, _) = core(foreign, &disk.deep_copy());
        assert!(reason(&recovered.damage).contains("incarnation"), "{recovered:?}");
    }
}

#[test]
fn a_copied_file_in_anothers_place_is_damage() {
    let (disk, _) = written(20);
    let mut copy = Vec::new();
    disk.edit(&file(2), |bytes| copy = bytes.clone());
    disk.edit(&file(3), |bytes| *bytes = copy);
    assert!(reopened(&disk).0.damage.is_some());
}

/// A value may hold bytes of a journal file; they must not count as a group behind a torn one.
#[test]
fn a_payload_that_looks_like_a_group_does_not_turn_a_torn_tail_into_damage() {
    let disk = MemDisk::default();
    let (mut writer, _, _) = core(options(Path::new(DIR)), &disk);
    writer.commit(&mut pend(&[vec![1; 150]])).expect("room");
    let other = MemDisk::default();
    let elsewhere = JournalOptions { cluster: ClusterId(8), ..options(Path::new(DIR)) };
    let (mut other_writer, _, _) = core(elsewhere, &other);
    other_writer.commit(&mut pend(&[vec![2; 150], vec![3; 10], vec![4; 10]])).expect("room");
    let mut fake = vec![0; 52];
    other.edit(&file(1), |bytes| fake.extend_from_slice(&bytes[128..1024]));
    writer.commit(&mut pend(&[fake])).expect("room");
    drop(writer);
    let (start, _) = *parsed(&disk, 1).groups.last().expect("a group");
    disk.edit(&file(1), |bytes| bytes[start as usize..start as usize + 64].fill(0));
    let (recovered, replayed) = reopened(&disk);
    assert_eq!((recovered.damage, replayed.len()), (None, 1));
}

#[tokio::test]
async fn damage_is_quarantined_reported_until_adopted_and_its_entries_stay_readable() {
    let (disk, entries) = written(20);
    disk.edit(&file(2), |bytes| bytes[140] ^= 1);
    let (journal, first, index) = open(options(Path::new(DIR)), &disk);
    assert!(first.damage.is_some() && !first.created);
    assert!(Lsn(entries.len() as u64) < first.last_lsn);
    for durable in index.all() {
        assert_eq!(journal.read(durable.location).expect("kept open"), durable.entry.payload);
    }
    let moved = disk.list(&Path::new(DIR).join("quarantine-1")).expect("folder");
    assert_eq!(moved.len() as u64, last_file(&entries));
    let lsn = journal.append(super::entry("after")).await.expect("room");
    assert_eq!(lsn, first.last_lsn.next());
    drop(journal);

    // Nobody dealt with it: still damage, but nothing more is moved away.
    let (journal, second, index) = open(options(Path::new(DIR)), &disk);
    assert!(second.damage.is_some());
    assert_eq!((second.last_lsn, index.all().len()), (lsn, 1));
    journal.adopt(Incarnation(4)).await.expect_err("not above");
    journal.adopt(Incarnation(6)).await.expect("room");
    drop(journal);

    let next = JournalOptions { incarnation: Incarnation(6), ..options(Path::new(DIR)) };
    let (_, third, index) = open(next, &disk);
    assert_eq!((third.damage, third.last_lsn, index.all().len()), (None, lsn, 1));
    assert!(disk.list(&Path::new(DIR).join("quarantine-2")).expect("folder").is_empty());
}

/// A file whose checksums are right all the same: a name, a header and a group with the highest
/// numbers there are, beside a sound file 1.
#[test]
fn numbers_that_no_journal_reaches_are_damage_and_none_is_given_again() {
    let far = |first_lsn, group_lsn| {
        let header = FileHeader {
            cluster: ClusterId(7),
            incarnation: Incarnation(5),
            file: 2,
            first_lsn: Lsn(first_lsn),
            oldest_file: 1,
            file_bytes: 4096,
        };
        let (mut bytes, seed) = header.encode();
        let mut group = vec![0; 64];
        let head = GroupHeader {
            kind: GroupKind::Entries,
            file: 2,
            body_bytes: 0,
            entry_count: 0,
            first_lsn: Lsn(group_lsn),
            previous: 0,
            durable_lsn: Lsn(0),
            oldest_file: 1,
        };
        head.seal_into(&mut group, seed);
        bytes.extend_from_slice(&group);
        bytes.resize(4096, 0);
        bytes
    };
    for (first_lsn, group_lsn) in [(u64::MAX, u64::MAX), (5, u64::MAX), (1 << 63, 1 << 63)] {
        let (disk, _) = written(1);
        let put = disk.create(&file(2)).and_then(|handle| {
            write_all_at(handle.as_ref(), &far(first_lsn, group_lsn), 0).map_err(|(_, e)| e)
        });
        put.expect("memory takes all");
        let (recovered, _) = reopened(&disk);
        assert!(recovered.damage.is_some(), "{first_lsn} {group_lsn}");
        assert!(recovered.last_lsn.0 < 1 << 40, "{recovered:?}");
        let (again, _) = reopened(&disk);
        assert_eq!(again.last_lsn, recovered.last_lsn, "no LSN is given again");
    }
    // A name that no journal file has is no journal file.
    let (disk, entries) = written(1);
    disk.create(&file(u64::MAX)).expect("memory takes all");
    assert_eq!(reopened(&disk).0.damage, None);
    assert_eq!(reopened(&disk).1, entries);
}

#[tokio::test]
async fn while_it_runs_a_flipped_bit_in_any_complete_file_is_found_and_the_others_are_sound() {
    let (disk, entries) = written(20);
    let (journal, recovered, _) = open(options(Path::new(DIR)), &disk);
    assert_eq!(recovered.damage, None);
    let files = journal.complete_files();
    assert_eq!(files.last().copied(), Some(last_file(&entries) - 1), "the current one is not");
    for checked in &files {
        let (length, damage) = journal.check_file(*checked).expect("read").expect("there");
        assert_eq!((length, damage), (4096, None));
    }
    for broken in &files {
        let offset = parsed(&disk, *broken).groups[0].0;
        let turn = |bytes: &mut Vec<u8>| bytes[offset as usize + 70] ^= 4;
        disk.edit(&file(*broken), turn);
        for checked in &files {
            let (_, damage) = journal.check_file(*checked).expect("read").expect("there");
            assert_eq!(damage.map(|it| it.file), (checked == broken).then_some(*broken));
        }
        disk.edit(&file(*broken), turn);
    }
    // A file that was trimmed is not looked for.
    assert_eq!(journal.check_file(files[0] + 1_000).expect("nothing is read"), None);
}

#[tokio::test]
async fn while_it_runs_a_complete_file_without_its_seal_is_damage_unless_it_may_be_getting_it() {
    let (disk, _) = written(20);
    let (journal, ..) = open(options(Path::new(DIR)), &disk);
    let files = journal.complete_files();
    for number in &files {
        let seal = parsed(&disk, *number).last.expect("a seal");
        disk.edit(&file(*number), |bytes| bytes[seal as usize..].fill(0));
        let (_, damage) = journal.check_file(*number).expect("read").expect("there");
        assert_eq!(damage.is_some(), Some(number) != files.last(), "file {number}");
    }
}
