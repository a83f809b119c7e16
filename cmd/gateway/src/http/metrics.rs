//! `GET /metrics`: what this process counts, in Prometheus' text format.
//!
//! One list of names, each with what it means; docs/metrics.md has the same, which a test compares. What
//! is a node's alone is not there at a proxy.

use std::{
    fmt::Write as _,
    sync::{Arc, LazyLock, atomic::Ordering},
    time::Instant,
};

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use tako_flatbuf::NodeState;
use tako_node_core::{
    membership::Membership,
    replica::Replica,
    replication::{BOUNDS_MICROS, Latency, Serving},
};
use tako_types::NodeId;

use crate::Gateway;

const TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

static SINCE: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What is counted from now on; call it when the process begins to serve.
pub(crate) fn begin() {
    LazyLock::force(&SINCE);
}

pub(super) async fn on_metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    let mut out = Text(String::with_capacity(8 << 10));
    write(&gateway.serving, &mut out);
    ([(header::CONTENT_TYPE, TYPE)], out.0).into_response()
}

/// The format as it grows.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, "", value as f64);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn histogram(&mut self, name: &str, operation: &str, latency: &Latency) {
        let mut sum = 0;
        let bounds = BOUNDS_MICROS.iter().map(|micros| (*micros as f64 / 1e6).to_string());
        for (count, bound) in latency.counts().iter().zip(bounds.chain(["+Inf".to_owned()])) {
            sum += count;
            let labels = format!("operation=\"{operation}\",le=\"{bound}\"");
            self.sample(&format!("{name}_bucket"), &labels, sum as f64);
        }
        let labels = format!("operation=\"{operation}\"");
        self.sample(&format!("{name}_sum"), &labels, latency.sum_micros() as f64 / 1e6);
        self.sample(&format!("{name}_count"), &labels, sum as f64);
    }
}

fn write(serving: &Serving, out: &mut Text) {
    let (links, own) = (serving.links(), serving.metrics());
    let current = links.config.current();
    out.gauge(
        "tako_uptime_seconds",
        "Since the process began to serve.",
        SINCE.elapsed().as_secs_f64(),
    );
    out.gauge(
        "tako_ready",
        "1 when every partition has its quorums.",
        f64::from(u8::from(serving.readiness().is_ok())),
    );
    out.gauge("tako_epoch", "Number of the configuration in force.", current.epoch.number as f64);
    let moves = f64::from(u8::from(current.migration.is_some()));
    out.gauge("tako_migration", "1 while a migration is on.", moves);

    let latencies = [
        ("read", &own.read_latency),
        ("write", &own.write_latency),
        ("change", &own.change_latency),
    ];
    let name = "tako_request_seconds";
    out.family(name, "histogram", "Time that clients' requests took at this process.");
    for (operation, latency) in latencies {
        out.histogram(name, operation, latency);
    }
    let name = "tako_requests_failed_total";
    out.family(name, "counter", "Clients' requests that ended with an error.");
    for (operation, latency) in latencies {
        out.sample(name, &format!("operation=\"{operation}\""), latency.failed() as f64);
    }
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    out.counter(
        "tako_changes_made_total",
        "Changes under a condition made by this process.",
        load(&own.changes),
    );
    out.counter(
        "tako_write_backs_total",
        "Reads that brought the newest record to more replicas.",
        load(&own.write_backs),
    );
    out.counter(
        "tako_restamps_total",
        "Writes sent again under a higher version.",
        load(&own.restamps),
    );
    out.counter(
        "tako_void_acks_total",
        "Acknowledgements by data folders that were replaced.",
        load(&own.void_acks),
    );
    out.counter(
        "tako_hedges_total",
        "Reads that asked one more replica, as the first was slow.",
        load(&own.hedges),
    );
    let others: Vec<&NodeId> =
        current.nodes().map(|node| &node.id).filter(|id| !links.is_local(id)).collect();
    peers(&links.membership, &others, out);
    if let Some(local) = links.local() {
        node(local, out);
    }
}

