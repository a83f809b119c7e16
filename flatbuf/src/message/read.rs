//! Get and Stat: a replica's vote, with and without the value.

use bytes::Bytes;
use flatbuffers::{UnionWIPOffset, WIPOffset};
use tako_types::{PartitionId, StepNumber, StoredKey, Version, limits::TAIL_ENTRIES_MAX};

use super::{
    Request, Response, StatAnswer,
    list::{
        Builder, check_columns, read_key, read_keys, slice_of, write_bytes, write_keys,
        write_numbers,
    },
};
use crate::{
    Record,
    error::WireError,
    generated::rpc::{
        GetAnswer, GetAnswerArgs, GetRequest, GetRequestArgs, StatAnswer as StatAnswerTable,
        StatAnswerArgs, StatRequest, StatRequestArgs,
    },
};

pub(super) fn write_get_request(
    builder: &mut Builder<'_>,
    partition: PartitionId,
    key: &StoredKey,
) -> WIPOffset<UnionWIPOffset> {
    let key = Some(write_bytes(builder, key.as_bytes()));
    GetRequest::create(builder, &GetRequestArgs { partition: partition.0, key }).as_union_value()
}

pub(super) fn read_get_request(whole: &Bytes, table: GetRequest<'_>) -> Result<Request, WireError> {
    let key = read_key(slice_of(whole, table.key().bytes()))?;
    Ok(Request::Get { partition: PartitionId(table.partition()), key })
}

pub(super) fn write_get_answer(
    builder: &mut Builder<'_>,
    step: StepNumber,
    covered: bool,
    voting: bool,
) -> WIPOffset<UnionWIPOffset> {
    GetAnswer::create(builder, &GetAnswerArgs { step: step.0, voting, covered }).as_union_value()
}

pub(super) fn read_get_answer(table: GetAnswer<'_>, record: Option<Record>) -> Response {
    Response::Get {
        record,
        step: StepNumber(table.step()),
        covered: table.covered(),
        voting: table.voting(),
    }
}

pub(super) fn write_stat_request(
    builder: &mut Builder<'_>,
    partition: PartitionId,
    keys: &[StoredKey],
    merged: bool,
) -> WIPOffset<UnionWIPOffset> {
    let keys = Some(write_keys(builder, keys.iter()));
    let args = StatRequestArgs { partition: partition.0, keys, merged };
    StatRequest::create(builder, &args).as_union_value()
}

pub(super) fn read_stat_request(
    whole: &Bytes,
    table: StatRequest<'_>,
) -> Result<Request, WireError> {
    Ok(Request::Stat {
        partition: PartitionId(table.partition()),
        keys: read_keys(whole, table.keys(), TAIL_ENTRIES_MAX)?,
        merged: table.merged(),
    })
}

pub(super) fn write_stat_answer(
    builder: &mut Builder<'_>,
    answers: &[StatAnswer],
    step: StepNumber,
    voting: bool,
) -> WIPOffset<UnionWIPOffset> {
    let versions = answers.iter().map(|answer| answer.version.unwrap_or(Version::ZERO));
    let micros = Some(write_numbers(builder, versions.clone().map(|version| version.micros)));
    let origins = Some(write_numbers(builder, versions.map(|version| version.origin)));
    let crcs = Some(write_numbers(builder, answers.iter().map(|answer| answer.crc)));
    let args = StatAnswerArgs { micros, origins, crcs, step: step.0, voting };
    StatAnswerTable::create(builder, &args).as_union_value()
}

pub(super) fn read_stat_answer(table: StatAnswerTable<'_>) -> Result<Response, WireError> {
    let (micros, origins, crcs) = (table.micros(), table.origins(), table.crcs());
    check_columns(micros.len(), &[origins.len(), crcs.len()])?;
    let answers = micros.iter().zip(origins).zip(crcs).map(|((micros, origin), crc)| {
        let version = Version { micros, origin };
        StatAnswer { version: (version != Version::ZERO).then_some(version), crc }
    });
    Ok(Response::Stat {
        answers: answers.collect(),
        step: StepNumber(table.step()),
        voting: table.voting(),
    })
}
