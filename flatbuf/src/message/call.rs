//! The head of a frame: call fields and one body; which body goes with which attachments.
//!
//! Decoding has two outcomes of failure. The outer error means the frame itself is bad: the
//! connection is closed. The inner error means the frame is sound but an attached record is damaged:
//! this call alone fails.

use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, VerifierOptions, WIPOffset};
use tako_types::limits::{FRAME_HEAD_BYTES_MAX, TAIL_ENTRIES_MAX};

use super::{
    CallHead, ChangeOutcome, PrepareOutcome, Request, Response, conditional, gossip, hello,
    listing, read, scrub, standing, step, tail, tail::TailFields, write,
};
use crate::{
    Record,
    error::{RpcError, WireError},
    frame::Frame,
    generated::rpc::{Body, Head, HeadArgs, root_as_head_with_opts},
};

/// A head holds a handful of tables; shared strings may not blow it up either.
const VERIFIER: VerifierOptions = VerifierOptions {
    max_depth: 8,
    max_tables: 16,
    max_apparent_size: 2 * FRAME_HEAD_BYTES_MAX,
    ignore_missing_null_terminator: false,
};

/// Enough for most heads, so that the builder does not grow.
const HEAD_BYTES_USUAL: usize = 256;

/// Most attachments of one frame.
const ATTACHMENTS_MAX: usize = TAIL_ENTRIES_MAX;

/// A W3C `traceparent` has 55 bytes; later versions may be somewhat longer.
const TRACE_PARENT_BYTES_MAX: usize = 128;

type BodyOffset = (Body, WIPOffset<UnionWIPOffset>);

/// What a call ended with, after its frame was found sound.
pub(crate) type Answer = Result<Response, RpcError>;

/// Makes the frame of a request.
pub(crate) fn encode_request(call: &CallHead, request: &Request) -> Result<Frame, WireError> {
    let attachments = match request {
        Request::Put { record, .. }
        | Request::Accept { record, .. }
        | Request::Change { record, .. } => vec![record.bytes().clone()],
        _ => Vec::new(),
    };
    encode(call, attachments, |builder| write_request(builder, request))
}

/// Makes the frame of an answer to the call `id`.
pub(crate) fn encode_response(id: u64, answer: &Answer) -> Result<Frame, WireError> {
    let attachments = match answer {
        Ok(
            Response::Get { record, .. }
            | Response::Prepare(PrepareOutcome::Promised { record, .. })
            | Response::Change(ChangeOutcome::Done { record, .. }),
        ) => record.iter().map(|it| it.bytes().clone()).collect(),
        Ok(Response::Fetch { records, .. }) => {
            records.iter().map(|record| record.bytes().clone()).collect()
        }
        Ok(Response::Configuration { document }) => document.iter().cloned().collect(),
        _ => Vec::new(),
    };
    let call = CallHead { id, ..CallHead::default() };
    encode(&call, attachments, |builder| match answer {
        Ok(response) => write_response(builder, response),
        Err(error) => (Body::ErrorAnswer, hello::write_error(builder, error)),
    })
}

/// Reads a request; see the module's prologue for the two errors.
pub(crate) fn decode_request(
    frame: &Frame,
) -> Result<(CallHead, Result<Request, WireError>), WireError> {
    let (head, attachments) = decode(frame)?;
    let trace_parent = match head.trace_parent() {
        Some(text) if TRACE_PARENT_BYTES_MAX < text.len() => {
            return Err(WireError::Field { field: "trace_parent" });
        }
        other => other.map(str::to_owned),
    };
    let call = CallHead {
        id: head.id(),
        epoch: head.epoch(),
        deadline_ms: head.deadline_ms(),
        trace_parent,
    };
    let request = only_records(read_request(&frame.head, head, attachments))?;
    Ok((call, request))
}

/// Reads an answer and the id of its call; see the module's prologue for the two errors.
pub(crate) fn decode_response(
    frame: &Frame,
) -> Result<(u64, Result<Answer, WireError>), WireError> {
    let (head, attachments) = decode(frame)?;
    let answer = match head.body_as_error_answer() {
        Some(error) => expect_count(&attachments, 0).map(|()| Err(hello::read_error(error))),
        None => read_response(&frame.head, head, attachments).map(Ok),
    };
    Ok((head.id(), only_records(answer)?))
}

