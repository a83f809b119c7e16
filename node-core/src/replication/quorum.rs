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
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetNeed<'a> {
    pub(crate) members: &'a [NodeId],
    /// Of this write.
    pub(crate) w: usize,
    /// Of writes that do not say so themselves.
    pub(crate) usual_w: usize,
}

impl SetNeed<'_> {
    /// How many of the W have to vote: N−W+1, so that one of them knows of any write that was
    /// complete; that one need not have asked for as many replicas as this one does. With W = 1
    /// there are not so many among W; then recovering asks all others instead.
    fn voters(&self) -> usize {
        let w = self.w.min(self.usual_w);
        (self.members.len() + 1).saturating_sub(w).min(w)
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
pub(crate) struct Tally<'a> {
    set: SetNeed<'a>,
    /// The second one, in a migration.
    also: Option<SetNeed<'a>>,
    newer: Newer,
    answers: HashMap<NodeId, Answer>,
    known: HashMap<NodeId, Incarnation>,
    /// Newest folder known of a replica when the write was sent to it again.
    sent_again: HashMap<NodeId, Incarnation>,
}

impl<'a> Tally<'a> {
    pub(crate) fn new(set: SetNeed<'a>, also: Option<SetNeed<'a>>, newer: Newer) -> Self {
        let (answers, known, sent_again) = Default::default();
        Self { set, also, newer, answers, known, sent_again }
    }

    fn sets(&self) -> impl Iterator<Item = &SetNeed<'a>> {
        std::iter::once(&self.set).chain(&self.also)
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

    /// Acknowledgements, (got, needed), in the set that is worst off: one that can no longer be
    /// reached before one that only waits for answers.
    pub(crate) fn progress(&self) -> (usize, usize) {
        self.sets()
            .map(|set| (self.outcome_in(set) == Outcome::Impossible, self.count(set).0, set.w))
            .max_by_key(|(lost, got, need)| (*lost, need.saturating_sub(*got)))
            .map_or((0, 0), |(_, got, need)| (got, need))
    }

    /// Whether enough voters answered, either way, to know of every write that was complete before
    /// they were asked: N−W+1 of each set, by the smaller of its usual W and this write's.
    pub(crate) fn knows_newest(&self) -> bool {
        self.sets().all(|set| {
            let heard = set.members.iter().filter(|member| {
                matches!(
                    self.answers.get(*member),
                    Some(Answer::Acked { voting: true, .. } | Answer::Newer)
                )
            });
            heard.count() >= set.voters()
        })
    }

    /// Whether W of each set hold the write, and only too few of them judge.
    pub(crate) fn lacks_judges(&self) -> bool {
        self.sets().all(|set| self.count(set).0 >= set.w)
    }

    /// (acknowledged, of them voting, failed) in one set.
    fn count(&self, set: &SetNeed<'_>) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for member in set.members {
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
        let mut all = Outcome::Reached;
        for set in self.sets() {
            match self.outcome_in(set) {
                Outcome::Reached => {}
                Outcome::Pending => all = Outcome::Pending,
                Outcome::Impossible => return Outcome::Impossible,
            }
        }
        all
    }

    fn outcome_in(&self, set: &SetNeed<'_>) -> Outcome {
        let voters = set.voters();
        let (acked, voting, failed) = self.count(set);
        let open = set.members.len() - acked - failed;
        if acked >= set.w && voting >= voters {
            Outcome::Reached
        } else if acked + open < set.w || voting + open < voters {
            Outcome::Impossible
        } else {
            Outcome::Pending
        }
    }
}

#[cfg(test)]
mod tests;
