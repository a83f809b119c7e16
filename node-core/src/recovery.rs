//! From a started process to a voting replica: opening views, finding lost state, refilling.
//!
//! A node with an intact folder votes as soon as a partition's view is open: a restart of the
//! whole cluster needs nobody. A node that lost state (empty, older, damaged or foreign folder)
//! takes writes but does not vote on a partition until its view is open and it has pulled the
//! tails of N−W+1 *other* replicas that are not recovering, of each set that is written, or of all
//! others. Invariant: from then on it holds whatever any acknowledged write left outside the
//! snapshot. Where no writes go to it, it has nothing to refill.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tako_flatbuf::{NodeState, Record, Request, Response, RpcError};
use tako_types::{
    ErrorKind, Incarnation, Lsn, NodeId, PartitionId, StepNumber, StoredKey, Version,
    limits::CALL_DEADLINE,
};
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Engine, Intent},
    links::Links,
    replica::Replica,
};

/// Partitions opened or refilled at one time.
const AT_ONCE: usize = 8;
/// Pause before asking again who could not be reached.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often what was refilled by then is kept.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Keys asked for in one Fetch.
const FETCH_KEYS: usize = 1_024;

/// Why a node's own folder does not hold all that the node acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LostState {
    /// The snapshot covers entries of this folder that it does not have.
    RolledBack {
        /// Where it showed.
        partition: PartitionId,
        /// LSN that the snapshot covers.
        covered: Lsn,
        /// Last LSN of the folder as it was found.
        last: Lsn,
    },
    /// A later folder of this node is known.
    OldFolder {
        /// The later one.
        known: Incarnation,
    },
}

impl std::fmt::Display for LostState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RolledBack { partition, covered, last } => write!(
                f,
                "the data folder was rolled back: partition {partition} is covered up to entry \
                 {covered}, the journal was found to end at {last}"
            ),
            Self::OldFolder { known } => {
                write!(f, "the data folder is an old one: folder {known} came after it")
            }
        }
    }
}

/// Opens every own partition's newest view; retries until the store answers.
///
/// Answers with what shows that the folder lost state, if anything does. Guarantee: it answers
/// only when every view was looked at, for the folder is trusted by what this says; a shutdown
/// has to drop it.
pub async fn open_views(engine: &Arc<Engine>, partitions: &[PartitionId]) -> Option<LostState> {
    let opened = stream::iter(partitions.iter().copied())
        .map(|p| open_view(engine, p))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    opened.into_iter().flatten().next()
}

