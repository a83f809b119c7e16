//! The owner of background healing on a node: turns and orders, one at a time, and what was found.
//!
//! Invariant: one thing is read at a time. Orders go before turns, and each stands in the queue
//! at most once; a turn under way is hurried while orders wait. Nothing found is lost: it is
//! counted and logged, and the latest findings are remembered to be told.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tako_flatbuf::{
    JournalScrub, OrphanOrder, OrphanReport, PartitionScrub, RpcError, SCRUB_TEXT_BYTES_MAX,
    ScrubOrder, ScrubReport,
};
use tako_types::{ErrorKind, NodeId, PartitionId, limits::FINDINGS_MAX};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::calendar::{Calendar, Place};
use crate::{
    engine::Engine,
    identity::IdentityKeeper,
    links::Links,
    replication::Serving,
    snapshotter::{Snapshotter, rendezvous},
};

/// Waits for a change of the configuration at most; it wakes by itself.
const IDLE_MAX: Duration = Duration::from_secs(3_600);

/// Something an operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Partition(PartitionId),
    Journal,
    Orphans { delete: bool },
}

/// What was asked for and what was found.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The first may be under way.
    orders: VecDeque<Order>,
    pub(super) partitions: BTreeMap<PartitionId, PartitionScrub>,
    pub(super) journal: JournalScrub,
    pub(super) orphans: OrphanReport,
    findings: VecDeque<String>,
    found_count: u64,
}

/// See the module.
pub struct Healer {
    pub(super) serving: Arc<Serving>,
    pub(super) engine: Arc<Engine>,
    pub(super) snapshotter: Arc<Snapshotter>,
    pub(super) identity: Arc<IdentityKeeper>,
    pub(super) state: Mutex<State>,
    ordered: Notify,
    /// The configuration may ask for less; this is waited for all the same.
    interval_min: Duration,
}

impl Healer {
    /// A healer of this node's part; it does nothing before [`Self::run`].
    #[must_use]
    pub fn new(
        serving: Arc<Serving>,
        engine: Arc<Engine>,
        snapshotter: Arc<Snapshotter>,
        identity: Arc<IdentityKeeper>,
        interval_min: Duration,
    ) -> Arc<Self> {
        let (state, ordered) = (Mutex::default(), Notify::new());
        Arc::new(Self { serving, engine, snapshotter, identity, state, ordered, interval_min })
    }

