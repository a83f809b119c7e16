//! What a change of the document asks of a running node: come to partitions, leave others, note
//! where the journal stood.
//!
//! ```text
//! document ─► (before it is in force) Engine::follow: what answers count for
//!          ─► note L(e) ─► open views that are lacking ─► leave what is covered
//! ```
//! Each pass does what it can and is repeated until nothing is left to do. Invariants: a partition
//! is left only when all that is held of it is covered, after its mark is on disk; what is still
//! uncovered when no document has it here any more is kept, told in gossip and Standing, and pulled
//! by its snapshotter while any document names this node.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tako_types::PartitionId;
use tokio::time::{Instant, sleep, timeout};

use super::Node;

/// Views opened at one time.
const AT_ONCE: usize = 4;
/// After opening one, requests have the processors for as long as it took, up to this: one that took
/// longer waited for the store.
const REST_MAX: Duration = Duration::from_millis(20);
/// Pause before a pass is repeated.
const AGAIN_AFTER: Duration = Duration::from_millis(250);
/// How long one pass waits for writes of earlier epochs to end.
const NOTE_PATIENCE: Duration = Duration::from_secs(1);

impl Node {
    /// Follows the documents until the shutdown; call it once coverage is trusted.
    pub(super) async fn follow_documents(self: Arc<Self>) {
        let mut documents = self.config.subscribe();
        let mut said = BTreeSet::new();
        let mut address = self.address.clone();
        loop {
            // A move's steps and views must not wait for the processor while partitions are rewritten.
            let is_moving = documents.borrow_and_update().migration.is_some();
            self.replica.engine().snapshots().hold_compaction(is_moving);
            self.look_at_address(&mut address);
            let settled = tokio::select! {
                () = self.background.cancelled() => return,
                settled = self.settle(&mut said) => settled,
            };
            tokio::select! {
                () = self.background.cancelled() => return,
                changed = documents.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = sleep(AGAIN_AFTER), if !settled => {}
            }
        }
    }

    /// Who is given another address is reached there by nobody before it starts anew; `known` is what
    /// the operator knows.
    fn look_at_address(&self, known: &mut String) {
        let current = self.config.current();
        let Some(node) = current.node(self.replica.engine().node()) else { return };
        let now = node.rpc_address().to_string();
        if now != *known && now != self.address {
            tracing::error!(
                epoch = %current.epoch,
                "the others look for this node at {now} now, it listens for {}: restart it, or \
                 stop it where another machine took its place",
                self.address
            );
        }
        *known = now;
    }

    /// One pass; `false` when something is left to do.
    async fn settle(&self, said: &mut BTreeSet<PartitionId>) -> bool {
        let (noted, entered) = tokio::join!(self.note(), self.enter_all());
        let left = self.leave_all(said).await;
        noted && entered && left
    }

    async fn note(&self) -> bool {
        match timeout(NOTE_PATIENCE, self.replica.note_adopted()).await {
            Ok(Ok(whole)) => whole,
            Ok(Err(error)) => {
                tracing::error!("cannot note where the journal stands: {error}");
                false
            }
            Err(_) => false,
        }
    }

    async fn enter_all(&self) -> bool {
        let engine = self.replica.engine();
        let mut wanted = self.config.current().partitions_of(engine.node());
        wanted.retain(|p| engine.view(*p).is_none() || engine.wants_view(*p));
        let opened = stream::iter(wanted)
            .map(|p| async move {
                let begun = Instant::now();
                let entered = self.enter(p).await;
                sleep(begun.elapsed().min(REST_MAX)).await;
                entered
            })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>();
        opened.await.into_iter().all(|opened| opened)
    }

    async fn enter(&self, p: PartitionId) -> bool {
        let engine = self.replica.engine();
        let view = match engine.enter(p).await {
            Ok(view) => view,
            Err(error) => {
                tracing::warn!(partition = p.0, "snapshot not readable yet: {error}");
                return false;
            }
        };
        let known = view.meta.coverage.get(engine.node()).map(|(folder, _)| *folder);
        if known.is_some_and(|known| engine.incarnation() < known) {
            // Closed while no document named this node: whatever it holds is pulled by nobody.
            engine.set_recovered(p, false);
            tracing::error!(
                partition = p.0,
                "another folder of this node came after this one: restart it, it will refill"
            );
        }
        true
    }

    async fn leave_all(&self, said: &mut BTreeSet<PartitionId>) -> bool {
        let engine = self.replica.engine();
        let mut all = true;
        let current = self.config.current();
        for p in current.partitions().filter(|p| engine.holds_any(*p)) {
            let holder = current.placement(p).holders.contains(engine.node());
            if holder || self.leave(p).await {
                said.remove(&p);
            } else {
                all = false;
                if said.insert(p) {
                    let uncovered = engine.partition_status(p).uncovered;
                    tracing::warn!(
                        partition = p.0,
                        uncovered,
                        "no deployment has this partition here any more, but no step has covered \
                         all that is held of it: it is kept"
                    );
                }
            }
        }
        all
    }

    /// Leaves one partition if nothing of it is uncovered.
    async fn leave(&self, p: PartitionId) -> bool {
        let engine = self.replica.engine();
        let Some(upto) = engine.may_leave(p) else { return false };
        let marked = self.identity.change(|identity| {
            identity.left.insert(p, upto);
        });
        if let Err(error) = marked.await {
            tracing::error!(partition = p.0, "cannot mark a partition as left: {error}");
            return false;
        }
        if self.config.current().placement(p).holders.contains(engine.node()) {
            // Back meanwhile; the mark stands all the same, for nothing below it counts.
            return true;
        }
        let left = engine.leave(p, upto);
        if left {
            self.snapshotter.forget(p).await;
            tracing::info!(partition = p.0, upto = upto.0, "partition left");
        }
        left
    }
}
