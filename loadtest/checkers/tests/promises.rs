//! Each promise by hand: a history that keeps it passes, the least one that breaks it is named.

mod support;

use support::*;
use tako_checkers::{
    History, HistoryError, Kind, Op, Operation, Options, Outcome, Seen, Verdict, Version,
    acks_rise, check_all, linearizable, nothing_is_lost, nothing_lies_between, nothing_returns,
    reads_are_fresh, reads_are_monotonic, rebuilt_from_store, replicas_agree,
};

fn options() -> Options {
    Options::default()
}

/// Goal: nothing found, though something was looked at.
#[track_caller]
fn passes(verdict: &Verdict) {
    assert!(verdict.is_clean(), "{verdict}");
    assert!(verdict.considered > 0, "{verdict}");
}

/// Goal: exactly one violation, of this kind, whose print contains `words` and which names
/// these operations.
#[track_caller]
fn fails(verdict: &Verdict, kind: Kind, words: &str, operations: &[usize]) {
    let [violation] = verdict.violations.as_slice() else { panic!("not one: {verdict}") };
    assert_eq!(violation.kind, kind, "{violation}");
    assert!(violation.to_string().contains(words), "{violation}");
    assert_eq!(violation.operations, operations, "{violation}");
}

fn fresh(operations: impl IntoIterator<Item = Operation>) -> Verdict {
    reads_are_fresh(&history(operations), &options())
}

#[test]
fn a_read_of_the_newest_acknowledged_write_is_fresh() {
    passes(&fresh([put(0, 10, 1, 5), put(20, 30, 2, 25), found(40, 50, 2, 25)]));
    passes(&fresh([put(0, 10, 1, 5), delete(20, 30, 25), absent(40, 50, Some(25))]));
}

#[test]
fn a_stale_read_is_named_with_the_write_that_it_missed() {
    let verdict = fresh([put(0, 10, 1, 5), put(20, 30, 2, 25), found(40, 50, 1, 5)]);
    let words = "stale read of \"k\": the read began after 25-1 was acknowledged at w=2, and at \
                 r=2 of n=3 got value 1 at 5-1\n    \
                 #1 [20..30] client 1: put value 2 w=2 (n=3): acknowledged at 25-1\n    \
                 #2 [40..50] client 1: get r=2 (n=3): value 1 at 5-1";
    fails(&verdict, Kind::StaleRead, words, &[1, 2]);
}

#[test]
fn a_read_that_overlaps_the_write_may_miss_it() {
    let verdict = fresh([put(0, 10, 1, 5), put(20, 45, 2, 25), found(40, 50, 1, 5)]);
    passes(&verdict);
    // At the same microsecond nobody can tell which came first.
    passes(&fresh([put(0, 10, 1, 5), put(20, 40, 2, 25), found(40, 50, 1, 5)]));
}

#[test]
fn levels_that_need_not_overlap_promise_no_fresh_read() {
    let stale = || [put(0, 10, 1, 5), put(20, 30, 2, 25)].map(|write| at_level(write, 1));
    let read = || found(40, 50, 1, 5);
    let verdict = fresh(stale().into_iter().chain([at_level(read(), 2)]));
    assert!(verdict.is_clean() && verdict.considered == 0, "{verdict}");
    let verdict = fresh(stale().into_iter().chain([at_level(read(), 3)]));
    fails(&verdict, Kind::StaleRead, "at r=3 of n=3", &[1, 2]);
}

