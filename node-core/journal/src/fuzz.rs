//! Entry points for a fuzzer; the test suite runs them with seeds.
//!
//! Invariant: no bytes whatever make the reader of journal files panic, or report a group that is
//! not there; a folder of such files opens, and opens again to the same; an identity that is read
//! is written as the same.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tako_types::{ClusterId, Incarnation, Lsn, PartitionId};

use crate::{
    Blocking, Disk, Durability, Durable, Entry, EntryKind, JournalOptions, Recovered, Sink, Writer,
    fault::MemDisk,
    files::path_of,
    format::{
        FileHeader, GROUP_HEADER_BYTES, GroupHeader, GroupKind, entries, entry_bytes, group_bytes,
        put_entry,
    },
    identity,
    parse::parse,
};

const CLUSTER: ClusterId = ClusterId(7);

/// Reads `data` as a journal file, as a group's body, and as damage done to a sound file.
///
/// # Panics
/// When the reader breaks its promises.
pub fn journal_file(data: &[u8]) {
    let _any_answer = parse(data, 1, CLUSTER);
    let count = data.first().map_or(0, |byte| u32::from(*byte));
    assert!(entries(data, count).count() <= count as usize, "more entries than announced");

    let sound = sound_file();
    let mut damaged = sound.clone();
    for change in data.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % damaged.len();
        damaged[at] ^= change[2];
    }
    let before = parse(&sound, 1, CLUSTER).map(|parsed| parsed.groups).unwrap_or_default();
    if let Ok(parsed) = parse(&damaged, 1, CLUSTER) {
        for (offset, group) in &parsed.groups {
            assert!(before.contains(&(*offset, *group)), "a group was made up at {offset}");
            let body = &damaged[(offset + GROUP_HEADER_BYTES) as usize..];
            assert_eq!(
                entries(body, group.entry_count).flatten().count() as u32,
                group.entry_count
            );
        }
        let lost = parsed.groups.len() < before.len();
        let said = parsed.damage.is_some() || parsed.end < parsed.torn_end;
        assert!(!lost || said, "groups vanished without a word");
    }
}

/// Reads `data` as the JSON of an identity file, and as the whole file.
///
/// # Panics
/// When the reader breaks its promises.
pub fn identity(data: &[u8]) {
    for text in [data.to_vec(), identity::with_checksum(data)] {
        let Ok(read) = identity::parse(&text) else { continue };
        let written = read.encode().expect("an identity has a JSON form");
        assert_eq!(identity::parse(&written).as_ref(), Ok(&read));
        let mut cut = written.clone();
        cut.pop();
        assert!(identity::parse(&cut).is_err(), "a cut file passes for whole");
        let at = usize::from(data[0]) % written.len();
        let mut flipped = written;
        flipped[at] ^= 1 << (data.len() % 8);
        assert!(identity::parse(&flipped).is_err(), "a flipped bit at {at} passes");
    }
}

const DIR: &str = "/j";
const INCARNATION: Incarnation = Incarnation(5);

/// Takes `data` as what to write into one to three journal files whose checksums are right, and
/// opens the folder.
///
/// # Panics
/// When opening breaks its promises.
pub fn journal_folder(data: &[u8]) {
    let disk = made_up_folder(data);
    let before = disk.deep_copy();
    let Some((recovered, replayed)) = opened(&disk) else { return };
    let lsns = |entries: &[Durable]| entries.iter().map(|entry| entry.lsn.0).collect::<Vec<_>>();
    assert_eq!(recovered.entry_count, replayed.len() as u64);
    assert!(lsns(&replayed).iter().all(|lsn| *lsn <= recovered.last_lsn.0), "an LSN to come");
    let Some((again, replayed_again)) = opened(&disk) else {
        panic!("opened once, and not again: {recovered:?}");
    };
    if recovered.damage.is_none() {
        let due: Vec<u64> = (0..replayed.len() as u64)
            .map(|at| recovered.last_lsn.0 - (replayed.len() as u64 - 1 - at))
            .collect();
        assert_eq!(lsns(&replayed), due, "gaps and no damage");
        assert_eq!(replayed_again, replayed, "another answer the second time");
        assert_eq!((again.damage, again.torn_bytes), (None, 0));
        assert_eq!(again.last_lsn, recovered.last_lsn);
    } else {
        assert!(again.damage.is_some(), "damage is forgotten");
        assert!(
            recovered.last_lsn <= again.last_lsn,
            "an LSN is given twice: {recovered:?}, {again:?}"
        );
        assert!(replayed_again.is_empty(), "what was moved away comes back");
        let kept = disk.paths().len();
        assert!(before.paths().len() <= kept, "a file of a damaged journal is gone");
    }
}

