//! The table of a deployment: balanced to the partition, and steady when a bucket is added.
//!
//! Buckets join one after the other, in the natural order of their names (`b2` before `b10`). The
//! first `buckets_per_key` hold everything; each later one takes its fair share, one partition at a
//! time, from whoever is furthest above the fair share, and takes the one it is nearest to on
//! the ring. So loads are bounded (no bucket is above the greater of 1.10 × its share and the next
//! whole number). That is the first table of a cluster; a later one starts from the table in force
//! (`successor.rs`), so that only moves what must.

use std::cmp::Ordering;

use tako_types::config::Deployment;

use crate::{points::distances, zones::Zones};

/// No bucket is above this many times its fair share, where whole partitions allow.
pub(crate) const LOAD_MAX: f64 = 1.10;

/// Shares nearer than this to a whole number are taken for it.
const SHARE_EPSILON: f64 = 1e-9;

/// Per partition the buckets it falls on, as indices into `deployment.buckets`, nearest first.
///
/// Guarantee: every row has exactly `buckets_per_key` different buckets (all, if there are fewer);
/// the same deployment always gives the same table.
#[must_use]
pub fn table(deployment: &Deployment, partitions: u32) -> Vec<Vec<usize>> {
    let buckets = &deployment.buckets;
    let k = deployment.buckets_per_key.min(buckets.len());
    let near: Vec<Vec<u64>> = buckets
        .iter()
        .map(|bucket| distances(bucket, deployment.points_per_bucket, partitions))
        .collect();
    let mut order: Vec<usize> = (0..buckets.len()).collect();
    order.sort_by(|a, b| natural_order(&buckets[*a].name, &buckets[*b].name));
    let weights: Vec<f64> = buckets.iter().map(|bucket| bucket.weight).collect();
    let zones = Zones::of(deployment);
    let mut layout = Layout {
        rows: vec![order[..k].to_vec(); partitions as usize],
        loads: vec![0; buckets.len()],
    };
    for bucket in &order[..k] {
        layout.loads[*bucket] = partitions as usize;
    }
    for count in k + 1..=order.len() {
        let present = &order[..count];
        let shares = shares(present, &weights, k, partitions);
        // A share is at most the number of partitions.
        let wanted = shares[order[count - 1]].round() as usize;
        layout.join(order[count - 1], wanted, &shares, &near, &zones);
    }
    layout.finish(&near, &zones)
}

/// Per bucket the number of partitions it should hold by its weight, in parts of one.
///
/// A bucket holds each partition at most once, so a heavy one is cut at `partitions` and the rest
/// is shared by the others.
#[must_use]
pub fn fair_shares(deployment: &Deployment, partitions: u32) -> Vec<f64> {
    let weights: Vec<f64> = deployment.buckets.iter().map(|bucket| bucket.weight).collect();
    let present: Vec<usize> = (0..weights.len()).collect();
    shares(&present, &weights, deployment.buckets_per_key.min(weights.len()), partitions)
}

fn shares(present: &[usize], weights: &[f64], k: usize, partitions: u32) -> Vec<f64> {
    let full = f64::from(partitions);
    let mut shares = vec![0.0; weights.len()];
    let mut open: Vec<usize> = present.to_vec();
    let mut left = full * k as f64;
    loop {
        let total: f64 = open.iter().map(|bucket| weights[*bucket]).sum();
        let over: Vec<usize> =
            open.iter().copied().filter(|b| full < left * weights[*b] / total).collect();
        if over.is_empty() {
            for bucket in open {
                shares[bucket] = left * weights[bucket] / total;
            }
            return shares;
        }
        for bucket in over {
            shares[bucket] = full;
            left -= full;
            open.retain(|other| *other != bucket);
        }
    }
}

/// A table in the making.
pub(crate) struct Layout {
    /// Per partition its buckets, in no order.
    pub(crate) rows: Vec<Vec<usize>>,
    /// Per bucket the number of rows it is in.
    pub(crate) loads: Vec<usize>,
}

