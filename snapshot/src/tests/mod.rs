//! The snapshot suite: every claim over a memory store, a folder and an S3 server.
//!
//! The server is a process of its own, see `tests/s3_server`; where there is none its part is
//! skipped aloud. Claims about simulated time are shown of memory only, as no other process lives
//! by that.
//!
//! Records are `version micros (8 bytes) ++ text`, and the merge takes the greater bytes, which is
//! the real merge's order without the record's format.

mod backups;
mod budget;
mod cached;
mod faults;
mod grace;
mod leases;
mod listing;
mod model;
mod orphans;
mod restores;
#[path = "../../tests/s3_server/mod.rs"]
#[allow(unreachable_pub, reason = "shared with another package's tests by path")]
mod s3_server;
mod scrub;
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
use tako_types::{Clock, Incarnation, Lsn, NodeId, PartitionId, RecordStat, SystemClock, Version};

use crate::{
    Coverage, DueRow, PartitionReader, SnapshotOptions, Snapshots, StepInput, StepRow, Store,
    StoreSettings, fault::FaultStore,
};
use s3_server::S3Server;

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

    /// A root of its own at a server that the whole suite shares; `None` where there is none.
    fn s3() -> Option<Self> {
        static ROOTS: AtomicI64 = AtomicI64::new(0);
        let server = S3Server::shared()?;
        let settings = StoreSettings {
            url: server.url(&format!("suite-{}", ROOTS.fetch_add(1, Ordering::Relaxed))),
            endpoint: Some(server.endpoint.clone()),
            region: Some("us-east-1".to_owned()),
            access_key_id: Some(server.access_key_id.clone()),
            secret_access_key: Some(server.secret_access_key.clone()),
            path_style: Some(true),
            allow_http: Some(true),
        };
        let store = Store::open(&settings).expect("settings of a store");
        Some(Self::over(&store, None))
    }

    /// How to make one of each kind.
    pub(crate) fn kinds() -> Vec<fn() -> Self> {
        let mut kinds: Vec<fn() -> Self> = vec![Self::memory, Self::folder];
        if S3Server::shared().is_some() {
            kinds.push(|| Self::s3().expect("it was there"));
        }
        kinds
    }

    /// One of each kind.
    pub(crate) fn all() -> Vec<Self> {
        Self::kinds().into_iter().map(|kind| kind()).collect()
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
    let stat = RecordStat::value(version(micros), text.len());
    StepRow { key: key(name), record: record(micros, text), stat, newest }
}

pub(crate) fn due(name: &str, at_micros: u64, micros: u64) -> DueRow {
    DueRow { at_micros, key: key(name), version: version(micros) }
}

pub(crate) fn coverage(lsn: u64) -> Coverage {
    Coverage::from([(NodeId::new("n1"), (Incarnation(1), Lsn(lsn)))])
}

/// A step of some rows that covers up to an LSN.
pub(crate) fn step(rows: Vec<StepRow>, lsn: u64) -> StepInput {
    let highest = rows.iter().map(StepRow::version).max().unwrap_or_default();
    StepInput { rows, coverage: coverage(lsn), highest, ..StepInput::default() }
}

pub(crate) async fn text(reader: &PartitionReader, name: &str) -> Option<String> {
    let found = reader.get(&key(name)).await.expect("a read");
    found.map(|bytes| String::from_utf8(bytes[8..].to_vec()).expect("text"))
}
