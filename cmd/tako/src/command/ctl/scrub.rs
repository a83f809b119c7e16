//! `tako ctl scrub`: has the nodes read their snapshots and journals again, and shows what they find.
//!
//! Each partition's snapshot is read by one replica that answers, each journal by its node. Nodes
//! go on when this program ends; asked again they tell what they found. No call waits for a scrub.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tako_flatbuf::{
    OrphanOrder, PartitionScrub, PeerOptions, Peers, Request, Response, RpcError, ScrubOrder,
    ScrubReport,
};
use tako_node_core::configuration::ConfigWatcher;
use tako_types::{
    ErrorKind, NodeId, PartitionId,
    config::Published,
    limits::{CALL_DEADLINE, ORPHAN_AGE_MIN},
};
use tokio::time::{Instant, sleep};

use crate::{
    arguments::SourceArgs,
    failure::Failure,
    trust::{TlsArgs, between_members},
};

const AFTER_HELP: &str = "\
Examples:
  tako ctl scrub --coordinator localhost:17400
  tako ctl scrub --coordinator localhost:17400 --partition 7
  tako ctl scrub --coordinator localhost:17400 --orphans

Nodes do the same by themselves once per background_healing_interval, but for orphans: what lies in
the store and belongs to nothing. Bad records are replaced by intact ones of other replicas where
there are any.

Exit codes: 0 all was read and is sound; 2 wrong arguments; 6 something could not be read; 7 damage
was found, healed or not. Orphans are no damage.";

/// Between two looks at how it goes.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// A node that does not answer for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `tako ctl scrub`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ScrubArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Only this partition's snapshot, and no journals; give it again for more
    #[arg(long, value_name = "P")]
    partition: Vec<u16>,
    /// Look for what lies in the store and belongs to nothing, too
    #[arg(long)]
    orphans: bool,
    /// Delete those that have been left alone for a week and that no backup needs
    #[arg(long, requires = "orphans")]
    delete_orphans: bool,
    /// Form of the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For a person
    Text,
    /// For a machine
    Json,
}

/// What one node was asked for, and its last word.
struct Asked {
    address: String,
    order: ScrubOrder,
    /// When each partition's last pass before this one began.
    before: BTreeMap<PartitionId, u64>,
    report: ScrubReport,
    heard: Instant,
    given_up: bool,
}

pub(crate) async fn run(args: ScrubArgs) -> Result<ExitCode, Failure> {
    let network = between_members(args.tls.open()?);
    let watcher = ConfigWatcher::new(args.source.source(), network.clone());
    let document = watcher
        .fetch(None)
        .await
        .map_err(|error| Failure::unavailable(format!("no configuration: {error}")))?;
    let wanted: BTreeSet<PartitionId> = if args.partition.is_empty() {
        document.partitions().collect()
    } else {
        args.partition.iter().copied().map(PartitionId).collect()
    };
    if let Some(p) = wanted.iter().find(|p| !document.has(**p)) {
        let text = format!("there is no partition {p}: {} of them", document.config.partitions);
        return Err(Failure::invalid(text));
    }
    let id = NodeId::new(&format!("ctl-{}", std::process::id()));
    let peers = Peers::new(network, PeerOptions::new(id));
    let mut asked = whom_to_ask(&peers, &document).await;
    if asked.is_empty() {
        return Err(Failure::unavailable("no node answers"));
    }
    let mut unread = share_out(&document, &wanted, &mut asked);
    let orphans = match (args.orphans, args.delete_orphans) {
        (false, _) => OrphanOrder::Leave,
        (true, false) => OrphanOrder::Find,
        (true, true) => OrphanOrder::Delete,
    };
    for (at, one) in asked.values_mut().enumerate() {
        one.order.start = true;
        one.order.journal = args.partition.is_empty();
        one.order.orphans = if at == 0 { orphans } else { OrphanOrder::Leave };
    }
    follow(&peers, &document, &mut asked).await;
    unread.extend(asked.values().flat_map(Asked::unread));
    let result = Outcome { wanted: wanted.len(), asked, unread };
    let shown = match args.output {
        Output::Text => result.text(),
        Output::Json => format!("{:#}\n", result.json()),
    };
    io::stdout()
        .write_all(shown.as_bytes())
        .map_err(|error| Failure::unavailable(format!("cannot write: {error}")))?;
    result.verdict()
}

