//! Does a request's operations, all at once, and counts what they come to.

use futures::future::join_all;
use tako_flatbuf::ChangeOutcome;
use tako_node_core::replication::{Read, RequestError};
use tako_types::ErrorKind;

use super::{
    Port,
    counters::{add, hit_or_miss},
    request::{Operation, Outcome},
};

pub(super) async fn execute(port: &Port, mut operations: Vec<Operation>) -> Vec<Outcome> {
    match operations.len() {
        0 => Vec::new(),
        1 => match operations.pop() {
            Some(only) => vec![execute_one(port, only).await],
            None => Vec::new(),
        },
        _ => join_all(operations.into_iter().map(|one| execute_one(port, one))).await,
    }
}

async fn execute_one(port: &Port, operation: Operation) -> Outcome {
    let serving = &port.gateway.serving;
    let deadline = serving.links().config.current().config.cluster.request_deadline;
    let counters = &port.counters;
    match operation {
        Operation::Get(key) => match serving.get(&Read { key, r: None }, deadline).await {
            Ok(record) => {
                let live = record.filter(|it| it.is_live_at(serving.clock().now_micros()));
                hit_or_miss(&counters.get_hits, &counters.get_misses, live.is_some());
                live.map_or(Outcome::Missing, Outcome::Found)
            }
            Err(error) => failed(port, &error),
        },
        Operation::Put(write) => {
            add(&counters.cmd_set, 1);
            match serving.put(*write, deadline).await {
                Ok(written) => Outcome::Written { version: written.version, record: None },
                Err(error) => failed(port, &error),
            }
        }
        Operation::Change(change) => {
            add(&counters.cmd_change, 1);
            match serving.change(&change, deadline).await {
                Ok(ChangeOutcome::Done { version, record }) => Outcome::Written { version, record },
                Ok(ChangeOutcome::Fails { version }) => {
                    add(&counters.change_differs, 1);
                    Outcome::Differs(version)
                }
                Ok(ChangeOutcome::Cannot(misfit)) => Outcome::Cannot(misfit),
                Ok(ChangeOutcome::Unknown { reason }) => {
                    add(&counters.unavailable, 1);
                    Outcome::Failed(format!("outcome unknown: {reason}"))
                }
                Err(error) => failed(port, &error),
            }
        }
    }
}

/// What could not be done: said so, never taken for "not there".
pub(super) fn failed(port: &Port, error: &RequestError) -> Outcome {
    add(&port.counters.unavailable, 1);
    let what = match error.kind() {
        ErrorKind::Busy => "busy",
        _ => "unavailable",
    };
    // One line, whatever a cause may have in it.
    let text = error.to_string().replace(['\r', '\n'], " ");
    Outcome::Failed(format!("{what}: {text}"))
}
