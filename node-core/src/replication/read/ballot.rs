//! One replica's vote on a key: how it is asked for, and what several of them show together.
//!
//! Invariant: a replica that does not vote, or whose view is below the attempt's barrier, gives none.
//! Not here: how many are needed and whom to ask (`read.rs`).

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tako_flatbuf::{Record, Request, Response, RpcError, StatAnswer, merge};
use tako_types::{ErrorKind, NodeId, StepNumber, StoredKey, Version};

use super::super::attempt::{Attempt, Halt};
use crate::links::Links;

/// One replica's vote as far as it is known.
#[derive(Debug, Clone)]
pub(super) struct Ballot {
    pub(super) node: NodeId,
    pub(super) step: StepNumber,
    pub(super) shown: Shown,
}

#[derive(Debug, Clone)]
pub(super) enum Shown {
    /// The whole vote; `covered`: it is what the snapshot shows at that step.
    Whole { record: Option<Record>, covered: bool },
    /// What the memory index says.
    Index(StatAnswer),
    /// The version of the whole vote.
    Merged(StatAnswer),
}

/// The merge of the whole votes, the highest step among them, and whether the merge is what the
/// snapshot shows at that step.
pub(super) fn newest_of(ballots: &[Ballot]) -> (Option<Record>, StepNumber, bool) {
    let mut newest: Option<Record> = None;
    let mut step = StepNumber(0);
    let mut covered = true;
    for ballot in ballots {
        let Shown::Whole { record, covered: is_covered } = &ballot.shown else { continue };
        step = step.max(ballot.step);
        covered &= is_covered;
        newest = match (newest, record.clone()) {
            (Some(a), Some(b)) => Some(merge(a, b)),
            (a, b) => a.or(b),
        };
    }
    (newest, step, covered)
}

/// Does an index answer prove that the replica's vote is the record shown?
pub(super) fn index_agrees(
    answer: StatAnswer,
    step: StepNumber,
    shown: Option<(Version, u32)>,
    newest_step: StepNumber,
    covered: bool,
) -> bool {
    match (answer.version, shown) {
        // It sees a later step, so its snapshot may hold something newer, whatever its index says.
        _ if step > newest_step => false,
        (Some(version), Some(shown)) if (version, answer.crc) == shown => true,
        (Some(version), Some((newest, _))) if version > newest => false,
        (Some(_), None) => false,
        // Nothing anywhere, and no later step to look at.
        (None, None) => true,
        // The record is in the snapshot at the step that it sees as well.
        (_, Some(_)) => covered && step == newest_step,
    }
}

/// Whether one of the votes, all of them known, is another than the record shown.
pub(super) fn differ_from(ballots: &[Ballot], shown: Option<(Version, u32)>) -> bool {
    ballots.iter().any(|ballot| match &ballot.shown {
        Shown::Whole { record, .. } => record.as_ref().map(|r| (r.version(), r.crc())) != shown,
        Shown::Merged(answer) => answer.version.map(|version| (version, answer.crc)) != shown,
        // It would not be settled otherwise.
        Shown::Index(_) => false,
    })
}

/// Asks a replica for its whole vote, or for what its index says.
pub(super) fn ask(
    links: Arc<Links>,
    attempt: Attempt,
    node: NodeId,
    key: StoredKey,
    whole: bool,
    deadline: Duration,
) -> BoxFuture<'static, (NodeId, Result<Ballot, Halt<RpcError>>)> {
    Box::pin(async move {
        let partition = attempt.p;
        let request = if whole {
            Request::Get { partition, key }
        } else {
            Request::Stat { partition, keys: vec![key], merged: false }
        };
        let ballot = match attempt.call(&links, &node, deadline, request).await {
            Ok(Response::Get { record, step, voting: true, covered })
                if attempt.barrier() <= step =>
            {
                Ok(Ballot { node: node.clone(), step, shown: Shown::Whole { record, covered } })
            }
            Ok(Response::Stat { answers, step, voting: true }) if attempt.barrier() <= step => {
                match answers.first() {
                    Some(answer) => {
                        Ok(Ballot { node: node.clone(), step, shown: Shown::Index(*answer) })
                    }
                    None => Err(RpcError::new(ErrorKind::Internal, "an empty answer").into()),
                }
            }
            Ok(Response::Get { .. } | Response::Stat { .. }) => {
                let text = format!("{node} is recovering and does not vote");
                Err(RpcError::new(ErrorKind::Unavailable, text).into())
            }
            Ok(_) => Err(RpcError::new(ErrorKind::Internal, "answered something else").into()),
            Err(halt) => Err(halt),
        };
        (node, ballot)
    })
}

/// Asks a replica for the version of its whole vote.
pub(super) async fn ask_merged(
    links: &Links,
    attempt: &Attempt,
    node: NodeId,
    key: StoredKey,
    deadline: Duration,
) -> Result<Ballot, Halt<RpcError>> {
    let request = Request::Stat { partition: attempt.p, keys: vec![key], merged: true };
    match attempt.call(links, &node, deadline, request).await? {
        Response::Stat { answers, step, voting: true }
            if answers.len() == 1 && attempt.barrier() <= step =>
        {
            Ok(Ballot { node, step, shown: Shown::Merged(answers[0]) })
        }
        _ => {
            let text = format!("{node} does not vote now");
            Err(RpcError::new(ErrorKind::Unavailable, text).into())
        }
    }
}

#[cfg(test)]
mod tests;
