//! A record rots in the store, and what background healing has to say, of that and of all else.
//!
//! Invariants: what healing calls wrong was made wrong here, for nothing else of the simulation
//! damages what lies still; and a record that rotted while some replica had it intact is healed
//! within a few rounds, in the store as well. A journal file that rots while its node runs is one
//! more way to lose state: the node is at risk until the file has gone. Not here: journals damaged
//! between two processes (`disk.rs`), which is for a start to find.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use tako_flatbuf::{Record, Request, StepAnnouncement};
use tako_node_core::node::Node;
use tako_snapshot::{StepInput, StepRow};
use tako_types::{Kind, PartitionId, RecordStat, StoredKey, Version};
use tokio::time::{Instant, sleep};

use super::World;
use crate::{
    chance::Chance,
    load::{KeyUse, stored},
};

/// What a finding of a healed record says.
const HEALED: &str = "healed by a replica's intact one";
/// What findings of journals say.
const JOURNAL: &str = "journal";
/// How long it is waited until a node has a journal file that is complete.
const COMPLETE_MAX: Duration = Duration::from_secs(20);
/// Rounds within which a record is healed.
const ROUNDS_MAX: u32 = 3;
/// What may pass beside: views are opened, orders of reading change.
const MORE: Duration = Duration::from_secs(60);

/// What healers said so far.
#[derive(Debug, Default)]
pub(super) struct Healing {
    /// By node and life's findings, each once.
    findings: BTreeSet<(String, String)>,
    /// The key that rotted, as findings name it.
    rotten: Option<String>,
    /// Since when, in microseconds since the world began.
    rotten_since: Option<u64>,
    /// Nodes of which a journal file rotted.
    rotten_journals: BTreeSet<String>,
    /// By node, what its last passes read.
    records: BTreeMap<String, u64>,
}

impl Healing {
    /// Takes down what a node's healer has to say.
    pub(super) fn note(&mut self, id: &str, node: &Node) {
        let report = node.healer.report();
        let records: u64 = report.partitions.iter().map(|row| row.records).sum();
        let most = self.records.entry(id.to_owned()).or_default();
        *most = records.max(*most);
        self.findings.extend(report.findings.into_iter().map(|text| (id.to_owned(), text)));
    }

    fn is_healed(&self) -> bool {
        self.findings.iter().any(|(_, text)| self.is_of_rotten(text) && text.contains(HEALED))
    }

    fn is_of_rotten(&self, text: &str) -> bool {
        self.rotten.as_ref().is_some_and(|named| text.contains(named.as_str()))
    }
}

impl World {
    /// Hears all healers that run.
    fn hear(&self) {
        let nodes = self.nodes();
        let mut healing = self.inner.healing.lock();
        for (id, node) in nodes {
            healing.note(&id, &node);
        }
    }

    /// What healing read, and what it found that nobody damaged.
    #[must_use]
    pub fn healed(&self) -> (usize, Vec<String>) {
        self.hear();
        let healing = self.inner.healing.lock();
        let strange = healing.findings.iter().filter(|(id, text)| {
            let is_of_journal = healing.rotten_journals.contains(id) && text.contains(JOURNAL);
            !is_of_journal && !healing.is_of_rotten(text)
        });
        let wrong = strange.map(|(id, text)| format!("{id} found by healing: {text}")).collect();
        let records: u64 = healing.records.values().sum();
        (usize::try_from(records).unwrap_or(usize::MAX), wrong)
    }