/// The folder that `data` makes up.
fn made_up_folder(data: &[u8]) -> MemDisk {
    let mut numbers = Numbers(data);
    let disk = MemDisk::default();
    disk.create_dir(Path::new(DIR)).expect("memory takes all");
    let mut file = numbers.next().max(1);
    let mut lsn = numbers.next();
    for _ in 0..=numbers.next() % 3 {
        let bytes = made_up_file(&mut numbers, file, &mut lsn);
        let path = path_of(Path::new(DIR), file);
        // The highest name there is comes twice.
        let Ok(made) = disk.create(&path) else { break };
        crate::write_all_at(made.as_ref(), &bytes, 0).expect("memory takes all");
        file = file.saturating_add(1 + numbers.next() / 64);
    }
    disk
}

fn opened(disk: &MemDisk) -> Option<(Recovered, Vec<Durable>)> {
    #[derive(Default)]
    struct Index(Mutex<Vec<Durable>>);
    impl Sink for Index {
        fn on_durable(&self, batch: &[Durable]) {
            self.0.lock().extend_from_slice(batch);
        }
    }
    let options = JournalOptions {
        dir: DIR.into(),
        file_bytes: 4096,
        disk_bytes_max: 1 << 20,
        durability: Durability::Fsync,
        cluster: CLUSTER,
        incarnation: INCARNATION,
        queue_bytes_max: 1 << 20,
        blocking: Blocking::Threads,
    };
    let index = Arc::new(Index::default());
    let (_, recovered) = Writer::open(options, Arc::new(disk.clone()), index.clone()).ok()?;
    let replayed = index.0.lock().clone();
    Some((recovered, replayed))
}

/// Numbers out of bytes: small ones of one byte, any of nine.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn next(&mut self) -> u64 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        match rest.split_first_chunk() {
            Some((whole, rest)) if *first == 0xff => {
                self.0 = rest;
                u64::from_le_bytes(*whole)
            }
            _ => u64::from(*first),
        }
    }

    /// `due`, unless the bytes say something else.
    fn or(&mut self, due: u64) -> u64 {
        match self.next() {
            0..=0xdf => due,
            other => due.wrapping_add(other - 0xe0),
        }
    }
}

