//! Which document comes next in a migration, and what it still waits for. Pure.
//!
//! Invariants (docs/decisions/0008-migration.md): writes need the other set only once enough of its
//! nodes take them; reads move only to nodes whose view covers whatever was complete before both
//! sets were written; a set is written until too few of it are left to answer a read by an older
//! document, and enough of the other one vote; a deployment is dropped when none of its nodes holds what no step has covered.
//! A node that is not heard of is waited for while `patient`, and then only where the rules need it;
//! one that the file gives up is not waited for at all. That never applies to a node that answers.

use std::collections::{BTreeMap, BTreeSet};

use tako_flatbuf::{NodeState, PartitionStanding, Standing};
use tako_types::{
    Incarnation, Lsn, NodeId, PartitionId, StepNumber,
    config::{Config, Migration, Phase, Published, ReplicaSet},
};

use super::{
    order::{Order, leaving},
    standings::{FOREIGN, Standings, cluster_of, is_foreign},
};

/// All that the next document depends on.
pub(crate) struct Moment<'a> {
    /// With a migration.
    pub(crate) in_force: &'a Published,
    /// The operator's file.
    pub(crate) file: &'a Config,
    pub(crate) order: Order,
    pub(crate) standings: &'a Standings,
    pub(crate) patient: bool,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// For these reasons, each for an operator to read.
    Wait(Vec<String>),
    /// Both sets are written; the file does not ask for more.
    Hold,
    /// Take a step of each of these, by one of the nodes.
    Steps(BTreeMap<PartitionId, Vec<NodeId>>),
    /// Publish this.
    Publish(Box<Config>, Option<Migration>),
}

/// See the module.
pub(crate) fn next(moment: &Moment<'_>) -> Next {
    let Some(migration) = &moment.in_force.migration else { return Next::Hold };
    match (migration.phase, moment.order) {
        (Phase::Join, _) => moment.join(migration),
        (Phase::WriteBoth, Order::Promote | Order::Finish) => moment.write_both(migration),
        (Phase::WriteBoth, Order::Abort) => moment.abort(migration),
        (Phase::ReadNew, Order::Finish) => moment.read_new(migration),
        (Phase::WriteBoth | Phase::ReadNew, _) => Next::Hold,
        (Phase::Leave, _) => moment.leave(),
    }
}

