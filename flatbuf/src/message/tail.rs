//! Tail and Fetch: a replica's uncovered journal entries, and their records.

use bytes::Bytes;
use flatbuffers::{UnionWIPOffset, WIPOffset};
use tako_types::{
    Incarnation, Lsn, NodeId, PartitionId, StepNumber, StoredKey, Version, limits::TAIL_ENTRIES_MAX,
};

use super::{
    NodeState, Request, Response, TailEntry,
    list::{
        Builder, check_columns, read_keys, read_node, read_version, write_keys, write_numbers,
        write_version,
    },
};
use crate::{
    Record,
    error::WireError,
    generated::rpc::{
        FetchAnswer, FetchAnswerArgs, FetchRequest, FetchRequestArgs, TailAnswer, TailAnswerArgs,
        TailRequest, TailRequestArgs,
    },
};

pub(super) fn write_request(
    builder: &mut Builder<'_>,
    partition: PartitionId,
    (after, incarnation): (Lsn, Incarnation),
    (puller, puller_incarnation): (&NodeId, Incarnation),
) -> WIPOffset<UnionWIPOffset> {
    let puller = Some(builder.create_string(puller.as_str()));
    let args = TailRequestArgs {
        partition: partition.0,
        after: after.0,
        incarnation: incarnation.0,
        puller,
        puller_incarnation: puller_incarnation.0,
    };
    TailRequest::create(builder, &args).as_union_value()
}

pub(super) fn read_request(table: TailRequest<'_>) -> Result<Request, WireError> {
    Ok(Request::Tail {
        partition: PartitionId(table.partition()),
        after: Lsn(table.after()),
        incarnation: Incarnation(table.incarnation()),
        puller: read_node(table.puller())?,
        puller_incarnation: Incarnation(table.puller_incarnation()),
    })
}

/// The fields of a Tail answer besides its entries.
pub(super) struct TailFields {
    pub(super) incarnation: Incarnation,
    pub(super) upto: Lsn,
    pub(super) step: StepNumber,
    pub(super) covered: bool,
    pub(super) state: NodeState,
    pub(super) more: bool,
    pub(super) promised: Version,
}

pub(super) fn write_answer(
    builder: &mut Builder<'_>,
    fields: &TailFields,
    entries: &[TailEntry],
) -> WIPOffset<UnionWIPOffset> {
    let lsns = Some(write_numbers(builder, entries.iter().map(|entry| entry.lsn.0)));
    let keys = Some(write_keys(builder, entries.iter().map(|entry| &entry.key)));
    let micros = Some(write_numbers(builder, entries.iter().map(|entry| entry.version.micros)));
    let origins = Some(write_numbers(builder, entries.iter().map(|entry| entry.version.origin)));
    let crcs = Some(write_numbers(builder, entries.iter().map(|entry| entry.crc)));
    let promised = write_version(fields.promised);
    let args = TailAnswerArgs {
        incarnation: fields.incarnation.0,
        upto: fields.upto.0,
        step: fields.step.0,
        covered: fields.covered,
        state: fields.state as u8,
        more: fields.more,
        lsns,
        keys,
        micros,
        origins,
        crcs,
        promised: (fields.promised != Version::ZERO).then_some(&promised),
    };
    TailAnswer::create(builder, &args).as_union_value()
}

pub(super) fn read_answer(whole: &Bytes, table: TailAnswer<'_>) -> Result<Response, WireError> {
    let keys = read_keys(whole, table.keys(), TAIL_ENTRIES_MAX)?;
    let (lsns, micros) = (table.lsns(), table.micros());
    let (origins, crcs) = (table.origins(), table.crcs());
    check_columns(keys.len(), &[lsns.len(), micros.len(), origins.len(), crcs.len()])?;
    let versions = micros.iter().zip(origins).map(|(micros, origin)| Version { micros, origin });
    let entries = keys.into_iter().zip(lsns).zip(versions).zip(crcs);
    Ok(Response::Tail {
        incarnation: Incarnation(table.incarnation()),
        upto: Lsn(table.upto()),
        step: StepNumber(table.step()),
        covered: table.covered(),
        state: NodeState::from_wire(table.state()),
        entries: entries
            .map(|(((key, lsn), version), crc)| TailEntry { lsn: Lsn(lsn), key, version, crc })
            .collect(),
        more: table.more(),
        promised: read_version(table.promised()),
    })
}

pub(super) fn write_fetch_request(
    builder: &mut Builder<'_>,
    partition: PartitionId,
    keys: &[StoredKey],
) -> WIPOffset<UnionWIPOffset> {
    let keys = Some(write_keys(builder, keys.iter()));
    FetchRequest::create(builder, &FetchRequestArgs { partition: partition.0, keys })
        .as_union_value()
}

pub(super) fn read_fetch_request(
    whole: &Bytes,
    table: FetchRequest<'_>,
) -> Result<Request, WireError> {
    let keys = read_keys(whole, table.keys(), TAIL_ENTRIES_MAX)?;
    Ok(Request::Fetch { partition: PartitionId(table.partition()), keys })
}

pub(super) fn write_fetch_answer(
    builder: &mut Builder<'_>,
    more: bool,
) -> WIPOffset<UnionWIPOffset> {
    FetchAnswer::create(builder, &FetchAnswerArgs { more }).as_union_value()
}

pub(super) fn read_fetch_answer(table: FetchAnswer<'_>, records: Vec<Record>) -> Response {
    Response::Fetch { records, more: table.more() }
}
