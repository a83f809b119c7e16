//! The last thing before a read's answer: that no later read goes behind it.
//!
//! In: the newest record of the votes, and whether they differ. Out: that record, written back first
//! where a later read could miss it. Two reasons:
//! - votes differ: another R of the read set may be those that lack it;
//! - two sets are written, and the next document may have reads ask the other one. A write that is
//!   under way or failed can be at the read set alone, so the votes agreeing is not enough.
//!
//! For the second, a record needs no writing back when it *lasts*: it came from the snapshot at step
//! s, and W′ nodes of the other set are known to see s or later. Any R′ of that set have one of them
//! among them, a step is never undone, and a node that starts opens the newest one before it votes:
//! so what a node once told of its step is true of every later vote of it. Gossip tells up to a second
//! late, in which every read of the partition would be written back, so the other set is asked. The barrier is no such proof. It
//! was chosen before its document was published, so reads may have met later steps meanwhile; and
//! it binds the target's nodes, while after an abort the active set's are asked, which may be behind.
//!
//! Anything else goes to W of each set by the rules of every write. The other set's indexes are not
//! asked beforehand: that would be a round as well, and could not tell which of what they hold was
//! taken in by folders lost since; a node that has the very record answers without journalling it.
//! Not here: how votes are had and compared (`read.rs`).

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tako_flatbuf::{Record, Request, Response};
use tako_types::{NodeId, PartitionId, StepNumber, config::ReplicaSet};
use tokio::time::Instant;

use super::super::{
    RequestError, Serving,
    attempt::{Attempt, Halt, Level},
    write::WrittenBack,
};

/// A set that was found to be behind a step is asked again after this long: its nodes open a step
/// within some tens of milliseconds.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What a read may be answered with.
#[derive(Debug)]
pub(super) enum Answer {
    /// No later read goes behind it.
    Sure(Option<Record>),
    /// Neither does one behind this; but a replica holds something newer: maybe a change that was decided
    /// without this record, which then is seen by nobody else.
    Overtaken(Record),
    /// It could not be written back yet, for such a change is promised.
    Barred,
}

/// What the votes of a read come to.
#[derive(Debug)]
pub(super) struct Newest {
    /// The newest record among them.
    pub(super) record: Option<Record>,
    /// The step at which the snapshot shows just this, where no uncovered entry took part.
    pub(super) covered_at: Option<StepNumber>,
    /// Not all of them are this record.
    pub(super) differ: bool,
}

/// When the other set was last asked which step it sees, per partition: one read asks, the others
/// await what it learns.
#[derive(Debug, Default)]
pub(in super::super) struct AskedForSteps {
    partitions: Mutex<HashMap<PartitionId, Arc<tokio::sync::Mutex<Option<Asked>>>>>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    /// Whether it sees this one.
    step: StepNumber,
    at: Instant,
}

impl AskedForSteps {
    fn of(&self, p: PartitionId) -> Arc<tokio::sync::Mutex<Option<Asked>>> {
        self.partitions.lock().entry(p).or_default().clone()
    }
}

impl Serving {
    /// Answers with the newest record once no later read can miss it; with `read_repair` off, at once.
    pub(super) async fn answer(
        &self,
        attempt: &Attempt,
        newest: Newest,
        level: Level,
    ) -> Result<Answer, Halt<RequestError>> {
        // To be absent is nothing that a later read could go behind.
        let Some(record) = newest.record else { return Ok(Answer::Sure(None)) };
        let repairs = attempt.document.config.active_deployment().read_repair;
        if repairs && (newest.differ || !self.lasts(attempt, newest.covered_at).await?) {
            let written = self.write_back(attempt, record.clone(), level).await?;
            match written {
                WrittenBack::Done => {}
                WrittenBack::Overtaken => return Ok(Answer::Overtaken(record)),
                WrittenBack::Barred => return Ok(Answer::Barred),
            }
        }
        Ok(Answer::Sure(Some(record)))
    }

    /// Whether a record that the read set agrees on is found by reads of the other set too, if there
    /// is one.
    async fn lasts(
        &self,
        attempt: &Attempt,
        covered_at: Option<StepNumber>,
    ) -> Result<bool, Halt<RequestError>> {
        let Some(other) = &attempt.placement().also_write else { return Ok(true) };
        let Some(step) = covered_at else { return Ok(false) };
        if self.is_seen_by(other, attempt.p, step) {
            return Ok(true);
        }
        let asked = self.asked_for_steps.of(attempt.p);
        let mut asked = asked.lock().await;
        // Somebody else may have asked meanwhile.
        if self.is_seen_by(other, attempt.p, step) {
            return Ok(true);
        }
        let is_fresh = |last: Asked| step <= last.step && last.at.elapsed() < ASK_AGAIN_AFTER;
        if asked.is_some_and(is_fresh) {
            return Ok(false);
        }
        self.ask_for_steps(attempt, other, step).await?;
        *asked = Some(Asked { step, at: Instant::now() });
        Ok(self.is_seen_by(other, attempt.p, step))
    }

    /// Whether W of a set are known to see this step or a later one.
    fn is_seen_by(&self, set: &ReplicaSet, p: PartitionId, step: StepNumber) -> bool {
        let seeing = set.nodes.iter().filter(|node| step <= self.step_seen_by(node, p));
        set.quorum.w <= seeing.count()
    }

    fn step_seen_by(&self, node: &NodeId, p: PartitionId) -> StepNumber {
        match self.links.local().filter(|_| self.links.is_local(node)) {
            Some(local) => local.engine().step(p),
            None => self.links.membership.step_seen(node, p).unwrap_or_default(),
        }
    }

    /// Asks those of a set that are not known to see a step which one they see, until W are.
    async fn ask_for_steps(
        &self,
        attempt: &Attempt,
        set: &ReplicaSet,
        step: StepNumber,
    ) -> Result<(), Halt<RequestError>> {
        let behind = set.nodes.iter().filter(|node| self.step_seen_by(node, attempt.p) < step);
        let mut asked: FuturesUnordered<_> = behind
            .map(|node| async move {
                let request =
                    Request::Stat { partition: attempt.p, keys: Vec::new(), merged: false };
                let deadline = Self::call_deadline(attempt.until, 0);
                (node, attempt.call(&self.links, node, deadline, request).await)
            })
            .collect();
        while let Some((node, answer)) = asked.next().await {
            match answer {
                Ok(Response::Stat { step: seen, .. }) => {
                    self.links.membership.on_step_seen(node, attempt.p, seen);
                    if self.is_seen_by(set, attempt.p, step) {
                        break;
                    }
                }
                Err(Halt::Moved) => return Err(Halt::Moved),
                // A node that does not answer is not known to see it.
                Ok(_) | Err(Halt::Failed(_)) => {}
            }
        }
        Ok(())
    }
}
