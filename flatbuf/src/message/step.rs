//! Step, ForceStep and Configuration: what the snapshotter and the coordinator tell.

use flatbuffers::{UnionWIPOffset, WIPOffset};
use tako_types::{PartitionId, StepNumber};

use super::{
    Request, Response, StepAnnouncement,
    list::{
        Builder, read_coverage, read_id, read_version, write_coverage, write_id, write_version,
    },
};
use crate::{
    error::WireError,
    generated::rpc::{
        ConfigurationAnswer, ConfigurationAnswerArgs, ConfigurationRequest,
        ConfigurationRequestArgs, ForceStepAnswer, ForceStepAnswerArgs, ForceStepRequest,
        ForceStepRequestArgs, StepAnswer, StepAnswerArgs, StepRequest, StepRequestArgs,
    },
};

pub(super) fn write_request(
    builder: &mut Builder<'_>,
    step: &StepAnnouncement,
) -> WIPOffset<UnionWIPOffset> {
    let coverage = Some(write_coverage(builder, &step.coverage));
    let missed = step.missed.as_deref().map(|hashes| builder.create_vector(hashes));
    let args = StepRequestArgs {
        partition: step.partition.0,
        step: step.step.0,
        manifest: step.manifest,
        checkpoint: Some(&write_id(step.checkpoint)),
        highest: Some(&write_version(step.highest)),
        coverage,
        previous: step.previous.0,
        missed,
    };
    StepRequest::create(builder, &args).as_union_value()
}

pub(super) fn read_request(table: StepRequest<'_>) -> Result<Request, WireError> {
    Ok(Request::Step(StepAnnouncement {
        partition: PartitionId(table.partition()),
        step: StepNumber(table.step()),
        manifest: table.manifest(),
        checkpoint: table.checkpoint().map_or(0, read_id),
        highest: read_version(table.highest()),
        coverage: read_coverage(table.coverage())?,
        previous: StepNumber(table.previous()),
        missed: table.missed().map(|hashes| hashes.iter().collect()),
    }))
}

pub(super) fn write_answer(
    builder: &mut Builder<'_>,
    step: StepNumber,
) -> WIPOffset<UnionWIPOffset> {
    StepAnswer::create(builder, &StepAnswerArgs { step: step.0 }).as_union_value()
}

pub(super) fn read_answer(table: StepAnswer<'_>) -> Response {
    Response::Step { step: StepNumber(table.step()) }
}

pub(super) fn write_force_request(
    builder: &mut Builder<'_>,
    partition: PartitionId,
) -> WIPOffset<UnionWIPOffset> {
    ForceStepRequest::create(builder, &ForceStepRequestArgs { partition: partition.0 })
        .as_union_value()
}

pub(super) fn read_force_request(table: ForceStepRequest<'_>) -> Request {
    Request::ForceStep { partition: PartitionId(table.partition()) }
}

pub(super) fn write_force_answer(
    builder: &mut Builder<'_>,
    step: StepNumber,
) -> WIPOffset<UnionWIPOffset> {
    ForceStepAnswer::create(builder, &ForceStepAnswerArgs { step: step.0 }).as_union_value()
}

pub(super) fn read_force_answer(table: ForceStepAnswer<'_>) -> Response {
    Response::ForceStep { step: StepNumber(table.step()) }
}

pub(super) fn write_configuration_request(
    builder: &mut Builder<'_>,
    above: u64,
) -> WIPOffset<UnionWIPOffset> {
    ConfigurationRequest::create(builder, &ConfigurationRequestArgs { above }).as_union_value()
}

pub(super) fn read_configuration_request(table: ConfigurationRequest<'_>) -> Request {
    Request::Configuration { above: table.above() }
}

pub(super) fn write_configuration_answer(builder: &mut Builder<'_>) -> WIPOffset<UnionWIPOffset> {
    ConfigurationAnswer::create(builder, &ConfigurationAnswerArgs {}).as_union_value()
}
