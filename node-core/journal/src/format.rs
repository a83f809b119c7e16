//! Bytes of a journal file: header, groups, entries. Pure: no I/O, no panics on any input.
//!
//! Source of truth for docs/formats/journal.md. All numbers little-endian. A group's checksums
//! start from its file's header checksum, so that a group copied from elsewhere (or a value that
//! looks like one) is never taken for a group of this file.

use bytes::Bytes;
use tako_types::{ClusterId, Incarnation, Lsn, PartitionId, limits::RECORD_BYTES_MAX};

use crate::{Entry, EntryKind};

const FILE_MAGIC: [u8; 8] = *b"TAKOJRNL";
const GROUP_MAGIC: u32 = 0x5047_4b54;
const FORMAT: u32 = 1;

/// Groups start at multiples of this.
pub(crate) const ALIGN: u64 = 64;
pub(crate) const FILE_HEADER_BYTES: u64 = 128;
pub(crate) const GROUP_HEADER_BYTES: u64 = 64;
pub(crate) const ENTRY_HEADER_BYTES: u64 = 12;
/// Longest payload: one record.
pub(crate) const ENTRY_BYTES_MAX: usize = RECORD_BYTES_MAX;
/// A group's body stops growing here, unless a single entry is longer.
pub(crate) const GROUP_BODY_BYTES_MAX: u64 = 4 << 20;

/// Highest LSN and file number that is believed: no journal gets there, so what says more is not
/// one, and counting on from what was read never runs out of numbers.
pub(crate) const NUMBER_MAX: u64 = u64::MAX >> 1;

/// First bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) cluster: ClusterId,
    pub(crate) incarnation: Incarnation,
    pub(crate) file: u64,
    /// LSN of the first entry that goes into this file.
    pub(crate) first_lsn: Lsn,
    /// Oldest file still needed when this one was begun.
    pub(crate) oldest_file: u64,
    /// Length of the whole file.
    pub(crate) file_bytes: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

impl FileHeader {
    /// The header's bytes, and the checksum from which the file's groups start theirs.
    pub(crate) fn encode(&self) -> (Vec<u8>, u32) {
        let mut out = Vec::with_capacity(FILE_HEADER_BYTES as usize);
        out.extend_from_slice(&FILE_MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(FILE_HEADER_BYTES as u32).to_le_bytes());
        out.extend_from_slice(&self.cluster.0.to_le_bytes());
        out.extend_from_slice(&self.incarnation.0.to_le_bytes());
        out.extend_from_slice(&self.file.to_le_bytes());
        out.extend_from_slice(&self.first_lsn.0.to_le_bytes());
        out.extend_from_slice(&self.oldest_file.to_le_bytes());
        out.extend_from_slice(&self.file_bytes.to_le_bytes());
        out.resize(FILE_HEADER_BYTES as usize - 4, 0);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        (out, crc)
    }

    /// Reads a header; the reason where it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, u32), String> {
        let bytes =
            bytes.get(..FILE_HEADER_BYTES as usize).ok_or("the file is cut in its header")?;
        let (body, crc) = bytes.split_at(bytes.len() - 4);
        if body[..8] != FILE_MAGIC {
            return Err("no journal header".into());
        }
        let crc = u32_at(crc, 0).unwrap_or(0);
        if crc32c::crc32c(body) != crc {
            return Err("the header's checksum is wrong".into());
        }
        let format = u32_at(body, 8).unwrap_or(0);
        if format != FORMAT {
            return Err(format!("format {format} is unknown"));
        }
        let low = u64_at(body, 16).unwrap_or(0);
        let high = u64_at(body, 24).unwrap_or(0);
        let number = |at| u64_at(body, at).unwrap_or(0);
        let header = Self {
            cluster: ClusterId((u128::from(high) << 64) | u128::from(low)),
            incarnation: Incarnation(number(32)),
            file: number(40),
            first_lsn: Lsn(number(48)),
            oldest_file: number(56),
            file_bytes: number(64),
        };
        if NUMBER_MAX < header.file.max(header.first_lsn.0).max(header.oldest_file) {
            return Err("the header has numbers that no journal reaches".into());
        }
        Ok((header, crc))
    }
}

