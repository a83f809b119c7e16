//! Properties: correct histories pass, whatever overlaps; one answer changed against a promise is
//! caught; and the search for an order agrees with trying all orders.

mod support;

use proptest::prelude::*;
use support::model::{ACTS, Act, Run, Step, outcome, steps};
use tako_checkers::{
    Answer, History, Op, Operation, Options, Outcome, Seen, Version, check_all, linearizable,
    nothing_is_lost, nothing_returns, reads_are_fresh, reads_are_monotonic, rebuilt_from_store,
};

fn runs() -> impl Strategy<Value = Run> {
    let step = (0..ACTS.len(), 0..3_u64, 0..600_u64, 0..600_u64, any::<u32>()).prop_map(
        |(act, key, before, after, choice)| Step {
            act: ACTS[act],
            key,
            before,
            after,
            choice: choice.into(),
        },
    );
    prop::collection::vec(step, 1..60).prop_map(|steps| Run::of(&steps))
}

/// Many a drawn history has nothing to change in it.
fn cases(count: u32) -> ProptestConfig {
    let config = ProptestConfig::with_cases(count);
    ProptestConfig { failure_persistence: None, max_global_rejects: 100 * count, ..config }
}

fn all() -> Options {
    Options { linearize_plain_writes: true, ..Options::default() }
}

/// Acknowledged writes with their versions.
fn acked(history: &History) -> impl Iterator<Item = (&Operation, Version)> {
    history.operations.iter().filter_map(|operation| match operation.outcome {
        Outcome::Acked { version } | Outcome::Applied { version } => Some((operation, version)),
        _ => None,
    })
}

fn version(outcome: &Outcome) -> Option<Version> {
    match *outcome {
        Outcome::Found { version, .. } => Some(version),
        Outcome::Absent { version } => version,
        _ => None,
    }
}

/// Changes where `pick` says so; the index of the changed read. None: nothing to change here.
fn change_a_read(
    run: &mut Run,
    mut pick: impl FnMut(&Run, &Operation) -> Option<Outcome>,
) -> Option<usize> {
    let (index, new) =
        run.history.operations.iter().enumerate().find_map(|(index, operation)| {
            (operation.op == Op::Get { r: 2 })
                .then(|| pick(run, operation))?
                .map(|new| (index, new))
        })?;
    run.history.operations[index].outcome = new;
    Some(index)
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn a_correct_history_passes_every_check(run in runs()) {
        let dumps = ["a", "b", "c"].map(|replica| run.dump(replica));
        let report = check_all(&run.history, &dumps, Some((&dumps[0], run.end)), &all());
        prop_assert!(report.is_clean(), "{report}");
    }

    #[test]
    fn a_history_reads_back_from_its_lines(run in runs()) {
        let mut text = Vec::new();
        run.history.write(&mut text).expect("memory");
        prop_assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), run.history.operations.len());
        prop_assert_eq!(History::read(text.as_slice()).expect("what was written"), run.history);
    }

    #[test]
    fn a_read_turned_stale_is_caught(mut run in runs()) {
        let changed = change_a_read(&mut run, |run, read| {
            let before = |at: &Operation| at.returned_at.is_some_and(|at| at < read.invoked_at);
            let floor = acked(&run.history)
                .filter(|(write, _)| write.key == read.key && before(write))
                .map(|(_, version)| version)
                .max()?;
            let old = run.held[&read.key].iter().find(|held| held.version < floor)?;
            Some(outcome(old.answer(0, true)))
        });
        prop_assume!(changed.is_some());
        let verdict = reads_are_fresh(&run.history, &all());
        prop_assert!(verdict.violations_count > 0);
        let named = verdict.violations.iter().any(|one| one.operations.contains(&changed.expect("assumed")));
        prop_assert!(named, "{verdict}");
    }

    #[test]
    fn a_read_that_goes_back_is_caught(mut run in runs()) {
        let changed = change_a_read(&mut run, |run, read| {
            let seen = run.history.operations.iter()
                .filter(|other| other.op == Op::Get { r: 2 } && other.key == read.key)
                .filter(|other| other.returned_at.is_some_and(|at| at < read.invoked_at))
                .filter_map(|other| version(&other.outcome))
                .max()?;
            let old = run.held[&read.key].iter().find(|held| held.version < seen)?;
            Some(outcome(old.answer(0, true)))
        });
        prop_assume!(changed.is_some());
        let verdict = reads_are_monotonic(&run.history, &all());
        prop_assert!(verdict.violations_count > 0);
    }

    #[test]
    fn another_value_under_a_version_is_caught(mut run in runs()) {
        let changed = change_a_read(&mut run, |run, read| {
            let Outcome::Found { value, version } = read.outcome else { return None };
            let held = &run.held[&read.key];
            let other = held.iter().filter_map(|held| held.content).find(|other| *other != value)?;
            // Only an acknowledgement or another read ties the version to its value.
            let tied = acked(&run.history).any(|(_, acked)| acked == version);
            tied.then_some(Outcome::Found { value: other, version })
        });
        prop_assume!(changed.is_some());
        prop_assert!(reads_are_fresh(&run.history, &all()).violations_count > 0);
    }

    #[test]
    fn a_write_missing_at_the_end_is_caught(run in runs(), which in any::<prop::sample::Index>()) {
        let mut floors: Vec<(String, Version)> = Vec::new();
        for (write, version) in acked(&run.history) {
            if run.held[&write.key][0].version < version {
                floors.push((write.key.clone(), version));
            }
        }
        prop_assume!(!floors.is_empty());
        let (key, floor) = which.get(&floors);
        let old = run.held[key].iter().rev().find(|held| held.version < *floor).expect("the first");
        let mut dump = run.dump("a");
        dump.answers.insert(key.clone(), old.answer(0, true));
        let lost = nothing_is_lost(&run.history, &[dump.clone()], &all());
        prop_assert!(lost.violations_count > 0);
        let lost = rebuilt_from_store(&run.history, &dump, run.end, &all());
        prop_assert!(lost.violations_count > 0);
        // If it was a delete that is missing, the value behind it is back.
        let deleted = run.held[key].iter().rev().find(|held| held.version <= *floor);
        let was_delete = deleted.is_some_and(|held| held.version == *floor && held.content.is_none());
        if was_delete && old.content.is_some() {
            prop_assert!(nothing_returns(&run.history, &[dump], &all()).violations_count > 0);
        }
    }

    #[test]
    fn a_conditional_write_from_a_value_that_was_replaced_is_caught(mut run in runs()) {
        let again = run.history.operations.iter().find_map(|first| match (&first.op, &first.outcome) {
            (Op::Cas { expected: Some(_), .. }, Outcome::Applied { .. }) => Some(first.clone()),
            _ => None,
        });
        prop_assume!(again.is_some());
        let mut again = again.expect("assumed");
        again.invoked_at = again.returned_at.expect("applied") + 1;
        again.returned_at = Some(again.invoked_at + 300);
        if let Op::Cas { new, .. } = &mut again.op {
            *new = Some(1);
        }
        run.history.push(again);
        let verdict = linearizable(&run.history, &all());
        prop_assert!(verdict.violations_count > 0, "{}", verdict);
    }
}