async fn ask(
    peers: &Peers,
    document: &Published,
    address: &str,
    order: ScrubOrder,
) -> Result<ScrubReport, RpcError> {
    let peer = peers.get(address);
    match peer.call(document.epoch.number, CALL_DEADLINE, Request::Scrub(order)).await? {
        Response::Scrub(report) => Ok(report),
        _ => Err(RpcError::unavailable("it answered something else")),
    }
}

/// The nodes that answer.
async fn whom_to_ask(peers: &Peers, document: &Published) -> BTreeMap<NodeId, Asked> {
    let mut asked = BTreeMap::new();
    for node in document.nodes() {
        let address = node.rpc_address().to_string();
        match ask(peers, document, &address, ScrubOrder::default()).await {
            Ok(report) => {
                let rows = report.partitions.iter();
                let before = rows.map(|row| (row.partition, row.begun_micros)).collect();
                let one = Asked {
                    address,
                    order: ScrubOrder::default(),
                    before,
                    report,
                    heard: Instant::now(),
                    given_up: false,
                };
                asked.insert(node.id.clone(), one);
            }
            Err(error) => {
                let _ = writeln!(io::stderr(), "{} is left out: {}", node.id, error.message);
            }
        }
    }
    asked
}

/// Gives each partition to the replica that has fewest; answers with those that nobody can read.
fn share_out(
    document: &Published,
    wanted: &BTreeSet<PartitionId>,
    asked: &mut BTreeMap<NodeId, Asked>,
) -> BTreeSet<PartitionId> {
    let mut unread = BTreeSet::new();
    for p in wanted {
        let replicas = &document.placement(*p).read.nodes;
        let there = replicas.iter().filter(|node| asked.contains_key(*node));
        let least = there.min_by_key(|node| asked.get(*node).map(|it| it.order.partitions.len()));
        match least.cloned().and_then(|node| asked.get_mut(&node)) {
            Some(one) => one.order.partitions.push(*p),
            None => drop(unread.insert(*p)),
        }
    }
    unread
}

