//! Counts replicas' answers to one write and says when its outcome is settled.
//!
//! In: one answer per replica. Out: an [`Outcome`]. Rules (docs/architecture.md, "Quorum"):
//! - every written set needs its W acknowledgements, of which N−W+1 from replicas that vote;
//! - an acknowledgement by a data folder that another replica already knows to be replaced is
//!   void: that folder is gone, and what replaced it may have been filled before the write came;
//! - a replica that durably holds something newer counts as an acknowledgement only where the
//!   write may settle for that ([`Newer`]).
//!
//! Pure: no sending, waiting or clocks.

use std::collections::HashMap;

use tako_types::{Incarnation, NodeId};

/// One set of replicas that a write must reach.
#[derive(Debug, Clone)]
pub(crate) struct SetNeed {
    pub(crate) members: Vec<NodeId>,
    pub(crate) w: usize,
}

impl SetNeed {
    /// How many of the W have to vote: N−W+1. With W = 1 there are not so many among W; then
    /// recovering asks all others instead.
    fn voters(&self) -> usize {
        (self.members.len() + 1).saturating_sub(self.w).min(self.w)
    }
}

/// What a replica is to a write when it holds something newer; only voters say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Newer {
    /// As good as an acknowledgement: W replicas that hold this version or newer ones are all
    /// that a later read asks for.
    Settles,
    /// None: what is newer may have been complete before this write began, which must go above it.
    Refuses,
}

/// Where a write stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Pending,
    Reached,
    Impossible,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Acked { incarnation: Incarnation, voting: bool },
    Newer,
    Failed,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tally {
    sets: Vec<SetNeed>,
    newer: Newer,
    answers: HashMap<NodeId, Answer>,
    known: HashMap<NodeId, Incarnation>,
    /// Newest folder known of a replica when the write was sent to it again.
    sent_again: HashMap<NodeId, Incarnation>,
}

impl Tally {
    pub(crate) fn new(sets: Vec<SetNeed>, newer: Newer) -> Self {
        let (answers, known, sent_again) = Default::default();
        Self { sets, newer, answers, known, sent_again }
    }

    /// Counts an acknowledgement; gives the replicas whose acknowledgement is void and to whom
    /// the write must be sent again.
    pub(crate) fn ack(
        &mut self,
        node: &NodeId,
        incarnation: Incarnation,
        voting: bool,
        known: &[(NodeId, Incarnation)],
    ) -> Vec<NodeId> {
        self.answers.insert(node.clone(), Answer::Acked { incarnation, voting });
        for (other, seen) in known.iter().chain([&(node.clone(), incarnation)]) {
            let newest = self.known.entry(other.clone()).or_default();
            *newest = (*newest).max(*seen);
        }
        let void: Vec<NodeId> = self
            .answers
            .iter()
            .filter(|(node, answer)| match answer {
                Answer::Acked { incarnation, .. } => {
                    self.known.get(*node).is_some_and(|newest| newest > incarnation)
                }
                Answer::Newer | Answer::Failed => false,
            })
            .map(|(node, _)| node.clone())
            .collect();
        let newest = |node: &NodeId| self.known.get(node).copied().unwrap_or_default();
        let again: Vec<(NodeId, Incarnation)> =
            void.into_iter().map(|node| (node.clone(), newest(&node))).collect();
        let mut send = Vec::new();
        for (node, newest) in again {
            if self.sent_again.get(&node) == Some(&newest) {
                // It still answers from the old folder: asking it for ever would not help.
                self.answers.insert(node, Answer::Failed);
            } else {
                self.answers.remove(&node);
                self.sent_again.insert(node.clone(), newest);
                send.push(node);
            }
        }
        send
    }

    /// The replica durably holds something newer: the write has lost there in good order. To have
    /// promised something newer would not be enough.
    pub(crate) fn newer(&mut self, node: &NodeId) {
        self.answers.insert(node.clone(), Answer::Newer);
    }

