//! `stats`: memcached's names where there is something to tell, and `tako_…` for the rest.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BytesMut;

use super::{Port, counters::value, request::Reply};

/// As clients read it: numbers of the memcached whose protocol this is, then whose server it is.
pub(super) const VERSION: &str = concat!("1.6.0-tako-", env!("CARGO_PKG_VERSION"));
pub(super) const VERSION_LINE: &[u8] =
    concat!("VERSION 1.6.0-tako-", env!("CARGO_PKG_VERSION"), "\r\n").as_bytes();

/// Writes the counters of a group; one that is unknown has none.
pub(super) fn write(port: &Port, group: &[u8], reply: &Reply, out: &mut BytesMut) {
    let stats = match group {
        b"" => general(port),
        b"settings" => settings(port),
        b"reset" => {
            // They belong to all who look at them.
            return line(reply, b"RESET\r\n", out);
        }
        // What a store of one process keeps in slabs lies in caches and a journal here.
        b"items" | b"slabs" | b"sizes" | b"conns" => Vec::new(),
        _ => return line(reply, b"ERROR\r\n", out),
    };
    for (name, value) in stats {
        match reply {
            Reply::Text(_) => {
                out.extend_from_slice(format!("STAT {name} {value}\r\n").as_bytes());
            }
            Reply::Binary(reply) => reply.write_stat(name, &value, out),
        }
    }
    line(reply, b"END\r\n", out);
}

fn line(reply: &Reply, text: &[u8], out: &mut BytesMut) {
    match reply {
        Reply::Text(_) => out.extend_from_slice(text),
        Reply::Binary(reply) => reply.write_stat("", "", out),
    }
}

fn general(port: &Port) -> Vec<(&'static str, String)> {
    let counters = &port.counters;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
    let (hits, misses) = (value(&counters.get_hits), value(&counters.get_misses));
    let serving = &port.gateway.serving;
    let own = serving.metrics();
    let config = serving.links().config.current();
    let mut stats: Vec<(&str, String)> = vec![
        ("pid", std::process::id().to_string()),
        ("uptime", counters.since.elapsed().as_secs().to_string()),
        ("time", seconds.to_string()),
        ("version", VERSION.to_owned()),
        ("pointer_size", usize::BITS.to_string()),
        ("cmd_get", (hits + misses).to_string()),
        ("get_hits", hits.to_string()),
        ("get_misses", misses.to_string()),
        ("cmd_flush", "0".to_owned()),
        ("threads", tokio::runtime::Handle::current().metrics().num_workers().to_string()),
    ];
    let counted = [
        ("curr_connections", &counters.curr_connections),
        ("total_connections", &counters.total_connections),
        ("cmd_set", &counters.cmd_set),
        ("bytes_read", &counters.bytes_read),
        ("bytes_written", &counters.bytes_written),
        ("tako_cmd_change", &counters.cmd_change),
        ("tako_change_differs", &counters.change_differs),
        ("tako_unavailable", &counters.unavailable),
        ("tako_protocol_errors", &counters.protocol_errors),
        ("tako_reads", &own.reads),
        ("tako_writes", &own.writes),
        ("tako_changes_made", &own.changes),
        ("tako_write_backs", &own.write_backs),
        ("tako_hedges", &own.hedges),
    ];
    stats.extend(counted.map(|(name, counter)| (name, value(counter).to_string())));
    stats.push(("tako_epoch", config.epoch.to_string()));
    stats.push(("tako_partitions", (1u32 << config.partitions_log2()).to_string()));
    stats
}

fn settings(port: &Port) -> Vec<(&'static str, String)> {
    let config = port.gateway.serving.links().config.current();
    let yes = || "yes".to_owned();
    vec![
        ("maxconns", port.gateway.options.connections_max.to_string()),
        ("item_size_max", config.config.cluster.value_bytes_max.to_string()),
        ("evictions", "off".to_owned()),
        ("cas_enabled", yes()),
        (
            "flush_enabled",
            if config.config.cluster.memcached_flush_all { yes() } else { "no".to_owned() },
        ),
        ("binding_protocol", "auto-negotiate".to_owned()),
    ]
}
