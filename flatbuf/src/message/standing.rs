//! Standing: what a migration's driver asks of each node. One row per partition; coverage in flat
//! columns that name nodes by their place in one list.
//!
//! Invariant: what is read takes no more memory than a small multiple of the head.

use flatbuffers::{UnionWIPOffset, WIPOffset};
use tako_types::{
    ClusterId, Incarnation, Lsn, NodeId, PartitionId, StepNumber, limits::PARTITIONS_MAX,
};

use super::{
    NodeState, PartitionStanding, Request, Response, Standing,
    list::{Builder, check_columns, read_id, read_node, write_bytes, write_id, write_numbers},
};
use crate::{
    error::WireError,
    generated::rpc::{StandingAnswer, StandingAnswerArgs, StandingRequest, StandingRequestArgs},
};

const MARK_HOLDER: u8 = 1;
const MARK_NOTED: u8 = 2;
const MARK_RECOVERED: u8 = 4;
const MARK_VOTING: u8 = 8;

pub(super) fn write_request(
    builder: &mut Builder<'_>,
    from: PartitionId,
) -> WIPOffset<UnionWIPOffset> {
    StandingRequest::create(builder, &StandingRequestArgs { from: from.0 }).as_union_value()
}

pub(super) fn read_request(table: StandingRequest<'_>) -> Request {
    Request::Standing { from: PartitionId(table.from()) }
}

pub(super) fn write_answer(
    builder: &mut Builder<'_>,
    standing: &Standing,
) -> WIPOffset<UnionWIPOffset> {
    let rows = standing.partitions.iter();
    let covered = rows.clone().flat_map(|row| row.coverage.iter());
    let mut nodes: Vec<&NodeId> = covered.clone().map(|(node, ..)| node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let place = |node: &NodeId| nodes.binary_search(&node).unwrap_or_default();
    let mut end = 0;
    let ends: Vec<u32> = rows
        .clone()
        .map(|row| {
            end += row.coverage.len();
            u32::try_from(end).unwrap_or(u32::MAX)
        })
        .collect();
    let marks: Vec<u8> = rows.clone().map(marks).collect();
    let noted = |row: &PartitionStanding| row.adopted_lsn.unwrap_or_default().0;
    let partitions = write_numbers(builder, rows.clone().map(|row| row.partition.0));
    let adopted_lsns = write_numbers(builder, rows.clone().map(noted));
    let last_lsns = write_numbers(builder, rows.clone().map(|row| row.last_lsn.0));
    let steps = write_numbers(builder, rows.clone().map(|row| row.step.0));
    let uncovered = write_numbers(builder, rows.map(|row| row.uncovered));
    let marks = write_bytes(builder, &marks);
    let covered_ends = builder.create_vector(&ends);
    let named: Vec<_> = nodes.iter().map(|node| builder.create_string(node.as_str())).collect();
    let named = builder.create_vector(&named);
    let places = covered.clone().map(|(node, ..)| u32::try_from(place(node)).unwrap_or(u32::MAX));
    let covered_nodes = write_numbers(builder, places);
    let covered_incarnations = write_numbers(builder, covered.clone().map(|row| row.1.0));
    let covered_lsns = write_numbers(builder, covered.map(|row| row.2.0));
    let cluster = standing.cluster.map(|id| write_id(id.0));
    let args = StandingAnswerArgs {
        epoch: standing.epoch,
        noted: standing.noted,
        state: standing.state as u8,
        incarnation: standing.incarnation.0,
        partitions: Some(partitions),
        adopted_lsns: Some(adopted_lsns),
        last_lsns: Some(last_lsns),
        steps: Some(steps),
        uncovered: Some(uncovered),
        marks: Some(marks),
        covered_ends: Some(covered_ends),
        nodes: Some(named),
        covered_nodes: Some(covered_nodes),
        covered_incarnations: Some(covered_incarnations),
        covered_lsns: Some(covered_lsns),
        more: standing.more,
        cluster: cluster.as_ref(),
    };
    StandingAnswer::create(builder, &args).as_union_value()
}

fn marks(row: &PartitionStanding) -> u8 {
    u8::from(row.holder) * MARK_HOLDER
        + u8::from(row.adopted_lsn.is_some()) * MARK_NOTED
        + u8::from(row.recovered) * MARK_RECOVERED
        + u8::from(row.voting) * MARK_VOTING
}

pub(super) fn read_answer(table: StandingAnswer<'_>) -> Result<Response, WireError> {
    let ids = table.partitions();
    let limit = PARTITIONS_MAX as usize;
    if limit < ids.len() {
        return Err(WireError::TooLong { what: "a list of partitions", found: ids.len(), limit });
    }
    let (adopted, last, steps) = (table.adopted_lsns(), table.last_lsns(), table.steps());
    let (uncovered, marks, ends) = (table.uncovered(), table.marks(), table.covered_ends());
    let columns =
        [adopted.len(), last.len(), steps.len(), uncovered.len(), marks.len(), ends.len()];
    check_columns(ids.len(), &columns)?;
    let names = table.nodes();
    let nodes = names.iter().map(read_node).collect::<Result<Vec<_>, _>>()?;
    let (places, lsns) = (table.covered_nodes(), table.covered_lsns());
    let incarnations = table.covered_incarnations();
    check_columns(places.len(), &[lsns.len(), incarnations.len()])?;
    let mut partitions = Vec::with_capacity(ids.len());
    let mut start = 0;
    for row in 0..ids.len() {
        let end = ends.get(row) as usize;
        if end < start || places.len() < end {
            return Err(WireError::Field { field: "covered_ends" });
        }
        let coverage = (start..end)
            .map(|at| {
                let node = nodes.get(places.get(at) as usize);
                let node = node.ok_or(WireError::Field { field: "covered_nodes" })?.clone();
                Ok((node, Incarnation(incarnations.get(at)), Lsn(lsns.get(at))))
            })
            .collect::<Result<_, WireError>>()?;
        start = end;
        let marked = |mark: u8| marks.get(row) & mark != 0;
        partitions.push(PartitionStanding {
            partition: PartitionId(ids.get(row)),
            holder: marked(MARK_HOLDER),
            adopted_lsn: marked(MARK_NOTED).then(|| Lsn(adopted.get(row))),
            last_lsn: Lsn(last.get(row)),
            step: StepNumber(steps.get(row)),
            uncovered: uncovered.get(row),
            recovered: marked(MARK_RECOVERED),
            voting: marked(MARK_VOTING),
            coverage,
        });
    }
    if start != places.len() {
        return Err(WireError::Field { field: "covered_ends" });
    }
    Ok(Response::Standing(Standing {
        cluster: table.cluster().map(|id| ClusterId(read_id(id))),
        epoch: table.epoch(),
        noted: table.noted(),
        state: NodeState::from_wire(table.state()),
        incarnation: Incarnation(table.incarnation()),
        partitions,
        more: table.more(),
    }))
}
