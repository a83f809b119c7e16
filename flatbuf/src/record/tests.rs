//! Claims about the record: codec, checksum, merge, golden bytes.

use bytes::Bytes;
use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tako_types::{ErrorKind, Key, Kind, StoredKey, Version};

use super::{Record, RecordHead, merge, merge_encoded};
use crate::{RecordError, fuzz, golden};

fn key(name: &[u8]) -> StoredKey {
    Key::new(0, Bytes::copy_from_slice(name)).expect("a short key").stored()
}

fn head(micros: u64, kind: Kind) -> RecordHead {
    let version = Version { micros, origin: 0xfeed };
    RecordHead { version, kind, expires_at_micros: 0, flags: 0 }
}

fn record(micros: u64, value: &[u8]) -> Record {
    Record::encode(&key(b"k"), head(micros, Kind::Value), None, value)
}

/// Records of one key from a space so small that versions, kinds and values collide.
fn any_record() -> impl Strategy<Value = Record> {
    let content_type = prop::option::of(prop::sample::select(vec!["", "text/plain", "ü"]));
    let value = prop::collection::vec(0..3u8, 0..3);
    (0..3u64, 0..2u64, 0..2u8, 0..2u64, 0..2u32, content_type, value).prop_map(
        |(micros, origin, kind, expires_at_micros, flags, content_type, value)| {
            let kind = Kind::from_wire(kind).expect("0 or 1");
            let version = Version { micros, origin };
            let head = RecordHead { version, kind, expires_at_micros, flags };
            Record::encode(&key(b"k"), head, content_type, &value)
        },
    )
}

/// Encoded records, one in three damaged.
fn any_bytes() -> impl Strategy<Value = Bytes> {
    (any_record(), 0..3u8, any::<prop::sample::Index>(), 0..8u8).prop_map(
        |(record, damage, index, bit)| {
            let mut bytes = record.bytes().to_vec();
            if damage == 0 {
                let index = index.index(bytes.len());
                bytes[index] ^= 1 << bit;
            }
            Bytes::from(bytes)
        },
    )
}

proptest! {
    #[test]
    fn merge_is_commutative_associative_and_idempotent(
        a in any_record(), b in any_record(), c in any_record(),
    ) {
        prop_assert_eq!(merge(a.clone(), b.clone()), merge(b.clone(), a.clone()));
        let left = merge(merge(a.clone(), b.clone()), c.clone());
        let right = merge(a.clone(), merge(b, c));
        prop_assert_eq!(left, right);
        prop_assert_eq!(merge(a.clone(), a.clone()), a);
    }

    #[test]
    fn merge_of_bytes_is_so_too_with_damaged_sides(
        a in any_bytes(), b in any_bytes(), c in any_bytes(),
    ) {
        let kept = merge_encoded(a.clone(), b.clone());
        prop_assert_eq!(&kept, &merge_encoded(b.clone(), a.clone()));
        let left = merge_encoded(kept.clone(), c.clone());
        let right = merge_encoded(a.clone(), merge_encoded(b.clone(), c));
        prop_assert_eq!(left, right);
        prop_assert_eq!(merge_encoded(a.clone(), a.clone()), a.clone());
        let intact = |bytes: &Bytes| Record::decode(bytes.clone()).is_ok();
        prop_assert_eq!(intact(&kept), intact(&a) || intact(&b));
    }

    #[test]
    fn a_record_reads_back(
        name in prop::collection::vec(any::<u8>(), 1..64),
        numbers in any::<(u64, u64, u64, u32)>(),
        kind in 0..2u8,
        content_type in prop::option::of("[a-zü/]{0,20}"),
        value in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let (micros, origin, expires_at_micros, flags) = numbers;
        let kind = Kind::from_wire(kind).expect("0 or 1");
        let version = Version { micros, origin };
        let head = RecordHead { version, kind, expires_at_micros, flags };
        let made = Record::encode(&key(&name), head, content_type.as_deref(), &value);
        let read = Record::decode(made.bytes().clone()).expect("intact");
        for record in [&made, &read, &read.detached()] {
            prop_assert_eq!(record.key(), key(&name));
            prop_assert_eq!(record.head(), &head);
            prop_assert_eq!(record.content_type(), content_type.as_deref());
            prop_assert_eq!(record.value(), &value[..]);
            prop_assert_eq!(record.crc(), made.crc());
        }
    }
}

#[test]
fn every_flipped_bit_is_found_or_changes_nothing_that_is_read() {
    let head = RecordHead { expires_at_micros: 7, flags: 9, ..head(5, Kind::Value) };
    let intact = Record::encode(&key(b"key"), head, Some("text/plain"), b"value");
    for bit in 0..intact.bytes().len() * 8 {
        let mut bytes = intact.bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = Record::decode(Bytes::from(bytes)) {
            assert_eq!(read.head(), intact.head(), "bit {bit}");
            assert_eq!(read.key(), intact.key(), "bit {bit}");
            assert_eq!(read.value(), intact.value(), "bit {bit}");
            assert_eq!(read.content_type(), intact.content_type(), "bit {bit}");
        }
    }
}

