//! Scrub and Audit: what is read again to see whether it is still what was written.
//!
//! Invariant: what is read takes no more memory than a small multiple of the head: texts are few
//! and short, whatever the head says.

use flatbuffers::{UnionWIPOffset, WIPOffset};
use tako_types::{
    PartitionId, StepNumber, Version,
    limits::{PARTITIONS_MAX, TAIL_ENTRIES_MAX},
};

use super::{
    AuditAnswer, JournalScrub, OrphanOrder, OrphanReport, PartitionScrub, Request, Response,
    ScrubOrder, ScrubReport,
    list::{Builder, check_columns, write_bytes, write_numbers},
};
use crate::{
    error::WireError,
    generated::rpc::{
        AuditAnswer as AuditAnswerTable, AuditAnswerArgs, AuditRequest, AuditRequestArgs,
        ScrubAnswer, ScrubAnswerArgs, ScrubRequest, ScrubRequestArgs,
    },
};

/// Longest finding, in bytes.
pub const TEXT_BYTES_MAX: usize = 200;
/// Most texts of one list.
const TEXTS_MAX: usize = 256;

const MARK_RUNNING: u8 = 1;
const MARK_WHOLE: u8 = 2;

type Texts<'a> = WIPOffset<flatbuffers::Vector<'a, flatbuffers::ForwardsUOffset<&'a str>>>;

pub(super) fn write_request(
    builder: &mut Builder<'_>,
    order: &ScrubOrder,
) -> WIPOffset<UnionWIPOffset> {
    let partitions = write_numbers(builder, order.partitions.iter().map(|p| p.0));
    let args = ScrubRequestArgs {
        start: order.start,
        partitions: Some(partitions),
        journal: order.journal,
        orphans: order.orphans as u8,
    };
    ScrubRequest::create(builder, &args).as_union_value()
}

pub(super) fn read_request(table: ScrubRequest<'_>) -> Result<Request, WireError> {
    Ok(Request::Scrub(ScrubOrder {
        start: table.start(),
        partitions: read_partitions(table.partitions())?,
        journal: table.journal(),
        orphans: OrphanOrder::from_wire(table.orphans()),
    }))
}

fn read_partitions(ids: flatbuffers::Vector<'_, u16>) -> Result<Vec<PartitionId>, WireError> {
    let limit = PARTITIONS_MAX as usize;
    if limit < ids.len() {
        return Err(WireError::TooLong { what: "a list of partitions", found: ids.len(), limit });
    }
    Ok(ids.iter().map(PartitionId).collect())
}

fn write_texts<'a>(builder: &mut Builder<'a>, texts: &[String]) -> Texts<'a> {
    let texts: Vec<_> = texts.iter().map(|text| builder.create_string(text)).collect();
    builder.create_vector(&texts)
}

fn read_texts(
    list: flatbuffers::Vector<'_, flatbuffers::ForwardsUOffset<&str>>,
) -> Result<Vec<String>, WireError> {
    if TEXTS_MAX < list.len() {
        let (found, limit) = (list.len(), TEXTS_MAX);
        return Err(WireError::TooLong { what: "a list of findings", found, limit });
    }
    list.iter().map(read_text).collect()
}

fn read_text(text: &str) -> Result<String, WireError> {
    if TEXT_BYTES_MAX < text.len() {
        let (found, limit) = (text.len(), TEXT_BYTES_MAX);
        return Err(WireError::TooLong { what: "a finding", found, limit });
    }
    Ok(text.to_owned())
}

pub(super) fn write_answer(
    builder: &mut Builder<'_>,
    report: &ScrubReport,
) -> WIPOffset<UnionWIPOffset> {
    let rows = report.partitions.as_slice();
    let mark = |row: &PartitionScrub| {
        u8::from(row.running) * MARK_RUNNING + u8::from(row.whole) * MARK_WHOLE
    };
    let marks: Vec<u8> = rows.iter().map(mark).collect();
    let waiting = write_numbers(builder, report.waiting.iter().map(|p| p.0));
    let partitions = write_numbers(builder, rows.iter().map(|row| row.partition.0));
    let marks = write_bytes(builder, &marks);
    let mut column = |of: fn(&PartitionScrub) -> u64| write_numbers(builder, rows.iter().map(of));
    let begun_micros = column(|row| row.begun_micros);
    let ended_micros = column(|row| row.ended_micros);
    let total_bytes = column(|row| row.total_bytes);
    let bytes = column(|row| row.bytes);
    let records = column(|row| row.records);
    let bad = column(|row| row.bad);
    let healed = column(|row| row.healed);
    let unreadable = column(|row| row.unreadable);
    let stale = column(|row| row.stale);
    let orphans = write_texts(builder, &report.orphans.listed);
    let findings = write_texts(builder, &report.findings);
    let failed = report.orphans.failed.as_deref().map(|text| builder.create_string(text));
    let args = ScrubAnswerArgs {
        waiting: Some(waiting),
        journal_waiting: report.journal_waiting,
        orphans_waiting: report.orphans_waiting,
        partitions: Some(partitions),
        marks: Some(marks),
        begun_micros: Some(begun_micros),
        ended_micros: Some(ended_micros),
        total_bytes: Some(total_bytes),
        bytes: Some(bytes),
        records: Some(records),
        bad: Some(bad),
        healed: Some(healed),
        unreadable: Some(unreadable),
        stale: Some(stale),
        journal_ended_micros: report.journal.ended_micros,
        journal_files: report.journal.files,
        journal_bad: report.journal.bad,
        journal_lost: report.journal.lost,
        orphans_ended_micros: report.orphans.ended_micros,
        orphans: Some(orphans),
        orphans_found: report.orphans.found,
        orphans_deleted: report.orphans.deleted,
        findings: Some(findings),
        orphans_failed: failed,
    };
    ScrubAnswer::create(builder, &args).as_union_value()
}

