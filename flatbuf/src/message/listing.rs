//! List: what there is of a partition, in the order of clients' keys.

use bytes::Bytes;
use flatbuffers::{UnionWIPOffset, WIPOffset};
use tako_types::{
    PartitionId, RecordStat, StepNumber, Version,
    limits::{KEY_BYTES_MAX, LIST_ENTRIES_MAX},
};

use super::{
    Listing, ListingQuery, Request, Response,
    list::{Builder, check_columns, read_names, slice_of, write_bytes, write_names, write_numbers},
};
use crate::{
    error::WireError,
    generated::rpc::{ListAnswer, ListAnswerArgs, ListRequest, ListRequestArgs},
};

pub(super) fn write_request(
    builder: &mut Builder<'_>,
    partition: PartitionId,
    query: &ListingQuery,
) -> WIPOffset<UnionWIPOffset> {
    let prefix = Some(write_bytes(builder, &query.prefix));
    let after = query.after.as_ref().map(|after| write_bytes(builder, after));
    let args = ListRequestArgs {
        partition: partition.0,
        namespace: query.namespace,
        prefix,
        after,
        limit: query.limit,
    };
    ListRequest::create(builder, &args).as_union_value()
}

pub(super) fn read_request(whole: &Bytes, table: ListRequest<'_>) -> Result<Request, WireError> {
    let query = ListingQuery {
        namespace: table.namespace(),
        prefix: short(slice_of(whole, table.prefix().bytes()))?,
        after: table.after().map(|after| short(slice_of(whole, after.bytes()))).transpose()?,
        limit: table.limit(),
    };
    Ok(Request::List { partition: PartitionId(table.partition()), query })
}

pub(super) fn write_answer(
    builder: &mut Builder<'_>,
    listing: &Listing,
) -> WIPOffset<UnionWIPOffset> {
    let keys = Some(write_names(builder, listing.entries.iter().map(|(key, _)| key)));
    let stats = listing.entries.iter().map(|(_, stat)| stat);
    let args = ListAnswerArgs {
        keys,
        micros: Some(write_numbers(builder, stats.clone().map(|stat| stat.version.micros))),
        origins: Some(write_numbers(builder, stats.clone().map(|stat| stat.version.origin))),
        expires_at_micros: Some(write_numbers(
            builder,
            stats.clone().map(|stat| stat.expires_at_micros),
        )),
        value_bytes: Some(write_numbers(builder, stats.map(|stat| stat.value_bytes))),
        upto: listing.upto.as_ref().map(|upto| write_bytes(builder, upto)),
        step: listing.step.0,
        voting: listing.voting,
    };
    ListAnswer::create(builder, &args).as_union_value()
}

pub(super) fn read_answer(whole: &Bytes, table: ListAnswer<'_>) -> Result<Response, WireError> {
    let keys = read_names(whole, table.keys(), LIST_ENTRIES_MAX, short)?;
    let (micros, origins) = (table.micros(), table.origins());
    let (expires, lengths) = (table.expires_at_micros(), table.value_bytes());
    let columns = [micros.len(), origins.len(), expires.len(), lengths.len()];
    check_columns(keys.len(), &columns)?;
    let stats = micros.iter().zip(origins).zip(expires.iter().zip(lengths));
    let stats = stats.map(|((micros, origin), (expires_at_micros, value_bytes))| RecordStat {
        version: Version { micros, origin },
        is_tombstone: false,
        expires_at_micros,
        value_bytes,
    });
    Ok(Response::List(Listing {
        entries: keys.into_iter().zip(stats).collect(),
        upto: table.upto().map(|upto| short(slice_of(whole, upto.bytes()))).transpose()?,
        step: StepNumber(table.step()),
        voting: table.voting(),
    }))
}

/// A client's key or a part of one.
fn short(bytes: Bytes) -> Result<Bytes, WireError> {
    match bytes.len() <= KEY_BYTES_MAX {
        true => Ok(bytes),
        false => {
            Err(WireError::TooLong { what: "a key", found: bytes.len(), limit: KEY_BYTES_MAX })
        }
    }
}
