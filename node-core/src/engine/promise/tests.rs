//! Claims about promises, each rule alone and all of them together in a model of three replicas.

use bytes::Bytes;
use tako_types::Key;

use super::*;

mod model;

/// Now, in all tests of one rule.
const NOW: u64 = 1_000_000_000_000;
const LIFE: u64 = PROMISE_LIFE.as_micros() as u64;
const DRIFT: u64 = CLOCK_DRIFT_MAX.as_micros() as u64;

fn key(name: &str) -> StoredKey {
    Key::new(0, Bytes::copy_from_slice(name.as_bytes())).expect("a short key").stored()
}

fn at(micros: u64) -> Version {
    Version { micros, origin: 1 }
}

fn holding(count_max: usize) -> Promises {
    Promises { count_max, ..Promises::default() }
}

#[test]
fn a_promise_only_rises() {
    let mut promises = Promises::default();
    assert_eq!(promises.prepare(&key("k"), at(NOW), NOW), Ok(()));
    assert_eq!(promises.prepare(&key("k"), at(NOW), NOW), Ok(()), "the same once more");
    assert_eq!(promises.prepare(&key("k"), at(NOW - 1), NOW), Err(at(NOW)));
    assert_eq!(promises.prepare(&key("k"), at(NOW + 1), NOW), Ok(()));
    assert_eq!(promises.prepare(&key("other"), at(NOW), NOW), Ok(()));
}

#[test]
fn only_the_promised_ballot_is_accepted() {
    let mut promises = Promises::default();
    assert_eq!(promises.may_accept(&key("k"), at(NOW), NOW), Err(at(NOW)), "never promised");
    promises.prepare(&key("k"), at(NOW), NOW).expect("first");
    assert_eq!(promises.may_accept(&key("k"), at(NOW), NOW), Ok(()));
    assert_eq!(promises.may_accept(&key("k"), at(NOW + 1), NOW), Err(at(NOW + 1)));
    promises.prepare(&key("k"), at(NOW + 5), NOW).expect("higher");
    assert_eq!(promises.may_accept(&key("k"), at(NOW), NOW), Err(at(NOW + 5)));
}

#[test]
fn a_plain_write_passes_above_the_promise_of_its_key_only() {
    let mut promises = Promises::default();
    promises.prepare(&key("k"), at(NOW), NOW).expect("first");
    assert_eq!(promises.may_write(&key("k"), at(NOW - 1), NOW), Err(at(NOW)));
    assert_eq!(promises.may_write(&key("k"), at(NOW), NOW), Err(at(NOW)));
    assert_eq!(promises.may_write(&key("k"), at(NOW + 1), NOW), Ok(()));
    assert_eq!(promises.may_write(&key("other"), at(1), NOW), Ok(()));
}

#[test]
fn a_repair_below_a_promise_waits_for_a_second_and_no_longer() {
    const WAIT: u64 = REPAIR_WAIT.as_micros() as u64;
    let mut promises = Promises::default();
    promises.prepare(&key("k"), at(NOW), NOW + 5).expect("first");
    for now in [NOW + 5, NOW + 4 + WAIT] {
        assert_eq!(promises.may_repair(&key("k"), at(NOW - 1), now), Err(at(NOW)));
        assert_eq!(promises.may_repair(&key("k"), at(NOW), now), Ok(()), "it is the very record");
        assert_eq!(promises.may_repair(&key("other"), at(1), now), Ok(()));
        promises.prepare(&key("k"), at(NOW), now).expect("once more, which makes it no younger");
    }
    for now in [NOW + 5 + WAIT, NOW + 4] {
        assert_eq!(
            promises.may_repair(&key("k"), at(NOW - 1), now),
            Ok(()),
            "old, or clock set back"
        );
    }
}