/// Damaged records are the inner error, everything else the outer one.
fn only_records<T>(read: Result<T, WireError>) -> Result<Result<T, WireError>, WireError> {
    match read {
        Err(error @ WireError::Record(_)) => Ok(Err(error)),
        Err(error) => Err(error),
        Ok(read) => Ok(Ok(read)),
    }
}

fn encode(
    call: &CallHead,
    attachments: Vec<Bytes>,
    body: impl FnOnce(&mut FlatBufferBuilder<'_>) -> BodyOffset,
) -> Result<Frame, WireError> {
    let mut builder = FlatBufferBuilder::with_capacity(HEAD_BYTES_USUAL);
    let (body_type, body) = body(&mut builder);
    let trace_parent = call.trace_parent.as_deref().map(|text| builder.create_string(text));
    let attachment_bytes = if attachments.is_empty() {
        None
    } else {
        let lengths: Vec<u32> =
            attachments.iter().map(|it| u32::try_from(it.len()).unwrap_or(u32::MAX)).collect();
        Some(builder.create_vector(&lengths))
    };
    let args = HeadArgs {
        id: call.id,
        epoch: call.epoch,
        deadline_ms: call.deadline_ms,
        trace_parent,
        attachment_bytes,
        body_type,
        body: Some(body),
    };
    let root = Head::create(&mut builder, &args);
    builder.finish(root, None);
    let (buffer, start) = builder.collapse();
    let frame = Frame { head: Bytes::from(buffer).slice(start..), attachments };
    frame.check_lengths()?;
    Ok(frame)
}

/// Verifies a received frame's head and cuts its attachments.
fn decode(frame: &Frame) -> Result<(Head<'_>, Vec<Bytes>), WireError> {
    let head = root_as_head_with_opts(&VERIFIER, &frame.head)
        .map_err(|error| WireError::Malformed { reason: error.to_string() })?;
    let attachments = match head.attachment_bytes() {
        Some(lengths) if ATTACHMENTS_MAX < lengths.len() => {
            let (found, limit) = (lengths.len(), ATTACHMENTS_MAX);
            return Err(WireError::TooLong { what: "the list of attachments", found, limit });
        }
        Some(lengths) => frame.cut(lengths.iter())?,
        None => frame.cut(std::iter::empty())?,
    };
    Ok((head, attachments))
}

fn write_request(builder: &mut FlatBufferBuilder<'_>, request: &Request) -> BodyOffset {
    match request {
        Request::Hello { cluster, node, protocol } => {
            (Body::HelloRequest, hello::write_request(builder, *cluster, node, *protocol))
        }
        Request::Put { partition, record: _, repair, until_micros } => {
            let body = write::write_request(builder, *partition, *repair, *until_micros);
            (Body::PutRequest, body)
        }
        Request::Prepare { partition, key, ballot } => {
            let body = conditional::write_prepare_request(builder, *partition, key, *ballot);
            (Body::PrepareRequest, body)
        }
        Request::Accept { partition, base, record: _ } => {
            (Body::AcceptRequest, conditional::write_accept_request(builder, *partition, *base))
        }
        Request::Change { partition, condition, edit, record: _ } => {
            let body = conditional::write_change_request(builder, *partition, condition, *edit);
            (Body::ChangeRequest, body)
        }
        Request::Get { partition, key } => {
            (Body::GetRequest, read::write_get_request(builder, *partition, key))
        }
        Request::Stat { partition, keys, merged } => {
            (Body::StatRequest, read::write_stat_request(builder, *partition, keys, *merged))
        }
        Request::Tail { partition, after, incarnation, puller, puller_incarnation } => {
            let (from, to) = ((*after, *incarnation), (puller, *puller_incarnation));
            (Body::TailRequest, tail::write_request(builder, *partition, from, to))
        }
        Request::Fetch { partition, keys } => {
            (Body::FetchRequest, tail::write_fetch_request(builder, *partition, keys))
        }
        Request::Gossip(state) => (Body::GossipRequest, gossip::write(builder, state)),
        Request::Step(announcement) => {
            (Body::StepRequest, step::write_request(builder, announcement))
        }
        Request::ForceStep { partition } => {
            (Body::ForceStepRequest, step::write_force_request(builder, *partition))
        }
        Request::Configuration { above } => {
            (Body::ConfigurationRequest, step::write_configuration_request(builder, *above))
        }
        Request::Health => (Body::HealthRequest, hello::write_health_request(builder)),
        Request::Standing { from } => {
            (Body::StandingRequest, standing::write_request(builder, *from))
        }
        Request::Scrub(order) => (Body::ScrubRequest, scrub::write_request(builder, order)),
        Request::Audit { partition, step, held } => {
            (Body::AuditRequest, scrub::write_audit_request(builder, *partition, *step, held))
        }
        Request::List { partition, query } => {
            (Body::ListRequest, listing::write_request(builder, *partition, query))
        }
    }
}

fn read_request(
    whole: &Bytes,
    head: Head<'_>,
    attachments: Vec<Bytes>,
) -> Result<Request, WireError> {
    if let Some(table) = head.body_as_put_request() {
        let record = one_record(attachments)?;
        return Ok(write::read_request(table, record));
    }
    if let Some(table) = head.body_as_accept_request() {
        let record = one_record(attachments)?;
        return Ok(conditional::read_accept_request(table, record));
    }
    if let Some(table) = head.body_as_change_request() {
        let record = one_record(attachments)?;
        return conditional::read_change_request(table, record);
    }
    expect_count(&attachments, 0)?;
    if let Some(table) = head.body_as_get_request() {
        read::read_get_request(whole, table)
    } else if let Some(table) = head.body_as_stat_request() {
        read::read_stat_request(whole, table)
    } else if let Some(table) = head.body_as_prepare_request() {
        conditional::read_prepare_request(whole, table)
    } else if let Some(table) = head.body_as_gossip_request() {
        Ok(Request::Gossip(gossip::read(table)?))
    } else if let Some(table) = head.body_as_tail_request() {
        tail::read_request(table)
    } else if let Some(table) = head.body_as_fetch_request() {
        tail::read_fetch_request(whole, table)
    } else if let Some(table) = head.body_as_step_request() {
        step::read_request(table)
    } else if let Some(table) = head.body_as_force_step_request() {
        Ok(step::read_force_request(table))
    } else if let Some(table) = head.body_as_configuration_request() {
        Ok(step::read_configuration_request(table))
    } else if let Some(table) = head.body_as_hello_request() {
        hello::read_request(table)
    } else if head.body_as_health_request().is_some() {
        Ok(Request::Health)
    } else if let Some(table) = head.body_as_standing_request() {
        Ok(standing::read_request(table))
    } else if let Some(table) = head.body_as_scrub_request() {
        scrub::read_request(table)
    } else if let Some(table) = head.body_as_audit_request() {
        scrub::read_audit_request(table)
    } else if let Some(table) = head.body_as_list_request() {
        listing::read_request(whole, table)
    } else {
        Err(WireError::Body { found: head.body_type().0 })
    }
}

fn write_response(builder: &mut FlatBufferBuilder<'_>, response: &Response) -> BodyOffset {
    match response {
        Response::Hello { cluster, node, incarnation } => {
            (Body::HelloAnswer, hello::write_answer(builder, *cluster, node, *incarnation))
        }
        Response::Put(outcome) => (Body::PutAnswer, write::write_answer(builder, outcome)),
        Response::Prepare(outcome) => {
            (Body::PrepareAnswer, conditional::write_prepare_answer(builder, outcome))
        }
        Response::Accept(outcome) => {
            (Body::AcceptAnswer, conditional::write_accept_answer(builder, outcome))
        }
        Response::Change(outcome) => {
            (Body::ChangeAnswer, conditional::write_change_answer(builder, outcome))
        }
        Response::Get { record: _, step, covered, voting } => {
            (Body::GetAnswer, read::write_get_answer(builder, *step, *covered, *voting))
        }
        Response::Stat { answers, step, voting } => {
            (Body::StatAnswer, read::write_stat_answer(builder, answers, *step, *voting))
        }
        Response::Tail { incarnation, upto, step, covered, state, entries, more, promised } => {
            let fields = TailFields {
                incarnation: *incarnation,
                upto: *upto,
                step: *step,
                covered: *covered,
                state: *state,
                more: *more,
                promised: *promised,
            };
            (Body::TailAnswer, tail::write_answer(builder, &fields, entries))
        }
        Response::Fetch { records: _, more } => {
            (Body::FetchAnswer, tail::write_fetch_answer(builder, *more))
        }
        Response::Gossip(state) => (Body::GossipAnswer, gossip::write(builder, state)),
        Response::Step { step } => (Body::StepAnswer, step::write_answer(builder, *step)),
        Response::ForceStep { step } => {
            (Body::ForceStepAnswer, step::write_force_answer(builder, *step))
        }
        Response::Configuration { document: _ } => {
            (Body::ConfigurationAnswer, step::write_configuration_answer(builder))
        }
        Response::Health { state } => {
            (Body::HealthAnswer, hello::write_health_answer(builder, *state))
        }
        Response::Standing(standing) => {
            (Body::StandingAnswer, standing::write_answer(builder, standing))
        }
        Response::Scrub(report) => (Body::ScrubAnswer, scrub::write_answer(builder, report)),
        Response::List(page) => (Body::ListAnswer, listing::write_answer(builder, page)),
        Response::Audit(audit) => (Body::AuditAnswer, scrub::write_audit_answer(builder, *audit)),
    }
}

fn read_response(
    whole: &Bytes,
    head: Head<'_>,
    mut attachments: Vec<Bytes>,
) -> Result<Response, WireError> {
    if let Some(table) = head.body_as_get_answer() {
        let record = if attachments.is_empty() { None } else { Some(one_record(attachments)?) };
        return Ok(read::read_get_answer(table, record));
    }
    if let Some(table) = head.body_as_prepare_answer() {
        let record = if attachments.is_empty() { None } else { Some(one_record(attachments)?) };
        return conditional::read_prepare_answer(table, record);
    }
    if let Some(table) = head.body_as_change_answer() {
        let record = if attachments.is_empty() { None } else { Some(one_record(attachments)?) };
        return conditional::read_change_answer(table, record);
    }
    if let Some(table) = head.body_as_fetch_answer() {
        let records: Result<Vec<_>, _> = attachments.into_iter().map(Record::decode).collect();
        return Ok(tail::read_fetch_answer(table, records?));
    }
    if head.body_as_configuration_answer().is_some() {
        let document = attachments.pop();
        expect_count(&attachments, 0)?;
        return Ok(Response::Configuration { document });
    }
    expect_count(&attachments, 0)?;
    if let Some(table) = head.body_as_put_answer() {
        write::read_answer(table)
    } else if let Some(table) = head.body_as_accept_answer() {
        conditional::read_accept_answer(table)
    } else if let Some(table) = head.body_as_stat_answer() {
        read::read_stat_answer(table)
    } else if let Some(table) = head.body_as_gossip_answer() {
        Ok(Response::Gossip(gossip::read(table)?))
    } else if let Some(table) = head.body_as_tail_answer() {
        tail::read_answer(whole, table)
    } else if let Some(table) = head.body_as_step_answer() {
        Ok(step::read_answer(table))
    } else if let Some(table) = head.body_as_force_step_answer() {
        Ok(step::read_force_answer(table))
    } else if let Some(table) = head.body_as_hello_answer() {
        hello::read_answer(table)
    } else if let Some(table) = head.body_as_health_answer() {
        Ok(hello::read_health_answer(table))
    } else if let Some(table) = head.body_as_standing_answer() {
        standing::read_answer(table)
    } else if let Some(table) = head.body_as_scrub_answer() {
        scrub::read_answer(table)
    } else if let Some(table) = head.body_as_audit_answer() {
        Ok(scrub::read_audit_answer(table))
    } else if let Some(table) = head.body_as_list_answer() {
        listing::read_answer(whole, table)
    } else {
        Err(WireError::Body { found: head.body_type().0 })
    }
}

fn one_record(mut attachments: Vec<Bytes>) -> Result<Record, WireError> {
    expect_count(&attachments, 1)?;
    let bytes = attachments.pop().unwrap_or_default();
    Ok(Record::decode(bytes)?)
}

fn expect_count(attachments: &[Bytes], count: usize) -> Result<(), WireError> {
    if attachments.len() == count {
        Ok(())
    } else {
        Err(WireError::Lengths { what: "number of attachments" })
    }
}
