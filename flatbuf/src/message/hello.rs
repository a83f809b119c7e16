//! Hello, Health and errors: messages about the connection and the node itself.

use flatbuffers::{UnionWIPOffset, WIPOffset};
use tako_types::{ClusterId, ErrorKind, Incarnation, NodeId};

use super::{
    NodeState, Request, Response,
    list::{Builder, read_id, read_node, write_id},
};
use crate::{
    error::{RpcError, WireError},
    generated::rpc::{
        ErrorAnswer, ErrorAnswerArgs, HealthAnswer, HealthAnswerArgs, HealthRequest,
        HealthRequestArgs, HelloAnswer, HelloAnswerArgs, HelloRequest, HelloRequestArgs,
    },
};

/// Longest error text on the wire, in bytes.
const ERROR_BYTES_MAX: usize = 1_024;

pub(super) fn write_request(
    builder: &mut Builder<'_>,
    cluster: Option<ClusterId>,
    node: &NodeId,
    protocol: u32,
) -> WIPOffset<UnionWIPOffset> {
    let cluster = cluster.map(|id| write_id(id.0));
    let node = Some(builder.create_string(node.as_str()));
    let args = HelloRequestArgs { cluster: cluster.as_ref(), node, protocol };
    HelloRequest::create(builder, &args).as_union_value()
}

pub(super) fn read_request(table: HelloRequest<'_>) -> Result<Request, WireError> {
    Ok(Request::Hello {
        cluster: table.cluster().map(|id| ClusterId(read_id(id))),
        node: read_node(table.node())?,
        protocol: table.protocol(),
    })
}

pub(super) fn write_answer(
    builder: &mut Builder<'_>,
    cluster: Option<ClusterId>,
    node: &NodeId,
    incarnation: Incarnation,
) -> WIPOffset<UnionWIPOffset> {
    let cluster = cluster.map(|id| write_id(id.0));
    let node = Some(builder.create_string(node.as_str()));
    let args = HelloAnswerArgs { cluster: cluster.as_ref(), node, incarnation: incarnation.0 };
    HelloAnswer::create(builder, &args).as_union_value()
}

pub(super) fn read_answer(table: HelloAnswer<'_>) -> Result<Response, WireError> {
    Ok(Response::Hello {
        cluster: table.cluster().map(|id| ClusterId(read_id(id))),
        node: read_node(table.node())?,
        incarnation: Incarnation(table.incarnation()),
    })
}

pub(super) fn write_health_request(builder: &mut Builder<'_>) -> WIPOffset<UnionWIPOffset> {
    HealthRequest::create(builder, &HealthRequestArgs {}).as_union_value()
}

pub(super) fn write_health_answer(
    builder: &mut Builder<'_>,
    state: NodeState,
) -> WIPOffset<UnionWIPOffset> {
    HealthAnswer::create(builder, &HealthAnswerArgs { state: state as u8 }).as_union_value()
}

pub(super) fn read_health_answer(table: HealthAnswer<'_>) -> Response {
    Response::Health { state: NodeState::from_wire(table.state()) }
}

pub(super) fn write_error(
    builder: &mut Builder<'_>,
    error: &RpcError,
) -> WIPOffset<UnionWIPOffset> {
    let end = error.message.floor_char_boundary(ERROR_BYTES_MAX);
    let message = Some(builder.create_string(&error.message[..end]));
    let args = ErrorAnswerArgs { kind: error.kind.to_wire(), message, detail: error.detail };
    ErrorAnswer::create(builder, &args).as_union_value()
}

pub(super) fn read_error(table: ErrorAnswer<'_>) -> RpcError {
    let message = table.message();
    let end = message.floor_char_boundary(ERROR_BYTES_MAX);
    RpcError {
        kind: ErrorKind::from_wire(table.kind()),
        message: message[..end].to_owned(),
        detail: table.detail(),
    }
}
