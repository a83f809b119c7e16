//! Has the nodes bring what they hold into the store, so that a backup has it.
//!
//! Invariant: a partition counts as stepped when N−W+1 nodes of each set that is written said what
//! they hold of it, and a step covers all of that. What was acknowledged before is then in the
//! store. Every call has a deadline; who does not answer is left out.

use std::collections::{BTreeMap, BTreeSet};

use tako_types::{
    Incarnation, Lsn, NodeId, PartitionId,
    config::{Published, ReplicaSet},
};

use crate::{Nodes, Standings};

/// Rounds of asking and stepping; the second sees what the first one's steps covered. A large step
/// goes on at its node when nobody waits for it any more.
const ROUNDS: usize = 8;

/// What each node holds of each partition and no step had covered.
type Held = BTreeMap<(PartitionId, NodeId), (Incarnation, Lsn)>;

/// Forces steps; the partitions of which it is not sure that all is covered.
pub async fn step_all(nodes: &Nodes, document: &Published) -> Vec<PartitionId> {
    let first = nodes.standings(document).await;
    let mut open: BTreeSet<PartitionId> = document.partitions().collect();
    let unheard: BTreeSet<PartitionId> = document
        .partitions()
        .filter(|p| !document.placement(*p).write_sets().all(|set| is_heard(*p, set, &first)))
        .collect();
    let held = held_by(&first);
    let mut standings = first;
    for round in 0..ROUNDS {
        if 0 < round {
            standings = nodes.standings(document).await;
        }
        open.retain(|p| !is_covered(*p, &held, &standings));
        if open.is_empty() {
            break;
        }
        let by = |p: &PartitionId| document.placement(*p).snapshotters.clone();
        nodes.steps(document, open.iter().map(|p| (*p, by(p))).collect()).await;
    }
    open.into_iter().chain(unheard).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether so many of a set told what they hold that one of them has every complete write. Who is
/// recovering holds less than it acknowledged.
fn is_heard(p: PartitionId, set: &ReplicaSet, standings: &Standings) -> bool {
    let tells = |node: &&NodeId| {
        standings.get(*node).is_some_and(|standing| {
            standing.partitions.iter().any(|row| row.partition == p && row.recovered)
        })
    };
    set.quorum.covering() <= set.nodes.iter().filter(tells).count()
}

fn held_by(standings: &Standings) -> Held {
    let rows = standings.iter().flat_map(|(node, standing)| {
        let rows = standing.partitions.iter().filter(|row| 0 < row.last_lsn.0);
        rows.map(|row| ((row.partition, node.clone()), (standing.incarnation, row.last_lsn)))
    });
    rows.collect()
}

/// Whether the newest step that anybody shows covers all that was held.
fn is_covered(p: PartitionId, held: &Held, standings: &Standings) -> bool {
    let rows = standings.values().flat_map(|standing| &standing.partitions);
    let newest = rows.filter(|row| row.partition == p).max_by_key(|row| row.step);
    held.iter().filter(|((of, _), _)| *of == p).all(|((_, node), at)| {
        newest.is_some_and(|row| {
            let mut coverage = row.coverage.iter();
            coverage.any(|(of, folder, upto)| of == node && *at <= (*folder, *upto))
        })
    })
}

#[cfg(test)]
mod tests {
    use tako_flatbuf::{NodeState, PartitionStanding, Standing};
    use tako_types::{
        StepNumber,
        config::{Consistency, Quorum},
    };

    use super::*;

    const P: PartitionId = PartitionId(0);

    /// A node that holds `P` up to some LSN.
    fn standing(recovered: bool) -> Standing {
        let row = PartitionStanding {
            partition: P,
            holder: true,
            adopted_lsn: None,
            last_lsn: Lsn(5),
            step: StepNumber(1),
            uncovered: 1,
            recovered,
            voting: recovered,
            coverage: Vec::new(),
        };
        let state = if recovered { NodeState::Serving } else { NodeState::Recovering };
        let (incarnation, partitions) = (Incarnation(1), vec![row]);
        Standing { cluster: None, epoch: 1, noted: 0, state, incarnation, partitions, more: false }
    }

    fn standings(of: [(&str, Standing); 2]) -> Standings {
        of.into_iter().map(|(node, standing)| (NodeId::new(node), standing)).collect()
    }

    #[test]
    fn a_recovering_node_is_not_counted_among_those_that_said_what_they_hold() {
        let nodes: Vec<NodeId> = ["n1", "n2", "n3"].iter().map(|id| NodeId::new(id)).collect();
        let set = ReplicaSet { quorum: Quorum::of(Consistency::Quorum, nodes.len()), nodes };
        // The third is away: of two that vote, one has every write that was complete.
        let both = standings([("n1", standing(true)), ("n2", standing(true))]);
        assert!(is_heard(P, &set, &both));
        let one = standings([("n1", standing(true)), ("n2", standing(false))]);
        assert!(!is_heard(P, &set, &one), "what it lost may be in no step of the backup");
    }
}
