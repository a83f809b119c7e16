//! How SlateDB is set up: the request budget of a step, and nothing at rest.
//!
//! Invariant: no handle polls. A writer writes when a step says so, a reader reads what its
//! checkpoint shows, compaction and collection run when `maintain` starts them. All retries are
//! bounded, because the engine's own default is to retry for ever.

use std::{collections::HashMap, time::Duration};

use slatedb::{
    Settings,
    config::{
        CompactionWorkerOptions, CompactorOptions, DbReaderOptions,
        GarbageCollectorDirectoryOptions, GarbageCollectorOptions,
        SizeTieredCompactionSchedulerOptions,
    },
};

use crate::SnapshotOptions;

/// Stands for "never" where the engine wants an interval.
const NO_POLL: Duration = Duration::from_secs(3600);
const WRITER_RETRIES_MAX: u32 = 8;
const READER_RETRIES_MAX: u32 = 3;
/// `snapshot.bytes`: a step of this size is one L0 table.
const L0_TABLE_BYTES: usize = 64 << 20;
/// Four steps in flight; a step is refused room only far beyond what one node makes.
const UNFLUSHED_BYTES_MAX: usize = 4 * L0_TABLE_BYTES;
/// No bound: a step must never wait for a compaction, which is started by the step before. Where
/// compactions fail for long, reads ask more tables and the log says so.
const L0_TABLES_MAX: usize = 1 << 20;
/// Even a table of few keys has a filter: merge rows ask every table otherwise.
const MIN_FILTER_KEYS: u32 = 1;

/// Compaction starts when a step leaves this many L0 tables (docs/decisions/0004).
pub(crate) const COMPACT_FROM_TABLES: usize = 24;
/// Tables and runs that one compaction takes at most.
const COMPACTION_SOURCES_MAX: usize = 32;
/// Fewer runs are left alone: they are rewritten rarely, and filters keep reads off them.
const COMPACTION_SOURCES_MIN: usize = 6;
/// Read-ahead per compaction input; with 8 inputs and 2 fetches 16 MiB in all.
const COMPACTION_READ_BYTES: usize = 1 << 20;
const COMPACTION_FETCHES: usize = 2;

/// Tables younger than this are never collected: above clock skew and the longest upload.
const TABLE_AGE_MIN: Duration = Duration::from_secs(45 * 60);
/// Manifests younger than this are never collected: above any pause of a process.
const MANIFEST_AGE_MIN: Duration = Duration::from_secs(3600);

pub(crate) fn writer(options: &SnapshotOptions) -> Settings {
    Settings {
        wal_enabled: false,
        flush_interval: None,
        manifest_poll_interval: NO_POLL,
        manifest_update_timeout: options.step_deadline,
        min_filter_keys: MIN_FILTER_KEYS,
        l0_sst_size_bytes: L0_TABLE_BYTES,
        max_unflushed_bytes: UNFLUSHED_BYTES_MAX,
        l0_max_ssts: L0_TABLES_MAX,
        l0_max_ssts_per_key: L0_TABLES_MAX,
        l0_flush_parallelism: 1,
        compactor_options: None,
        garbage_collector_options: None,
        default_ttl_millis: None,
        object_store_max_retries: Some(WRITER_RETRIES_MAX),
        ..Settings::default()
    }
}

pub(crate) fn reader() -> DbReaderOptions {
    DbReaderOptions {
        manifest_poll_interval: NO_POLL,
        checkpoint_lifetime: NO_POLL * 3,
        skip_wal_replay: true,
        object_store_max_retries: Some(READER_RETRIES_MAX),
        ..DbReaderOptions::default()
    }
}

pub(crate) fn compactor(options: &SnapshotOptions) -> CompactorOptions {
    let scheduler = SizeTieredCompactionSchedulerOptions {
        min_compaction_sources: COMPACTION_SOURCES_MIN,
        max_compaction_sources: COMPACTION_SOURCES_MAX,
        ..SizeTieredCompactionSchedulerOptions::default()
    };
    CompactorOptions {
        poll_interval: options.compaction_poll,
        commit_compacted_interval: options.compaction_poll,
        manifest_update_timeout: options.step_deadline,
        max_concurrent_compactions: 1,
        scheduler_options: HashMap::from(scheduler),
        // Readers that lag behind the compaction keep their files for a whole lease.
        checkpoint_lifetime: options.lease,
        object_store_max_retries: Some(WRITER_RETRIES_MAX),
        worker: Some(CompactionWorkerOptions {
            max_concurrent_compactions: 1,
            max_subcompactions: 1,
            compactions_poll_interval: options.compaction_poll,
            max_fetch_tasks: COMPACTION_FETCHES,
            bytes_to_fetch: COMPACTION_READ_BYTES,
            min_filter_keys: MIN_FILTER_KEYS,
            object_store_max_retries: Some(WRITER_RETRIES_MAX),
            ..CompactionWorkerOptions::default()
        }),
        ..CompactorOptions::default()
    }
}

/// `local`: folders cannot overwrite conditionally, so the collector keeps no boundary files.
pub(crate) fn collector(local: bool) -> GarbageCollectorOptions {
    let older_than = |min_age| {
        Some(GarbageCollectorDirectoryOptions { interval: None, min_age, dry_run: false })
    };
    GarbageCollectorOptions {
        manifest_options: older_than(MANIFEST_AGE_MIN),
        compactions_options: older_than(MANIFEST_AGE_MIN),
        compacted_options: older_than(TABLE_AGE_MIN),
        wal_options: None,
        wal_fence_options: None,
        detach_options: None,
        boundary_files_enabled: !local,
        object_store_max_retries: Some(READER_RETRIES_MAX),
        ..GarbageCollectorOptions::default()
    }
}
