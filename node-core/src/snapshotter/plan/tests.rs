use std::collections::HashMap;

use tako_flatbuf::RecordHead;
use tako_types::{Incarnation, Key, NodeId, StepNumber};

use super::{super::gather::Pulled, *};

fn key(name: &str) -> StoredKey {
    Key::new(0, Bytes::copy_from_slice(name.as_bytes())).expect("short").stored()
}

fn record(name: &str, micros: u64, kind: Kind) -> Record {
    let version = Version { micros, origin: 1 };
    let head = RecordHead { version, kind, expires_at_micros: 0, flags: 0 };
    Record::encode(&key(name), head, None, b"v")
}

fn pulled(upto: u64, entries: &[(u64, &Record)]) -> Pulled {
    Pulled {
        incarnation: Incarnation(7),
        upto: Lsn(upto),
        step: StepNumber(0),
        complete: true,
        entries: entries
            .iter()
            .map(|(lsn, r)| (r.key(), (Lsn(*lsn), r.version(), r.crc())))
            .collect::<HashMap<_, _>>(),
    }
}

fn coverage_of(input: &StepInput, node: &str) -> Option<(u64, u64)> {
    input.coverage.get(&NodeId::new(node)).map(|(inc, lsn)| (inc.0, lsn.0))
}

fn plan(base: &Meta, gathered: &Gathered, records: &[&Record]) -> StepInput {
    let records = records.iter().map(|r| (r.key(), (*r).clone())).collect();
    step_input(base, gathered, records, Due::default(), Duration::from_secs(1), 1_000)
}

#[test]
fn coverage_ends_before_the_first_record_that_was_left_out() {
    let (a, b) = (record("a", 5, Kind::Value), record("b", 6, Kind::Value));
    let mut gathered = Gathered::default();
    gathered.add(NodeId::new("n1"), pulled(9, &[(3, &a), (8, &b)]));
    gathered.add(NodeId::new("n2"), pulled(4, &[(2, &a)]));
    let whole = plan(&Meta::default(), &gathered, &[&a, &b]);
    assert_eq!(coverage_of(&whole, "n1"), Some((7, 9)));
    let part = plan(&Meta::default(), &gathered, &[&a]);
    assert_eq!(coverage_of(&part, "n1"), Some((7, 7)));
    assert_eq!(coverage_of(&part, "n2"), Some((7, 4)));
}

#[test]
fn coverage_is_per_data_folder_and_never_goes_back() {
    let mut base = Meta::default();
    base.coverage.insert(NodeId::new("n1"), (Incarnation(8), Lsn(2)));
    base.coverage.insert(NodeId::new("n2"), (Incarnation(7), Lsn(50)));
    base.coverage.insert(NodeId::new("gone"), (Incarnation(1), Lsn(1)));
    let mut gathered = Gathered::default();
    gathered.add(NodeId::new("n1"), pulled(9, &[]));
    gathered.add(NodeId::new("n2"), pulled(9, &[]));
    let input = plan(&base, &gathered, &[]);
    assert_eq!(coverage_of(&input, "n1"), Some((8, 2)), "an older folder says nothing");
    assert_eq!(coverage_of(&input, "n2"), Some((7, 50)));
    assert_eq!(coverage_of(&input, "gone"), Some((1, 1)), "entries are never pruned");
}

#[test]
fn only_a_version_above_the_snapshots_highest_is_written_plainly() {
    let base = Meta { highest: Version { micros: 5, origin: 9 }, ..Meta::default() };
    let (old, new) = (record("a", 5, Kind::Value), record("b", 6, Kind::Tombstone));
    let mut gathered = Gathered::default();
    gathered.add(NodeId::new("n1"), pulled(2, &[(1, &old), (2, &new)]));
    let input = plan(&base, &gathered, &[&old, &new]);
    let plain: Vec<u64> =
        input.rows.iter().filter(|row| row.newest).map(|row| row.version().micros).collect();
    assert_eq!(plain, [6]);
    assert_eq!(input.highest.micros, 6);
    assert_eq!(input.due.len(), 1);
    assert_eq!(input.due[0].at_micros, 1_001_000);
}

#[test]
fn a_due_row_purges_only_the_very_tombstone_it_was_written_for() {
    let dead = record("a", 5, Kind::Tombstone);
    let row = |micros| DueRow {
        at_micros: 1,
        key: dead.key().as_bytes().clone(),
        version: Version { micros, origin: 1 },
    };
    let sort = |row, stored: Option<&Record>, gathered: &Gathered| {
        let mut due = Due::default();
        sort_due(&mut due, row, stored.map(|r| r.bytes().clone()), gathered);
        (due.purge.len(), due.dropped.len())
    };
    let nothing = Gathered::default();
    assert_eq!(sort(row(5), Some(&dead), &nothing), (1, 0));
    assert_eq!(sort(row(4), Some(&dead), &nothing), (0, 1));
    assert_eq!(sort(row(5), None, &nothing), (0, 1));
    let live = record("a", 9, Kind::Value);
    assert_eq!(sort(row(5), Some(&live), &nothing), (0, 1));
    let mut written_now = Gathered::default();
    written_now.add(NodeId::new("n1"), pulled(2, &[(1, &live)]));
    assert_eq!(sort(row(5), Some(&dead), &written_now), (0, 0));
}

#[test]
fn a_replica_is_told_exactly_the_keys_it_lacks() {
    let (old, new) = (record("a", 5, Kind::Value), record("a", 6, Kind::Value));
    let both = record("b", 7, Kind::Value);
    let mut gathered = Gathered::default();
    gathered.add(NodeId::new("n1"), pulled(9, &[(1, &new), (2, &both)]));
    gathered.add(NodeId::new("n2"), pulled(9, &[(1, &old), (2, &both)]));
    let of = |records: &[&Record]| records.iter().map(|r| (r.key(), (*r).clone())).collect();
    gathered.fetched(&of(&[&new, &both]));
    assert_eq!(gathered.missed(&NodeId::new("n1")), Some(vec![]));
    assert_eq!(gathered.missed(&NodeId::new("n2")), Some(vec![key("a").digest()]));
    assert_eq!(gathered.missed(&NodeId::new("n3")), None);
    // What did not fit is not written, and none of what this step shows changes.
    gathered.fetched(&of(&[&both]));
    assert_eq!(gathered.missed(&NodeId::new("n2")), Some(vec![]));
    // Its holder took a newer one after it had listed this one, and gave that.
    gathered.fetched(&of(&[&record("a", 8, Kind::Value), &both]));
    assert_eq!(gathered.missed(&NodeId::new("n1")), Some(vec![key("a").digest()]));
    // Of two records of one version the greater is written.
    gathered.fetched(&of(&[&record("a", 6, Kind::Tombstone), &both]));
    assert_eq!(gathered.missed(&NodeId::new("n1")), Some(vec![key("a").digest()]));
}