/// A file whose numbers are nearly those that are due, with as many groups as the numbers say.
fn made_up_file(numbers: &mut Numbers<'_>, file: u64, lsn: &mut u64) -> Vec<u8> {
    *lsn = numbers.or(*lsn);
    let header = FileHeader {
        cluster: CLUSTER,
        incarnation: Incarnation(numbers.or(INCARNATION.0)),
        file: numbers.or(file),
        first_lsn: Lsn(*lsn),
        oldest_file: numbers.next(),
        file_bytes: numbers.or(4096),
    };
    let (mut out, seed) = header.encode();
    let mut previous = 0;
    for _ in 0..numbers.next() % 4 {
        let kind = if numbers.next() % 8 == 7 { GroupKind::Seal } else { GroupKind::Entries };
        let count = if kind == GroupKind::Seal { 0 } else { numbers.next() as u32 % 4 };
        let mut group = vec![0; GROUP_HEADER_BYTES as usize];
        let mut taken = 0;
        for _ in 0..count {
            let entry = Entry {
                partition: PartitionId(numbers.next() as u16),
                kind: EntryKind::from_wire(numbers.next() as u8),
                payload: Bytes::from(vec![7; numbers.next() as usize % 100]),
            };
            taken += entry_bytes(&entry);
            put_entry(&mut group, &entry);
        }
        let bytes = group_bytes(taken);
        group.resize(bytes as usize, 0);
        *lsn = numbers.or(*lsn);
        let head = GroupHeader {
            kind,
            file: numbers.or(header.file),
            body_bytes: (bytes - GROUP_HEADER_BYTES) as u32,
            entry_count: numbers.or(u64::from(count)) as u32,
            first_lsn: Lsn(*lsn),
            previous: numbers.or(previous),
            durable_lsn: Lsn(numbers.or(lsn.wrapping_sub(1))),
            oldest_file: numbers.or(header.oldest_file),
        };
        head.seal_into(&mut group, seed);
        *lsn = lsn.wrapping_add(u64::from(count));
        previous = out.len() as u64;
        out.extend_from_slice(&group);
    }
    let length = numbers.or(4096).min(8192) as usize;
    out.resize(length.max(out.len()), 0);
    let torn = numbers.or(out.len() as u64 - 1) as usize % out.len();
    out[torn] ^= (numbers.next() as u8) & 0x7f;
    out
}

/// A file of 4 KiB with a few groups of one and two entries.
fn sound_file() -> Vec<u8> {
    let header = FileHeader {
        cluster: CLUSTER,
        incarnation: Incarnation(1),
        file: 1,
        first_lsn: Lsn(1),
        oldest_file: 1,
        file_bytes: 4096,
    };
    let (mut file, seed) = header.encode();
    let (mut lsn, mut previous) = (1, 0);
    for number in 0..6u8 {
        let entry = Entry {
            partition: PartitionId(u16::from(number)),
            kind: EntryKind::Record,
            payload: Bytes::from(vec![number; 90]),
        };
        let count = u32::from(number % 2) + 1;
        let mut group = vec![0; GROUP_HEADER_BYTES as usize];
        for _ in 0..count {
            put_entry(&mut group, &entry);
        }
        let bytes = group_bytes(entry_bytes(&entry) * u64::from(count));
        group.resize(bytes as usize, 0);
        let head = GroupHeader {
            kind: GroupKind::Entries,
            file: 1,
            body_bytes: (bytes - GROUP_HEADER_BYTES) as u32,
            entry_count: count,
            first_lsn: Lsn(lsn),
            previous,
            durable_lsn: Lsn(lsn - 1),
            oldest_file: 1,
        };
        head.seal_into(&mut group, seed);
        lsn += u64::from(count);
        previous = file.len() as u64;
        file.extend_from_slice(&group);
    }
    file.resize(4096, 0);
    file
}

#[cfg(test)]
mod tests {
    use super::{journal_file, journal_folder, made_up_folder, opened};

    /// Else the folders of the fuzzer would all be damaged, and say little.
    #[test]
    fn sound_folders_can_be_made_up() {
        let one =
            [1, 1, 0, 0, 0, 0, 1, 0, 2, 0, 2, 1, 0, 50, 1, 0, 60, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0, 9];
        // The same, a seal, and a file with two entries more.
        let more = [
            0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 2, 1, 0, 5, 1,
            0, 6,
        ];
        let mut two = one.to_vec();
        (two[2], two[8]) = (1, 3);
        two.extend(more);
        for (data, count) in [(one.to_vec(), 3), (two, 5)] {
            let (recovered, replayed) = opened(&made_up_folder(&data)).expect("opens");
            assert_eq!((recovered.damage, replayed.len()), (None, count));
            journal_folder(&data);
        }
    }

    #[test]
    fn seeded_bytes_break_nothing() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for seed in 0..3000usize {
            let data: Vec<u8> = (0..seed % 200)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            journal_file(&data);
        }
    }
}
