//! A migration driven by hand: documents, writes to each set, barriers, and what a replica says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tako_flatbuf::{
    NodeState, PartitionStanding, PutOutcome, Record, RecordHead, Request, Response, Standing,
};
use tako_journal::FsDisk;
use tako_node_core::{configuration::kept, node::Node};
use tako_ring::publish_migration;
use tako_types::{
    Clock, ErrorKind, Incarnation, Kind, Lsn, NodeId, PartitionId, StepNumber, SystemClock,
    Version,
    config::{Config, Migration, Phase, Published},
};

use super::{Cluster, eventually, key, text};

/// Partitions of every cluster here.
pub const PARTITIONS: u16 = 4;

/// A configuration with these deployments, `(name, buckets)`, each bucket with its nodes; the first
/// is the active one. It has a number, so that the file never takes over from what is published.
pub fn deployments(interval: &str, of: &[(&str, &[&[usize]])], target: Option<&str>) -> String {
    let mut text = format!(
        "epoch: 1\npartitions: {PARTITIONS}\nsnapshot: {{interval: {interval}}}\n\
         active_deployment: {}\n",
        of[0].0
    );
    if interval != "1h" {
        text.push_str("tombstone_grace: 500ms\n");
    }
    if let Some(target) = target {
        text.push_str(&format!("target_deployment: {target}\n"));
    }
    text.push_str("deployments:\n");
    let mut sorted = of.to_vec();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    for (name, buckets) in sorted {
        text.push_str(&format!("  {name}:\n    hash: {{buckets_per_key: 1}}\n    buckets:\n"));
        for (at, nodes) in buckets.iter().enumerate() {
            text.push_str(&format!("      b{}:\n", at + 1));
            for n in *nodes {
                text.push_str(&format!("        n{n}: [localhost, {}]\n", 4700 + n));
            }
        }
    }
    text
}

/// The document `number` of such a configuration.
pub fn document(
    number: u64,
    text: &str,
    phase: Option<(Phase, &str)>,
    barrier: Vec<StepNumber>,
) -> Published {
    let config = Arc::new(Config::parse(text).expect("a valid configuration"));
    let migration =
        phase.map(|(phase, other)| Migration { phase, other: other.to_owned(), barrier });
    publish_migration(config, number, migration, None).expect("a document")
}

