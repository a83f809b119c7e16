//! The last thing before a read's answer: that no later read goes behind it.
//!
//! In: the newest record of the votes, and whether they differ. Out: that record, written back first
//! where a later read could miss it. Two reasons:
//! - votes differ: another R of the read set may be those that lack it;
//! - two sets are written, and the next document may have reads ask the other one. A write that is
//!   under way or failed can be at the read set alone, so the votes agreeing is not enough.
//!
//! For the second, a record needs no writing back when it *lasts*: it came from the snapshot at step
//! s, and W′ nodes of the other set are known to see s or later. Any R′ of that set have one of them
//! among them, a step is never undone, and a node that starts opens the newest one before it votes:
//! so what gossip told of a node is true of every later vote of it. The barrier is no such proof. It
//! was chosen before its document was published, so reads may have met later steps meanwhile; and
//! it binds the target's nodes, while after an abort the active set's are asked, which may be behind.
//!
//! Anything else goes to W of each set by the rules of every write. The other set's indexes are not
//! asked beforehand: that would be a round as well, and could not tell which of what they hold was
//! taken in by folders lost since; a node that has the very record answers without journalling it.
//! Not here: how votes are had and compared (`read.rs`).

use tako_flatbuf::Record;
use tako_types::StepNumber;

use super::super::{
    RequestError, Serving,
    attempt::{Attempt, Halt},
};

/// What the votes of a read come to.
#[derive(Debug)]
pub(super) struct Newest {
    /// The newest record among them.
    pub(super) record: Option<Record>,
    /// The step at which the snapshot shows just this, where no uncovered entry took part.
    pub(super) covered_at: Option<StepNumber>,
    /// Not all of them are this record.
    pub(super) differ: bool,
}

impl Serving {
    /// Answers with the newest record once no later read can miss it; with `read_repair` off, at once.
    pub(super) async fn answer(
        &self,
        attempt: &Attempt,
        newest: Newest,
    ) -> Result<Option<Record>, Halt<RequestError>> {
        // To be absent is nothing that a later read could go behind.
        let Some(record) = newest.record else { return Ok(None) };
        let found_later = !newest.differ && self.lasts(attempt, newest.covered_at);
        if !found_later && attempt.document.config.active_deployment().read_repair {
            self.write_back(attempt, record.clone()).await?;
        }
        Ok(Some(record))
    }

    /// Whether a record that the read set agrees on is found by reads of the other set too, if there
    /// is one.
    fn lasts(&self, attempt: &Attempt, covered_at: Option<StepNumber>) -> bool {
        let Some(other) = &attempt.placement().also_write else { return true };
        let Some(covered_at) = covered_at else { return false };
        let seeing = other.nodes.iter().filter(|node| {
            let seen = match self.links.local().filter(|_| self.links.is_local(node)) {
                Some(local) => Some(local.engine().step(attempt.p)),
                None => self.links.membership.step_seen(node, attempt.p),
            };
            seen.is_some_and(|seen| covered_at <= seen)
        });
        other.quorum.w <= seeing.count()
    }
}
