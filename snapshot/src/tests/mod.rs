//! The snapshot suite: every claim over a memory store and over a folder.
//!
//! Records are `version micros (8 bytes) ++ text`, and the merge takes the greater bytes, which is
//! the real merge's order without the record's format.

mod budget;
mod cached;
mod faults;
mod grace;
mod leases;
mod model;
mod steps;
mod stores;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use tako_types::{Clock, Incarnation, Lsn, NodeId, PartitionId, SystemClock, Version};

use crate::{
    Coverage, DueRow, PartitionReader, SnapshotOptions, Snapshots, StepInput, StepRow, Store,
    StoreSettings, fault::FaultStore,
};

pub(crate) const P: PartitionId = PartitionId(3);

/// The machine's clock, moved by hand.
#[derive(Debug, Default)]
pub(crate) struct Moved(AtomicI64);

impl Moved {
    pub(crate) fn by_hours(&self, hours: i64) {
        self.by_minutes(hours * 60);
    }

    pub(crate) fn by_minutes(&self, minutes: i64) {
        self.0.fetch_add(minutes * 60_000_000, Ordering::Relaxed);
    }
}

impl Clock for Moved {
    fn now_micros(&self) -> u64 {
        SystemClock.now_micros().saturating_add_signed(self.0.load(Ordering::Relaxed))
    }
}

/// A store with its injector and clock; nodes are opened on it.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) fault: Arc<FaultStore>,
    pub(crate) clock: Arc<Moved>,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    pub(crate) fn memory() -> Self {
        Self::over(&Store::in_memory(), None)
    }

    pub(crate) fn folder() -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        let url = folder.path().display().to_string();
        let store = Store::open(&StoreSettings::url(&url)).expect("a folder store");
        Self::over(&store, Some(folder))
    }

    /// One of each kind.
    pub(crate) fn all() -> [Self; 2] {
        [Self::memory(), Self::folder()]
    }

    fn over(store: &Store, folder: Option<tempfile::TempDir>) -> Self {
        let (store, fault) = store.with_faults();
        Self { store, fault, clock: Arc::default(), _folder: folder }
    }

    pub(crate) async fn node(&self) -> Arc<Snapshots> {
        self.node_with(options()).await
    }

    pub(crate) async fn node_with(&self, options: SnapshotOptions) -> Arc<Snapshots> {
        Snapshots::new(self.store.clone(), options, self.clock.clone(), merge)
            .await
            .expect("valid options")
    }
}

pub(crate) fn options() -> SnapshotOptions {
    SnapshotOptions {
        cache_memory_bytes: 8 << 20,
        compaction_poll: Duration::from_millis(20),
        maintain_patience: Duration::from_secs(30),
        ..SnapshotOptions::default()
    }
}

pub(crate) fn merge(a: Bytes, b: Bytes) -> Bytes {
    if a >= b { a } else { b }
}

pub(crate) fn key(name: &str) -> Bytes {
    tako_types::Key::new(0, Bytes::copy_from_slice(name.as_bytes()))
        .expect("a short key")
        .stored()
        .as_bytes()
        .clone()
}

pub(crate) fn version(micros: u64) -> Version {
    Version { micros, origin: 1 }
}

pub(crate) fn record(micros: u64, text: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u64(micros);
    out.put_slice(text.as_bytes());
    out.freeze()
}

pub(crate) fn row(name: &str, micros: u64, text: &str, newest: bool) -> StepRow {
    StepRow { key: key(name), record: record(micros, text), version: version(micros), newest }
}

pub(crate) fn due(name: &str, at_micros: u64, micros: u64) -> DueRow {
    DueRow { at_micros, key: key(name), version: version(micros) }
}

pub(crate) fn coverage(lsn: u64) -> Coverage {
    Coverage::from([(NodeId::new("n1"), (Incarnation(1), Lsn(lsn)))])
}

/// A step of some rows that covers up to an LSN.
pub(crate) fn step(rows: Vec<StepRow>, lsn: u64) -> StepInput {
    let highest = rows.iter().map(|row| row.version).max().unwrap_or_default();
    StepInput { rows, coverage: coverage(lsn), highest, ..StepInput::default() }
}

pub(crate) async fn text(reader: &PartitionReader, name: &str) -> Option<String> {
    let found = reader.get(&key(name)).await.expect("a read");
    found.map(|bytes| String::from_utf8(bytes[8..].to_vec()).expect("text"))
}
