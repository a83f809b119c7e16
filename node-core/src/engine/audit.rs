//! Is anything answered here that is older than the snapshot?
//!
//! In: what somebody read in a step past every cache, by digest. Compared with: the record cache,
//! which votes believe, and the view's highest version, above which the index alone is believed.
//! Invariant: a suspicion is none before the key was read again in the view in force, for what was
//! read may have been purged since; what is confirmed is dropped from the cache at once.

use std::sync::atomic::Ordering;

use tako_flatbuf::Record;
use tako_types::{PartitionId, StepNumber, StoredKey, Version};

use super::{Engine, EngineError};

/// Keys compared under one lock.
const LOCKED_ROWS_MAX: usize = 512;

/// What an audit found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audited {
    /// The view is below the step: nothing was compared.
    pub behind: bool,
    /// Keys compared.
    pub checked: u64,
    /// Keys that would have been answered older than the snapshot has them.
    pub stale: u64,
}

impl Engine {
    /// Compares what this node would answer with what `step` was read to hold.
    ///
    /// Cost: memory only, and one snapshot read per suspicion.
    ///
    /// # Errors
    /// [`EngineError`] when a suspicion cannot be looked into.
    pub async fn audit(
        &self,
        p: PartitionId,
        step: StepNumber,
        held: &[(u64, Version)],
    ) -> Result<Audited, EngineError> {
        let mut audited = Audited::default();
        for rows in held.chunks(LOCKED_ROWS_MAX) {
            let mut suspected = Vec::new();
            {
                let inner = self.partition(p).lock();
                let Some(view) = inner.view.as_ref().filter(|view| step <= view.meta.step) else {
                    audited.behind = true;
                    return Ok(audited);
                };
                audited.checked += rows.len() as u64;
                for (digest, version) in rows {
                    if view.meta.highest < *version {
                        audited.stale += 1;
                        self.metrics.stale.fetch_add(1, Ordering::Relaxed);
                        tracing::error!(
                            partition = p.0,
                            key = format_args!("{digest:016x}"),
                            "the snapshot holds a version above its highest: reads may be stale"
                        );
                    }
                    let cached = self.shelf.cache.get_by_digest(*digest, inner.era);
                    suspected.extend(cached.filter(|cached| cached.version() < *version));
                }
            }
            for cached in suspected {
                audited.stale += u64::from(self.look_into(p, cached).await?);
            }
        }
        Ok(audited)
    }

    /// Whether a cached record is older than what the view in force shows; it is dropped then.
    async fn look_into(&self, p: PartitionId, cached: Record) -> Result<bool, EngineError> {
        let key = cached.key();
        let (view, installs) = {
            let inner = self.partition(p).lock();
            (inner.view.clone().ok_or(EngineError::Opening(p))?, inner.installs)
        };
        let (shown, _) = self.read_view(p, view, &key).await?;
        let Some(shown) = shown.filter(|shown| cached.version() < shown.version()) else {
            return Ok(false);
        };
        let inner = self.partition(p).lock();
        let still = self.shelf.cache.get(&key, inner.era);
        if inner.installs != installs || still.is_none_or(|it| shown.version() <= it.version()) {
            return Ok(false);
        }
        self.shelf.cache.remove(key.digest());
        drop(inner);
        self.metrics.stale.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            partition = p.0,
            key = format_args!("{:016x}", key.digest()),
            cached = cached.version().micros,
            snapshot = shown.version().micros,
            "a cached record was older than the snapshot's; it was dropped"
        );
        Ok(true)
    }

    /// Drops what is cached of a key: it must be read again, or written.
    pub fn forget_cached(&self, p: PartitionId, key: &StoredKey) {
        let _inner = self.partition(p).lock();
        self.shelf.cache.remove(key.digest());
    }
}
