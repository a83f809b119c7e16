//! The identity file under loss and damage.

use std::fs;

use tako_types::{ClusterId, Incarnation, Lsn, NodeId, PartitionId};

use super::Identity;
use crate::{Disk, Durability, FsDisk};

fn identity() -> Identity {
    Identity {
        cluster: ClusterId(u128::MAX - 5),
        node: NodeId::new("n1"),
        incarnation: Incarnation(1_790_000_000_000_000),
        clock_ceiling_micros: u64::MAX,
        promise_ceiling_micros: 4,
        boot_id: FsDisk.boot_id().expect("a Linux machine"),
        clean: false,
        durability: Durability::Fsync,
        recovered: false,
        refilled: [PartitionId(3)].into(),
        forgotten: Lsn(4),
        earlier: [(Incarnation(5), Lsn(6))].into(),
        untrusted_since: Some(Lsn(8)),
        left: Default::default(),
        adopted: None,
        known: [(NodeId::new("n2"), Incarnation(7))].into(),
    }
}

#[test]
fn a_stored_identity_reads_back_and_a_missing_one_is_none() {
    let dir = tempfile::tempdir().expect("temp folder");
    assert_eq!(Identity::load(&FsDisk, dir.path()).expect("empty folder"), None);
    identity().store(&FsDisk, dir.path()).expect("writable folder");
    let second = Identity { clean: true, ..identity() };
    second.store(&FsDisk, dir.path()).expect("writable folder");
    assert_eq!(Identity::load(&FsDisk, dir.path()).expect("intact"), Some(second));
    assert!(!dir.path().join("identity.tmp").exists());
}

#[test]
fn what_an_older_identity_does_not_say_has_its_default() {
    let dir = tempfile::tempdir().expect("temp folder");
    let json = r#"{"cluster":"00000000000000000000000000000007","node":"n1","incarnation":5,
        "clock_ceiling_micros":6,"boot_id":"b","clean":true,"durability":"fsync"}"#;
    let text = format!("{:08x}\n{json}\n", crc32c::crc32c(json.as_bytes()));
    fs::write(dir.path().join("identity"), text).expect("writable folder");
    let read = Identity::load(&FsDisk, dir.path()).expect("intact").expect("there");
    assert_eq!((read.incarnation, read.clean), (Incarnation(5), true));
    assert_eq!((read.recovered, read.untrusted_since), (false, None));
    assert!(read.refilled.is_empty() && read.earlier.is_empty() && read.known.is_empty());
    assert_eq!(read.forgotten, Lsn(0));
}

#[test]
fn a_torn_or_flipped_identity_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().expect("temp folder");
    identity().store(&FsDisk, dir.path()).expect("writable folder");
    let path = dir.path().join("identity");
    let intact = fs::read(&path).expect("just written");
    for cut in 0..intact.len() {
        fs::write(&path, &intact[..cut]).expect("writable");
        let error = Identity::load(&FsDisk, dir.path()).expect_err("torn");
        assert!(error.to_string().contains("is damaged"), "cut {cut}: {error}");
    }
    for at in 0..intact.len() {
        for bit in 0..8 {
            let mut flipped = intact.clone();
            flipped[at] ^= 1 << bit;
            fs::write(&path, &flipped).expect("writable");
            Identity::load(&FsDisk, dir.path()).expect_err("flipped");
        }
    }
}

#[test]
fn a_left_over_temporary_file_does_not_hide_the_identity() {
    let dir = tempfile::tempdir().expect("temp folder");
    identity().store(&FsDisk, dir.path()).expect("writable folder");
    fs::write(dir.path().join("identity.tmp"), b"half").expect("writable");
    assert_eq!(Identity::load(&FsDisk, dir.path()).expect("intact"), Some(identity()));
    identity().store(&FsDisk, dir.path()).expect("writable folder");
}