impl Layout {
    /// Gives `bucket` up to `wanted` places more: the nearest partitions first.
    ///
    /// Of what it takes, so much is set aside that every other bucket comes down to its bound; the
    /// rest is free to come from any bucket above its share.
    pub(crate) fn join(
        &mut self,
        bucket: usize,
        mut wanted: usize,
        shares: &[f64],
        near: &[Vec<u64>],
        zones: &Zones,
    ) {
        let bounds: Vec<usize> = shares.iter().map(|share| bound(*share)).collect();
        let over = |loads: &[usize], b: usize| loads[b].saturating_sub(bounds[b]);
        let due: usize = (0..bounds.len()).map(|b| over(&self.loads, b)).sum();
        let mut free = wanted.saturating_sub(due);
        let mut nearest: Vec<usize> = (0..self.rows.len()).collect();
        nearest.sort_by_key(|partition| near[bucket][*partition]);
        // First without harm to zones, then as it comes; last from whoever has most above its share.
        for pass in 0..3 {
            for partition in &nearest {
                let row = &self.rows[*partition];
                if wanted == 0 || row.contains(&bucket) {
                    continue;
                }
                let surplus = |donor: usize| self.loads[donor] as f64 - shares[donor];
                let donor = row
                    .iter()
                    .copied()
                    .filter(|d| pass != 0 || zones.harm(row, *d, bucket) == 0)
                    .filter(|d| {
                        let is_due = 0 < over(&self.loads, *d);
                        is_due || pass == 2 || (0 < free && SHARE_EPSILON < surplus(*d))
                    })
                    .max_by(|a, b| {
                        over(&self.loads, *a)
                            .cmp(&over(&self.loads, *b))
                            .then(surplus(*a).total_cmp(&surplus(*b)))
                            .then(b.cmp(a))
                    });
                let Some(donor) = donor else { continue };
                if over(&self.loads, donor) == 0 {
                    free = free.saturating_sub(1);
                }
                self.hand_over(*partition, donor, bucket);
                wanted -= 1;
            }
        }
    }

    /// Puts `receiver` in the place of `donor`.
    pub(crate) fn hand_over(&mut self, partition: usize, donor: usize, receiver: usize) {
        for held in &mut self.rows[partition] {
            if *held == donor {
                *held = receiver;
            }
        }
        self.loads[donor] -= 1;
        self.loads[receiver] += 1;
    }

    /// The rows, zones apart, nearest bucket first.
    pub(crate) fn finish(mut self, near: &[Vec<u64>], zones: &Zones) -> Vec<Vec<usize>> {
        zones.spread(&mut self.rows, near);
        for (partition, row) in self.rows.iter_mut().enumerate() {
            row.sort_by_key(|bucket| (near[*bucket][partition], *bucket));
        }
        self.rows
    }
}

/// Most partitions a bucket of that share may hold: 1.10 times the share, in whole partitions,
/// or the next whole number where that is more.
pub(crate) fn bound(share: f64) -> usize {
    // Shares are at most 4,096.
    (share - SHARE_EPSILON).ceil().max((share * LOAD_MAX + SHARE_EPSILON).floor()) as usize
}

/// Compares names with runs of digits as numbers: `b2` before `b10`.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some(x), Some(y)) = (left.first(), right.first()) {
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (m, rest_left) = digits(left);
            let (n, rest_right) = digits(right);
            let order = m.len().cmp(&n.len()).then(m.cmp(n));
            if order != Ordering::Equal {
                return order;
            }
            (left, right) = (rest_left, rest_right);
        } else if x != y {
            return x.cmp(y);
        } else {
            (left, right) = (&left[1..], &right[1..]);
        }
    }
    left.len().cmp(&right.len()).then(a.cmp(b))
}

/// The digits in front, without leading zeros, and the rest.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let zeros = text[..end].iter().position(|b| *b != b'0').unwrap_or(end);
    (&text[zeros..end], &text[end..])
}

#[cfg(test)]
mod tests;
