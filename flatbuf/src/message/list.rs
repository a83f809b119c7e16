//! Lists and small values that several families share.
//!
//! Invariant: a list is read only after all its columns were found equally long and within their
//! bound; memory taken is bounded by the head's length.

use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, Vector, WIPOffset};
use tako_types::{Incarnation, Lsn, NodeId, StoredKey, Version};

use crate::{
    error::WireError,
    generated::rpc::{Id128, KeyList, KeyListArgs, NodeList, NodeListArgs, VersionPair},
};

/// Longest node name on the wire, in bytes.
const NODE_NAME_BYTES_MAX: usize = 255;

/// Longest list of nodes.
const NODES_MAX: usize = 65_536;

pub(super) type Builder<'a> = FlatBufferBuilder<'a>;

/// Bytes as a FlatBuffers vector, copied in one piece.
pub(super) fn write_bytes<'a>(
    builder: &mut Builder<'a>,
    bytes: &[u8],
) -> WIPOffset<Vector<'a, u8>> {
    WIPOffset::new(builder.create_byte_string(bytes).value())
}

/// Numbers as a vector.
pub(super) fn write_numbers<'a, T: flatbuffers::Push<Output = T> + Copy>(
    builder: &mut Builder<'a>,
    numbers: impl Iterator<Item = T>,
) -> WIPOffset<Vector<'a, T>> {
    let numbers: Vec<T> = numbers.collect();
    builder.create_vector(&numbers)
}

pub(super) fn write_keys<'a, 'k>(
    builder: &mut Builder<'a>,
    keys: impl Iterator<Item = &'k StoredKey> + Clone,
) -> WIPOffset<KeyList<'a>> {
    write_names(builder, keys.map(StoredKey::as_bytes))
}

/// Keys of either kind, stored or as clients name them.
pub(super) fn write_names<'a, 'k>(
    builder: &mut Builder<'a>,
    keys: impl Iterator<Item = &'k Bytes> + Clone,
) -> WIPOffset<KeyList<'a>> {
    let mut blob = Vec::with_capacity(keys.clone().map(Bytes::len).sum());
    let mut ends = Vec::with_capacity(keys.size_hint().0);
    for key in keys {
        blob.extend_from_slice(key);
        ends.push(u32::try_from(blob.len()).unwrap_or(u32::MAX));
    }
    let args = KeyListArgs {
        blob: Some(write_bytes(builder, &blob)),
        ends: Some(builder.create_vector(&ends)),
    };
    KeyList::create(builder, &args)
}

/// Keys as slices of `whole`, the frame they came in.
pub(super) fn read_keys(
    whole: &Bytes,
    list: KeyList<'_>,
    limit: usize,
) -> Result<Vec<StoredKey>, WireError> {
    read_names(whole, list, limit, read_key)
}

/// Keys of either kind, each as `read` has it.
pub(super) fn read_names<T>(
    whole: &Bytes,
    list: KeyList<'_>,
    limit: usize,
    read: impl Fn(Bytes) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let ends = list.ends();
    if ends.len() > limit {
        return Err(WireError::TooLong { what: "a list of keys", found: ends.len(), limit });
    }
    let blob = slice_of(whole, list.blob().bytes());
    let mut start = 0;
    let mut keys = Vec::with_capacity(ends.len());
    for end in ends {
        let end = end as usize;
        if end < start || blob.len() < end {
            return Err(WireError::Field { field: "ends" });
        }
        keys.push(read(blob.slice(start..end))?);
        start = end;
    }
    if start == blob.len() { Ok(keys) } else { Err(WireError::Field { field: "blob" }) }
}

pub(super) fn read_key(bytes: Bytes) -> Result<StoredKey, WireError> {
    StoredKey::from_bytes(bytes).ok_or(WireError::Field { field: "key" })
}

pub(super) fn write_nodes<'a>(
    builder: &mut Builder<'a>,
    nodes: &[(NodeId, Incarnation)],
) -> WIPOffset<NodeList<'a>> {
    let names: Vec<_> = nodes.iter().map(|(id, _)| builder.create_string(id.as_str())).collect();
    let args = NodeListArgs {
        names: Some(builder.create_vector(&names)),
        incarnations: Some(write_numbers(builder, nodes.iter().map(|node| node.1.0))),
        lsns: None,
    };
    NodeList::create(builder, &args)
}

pub(super) fn read_nodes(list: NodeList<'_>) -> Result<Vec<(NodeId, Incarnation)>, WireError> {
    let (names, incarnations) = (list.names(), list.incarnations());
    check_nodes(names.len())?;
    check_columns(names.len(), &[incarnations.len()])?;
    names
        .iter()
        .zip(incarnations)
        .map(|(name, incarnation)| Ok((read_node(name)?, Incarnation(incarnation))))
        .collect()
}

pub(super) fn write_coverage<'a>(
    builder: &mut Builder<'a>,
    coverage: &[(NodeId, Incarnation, Lsn)],
) -> WIPOffset<NodeList<'a>> {
    let names: Vec<_> =
        coverage.iter().map(|(id, ..)| builder.create_string(id.as_str())).collect();
    let args = NodeListArgs {
        names: Some(builder.create_vector(&names)),
        incarnations: Some(write_numbers(builder, coverage.iter().map(|node| node.1.0))),
        lsns: Some(write_numbers(builder, coverage.iter().map(|node| node.2.0))),
    };
    NodeList::create(builder, &args)
}

pub(super) fn read_coverage(
    list: NodeList<'_>,
) -> Result<Vec<(NodeId, Incarnation, Lsn)>, WireError> {
    let lsns = list.lsns().ok_or(WireError::Field { field: "lsns" })?;
    check_columns(list.names().len(), &[lsns.len()])?;
    let nodes = read_nodes(list)?;
    Ok(nodes.into_iter().zip(lsns).map(|((id, inc), lsn)| (id, inc, Lsn(lsn))).collect())
}

fn check_nodes(found: usize) -> Result<(), WireError> {
    if found <= NODES_MAX {
        Ok(())
    } else {
        Err(WireError::TooLong { what: "a list of nodes", found, limit: NODES_MAX })
    }
}

/// A node's name.
pub(super) fn read_node(name: &str) -> Result<NodeId, WireError> {
    if name.is_empty() || NODE_NAME_BYTES_MAX < name.len() {
        return Err(WireError::Field { field: "node" });
    }
    Ok(NodeId::new(name))
}

/// All columns of a list must have `rows` entries.
pub(super) fn check_columns(rows: usize, columns: &[usize]) -> Result<(), WireError> {
    if columns.iter().all(|column| *column == rows) {
        Ok(())
    } else {
        Err(WireError::Field { field: "columns" })
    }
}

pub(super) fn write_version(version: Version) -> VersionPair {
    VersionPair::new(version.micros, version.origin)
}

pub(super) fn read_version(pair: Option<&VersionPair>) -> Version {
    pair.map_or(Version::ZERO, |pair| Version { micros: pair.micros(), origin: pair.origin() })
}

pub(super) fn write_id(id: u128) -> Id128 {
    Id128::new((id >> 64) as u64, id as u64)
}

pub(super) fn read_id(id: &Id128) -> u128 {
    u128::from(id.high()) << 64 | u128::from(id.low())
}

/// `part`, which lies within `whole`, as a slice that shares its memory.
pub(super) fn slice_of(whole: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() { Bytes::new() } else { whole.slice_ref(part) }
}