#[test]
fn absence_after_an_acknowledged_put_needs_a_delete_or_an_expiry() {
    fails(&fresh([put(0, 10, 1, 5), absent(20, 30, None)]), Kind::StaleRead, "no value", &[0, 1]);
    let unknown_delete =
        operation(11, None, Op::Delete { w: 2, timestamp: None }, Outcome::Unknown);
    passes(&fresh([put(0, 10, 1, 5), unknown_delete.clone(), absent(20, 30, None)]));
    passes(&fresh([put(0, 10, 1, 5), unknown_delete.clone(), absent(20, 30, Some(12))]));
    passes(&fresh([put_until(0, 10, 1, 5, 25), absent(20, 30, None)]));
    passes(&fresh([put_until(0, 10, 1, 5, 25), absent(20, 30, Some(5))]));
    // The delete came later, the expiry is not yet.
    let late = Operation { invoked_at: 31, ..unknown_delete };
    fails(&fresh([put(0, 10, 1, 5), late, absent(20, 30, None)]), Kind::StaleRead, "", &[0, 2]);
    let early = [put_until(0, 10, 1, 5, 31), absent(20, 30, None)];
    fails(&fresh(early.clone()), Kind::StaleRead, "", &[0, 1]);
    let slack = Options { clock_slack_micros: 1, ..options() };
    passes(&reads_are_fresh(&history(early), &slack));
}

#[test]
fn an_older_delete_does_not_excuse_the_loss_of_a_newer_put() {
    let verdict = fresh([delete(0, 10, 5), put(20, 30, 1, 25), absent(40, 50, None)]);
    fails(&verdict, Kind::StaleRead, "after 25-1 was acknowledged", &[1, 2]);
}

#[test]
fn an_answer_that_nobody_wrote_is_named_at_any_level() {
    let one = |operation| at_level(operation, 1);
    fails(&fresh([one(found(0, 5, 9, 1))]), Kind::Unwritten, "nobody wrote value 9", &[0]);
    let refused = operation(0, Some(5), plain(9), Outcome::Refused);
    let words = "the write of value 9 was refused";
    fails(&fresh([refused, one(found(6, 7, 9, 1))]), Kind::Unwritten, words, &[0, 1]);
    let words = "value 1 was not yet written";
    fails(&fresh([one(found(0, 5, 1, 15)), put(10, 20, 1, 15)]), Kind::Unwritten, words, &[0, 1]);
    let words = "value 1 was never written at version 16-1";
    fails(&fresh([put(0, 9, 1, 15), found(10, 20, 1, 16)]), Kind::Unwritten, words, &[0, 1]);
    let words = "no value at 16-1, but no delete or expiry can have that version";
    fails(&fresh([put(0, 9, 1, 15), absent(10, 20, Some(16))]), Kind::Unwritten, words, &[1]);
}

#[test]
fn a_write_that_was_stamped_again_may_be_seen_at_its_first_version() {
    passes(&fresh([put(0, 5, 1, 3), put(10, 40, 2, 30), found(20, 25, 2, 12)]));
}

#[test]
fn a_version_with_two_values_is_named() {
    let verdict = fresh([put(0, 10, 1, 5), put_unknown(0, 2), found(20, 30, 2, 5)]);
    let words = "one version, two contents of \"k\": version 5-1 is value 2 here and value 1 there";
    fails(&verdict, Kind::SplitVersion, words, &[0, 1, 2]);
    let reads = [put_unknown(0, 1), put_unknown(0, 2), found(20, 30, 1, 5), found(20, 30, 2, 5)];
    fails(&fresh(reads), Kind::SplitVersion, "5-1 is value 2", &[1, 2, 3]);
    let acked = [put(0, 10, 1, 5), delete(0, 10, 5)];
    fails(&fresh(acked), Kind::SplitVersion, "two acknowledged writes", &[0, 1]);
    let verdict = fresh([put(0, 10, 1, 5), absent(20, 30, Some(5))]);
    fails(&verdict, Kind::SplitVersion, "is the version of value 1", &[0, 1]);
}

#[test]
fn a_superseded_write_is_a_floor_at_its_own_timestamp() {
    let op = Op::Put { value: 2, w: 2, expires_at: None, expires_by: None, timestamp: Some(20) };
    let lost = operation(20, Some(30), op, Outcome::Superseded { version: v(25) });
    let start = || [put(0, 10, 1, 5), put_unknown(0, 3), lost.clone()];
    passes(&fresh(start().into_iter().chain([found(40, 50, 3, 25)])));
    passes(&fresh(start().into_iter().chain([found(40, 50, 2, 20)])));
    let verdict = fresh(start().into_iter().chain([found(40, 50, 1, 5)]));
    fails(&verdict, Kind::StaleRead, "superseded by 25-1", &[2, 3]);
}

