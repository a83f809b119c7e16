//! What a node answers to other processes: the RPC requests, over its engine.
//!
//! Refuses partitions that are not its own and epochs it knows to be old. Tail, Fetch, Gossip,
//! Configuration, Health, Standing, Scrub and Audit are answered in every state. What this node and
//! others tell of themselves: `told.rs`; writes: `write.rs`.

mod calls;
mod standing;
mod told;
mod write;

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

use tako_flatbuf::{
    AuditAnswer, NodeState, Request, Response, RpcError, StatAnswer, StepAnnouncement,
};
use tako_snapshot::{Checkpoint, Meta};
use tako_types::{ErrorKind, NodeId, PartitionId, StoredKey, limits::CATCH_UP_MAX};
use tokio::sync::Notify;

pub use self::calls::Calls;
pub(crate) use self::calls::is_upkeep;

use crate::{
    configuration::ConfigCell,
    engine::{Audited, Engine, EngineError, Missed, View},
    healing::Healer,
    identity::IdentityKeeper,
    links::Links,
    membership::Membership,
    replication::{Change, Serving},
    snapshotter::Snapshotter,
};

/// Milliseconds a client waits when a queue or disk is full.
const BUSY_WAIT_MS: u64 = 1_000;

/// See the module.
pub struct Replica {
    engine: Arc<Engine>,
    config: Arc<ConfigCell>,
    membership: Arc<Membership>,
    identity: Arc<IdentityKeeper>,
    snapshotter: OnceLock<Weak<Snapshotter>>,
    links: OnceLock<Weak<Links>>,
    healer: OnceLock<Weak<Healer>>,
    serving: OnceLock<Weak<Serving>>,
    look: Arc<Notify>,
    /// How far it came up; never `Draining`.
    state: AtomicU8,
    /// It leaves, however far it came up; never taken back.
    draining: AtomicBool,
    admissions: write::Admissions,
    drift_refused: AtomicU64,
}

