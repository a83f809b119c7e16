//! From a node that answers RPC to one that serves: may its folder be trusted, what is refilled.
//!
//! In: what opening folder and journal showed ([`Found`]). Out: a node that votes on every
//! partition. Invariant: coverage is believed, and a vote given, only after every own view and
//! the peers were asked whether this folder is the newest and whole, or it goes on as a new one.
//! It does not open the folder (`folder.rs`) or pull tails (`recovery.rs`).

use std::{sync::Arc, time::Duration};

use tako_flatbuf::NodeState;
use tako_journal::Identity;
use tako_types::Lsn;

use super::{Node, NodeError, folder};
use crate::{
    membership::Gossiper,
    recovery::{LostState, open_views, refill},
};

/// Folders before this one that are remembered; their entries leave the journal with the next steps.
const EARLIER_MAX: usize = 16;
/// Pause before trying again what the disk refused.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What opening folder and journal showed.
pub(super) struct Found {
    /// Why the folder lost state, if it did.
    pub(super) lost: Option<String>,
    /// It must go on as a new folder.
    pub(super) renew: bool,
    /// The journal is damaged: what could be read lies in files that were moved aside.
    pub(super) damaged: bool,
    /// The store was away: only the folder says of which cluster it is.
    pub(super) unsure: bool,
}

impl Node {
    /// Waits until the store says which cluster's data it holds. Over another one, which data were
    /// restored to, nothing of this folder may count: the coverage that came along names it.
    async fn is_of_the_stores_cluster(&self) -> bool {
        let own = self.identity.cluster();
        loop {
            match self.replica.engine().snapshots().store().cluster_id(None).await {
                Ok(Some(found)) if found == own => return true,
                Ok(Some(found)) => {
                    tracing::error!(
                        "this folder is of cluster {own:?}, and the store holds cluster {found:?}: \
                         restart this node, it will move the folder aside"
                    );
                    return false;
                }
                Ok(None) => tracing::warn!("the store names no cluster"),
                Err(error) => tracing::warn!("object store: {error}"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Opens views, finds out about lost state, refills, and serves. A shutdown drops it.
    pub(super) async fn come_up(self: Arc<Self>, found: Found, accept_loss: bool) {
        let engine = self.replica.engine().clone();
        if found.unsure && !self.is_of_the_stores_cluster().await {
            return;
        }
        let links = self.serving.links().clone();
        let mut partitions = self.replica.held();
        let shown = open_views(&engine, &partitions).await;
        // One round before the folder is trusted: a peer may know a later one.
        Gossiper::new(self.serving.clone()).round().await;
        // Or a later document, under which an earlier folder of this node acknowledged more.
        let mut more = self.replica.held();
        more.retain(|p| !partitions.contains(p));
        let shown = shown.or(open_views(&engine, &more).await);
        partitions.append(&mut more);
        let later = self
            .identity
            .held()
            .await
            .known
            .get(engine.node())
            .copied()
            .filter(|known| *known > engine.incarnation());
        let shown = shown.or(later.map(|known| LostState::OldFolder { known }));
        let reason = found.lost.or_else(|| shown.as_ref().map(LostState::to_string));
        if let Some(reason) = reason {
            if reason == folder::NEW_FOLDER {
                tracing::info!("{reason}: this node takes writes and votes when refilled");
            } else {
                tracing::warn!("lost state: {reason}; this node votes when refilled");
            }
            self.replica.set_state(NodeState::Recovering);
            let renew = found.renew || shown.is_some();
            let mut forgotten = None;
            if let Some(LostState::OldFolder { .. }) = shown {
                // What it holds was covered, refilled or deleted since; none of it may count.
                match self.folder.keep_journal("old") {
                    Ok(kept) => tracing::warn!("the old journal is kept at {kept}"),
                    Err(error) => tracing::error!("cannot keep the old journal: {error}"),
                }
                engine.forget_replayed();
                forgotten = Some(engine.found_lsn());
            }
            while let Err(error) = self.start_anew(renew, found.damaged, forgotten).await {
                tracing::error!("cannot start anew, trying again: {error}");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            engine.trust_coverage();
            for p in self.identity.held().await.refilled {
                engine.set_recovered(p, true);
            }
            self.tasks.spawn(self.clone().follow_documents());
            while !partitions.is_empty() {
                if !refill(&links, &self.replica, &partitions, accept_loss, &self.background).await
                {
                    return;
                }
                // What came meanwhile; else a recovery could end before it began.
                partitions = self.replica.held();
                partitions.retain(|p| !engine.is_recovered(*p));
            }
            engine.set_all_recovered();
            self.keep(|identity| {
                // Else the mark that it failed would be gone.
                identity.recovered = engine.journal().is_failed().is_none();
                identity.refilled.clear();
            })
            .await;
        } else {
            // First on disk: with the next entries covered, the old mark would tell of a roll-back.
            self.keep(|identity| identity.untrusted_since = None).await;
            engine.trust_coverage();
            engine.set_all_recovered();
            self.tasks.spawn(self.clone().follow_documents());
        }
        self.replica.set_state(NodeState::Serving);
        let upkeep = engine.snapshots().upkeep();
        upkeep.spawn(&self.tasks, self.snapshotter.clone().run());
        let snapshotter = self.snapshotter.clone();
        upkeep.spawn(&self.tasks, async move { snapshotter.follow().await });
        upkeep.spawn(&self.tasks, self.healer.clone().run(self.background.clone()));
    }

    /// Changes the identity, however often the disk refuses.
    async fn keep(&self, change: impl Fn(&mut Identity)) {
        while let Err(error) = self.identity.change(&change).await {
            tracing::error!("cannot keep the identity, trying again: {error}");
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Goes on as a new data folder where this one is known not to hold what it acknowledged;
    /// no entry up to `forgotten` counts any more.
    async fn start_anew(
        &self,
        renew: bool,
        damaged: bool,
        forgotten: Option<Lsn>,
    ) -> Result<(), NodeError> {
        let engine = self.replica.engine();
        let mut next = engine.incarnation();
        if renew {
            let known = self.identity.held().await.known.get(engine.node()).copied();
            let covered = self
                .config
                .current()
                .partitions_of(engine.node())
                .into_iter()
                .filter_map(|p| engine.view(p)?.meta.coverage.get(engine.node()).copied())
                .map(|(incarnation, _)| incarnation);
            let newest = covered.chain(known).max().unwrap_or_default().max(next);
            next.0 = engine.clock().now_micros().max(newest.0 + 1);
        }
        self.identity
            .change(|identity| {
                identity.recovered = false;
                identity.forgotten = forgotten.unwrap_or(identity.forgotten);
                identity.untrusted_since = None;
                identity.adopted = None;
                if renew {
                    identity.refilled.clear();
                    // What came since it was found is left out: a roll-back may be behind it.
                    identity.earlier.insert(identity.incarnation, engine.found_lsn());
                    while EARLIER_MAX < identity.earlier.len() {
                        identity.earlier.pop_first();
                    }
                }
                identity.incarnation = next;
            })
            .await?;
        if renew && engine.incarnation() < next {
            engine.adopt(next).await?;
        }
        if damaged {
            engine.journal_again().await?;
        }
        Ok(())
    }
}
