//! Gathering: the tails of all replicas, and the records in them that are to be written.
//!
//! A tail list names (LSN, key, version, crc); only what wins is fetched, from whoever holds it,
//! this node first. A replica that cannot be reached is left out: its coverage stays as it was.

use std::collections::{BTreeMap, HashMap};

use futures::future::join_all;
use tako_flatbuf::{Record, Request, Response, RpcError, merge};
use tako_snapshot::Meta;
use tako_types::{
    ErrorKind, Incarnation, Lsn, NodeId, PartitionId, StepNumber, StoredKey, Version,
    limits::CALL_DEADLINE,
};

use super::{Snapshotter, StepError};

/// Bytes of records in one step; the rest goes into the next one.
const STEP_BYTES_MAX: usize = 96 << 20;
/// Entries taken from one replica in one step.
const PULLED_ENTRIES_MAX: usize = 1 << 18;
/// Keys asked for in one Fetch.
const FETCH_KEYS: usize = 4_096;

/// What one replica's tail said.
#[derive(Debug)]
pub(super) struct Pulled {
    pub(super) incarnation: Incarnation,
    pub(super) upto: Lsn,
    pub(super) step: StepNumber,
    /// Nothing was in flight, and the list is whole.
    pub(super) complete: bool,
    pub(super) entries: HashMap<StoredKey, (Lsn, Version, u32)>,
}

/// The tails of a partition's replicas at one time.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) pulled: BTreeMap<NodeId, Pulled>,
    /// Highest version per key, with who holds it under which crc.
    pub(super) newest: BTreeMap<StoredKey, (Version, Vec<(NodeId, u32)>)>,
    /// What the step writes: newer than was listed where its holder had taken a write since.
    written: BTreeMap<StoredKey, (Version, u32)>,
}

impl Gathered {
    pub(super) fn add(&mut self, node: NodeId, pulled: Pulled) {
        for (key, (_, version, crc)) in &pulled.entries {
            match self.newest.get_mut(key) {
                Some((newest, holders)) if *newest == *version => {
                    holders.push((node.clone(), *crc));
                }
                Some((newest, _)) if *newest > *version => {}
                _ => {
                    self.newest.insert(key.clone(), (*version, vec![(node.clone(), *crc)]));
                }
            }
        }
        self.pulled.insert(node, pulled);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    /// Did all `holders` answer with all they hold, seeing `step`?
    pub(super) fn complete(&self, holders: &[NodeId], step: StepNumber) -> bool {
        holders.iter().all(|node| {
            self.pulled.get(node).is_some_and(|pulled| pulled.complete && pulled.step == step)
        })
    }

    /// Takes down what was fetched, and so is written.
    pub(super) fn fetched(&mut self, records: &BTreeMap<StoredKey, Record>) {
        let shown = |record: &Record| (record.version(), record.crc());
        self.written = records.iter().map(|(key, record)| (key.clone(), shown(record))).collect();
    }

    /// Digests of the keys that `node` did not list as this step writes them; `None` when that is
    /// not known or too long to tell.
    pub(super) fn missed(&self, node: &NodeId) -> Option<Vec<u64>> {
        const MISSED_MAX: usize = 1 << 16;
        let pulled = self.pulled.get(node)?;
        let missed: Vec<u64> = self
            .written
            .iter()
            .filter(|(key, written)| {
                let listed = pulled.entries.get(*key).map(|(_, version, crc)| (*version, *crc));
                listed != Some(**written)
            })
            .map(|(key, _)| key.digest())
            .take(MISSED_MAX + 1)
            .collect();
        (missed.len() <= MISSED_MAX).then_some(missed)
    }
}

impl Snapshotter {
    /// Pulls every replica's tail above what `base` covers.
    pub(super) async fn gather(&self, p: PartitionId, base: &Meta) -> Result<Gathered, StepError> {
        let current = self.links.config.current();
        // Who fails is not waited for: its coverage stays as it was.
        let asked = current.placement(p).holders.iter().filter(|node| self.is_worth_asking(node));
        let mut asked: Vec<NodeId> = asked.cloned().collect();
        asked.extend(self.left_behind(p));
        let pulls = asked.into_iter().map(|node| async move {
            let after = base.coverage.get(&node).copied().unwrap_or_default();
            let pulled = self.pull(p, &node, after).await;
            (node, pulled)
        });
        let mut gathered = Gathered::default();
        for (node, pulled) in join_all(pulls).await {
            match pulled {
                Ok(pulled) => gathered.add(node, pulled),
                Err(error) => {
                    tracing::debug!(partition = p.0, %node, "no tail: {}", error.message);
                }
            }
        }
        Ok(gathered)
    }

    /// Whether nobody who held the partition before has anything left that no step covers.
    ///
    /// Whoever the document does not name any more is not asked: the step closes its folder
    /// ([`super::plan::close_gone`]).
    pub(super) async fn nothing_left_behind(&self, p: PartitionId, base: &Meta) -> bool {
        let current = self.links.config.current();
        let holders = &current.placement(p).holders;
        let before = base
            .coverage
            .iter()
            .filter(|(node, _)| !holders.contains(node) && current.node(node).is_some());
        for (node, after) in before {
            match self.pull(p, node, *after).await {
                Ok(pulled) if pulled.complete && pulled.entries.is_empty() => {}
                Ok(_) => return false,
                Err(error) => {
                    tracing::debug!(partition = p.0, %node, "purges nothing: {}", error.message);
                    return false;
                }
            }
        }
        true
    }