#[test]
fn reads_that_go_back_are_named_across_clients() {
    let writes = || [put(0, 9, 1, 5), put_unknown(10, 2)];
    let monotonic = |reads: [Operation; 2]| {
        reads_are_monotonic(&history(writes().into_iter().chain(reads)), &options())
    };
    passes(&monotonic([found(20, 30, 1, 5), found(40, 50, 2, 15)]));
    assert!(monotonic([found(20, 45, 2, 15), found(40, 50, 1, 5)]).is_clean());
    let other = Operation { client: 2, ..found(40, 50, 1, 5) };
    let verdict = monotonic([found(20, 30, 2, 15), other]);
    let words = "reads went back of \"k\": an earlier read saw value 2 at 15-1, and this one, at \
                 r=2 of n=3, value 1 at 5-1\n    #2 [20..30] client 1: get r=2";
    fails(&verdict, Kind::WentBack, words, &[2, 3]);
    let low = [at_level(found(20, 30, 2, 15), 1), at_level(found(40, 50, 1, 5), 1)];
    assert_eq!(monotonic(low).considered, 0);
}

#[test]
fn a_value_does_not_come_back_after_a_read_found_nothing() {
    let deleted = operation(10, None, Op::Delete { w: 2, timestamp: None }, Outcome::Unknown);
    let reads = [put(0, 9, 1, 5), deleted, absent(20, 30, None), found(40, 50, 1, 5)];
    let verdict = reads_are_monotonic(&history(reads), &options());
    fails(&verdict, Kind::WentBack, "an earlier read saw no value", &[2, 3]);
}

#[test]
fn an_acknowledgement_below_an_earlier_one_is_named() {
    passes(&acks_rise(&history([put(0, 10, 1, 5), put(20, 30, 2, 6)]), &options()));
    let verdict = acks_rise(&history([put(0, 10, 1, 5), put(20, 30, 2, 4)]), &options());
    fails(&verdict, Kind::AckedBelow, "acknowledged at 4-1 after 5-1", &[0, 1]);
}

#[test]
fn a_resurrected_delete_is_named_in_reads_and_dumps() {
    let start = || [put(0, 10, 1, 5), delete(20, 30, 25)];
    let good = history(start().into_iter().chain([absent(40, 50, Some(25))]));
    passes(&nothing_returns(&good, &[dump("a", gone(Some(25)))], &options()));

    let read = history(start().into_iter().chain([found(40, 50, 1, 5)]));
    let verdict = nothing_returns(&read, &[], &options());
    let words = "a deleted or expired value returned of \"k\": a read at r=2 of n=3 got value 1 at \
                 5-1, below what was gone at 25-1";
    fails(&verdict, Kind::Returned, words, &[1, 2]);

    let verdict = nothing_returns(&history(start()), &[dump("a", holds(1, 5))], &options());
    fails(&verdict, Kind::Returned, "at the end a answers value 1", &[1]);
}

#[test]
fn a_put_of_unknown_outcome_may_land_above_a_delete() {
    let writes = [put_unknown(0, 1), delete(20, 30, 25), found(40, 50, 1, 26)];
    passes(&nothing_returns(&history(writes), &[dump("a", holds(1, 26))], &options()));
}

