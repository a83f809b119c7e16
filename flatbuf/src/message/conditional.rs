//! Prepare and Accept: the two rounds of a conditional write at one replica.
//!
//! The ballot of an Accept is its record's version, so it is said once. Codecs only: what a promise
//! means is the replica's.

use bytes::Bytes;
use flatbuffers::{UnionWIPOffset, WIPOffset};
use tako_types::{Incarnation, PartitionId, StepNumber, StoredKey, Version};

use super::{
    PrepareOutcome, PutOutcome, Request, Response,
    list::{
        Builder, read_key, read_nodes, read_version, slice_of, write_bytes, write_nodes,
        write_version,
    },
};
use crate::{
    Record,
    error::WireError,
    generated::rpc::{
        AcceptAnswer, AcceptAnswerArgs, AcceptRequest, AcceptRequestArgs, PrepareAnswer,
        PrepareAnswerArgs, PrepareRequest, PrepareRequestArgs,
    },
};

pub(super) fn write_prepare_request(
    builder: &mut Builder<'_>,
    partition: PartitionId,
    key: &StoredKey,
    ballot: Version,
) -> WIPOffset<UnionWIPOffset> {
    let key = Some(write_bytes(builder, key.as_bytes()));
    let ballot = write_version(ballot);
    let args = PrepareRequestArgs { partition: partition.0, key, ballot: Some(&ballot) };
    PrepareRequest::create(builder, &args).as_union_value()
}

pub(super) fn read_prepare_request(
    whole: &Bytes,
    table: PrepareRequest<'_>,
) -> Result<Request, WireError> {
    Ok(Request::Prepare {
        partition: PartitionId(table.partition()),
        key: read_key(slice_of(whole, table.key().bytes()))?,
        ballot: read_version(Some(table.ballot())),
    })
}

pub(super) fn write_prepare_answer(
    builder: &mut Builder<'_>,
    outcome: &PrepareOutcome,
) -> WIPOffset<UnionWIPOffset> {
    match outcome {
        PrepareOutcome::Promised { incarnation, known, record: _, step, covered, voting } => {
            let known = (!known.is_empty()).then(|| write_nodes(builder, known));
            let args = PrepareAnswerArgs {
                refused: None,
                incarnation: incarnation.0,
                voting: *voting,
                known,
                step: step.0,
                covered: *covered,
            };
            PrepareAnswer::create(builder, &args).as_union_value()
        }
        PrepareOutcome::Refused { version } => {
            let version = write_version(*version);
            let args = PrepareAnswerArgs { refused: Some(&version), ..Default::default() };
            PrepareAnswer::create(builder, &args).as_union_value()
        }
    }
}

/// A refusal carries no record; the caller has seen to it that there is at most one.
pub(super) fn read_prepare_answer(
    table: PrepareAnswer<'_>,
    record: Option<Record>,
) -> Result<Response, WireError> {
    Ok(Response::Prepare(match (table.refused(), record) {
        (None, record) => PrepareOutcome::Promised {
            incarnation: Incarnation(table.incarnation()),
            known: table.known().map_or(Ok(Vec::new()), read_nodes)?,
            record,
            step: StepNumber(table.step()),
            covered: table.covered(),
            voting: table.voting(),
        },
        (refused, None) => PrepareOutcome::Refused { version: read_version(refused) },
        (Some(_), Some(_)) => return Err(WireError::Lengths { what: "number of attachments" }),
    }))
}

pub(super) fn write_accept_request(
    builder: &mut Builder<'_>,
    partition: PartitionId,
    base: Version,
) -> WIPOffset<UnionWIPOffset> {
    let seen = write_version(base);
    let base = (base != Version::ZERO).then_some(&seen);
    AcceptRequest::create(builder, &AcceptRequestArgs { partition: partition.0, base })
        .as_union_value()
}

pub(super) fn read_accept_request(table: AcceptRequest<'_>, record: Record) -> Request {
    let base = read_version(table.base());
    Request::Accept { partition: PartitionId(table.partition()), base, record }
}

pub(super) fn write_accept_answer(
    builder: &mut Builder<'_>,
    outcome: &PutOutcome,
) -> WIPOffset<UnionWIPOffset> {
    let args = match outcome {
        PutOutcome::Accepted { incarnation, voting, known } => AcceptAnswerArgs {
            accepted: true,
            incarnation: incarnation.0,
            voting: *voting,
            known: (!known.is_empty()).then(|| write_nodes(builder, known)),
            ..Default::default()
        },
        PutOutcome::Superseded { version } | PutOutcome::Promised { version } => {
            let promised = matches!(outcome, PutOutcome::Promised { .. });
            let version = write_version(*version);
            let superseded = Some(&version);
            let args = AcceptAnswerArgs { superseded, promised, ..Default::default() };
            return AcceptAnswer::create(builder, &args).as_union_value();
        }
    };
    AcceptAnswer::create(builder, &args).as_union_value()
}

pub(super) fn read_accept_answer(table: AcceptAnswer<'_>) -> Result<Response, WireError> {
    let version = read_version(table.superseded());
    Ok(Response::Accept(match (table.accepted(), table.promised()) {
        (true, _) => PutOutcome::Accepted {
            incarnation: Incarnation(table.incarnation()),
            voting: table.voting(),
            known: table.known().map_or(Ok(Vec::new()), read_nodes)?,
        },
        (false, true) => PutOutcome::Promised { version },
        (false, false) => PutOutcome::Superseded { version },
    }))
}
