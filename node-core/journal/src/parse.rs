//! Finds the groups in the bytes of one file. Pure: any bytes give an answer, none a panic.
//!
//! Invariant: every group reported is intact, belongs to this file, and follows the ones before it
//! in LSN order; `damage` says where something between or before them is missing.

use tako_types::{ClusterId, Lsn};

use crate::format::{
    ALIGN, FILE_HEADER_BYTES, FileHeader, GROUP_HEADER_BYTES, GroupHeader, GroupKind,
};

/// What one file holds.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) header: FileHeader,
    pub(crate) seed: u32,
    /// Offsets and headers of the intact groups with or without entries; the seal is not here.
    pub(crate) groups: Vec<(u64, GroupHeader)>,
    pub(crate) sealed: bool,
    /// Offset of the last intact group, the seal included.
    pub(crate) last: Option<u64>,
    /// Behind the last intact group.
    pub(crate) end: u64,
    /// Behind the last byte that is not zero; above `end` where the tail is torn.
    pub(crate) torn_end: u64,
    /// LSN of the first entry after this file.
    pub(crate) next_lsn: Lsn,
    /// The highest statement about the oldest file needed.
    pub(crate) oldest_file: u64,
    /// First place with damage, and what it is.
    pub(crate) damage: Option<(u64, String)>,
}

/// Reads file `file` of `cluster`; the error says why it is none.
pub(crate) fn parse(bytes: &[u8], file: u64, cluster: ClusterId) -> Result<Parsed, String> {
    let (header, seed) = FileHeader::decode(bytes)?;
    if header.cluster != cluster {
        return Err(format!("belongs to cluster {:032x}", header.cluster.0));
    }
    if header.file != file {
        return Err(format!("the header names file {}", header.file));
    }
    let mut parsed = Parsed {
        header,
        seed,
        groups: Vec::new(),
        sealed: false,
        last: None,
        end: FILE_HEADER_BYTES,
        torn_end: FILE_HEADER_BYTES,
        next_lsn: header.first_lsn,
        oldest_file: header.oldest_file,
        damage: None,
    };
    if bytes.len() as u64 != header.file_bytes {
        let reason = format!("{} bytes long, expected {}", bytes.len(), header.file_bytes);
        parsed.damage = Some((0, reason));
    }
    let mut previous = 0;
    while !parsed.sealed {
        let at = parsed.end;
        let Some((offset, group)) = next_group(bytes, &parsed) else { break };
        if offset != at {
            parsed.damage.get_or_insert((at, "a bad group is followed by an intact one".into()));
        } else if group.first_lsn != parsed.next_lsn || group.previous != previous {
            let due = parsed.next_lsn;
            let reason = format!("LSN {} follows, expected {due}", group.first_lsn);
            parsed.damage.get_or_insert((at, reason));
        }
        previous = offset;
        parsed.last = Some(offset);
        parsed.end = group.end(offset);
        parsed.next_lsn = group.next_lsn();
        parsed.oldest_file = parsed.oldest_file.max(group.oldest_file);
        match group.kind {
            GroupKind::Seal => parsed.sealed = true,
            GroupKind::Entries => parsed.groups.push((offset, group)),
        }
    }
    let behind = bytes.get(parsed.end as usize..).unwrap_or_default();
    let nonzero = behind.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
    parsed.torn_end = parsed.end + nonzero;
    Ok(parsed)
}

/// The first intact group of this file at or behind `parsed.end`.
fn next_group(bytes: &[u8], parsed: &Parsed) -> Option<(u64, GroupHeader)> {
    let last = (bytes.len() as u64).checked_sub(GROUP_HEADER_BYTES)?;
    (parsed.end..=last).step_by(ALIGN as usize).find_map(|offset| {
        let group = GroupHeader::decode(bytes, offset, parsed.seed)?;
        let fits = group.file == parsed.header.file && parsed.next_lsn <= group.first_lsn;
        fits.then_some((offset, group))
    })
}