#[test]
fn between_the_earliest_and_the_latest_expiry_a_value_may_be_there_or_gone() {
    let write = |expires_by| {
        let expires_at = Some(20);
        let op = Op::Put { value: 2, w: 2, expires_at, expires_by, timestamp: None };
        operation(6, Some(10), op, Outcome::Acked { version: v(8) })
    };
    let within = Some(30);
    for read in [found(25, 28, 2, 8), absent(25, 28, None), absent(25, 28, Some(8))] {
        passes(&fresh([write(within), read]));
    }
    let there = history([write(within), found(25, 28, 2, 8)]);
    passes(&nothing_returns(&there, &[], &options()));
    let late = history([write(within), found(31, 35, 2, 8)]);
    fails(&nothing_returns(&late, &[], &options()), Kind::Returned, "after its expiry", &[0, 1]);
    let exact = history([write(None), found(25, 28, 2, 8)]);
    fails(&nothing_returns(&exact, &[], &options()), Kind::Returned, "after its expiry", &[0, 1]);
    let early = fresh([write(within), absent(11, 19, None)]);
    fails(&early, Kind::StaleRead, "no value", &[0, 1]);
    // It may be gone by then, and what it covers is below it for good.
    let behind = [put(0, 5, 1, 3), write(Some(u64::MAX)), found(50, 60, 1, 3)];
    fails(&fresh(behind), Kind::StaleRead, "", &[1, 2]);
}

#[test]
fn an_expired_value_is_named_at_any_level_and_an_older_one_behind_it() {
    let writes = || [put(0, 5, 1, 3), put_until(6, 10, 2, 8, 20)];
    let read = |read| history(writes().into_iter().chain([read]));
    passes(&nothing_returns(&read(found(15, 25, 2, 8)), &[], &options()));
    let late = at_level(found(21, 25, 2, 8), 1);
    let verdict = nothing_returns(&read(late.clone()), &[], &options());
    fails(&verdict, Kind::Returned, "value 2 at 8-1 after its expiry", &[1, 2]);
    let slack = Options { clock_slack_micros: 1, ..options() };
    passes(&nothing_returns(&read(late), &[], &slack));
    let verdict = nothing_returns(&read(found(21, 25, 1, 3)), &[], &options());
    fails(&verdict, Kind::Returned, "below what was gone at 8-1", &[1, 2]);
    let verdict = nothing_returns(&history(writes()), &[dump("a", holds(2, 8))], &options());
    fails(&verdict, Kind::Returned, "at the end a answers value 2", &[1]);
}

#[test]
fn a_lost_write_is_named() {
    let writes = history([put(0, 10, 1, 5), put(20, 30, 2, 25), put_unknown(20, 3)]);
    let ends = |answer| nothing_is_lost(&writes, &[dump("a", answer)], &options());
    passes(&ends(holds(2, 25)));
    passes(&ends(holds(3, 26)));
    let words = "acknowledged write lost of \"k\": at the end a answers value 1 at 5-1, though \
                 25-1 was acknowledged or read";
    fails(&ends(holds(1, 5)), Kind::Lost, words, &[1]);
    fails(&ends(gone(None)), Kind::Lost, "no value", &[1]);
    fails(&ends(holds(2, 26)), Kind::Unwritten, "value 2 was never written at version 26-1", &[1]);
    fails(&ends(holds(9, 26)), Kind::Unwritten, "nobody wrote value 9", &[]);

    let mut empty = dump("a", gone(None));
    empty.answers.clear();
    let verdict = nothing_is_lost(&writes, &[empty], &options());
    fails(&verdict, Kind::Lost, "no dump has the key", &[1]);
    assert_eq!(nothing_is_lost(&writes, &[], &options()).considered, 0);
}

#[test]
fn a_write_survives_the_loss_of_fewer_replicas_than_acknowledged_it() {
    let writes = history([put(0, 10, 1, 5), at_level(put(20, 30, 2, 25), 1)]);
    let one = Options { lost_replicas: 1, ..options() };
    passes(&nothing_is_lost(&writes, &[dump("a", holds(1, 5))], &one));
    let verdict = nothing_is_lost(&writes, &[dump("a", gone(None))], &one);
    fails(&verdict, Kind::Lost, "5-1 was acknowledged", &[0]);
}

