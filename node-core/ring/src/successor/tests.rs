//! Movement and balance of changed deployments: any name, any number, chains of changes.

use tako_types::config::Table;

use super::*;
use crate::{
    fixture::{Seeded, check_rows, deployment, loads},
    movement,
};

fn indices(rows: &[Vec<usize>]) -> Table {
    rows.iter().map(|row| row.iter().map(|index| *index as u16).collect()).collect()
}

fn successor(before: &Deployment, rows: &[Vec<usize>], after: &Deployment) -> Vec<Vec<usize>> {
    table_after(before, &indices(rows), after, rows.len() as u32)
}

fn random_names(random: &mut Seeded, count: usize) -> Vec<(String, f64)> {
    (0..count).map(|_| (format!("x{:08x}", random.next() >> 32), 1.0)).collect()
}

fn check_bounds(deployment: &Deployment, rows: &[Vec<usize>], what: &str) {
    let shares = fair_shares(deployment, rows.len() as u32);
    for (load, share) in loads(rows, shares.len()).into_iter().zip(shares) {
        let most = (share * 1.10 + 1e-9).floor().max((share - 1e-9).ceil());
        assert!(load as f64 <= most, "{what}: {load} of {share}");
    }
}

/// Places above their bounds under `after`: they must move, whatever else does.
fn overload(before: &Deployment, rows: &[Vec<usize>], after: &Deployment) -> usize {
    let shares = fair_shares(after, rows.len() as u32);
    let held = loads(rows, before.buckets.len());
    let over = |(bucket, load): (&tako_types::config::Bucket, usize)| match after
        .buckets
        .iter()
        .position(|b| b.name == bucket.name)
    {
        Some(at) => load.saturating_sub(bound(shares[at])),
        None => load,
    };
    before.buckets.iter().zip(held).map(over).sum()
}

#[test]
fn a_bucket_of_any_name_moves_at_most_five_quarters_of_the_optimum() {
    for seed in 0..200 {
        let mut random = Seeded(seed * 1_000_000);
        let partitions = 1 << (3 + random.below(7));
        let k = 1 + random.below(4);
        let count = k + 1 + random.below(23);
        let names = random_names(&mut random, count);
        let full = deployment(&names, k);
        let mut fewer = names.clone();
        fewer.remove(random.below(count));
        let before = deployment(&fewer, k);
        let rows = table(&before, partitions);
        let after = successor(&before, &rows, &full);
        check_rows(&full, &after, partitions);
        let what = format!("seed {seed}: {partitions} partitions, {k} per key, {count} buckets");
        check_bounds(&full, &after, &what);
        let share = fair_shares(&full, partitions)[0];
        let optimum = share.ceil().max(overload(&before, &rows, &full) as f64);
        let moved = movement((&before, &rows), (&full, &after)) as f64;
        assert!(moved <= (share * 1.25).max(optimum), "{what}: {moved} of {share}");
    }
}

#[test]
fn a_bucket_that_goes_moves_at_most_five_quarters_of_what_it_held() {
    for seed in 0..200 {
        let mut random = Seeded(seed * 1_000_000 + 500_000);
        let partitions = 1 << (3 + random.below(7));
        let k = 1 + random.below(4);
        let count = k + 1 + random.below(23);
        let names = random_names(&mut random, count);
        let full = deployment(&names, k);
        let rows = table(&full, partitions);
        let gone = random.below(count);
        let held = loads(&rows, count)
            [full.buckets.iter().position(|b| b.name == names[gone].0).expect("it is there")];
        let mut fewer = names;
        fewer.remove(gone);
        let rest = deployment(&fewer, k);
        let after = successor(&full, &rows, &rest);
        check_rows(&rest, &after, partitions);
        let what = format!("seed {seed}: {partitions} partitions, {k} per key, {count} buckets");
        check_bounds(&rest, &after, &what);
        let moved = movement((&full, &rows), (&rest, &after)) as f64;
        assert!(moved <= (held as f64 * 1.25).max(held as f64 + 1.0), "{what}: {moved} of {held}");
    }
}

/// Years of changes: the bounds hold after each, and none moves much more than it must.
#[test]
fn a_long_chain_of_changes_stays_balanced_and_steady() {
    let (mut moved_in_all, mut optimum_in_all) = (0.0, 0.0);
    for seed in 0..40 {
        let mut random = Seeded(seed * 1_000_000);
        let partitions = 1 << (5 + random.below(5));
        let mut k = 1 + random.below(3);
        let mut names = random_names(&mut random, k + 3);
        let mut before = deployment(&names, k);
        let mut rows = table(&before, partitions);
        for turn in 0..25 {
            match random.below(10) {
                0..5 => names.extend(random_names(&mut random, 1)),
                5..8 if k < names.len() => drop(names.remove(random.below(names.len()))),
                8 => k = (1 + random.below(4)).min(names.len()),
                _ => {
                    let at = random.below(names.len());
                    names[at].1 = 0.5 * (1 + random.below(6)) as f64;
                }
            }
            let after = deployment(&names, k);
            let next = successor(&before, &rows, &after);
            check_rows(&after, &next, partitions);
            let what = format!("seed {seed} turn {turn}: {partitions}, {k} per key, {names:?}");
            check_bounds(&after, &next, &what);
            assert_eq!(successor(&after, &next, &after), next, "{what}: moved without a change");
            moved_in_all += movement((&before, &rows), (&after, &next)) as f64;
            optimum_in_all += least(&before, &rows, &after);
            (before, rows) = (after, next);
        }
    }
    let ratio = moved_in_all / optimum_in_all;
    assert!(ratio <= 1.25, "{ratio}");
}

/// No fewer places can move: what is above its bound or gone must leave, what is new or far below
/// its share must come, and rows must grow.
fn least(before: &Deployment, rows: &[Vec<usize>], after: &Deployment) -> f64 {
    let partitions = rows.len();
    let grown = partitions * after.buckets_per_key.saturating_sub(before.buckets_per_key);
    let leave = match before.buckets_per_key <= after.buckets_per_key {
        true => overload(before, rows, after),
        false => 0,
    };
    let held = loads(rows, before.buckets.len());
    let come: usize = after
        .buckets
        .iter()
        .zip(fair_shares(after, partitions as u32))
        .map(|(bucket, share)| match before.buckets.iter().position(|b| b.name == bucket.name) {
            None => share.floor() as usize,
            Some(at) => ((share / 1.10).floor() as usize).saturating_sub(held[at]),
        })
        .sum();
    (grown + leave).max(come) as f64
}

#[test]
fn another_number_of_partitions_or_other_buckets_start_afresh() {
    let names = |letter: char| -> Vec<(String, f64)> {
        (0..5).map(|n| (format!("{letter}{n}"), 1.0)).collect()
    };
    let (before, after) = (deployment(&names('a'), 2), deployment(&names('b'), 2));
    let rows = table(&before, 32);
    assert_eq!(successor(&before, &rows, &after), table(&after, 32));
    assert_eq!(table_after(&before, &indices(&rows), &before, 64), table(&before, 64));
}