#[test]
fn a_durable_record_takes_the_place_of_promises_at_or_below_it() {
    let mut promises = Promises::default();
    promises.prepare(&key("k"), at(NOW), NOW).expect("first");
    promises.settle(&key("k"), at(NOW - 1));
    assert_eq!(promises.of(&key("k")), Some(at(NOW)));
    promises.settle(&key("k"), at(NOW));
    assert_eq!((promises.of(&key("k")), promises.by_ballot.len()), (None, 0));
}

#[test]
fn evicting_the_lowest_promise_raises_the_floor() {
    let mut promises = holding(2);
    for (name, micros) in [("a", NOW + 1), ("b", NOW), ("c", NOW + 2)] {
        promises.prepare(&key(name), at(micros), NOW).expect(name);
    }
    assert_eq!((promises.of(&key("b")), promises.by_key.len()), (None, 2));
    assert_eq!(promises.may_write(&key("b"), at(NOW), NOW), Err(at(NOW)));
    assert_eq!(promises.may_write(&key("b"), at(NOW + 1), NOW), Ok(()));
    assert_eq!(promises.prepare(&key("b"), at(NOW), NOW), Err(at(NOW)));
    // What would be evicted itself is not promised.
    assert_eq!(promises.prepare(&key("d"), at(NOW + 1), NOW), Err(at(NOW + 1)));
}

#[test]
fn a_floor_bars_until_no_replica_can_use_what_was_forgotten() {
    let mut promises = Promises::default();
    promises.raise_floor(at(NOW));
    let last = NOW + LIFE + DRIFT;
    assert_eq!(promises.may_write(&key("k"), at(1), last), Err(at(NOW)));
    assert_eq!(promises.may_write(&key("k"), at(1), last + 1), Ok(()));
    assert_eq!((promises.highest(last), promises.highest(last + 1)), (at(NOW), Version::ZERO));
    // Ballots stay above it for good.
    assert!(promises.prepare(&key("k"), at(NOW), last + 1).is_err());
}

#[test]
fn an_old_ballot_is_neither_promised_nor_accepted_but_binds_on() {
    let mut promises = Promises::default();
    let late = NOW + LIFE + 1;
    assert_eq!(
        promises.prepare(&key("k"), at(NOW), late),
        Err(Version { micros: late, origin: 0 })
    );
    promises.prepare(&key("k"), at(NOW), NOW).expect("in time");
    assert_eq!(promises.may_accept(&key("k"), at(NOW), late - 1), Ok(()));
    assert!(promises.may_accept(&key("k"), at(NOW), late).is_err());
    assert!(promises.may_write(&key("k"), at(NOW - 1), NOW + LIFE + DRIFT).is_err());
    assert!(promises.may_write(&key("k"), at(NOW - 1), NOW + LIFE + DRIFT + 1).is_ok());
}

#[test]
fn expired_promises_make_room_without_a_floor() {
    let mut promises = holding(1);
    promises.prepare(&key("a"), at(NOW), NOW).expect("first");
    let later = NOW + LIFE + DRIFT + 1;
    promises.prepare(&key("b"), at(later), later).expect("room");
    assert_eq!((promises.of(&key("a")), promises.floor), (None, Version::ZERO));
}

#[test]
fn what_came_past_a_promise_is_no_vote() {
    let mut promises = Promises::default();
    promises.prepare(&key("k"), at(NOW), NOW).expect("first");
    promises.answered(&key("k"), at(NOW), at(NOW - 10));
    assert!(promises.may_count(&key("k"), at(NOW - 10), NOW), "shown to the proposer");
    assert!(!promises.may_count(&key("k"), at(NOW - 9), NOW), "came as a repair");
    assert!(promises.may_count(&key("other"), at(NOW - 9), NOW));
    promises.raise_floor(at(NOW - 20));
    assert!(!promises.may_count(&key("other"), at(NOW - 20), NOW));
    assert!(promises.may_count(&key("other"), at(NOW - 20), NOW + LIFE + DRIFT));
}
