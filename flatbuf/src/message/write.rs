//! Put: a record to a replica.

use flatbuffers::{UnionWIPOffset, WIPOffset};
use tako_types::{Incarnation, PartitionId};

use super::{
    PutOutcome, Request, Response,
    list::{Builder, read_nodes, read_version, write_nodes, write_version},
};
use crate::{
    Record,
    error::WireError,
    generated::rpc::{PutAnswer, PutAnswerArgs, PutRequest, PutRequestArgs},
};

pub(super) fn write_request(
    builder: &mut Builder<'_>,
    partition: PartitionId,
    repair: bool,
    until_micros: u64,
) -> WIPOffset<UnionWIPOffset> {
    let args = PutRequestArgs { partition: partition.0, repair, until_micros };
    PutRequest::create(builder, &args).as_union_value()
}

pub(super) fn read_request(table: PutRequest<'_>, record: Record) -> Request {
    Request::Put {
        partition: PartitionId(table.partition()),
        record,
        repair: table.repair(),
        until_micros: table.until_micros(),
    }
}

pub(super) fn write_answer(
    builder: &mut Builder<'_>,
    outcome: &PutOutcome,
) -> WIPOffset<UnionWIPOffset> {
    match outcome {
        PutOutcome::Accepted { incarnation, voting, known } => {
            let known = (!known.is_empty()).then(|| write_nodes(builder, known));
            let args = PutAnswerArgs {
                accepted: true,
                incarnation: incarnation.0,
                voting: *voting,
                known,
                ..PutAnswerArgs::default()
            };
            PutAnswer::create(builder, &args).as_union_value()
        }
        PutOutcome::Superseded { version } | PutOutcome::Promised { version } => {
            let promised = matches!(outcome, PutOutcome::Promised { .. });
            let version = write_version(*version);
            let superseded = Some(&version);
            let args = PutAnswerArgs { superseded, promised, ..PutAnswerArgs::default() };
            PutAnswer::create(builder, &args).as_union_value()
        }
    }
}

pub(super) fn read_answer(table: PutAnswer<'_>) -> Result<Response, WireError> {
    Ok(Response::Put(if table.accepted() {
        PutOutcome::Accepted {
            incarnation: Incarnation(table.incarnation()),
            voting: table.voting(),
            known: table.known().map_or(Ok(Vec::new()), read_nodes)?,
        }
    } else if table.promised() {
        PutOutcome::Promised { version: read_version(table.superseded()) }
    } else {
        PutOutcome::Superseded { version: read_version(table.superseded()) }
    }))
}
