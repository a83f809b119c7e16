//! All checks at once, each with how much it had to look at.

use std::fmt;

use crate::{
    Dump, History, Kind, Verdict, Violation, acks_rise, linearizable, nothing_is_lost,
    nothing_lies_between, nothing_returns, reads_are_fresh, reads_are_monotonic,
    rebuilt_from_store, replicas_agree,
};

/// What is known about a run beside its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How far a node's clock may be from the history's: for expiries only.
    pub clock_slack_micros: u64,
    /// Replicas of one key whose folders were lost together, at most: writes acknowledged by no
    /// more than these may be gone at the end.
    pub lost_replicas: u32,
    /// Count plain writes as register writes in [`linearizable`]. Without it, keys with plain
    /// writes are left out there: the higher version wins, not the later write.
    pub linearize_plain_writes: bool,
    /// States per key after which [`linearizable`] gives a key up as undecided.
    pub states_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock_slack_micros: 0,
            lost_replicas: 0,
            linearize_plain_writes: false,
            states_max: 1_000_000,
        }
    }
}

/// One check and what it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The promise, as the function is called.
    pub name: &'static str,
    /// What it came to.
    pub verdict: Verdict,
}

/// What all checks came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Report {
    /// In the order in which they ran.
    pub checks: Vec<Check>,
}

impl Report {
    /// Did no check find anything, or give anything up?
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.checks.iter().all(|check| check.verdict.is_clean())
    }

    /// Checks that looked at nothing.
    pub fn idle(&self) -> impl Iterator<Item = &'static str> {
        self.checks.iter().filter(|check| check.verdict.considered == 0).map(|check| check.name)
    }

    /// How much each check looked at, by its name.
    pub fn considered(&self) -> impl Iterator<Item = (String, usize)> {
        self.checks.iter().map(|check| (check.name.to_owned(), check.verdict.considered))
    }

    /// All that is wrong or was given up, a line each with the check's name.
    pub fn wrong(&self) -> impl Iterator<Item = String> {
        self.checks.iter().flat_map(|Check { name, verdict }| {
            let violations = verdict.violations.iter().map(move |it| format!("{name}: {it}"));
            let undecided = verdict.undecided.iter();
            violations.chain(undecided.map(move |key| format!("{name}: undecided for {key}")))
        })
    }

    /// The violations that were kept, of all checks.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.checks.iter().flat_map(|check| &check.verdict.violations)
    }

    /// One check by its name.
    #[must_use]
    pub fn verdict(&self, name: &str) -> Option<&Verdict> {
        self.checks.iter().find(|check| check.name == name).map(|check| &check.verdict)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            writeln!(f, "{}: {}", check.name, check.verdict)?;
        }
        Ok(())
    }
}

/// Runs every check that has its input: `dumps` of replicas after quiet (may be empty), and a
/// cluster `rebuilt` from the store with the time before which acknowledged writes must be in it.
pub fn check_all(
    history: &History,
    dumps: &[Dump],
    rebuilt: Option<(&Dump, u64)>,
    options: &Options,
) -> Report {
    let mut checks = vec![
        Check { name: "well_formed", verdict: well_formed(history) },
        Check { name: "reads_are_fresh", verdict: reads_are_fresh(history, options) },
        Check { name: "reads_are_monotonic", verdict: reads_are_monotonic(history, options) },
        Check { name: "acks_rise", verdict: acks_rise(history, options) },
        Check { name: "nothing_returns", verdict: nothing_returns(history, dumps, options) },
        Check { name: "nothing_is_lost", verdict: nothing_is_lost(history, dumps, options) },
        Check { name: "replicas_agree", verdict: replicas_agree(dumps) },
    ];
    let from_store =
        rebuilt.map(|(dump, cutoff)| rebuilt_from_store(history, dump, cutoff, options));
    checks.push(Check { name: "rebuilt_from_store", verdict: from_store.unwrap_or_default() });
    checks.push(Check {
        name: "nothing_lies_between",
        verdict: nothing_lies_between(history, options),
    });
    checks.push(Check { name: "linearizable", verdict: linearizable(history, options) });
    Report { checks }
}

/// Operations that cannot be, and that all other checks pass over.
fn well_formed(history: &History) -> Verdict {
    let mut verdict = Verdict { considered: history.operations.len(), ..Verdict::default() };
    for (index, operation) in history.operations.iter().enumerate() {
        if let Some(why) = operation.malformed() {
            verdict.add(|| {
                let key = &operation.key;
                Violation::new(Kind::Malformed, key, why.to_owned(), history, &[index])
            });
        }
    }
    verdict
}