/// A register operation on few values and times, so that much overlaps and repeats.
fn any_operation() -> impl Strategy<Value = Operation> {
    let state = prop::option::of(0..3_u64);
    (0..12_u64, 0..8_u64, 0..9_u8, state.clone(), state, any::<bool>()).prop_map(
        |(from, length, what, one, other, expires)| {
            let version = Version::new(1, 1);
            let expires_at = expires.then_some(from + 3);
            let put =
                |value| Op::Put { value, w: 2, expires_at, expires_by: None, timestamp: None };
            let cas = Op::Cas { expected: one, new: other, w: 2, expires_at: None };
            let (op, outcome) = match (what, one) {
                (0, Some(value)) => (put(value), Outcome::Acked { version }),
                (1, Some(value)) => (put(value), Outcome::Unknown),
                (0, None) => (Op::Delete { w: 2, timestamp: None }, Outcome::Acked { version }),
                (1, None) => (Op::Delete { w: 2, timestamp: None }, Outcome::Unknown),
                (2, Some(value)) => (Op::Get { r: 2 }, Outcome::Found { value, version }),
                (2, None) => (Op::Get { r: 2 }, Outcome::Absent { version: None }),
                (3 | 4, _) => (cas, Outcome::Applied { version }),
                (5, _) => (cas, Outcome::Unknown),
                (6, _) => (cas, Outcome::Mismatch { seen: Seen::Untold }),
                _ => {
                    let seen = other.map_or(Seen::Absent, Seen::Value);
                    (cas, Outcome::Mismatch { seen })
                }
            };
            support::operation(from, Some(from + length), op, outcome)
        },
    )
}