#[test]
fn a_changed_value_is_corrupt_to_decode_and_taken_by_decode_trusted() {
    let intact = record(5, b"value");
    let mut bytes = intact.bytes().to_vec();
    let at = bytes.windows(5).position(|window| window == b"value").expect("the value");
    bytes[at] = b'V';
    let error = Record::decode(Bytes::from(bytes.clone())).expect_err("changed");
    assert!(matches!(error, RecordError::Checksum { found, .. } if found == intact.crc()));
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(Record::decode_trusted(Bytes::from(bytes)).expect("sound").value(), &b"Value"[..]);
}

#[test]
fn every_cut_but_of_padding_and_garbage_of_any_length_is_refused() {
    let intact = record(5, b"value");
    for length in 0..intact.bytes().len() {
        match Record::decode(intact.bytes().slice(..length)) {
            Err(_) => {}
            Ok(read) => {
                assert!(intact.bytes().len() < length + 8, "length {length}");
                assert_eq!((read.head(), read.value()), (intact.head(), intact.value()));
            }
        }
    }
    let mut random = StdRng::seed_from_u64(1);
    for length in 0..2_000 {
        let mut bytes = vec![0; length];
        random.fill_bytes(&mut bytes);
        assert!(Record::decode(Bytes::from(bytes)).is_err());
    }
}

#[test]
fn a_value_of_a_mebibyte_is_copied_once_and_the_builder_never_grows() {
    // `encode` itself asserts (in debug) that its buffer has the first capacity.
    for size in (0..70).chain([4_095, 4_096, 4_097, 1 << 20]) {
        let value = vec![3; size];
        for content_type in [None, Some("application/octet-stream")] {
            for name in [&b"k"[..], &[7; 4_096]] {
                let all = RecordHead { expires_at_micros: 1, flags: 1, ..head(1, Kind::Tombstone) };
                let made = Record::encode(&key(name), all, content_type, &value);
                assert_eq!(made.value().len(), size);
            }
        }
    }
}

#[test]
fn key_and_value_share_the_records_memory() {
    let read = Record::decode(record(5, b"value").bytes().clone()).expect("intact");
    let whole = read.bytes().as_ptr_range();
    assert!(whole.contains(&read.value().as_ptr()));
    assert!(whole.contains(&read.key().as_bytes().as_ptr()));
    assert!(!whole.contains(&read.detached().value().as_ptr()));
}

#[test]
fn a_record_lives_until_it_expires_and_a_tombstone_never() {
    let expiring = RecordHead { expires_at_micros: 100, ..head(1, Kind::Value) };
    let expiring = Record::encode(&key(b"k"), expiring, None, b"");
    assert!(expiring.is_live_at(99));
    assert!(!expiring.is_live_at(100));
    assert!(record(1, b"").is_live_at(u64::MAX));
    assert!(!Record::encode(&key(b"k"), head(1, Kind::Tombstone), None, b"").is_live_at(0));
}

#[test]
fn the_client_origin_depends_on_the_content_and_not_on_the_version() {
    let origin = |head: &RecordHead| Record::client_origin(head, Some("a"), b"b");
    let first = origin(&head(1, Kind::Value));
    assert_eq!(first, origin(&head(2, Kind::Value)));
    assert_ne!(first, origin(&head(1, Kind::Tombstone)));
    assert_ne!(first, Record::client_origin(&head(1, Kind::Value), None, b"ab"));
    assert_ne!(first, Record::client_origin(&head(1, Kind::Value), Some("ab"), b""));
    assert_eq!(first, 3_439_871_525_937_360_786, "fixed for ever");
}

#[test]
fn the_bytes_of_records_are_fixed() {
    let full = RecordHead {
        version: Version { micros: 1_790_000_000_000_000, origin: 0xdead_beef },
        kind: Kind::Value,
        expires_at_micros: 1_800_000_000_000_000,
        flags: 42,
    };
    let full = Record::encode(&key(b"users/1"), full, Some("text/plain"), b"hello, world");
    golden::check("record-full.hex", full.bytes());
    let bare = Record::encode(&key(b"users/1"), head(1, Kind::Tombstone), None, b"");
    golden::check("record-tombstone.hex", bare.bytes());
    for (name, record) in [("record-full.hex", full), ("record-tombstone.hex", bare)] {
        assert_eq!(Record::decode(Bytes::from(golden::read(name))), Ok(record));
    }
}

#[test]
fn seeded_damage_never_panics() {
    let mut random = StdRng::seed_from_u64(2);
    let intact = record(5, b"a value of some length, to have room for damage").bytes().to_vec();
    for _ in 0..20_000 {
        let mut bytes = intact.clone();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        bytes.truncate(random.random_range(0..=bytes.len()));
        fuzz::record(&bytes);
    }
}
