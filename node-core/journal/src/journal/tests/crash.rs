//! Crashes: at every prefix of what was done, with everything, nothing or any sectors of the
//! unsynced; and of the machine after one of the process.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use proptest::prelude::*;
use tako_types::{Incarnation, Lsn};

use super::{Index, commit_all, core, options, pend};
use crate::{
    Durable, JournalOptions, Sink, Writer,
    fault::{Call, Fault, FaultDisk, Kept, MemDisk, Op, surviving},
};

/// A small generator; the seed comes in.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below.max(1)
    }

    /// What survives of an unsynced change: nothing, all, or a part.
    fn keep(&mut self, op: &Op) -> Kept {
        let length = if let Op::Write(_, _, bytes) = op { bytes.len() } else { 0 };
        match self.next(5) {
            0 => Kept::Nothing,
            1 => Kept::All,
            2 => Kept::Prefix(self.next(length + 1)),
            unit => {
                // Whole pages of the system's cache, or sectors of the disk.
                let sectors = if unit == 3 { 8 } else { 1 };
                let all: Vec<u64> = op.sectors().collect();
                let of = |sector: &u64| sector / sectors - all[0] / sectors;
                let pages = all.last().map_or(0, of) + 1;
                let kept: Vec<bool> = (0..pages).map(|_| self.next(2) == 0).collect();
                Kept::Sectors(all.iter().map(|sector| kept[of(sector) as usize]).collect())
            }
        }
    }
}

fn small() -> JournalOptions {
    JournalOptions { disk_bytes_max: 1 << 18, ..options(Path::new("/j")) }
}

/// Opens a crashed disk: no damage, acknowledged entries that were not released are there, and
/// whoever appends gets numbers above all that were ever visible.
fn check(disk: &MemDisk, visible: &[Durable], released: &[Durable], what: &str) -> Vec<Durable> {
    let (mut writer, recovered, index) = core(small(), disk);
    assert_eq!(recovered.damage, None, "{what}");
    let replayed = index.all();
    for durable in visible {
        let found = replayed.iter().find(|r| r.lsn == durable.lsn);
        match found {
            Some(found) => assert_eq!(found, durable, "{what}"),
            None => assert!(released.contains(durable), "{what}: lost {:?}", durable.lsn),
        }
    }
    let last = visible.last().map_or(Lsn(0), |durable| durable.lsn);
    assert!(last <= recovered.last_lsn, "{what}: {last} was visible, {recovered:?}");
    writer.commit(&mut pend(&[vec![9; 10]])).expect("room");
    let appended = index.all().pop().expect("just appended");
    assert_eq!(appended.lsn, recovered.last_lsn.next(), "{what}");
    drop(writer);
    let (_, again, _) = core(small(), disk);
    assert_eq!((again.damage, again.last_lsn), (None, appended.lsn), "{what}");
    replayed
}

/// Remembers everything it was given, and how many changes to the disk had been done by then.
struct Witness {
    disk: FaultDisk,
    index: Index,
    after: Mutex<Vec<usize>>,
}

impl Sink for Witness {
    fn on_durable(&self, batch: &[Durable]) {
        self.index.on_durable(batch);
        self.after.lock().extend(batch.iter().map(|_| self.disk.op_count()));
    }
}

#[test]
fn no_lsn_is_reused_and_nothing_visible_is_lost_at_any_prefix_of_a_run() {
    let base = MemDisk::default();
    let disk = FaultDisk::new(Arc::new(base.deep_copy()));
    disk.record();
    let (index, after) = (Index::default(), Mutex::default());
    let seen = Arc::new(Witness { disk: disk.clone(), index, after });
    let opened = Writer::open(small(), Arc::new(disk.clone()), seen.clone());
    let (mut writer, _) = opened.expect("opens");
    // (changes done, entries released) after each step.
    let mut steps = vec![(disk.op_count(), 0)];
    let mut released = Vec::new();
    for number in 0..14u8 {
        commit_all(&mut writer, &[vec![number; 700], vec![number; 300]]);
        steps.push((disk.op_count(), released.len()));
        if number % 4 == 3 {
            for durable in seen.index.all().into_iter().skip(released.len()).take(6) {
                writer.release(durable.location);
                released.push(durable);
            }
            // A release counts before the change that it causes.
            steps.push((disk.op_count(), released.len()));
            writer.trim().expect("room");
            steps.push((disk.op_count(), released.len()));
        }
    }
    let (ops, all, after) = (disk.ops(), seen.index.all(), seen.after.lock().clone());
    for cut in 0..=ops.len() {
        // From the moment that the sink was told, not only from the end of its commit.
        let visible = after.iter().filter(|done| **done <= cut).count();
        // What may be missing: everything released by the end of the step that was under way.
        let gone = steps.iter().find(|s| cut <= s.0).map_or(released.len(), |s| s.1);
        let gone = gone.max(steps.iter().filter(|s| s.0 <= cut).map(|s| s.1).max().unwrap_or(0));
        let (visible, gone) = (&all[..visible], &released[..gone]);
        check(&surviving(&base, &ops[..cut], |_| Kept::All), visible, gone, &format!("all, {cut}"));
        check(
            &surviving(&base, &ops[..cut], |_| Kept::Nothing),
            visible,
            gone,
            &format!("none, {cut}"),
        );
        for seed in 0..4 {
            let mut chance = Chance(seed * 7919 + cut as u64);
            let disk = surviving(&base, &ops[..cut], |op| chance.keep(op));
            check(&disk, visible, gone, &format!("seed {seed}, {cut}"));
        }
    }
}