#[test]
fn what_a_quorum_read_saw_is_kept() {
    let seen = history([put(0, 10, 1, 5), put_unknown(20, 2), found(30, 40, 2, 25)]);
    passes(&nothing_is_lost(&seen, &[dump("a", holds(2, 25))], &options()));
    let verdict = nothing_is_lost(&seen, &[dump("a", holds(1, 5))], &options());
    fails(&verdict, Kind::Lost, "25-1 was acknowledged or read", &[2]);
}

#[test]
fn final_reads_make_a_dump() {
    let reads = history([put(0, 10, 1, 5), put(20, 30, 2, 25), found(100, 110, 1, 5)]);
    let dump = tako_checkers::Dump::of_final_reads(&reads, 100);
    let verdict = nothing_is_lost(&reads, &[dump], &options());
    fails(&verdict, Kind::Lost, "at the end final reads answers value 1", &[1]);
}

#[test]
fn replicas_that_differ_or_have_tails_are_named() {
    passes(&replicas_agree(&[dump("a", holds(1, 5)), dump("b", holds(1, 5))]));
    passes(&replicas_agree(&[dump("a", gone(None)), dump("b", gone(Some(5)))]));
    let verdict = replicas_agree(&[dump("a", holds(1, 5)), dump("b", gone(None))]);
    let words = "replicas disagree of \"k\": a answers value 1 at 5-1, b answers no value";
    fails(&verdict, Kind::Disagree, words, &[]);
    let tombs = [dump("a", gone(None)), dump("b", gone(Some(5))), dump("c", gone(Some(6)))];
    fails(&replicas_agree(&tombs), Kind::Disagree, "b answers no value at 5-1, c", &[]);
    let mut tail = dump("a", gone(None));
    tail.uncovered = 3;
    fails(&replicas_agree(&[tail]), Kind::Uncovered, "a has 3 uncovered entries", &[]);
}

#[test]
fn the_store_holds_what_is_older_than_the_cutoff() {
    let writes = history([put(0, 10, 1, 5), put(20, 30, 2, 25)]);
    let rebuilt =
        |answer, cutoff| rebuilt_from_store(&writes, &dump("store", answer), cutoff, &options());
    passes(&rebuilt(holds(1, 5), 30));
    passes(&rebuilt(holds(2, 25), 30));
    fails(&rebuilt(holds(1, 5), 31), Kind::Lost, "at the end store answers value 1", &[1]);
    fails(&rebuilt(gone(None), 30), Kind::Lost, "though 5-1", &[0]);
}

fn linear(operations: impl IntoIterator<Item = Operation>) -> Verdict {
    linearizable(&history(operations), &options())
}

#[test]
fn conditional_writes_in_turn_are_linearizable() {
    passes(&linear([
        cas(0, 10, None, Some(1), 5),
        cas(5, 20, Some(1), Some(2), 15),
        mismatch(21, 30, Some(1), Seen::Value(2)),
        mismatch(21, 30, Some(1), Seen::Untold),
        cas(31, 40, Some(2), None, 35),
        absent(41, 50, Some(35)),
        mismatch(41, 50, Some(2), Seen::Absent),
    ]));
}

#[test]
fn two_conditional_writes_from_one_value_are_named() {
    let start = cas(0, 10, None, Some(1), 5);
    let twice =
        [start.clone(), cas(20, 30, Some(1), Some(2), 25), cas(22, 32, Some(1), Some(3), 26)];
    let verdict = linear(twice);
    let words = "not linearizable of \"k\": no order of the operations explains #2";
    fails(&verdict, Kind::NotLinearizable, words, &[0, 1, 2]);

    // A delete or a write of unknown outcome between them explains both.
    let back = cas_unknown(0, Some(2), Some(1));
    passes(&linear([
        start,
        cas(20, 30, Some(1), Some(2), 25),
        back,
        cas(32, 40, Some(1), Some(3), 39),
    ]));
}