pub(super) fn read_answer(table: ScrubAnswer<'_>) -> Result<Response, WireError> {
    let ids = read_partitions(table.partitions())?;
    let marks = table.marks();
    let numbers = [
        table.begun_micros(),
        table.ended_micros(),
        table.total_bytes(),
        table.bytes(),
        table.records(),
        table.bad(),
        table.healed(),
        table.unreadable(),
        table.stale(),
    ];
    check_columns(ids.len(), &[marks.len()])?;
    check_columns(ids.len(), &numbers.map(|column| column.len()))?;
    let row = |(at, partition): (usize, PartitionId)| {
        let [begun, ended, total, bytes, records, bad, healed, unreadable, stale] =
            numbers.map(|column| column.get(at));
        PartitionScrub {
            partition,
            running: marks.get(at) & MARK_RUNNING != 0,
            whole: marks.get(at) & MARK_WHOLE != 0,
            begun_micros: begun,
            ended_micros: ended,
            total_bytes: total,
            bytes,
            records,
            bad,
            healed,
            unreadable,
            stale,
        }
    };
    Ok(Response::Scrub(ScrubReport {
        waiting: read_partitions(table.waiting())?,
        journal_waiting: table.journal_waiting(),
        orphans_waiting: table.orphans_waiting(),
        partitions: ids.into_iter().enumerate().map(row).collect(),
        journal: JournalScrub {
            ended_micros: table.journal_ended_micros(),
            files: table.journal_files(),
            bad: table.journal_bad(),
            lost: table.journal_lost(),
        },
        orphans: OrphanReport {
            ended_micros: table.orphans_ended_micros(),
            found: table.orphans_found(),
            deleted: table.orphans_deleted(),
            listed: read_texts(table.orphans())?,
            failed: table.orphans_failed().map(read_text).transpose()?,
        },
        findings: read_texts(table.findings())?,
    }))
}

pub(super) fn write_audit_request(
    builder: &mut Builder<'_>,
    partition: PartitionId,
    step: StepNumber,
    held: &[(u64, Version)],
) -> WIPOffset<UnionWIPOffset> {
    let args = AuditRequestArgs {
        partition: partition.0,
        step: step.0,
        digests: Some(write_numbers(builder, held.iter().map(|row| row.0))),
        micros: Some(write_numbers(builder, held.iter().map(|row| row.1.micros))),
        origins: Some(write_numbers(builder, held.iter().map(|row| row.1.origin))),
    };
    AuditRequest::create(builder, &args).as_union_value()
}

pub(super) fn read_audit_request(table: AuditRequest<'_>) -> Result<Request, WireError> {
    let (digests, micros, origins) = (table.digests(), table.micros(), table.origins());
    if TAIL_ENTRIES_MAX < digests.len() {
        let (found, limit) = (digests.len(), TAIL_ENTRIES_MAX);
        return Err(WireError::TooLong { what: "a list of digests", found, limit });
    }
    check_columns(digests.len(), &[micros.len(), origins.len()])?;
    let row = |at| (digests.get(at), Version { micros: micros.get(at), origin: origins.get(at) });
    Ok(Request::Audit {
        partition: PartitionId(table.partition()),
        step: StepNumber(table.step()),
        held: (0..digests.len()).map(row).collect(),
    })
}

pub(super) fn write_audit_answer(
    builder: &mut Builder<'_>,
    audit: AuditAnswer,
) -> WIPOffset<UnionWIPOffset> {
    let AuditAnswer { behind, checked, stale } = audit;
    let args = AuditAnswerArgs { behind, checked, stale };
    AuditAnswerTable::create(builder, &args).as_union_value()
}

pub(super) fn read_audit_answer(table: AuditAnswerTable<'_>) -> Response {
    let (behind, checked, stale) = (table.behind(), table.checked(), table.stale());
    Response::Audit(AuditAnswer { behind, checked, stale })
}