/// Two deployments and the documents of a move from the first to the second.
pub struct Move {
    pub interval: &'static str,
    pub from: (&'static str, &'static [&'static [usize]]),
    pub to: (&'static str, &'static [&'static [usize]]),
}

impl Move {
    pub fn start(&self) -> String {
        deployments(self.interval, &[self.from, self.to], None)
    }

    /// The document of a phase; the migration's end is [`Phase::Leave`] with the second one active.
    pub fn phase(&self, number: u64, phase: Phase, barrier: Vec<StepNumber>) -> Published {
        if phase == Phase::Leave {
            let text = deployments(self.interval, &[self.to, self.from], None);
            return document(number, &text, Some((phase, self.from.0)), barrier);
        }
        let text = deployments(self.interval, &[self.from, self.to], Some(self.to.0));
        document(number, &text, Some((phase, self.to.0)), barrier)
    }

    /// The migration is given up: the first one stays.
    pub fn abort(&self, number: u64) -> Published {
        document(number, &self.start(), Some((Phase::Leave, self.to.0)), Vec::new())
    }

    pub fn aborted(&self, number: u64) -> Published {
        document(number, &self.start(), None, Vec::new())
    }

    pub fn end(&self, number: u64) -> Published {
        let text = deployments(self.interval, &[self.to, self.from], None);
        document(number, &text, None, Vec::new())
    }
}

/// A record that is newer than all before.
pub fn fresh(name: &str, kind: Kind, value: &str) -> Record {
    let version = Version { micros: SystemClock.now_micros(), origin: 1 };
    let head = RecordHead { version, kind, expires_at_micros: 0, flags: 0 };
    Record::encode(&key(name), head, None, value.as_bytes())
}

/// The partition of a key.
pub fn partition_of(name: &str) -> PartitionId {
    key(name).partition(u32::from(PARTITIONS).trailing_zeros())
}

/// Puts a record into one replica by hand; what it said.
pub async fn put_at(
    node: &Node,
    epoch: u64,
    record: &Record,
) -> Result<PutOutcome, (ErrorKind, String)> {
    let partition = record.key().partition(u32::from(PARTITIONS).trailing_zeros());
    let request =
        Request::Put { partition, record: record.clone(), repair: false, until_micros: 0 };
    match node.replica.handle_at(epoch, request).await {
        Ok(Response::Put(outcome)) => Ok(outcome),
        Ok(other) => panic!("a Put was answered by {other:?}"),
        Err(error) => Err((error.kind, error.message)),
    }
}

/// One replica's vote for a key; `None` where it does not vote.
pub async fn vote_of(node: &Node, name: &str) -> Option<Option<Record>> {
    let request = Request::Get { partition: partition_of(name), key: key(name) };
    match node.replica.handle(request).await {
        Ok(Response::Get { record, voting: true, .. }) => Some(record),
        _ => None,
    }
}

/// The same as the value that it shows.
pub async fn value_of(node: &Node, name: &str) -> Option<Option<String>> {
    let record = vote_of(node, name).await?;
    Some(record.filter(|record| record.kind() == Kind::Value).map(|record| text(&record)))
}

pub async fn standing(node: &Node) -> Standing {
    match node.replica.handle(Request::Standing { from: PartitionId(0) }).await {
        Ok(Response::Standing(standing)) => standing,
        other => panic!("Standing was answered by {other:?}"),
    }
}

pub async fn standing_in(node: &Node, p: PartitionId) -> Option<PartitionStanding> {
    standing(node).await.partitions.into_iter().find(|row| row.partition == p)
}

impl Cluster {
    /// Publishes the first document of a migration, and n4 joins.
    pub async fn join_at(&mut self, join: Published) {
        self.publish(&join).await;
        self.join("n4", &join).await;
        eventually("n4 serves", async || self.state("n4") == NodeState::Serving).await;
        let engine = self.node("n4").replica.engine().clone();
        let me = engine.node().clone();
        eventually("its views are open", async || {
            join.partitions_of(&me).into_iter().all(|p| engine.view(p).is_some())
        })
        .await;
    }

    /// Nothing goes between n4 and the others.
    pub fn cut_off_n4(&self) {
        for id in ["n1", "n2", "n3"] {
            self.network.cut_both("n4", id);
            self.network.drop_connections_between("n4", id);
        }
    }

    /// Writes to W of each set, as the document in force at `through` has it.
    pub async fn write_both(&self, through: &str, name: &str, kind: Kind, value: &str) {
        let current = self.node(through).config.current();
        let record = fresh(name, kind, value);
        let placement = current.placement(partition_of(name));
        let mut votes: BTreeMap<NodeId, bool> = BTreeMap::new();
        for id in placement.writers() {
            let Some(node) = self.nodes.get(id.as_str()) else { continue };
            eventually("it has the document", async || {
                node.config.epoch().number >= current.epoch.number
            })
            .await;
            if let Ok(PutOutcome::Accepted { voting, .. }) =
                put_at(node, current.epoch.number, &record).await
            {
                votes.insert(id, voting);
            }
        }
        for set in placement.write_sets() {
            let taken = set.nodes.iter().filter_map(|id| votes.get(id));
            let voters = taken.clone().filter(|voting| **voting).count();
            let (n, w) = (set.nodes.len(), set.quorum.w);
            assert!(w <= taken.count() && n - w < voters, "{name}: {votes:?} of {set:?}");
        }
    }

    /// Reads by R votes of the set that is read.
    pub async fn read_quorum(&self, through: &str, name: &str) -> Option<String> {
        let current = self.node(through).config.current();
        let set = &current.placement(partition_of(name)).read;
        let mut votes = Vec::new();
        for id in &set.nodes {
            if let Some(node) = self.nodes.get(id.as_str()) {
                votes.extend(vote_of(node, name).await);
            }
        }
        assert!(set.quorum.r <= votes.len(), "{name}: {} votes of {set:?}", votes.len());
        // The last ones: whoever came last to the set among them.
        let votes = votes.split_off(votes.len() - set.quorum.r);
        let newest = votes.into_iter().flatten().max_by_key(Record::version);
        newest.filter(|record| record.kind() == Kind::Value).map(|record| text(&record))
    }

    /// Hands a document to one node; gossip takes it to the others.
    pub async fn publish(&self, document: &Published) {
        let first = self.nodes.values().next().expect("a running node");
        first.config.adopt(document.clone()).expect("it may follow");
        for node in self.nodes.values() {
            eventually("everybody named has the document", async || {
                document.node(node.replica.engine().node()).is_none()
                    || node.config.epoch().number >= document.epoch.number
            })
            .await;
        }
    }

    /// Starts a node that no file names, from a document that it finds in its folder.
    pub async fn join(&mut self, id: &str, document: &Published) {
        let folder = self.var(id).join("etc").join(format!("node-{id}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        kept::keep(&FsDisk, &folder, document.epoch.number, &document.encode()).expect("kept");
        self.start(id).await;
    }

    /// Waits until these nodes noted L(e) of every partition.
    pub async fn noted(&self, nodes: &[&str], epoch: u64) {
        for id in nodes {
            eventually("L(e) is noted", async || {
                let standing = standing(self.node(id)).await;
                standing.noted == epoch
                    && standing.partitions.iter().all(|row| row.adopted_lsn.is_some())
            })
            .await;
        }
    }

    /// Forces a step of each partition that covers L(e) of `old`; the barrier.
    pub async fn barrier(&self, old: &[&str], epoch: u64) -> Vec<StepNumber> {
        self.noted(old, epoch).await;
        let mut barrier = Vec::new();
        for p in (0..PARTITIONS).map(PartitionId) {
            let first = self.node(old[0]).snapshotter.first_in_line(p);
            let snapshotter = self.node(first.as_str());
            eventually("the barrier covers L(e)", async || {
                if snapshotter.replica.handle(Request::ForceStep { partition: p }).await.is_err() {
                    return false;
                }
                let Some(row) = standing_in(snapshotter, p).await else { return false };
                let mut all = true;
                for id in old {
                    let noted = standing_in(self.node(id), p).await;
                    let noted = noted.and_then(|row| row.adopted_lsn).expect("noted");
                    all &= noted <= covered(&row, id);
                }
                all
            })
            .await;
            barrier.push(snapshotter.replica.engine().step(p));
        }
        barrier
    }
}

/// Up to where a view covers a node.
pub fn covered(row: &PartitionStanding, id: &str) -> Lsn {
    let of = row.coverage.iter().find(|(node, ..)| node.as_str() == id);
    of.map_or(Lsn(0), |(_, _, lsn)| *lsn)
}

/// What a node's journal holds of a partition, whoever asks.
pub async fn tail_of(node: &Node, p: PartitionId) -> usize {
    let request = Request::Tail {
        partition: p,
        after: Lsn(0),
        incarnation: Incarnation(0),
        puller: NodeId::new("x"),
        puller_incarnation: Incarnation(0),
    };
    match node.replica.handle(request).await {
        Ok(Response::Tail { entries, .. }) => entries.len(),
        other => panic!("a Tail was answered by {other:?}"),
    }
}

/// How long a thing that must not happen is waited for.
pub const A_WHILE: Duration = Duration::from_millis(700);
