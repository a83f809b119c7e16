//! A broken promise, and what a check came to.

use std::fmt;

use crate::{History, Operation};

/// Violations of one check that are kept with their operations; the rest is counted.
const KEPT_MAX: usize = 100;

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// The history itself cannot be: the recorder is at fault.
    Malformed,
    /// A read older than a write acknowledged before it began.
    StaleRead,
    /// An answer that no write explains.
    Unwritten,
    /// One version with two contents.
    SplitVersion,
    /// A read older than what an earlier read saw.
    WentBack,
    /// A write acknowledged below one that was acknowledged before it began.
    AckedBelow,
    /// A deleted or expired value is back.
    Returned,
    /// An acknowledged write is gone.
    Lost,
    /// Replicas differ after quiet.
    Disagree,
    /// Journal entries are uncovered after quiet.
    Uncovered,
    /// A conditional write missed one that was acknowledged below it.
    Missed,
    /// No order of the operations explains the answers.
    NotLinearizable,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Malformed => "malformed history",
            Self::StaleRead => "stale read",
            Self::Unwritten => "an answer nobody wrote",
            Self::SplitVersion => "one version, two contents",
            Self::WentBack => "reads went back",
            Self::AckedBelow => "acknowledged below an earlier write",
            Self::Returned => "a deleted or expired value returned",
            Self::Lost => "acknowledged write lost",
            Self::Disagree => "replicas disagree",
            Self::Uncovered => "tail not empty",
            Self::Missed => "a change missed a write below it",
            Self::NotLinearizable => "not linearizable",
        }
    }
}

/// One broken promise, with the operations that show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub kind: Kind,
    /// Where; empty where it concerns no key.
    pub key: String,
    /// What is wrong, in a sentence.
    pub text: String,
    /// Indices into the history, in order of invocation.
    pub operations: Vec<usize>,
    /// The same operations as they print.
    lines: Vec<String>,
}

impl Violation {
    pub(crate) fn new(
        kind: Kind,
        key: &str,
        text: String,
        history: &History,
        involved: &[usize],
    ) -> Self {
        let mut ops: Vec<(usize, &Operation)> = involved
            .iter()
            .filter_map(|&index| Some((index, history.operations.get(index)?)))
            .collect();
        ops.sort_by_key(|(index, op)| (op.invoked_at, *index));
        ops.dedup_by_key(|(index, _)| *index);
        Self {
            kind,
            key: key.to_owned(),
            text,
            operations: ops.iter().map(|(index, _)| *index).collect(),
            lines: ops.iter().map(|(index, op)| format!("#{index} {op}")).collect(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.words())?;
        if !self.key.is_empty() {
            write!(f, " of {:?}", self.key)?;
        }
        write!(f, ": {}", self.text)?;
        for line in &self.lines {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// What one check came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Operations, answers or keys on which the promise could have been seen broken. With 0 the
    /// check looked at nothing.
    pub considered: usize,
    /// Keys that were given up on, as their search took too many states.
    pub undecided: Vec<String>,
    /// Keys left out, as the options do not cover what they hold.
    pub skipped: usize,
    /// The first hundred.
    pub violations: Vec<Violation>,
    /// All, with those that were not kept.
    pub violations_count: usize,
}

impl Verdict {
    /// Was nothing found, and nothing given up on?
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations_count == 0 && self.undecided.is_empty()
    }

    pub(crate) fn add(&mut self, violation: impl FnOnce() -> Violation) {
        self.violations_count += 1;
        if self.violations.len() < KEPT_MAX {
            self.violations.push(violation());
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} considered", self.considered)?;
        if self.skipped > 0 {
            write!(f, ", {} keys left out", self.skipped)?;
        }
        if !self.undecided.is_empty() {
            write!(f, ", {} keys undecided", self.undecided.len())?;
        }
        write!(f, ", {} violations", self.violations_count)?;
        for violation in &self.violations {
            write!(f, "\n  {violation}")?;
        }
        let more = self.violations_count - self.violations.len();
        if more > 0 {
            write!(f, "\n  and {more} more")?;
        }
        Ok(())
    }
}
