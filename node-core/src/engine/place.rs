//! Where this node stands in each partition: what its answers count for, coming and going.
//!
//! Invariant: a partition is left only with nothing uncovered and nothing on its way, after a mark
//! is on disk below which no entry counts again ([`super::EngineOptions::left`]).

use std::sync::Arc;

use tako_types::{Lsn, PartitionId, config::Published};

use super::{Engine, EngineError, View};

impl Engine {
    /// Whether this node's answers to reads count as votes for the partition.
    #[must_use]
    pub fn is_voting(&self, p: PartitionId) -> bool {
        let inner = self.partition(p).lock();
        inner.stance.votes(inner.step())
    }

    /// Whether its acknowledgements count, and it may promise.
    #[must_use]
    pub fn judges(&self, p: PartitionId) -> bool {
        self.partition(p).lock().judges()
    }

    /// Whether this folder holds all of the partition that it acknowledged.
    #[must_use]
    pub fn is_recovered(&self, p: PartitionId) -> bool {
        self.partition(p).lock().stance.recovered
    }

    /// Says that this folder holds all of the partition that it acknowledged, or does not.
    pub fn set_recovered(&self, p: PartitionId, recovered: bool) {
        self.partition(p).lock().stance.recovered = recovered;
    }

    /// Says so of every partition of the cluster: the folder lost nothing.
    pub fn set_all_recovered(&self) {
        self.partitions().for_each(|p| self.set_recovered(p, true));
    }

    /// Goes by another document; call it before anything is answered under that. `old` is `None` at
    /// the start, which opens every view before it calls [`Engine::set_recovered`].
    pub fn follow(&self, old: Option<&Published>, new: &Published) {
        let me = self.node();
        for p in self.partitions().filter(|p| new.has(*p)) {
            self.partition(p).lock().stance.follow((old, new), me, p);
        }
    }

    /// Whether a view must be opened anew before this node votes.
    #[must_use]
    pub fn wants_view(&self, p: PartitionId) -> bool {
        let inner = self.partition(p).lock();
        inner.stance.wants_view().is_some() || inner.stance.is_behind(inner.step())
    }

    /// Opens the newest step; this node is then as good as one that was there all the time.
    ///
    /// # Errors
    /// [`EngineError::Snapshot`] when the store cannot be read.
    pub async fn enter(&self, p: PartitionId) -> Result<Arc<View>, EngineError> {
        let wanted = self.partition(p).lock().stance.wants_view();
        let view = self.open_latest(p).await?;
        if let Some(change) = wanted {
            self.partition(p).lock().stance.on_fresh_view(change);
        }
        Ok(view)
    }

    /// The partitions that a document has here, and those of which something is uncovered, ascending.
    #[must_use]
    pub fn held(&self, current: &Published) -> Vec<PartitionId> {
        let mine = |p: PartitionId| current.placement(p).holders.contains(self.node());
        let kept = |p: PartitionId| self.partition(p).lock().index.len() > 0;
        self.partitions().filter(|p| current.has(*p) && (mine(*p) || kept(*p))).collect()
    }

    /// Whether there is anything of the partition here: entries, a view, or writes on their way.
    #[must_use]
    pub fn holds_any(&self, p: PartitionId) -> bool {
        let inner = self.partition(p).lock();
        inner.view.is_some() || inner.index.len() > 0 || inner.in_flight > 0
    }

    /// Up to where nothing of the partition will be needed, if nothing is uncovered now.
    #[must_use]
    pub fn may_leave(&self, p: PartitionId) -> Option<Lsn> {
        let inner = self.partition(p).lock();
        (inner.index.len() == 0 && inner.in_flight == 0).then(|| self.applied_lsn())
    }

    /// Lets go of a partition whose mark `upto` is on disk; `false` when entries came since.
    pub fn leave(&self, p: PartitionId, upto: Lsn) -> bool {
        let mut inner = self.partition(p).lock();
        let gone = inner.index.trim(upto);
        let empty = inner.index.len() == 0 && inner.in_flight == 0;
        if empty {
            inner.view = None;
            inner.installs += 1;
            // What is cached of it was shown by a view that is not followed any more.
            inner.era += 1;
        }
        drop(inner);
        self.let_go(gone);
        empty
    }
}
