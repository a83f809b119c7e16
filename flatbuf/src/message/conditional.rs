//! Change, and what it asks of each replica: Prepare and Accept, the two rounds of a conditional write.
//!
//! The ballot of an Accept is its record's version, so it is said once. Codecs only: what a promise
//! means is the replica's.

use bytes::Bytes;
use flatbuffers::{UnionWIPOffset, WIPOffset};
use tako_types::{
    Incarnation, PartitionId, StepNumber, StoredKey, Version, limits::CONDITION_VERSIONS_MAX,
};

use super::{
    ChangeOutcome, Condition, Edit, Misfit, PrepareOutcome, PutOutcome, Request, Response,
    list::{
        Builder, read_key, read_nodes, read_version, slice_of, write_bytes, write_nodes,
        write_version,
    },
};
use crate::{
    Record,
    error::WireError,
    generated::rpc::{
        AcceptAnswer, AcceptAnswerArgs, AcceptRequest, AcceptRequestArgs, ChangeAnswer,
        ChangeAnswerArgs, ChangeRequest, ChangeRequestArgs, PrepareAnswer, PrepareAnswerArgs,
        PrepareRequest, PrepareRequestArgs,
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

const ABSENT: u8 = 0;
const PRESENT: u8 = 1;
const ONE_OF: u8 = 2;
const NONE_OF: u8 = 3;
const TOKEN: u8 = 4;

const WRITE: u8 = 0;
const APPEND: u8 = 1;
const PREPEND: u8 = 2;
const ADD: u8 = 3;
const SUBTRACT: u8 = 4;
const TOUCH: u8 = 5;
const STORE: u8 = 6;

pub(super) fn write_change_request(
    builder: &mut Builder<'_>,
    partition: PartitionId,
    condition: &Condition,
    edit: Edit,
) -> WIPOffset<UnionWIPOffset> {
    let (condition, versions, token) = match condition {
        Condition::Absent => (ABSENT, None, 0),
        Condition::Present => (PRESENT, None, 0),
        Condition::OneOf(versions) => (ONE_OF, Some(versions), 0),
        Condition::NoneOf(versions) => (NONE_OF, Some(versions), 0),
        Condition::Token(token) => (TOKEN, None, *token),
    };
    let (edit, amount) = match edit {
        Edit::Write => (WRITE, 0),
        Edit::Append => (APPEND, 0),
        Edit::Prepend => (PREPEND, 0),
        Edit::Add(amount) => (ADD, amount),
        Edit::Subtract(amount) => (SUBTRACT, amount),
        Edit::Touch => (TOUCH, 0),
        Edit::Store => (STORE, 0),
    };
    let versions = versions.map(|versions| {
        let pairs: Vec<_> = versions.iter().copied().map(write_version).collect();
        builder.create_vector(&pairs)
    });
    let args =
        ChangeRequestArgs { partition: partition.0, condition, versions, token, edit, amount };
    ChangeRequest::create(builder, &args).as_union_value()
}

pub(super) fn read_change_request(
    table: ChangeRequest<'_>,
    record: Record,
) -> Result<Request, WireError> {
    let pairs = table.versions();
    let (found, limit) = (pairs.map_or(0, |pairs| pairs.len()), CONDITION_VERSIONS_MAX);
    if limit < found {
        return Err(WireError::TooLong { what: "a list of versions", found, limit });
    }
    let versions = pairs.into_iter().flatten().map(|pair| read_version(Some(pair))).collect();
    let condition = match table.condition() {
        ABSENT => Condition::Absent,
        PRESENT => Condition::Present,
        ONE_OF => Condition::OneOf(versions),
        NONE_OF => Condition::NoneOf(versions),
        TOKEN => Condition::Token(table.token()),
        _ => return Err(WireError::Field { field: "condition" }),
    };
    let edit = match table.edit() {
        WRITE => Edit::Write,
        APPEND => Edit::Append,
        PREPEND => Edit::Prepend,
        ADD => Edit::Add(table.amount()),
        SUBTRACT => Edit::Subtract(table.amount()),
        TOUCH => Edit::Touch,
        STORE => Edit::Store,
        _ => return Err(WireError::Field { field: "edit" }),
    };
    Ok(Request::Change { partition: PartitionId(table.partition()), condition, edit, record })
}

const DONE: u8 = 0;
const FAILS: u8 = 1;
const UNKNOWN: u8 = 2;
const CANNOT: u8 = 3;

const NO_NUMBER: u8 = 0;
const TOO_LONG: u8 = 1;

/// The record is the caller's to attach.
pub(super) fn write_change_answer(
    builder: &mut Builder<'_>,
    outcome: &ChangeOutcome,
) -> WIPOffset<UnionWIPOffset> {
    let (outcome, version, reason, misfit) = match outcome {
        ChangeOutcome::Done { version, record: _ } => (DONE, Some(*version), None, 0),
        ChangeOutcome::Fails { version } => (FAILS, *version, None, 0),
        ChangeOutcome::Unknown { reason } => (UNKNOWN, None, Some(reason), 0),
        ChangeOutcome::Cannot(Misfit::NoNumber) => (CANNOT, None, None, NO_NUMBER),
        ChangeOutcome::Cannot(Misfit::TooLong) => (CANNOT, None, None, TOO_LONG),
    };
    let reason = reason.map(|reason| builder.create_string(reason));
    let version = version.map(write_version);
    let args = ChangeAnswerArgs { outcome, version: version.as_ref(), reason, misfit };
    ChangeAnswer::create(builder, &args).as_union_value()
}

/// What a later release may answer besides is not known to have been done or not.
pub(super) fn read_change_answer(
    table: ChangeAnswer<'_>,
    record: Option<Record>,
) -> Result<Response, WireError> {
    let version = table.version().map(|pair| read_version(Some(pair)));
    let outcome = match (table.outcome(), version, table.misfit()) {
        (DONE, Some(version), _) => {
            return Ok(Response::Change(ChangeOutcome::Done { version, record }));
        }
        (FAILS, version, _) => ChangeOutcome::Fails { version },
        (CANNOT, _, NO_NUMBER) => ChangeOutcome::Cannot(Misfit::NoNumber),
        (CANNOT, _, TOO_LONG) => ChangeOutcome::Cannot(Misfit::TooLong),
        _ => ChangeOutcome::Unknown { reason: table.reason().unwrap_or_default().to_owned() },
    };
    match record {
        None => Ok(Response::Change(outcome)),
        Some(_) => Err(WireError::Lengths { what: "number of attachments" }),
    }
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
