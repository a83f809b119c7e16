//! A client's request over the replicas of its key: what a serving node does.
//!
//! ```text
//! put: one version ─► all replicas at once ─► W acknowledgements of each set ─► answer
//! get: whole vote of the best replica + index answers of R−1 others of the read set ─► newest;
//!      where they differ, or reads of another written set could miss it, it is written back to W
//!      of each set before the answer
//! change: by one replica of the key: a majority promises and shows what it holds ─► does the
//!      condition hold? ─► a majority takes the record
//! list: pages of one replica of each partition ─► in the order of keys
//! ```
//! Any node and any proxy serves any key. Calls: attempt (one document's judgement), links
//! (replicas), quorum (pure counting). Called by: the gateways.
//!
//! Invariants:
//! - no request without a deadline; an answer "absent" only when R replicas said so;
//! - what a request counts towards its answer was given under one configuration document, or under
//!   several that place the key's partition alike. It takes the document once and every call names
//!   that epoch; a replica that knows a newer one refuses, and then the request begins again under
//!   that one where it places the partition elsewhere. So no write is done with the old set alone
//!   after a replica of it went on to write both, unless W of them had it before they did (the
//!   barrier covers that), and no read mixes votes of two sets. A write that begins again keeps its
//!   version: whoever has it already takes it for the same.

mod attempt;
mod change;
mod latency;
mod list;
mod quorum;
mod read;
mod write;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

pub use change::Change;
use change::turns::Turns;
pub use latency::{BOUNDS_MICROS, Latency};
pub use list::{List, Lister};
use read::AskedForSteps;
pub use read::Read;
use tako_flatbuf::{NodeState, RpcError};
use tako_types::{
    Drift, ErrorKind, HybridClock, NodeId, PartitionId, Version,
    config::{Placement, Quorum},
    limits::{CALL_DEADLINE, CLOCK_DRIFT_MAX},
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
pub(crate) use write::put_until;
pub use write::{OVERTAKEN, Write, Written};

use crate::{identity::IdentityKeeper, links::Links};

/// Writes that may go on behind their answers before new ones wait for their own rest.
const FINISHING_COUNT_MAX: usize = 4_096;

/// A record is given this much time to a peer, beyond that of any call.
const BYTES_PER_SECOND_MIN: u32 = 4 << 20;

/// Why a client's request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request cannot be served as it is.
    #[error("{0}")]
    Invalid(String),
    /// The client's timestamp is too far in the future.
    #[error(transparent)]
    Drift(#[from] Drift),
    /// Too few replicas answered a read.
    #[error("{got} of {need} replicas answered: {reason}")]
    TooFewVotes {
        /// Votes that came.
        got: usize,
        /// Votes needed.
        need: usize,
        /// What the last failing replica said.
        reason: String,
    },
    /// Too few replicas took a write; some may have.
    #[error("{got} of {need} replicas took the write; its outcome is unknown: {reason}")]
    TooFewAcks {
        /// Acknowledgements that came.
        got: usize,
        /// Acknowledgements needed.
        need: usize,
        /// What the last failing replica said.
        reason: String,
    },
    /// The time was over; a write may have happened.
    #[error("not done within {0:?}; for a write the outcome is unknown")]
    Deadline(Duration),
    /// The configuration kept moving the key.
    #[error(
        "the key's replicas changed {times} times meanwhile; for a write the outcome is unknown"
    )]
    Moving {
        /// How often.
        times: usize,
    },
    /// Other writers kept winning.
    #[error("other writes to this key kept winning; retry")]
    Contended,
    /// Queues or disks are full.
    #[error("busy: {0}")]
    Busy(String),
    /// This process must not issue versions.
    #[error(
        "the clock of {node} is {offset:?} off its peers'; it serves no writes until that is mended"
    )]
    Clock {
        /// This process.
        node: NodeId,
        /// How far.
        offset: Duration,
    },
}

impl RequestError {
    /// What the client does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) | Self::Drift(_) => ErrorKind::Invalid,
            Self::TooFewVotes { .. }
            | Self::TooFewAcks { .. }
            | Self::Moving { .. }
            | Self::Clock { .. } => ErrorKind::Unavailable,
            Self::Deadline(_) => ErrorKind::Deadline,
            Self::Contended => ErrorKind::Conflict,
            Self::Busy(_) => ErrorKind::Busy,
        }
    }
}

/// Counters of one serving process.
#[derive(Debug, Default)]
pub struct ServingMetrics {
    /// Reads served.
    pub reads: AtomicU64,
    /// Writes served.
    pub writes: AtomicU64,
    /// Changes under a condition that were made from here.
    pub changes: AtomicU64,
    /// Reads that wrote the newest back: replicas differed, or another set may not find it.
    pub write_backs: AtomicU64,
    /// Writes sent again with a higher version.
    pub restamps: AtomicU64,
    /// Acknowledgements of replaced data folders.
    pub void_acks: AtomicU64,
    /// Reads that asked one more replica because the first was slow.
    pub hedges: AtomicU64,
    /// How long reads took.
    pub read_latency: Latency,
    /// How long plain writes took.
    pub write_latency: Latency,
    /// How long changes took for who asked this process.
    pub change_latency: Latency,
}

/// Serves clients' requests; see the module.
pub struct Serving {
    links: Arc<Links>,
    clock: HybridClock,
    metrics: ServingMetrics,
    finishing: TaskTracker,
    finishing_count: Arc<AtomicUsize>,
    clock_off_micros: AtomicU64,
    asked_for_steps: AskedForSteps,
    turns: Turns,
    stopped: AtomicBool,
    /// Keeps the ceiling that versions are issued below; a proxy has none, its origin is its own.
    ceiling: OnceLock<Arc<IdentityKeeper>>,
}