/// Gives the orders and waits until all are carried out, or nobody answers any more.
async fn follow(peers: &Peers, document: &Published, asked: &mut BTreeMap<NodeId, Asked>) {
    let mut begun: BTreeSet<NodeId> = BTreeSet::new();
    loop {
        for (node, one) in asked.iter_mut().filter(|(_, one)| !one.given_up) {
            let first = !begun.contains(node);
            if !first && one.is_done() {
                continue;
            }
            let order = if first { one.order.clone() } else { ScrubOrder::default() };
            match ask(peers, document, &one.address, order).await {
                Ok(report) => {
                    begun.insert(node.clone());
                    (one.report, one.heard) = (report, Instant::now());
                }
                Err(error) if error.kind == ErrorKind::Invalid => {
                    let _ = writeln!(io::stderr(), "{node} refuses: {}", error.message);
                    one.given_up = true;
                }
                Err(error) if PATIENCE < one.heard.elapsed() => {
                    let _ = writeln!(io::stderr(), "{node} is given up: {}", error.message);
                    one.given_up = true;
                }
                Err(_) => {}
            }
        }
        draw(asked);
        if asked.iter().all(|(node, one)| one.given_up || begun.contains(node) && one.is_done()) {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// One line that replaces itself; nothing where nobody looks.
fn draw(asked: &BTreeMap<NodeId, Asked>) {
    let mut stderr = io::stderr();
    if !stderr.is_terminal() {
        return;
    }
    let all: usize = asked.values().map(|one| one.order.partitions.len()).sum();
    let waiting: usize = asked.values().map(|one| one.waiting().count()).sum();
    let rows = || asked.values().flat_map(Asked::rows);
    let bytes: u64 = rows().map(|row| row.bytes).sum();
    let _ = write!(
        stderr,
        "\r\x1b[K{} of {all} partitions, {}",
        all.saturating_sub(waiting),
        size_text(bytes)
    );
    if waiting == 0 && asked.values().all(Asked::is_done) {
        let _ = writeln!(stderr);
    }
}

impl Asked {
    fn waiting(&self) -> impl Iterator<Item = PartitionId> {
        let own = &self.order.partitions;
        self.report.waiting.iter().copied().filter(|p| own.contains(p))
    }

    fn is_done(&self) -> bool {
        let journal = self.order.journal && self.report.journal_waiting;
        let orphans = self.order.orphans != OrphanOrder::Leave && self.report.orphans_waiting;
        self.waiting().next().is_none() && !journal && !orphans
    }

    /// What this order came to, partition by partition.
    fn rows(&self) -> impl Iterator<Item = &PartitionScrub> {
        self.report.partitions.iter().filter(|row| {
            let before = self.before.get(&row.partition);
            self.order.partitions.contains(&row.partition) && before != Some(&row.begun_micros)
        })
    }

    /// Partitions asked for that were not read to the end.
    fn unread(&self) -> BTreeSet<PartitionId> {
        let read: BTreeSet<_> =
            self.rows().filter(|row| row.whole).map(|row| row.partition).collect();
        self.order.partitions.iter().copied().filter(|p| !read.contains(p)).collect()
    }
}

/// Everything that came out.
struct Outcome {
    wanted: usize,
    asked: BTreeMap<NodeId, Asked>,
    unread: BTreeSet<PartitionId>,
}

impl Outcome {
    fn sum(&self, of: impl Fn(&PartitionScrub) -> u64) -> u64 {
        self.asked.values().flat_map(Asked::rows).map(of).sum()
    }

    fn journals(&self) -> impl Iterator<Item = &Asked> {
        self.asked.values().filter(|one| one.order.journal)
    }

    /// Places where something is wrong, mended or not.
    fn damage_count(&self) -> u64 {
        let rows = self.sum(|row| row.bad + row.unreadable + row.stale);
        rows + self.journals().map(|one| one.report.journal.bad).sum::<u64>()
    }

    fn verdict(&self) -> Result<ExitCode, Failure> {
        let damage_count = self.damage_count();
        if 0 < damage_count {
            let healed = self.sum(|row| row.healed);
            let text = format!("damage was found in {damage_count} places; {healed} healed");
            return Err(Failure::new(ErrorKind::Corrupt, text));
        }
        if !self.unread.is_empty() {
            let text = format!("{} partitions were not read to the end", self.unread.len());
            return Err(Failure::unavailable(text));
        }
        if let Some((node, _)) = self.asked.iter().find(|(_, one)| one.given_up) {
            return Err(Failure::unavailable(format!("{node} did not finish")));
        }
        let failed = self.asked.values().find_map(|one| one.orphans()?.failed.clone());
        failed.map_or(Ok(ExitCode::SUCCESS), |why| {
            Err(Failure::unavailable(format!("orphans were not looked for: {why}")))
        })
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{} of {} partitions read: {} records, {}\n",
            self.wanted - self.unread.len(),
            self.wanted,
            self.sum(|row| row.records),
            size_text(self.sum(|row| row.bytes)),
        );
        text += &format!(
            "bad {}, of these healed {}; unreadable stretches {}; stale in caches {}\n",
            self.sum(|row| row.bad),
            self.sum(|row| row.healed),
            self.sum(|row| row.unreadable),
            self.sum(|row| row.stale),
        );
        for (node, one) in &self.asked {
            let journal = one.report.journal;
            text += &format!("{node}: {} partitions", one.order.partitions.len());
            if one.order.journal {
                text += &format!("; {} journal files, {} bad", journal.files, journal.bad);
            }
            text.push('\n');
            for finding in one.findings() {
                text += &format!("  {finding}\n");
            }
            if let Some(orphans) = one.orphans() {
                let (found, deleted) = (orphans.found, orphans.deleted);
                text += &format!("  {found} orphans, {deleted} deleted\n");
                for orphan in &orphans.listed {
                    text += &format!("    {orphan}\n");
                }
                if 0 < found && deleted == 0 {
                    let days = ORPHAN_AGE_MIN.as_secs() / 86_400;
                    text += &format!(
                        "  --delete-orphans deletes those of Tako's that are {days} days old\n"
                    );
                }
            }
        }
        text
    }

    fn json(&self) -> Value {
        let nodes: Vec<Value> = self.asked.iter().map(|(node, one)| one.json(node)).collect();
        json!({
            "partitions": self.wanted,
            "unread": self.unread.iter().map(|p| p.0).collect::<Vec<_>>(),
            "records": self.sum(|row| row.records),
            "bytes": self.sum(|row| row.bytes),
            "bad": self.sum(|row| row.bad),
            "healed": self.sum(|row| row.healed),
            "unreadable": self.sum(|row| row.unreadable),
            "stale": self.sum(|row| row.stale),
            "journal_bad": self.journals().map(|one| one.report.journal.bad).sum::<u64>(),
            "nodes": nodes,
        })
    }
}

impl Asked {
    /// Nodes remember findings of earlier scrubs; they are told only where this one has any.
    fn findings(&self) -> impl Iterator<Item = &String> {
        let found = self.rows().any(|row| 0 < row.bad + row.unreadable + row.stale)
            || self.order.journal && 0 < self.report.journal.bad
            || self.rows().any(|row| !row.whole);
        self.report.findings.iter().filter(move |_| found)
    }

    fn orphans(&self) -> Option<&tako_flatbuf::OrphanReport> {
        (self.order.orphans != OrphanOrder::Leave).then_some(&self.report.orphans)
    }

    fn json(&self, node: &NodeId) -> Value {
        let rows = self.rows().map(|row| {
            json!({
                "partition": row.partition.0,
                "whole": row.whole,
                "records": row.records,
                "bytes": row.bytes,
                "bad": row.bad,
                "healed": row.healed,
                "unreadable": row.unreadable,
                "stale": row.stale,
            })
        });
        let journal = self.order.journal.then(|| {
            let journal = self.report.journal;
            json!({ "files": journal.files, "bad": journal.bad, "lost": journal.lost })
        });
        let orphans = self.orphans().map(|it| {
            json!({
                "found": it.found,
                "deleted": it.deleted,
                "listed": it.listed,
                "failed": it.failed,
            })
        });
        json!({
            "node": node.as_str(),
            "finished": !self.given_up,
            "partitions": rows.collect::<Vec<_>>(),
            "journal": journal,
            "orphans": orphans,
            "findings": self.findings().collect::<Vec<_>>(),
        })
    }
}

/// Bytes as a person says them.
fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes;
    let mut rest = 0;
    let mut unit = 0;
    while 1_024 <= value && unit + 1 < UNITS.len() {
        rest = value % 1_024;
        value /= 1_024;
        unit += 1;
    }
    let unit_text = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 {
        format!("{value} B")
    } else {
        format!("{value}.{} {unit_text}", rest * 10 / 1_024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(partitions: &[u16], rows: &[(u16, u64, bool)], before: &[(u16, u64)]) -> Asked {
        let p = |number: &u16| PartitionId(*number);
        let row = |(partition, begun_micros, whole): &(u16, u64, bool)| PartitionScrub {
            partition: PartitionId(*partition),
            begun_micros: *begun_micros,
            whole: *whole,
            ..PartitionScrub::default()
        };
        Asked {
            address: String::new(),
            order: ScrubOrder {
                partitions: partitions.iter().map(p).collect(),
                ..ScrubOrder::default()
            },
            before: before.iter().map(|(p, begun)| (PartitionId(*p), *begun)).collect(),
            report: ScrubReport {
                partitions: rows.iter().map(row).collect(),
                ..ScrubReport::default()
            },
            heard: Instant::now(),
            given_up: false,
        }
    }

    #[tokio::test]
    async fn what_an_earlier_scrub_read_or_nobody_read_to_its_end_is_unread() {
        let one = asked(&[1, 2, 3, 4], &[(1, 9, true), (2, 5, true), (3, 9, false)], &[(2, 5)]);
        assert_eq!(one.unread(), [2, 3, 4].map(PartitionId).into());
        assert!(one.is_done());
    }

    #[test]
    fn sizes_are_said_in_the_unit_that_fits() {
        let said = [0, 1_023, 1_536, 5 << 20, 3_000 << 30].map(size_text);
        assert_eq!(said, ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3000.0 GiB"]);
    }
}
