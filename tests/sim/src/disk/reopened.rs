//! What the next process would make of a journal; on a copy of the disk, as opening changes it.

use std::{path::Path, sync::Arc};

use tako_journal::{
    Blocking, Durability, Durable, Identity, JournalOptions, Sink, Writer, fault::MemDisk,
};
use tako_types::Lsn;

const FILE_BYTES: u64 = 64 << 10;

/// Where a journal ends.
pub(super) struct End {
    pub(super) last_lsn: Lsn,
    pub(super) is_damaged: bool,
}

struct Nobody;

impl Sink for Nobody {
    fn on_durable(&self, _: &[Durable]) {}
}

/// Of the journal that this file belongs to; `None` where no node would open it.
pub(super) fn end_of(disk: MemDisk, journal_file: &Path) -> Option<End> {
    let dir = journal_file.parent()?;
    let identity = Identity::load(&disk, dir.parent()?).ok()??;
    let options = JournalOptions {
        dir: dir.to_owned(),
        file_bytes: FILE_BYTES,
        disk_bytes_max: u64::MAX,
        durability: Durability::Fsync,
        cluster: identity.cluster,
        incarnation: identity.incarnation,
        queue_bytes_max: 1 << 20,
        blocking: Blocking::Threads,
    };
    let (_, recovered) = Writer::open(options, Arc::new(disk), Arc::new(Nobody)).ok()?;
    Some(End { last_lsn: recovered.last_lsn, is_damaged: recovered.damage.is_some() })
}
