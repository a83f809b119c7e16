//! Faults and the plan of a run: from the seed alone, before anything starts.

use std::{fmt, time::Duration};

use clap::ValueEnum;

use crate::chance::Chance;

/// Kinds of faults, as `--faults` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// kill -9 of one process or of all, and a start
    Kill,
    /// SIGSTOP, and SIGCONT or kill -9 after a while
    Stop,
    /// Nodes do not reach each other or the proxy, one way or both
    Cut,
    /// The disk of a node is full
    Disk,
    /// The object store hangs or refuses
    Store,
    /// A node is killed, and starts again without its files
    Empty,
    /// SIGTERM, and a start
    Drain,
}

/// One fault. Processes by their place: nodes, then the proxy, then the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants say what their fields are")]
pub enum Fault {
    /// kill -9, and a start after `down`.
    Kill { at: usize, down: Duration },
    /// kill -9 of all, and a start of all after `down`.
    KillAll { down: Duration },
    /// SIGSTOP for `time`; then it is killed, or goes on.
    Stop { at: usize, time: Duration, then_kill: bool },
    /// Nothing passes from one to the other.
    Cut { from: usize, to: usize, both: bool, time: Duration },
    /// Nothing passes from or to one of them.
    Alone { at: usize, time: Duration },
    /// No space left.
    Disk { at: usize, time: Duration },
    /// The store is away.
    Store { hangs: bool, time: Duration },
    /// kill -9, everything deleted, a start after `down`.
    Empty { at: usize, down: Duration },
    /// SIGTERM, and a start after its end and `down`.
    Drain { at: usize, down: Duration },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A fault and when it comes, counted from the begin of the load.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    /// When.
    pub at: Duration,
    /// What.
    pub fault: Fault,
}

/// The plan of a seed: faults of these kinds on so many nodes, for `load`.
#[must_use]
pub fn plan(seed: u64, kinds: &[Kind], nodes: usize, load: Duration) -> Vec<Planned> {
    let mut chance = Chance::new(seed).part(0);
    let seconds = Duration::from_secs;
    let mut at = seconds(1);
    let mut plan = Vec::new();
    while at < load {
        let Some(kind) = chance.pick(kinds) else { break };
        let node = chance.below(nodes);
        // The proxy and the coordinator now and then.
        let any = if chance.yes(0.15) { nodes + chance.below(2) } else { node };
        let other = (node + 1 + chance.below(nodes)) % (nodes + 1);
        let fault = match kind {
            Kind::Kill if chance.yes(0.12) => {
                Fault::KillAll { down: chance.time(Duration::ZERO, seconds(2)) }
            }
            Kind::Kill => Fault::Kill { at: any, down: chance.time(Duration::ZERO, seconds(4)) },
            Kind::Stop => Fault::Stop {
                at: any,
                time: chance.time(seconds(1), seconds(15)),
                then_kill: chance.yes(0.25),
            },
            Kind::Cut if chance.yes(0.3) => {
                Fault::Alone { at: node, time: chance.time(seconds(1), seconds(12)) }
            }
            Kind::Cut => {
                let (from, to) = if chance.yes(0.5) { (node, other) } else { (other, node) };
                let (both, time) = (chance.yes(0.4), chance.time(seconds(1), seconds(12)));
                Fault::Cut { from, to, both, time }
            }
            Kind::Disk => Fault::Disk { at: node, time: chance.time(seconds(2), seconds(10)) },
            Kind::Store => {
                Fault::Store { hangs: chance.yes(0.5), time: chance.time(seconds(1), seconds(15)) }
            }
            Kind::Empty => Fault::Empty { at: node, down: chance.time(Duration::ZERO, seconds(2)) },
            Kind::Drain => Fault::Drain { at: any, down: chance.time(Duration::ZERO, seconds(2)) },
        };
        plan.push(Planned { at, fault });
        at += chance.time(Duration::from_millis(500), seconds(5));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_plan_and_another_seed_another() {
        let minute = Duration::from_secs(60);
        let of = |seed| {
            let plan = plan(seed, Kind::value_variants(), 3, minute);
            plan.iter().map(|planned| planned.fault.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn a_plan_has_only_faults_of_its_kinds_and_no_node_is_cut_from_itself() {
        for seed in 0..200 {
            for planned in plan(seed, &[Kind::Cut], 3, Duration::from_secs(60)) {
                match planned.fault {
                    Fault::Cut { from, to, .. } => assert!(from != to && from < 4 && to < 4),
                    Fault::Alone { at, .. } => assert!(at < 3),
                    other => panic!("{other}"),
                }
            }
        }
    }
}