#[test]
fn a_conditional_write_of_unknown_outcome_takes_effect_once_or_never() {
    let start = || [cas(0, 10, None, Some(1), 5), cas_unknown(20, Some(1), Some(2))];
    let with = |more: Vec<Operation>| linear(start().into_iter().chain(more));
    passes(&with(vec![found(30, 40, 1, 5), found(50, 60, 2, 45)]));
    passes(&with(vec![found(30, 40, 1, 5), cas(50, 60, Some(1), Some(3), 55)]));
    let back = vec![found(30, 40, 2, 25), found(50, 60, 1, 5)];
    fails(&with(back), Kind::NotLinearizable, "explains #3", &[0, 2, 3]);
    let twice = vec![cas(30, 40, Some(2), Some(1), 35), cas(50, 60, Some(2), Some(4), 55)];
    fails(&with(twice), Kind::NotLinearizable, "explains #3", &[0, 1, 2, 3]);
}

#[test]
fn either_of_two_unknown_writes_of_one_value_may_have_come_first() {
    // Only the put can write over value 2, so the conditional write was the first.
    let all = Options { linearize_plain_writes: true, ..options() };
    let writes = [
        put_unknown(0, 1),
        cas_unknown(1, None, Some(1)),
        found(10, 20, 1, 5),
        put(21, 30, 2, 25),
        found(31, 40, 1, 35),
    ];
    passes(&linearizable(&history(writes), &all));
}

#[test]
fn a_mismatch_that_saw_what_it_expected_is_named() {
    let verdict = linear([cas(0, 10, None, Some(1), 5), mismatch(20, 30, Some(1), Seen::Value(1))]);
    fails(&verdict, Kind::NotLinearizable, "explains #1", &[0, 1]);
    let verdict = linear([cas(0, 10, None, Some(1), 5), mismatch(20, 30, Some(1), Seen::Untold)]);
    fails(&verdict, Kind::NotLinearizable, "explains #1", &[0, 1]);
}

#[test]
fn an_expired_value_counts_as_nothing_for_a_conditional_write() {
    let op = Op::Cas { expected: None, new: Some(1), w: 2, expires_at: Some(20) };
    let start = || operation(0, Some(10), op.clone(), Outcome::Applied { version: v(5) });
    passes(&linear([start(), cas(21, 30, None, Some(2), 25)]));
    let verdict = linear([start(), cas(11, 19, None, Some(2), 15)]);
    fails(&verdict, Kind::NotLinearizable, "explains #1", &[0, 1]);
}

#[test]
fn keys_with_plain_writes_are_searched_only_when_told() {
    let mixed = || {
        history([
            put(0, 10, 1, 5),
            cas(11, 20, Some(1), Some(2), 15),
            put(21, 30, 3, 25),
            found(31, 40, 2, 15),
        ])
    };
    let verdict = linearizable(&mixed(), &options());
    assert!(verdict.is_clean() && verdict.considered == 0 && verdict.skipped == 1, "{verdict}");
    let all = Options { linearize_plain_writes: true, ..options() };
    fails(&linearizable(&mixed(), &all), Kind::NotLinearizable, "explains #3", &[0, 1, 2, 3]);
}

#[test]
fn a_search_that_takes_too_long_is_undecided() {
    let few = Options { states_max: 1, ..options() };
    let verdict = linearizable(
        &history([cas(0, 10, None, Some(1), 5), cas(5, 20, Some(1), Some(2), 15)]),
        &few,
    );
    assert_eq!(verdict.undecided, ["k"]);
    assert!(!verdict.is_clean());
    assert!(verdict.to_string().contains("1 keys undecided"), "{verdict}");
}

#[test]
fn a_report_shows_which_checks_looked_at_nothing() {
    let report =
        check_all(&history([put(0, 10, 1, 5), found(20, 30, 1, 5)]), &[], None, &options());
    assert!(report.is_clean(), "{report}");
    let idle: Vec<_> = report.idle().collect();
    let expected = [
        "reads_are_monotonic",
        "acks_rise",
        "nothing_returns",
        "nothing_is_lost",
        "replicas_agree",
        "rebuilt_from_store",
        "nothing_lies_between",
        "linearizable",
    ];
    assert_eq!(idle, expected);
    assert!(report.to_string().contains("reads_are_fresh: 1 considered, 0 violations"), "{report}");
}

