//! Every decoder of bytes from outside, as a target: for libFuzzer (`run`) and for the replay of the
//! corpora in an ordinary test (`tests/replay.rs`).
//!
//! What must hold of any input stands in the `fuzz` module of the crate that decodes it; here they
//! only get a name. A target's corpus is `corpus/<name>`: one input a file, named by its hash.

mod mutate;

pub use mutate::Mutator;

/// Something that must hold of any bytes.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Panics where it does not hold.
    pub holds: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", holds: tako_flatbuf::fuzz::frame },
    Target { name: "stream", holds: tako_flatbuf::fuzz::stream },
    Target { name: "record", holds: tako_flatbuf::fuzz::record },
    Target { name: "configuration", holds: configuration },
    Target { name: "quantity", holds: tako_types::fuzz::quantity },
    Target { name: "published", holds: tako_types::fuzz::published },
    Target { name: "snapshot_row", holds: snapshot_row },
    Target { name: "journal_file", holds: tako_journal::fuzz::journal_file },
    Target { name: "journal_folder", holds: tako_journal::fuzz::journal_folder },
    Target { name: "identity", holds: tako_journal::fuzz::identity },
    Target { name: "http_request", holds: tako_gateway::fuzz::http_request },
    Target { name: "memcached", holds: tako_gateway::memcached_fuzz::connection },
    Target { name: "siblings", holds: tako_flatbuf::fuzz::siblings },
    Target { name: "store_context", holds: tako_gateway::fuzz::store_context },
    Target { name: "batch_line", holds: tako_gateway::fuzz::batch_line },
    Target { name: "history", holds: tako_checkers::fuzz::history },
];

/// A configuration, and the document that a coordinator makes of it.
fn configuration(bytes: &[u8]) {
    tako_types::fuzz::configuration(bytes);
    tako_ring::fuzz::configuration(bytes);
}

/// What lies in the store: keys, Tako's own rows, small objects, operands of the merge.
fn snapshot_row(bytes: &[u8]) {
    tako_types::fuzz::stored_key(bytes);
    tako_snapshot::fuzz::own_row(bytes);
    tako_snapshot::fuzz::small_object(bytes);
    tako_flatbuf::fuzz::operands(bytes);
}
