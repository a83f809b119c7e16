//! The node's block cache: decoded snapshot blocks, filters and indexes, for all partitions.
//!
//! Invariant: it holds only immutable blocks named by table id, so whatever it loses or finds
//! again after a crash cannot be stale. Blocks and meta (filters, indexes) have budgets of their
//! own: a scan never pushes out what every read needs. A folder that is damaged, full or cannot
//! be written never fails the start: it is emptied, made smaller, or left alone.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, PsyncIoEngineConfig, RecoverMode,
};
use slatedb::db_cache::{
    CachedEntry, CachedKey, DbCache, SplitCache, foyer_hybrid::FoyerHybridCache,
};
use tracing::warn;

/// Part of both budgets that belongs to filters and indexes: a fifth, as about 20 bytes of them
/// serve 100 bytes of small records.
const META_PART: u64 = 5;
const SHARDS: usize = 4;
/// Unit of eviction on disk; also the greatest entry. A cache has at least [`BLOCKS_MIN`].
const DISK_BLOCK_BYTES_MAX: usize = 16 << 20;
const DISK_BLOCK_BYTES_MIN: usize = 1 << 20;
const BLOCKS_MIN: usize = 8;
/// Entries that come faster than the disk takes them are dropped, which costs a read later.
const FLUSH_BUFFER_BYTES: usize = 4 << 20;
const OPEN_DEADLINE: Duration = Duration::from_secs(30);
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);
/// Share of a file system's free room that the cache may take.
const FREE_PART: (u64, u64) = (9, 10);

/// The caches of a node, shared by all writers and readers.
pub(crate) struct BlockCache {
    split: Arc<dyn DbCache>,
    parts: [Arc<FoyerHybridCache>; 2],
    on_disk: bool,
}

impl BlockCache {
    /// Opens the caches within the budgets, in bytes; memory only where the folder is of no use.
    pub(crate) async fn open(memory_bytes: usize, disk: Option<(PathBuf, u64)>) -> Self {
        let meta_memory = memory_bytes / META_PART as usize;
        let disk = disk.and_then(|(folder, bytes)| usable(&folder, bytes).map(|b| (folder, b)));
        let part = |name: &str, share: fn(u64) -> u64| {
            disk.as_ref().map(|(folder, bytes)| (folder.join(name), share(*bytes)))
        };
        let (blocks, blocks_on_disk) = open_part(
            "blocks",
            memory_bytes - meta_memory,
            part("blocks", |bytes| bytes - bytes / META_PART),
        )
        .await;
        let (meta, _) =
            open_part("meta", meta_memory, part("meta", |bytes| bytes / META_PART)).await;
        let parts = [Arc::new(blocks), Arc::new(meta)];
        let split = SplitCache::new()
            .with_block_cache(Some(parts[0].clone()))
            .with_meta_cache(Some(parts[1].clone()))
            .build();
        Self { split: Arc::new(split), parts, on_disk: blocks_on_disk }
    }

    /// What SlateDB gets.
    pub(crate) fn shared(&self) -> Arc<dyn DbCache> {
        self.split.clone()
    }

    /// Whether blocks also go to disk.
    pub(crate) fn on_disk(&self) -> bool {
        self.on_disk
    }

    pub(crate) async fn close(&self) {
        for part in &self.parts {
            match tokio::time::timeout(CLOSE_DEADLINE, part.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, "block cache did not close"),
                Err(_) => warn!("block cache did not close within {CLOSE_DEADLINE:?}"),
            }
        }
    }
}

/// The disk budget that the folder's file system can bear, if any.
fn usable(folder: &Path, wanted_bytes: u64) -> Option<u64> {
    let refuse = |why: String| {
        warn!(folder = %folder.display(), why, "block cache stays in memory");
        None
    };
    if let Err(error) = try_folder(folder) {
        return refuse(error.to_string());
    }
    let free_bytes = match rustix::fs::statvfs(folder) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => return refuse(error.to_string()),
    };
    let room = (free_bytes / FREE_PART.1).saturating_mul(FREE_PART.0) + used_bytes(folder);
    let bytes = wanted_bytes.min(room);
    if bytes < wanted_bytes {
        warn!(folder = %folder.display(), wanted_bytes, bytes, "block cache has less room on disk");
    }
    let least_bytes = (DISK_BLOCK_BYTES_MIN * BLOCKS_MIN) as u64 * META_PART;
    if bytes < least_bytes {
        return refuse(format!("{bytes} bytes are below the least of {least_bytes}"));
    }
    Some(bytes)
}