/// The process ends between write and sync, starts again and shows the entry; then power fails.
#[test]
fn what_a_restart_shows_survives_a_power_loss_after_it() {
    let base = MemDisk::default();
    let disk = FaultDisk::new(Arc::new(base.deep_copy()));
    disk.record();
    let (mut writer, _, _) = core(small(), &disk);
    disk.fail_nth(Call::SyncData, 1, Fault::Error(std::io::ErrorKind::Other));
    writer.commit(&mut pend(&[vec![1; 100]])).expect_err("not synced");
    drop(writer);
    let (_, recovered, shown) = core(small(), &disk);
    assert_eq!(recovered.entry_count, 1);
    let (_, recovered, replayed) = core(small(), &surviving(&base, &disk.ops(), |_| Kept::Nothing));
    assert_eq!((recovered.damage, replayed.all()), (None, shown.all()));
}

/// The process ends anywhere, starts again, shows and takes entries; then power fails anywhere.
#[test]
fn a_power_loss_after_a_restart_is_survived_wherever_the_process_had_ended() {
    let base = MemDisk::default();
    let disk = FaultDisk::new(Arc::new(base.deep_copy()));
    disk.record();
    let (mut writer, _, _) = core(small(), &disk);
    for number in 0..6u8 {
        commit_all(&mut writer, &[vec![number; 900], vec![number; 500]]);
    }
    let ops = disk.ops();
    for cut in 0..=ops.len() {
        let left = surviving(&base, &ops[..cut], |_| Kept::All);
        let disk = FaultDisk::new(Arc::new(left));
        disk.record();
        let (mut writer, _, index) = core(small(), &disk);
        let mut steps = vec![(disk.op_count(), index.all().len())];
        for number in 0..3u8 {
            commit_all(&mut writer, &[vec![number; 1200]]);
            steps.push((disk.op_count(), index.all().len()));
        }
        let (more, all) = (disk.ops(), index.all());
        for lost in 0..=more.len() {
            let visible = steps.iter().filter(|s| s.0 <= lost).map(|s| s.1).max().unwrap_or(0);
            let joined: Vec<Op> = ops[..cut].iter().chain(&more[..lost]).cloned().collect();
            for seed in 0..4 {
                let mut chance = Chance(seed * 7919 + (cut * 1000 + lost) as u64);
                let crashed = surviving(&base, &joined, |op| match seed {
                    0 => Kept::Nothing,
                    _ => chance.keep(op),
                });
                let what = format!("ended at {cut}, power lost at {lost}, seed {seed}");
                check(&crashed, &all[..visible], &[], &what);
            }
        }
    }
}

/// Any sync fails, the process starts again and goes on; then power fails.
#[test]
fn a_failed_sync_costs_nothing_that_is_shown_after_it() {
    for failing in 1..60 {
        let base = MemDisk::default();
        let disk = FaultDisk::new(Arc::new(base.deep_copy()));
        disk.record();
        disk.fail_nth(Call::SyncData, failing, Fault::Error(std::io::ErrorKind::Other));
        let mut last = Vec::new();
        let mut failures = 0;
        for number in 0..10u8 {
            let index = Arc::new(Index::default());
            let opened = Writer::open(small(), Arc::new(disk.clone()), index.clone());
            let Ok((mut writer, recovered)) = opened else {
                failures += 1;
                continue;
            };
            assert_eq!(recovered.damage, None, "sync {failing}");
            let mut pending = pend(&[vec![number; 900], vec![number; 900], vec![number; 900]]);
            while !pending.is_empty() {
                failures += usize::from(writer.commit(&mut pending).is_err());
            }
            last = index.all();
        }
        assert!(failures <= 1, "sync {failing}");
        let ops = disk.ops();
        for seed in 0..8 {
            let mut chance = Chance(seed * 7919 + failing);
            let crashed = surviving(&base, &ops, |op| match seed {
                0 => Kept::Nothing,
                _ => chance.keep(op),
            });
            check(&crashed, &last, &[], &format!("sync {failing}, seed {seed}"));
        }
    }
}

