//! Gossip: what a node is and holds; one message for both directions.

use flatbuffers::{UnionWIPOffset, WIPOffset};
use tako_types::{
    Epoch, Incarnation, Lsn, PartitionId, StepNumber, Version, limits::PARTITIONS_MAX,
};

use super::{
    GossipState, NodeState, PartitionGossip,
    list::{
        Builder, check_columns, read_node, read_nodes, write_bytes, write_nodes, write_numbers,
    },
};
use crate::{
    error::WireError,
    generated::rpc::{GossipMessage, GossipMessageArgs},
};

const MARK_COVERED: u8 = 1;
const MARK_SNAPSHOTTER: u8 = 2;

pub(super) fn write(builder: &mut Builder<'_>, state: &GossipState) -> WIPOffset<UnionWIPOffset> {
    let rows = state.partitions.iter();
    let marks: Vec<u8> = rows.clone().map(marks).collect();
    let node = builder.create_string(state.node.as_str());
    let epoch_sha256 = write_bytes(builder, &state.epoch.sha256);
    let known = write_nodes(builder, &state.known);
    let partitions = write_numbers(builder, rows.clone().map(|row| row.partition.0));
    let newest_micros = write_numbers(builder, rows.clone().map(|row| row.newest.micros));
    let newest_origins = write_numbers(builder, rows.clone().map(|row| row.newest.origin));
    let last_lsns = write_numbers(builder, rows.clone().map(|row| row.last_lsn.0));
    let steps = write_numbers(builder, rows.map(|row| row.step.0));
    let marks = write_bytes(builder, &marks);
    let args = GossipMessageArgs {
        node: Some(node),
        incarnation: state.incarnation.0,
        state: state.state as u8,
        clock_micros: state.clock_micros,
        epoch_number: state.epoch.number,
        epoch_sha256: Some(epoch_sha256),
        load: state.load,
        known: Some(known),
        partitions: Some(partitions),
        newest_micros: Some(newest_micros),
        newest_origins: Some(newest_origins),
        last_lsns: Some(last_lsns),
        steps: Some(steps),
        marks: Some(marks),
    };
    GossipMessage::create(builder, &args).as_union_value()
}

pub(super) fn read(table: GossipMessage<'_>) -> Result<GossipState, WireError> {
    let sha256 = <[u8; 32]>::try_from(table.epoch_sha256().bytes())
        .map_err(|_| WireError::Field { field: "epoch_sha256" })?;
    Ok(GossipState {
        node: read_node(table.node())?,
        incarnation: Incarnation(table.incarnation()),
        state: NodeState::from_wire(table.state()),
        clock_micros: table.clock_micros(),
        epoch: Epoch { number: table.epoch_number(), sha256 },
        load: table.load(),
        known: read_nodes(table.known())?,
        partitions: read_partitions(table)?,
    })
}

fn marks(row: &PartitionGossip) -> u8 {
    u8::from(row.covered) * MARK_COVERED + u8::from(row.snapshotter) * MARK_SNAPSHOTTER
}

fn read_partitions(table: GossipMessage<'_>) -> Result<Vec<PartitionGossip>, WireError> {
    let ids = table.partitions();
    let (micros, origins) = (table.newest_micros(), table.newest_origins());
    let (lsns, steps, marks) = (table.last_lsns(), table.steps(), table.marks());
    let limit = PARTITIONS_MAX as usize;
    if limit < ids.len() {
        return Err(WireError::TooLong { what: "a list of partitions", found: ids.len(), limit });
    }
    let columns = [micros.len(), origins.len(), lsns.len(), steps.len(), marks.len()];
    check_columns(ids.len(), &columns)?;
    Ok((0..ids.len())
        .map(|row| PartitionGossip {
            partition: PartitionId(ids.get(row)),
            newest: Version { micros: micros.get(row), origin: origins.get(row) },
            last_lsn: Lsn(lsns.get(row)),
            step: StepNumber(steps.get(row)),
            covered: marks.get(row) & MARK_COVERED != 0,
            snapshotter: marks.get(row) & MARK_SNAPSHOTTER != 0,
        })
        .collect())
}