/// What a group is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// Entries; none at all in a mark that only says which file is the oldest needed.
    Entries,
    /// Last group of a file: the file with the next number exists.
    Seal,
}

/// First bytes of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) kind: GroupKind,
    pub(crate) file: u64,
    pub(crate) body_bytes: u32,
    pub(crate) entry_count: u32,
    pub(crate) first_lsn: Lsn,
    /// Offset of the group before in this file; 0 for the first.
    pub(crate) previous: u64,
    /// Everything up to here was durable when this group was written.
    pub(crate) durable_lsn: Lsn,
    /// Files below this one are not needed and may be missing.
    pub(crate) oldest_file: u64,
}

impl GroupHeader {
    /// Writes header and checksums into `group`, whose body is in place behind the header.
    pub(crate) fn seal_into(&self, group: &mut [u8], seed: u32) {
        let (head, body) = group.split_at_mut(GROUP_HEADER_BYTES as usize);
        let body_crc = crc32c::crc32c_append(seed, body);
        head[0..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
        let kind: u32 = if self.kind == GroupKind::Seal { 1 } else { 0 };
        head[4..8].copy_from_slice(&kind.to_le_bytes());
        head[8..16].copy_from_slice(&self.file.to_le_bytes());
        head[16..20].copy_from_slice(&self.body_bytes.to_le_bytes());
        head[20..24].copy_from_slice(&self.entry_count.to_le_bytes());
        head[24..32].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        head[32..40].copy_from_slice(&self.previous.to_le_bytes());
        head[40..48].copy_from_slice(&self.durable_lsn.0.to_le_bytes());
        head[48..56].copy_from_slice(&self.oldest_file.to_le_bytes());
        head[56..60].copy_from_slice(&body_crc.to_le_bytes());
        let head_crc = crc32c::crc32c_append(seed, &head[..60]);
        head[60..64].copy_from_slice(&head_crc.to_le_bytes());
    }

    /// Reads the whole, intact group at `offset`; `None` where there is none.
    ///
    /// The header is checked by itself first, so a search through foreign bytes stays cheap.
    pub(crate) fn decode(bytes: &[u8], offset: u64, seed: u32) -> Option<Self> {
        let start = usize::try_from(offset).ok()?;
        let head = bytes.get(start..start.checked_add(GROUP_HEADER_BYTES as usize)?)?;
        if u32_at(head, 0)? != GROUP_MAGIC
            || crc32c::crc32c_append(seed, &head[..60]) != u32_at(head, 60)?
        {
            return None;
        }
        let kind = match u32_at(head, 4)? {
            0 => GroupKind::Entries,
            1 => GroupKind::Seal,
            _ => return None,
        };
        let group = Self {
            kind,
            file: u64_at(head, 8)?,
            body_bytes: u32_at(head, 16)?,
            entry_count: u32_at(head, 20)?,
            first_lsn: Lsn(u64_at(head, 24)?),
            previous: u64_at(head, 32)?,
            durable_lsn: Lsn(u64_at(head, 40)?),
            oldest_file: u64_at(head, 48)?,
        };
        let body = start + GROUP_HEADER_BYTES as usize;
        let body = bytes.get(body..body.checked_add(group.body_bytes as usize)?)?;
        let sound = u64::from(group.body_bytes) % ALIGN == 0
            && crc32c::crc32c_append(seed, body) == u32_at(head, 56)?
            && group.oldest_file <= NUMBER_MAX
            && group.first_lsn.0 <= NUMBER_MAX - u64::from(group.entry_count)
            && entries(body, group.entry_count).all(|entry| entry.is_some());
        sound.then_some(group)
    }

    /// Offset behind the group.
    pub(crate) fn end(&self, offset: u64) -> u64 {
        offset + GROUP_HEADER_BYTES + u64::from(self.body_bytes)
    }

    /// LSN of the first entry after this group.
    pub(crate) fn next_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + u64::from(self.entry_count))
    }
}

/// One entry within a group's body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryRef<'a> {
    pub(crate) partition: PartitionId,
    pub(crate) kind: EntryKind,
    pub(crate) payload: &'a [u8],
    /// Offset of the payload in the body.
    pub(crate) at: u64,
}

