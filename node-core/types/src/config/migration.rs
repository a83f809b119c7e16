//! Where a move from one deployment to another stands, and what that means for a partition.
//!
//! ```text
//! join ─► write-both ─► read-new ─► leave ─► (no migration)
//!    └──────────┴──── abort ────────┘
//! ```
//! The phase is part of the published document, so every process knows it by the epoch alone.
//! Pure. Not here: when the next phase may be published (`tako-coordinator`).

use serde::{Deserialize, Serialize};

use super::{Deployment, Quorum};
use crate::{NodeId, StepNumber};

/// How far a migration has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The other deployment's nodes may start and open snapshots; requests do not know them.
    Join,
    /// Writes go to both deployments, reads to the active one.
    WriteBoth,
    /// Writes go to both deployments, reads to the other one.
    ReadNew,
    /// Requests go to the active deployment only; what the other one's nodes hold is pulled until
    /// it is covered.
    Leave,
}

impl Phase {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::WriteBoth => "write-both",
            Self::ReadNew => "read-new",
            Self::Leave => "leave",
        }
    }
}

/// A migration under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    /// How far it has come.
    pub phase: Phase,
    /// The other deployment: the target, and at the end the one that is left.
    pub other: String,
    /// In [`Phase::ReadNew`] per partition the step that a node's view must have reached before it
    /// votes. It stays when a migration that is given up goes back to [`Phase::WriteBoth`], which says
    /// there that reads may have asked the other deployment. Empty otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub barrier: Vec<StepNumber>,
}

/// Nodes that answer for a partition together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSet {
    /// Who.
    pub nodes: Vec<NodeId>,
    /// How many of them a request needs where it does not say so itself.
    pub quorum: Quorum,
}

impl ReplicaSet {
    /// The nodes of `row`'s buckets.
    pub(super) fn of(deployment: &Deployment, row: &[u16]) -> Self {
        let nodes: Vec<NodeId> = row
            .iter()
            .flat_map(|index| &deployment.buckets[usize::from(*index)].nodes)
            .map(|node| node.id.clone())
            .collect();
        let quorum = Quorum::of(deployment.consistency, nodes.len());
        Self { nodes, quorum }
    }

    /// Whether requests mean the same by both.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.quorum == other.quorum
            && self.nodes.len() == other.nodes.len()
            && self.nodes.iter().all(|node| other.nodes.contains(node))
    }
}

/// Who does what for one partition under one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Where reads go; the first of the written sets, or the second in [`Phase::ReadNew`].
    pub read: ReplicaSet,
    /// Where writes go besides, each set by its own W.
    pub also_write: Option<ReplicaSet>,
    /// Everybody who may hold entries of it or opens its snapshot: pulled, announced to, and asked
    /// before anything is purged. Requests' nodes first.
    pub holders: Vec<NodeId>,
    /// Who takes its steps: the set that was there first while there are two.
    pub snapshotters: Vec<NodeId>,
    /// A node whose view is below this step does not vote.
    pub barrier: StepNumber,
}

impl Placement {
    /// The sets a write must reach.
    pub fn write_sets(&self) -> impl Iterator<Item = &ReplicaSet> {
        std::iter::once(&self.read).chain(&self.also_write)
    }

    /// All nodes a write is sent to, each once.
    #[must_use]
    pub fn writers(&self) -> Vec<NodeId> {
        let mut nodes = self.read.nodes.clone();
        if let Some(also) = &self.also_write {
            let new = also.nodes.iter().filter(|node| !self.read.nodes.contains(node));
            nodes.extend(new.cloned());
        }
        nodes
    }

    /// Whether writes go to `node`.
    #[must_use]
    pub fn takes_writes(&self, node: &NodeId) -> bool {
        self.write_sets().any(|set| set.nodes.contains(node))
    }

    /// `active` and, while one is under way, the migration with the other deployment's set.
    pub(super) fn new(
        active: ReplicaSet,
        other: Option<(&Migration, ReplicaSet)>,
        partition: usize,
    ) -> Self {
        let mut placement = Self {
            holders: active.nodes.clone(),
            snapshotters: active.nodes.clone(),
            read: active,
            also_write: None,
            barrier: StepNumber(0),
        };
        let Some((migration, other)) = other else { return placement };
        // A partition that stays where it is has nothing to move.
        if other.is_like(&placement.read) {
            return placement;
        }
        for node in &other.nodes {
            if !placement.holders.contains(node) {
                placement.holders.push(node.clone());
            }
        }
        match migration.phase {
            Phase::Join | Phase::Leave => {}
            Phase::WriteBoth => placement.also_write = Some(other),
            Phase::ReadNew => {
                placement.also_write = Some(std::mem::replace(&mut placement.read, other));
                placement.barrier =
                    migration.barrier.get(partition).copied().unwrap_or(StepNumber(0));
            }
        }
        placement
    }
}