fn peers(membership: &Membership, nodes: &[&NodeId], out: &mut Text) {
    let (live, offset) = ("tako_peer_live", "tako_peer_clock_offset_seconds");
    out.family(live, "gauge", "1 for a node that answers this process.");
    for id in nodes {
        let is_live = f64::from(u8::from(membership.is_live(id)));
        out.sample(live, &format!("node=\"{id}\""), is_live);
    }
    out.family(offset, "gauge", "How far a node's clock is off this process's.");
    for id in nodes {
        if let Some(peer) = membership.peer(id) {
            let seconds = peer.clock_offset_micros as f64 / 1e6;
            out.sample(offset, &format!("node=\"{id}\""), seconds);
        }
    }
}

fn node(local: &Replica, out: &mut Text) {
    let engine = local.engine();
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    out.gauge(
        "tako_node_serving",
        "1 while the node serves.",
        f64::from(u8::from(local.state() == NodeState::Serving)),
    );
    let own = engine.metrics();
    let name = "tako_votes_total";
    out.family(name, "counter", "Answers of this replica for a key, by where the record was.");
    for (from, counter) in
        [("index", &own.index_hits), ("cache", &own.cache_hits), ("snapshot", &own.snapshot_reads)]
    {
        out.sample(name, &format!("from=\"{from}\""), load(counter) as f64);
    }
    out.counter(
        "tako_records_accepted_total",
        "Records taken into the journal.",
        load(&own.accepted),
    );
    out.counter(
        "tako_records_superseded_total",
        "Records refused, as something newer is held.",
        load(&own.superseded),
    );
    out.counter("tako_records_barred_total", "Records refused for a promise.", load(&own.barred));
    out.counter("tako_promises_total", "Ballots promised.", load(&own.promised));
    out.counter(
        "tako_stale_records_total",
        "Cached records found older than the snapshot's: a bug.",
        load(&own.stale),
    );
    let journal = engine.journal();
    out.gauge("tako_journal_bytes", "Journal files on the disk.", journal.disk_bytes() as f64);
    out.gauge(
        "tako_journal_queued_bytes",
        "Records that wait for the journal.",
        journal.queued_bytes() as f64,
    );
    out.gauge(
        "tako_journal_failed",
        "1 after a disk error: the node acknowledges nothing.",
        f64::from(u8::from(journal.is_failed().is_some())),
    );
    let held: Vec<_> = local.held().into_iter().map(|p| engine.partition_status(p)).collect();
    let sum = |of: fn(&tako_node_core::engine::PartitionStatus) -> u64| {
        held.iter().map(of).sum::<u64>() as f64
    };
    out.gauge("tako_partitions", "Partitions of this node.", held.len() as f64);
    out.gauge(
        "tako_uncovered_records",
        "Records that no step has brought into the object store yet.",
        sum(|it| it.uncovered as u64),
    );
    out.gauge("tako_uncovered_bytes", "Their bytes.", sum(|it| it.uncovered_bytes));
    if let Some(snapshotter) = local.snapshotter() {
        out.gauge(
            "tako_snapshot_age_seconds",
            "Longest that a partition with uncovered records has seen no step.",
            snapshotter.longest_wait().as_secs_f64(),
        );
        let steps = snapshotter.metrics();
        out.counter("tako_steps_total", "Steps committed by this node.", load(&steps.steps));
        out.counter("tako_steps_failed_total", "Steps that failed.", load(&steps.failures));
        out.counter("tako_step_records_total", "Records written by steps.", load(&steps.records));
        out.counter(
            "tako_purged_records_total",
            "Tombstones and expired records purged.",
            load(&steps.purged),
        );
    }
    let counts = engine.snapshots().store().counts();
    let name = "tako_store_requests_total";
    out.family(name, "counter", "Requests to the object store.");
    for (kind, count) in [
        ("put", counts.puts),
        ("get", counts.gets),
        ("list", counts.lists),
        ("delete", counts.deletes),
    ] {
        out.sample(name, &format!("kind=\"{kind}\""), count as f64);
    }
    let name = "tako_store_bytes_total";
    out.family(name, "counter", "Bytes to and from the object store.");
    for (kind, count) in [("put", counts.put_bytes), ("get", counts.get_bytes)] {
        out.sample(name, &format!("kind=\"{kind}\""), count as f64);
    }
}
