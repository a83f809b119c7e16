//! What must hold of any bytes that are read as a history.
//!
//! The replay of the corpora calls this with seeded bytes, libFuzzer with its own (`tests/fuzz`).
//! A panic is a finding.

use crate::{History, Options, check_all};

/// So many operations are checked; the search of the one that looks for an order grows with them.
const CHECKED_MAX: usize = 24;
const STATES_MAX: usize = 2_000;

/// A history: refused, or the same when written and read again; the checkers answer for it, and the
/// same in whatever order its lines stand.
///
/// # Panics
/// When that does not hold.
pub fn history(bytes: &[u8]) {
    let Ok(history) = History::read(bytes) else { return };
    let mut written = Vec::new();
    history.write(&mut written).expect("memory takes all");
    assert_eq!(History::read(&written[..]).expect("its own lines"), history);
    assert!(history.operations.len() <= bytes.len(), "made up operations");
    if CHECKED_MAX < history.operations.len() {
        return;
    }
    let options = Options { states_max: STATES_MAX, ..Options::default() };
    let report = check_all(&history, &[], None, &options);
    let _any_text = report.to_string();
    let mut turned = history;
    turned.operations.reverse();
    let again = check_all(&turned, &[], None, &options);
    for (first, second) in report.checks.iter().zip(&again.checks) {
        // What is given up may depend on where the search begins.
        let decided = first.name != "linearizable";
        let same = first.verdict.is_clean() == second.verdict.is_clean();
        assert!(same || !decided, "{}: the order of lines says something", first.name);
    }
}