/// A quarantine that is interrupted anywhere is reported again, and takes numbers above.
#[test]
fn damage_is_not_forgotten_at_any_prefix_of_a_quarantine() {
    let base = MemDisk::default();
    let (mut writer, _, index) = core(small(), &base);
    for number in 0..10u8 {
        commit_all(&mut writer, &[vec![number; 700], vec![number; 300]]);
    }
    drop(writer);
    let first = base.paths().into_iter().min().expect("files");
    base.edit(&first, |bytes| bytes[150] ^= 1);
    let last = index.all().len() as u64;
    let disk = FaultDisk::new(Arc::new(base.deep_copy()));
    disk.record();
    let (mut writer, _, _) = core(small(), &disk);
    let before_adopting = disk.op_count();
    writer.adopt(Incarnation(6)).expect("room");
    let ops = disk.ops();
    for cut in 0..=before_adopting {
        for seed in 0..5 {
            let mut chance = Chance(seed * 31 + cut as u64);
            let crashed = surviving(&base, &ops[..cut], |op| match seed {
                0 => Kept::All,
                1 => Kept::Nothing,
                _ => chance.keep(op),
            });
            let (_, recovered, _) = core(small(), &crashed);
            assert!(recovered.damage.is_some(), "seed {seed}, {cut}");
            assert!(Lsn(last) < recovered.last_lsn, "seed {seed}, {cut}: {recovered:?}");
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<u16>),
    Release(u8),
    Crash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => prop::collection::vec(0u16..3000, 1..5).prop_map(Step::Append),
        3 => any::<u8>().prop_map(Step::Release),
        1 => any::<u64>().prop_map(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random appends, releases and crashes against a list of what must be there.
    #[test]
    fn the_journal_holds_what_a_model_holds(steps in prop::collection::vec(step(), 1..40)) {
        let mut base = MemDisk::default();
        let mut disk = FaultDisk::new(Arc::new(base.deep_copy()));
        disk.record();
        let (mut writer, _, mut index) = core(small(), &disk);
        let mut needed: Vec<Durable> = Vec::new();
        let mut seen = 0;
        for step in steps {
            match step {
                Step::Append(sizes) => {
                    let payloads: Vec<_> = sizes.iter().map(|s| vec![*s as u8; *s as usize]).collect();
                    let mut pending = pend(&payloads);
                    while !pending.is_empty() {
                        // Full is fine, and then nothing is there.
                        if let Err(error) = writer.commit(&mut pending) {
                            prop_assert!(error.kind().retry(), "{}", error);
                        }
                    }
                    needed.extend(index.all().into_iter().skip(seen));
                    seen = index.all().len();
                }
                Step::Release(pick) if !needed.is_empty() => {
                    let count = usize::from(pick) % needed.len() + 1;
                    for durable in needed.drain(..count) {
                        writer.release(durable.location);
                    }
                    writer.trim().expect("sound disk");
                }
                Step::Release(_) => {}
                Step::Crash(seed) => {
                    let mut chance = Chance(seed);
                    let last = writer.last_lsn();
                    let done = disk.op_count();
                    // The crash comes somewhere within one more commit, which nobody hears of.
                    let _unheard = writer.commit(&mut pend(&[vec![0xcc; 1500], vec![0xdd; 1500]]));
                    let cut = done + chance.next(disk.op_count() - done + 1);
                    base = surviving(&base, &disk.ops()[..cut], |op| chance.keep(op));
                    // Another crash comes somewhere within the recovery.
                    let first = FaultDisk::new(Arc::new(base.deep_copy()));
                    first.record();
                    drop(core(small(), &first));
                    let cut = chance.next(first.op_count() + 1);
                    base = surviving(&base, &first.ops()[..cut], |op| chance.keep(op));
                    disk = FaultDisk::new(Arc::new(base.deep_copy()));
                    disk.record();
                    let (recovered_writer, recovered, replayed) = core(small(), &disk);
                    prop_assert_eq!(&recovered.damage, &None);
                    prop_assert!(last <= recovered.last_lsn);
                    let found = replayed.all();
                    for durable in &needed {
                        prop_assert!(found.contains(durable), "lost {}", durable.lsn);
                    }
                    // What was replayed is visible, acknowledged before or not: it must stay.
                    needed = found;
                    writer = recovered_writer;
                    seen = needed.len();
                    index = replayed;
                }
            }
        }
    }
}