/// Makes a folder and a file in it.
fn try_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let trial = folder.join("writable");
    std::fs::write(&trial, b"x")?;
    std::fs::remove_file(&trial)
}

/// What the cache's own files take now; sparse files count by their blocks.
fn used_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => used_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Opens one cache; says whether it is on disk.
async fn open_part(
    name: &'static str,
    memory_bytes: usize,
    disk: Option<(PathBuf, u64)>,
) -> (FoyerHybridCache, bool) {
    if let Some((folder, bytes)) = disk {
        let disk_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        for attempt in 0..2 {
            match open_hybrid(name, memory_bytes, &folder, disk_bytes).await {
                Ok(cache) => return (FoyerHybridCache::new_with_cache(cache), true),
                Err(error) if attempt == 0 => {
                    warn!(folder = %folder.display(), error, "block cache is emptied");
                    let emptied =
                        std::fs::remove_dir_all(&folder).or_else(|_| std::fs::remove_file(&folder));
                    if let Err(error) = emptied {
                        warn!(folder = %folder.display(), %error, "block cache stays in memory");
                        break;
                    }
                }
                Err(error) => {
                    warn!(folder = %folder.display(), error, "block cache stays in memory");
                }
            }
        }
    }
    (FoyerHybridCache::new_with_cache(open_memory(name, memory_bytes).await), false)
}

async fn open_hybrid(
    name: &'static str,
    memory_bytes: usize,
    folder: &Path,
    disk_bytes: usize,
) -> Result<HybridCache<CachedKey, CachedEntry>, String> {
    let block_bytes = (disk_bytes / BLOCKS_MIN).clamp(DISK_BLOCK_BYTES_MIN, DISK_BLOCK_BYTES_MAX);
    let block_bytes = block_bytes / 4096 * 4096;
    let capacity = disk_bytes / block_bytes * block_bytes;
    // The device panics where it cannot make its folder.
    try_folder(folder).map_err(|error| error.to_string())?;
    let device = FsDeviceBuilder::new(folder)
        .with_capacity(capacity)
        .build()
        .map_err(|error| error.to_string())?;
    let engine = BlockEngineConfig::new(device)
        .with_block_size(block_bytes)
        .with_flushers(1)
        .with_reclaimers(1)
        .with_indexer_shards(SHARDS)
        .with_buffer_pool_size(FLUSH_BUFFER_BYTES)
        .with_submit_queue_size_threshold(FLUSH_BUFFER_BYTES);
    let opening = HybridCacheBuilder::new()
        .with_name(name)
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .with_flush_on_close(false)
        .memory(memory_bytes)
        .with_shards(SHARDS)
        .with_weighter(weight)
        .storage()
        .with_io_engine_config(PsyncIoEngineConfig::new())
        .with_engine_config(engine)
        .with_recover_mode(RecoverMode::Quiet)
        .build();
    match tokio::time::timeout(OPEN_DEADLINE, opening).await {
        Ok(Ok(cache)) => Ok(cache),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it did not open within {OPEN_DEADLINE:?}")),
    }
}

async fn open_memory(
    name: &'static str,
    memory_bytes: usize,
) -> HybridCache<CachedKey, CachedEntry> {
    HybridCacheBuilder::new()
        .with_name(name)
        .memory(memory_bytes)
        .with_shards(SHARDS)
        .with_weighter(weight)
        .storage()
        .build()
        .await
        .expect("a cache without a disk opens no file")
}

/// Bytes of an entry, with what key and bookkeeping take.
fn weight(_key: &CachedKey, entry: &CachedEntry) -> usize {
    entry.size() + 128
}