/// Tries all orders, one operation after the other.
fn has_order(left: &mut Vec<Operation>, state: Option<u64>, expiries: &[(u64, u64)]) -> bool {
    let end = |operation: &Operation| match operation.outcome {
        Outcome::Unknown => u64::MAX,
        _ => operation.returned_at.expect("it returned"),
    };
    if left.iter().all(|operation| end(operation) == u64::MAX) {
        return true;
    }
    let first_end = left.iter().map(end).min().expect("not empty");
    for at in 0..left.len() {
        if left[at].invoked_at > first_end {
            continue;
        }
        let until = end(&left[at]);
        let expired = state.is_some_and(|value| {
            expiries.iter().any(|(other, at)| *other == value && *at <= until)
        });
        let sees = |seen: Option<u64>| seen == state || (seen.is_none() && expired);
        let after = match (&left[at].op, &left[at].outcome) {
            (Op::Put { value, .. }, _) => Some(Some(*value)),
            (Op::Delete { .. }, _) => Some(None),
            (Op::Get { .. }, Outcome::Found { value, .. }) => sees(Some(*value)).then_some(state),
            (Op::Get { .. }, _) => sees(None).then_some(state),
            (Op::Cas { expected, .. }, Outcome::Mismatch { seen }) => match seen {
                Seen::Untold => (state != *expected || expired).then_some(state),
                Seen::Absent => (expected.is_some() && sees(None)).then_some(state),
                Seen::Value(seen) => {
                    (*expected != Some(*seen) && sees(Some(*seen))).then_some(state)
                }
            },
            (Op::Cas { expected, new, .. }, _) => sees(*expected).then_some(*new),
        };
        if let Some(after) = after {
            let operation = left.remove(at);
            let found = has_order(left, after, expiries);
            left.insert(at, operation);
            if found {
                return true;
            }
        }
    }
    false
}

proptest! {
    #![proptest_config(cases(6_000))]

    #[test]
    fn the_search_agrees_with_trying_all_orders(
        operations in prop::collection::vec(any_operation(), 1..8)
    ) {
        let expiries: Vec<(u64, u64)> = operations.iter().filter_map(|operation| match operation.op {
            Op::Put { value, expires_at: Some(at), .. } => Some((value, at)),
            _ => None,
        }).collect();
        let expected = has_order(&mut operations.clone(), None, &expiries);
        let verdict = linearizable(&History { operations }, &all());
        prop_assert!(verdict.undecided.is_empty());
        prop_assert_eq!(verdict.violations_count == 0, expected, "{}", verdict);
    }
}

/// Goal: no check is quadratic. Method: long correct histories, over many keys and on one.
#[test]
fn a_hundred_thousand_operations_are_checked() {
    let plain = [Act::Put, Act::PutUnknownDone, Act::Delete, Act::Get, Act::GetOfOne, Act::Get];
    for (keys, acts) in [(1_000, ACTS.as_slice()), (1, &plain)] {
        let run = Run::of(&steps(7, 100_000, keys, acts, 1_000));
        let dumps = ["a", "b", "c"].map(|replica| run.dump(replica));
        let options = Options { linearize_plain_writes: keys > 1, ..Options::default() };
        let report = check_all(&run.history, &dumps, Some((&dumps[0], run.end)), &options);
        assert!(report.is_clean(), "{report}");
        assert!(report.verdict("reads_are_fresh").is_some_and(|one| one.considered > 5_000));
    }
}

/// Goal: thousands of conditional operations on one key are decided, with a dozen at a time and
/// many of unknown outcome.
#[test]
fn thousands_of_conditional_operations_on_one_key_are_decided() {
    let acts = [
        Act::Cas,
        Act::Cas,
        Act::Get,
        Act::CasMismatch,
        Act::CasUnknownDone,
        Act::CasUnknownNotDone,
        Act::Get,
    ];
    let run = Run::of(&steps(11, 6_000, 1, &acts, 600));
    let verdict = linearizable(&run.history, &Options::default());
    assert!(verdict.is_clean() && verdict.considered > 5_000, "{verdict}");

    // Plain writes as well, which fit in more orders.
    let acts =
        [Act::Put, Act::Get, Act::PutUnknownDone, Act::PutUnknownNotDone, Act::Cas, Act::Get];
    let run = Run::of(&steps(12, 6_000, 1, &acts, 400));
    let verdict = linearizable(&run.history, &all());
    assert!(verdict.is_clean() && verdict.considered > 5_000, "{verdict}");

    let mut last = run.history.operations.len() - 1;
    let wrong = loop {
        if let Outcome::Found { .. } = run.history.operations[last].outcome {
            break last;
        }
        last -= 1;
    };
    let mut broken = run.history.clone();
    broken.operations[wrong].outcome = outcome(Answer::Absent { version: None });
    assert_eq!(linearizable(&broken, &all()).violations_count, 1);
}