#[test]
fn an_operation_that_cannot_be_is_named_and_passed_over() {
    let bad = [
        Operation { returned_at: None, ..put(0, 1, 1, 5) },
        Operation { returned_at: Some(3), ..put(4, 5, 2, 6) },
        operation(0, Some(1), Op::Get { r: 2 }, Outcome::Refused),
        at_level(put(0, 1, 3, 7), 4),
    ];
    let report = check_all(&history(bad), &[], None, &options());
    let kinds: Vec<_> = report.violations().map(|violation| violation.kind).collect();
    assert_eq!(kinds, [Kind::Malformed; 4], "{report}");
}

#[test]
fn a_thousand_violations_are_counted_and_a_hundred_kept() {
    let reads = (0..1_000).map(|i| found(100 + i, 200 + i, 9, 5));
    let verdict = fresh(reads);
    assert_eq!((verdict.violations_count, verdict.violations.len()), (1_000, 100));
    assert!(verdict.to_string().ends_with("and 900 more"));
}

#[test]
fn a_line_that_is_no_operation_is_named() {
    let mut text = Vec::new();
    history([put(0, 1, 1, 1)]).write(&mut text).expect("memory");
    text.extend(b"\n{\"client\":1");
    let error = History::read(text.as_slice()).expect_err("torn");
    assert!(matches!(error, HistoryError::Line { line: 3, .. }), "{error}");
    let long = vec![b'x'; 2 << 20];
    let error = History::read(long.as_slice()).expect_err("long");
    assert!(matches!(error, HistoryError::TooLong { line: 1 }), "{error}");
    assert_eq!(Version::new(7, 255).to_string(), "7-ff");
}

fn between(operations: impl IntoIterator<Item = Operation>) -> Verdict {
    nothing_lies_between(&history(operations), &options())
}

#[test]
fn a_change_saw_what_was_acknowledged_below_it() {
    passes(&between([put(0, 10, 1, 5), cas(20, 30, Some(1), Some(2), 25)]));
    // Above it, whenever it came.
    passes(&between([put(0, 10, 1, 5), put(15, 20, 3, 40), cas(20, 30, Some(1), Some(2), 25)]));
    // By one of three: it need not be seen.
    let alone = at_level(put(15, 20, 3, 20), 1);
    passes(&between([put(0, 10, 1, 5), alone, cas(20, 30, Some(1), Some(2), 25)]));
    passes(&between([put(0, 10, 1, 5), delete(11, 12, 9), cas(20, 30, None, Some(2), 25)]));
}

#[test]
fn a_write_that_was_acknowledged_between_what_a_change_saw_and_its_own_is_missed() {
    let verdict =
        between([put(0, 10, 1, 5), put(15, 40, 3, 20), cas(20, 30, Some(1), Some(2), 25)]);
    fails(&verdict, Kind::Missed, "saw value 1, and missed 20-1", &[1, 2]);
    let verdict =
        between([put(0, 10, 1, 5), delete(15, 40, 20), cas(20, 30, Some(1), Some(2), 25)]);
    fails(&verdict, Kind::Missed, "missed 20-1", &[1, 2]);
    let verdict = between([put(0, 10, 1, 5), cas(20, 30, None, Some(2), 25)]);
    fails(&verdict, Kind::Missed, "saw nothing, and missed 5-1", &[0, 1]);
}

#[test]
fn a_change_that_saw_nothing_is_not_blamed_where_the_value_may_have_gone() {
    let gone = operation(11, None, Op::Delete { w: 2, timestamp: None }, Outcome::Unknown);
    passes(&between([put(0, 10, 1, 5), gone, cas(20, 30, None, Some(2), 25)]));
    let ending = operation(
        0,
        Some(10),
        Op::Put { value: 1, w: 2, expires_at: Some(15), expires_by: None, timestamp: None },
        Outcome::Acked { version: v(5) },
    );
    passes(&between([ending, cas(20, 30, None, Some(2), 25)]));
}