/// Nodes that something waits for, and why.
#[derive(Default)]
struct Missing(BTreeMap<NodeId, BTreeSet<&'static str>>);

impl Missing {
    fn note(&mut self, node: &NodeId, why: &'static str) {
        self.0.entry(node.clone()).or_default().insert(why);
    }

    /// Adds those of `set` that are not `there`, if these are too few.
    fn check(
        &mut self,
        set: &ReplicaSet,
        (least, patient): (usize, bool),
        why_not: impl Fn(&NodeId) -> Option<&'static str>,
    ) {
        let missing: Vec<_> =
            set.nodes.iter().filter_map(|node| Some((node, why_not(node)?))).collect();
        let needed = if patient { set.nodes.len() } else { least };
        if set.nodes.len() - missing.len() < needed {
            missing.into_iter().for_each(|(node, why)| self.note(node, why));
        }
    }

    fn reasons(self) -> Vec<String> {
        let reason = |(node, why): (NodeId, BTreeSet<&str>)| {
            format!("{node} {}", why.into_iter().collect::<Vec<_>>().join(", "))
        };
        self.0.into_iter().map(reason).collect()
    }
}

const UNHEARD: &str = "does not answer";
const BEHIND: &str = "does not have this configuration yet";

impl Moment<'_> {
    fn epoch(&self) -> u64 {
        self.in_force.epoch.number
    }

    /// The partitions that move, with the set that was there first and the one that comes.
    fn moving(&self, migration: &Migration) -> Vec<(PartitionId, ReplicaSet, ReplicaSet)> {
        let sets = |p: PartitionId| {
            let old = self.in_force.set_in(&self.in_force.config.active, p)?;
            let new = self.in_force.set_in(&migration.other, p)?;
            (!new.is_like(&old)).then_some((p, old, new))
        };
        self.in_force.partitions().filter_map(sets).collect()
    }

    fn row(&self, node: &NodeId, p: PartitionId) -> Option<(&Standing, &PartitionStanding)> {
        let standing = self.standings.get(node)?;
        let at = standing.partitions.binary_search_by_key(&p, |row| row.partition).ok()?;
        Some((standing, &standing.partitions[at]))
    }

    /// The operator says that it is gone for good, and it does not answer: it counts like one that
    /// did its part, as it will never answer a request again.
    fn is_given_up(&self, node: &NodeId) -> bool {
        self.file.accept_loss.contains(node) && !self.standings.contains_key(node)
    }

    /// Why a node of a set that is left by reads does not know of it.
    fn unaware(&self, node: &NodeId) -> Option<&'static str> {
        self.not_here(node).filter(|_| !self.is_given_up(node))
    }

    /// Why a node does not go by the document in force.
    fn not_here(&self, node: &NodeId) -> Option<&'static str> {
        match self.standings.get(node) {
            None => Some(UNHEARD),
            Some(standing) if standing.epoch < self.epoch() => Some(BEHIND),
            Some(_) => None,
        }
    }

    fn is_foreign(&self, standing: &Standing) -> bool {
        is_foreign(standing, cluster_of(self.in_force, self.standings))
    }

    /// Why a node of the other set does not take its part yet.
    fn not_ready(&self, node: &NodeId, p: PartitionId, step: StepNumber) -> Option<&'static str> {
        if let Some(why) = self.not_here(node) {
            return Some(why);
        }
        match self.row(node, p) {
            Some((standing, _)) if self.is_foreign(standing) => Some(FOREIGN),
            Some((standing, _)) if standing.state != NodeState::Serving => Some("is not serving"),
            Some((_, row)) if !row.holder => Some("has not opened its partitions"),
            Some((_, row)) if !row.recovered => Some("is recovering"),
            Some((_, row)) if row.step < step => Some("has not opened the barrier's step"),
            Some(_) => None,
            None => Some("has not opened its partitions"),
        }
    }

    /// Why a node's answers do not count for reads yet that the document has ask it.
    fn not_voting(&self, node: &NodeId, p: PartitionId) -> Option<&'static str> {
        let why = self.not_ready(node, p, StepNumber(0));
        why.or_else(|| match self.row(node, p) {
            Some((_, row)) if !row.voting => Some("has not opened the barrier's step"),
            _ => None,
        })
    }

    /// The document in force, in another phase.
    fn go_on(&self, phase: Phase, migration: &Migration, barrier: Vec<StepNumber>) -> Next {
        let migration = Migration { phase, other: migration.other.clone(), barrier };
        Next::Publish(Box::new((*self.in_force.config).clone()), Some(migration))
    }

    fn go_to_leave(&self, other: &str) -> Next {
        let config = leaving(self.in_force, self.file, other);
        let migration =
            Migration { phase: Phase::Leave, other: other.to_owned(), barrier: Vec::new() };
        Next::Publish(Box::new(config), Some(migration))
    }

    fn join(&self, migration: &Migration) -> Next {
        let mut missing = Missing::default();
        for (p, _, new) in self.moving(migration) {
            let least = new.quorum.w.max(new.quorum.r);
            let why_not = |node: &NodeId| self.not_ready(node, p, StepNumber(0));
            missing.check(&new, (least, self.patient), why_not);
        }
        if missing.0.is_empty() {
            return self.go_on(Phase::WriteBoth, migration, Vec::new());
        }
        Next::Wait(missing.reasons())
    }

    fn write_both(&self, migration: &Migration) -> Next {
        let mut missing = Missing::default();
        let mut steps = BTreeMap::new();
        let mut barrier = vec![StepNumber(0); self.in_force.partitions().count()];
        for (p, old, new) in self.moving(migration) {
            let why_not = |node: &NodeId| match self.noted(node, p) {
                Some(_) => None,
                None => self.not_here(node).or(Some("is recovering")),
            };
            // Whatever was complete before this epoch is with one of as many. Who is given up tells
            // nothing, so it does not stand in for one of the others, which may all be needed then.
            let mut living = old.clone();
            living.nodes.retain(|node| !self.is_given_up(node));
            let least = old.quorum.covering().min(living.nodes.len());
            missing.check(&living, (least, self.patient), why_not);
            let noted: Vec<_> =
                old.nodes.iter().filter_map(|node| Some((node, self.noted(node, p)?))).collect();
            match self.covering_step(p, &noted) {
                Some(step) => barrier[usize::from(p.0)] = step,
                None => {
                    let by: Vec<NodeId> = noted.iter().map(|(node, _)| (*node).clone()).collect();
                    steps.insert(p, by);
                    continue;
                }
            }
            let step = barrier[usize::from(p.0)];
            let least = new.quorum.w.max(new.quorum.r);
            let why_not = |node: &NodeId| self.not_ready(node, p, step);
            missing.check(&new, (least, self.patient), why_not);
        }
        if !missing.0.is_empty() {
            return Next::Wait(missing.reasons());
        }
        if !steps.is_empty() {
            return Next::Steps(steps);
        }
        self.go_on(Phase::ReadNew, migration, barrier)
    }

    /// What the node had written when it adopted the document in force.
    fn noted(&self, node: &NodeId, p: PartitionId) -> Option<(Incarnation, Lsn)> {
        let (standing, row) = self.row(node, p)?;
        let lsn = row.adopted_lsn.filter(|_| standing.noted == self.epoch())?;
        Some((standing.incarnation, lsn))
    }

    /// The first step, of those that nodes show, that covers all that was noted. Later ones would do
    /// as well, but each comes to the other set's nodes only after it, so waiting for the newest one
    /// may have to begin anew. Where somebody had nothing left to be covered, that is no step in
    /// particular: then the newest, which is no older than what that node showed.
    fn covering_step(
        &self,
        p: PartitionId,
        noted: &[(&NodeId, (Incarnation, Lsn))],
    ) -> Option<StepNumber> {
        let rows: Vec<_> =
            self.standings.keys().filter_map(|node| Some(self.row(node, p)?.1)).collect();
        let covers = |row: &PartitionStanding,
                      (node, (folder, lsn)): (&NodeId, (Incarnation, Lsn))| {
            row.coverage
                .iter()
                .any(|(covered, of, upto)| covered == node && *of == folder && lsn <= *upto)
        };
        let first = |&noted: &(&NodeId, (Incarnation, Lsn))| match noted.1.1 {
            Lsn(0) => rows.iter().map(|row| row.step).max(),
            _ => rows.iter().filter(|row| covers(row, noted)).map(|row| row.step).min(),
        };
        // In time each of them is covered by every later step too.
        noted.iter().map(first).try_fold(StepNumber(0), |barrier, step| Some(barrier.max(step?)))
    }

    fn read_new(&self, migration: &Migration) -> Next {
        let mut missing = Missing::default();
        for (p, old, new) in self.moving(migration) {
            let least = old.quorum.n - old.quorum.r + 1;
            missing.check(&old, (least, self.patient), |node| self.unaware(node));
            // Alone it is judged by those of it that vote, and what they lack the old one has.
            let least = new.quorum.w.max(new.quorum.r);
            missing.check(&new, (least, self.patient), |node| self.not_voting(node, p));
        }
        if missing.0.is_empty() {
            return self.go_to_leave(&self.in_force.config.active);
        }
        Next::Wait(missing.reasons())
    }

    /// Reads may have asked the other set under the document before, and must not any more once it
    /// is not written.
    fn abort(&self, migration: &Migration) -> Next {
        let mut missing = Missing::default();
        if !migration.barrier.is_empty() {
            for (_, _, new) in self.moving(migration) {
                let least = new.quorum.n - new.quorum.r + 1;
                missing.check(&new, (least, self.patient), |node| self.unaware(node));
            }
        }
        if missing.0.is_empty() {
            return self.go_to_leave(&migration.other);
        }
        Next::Wait(missing.reasons())
    }

    fn leave(&self) -> Next {
        let mut missing = Missing::default();
        let mut steps = BTreeMap::new();
        for p in self.in_force.partitions() {
            let placement = self.in_force.placement(p);
            let left = placement.holders.iter().filter(|node| !placement.read.nodes.contains(node));
            for node in left {
                match self.not_here(node) {
                    // What it has that nobody else has was never complete.
                    Some(UNHEARD) if !self.patient || self.is_given_up(node) => {}
                    Some(why) => missing.note(node, why),
                    None if self.row(node, p).is_some_and(|(_, row)| row.uncovered > 0) => {
                        steps.insert(p, placement.snapshotters.clone());
                    }
                    None => {}
                }
            }
        }
        if !steps.is_empty() {
            return Next::Steps(steps);
        }
        if missing.0.is_empty() {
            return Next::Publish(Box::new(self.file.clone()), None);
        }
        Next::Wait(missing.reasons())
    }
}

#[cfg(test)]
mod tests;