    /// Whether a replica is this node or not known to fail at present.
    pub(super) fn is_worth_asking(&self, node: &NodeId) -> bool {
        node == self.engine.node() || self.links.membership.read_rank(node) < 3
    }

    async fn pull(
        &self,
        p: PartitionId,
        node: &NodeId,
        (incarnation, after): (Incarnation, Lsn),
    ) -> Result<Pulled, RpcError> {
        let mut pulled: Option<Pulled> = None;
        let (mut after, mut incarnation) = (after, incarnation);
        loop {
            let request = Request::Tail {
                partition: p,
                after,
                incarnation,
                puller: self.engine.node().clone(),
                puller_incarnation: Incarnation(0),
            };
            let answer = self.links.call(node, CALL_DEADLINE, request).await?;
            let Response::Tail { incarnation: folder, upto, step, covered, entries, more, .. } =
                answer
            else {
                return Err(RpcError::new(ErrorKind::Internal, "answered something else"));
            };
            self.links.check_folder(node, folder, incarnation)?;
            let page = pulled.get_or_insert_with(|| Pulled {
                incarnation: folder,
                upto,
                step,
                complete: false,
                entries: HashMap::new(),
            });
            if page.incarnation != folder {
                return Err(RpcError::new(ErrorKind::Conflict, "its data folder changed"));
            }
            for entry in entries {
                page.entries.insert(entry.key, (entry.lsn, entry.version, entry.crc));
            }
            page.upto = upto;
            page.step = page.step.min(step);
            page.complete = covered && !more;
            if !more || page.entries.len() >= PULLED_ENTRIES_MAX {
                break;
            }
            (after, incarnation) = (upto, folder);
        }
        pulled.ok_or_else(|| RpcError::new(ErrorKind::Internal, "no tail"))
    }

    /// The winning records, as many as one step takes; what is left out is not covered by it.
    pub(super) async fn fetch_missing(
        &self,
        p: PartitionId,
        gathered: &Gathered,
    ) -> Result<BTreeMap<StoredKey, Record>, StepError> {
        let me = self.engine.node();
        let mut by_holder: BTreeMap<&NodeId, Vec<StoredKey>> = BTreeMap::new();
        for (key, (_, holders)) in &gathered.newest {
            let mut seen_crc = Vec::new();
            let own_first = holders
                .iter()
                .filter(|(node, _)| node == me)
                .chain(holders.iter().filter(|(node, _)| node != me));
            for (node, crc) in own_first {
                if !seen_crc.contains(crc) {
                    seen_crc.push(*crc);
                    by_holder.entry(node).or_default().push(key.clone());
                }
            }
        }
        let mut records = BTreeMap::new();
        let mut bytes = 0;
        // In each holder's LSN order: what does not fit is then what came last, and coverage moves
        // on. Own records first, so that a step makes progress whoever else is there.
        for (node, keys) in &mut by_holder {
            if let Some(pulled) = gathered.pulled.get(*node) {
                keys.sort_by_key(|key| pulled.entries.get(key).map(|(lsn, _, _)| *lsn));
            }
        }
        let mut holders: Vec<_> = by_holder.into_iter().collect();
        holders.sort_by_key(|(node, _)| *node != me);
        for (node, keys) in holders {
            self.fetch_from(p, node, keys, &mut records, &mut bytes).await?;
        }
        // Two records of one version were both fetched and merged; what lost needs no more.
        Ok(records)
    }

    async fn fetch_from(
        &self,
        p: PartitionId,
        node: &NodeId,
        keys: Vec<StoredKey>,
        records: &mut BTreeMap<StoredKey, Record>,
        bytes: &mut usize,
    ) -> Result<(), StepError> {
        let failed =
            |missing: usize, reason: String| StepError::Fetch { partition: p, missing, reason };
        let mut left = keys.as_slice();
        while !left.is_empty() && *bytes < STEP_BYTES_MAX {
            let batch = &left[..left.len().min(FETCH_KEYS)];
            let request = Request::Fetch { partition: p, keys: batch.to_vec() };
            let answer = self
                .links
                .call(node, 2 * CALL_DEADLINE, request)
                .await
                .map_err(|error| failed(left.len(), format!("{node}: {}", error.message)))?;
            let Response::Fetch { records: fetched, more } = answer else {
                return Err(failed(left.len(), format!("{node} answered something else")));
            };
            // Answers come in the order asked for.
            let in_order = fetched.iter().zip(batch).all(|(record, key)| record.key() == *key);
            let whole = more || fetched.len() == batch.len();
            if !in_order || !whole || fetched.is_empty() {
                // It was covered meanwhile: somebody else took a step.
                let text = format!("{node} does not hold them any more");
                return Err(failed(batch.len().saturating_sub(fetched.len()), text));
            }
            left = &left[fetched.len()..];
            for record in fetched {
                *bytes += record.bytes().len();
                let key = record.key();
                let merged = match records.remove(&key) {
                    Some(held) => merge(held, record),
                    None => record,
                };
                records.insert(key, merged);
            }
        }
        Ok(())
    }
}