/// As [`open_views`], of one partition.
pub(crate) async fn open_view(engine: &Arc<Engine>, p: PartitionId) -> Option<LostState> {
    // What was found; entries that came since prove nothing.
    let last = engine.found_lsn();
    let mut wait = Duration::from_millis(200);
    let view = loop {
        match engine.enter(p).await {
            Ok(view) => break view,
            Err(error) => {
                tracing::warn!(partition = p.0, "snapshot not readable yet: {error}");
                sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
        }
    };
    let (known, covered) = view.meta.coverage.get(engine.node()).copied()?;
    if known > engine.incarnation() {
        return Some(LostState::OldFolder { known });
    }
    (known == engine.incarnation() && covered > last).then_some(LostState::RolledBack {
        partition: p,
        covered,
        last,
    })
}

/// Refills a node that lost state; each partition votes as soon as it may. `false` when the
/// shutdown came first. A partition that votes already is left as it is.
///
/// Guarantee: a partition that waits for others keeps none from being refilled, and what was
/// refilled by then is kept in the identity.
///
/// `accept_loss`: an operator said to go on without the replicas that cannot be reached.
pub async fn refill(
    links: &Arc<Links>,
    replica: &Arc<Replica>,
    partitions: &[PartitionId],
    accept_loss: bool,
    shutdown: &CancellationToken,
) -> bool {
    let rounds = &Semaphore::new(AT_ONCE);
    let left = partitions.iter().copied().filter(|p| !replica.engine().is_recovered(*p));
    let refills = stream::iter(left).for_each_concurrent(None, |p| async move {
        let mut said = String::new();
        loop {
            // Only for the round: who waits for a peer must not keep others from theirs.
            let permit = rounds.acquire().await;
            let Err(waiting) = refill_round(links, replica, p, accept_loss).await else { return };
            drop(permit);
            if waiting != said {
                tracing::warn!(partition = p.0, "recovering; {waiting}");
                said = waiting;
            }
            sleep(AGAIN_AFTER).await;
        }
    });
    let keeping = async {
        loop {
            sleep(KEEP_EVERY).await;
            replica.keep_refilled(partitions).await;
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => false,
        () = refills => true,
        () = keeping => false,
    }
}

/// What one pull of another replica's tail came to.
struct PulledFrom {
    state: NodeState,
    step: StepNumber,
    entries: usize,
    /// Highest ballot promised there that still matters.
    promised: Version,
    /// Some entry was covered by a step between its listing and its fetching.
    overtaken: bool,
}

/// Pulls the tails of all other replicas once; the partition votes if that was enough, else the
/// error says what is waited for.
async fn refill_round(
    links: &Arc<Links>,
    replica: &Arc<Replica>,
    p: PartitionId,
    accept_loss: bool,
) -> Result<(), String> {
    let engine = replica.engine();
    let current = links.config.current();
    let placement = current.placement(p);
    if !placement.takes_writes(&links.me) {
        engine.set_recovered(p, true);
        return Ok(());
    }
    let mut others = placement.writers();
    others.retain(|node| *node != links.me);
    let pulls = stream::iter(others.clone())
        .map(|node| async move {
            let pulled = pull_all(links, engine, p, &node).await;
            (node, pulled)
        })
        .buffer_unordered(others.len().max(1))
        .collect::<Vec<_>>()
        .await;
    let mut intact = Vec::new();
    let mut answered = 0;
    let mut newest = StepNumber(0);
    let mut found = 0;
    let mut promised = Version::ZERO;
    let mut overtaken = false;
    let mut missing = Vec::new();
    for (node, pulled) in pulls {
        match pulled {
            Ok(pulled) => {
                answered += 1;
                newest = newest.max(pulled.step);
                found += pulled.entries;
                promised = promised.max(pulled.promised);
                overtaken |= pulled.overtaken;
                if matches!(pulled.state, NodeState::Serving | NodeState::Draining) {
                    intact.push(node);
                }
            }
            Err(error) => missing.push(format!("{node} ({})", error.message)),
        }
    }
    // What a later step covers is in no tail any more: the own view must show that step.
    if (overtaken || engine.step(p) < newest)
        && let Err(error) = engine.open_latest(p).await
    {
        return Err(format!("snapshot not readable yet: {error}"));
    }
    let enough = placement.write_sets().all(|set| {
        let kept = set.nodes.iter().filter(|node| intact.contains(node)).count();
        set.quorum.w > 1 && kept > set.quorum.n - set.quorum.w
    });
    let intact = intact.len();
    let everybody = answered == others.len();
    if enough || everybody || accept_loss {
        // A cluster that never held anything has nothing to lose.
        let unused = everybody && found == 0 && engine.step(p).0 == 0;
        if !enough && !others.is_empty() && !unused {
            tracing::warn!(
                partition = p.0,
                intact,
                "possible_loss: voting again without enough replicas that kept their state"
            );
        }
        // What the lost folder promised, one of those asked promised as well.
        engine.raise_promise_floor(p, promised);
        engine.set_recovered(p, true);
        return Ok(());
    }
    Err(format!("{intact} kept their state; waiting for {}", missing.join(", ")))
}

/// Pulls another replica's whole tail of a partition into this node's journal.
async fn pull_all(
    links: &Arc<Links>,
    engine: &Arc<Engine>,
    p: PartitionId,
    node: &NodeId,
) -> Result<PulledFrom, RpcError> {
    // What the own view covers must not come back: a starting replica still lists it.
    let (mut folder, mut after) =
        engine.view(p).and_then(|view| view.meta.coverage.get(node).copied()).unwrap_or_default();
    let mut first = true;
    let (mut pulled, mut overtaken) = (0, false);
    loop {
        let request = Request::Tail {
            partition: p,
            after,
            incarnation: folder,
            puller: links.me.clone(),
            puller_incarnation: engine.incarnation(),
        };
        let answer = links.call(node, CALL_DEADLINE, request).await?;
        let Response::Tail { incarnation, upto, step, state, entries, more, promised, .. } = answer
        else {
            return Err(RpcError::new(ErrorKind::Internal, "answered something else"));
        };
        if std::mem::take(&mut first) {
            links.check_folder(node, incarnation, folder)?;
        } else if incarnation != folder {
            return Err(RpcError::new(ErrorKind::Conflict, "its data folder changed"));
        }
        pulled += entries.len();
        let keys = entries.into_iter().map(|entry| entry.key).collect();
        overtaken |= fetch_into(links, engine, p, node, keys).await?;
        if !more {
            return Ok(PulledFrom { state, step, entries: pulled, promised, overtaken });
        }
        (after, folder) = (upto, incarnation);
    }
}

/// Puts the uncovered records of these keys into the own journal; `true` when some are uncovered
/// no more.
async fn fetch_into(
    links: &Arc<Links>,
    engine: &Arc<Engine>,
    p: PartitionId,
    node: &NodeId,
    keys: Vec<StoredKey>,
) -> Result<bool, RpcError> {
    let mut overtaken = false;
    let mut left = keys.as_slice();
    while !left.is_empty() {
        let batch = &left[..left.len().min(FETCH_KEYS)];
        let request = Request::Fetch { partition: p, keys: batch.to_vec() };
        let answer = links.call(node, 2 * CALL_DEADLINE, request).await?;
        let Response::Fetch { records, more } = answer else {
            return Err(RpcError::new(ErrorKind::Internal, "answered something else"));
        };
        // What is not held any more was covered by a step since: the caller must see that step.
        let last = records.last().map(Record::key);
        let done = match last.and_then(|last| batch.iter().position(|key| *key == last)) {
            Some(at) if more => at + 1,
            None if more => {
                let text = "an empty page that is not the last";
                return Err(RpcError::new(ErrorKind::Internal, text));
            }
            _ => batch.len(),
        };
        overtaken |= records.len() < done;
        // Detached: one record must not keep a whole page of them in memory.
        let puts =
            records.into_iter().map(|record| engine.put(p, record.detached(), Intent::Repair));
        for put in futures::future::join_all(puts).await {
            put.map_err(crate::replica::rpc_error)?;
        }
        left = &left[done..];
    }
    Ok(overtaken)
}