    /// Takes turns and orders until the shutdown.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.work() => {}
        }
    }

    /// Takes an order, or only tells how things stand.
    ///
    /// # Errors
    /// `Invalid` for a partition that this node does not hold.
    pub fn on_order(&self, order: &ScrubOrder) -> Result<ScrubReport, RpcError> {
        if order.start {
            let held = self.links().config.current().partitions_of(self.engine.node());
            if let Some(p) = order.partitions.iter().find(|p| !held.contains(p)) {
                let text = format!("{} is no replica of partition {p}", self.engine.node());
                return Err(RpcError::new(ErrorKind::Invalid, text));
            }
            let orphans = match order.orphans {
                OrphanOrder::Leave => None,
                OrphanOrder::Find => Some(Order::Orphans { delete: false }),
                OrphanOrder::Delete => Some(Order::Orphans { delete: true }),
            };
            let journal = order.journal.then_some(Order::Journal);
            let partitions = order.partitions.iter().copied().map(Order::Partition);
            let mut state = self.state.lock();
            for order in partitions.chain(journal).chain(orphans) {
                if !state.orders.contains(&order) {
                    state.orders.push_back(order);
                }
            }
            drop(state);
            self.ordered.notify_one();
        }
        Ok(self.report())
    }

    /// What was found so far, and what goes on.
    #[must_use]
    pub fn report(&self) -> ScrubReport {
        let state = self.state.lock();
        let waiting = state.orders.iter().filter_map(|order| match order {
            Order::Partition(p) => Some(*p),
            Order::Journal | Order::Orphans { .. } => None,
        });
        ScrubReport {
            waiting: waiting.collect(),
            journal_waiting: state.orders.contains(&Order::Journal),
            orphans_waiting: state.orders.iter().any(|it| matches!(it, Order::Orphans { .. })),
            partitions: state.partitions.values().copied().collect(),
            journal: state.journal,
            orphans: state.orphans.clone(),
            findings: state.findings.iter().cloned().collect(),
        }
    }

    /// Findings since the start, those not remembered included.
    #[must_use]
    pub fn found_count(&self) -> u64 {
        self.state.lock().found_count
    }

    pub(super) fn links(&self) -> &Arc<Links> {
        self.serving.links()
    }

    pub(super) fn has_orders(&self) -> bool {
        !self.state.lock().orders.is_empty()
    }

    /// Remembers a finding, and says it aloud.
    pub(super) fn find(&self, text: String) {
        tracing::error!("scrub: {text}");
        let mut state = self.state.lock();
        state.found_count += 1;
        if FINDINGS_MAX <= state.findings.len() {
            state.findings.pop_front();
        }
        state.findings.push_back(shortened(text));
    }

    async fn work(&self) {
        let mut documents = self.links().config.subscribe();
        let began = Instant::now();
        let began_micros = self.engine.clock().now_micros();
        let mut calendar: Option<Calendar> = None;
        loop {
            let order = self.state.lock().orders.front().copied();
            if let Some(order) = order {
                self.carry_out(order).await;
                self.state.lock().orders.pop_front();
                continue;
            }
            // The clock may jump; turns go on from when the task began.
            let passed = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let now = began_micros.saturating_add(passed);
            let current = documents.borrow_and_update().clone();
            let deployment = current.config.active_deployment();
            let wait = if deployment.background_healing {
                let interval = deployment.background_healing_interval.max(self.interval_min);
                let partitions = current.config.partitions;
                if !calendar.as_ref().is_some_and(|it| it.is_of(interval, partitions)) {
                    calendar = None;
                }
                let calendar = calendar.get_or_insert_with(|| {
                    Calendar::new(interval, partitions, self.engine.node(), now)
                });
                match calendar.next(now) {
                    Ok(Place::Journal) => {
                        self.scrub_journal(false).await;
                        continue;
                    }
                    Ok(Place::Partition(p)) => {
                        if self.reads_snapshot_of(p) {
                            self.pass(p, Some(calendar.slot())).await;
                        }
                        continue;
                    }
                    Err(wait) => wait,
                }
            } else {
                calendar = None;
                IDLE_MAX
            };
            tokio::select! {
                () = self.ordered.notified() => {}
                changed = documents.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(wait.min(IDLE_MAX)) => {}
            }
        }
    }

    async fn carry_out(&self, order: Order) {
        match order {
            Order::Partition(p) => self.pass(p, None).await,
            Order::Journal => self.scrub_journal(true).await,
            Order::Orphans { delete } => self.look_for_orphans(delete).await,
        }
    }

    /// Whether it falls to this node to read the partition's snapshot: the live replica that comes
    /// last in the order of snapshotters, as the first one is busy with steps.
    fn reads_snapshot_of(&self, p: PartitionId) -> bool {
        let current = self.links().config.current();
        let replicas = &current.placement(p).read.nodes;
        let me = self.engine.node();
        let live = |node: &NodeId| node == me || self.links().membership.read_rank(node) == 0;
        rendezvous(p, replicas).into_iter().rfind(|node| live(node)) == Some(me)
    }
}

/// A text that fits an answer.
pub(super) fn shortened(mut text: String) -> String {
    if SCRUB_TEXT_BYTES_MAX < text.len() {
        text.truncate(text.floor_char_boundary(SCRUB_TEXT_BYTES_MAX - 3));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_fits_an_answer_whatever_it_says() {
        for text in ["short".to_owned(), "é".repeat(300), "x".repeat(201)] {
            let short = shortened(text.clone());
            assert!(short.len() <= SCRUB_TEXT_BYTES_MAX);
            assert_eq!(short == text, text.len() <= SCRUB_TEXT_BYTES_MAX);
        }
    }
}