    pub(crate) fn fail(&mut self, node: &NodeId) {
        self.answers.insert(node.clone(), Answer::Failed);
    }

    /// Acknowledgements in the set that is worst off: (got, needed).
    pub(crate) fn progress(&self) -> (usize, usize) {
        self.sets
            .iter()
            .map(|set| (self.count(set).0, set.w))
            .min_by_key(|(got, need)| got.saturating_sub(*need))
            .unwrap_or((0, 0))
    }

    /// Whether enough voters answered, either way, to know of every write that was complete before
    /// they were asked: N−W+1 of each set.
    pub(crate) fn knows_newest(&self) -> bool {
        self.sets.iter().all(|set| {
            let heard = set.members.iter().filter(|member| {
                matches!(
                    self.answers.get(*member),
                    Some(Answer::Acked { voting: true, .. } | Answer::Newer)
                )
            });
            heard.count() >= set.voters()
        })
    }

    /// (acknowledged, of them voting, failed) in one set.
    fn count(&self, set: &SetNeed) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for member in &set.members {
            match self.answers.get(member) {
                Some(Answer::Acked { voting, .. }) => {
                    counts.0 += 1;
                    counts.1 += usize::from(*voting);
                }
                Some(Answer::Newer) if self.newer == Newer::Settles => {
                    counts.0 += 1;
                    counts.1 += 1;
                }
                Some(Answer::Failed) => counts.2 += 1,
                // Not this version, but the next one it may yet take.
                Some(Answer::Newer) | None => {}
            }
        }
        counts
    }

    pub(crate) fn outcome(&self) -> Outcome {
        let mut all_reached = true;
        for set in &self.sets {
            let n = set.members.len();
            let voters = set.voters();
            let (acked, voting, failed) = self.count(set);
            let open = n - acked - failed;
            if acked >= set.w && voting >= voters {
                continue;
            }
            if acked + open < set.w || voting + open < voters {
                return Outcome::Impossible;
            }
            all_reached = false;
        }
        if all_reached { Outcome::Reached } else { Outcome::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: usize) -> NodeId {
        NodeId::new(&format!("n{n}"))
    }

    fn tally(n: usize, w: usize) -> Tally {
        Tally::new(vec![SetNeed { members: (0..n).map(node).collect(), w }], Newer::Refuses)
    }

    /// `+` acknowledges and votes, `r` acknowledges while recovering, `-` fails.
    fn check(n: usize, w: usize, answers: &str, expected: Outcome) {
        let mut tally = tally(n, w);
        for (i, answer) in answers.chars().enumerate() {
            match answer {
                '+' => drop(tally.ack(&node(i), Incarnation(1), true, &[])),
                'r' => drop(tally.ack(&node(i), Incarnation(1), false, &[])),
                _ => tally.fail(&node(i)),
            }
        }
        assert_eq!(tally.outcome(), expected, "{answers} of {n}, W {w}");
    }

    #[test]
    fn a_write_is_settled_by_exactly_w_answers_of_which_enough_vote() {
        check(3, 2, "+", Outcome::Pending);
        check(3, 2, "++", Outcome::Reached);
        check(3, 2, "+r", Outcome::Pending);
        check(3, 2, "+r+", Outcome::Reached);
        check(3, 2, "+-r", Outcome::Impossible);
        check(3, 2, "--", Outcome::Impossible);
        check(1, 1, "+", Outcome::Reached);
        check(3, 1, "+", Outcome::Reached);
        check(3, 1, "r-+", Outcome::Reached);
        check(3, 1, "r--", Outcome::Impossible);
        check(4, 3, "+r", Outcome::Pending);
        check(4, 3, "+r+", Outcome::Reached);
        check(4, 3, "+rr", Outcome::Pending);
        check(4, 3, "+rr-", Outcome::Impossible);
    }

    #[test]
    fn a_replica_that_holds_something_newer_counts_only_where_the_write_may_settle_for_it() {
        let with_newer = |newer, answers: &str| {
            let set = SetNeed { members: (0..3).map(node).collect(), w: 2 };
            let mut tally = Tally::new(vec![set], newer);
            for (i, answer) in answers.chars().enumerate() {
                match answer {
                    '+' => drop(tally.ack(&node(i), Incarnation(1), true, &[])),
                    'r' => drop(tally.ack(&node(i), Incarnation(1), false, &[])),
                    'n' => tally.newer(&node(i)),
                    _ => tally.fail(&node(i)),
                }
            }
            (tally.outcome(), tally.knows_newest())
        };
        assert_eq!(with_newer(Newer::Settles, "n+"), (Outcome::Reached, true));
        assert_eq!(with_newer(Newer::Settles, "nn"), (Outcome::Reached, true));
        assert_eq!(with_newer(Newer::Settles, "nr"), (Outcome::Pending, false));
        assert_eq!(with_newer(Newer::Settles, "n--"), (Outcome::Impossible, false));
        assert_eq!(with_newer(Newer::Refuses, "n"), (Outcome::Pending, false));
        assert_eq!(with_newer(Newer::Refuses, "n-"), (Outcome::Pending, false));
        assert_eq!(with_newer(Newer::Refuses, "n+"), (Outcome::Pending, true));
        assert_eq!(with_newer(Newer::Refuses, "n++"), (Outcome::Reached, true));
        assert_eq!(with_newer(Newer::Refuses, "nn"), (Outcome::Pending, true));
        assert_eq!(with_newer(Newer::Refuses, "nr-"), (Outcome::Impossible, false));
    }

    #[test]
    fn an_acknowledgement_of_a_replaced_data_folder_is_void() {
        let mut tally = tally(3, 2);
        assert!(tally.ack(&node(0), Incarnation(4), true, &[]).is_empty());
        let void = tally.ack(&node(1), Incarnation(1), true, &[(node(0), Incarnation(5))]);
        assert_eq!(void, [node(0)]);
        assert_eq!(tally.outcome(), Outcome::Pending);
        assert!(tally.ack(&node(0), Incarnation(5), true, &[]).is_empty());
        assert_eq!(tally.outcome(), Outcome::Reached);
    }

    #[test]
    fn a_replica_that_goes_on_with_a_replaced_data_folder_is_asked_twice_and_no_more() {
        let mut tally = tally(3, 2);
        let known = [(node(0), Incarnation(7))];
        assert!(tally.ack(&node(1), Incarnation(1), true, &known).is_empty());
        assert_eq!(tally.ack(&node(0), Incarnation(1), true, &[]), [node(0)]);
        assert!(tally.ack(&node(0), Incarnation(1), true, &[]).is_empty());
        assert_eq!(tally.outcome(), Outcome::Pending);
        tally.fail(&node(2));
        assert_eq!(tally.outcome(), Outcome::Impossible);
        // A still newer folder is worth another try.
        let newer = [(node(0), Incarnation(8))];
        assert!(tally.ack(&node(0), Incarnation(7), true, &[]).is_empty());
        assert_eq!(tally.ack(&node(1), Incarnation(1), true, &newer), [node(0)]);
    }

    #[test]
    fn every_written_set_needs_its_own_quorum() {
        let old = SetNeed { members: vec![node(0), node(1), node(2)], w: 2 };
        let new = SetNeed { members: vec![node(2), node(3), node(4)], w: 2 };
        let mut tally = Tally::new(vec![old, new], Newer::Refuses);
        for i in [0, 1] {
            tally.ack(&node(i), Incarnation(1), true, &[]);
        }
        assert_eq!(tally.outcome(), Outcome::Pending);
        tally.ack(&node(2), Incarnation(1), true, &[]);
        assert_eq!(tally.outcome(), Outcome::Pending);
        tally.fail(&node(3));
        tally.ack(&node(4), Incarnation(1), true, &[]);
        assert_eq!(tally.outcome(), Outcome::Reached);
    }
}