impl Replica {
    /// A replica over an engine; `starting` until told otherwise. `look` is notified when a newer
    /// configuration must be looked for.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        config: Arc<ConfigCell>,
        membership: Arc<Membership>,
        identity: Arc<IdentityKeeper>,
        look: Arc<Notify>,
    ) -> Arc<Self> {
        Arc::new(Self {
            engine,
            config,
            membership,
            identity,
            snapshotter: OnceLock::new(),
            links: OnceLock::new(),
            healer: OnceLock::new(),
            serving: OnceLock::new(),
            look,
            state: AtomicU8::new(NodeState::Starting as u8),
            draining: AtomicBool::new(false),
            admissions: write::Admissions::default(),
            drift_refused: AtomicU64::new(0),
        })
    }

    /// Tells the replica who makes its steps, and how it reaches others.
    pub fn attach(&self, snapshotter: &Arc<Snapshotter>, links: &Arc<Links>) {
        let _ = self.snapshotter.set(Arc::downgrade(snapshotter));
        let _ = self.links.set(Arc::downgrade(links));
    }

    /// Tells the replica who scrubs.
    pub fn attach_healer(&self, healer: &Arc<Healer>) {
        let _ = self.healer.set(Arc::downgrade(healer));
    }

    /// Tells the replica who makes changes under conditions here.
    pub fn attach_serving(&self, serving: &Arc<Serving>) {
        let _ = self.serving.set(Arc::downgrade(serving));
    }

    /// Who takes this node's steps.
    #[must_use]
    pub fn snapshotter(&self) -> Option<Arc<Snapshotter>> {
        self.snapshotter.get().and_then(Weak::upgrade)
    }

    /// Who scrubs on this node.
    #[must_use]
    pub fn healer(&self) -> Option<Arc<Healer>> {
        self.healer.get().and_then(Weak::upgrade)
    }

    /// Goes to the epoch that a caller knows before anything is served to it.
    async fn catch_up(&self, caller: &NodeId, epoch: u64) -> Result<(), RpcError> {
        let current = self.config.current();
        let sources = if current.node(caller).is_some() {
            vec![caller.clone()]
        } else {
            // A proxy cannot be asked, nor a node of which only the newer document says where it
            // is; where it has the document from can, and so can others that have it.
            self.look.notify_one();
            self.membership.live_with_epoch(epoch)
        };
        if let Some(links) = self.links.get().and_then(Weak::upgrade) {
            for source in sources.iter().filter(|source| current.node(source).is_some()) {
                if epoch <= self.config.epoch().number {
                    break;
                }
                links.fetch_configuration(source).await;
            }
        }
        // What was asked for by `look` may be on its way.
        let mut seen = self.config.subscribe();
        let newer = seen.wait_for(|current| epoch <= current.epoch.number);
        let _ = tokio::time::timeout(CATCH_UP_MAX, newer).await;
        if self.config.epoch().number < epoch {
            let text = format!("{} does not have configuration {epoch} yet", self.engine.node());
            return Err(RpcError::new(ErrorKind::Unavailable, text));
        }
        Ok(())
    }

    /// The node's store.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The node's state, as everybody is told it.
    ///
    /// `Draining` says that the node votes and leaves. One that leaves before it came up says what
    /// it lacks, for others read from, refill from and take their turn in steps after a node by
    /// this; it takes no writes all the same.
    #[must_use]
    pub fn state(&self) -> NodeState {
        match NodeState::from_wire(self.state.load(Ordering::Acquire)) {
            NodeState::Serving if self.is_draining() => NodeState::Draining,
            state => state,
        }
    }

    /// Moves the node to another state. `Draining` is for good: the node may still come up, to
    /// vote until it is gone, but it never serves again.
    pub fn set_state(&self, state: NodeState) {
        if state == NodeState::Draining {
            self.draining.store(true, Ordering::Release);
        } else {
            self.state.store(state as u8, Ordering::Release);
        }
        let (now, draining) = (self.state(), self.is_draining());
        tracing::info!(state = ?now, draining, "node state");
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Answers one request, whoever asks.
    ///
    /// # Errors
    /// [`RpcError`] with what the caller should do.
    pub async fn handle(&self, request: Request) -> Result<Response, RpcError> {
        self.answer(None, request).await
    }

    /// [`Self::handle`] for a caller that goes by this epoch: what reads or writes is refused when a
    /// later one is in force here.
    ///
    /// # Errors
    /// `StaleEpoch`, and as for [`Self::handle`].
    pub async fn handle_at(&self, epoch: u64, request: Request) -> Result<Response, RpcError> {
        self.answer(Some(epoch), request).await
    }

    async fn answer(&self, epoch: Option<u64>, request: Request) -> Result<Response, RpcError> {
        match request {
            Request::Hello { cluster, node, .. } => self.hello(cluster, &node),
            Request::Put { partition, record, repair, until_micros } => {
                let _admitted = self.admit(partition, epoch)?;
                self.put(partition, record, repair, until_micros).await.map(Response::Put)
            }
            Request::Prepare { partition, key, ballot } => {
                let _admitted = self.admit(partition, epoch)?;
                self.prepare(partition, &key, ballot).await.map(Response::Prepare)
            }
            Request::Accept { partition, base, record } => {
                let _admitted = self.admit(partition, epoch)?;
                self.accept(partition, base, record).await.map(Response::Accept)
            }
            Request::Get { partition, key } => {
                self.owned(partition)?;
                self.not_stale(epoch)?;
                // Before the vote: one that was begun while recovering must not count as one.
                let voting = self.engine.is_voting(partition);
                let vote = self.engine.vote(partition, &key).await.map_err(rpc_error)?;
                Ok(Response::Get {
                    record: vote.record,
                    step: vote.step,
                    covered: vote.covered,
                    voting,
                })
            }
            Request::Stat { partition, keys, merged } => {
                self.owned(partition)?;
                self.not_stale(epoch)?;
                self.stat(partition, &keys, merged).await
            }
            Request::Change { partition, condition, edit, record } => {
                self.change(partition, Change::new(condition, record).edited(edit)).await
            }
            Request::Tail { partition, after, incarnation, puller, puller_incarnation } => {
                self.exists(partition)?;
                self.on_puller(&puller, puller_incarnation).await?;
                // After the puller's folder became known: a promise given later names it, which
                // voids what an older folder of the puller promised.
                let promised = self.engine.highest_promise(partition);
                let page = self.engine.tail(partition, after, incarnation);
                Ok(Response::Tail {
                    incarnation: self.engine.incarnation(),
                    upto: page.upto,
                    step: page.step,
                    covered: page.quiet,
                    state: self.state_for(partition),
                    entries: page.entries,
                    more: page.more,
                    promised,
                })
            }
            Request::Fetch { partition, keys } => {
                self.exists(partition)?;
                let (records, more) =
                    self.engine.fetch(partition, &keys).await.map_err(rpc_error)?;
                Ok(Response::Fetch { records, more })
            }
            Request::Gossip(state) => {
                self.on_gossip(state).await?;
                Ok(Response::Gossip(self.gossip_state()))
            }
            Request::Step(announcement) => self.on_step(announcement).await,
            Request::ForceStep { partition } => {
                self.owned(partition)?;
                let snapshotter =
                    self.snapshotter.get().and_then(Weak::upgrade).ok_or_else(|| {
                        RpcError::new(ErrorKind::Unavailable, "this node takes no steps")
                    })?;
                let step = snapshotter
                    .forced(partition)
                    .await
                    .map_err(|error| RpcError::new(error.kind(), error.to_string()))?;
                Ok(Response::ForceStep { step })
            }
            Request::Configuration { above } => {
                let current = self.config.current();
                let document = (current.epoch.number > above).then(|| current.encode().into());
                Ok(Response::Configuration { document })
            }
            Request::Health => Ok(Response::Health { state: self.state() }),
            Request::Standing { from } => Ok(Response::Standing(self.standing(from).await)),
            Request::Scrub(order) => {
                let healer = self.healer().ok_or_else(|| {
                    RpcError::new(ErrorKind::Unavailable, "this node scrubs nothing")
                })?;
                healer.on_order(&order).map(Response::Scrub)
            }
            Request::List { partition, query } => {
                self.owned(partition)?;
                self.not_stale(epoch)?;
                // On the heap, as below.
                let listed = Box::pin(self.engine.list(partition, &query)).await;
                Ok(Response::List(listed.map_err(rpc_error)?))
            }
            Request::Audit { partition, step, held } => {
                self.exists(partition)?;
                // On the heap: this is rare, and every call's future would be as large.
                let audited = Box::pin(self.engine.audit(partition, step, &held)).await;
                let Audited { behind, checked, stale } = audited.map_err(rpc_error)?;
                Ok(Response::Audit(AuditAnswer { behind, checked, stale }))
            }
        }
    }

    /// The partitions that the document has here, and those of which something is uncovered.
    #[must_use]
    pub fn held(&self) -> Vec<PartitionId> {
        self.engine.held(&self.config.current())
    }

    /// The state as far as one partition goes.
    fn state_for(&self, p: PartitionId) -> NodeState {
        match self.state() {
            NodeState::Serving | NodeState::Draining if !self.engine.is_recovered(p) => {
                NodeState::Recovering
            }
            state => state,
        }
    }

    /// Any partition of the cluster may be asked for, own or not: a leaving node must answer.
    fn exists(&self, p: PartitionId) -> Result<(), RpcError> {
        if u32::from(p.0) < 1 << self.engine.partitions_log2() {
            return Ok(());
        }
        Err(RpcError::new(ErrorKind::Invalid, format!("there is no partition {p}")))
    }

    fn not_stale(&self, epoch: Option<u64>) -> Result<(), RpcError> {
        let own = self.config.epoch().number;
        if epoch.is_some_and(|epoch| epoch < own) {
            return Err(RpcError::stale_epoch(own));
        }
        Ok(())
    }

    /// Whoever may hold something of a partition answers for it; requests of clients ask only those
    /// that the document has for that.
    fn owned(&self, p: PartitionId) -> Result<(), RpcError> {
        let current = self.config.current();
        if current.has(p) && current.placement(p).holders.contains(self.engine.node()) {
            return Ok(());
        }
        let text = format!("{} is no replica of partition {p}", self.engine.node());
        Err(RpcError::new(ErrorKind::Invalid, text))
    }

    async fn stat(
        &self,
        p: PartitionId,
        keys: &[StoredKey],
        merged: bool,
    ) -> Result<Response, RpcError> {
        let voting = self.engine.is_voting(p);
        if !merged {
            let (answers, step) = self.engine.stat_index(p, keys);
            return Ok(Response::Stat { answers, step, voting });
        }
        let mut answers = Vec::with_capacity(keys.len());
        let mut step = None;
        for key in keys {
            let vote = self.engine.vote(p, key).await.map_err(rpc_error)?;
            step = Some(step.map_or(vote.step, |step| vote.step.min(step)));
            answers.push(match vote.record {
                Some(record) => StatAnswer { version: Some(record.version()), crc: record.crc() },
                None => StatAnswer { version: None, crc: 0 },
            });
        }
        let step = step.unwrap_or_else(|| self.engine.step(p));
        Ok(Response::Stat { answers, step, voting })
    }

    /// Moves on to an announced step.
    async fn on_step(&self, announced: StepAnnouncement) -> Result<Response, RpcError> {
        let p = announced.partition;
        self.exists(p)?;
        if !self.engine.holds_any(p) {
            // Who is about to leave moves on as well: what is covered goes.
            self.owned(p)?;
        }
        if self.engine.step(p) < announced.step {
            let checkpoint = Checkpoint { id: announced.checkpoint, manifest: announced.manifest };
            let reader = self
                .engine
                .snapshots()
                .reader_at(p, checkpoint)
                .await
                .map_err(|source| rpc_error(EngineError::Snapshot { partition: p, source }))?;
            let meta = Meta {
                step: announced.step,
                highest: announced.highest,
                coverage: announced
                    .coverage
                    .into_iter()
                    .map(|(node, incarnation, lsn)| (node, (incarnation, lsn)))
                    .collect(),
            };
            let missed = match announced.missed {
                Some(digests) if self.engine.step(p) == announced.previous => {
                    Missed::Keys(digests.into_iter().collect())
                }
                _ => Missed::All,
            };
            self.engine.install(p, Arc::new(View { meta, reader: Some(reader) }), &missed);
        }
        Ok(Response::Step { step: self.engine.step(p) })
    }
}

/// An engine's error as a peer sees it.
pub(crate) fn rpc_error(error: EngineError) -> RpcError {
    let kind = error.kind();
    let mut out = RpcError::new(kind, error.to_string());
    if kind == ErrorKind::Busy {
        out.detail = BUSY_WAIT_MS;
    }
    out
}