    /// Where healing runs often: rots one record in the store, of which replicas have intact ones,
    /// and waits until it is healed. Call it in quiet.
    ///
    /// # Errors
    /// It was not healed in time.
    pub async fn rot_and_heal(&self, keys: &[KeyUse], chance: &Chance) -> Result<(), String> {
        let Some(interval) = self.inner.scenario.healing else { return Ok(()) };
        let mut chance = chance.part("rot");
        let Some((p, key, record)) = self.some_record(keys, &mut chance).await else {
            self.inner.counts.add("nothing there to rot");
            return Ok(());
        };
        {
            let mut healing = self.inner.healing.lock();
            healing.rotten = Some(format!("{:016x}", key.digest()));
            healing.rotten_since = Some(self.micros());
        }
        self.commit_rotten(p, &key, &record, &mut chance).await?;
        self.inner.counts.add("record rotted in the store");
        let within = interval * ROUNDS_MAX + MORE;
        let until = Instant::now() + within;
        loop {
            self.hear();
            if self.inner.healing.lock().is_healed() {
                self.inner.counts.add("record healed");
                return Ok(());
            }
            if until < Instant::now() {
                let found: Vec<_> = self.inner.healing.lock().findings.iter().cloned().collect();
                return Err(format!(
                    "a record of partition {p} that rotted in the store was not healed within \
                     {within:?}; found: {found:?}"
                ));
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Since when there was a rotten record in the store, if there ever was.
    #[must_use]
    pub fn rotten_since(&self) -> Option<u64> {
        self.inner.healing.lock().rotten_since
    }

    /// Flips a bit in the first complete journal file that a node has from now on.
    pub(super) fn rot_journal(&self, n: usize) {
        let world = self.clone();
        self.inner.tasks.spawn(async move {
            let until = Instant::now() + COMPLETE_MAX;
            while Instant::now() < until && !world.inner.over.is_cancelled() {
                if !world.may_lose_state(n) {
                    return world.inner.counts.add("fault passed over: too many replicas at risk");
                }
                let rotten = {
                    let mut machines = world.inner.machines.lock();
                    let machine = &mut machines[n];
                    let runs = machine.running.as_ref().is_some_and(|it| it.node.is_some());
                    let disk = machine.disk.clone();
                    let sound = runs && !machine.failing && !disk.is_dead();
                    let rotten = sound.then(|| disk.rot(&mut machine.chance)).flatten();
                    if rotten.is_some() {
                        machine.at_risk = true;
                        machine.rotten.clone_from(&rotten);
                        world.inner.healing.lock().rotten_journals.insert(machine.id.clone());
                    }
                    rotten
                };
                if let Some(rotten) = rotten {
                    world.inner.counts.add("journal rotted");
                    return world.say(|| format!("a journal rots: {rotten:?}"));
                }
                sleep(Duration::from_millis(200)).await;
            }
            world.inner.counts.add("fault passed over: no complete journal file");
        });
    }

    /// A record with a value that every replica has at hand from now on.
    async fn some_record(
        &self,
        keys: &[KeyUse],
        chance: &mut Chance,
    ) -> Option<(PartitionId, StoredKey, Record)> {
        let published = self.published();
        let first = chance.below(keys.len());
        for KeyUse { name, .. } in keys.iter().cycle().skip(first).take(keys.len()) {
            let key = stored(name);
            let p = key.partition(published.partitions_log2());
            let replicas = published.replicas(p);
            let mut newest = None;
            for (_, node) in self.nodes() {
                let engine = node.replica.engine();
                if !replicas.contains(engine.node()) {
                    continue;
                }
                newest = engine.vote(p, &key).await.ok().and_then(|vote| vote.record).or(newest);
            }
            let with_value = newest.filter(|record| record.kind() == Kind::Value);
            if let Some(record) = with_value {
                return Some((p, key, record));
            }
        }
        None
    }

    /// Commits a step with a flipped bit in a record, as a snapshotter does whose memory is bad: the
    /// replicas are told that they missed nothing.
    async fn commit_rotten(
        &self,
        p: PartitionId,
        key: &StoredKey,
        record: &Record,
        chance: &mut Chance,
    ) -> Result<(), String> {
        let published = self.published();
        let replicas = published.replicas(p);
        let nodes: Vec<_> = self
            .nodes()
            .into_iter()
            .map(|(_, node)| node)
            .filter(|node| replicas.contains(node.replica.engine().node()))
            .collect();
        let engine = chance.pick(&nodes).replica.engine().clone();
        let mut bytes = record.bytes().to_vec();
        let value = record.value();
        let at = bytes.windows(value.len()).position(|window| window == &value[..]);
        let at = at.ok_or("a record does not hold its value")? + chance.below(value.len());
        bytes[at] ^= 1 << chance.below(8);
        let failed = |error| format!("a record cannot be made to rot: {error}");
        let mut writer = engine.snapshots().writer(p).await.map_err(failed)?;
        let highest = writer.meta().highest;
        let claimed = Version { micros: highest.micros + 1, origin: 1 };
        let previous = writer.meta().step;
        let row = StepRow {
            key: key.as_bytes().clone(),
            record: Bytes::from(bytes),
            stat: RecordStat::value(claimed, 0),
            newest: true,
        };
        let input = StepInput { rows: vec![row], highest: claimed, ..StepInput::default() };
        let committed = writer.step(input).await.map_err(failed)?;
        for node in nodes {
            let coverage = committed.meta.coverage.iter();
            let announcement = StepAnnouncement {
                partition: p,
                step: committed.meta.step,
                manifest: committed.checkpoint.manifest,
                checkpoint: committed.checkpoint.id,
                highest: committed.meta.highest,
                coverage: coverage.map(|(node, (inc, lsn))| (node.clone(), *inc, *lsn)).collect(),
                previous,
                missed: Some(Vec::new()),
            };
            let told = node.replica.handle(Request::Step(announcement)).await;
            told.map_err(|error| format!("a step was not taken: {}", error.message))?;
        }
        writer.close().await;
        Ok(())
    }
}