impl Serving {
    /// Serves over `links`, with versions of `clock`.
    #[must_use]
    pub fn new(links: Arc<Links>, clock: HybridClock) -> Arc<Self> {
        Arc::new(Self {
            links,
            clock,
            metrics: ServingMetrics::default(),
            finishing: TaskTracker::new(),
            finishing_count: Arc::new(AtomicUsize::new(0)),
            clock_off_micros: AtomicU64::new(0),
            asked_for_steps: AskedForSteps::default(),
            turns: Turns::default(),
            stopped: AtomicBool::new(false),
            ceiling: OnceLock::new(),
        })
    }

    /// The replicas and the configuration.
    #[must_use]
    pub fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Counters.
    #[must_use]
    pub fn metrics(&self) -> &ServingMetrics {
        &self.metrics
    }

    /// The clock of this process.
    #[must_use]
    pub fn clock(&self) -> &HybridClock {
        &self.clock
    }

    /// Issues versions only below the ceiling in this identity from now on.
    pub fn issue_below_ceiling_of(&self, identity: &Arc<IdentityKeeper>) {
        let _ = self.ceiling.set(identity.clone());
    }

    /// A version that this node never issued before, in no earlier run either, whatever the clock
    /// says: the next start begins above the ceiling.
    async fn issue(&self) -> Result<Version, RequestError> {
        let version = self.clock.next();
        if let Some(identity) = self.ceiling.get()
            && identity.clock_ceiling_micros() <= version.micros
        {
            let raised = identity.raise_clock_ceiling(version.micros, self.clock.now_micros());
            raised.await.map_err(|error| {
                RequestError::Busy(format!("the clock's ceiling cannot be kept: {error}"))
            })?;
        }
        Ok(version)
    }

    /// Tells how far this process's clock is off the others'; above half the drift it stops
    /// issuing versions.
    pub fn set_clock_offset(&self, micros: i64) {
        self.clock_off_micros.store(micros.unsigned_abs(), Ordering::Relaxed);
    }

    fn check_clock(&self) -> Result<(), RequestError> {
        let offset = Duration::from_micros(self.clock_off_micros.load(Ordering::Relaxed));
        if offset <= CLOCK_DRIFT_MAX / 2 {
            return Ok(());
        }
        Err(RequestError::Clock { node: self.links.me.clone(), offset })
    }

    /// Whether every partition has enough live replicas for its quorums; else the first that
    /// has not, in words.
    ///
    /// # Errors
    /// What is missing.
    pub fn readiness(&self) -> Result<(), String> {
        self.check_clock().map_err(|error| error.to_string())?;
        let current = self.links.config.current();
        for p in 0..current.config.partitions {
            let p = PartitionId(u16::try_from(p).unwrap_or(u16::MAX));
            let Placement { read, also_write, .. } = current.placement(p);
            let read = (read, read.quorum.r.max(read.quorum.w));
            let also = also_write.as_ref().map(|set| (set, set.quorum.w));
            for (set, need) in std::iter::once(read).chain(also) {
                let serving = set.nodes.iter().filter(|node| self.serves(node)).count();
                if serving < need {
                    let nodes: Vec<&str> = set.nodes.iter().map(NodeId::as_str).collect();
                    return Err(format!(
                        "partition {p}: {serving} of its replicas {} serve, {need} are needed",
                        nodes.join(", ")
                    ));
                }
            }
        }
        Ok(())
    }

    fn serves(&self, node: &NodeId) -> bool {
        if self.links.is_local(node) {
            let state = self.links.local().map(|local| local.state());
            return state == Some(NodeState::Serving);
        }
        self.links.membership.read_rank(node) == 0
    }

    /// Waits until writes that were answered have ended at every replica.
    pub async fn finish(&self) {
        self.stopped.store(true, Ordering::Release);
        self.finishing.close();
        self.finishing.wait().await;
    }

    /// Runs what is left of a write behind its answer, or awaits it where too much goes on.
    async fn finish_later(&self, rest: impl Future<Output = ()> + Send + 'static) {
        let (counted, before) = Counted::new(&self.finishing_count);
        let rest = async move {
            rest.await;
            drop(counted);
        };
        if before < FINISHING_COUNT_MAX {
            self.finishing.spawn(rest);
        } else {
            rest.await;
        }
    }

    /// The time for one call that moves `bytes`, within a request that must end at `until`.
    fn call_deadline(until: Instant, bytes: usize) -> Duration {
        let moving = Duration::from_secs(bytes as u64) / BYTES_PER_SECOND_MIN;
        until.saturating_duration_since(Instant::now()).min(CALL_DEADLINE + moving)
    }
}

/// One of the writes that go on; not counted any more when dropped, however that comes.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// Counts one more; also gives how many there were before.
    fn new(count: &Arc<AtomicUsize>) -> (Self, usize) {
        (Self(count.clone()), count.fetch_add(1, Ordering::AcqRel))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether what a client asks for can be had of the read set. Its request is told so once, when it
/// begins: that a later document has fewer replicas is no fault of a request that was right.
fn check_levels(quorum: Quorum, r: Option<usize>, w: Option<usize>) -> Result<(), RequestError> {
    if r.is_none() && w.is_none() {
        return Ok(());
    }
    quorum.with(r, w).map(drop).map_err(|error| RequestError::Invalid(error.to_string()))
}

fn reason(error: &RpcError) -> String {
    error.message.clone()
}

#[cfg(test)]
mod tests;