/// The `count` entries of a body; `None` once where the bytes end too early.
pub(crate) fn entries(body: &[u8], count: u32) -> impl Iterator<Item = Option<EntryRef<'_>>> {
    let mut at = 0usize;
    let mut left = count;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        left -= 1;
        let entry = (|| {
            let head = body.get(at..at.checked_add(ENTRY_HEADER_BYTES as usize)?)?;
            let start = at + ENTRY_HEADER_BYTES as usize;
            let bytes = usize::try_from(u32_at(head, 4)?).ok()?;
            let payload = body.get(start..start.checked_add(bytes)?)?;
            at = start + bytes;
            Some(EntryRef {
                partition: PartitionId(u16::from_le_bytes([head[2], head[3]])),
                kind: EntryKind::from_wire(head[0]),
                payload,
                at: start as u64,
            })
        })();
        if entry.is_none() {
            left = 0;
        }
        Some(entry)
    })
}

/// Bytes an entry takes in a body.
pub(crate) fn entry_bytes(entry: &Entry) -> u64 {
    ENTRY_HEADER_BYTES + entry.payload.len() as u64
}

/// Bytes of a whole group with this much of entries.
pub(crate) fn group_bytes(entries_bytes: u64) -> u64 {
    GROUP_HEADER_BYTES + entries_bytes.next_multiple_of(ALIGN)
}

/// Appends an entry to a body under construction.
pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.push(entry.kind.to_wire());
    out.push(0);
    out.extend_from_slice(&entry.partition.0.to_le_bytes());
    // Payloads are bounded by ENTRY_BYTES_MAX, far below 4 GiB.
    out.extend_from_slice(&(entry.payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&entry_crc(&entry.payload).to_le_bytes());
    out.extend_from_slice(&entry.payload);
}

fn entry_crc(payload: &[u8]) -> u32 {
    crc32c::crc32c(payload)
}

/// Takes the payload out of entry header + payload as read from a file, if intact.
pub(crate) fn open_entry(bytes: Bytes, payload_bytes: u32) -> Option<Bytes> {
    let length = u32_at(&bytes, 4)?;
    let crc = u32_at(&bytes, 8)?;
    let payload = bytes.slice(ENTRY_HEADER_BYTES as usize..);
    (length == payload_bytes && entry_crc(&payload) == crc).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of these bytes is a change of the format: raise its number.
    #[test]
    fn the_header_and_a_group_have_these_bytes() {
        let header = FileHeader {
            cluster: ClusterId(0x0102),
            incarnation: Incarnation(3),
            file: 4,
            first_lsn: Lsn(5),
            oldest_file: 6,
            file_bytes: 7,
        };
        let (bytes, seed) = header.encode();
        assert_eq!(FileHeader::decode(&bytes), Ok((header, seed)));
        assert_eq!(seed, crc32c::crc32c(&bytes[..124]));
        let mut group = vec![0; GROUP_HEADER_BYTES as usize];
        let entry = Entry {
            partition: PartitionId(0x0908),
            kind: EntryKind::Other(7),
            payload: Bytes::from_static(b"payload"),
        };
        put_entry(&mut group, &entry);
        assert_eq!(group.len() as u64, GROUP_HEADER_BYTES + entry_bytes(&entry));
        group.resize(group_bytes(entry_bytes(&entry)) as usize, 0);
        let head = GroupHeader {
            kind: GroupKind::Entries,
            file: 4,
            body_bytes: 64,
            entry_count: 1,
            first_lsn: Lsn(5),
            previous: 0,
            durable_lsn: Lsn(4),
            oldest_file: 4,
        };
        head.seal_into(&mut group, seed);
        assert_eq!(GroupHeader::decode(&group, 0, seed), Some(head));
        assert_eq!(GroupHeader::decode(&group, 0, seed ^ 1), None, "foreign file");
        let all: Vec<u8> = bytes.into_iter().chain(group).collect();
        assert_eq!((all.len(), crc32c::crc32c(&all)), (256, GOLDEN_CRC));
    }

    const GOLDEN_CRC: u32 = 778_265_982;
}
