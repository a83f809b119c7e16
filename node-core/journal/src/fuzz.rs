//! Entry points for a fuzzer; the test suite runs them with seeds.
//!
//! Invariant: no bytes whatever make the reader of journal files panic, or report a group that is
//! not there.

use bytes::Bytes;
use tako_types::{ClusterId, Incarnation, Lsn, PartitionId};

use crate::{
    Entry, EntryKind,
    format::{
        FileHeader, GROUP_HEADER_BYTES, GroupHeader, GroupKind, entries, entry_bytes, group_bytes,
        put_entry,
    },
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
    use super::journal_file;

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
