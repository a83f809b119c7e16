//! The table of a changed deployment: starts from the table in force and moves only what must.
//!
//! Buckets are told apart by name. What stays is kept where it is; places of buckets that are gone
//! go to whoever is furthest below its share; a new bucket takes its share; then nobody is above
//! its bound, nor far below its share. A deployment whose layout did not change keeps its table to
//! the letter. Pure: the same deployment and the same table before always give the same table.
//! Not here: the first table of a cluster (`layout.rs`).

use std::collections::HashMap;

use tako_types::config::{Deployment, Table};

use crate::{
    fair_shares,
    layout::{LOAD_MAX, Layout, bound, table},
    points::distances,
    zones::Zones,
};

/// Per partition the buckets it falls on, as [`table`] gives them, moved as little as possible
/// from `rows`, the table of `before`.
///
/// Guarantee: as [`table`]. Nothing in common, or another number of partitions: as if there had
/// been nothing before.
#[must_use]
pub fn table_after(
    before: &Deployment,
    rows: &Table,
    deployment: &Deployment,
    partitions: u32,
) -> Vec<Vec<usize>> {
    let index_of: HashMap<&str, usize> =
        deployment.buckets.iter().enumerate().map(|(at, b)| (b.name.as_str(), at)).collect();
    let now: Vec<Option<usize>> =
        before.buckets.iter().map(|b| index_of.get(b.name.as_str()).copied()).collect();
    if rows.len() != partitions as usize || now.iter().all(Option::is_none) {
        return table(deployment, partitions);
    }
    let kept: Vec<Vec<usize>> = rows
        .iter()
        .map(|row| row.iter().filter_map(|index| now[usize::from(*index)]).collect())
        .collect();
    if is_same_layout(before, deployment) {
        return kept;
    }
    let is_new = |bucket: usize| !now.contains(&Some(bucket));
    let mut loads = vec![0; deployment.buckets.len()];
    for bucket in kept.iter().flatten() {
        loads[*bucket] += 1;
    }
    let shares = fair_shares(deployment, partitions);
    let near: Vec<Vec<u64>> = deployment
        .buckets
        .iter()
        .map(|bucket| distances(bucket, deployment.points_per_bucket, partitions))
        .collect();
    let zones = Zones::of(deployment);
    let mut layout = Layout { rows: kept, loads };
    let k = deployment.buckets_per_key.min(deployment.buckets.len());
    layout.resize(k, &shares, &near, &zones);
    let mut joining: Vec<(usize, usize)> = (0..shares.len())
        .map(|bucket| {
            // Shares are at most the number of partitions.
            let least = match is_new(bucket) {
                true => shares[bucket].round() as usize,
                false => (shares[bucket] / LOAD_MAX).floor() as usize,
            };
            (least.saturating_sub(layout.loads[bucket]), bucket)
        })
        .filter(|(wanted, _)| 0 < *wanted)
        .collect();
    joining.sort_by(|a, b| b.cmp(a));
    for (wanted, bucket) in joining {
        layout.join(bucket, wanted, &shares, &near, &zones);
    }
    layout.level(&shares, &near, &zones);
    layout.finish(&near, &zones)
}

/// Whether everything a table is made from is the same.
fn is_same_layout(a: &Deployment, b: &Deployment) -> bool {
    let zones = |deployment: &Deployment| -> Vec<Vec<Option<String>>> {
        let of = |bucket: &tako_types::config::Bucket| {
            let mut zones: Vec<_> = bucket.nodes.iter().map(|node| node.zone.clone()).collect();
            zones.sort();
            zones
        };
        deployment.buckets.iter().map(of).collect()
    };
    let weighed = |deployment: &Deployment| -> Vec<(String, f64)> {
        deployment.buckets.iter().map(|bucket| (bucket.name.clone(), bucket.weight)).collect()
    };
    a.buckets_per_key == b.buckets_per_key
        && a.points_per_bucket == b.points_per_bucket
        && weighed(a) == weighed(b)
        && zones(a) == zones(b)
}

impl Layout {
    /// Brings every row to `k` buckets: too many lose whoever is most above its share, empty places
    /// go to whoever is most below it.
    fn resize(&mut self, k: usize, shares: &[f64], near: &[Vec<u64>], zones: &Zones) {
        let Self { rows, loads } = self;
        for row in rows.iter_mut() {
            while k < row.len() {
                let surplus = |bucket: usize| loads[bucket] as f64 - shares[bucket];
                let leaving = (0..row.len())
                    .max_by(|a, b| surplus(row[*a]).total_cmp(&surplus(row[*b])).then(b.cmp(a)))
                    .expect("the row is longer than k");
                let bucket = row.swap_remove(leaving);
                loads[bucket] -= 1;
            }
        }
        for (partition, row) in rows.iter_mut().enumerate() {
            while row.len() < k {
                let deficit = |bucket: usize| shares[bucket] - loads[bucket] as f64;
                let joining = (0..shares.len())
                    .filter(|bucket| !row.contains(bucket))
                    .min_by(|a, b| {
                        let harm = |bucket: usize| {
                            row.len() + 1 == k
                                && zones.is_harmed(row.iter().copied().chain([bucket]))
                        };
                        // Zones count only among buckets that have room at all.
                        let worth = |bucket: usize| (deficit(bucket) <= 0.0, harm(bucket));
                        worth(*a)
                            .cmp(&worth(*b))
                            .then(deficit(*b).total_cmp(&deficit(*a)))
                            .then(near[*a][partition].cmp(&near[*b][partition]))
                            .then(a.cmp(b))
                    })
                    .expect("k is at most the number of buckets");
                row.push(joining);
                loads[joining] += 1;
            }
        }
    }

    /// Brings every bucket down to its bound.
    fn level(&mut self, shares: &[f64], near: &[Vec<u64>], zones: &Zones) {
        let bounds: Vec<usize> = shares.iter().map(|share| bound(*share)).collect();
        for donor in 0..shares.len() {
            while bounds[donor] < self.loads[donor] {
                let Some(path) = self.way_down(donor, &bounds, near, zones) else { break };
                for (partition, from, to) in path {
                    self.hand_over(partition, from, to);
                }
            }
        }
    }

    /// The shortest chain of places handed on that takes one from `donor` and ends at a bucket
    /// with room: (partition, from, to), or none.
    fn way_down(
        &self,
        donor: usize,
        bounds: &[usize],
        near: &[Vec<u64>],
        zones: &Zones,
    ) -> Option<Vec<(usize, usize, usize)>> {
        // How each bucket was reached; the first found is the shortest.
        let mut reached: Vec<Option<(usize, usize)>> = vec![None; bounds.len()];
        let mut front = vec![donor];
        while !front.is_empty() {
            let mut found: Vec<(u8, u64, usize, usize, usize)> = Vec::new();
            for from in &front {
                for (partition, row) in
                    self.rows.iter().enumerate().filter(|(_, r)| r.contains(from))
                {
                    let free =
                        |to: &usize| *to != donor && reached[*to].is_none() && !row.contains(to);
                    for to in (0..bounds.len()).filter(free) {
                        let harm = zones.harm(row, *from, to);
                        found.push((harm, near[to][partition], partition, *from, to));
                    }
                }
            }
            found.sort_unstable();
            front.clear();
            for (_, _, partition, from, to) in found {
                if reached[to].is_none() {
                    reached[to] = Some((partition, from));
                    front.push(to);
                }
            }
            let room = |bucket: usize| bounds[bucket].saturating_sub(self.loads[bucket]);
            let end = front.iter().copied().filter(|b| 0 < room(*b)).max_by_key(|b| room(*b));
            if let Some(end) = end {
                let mut path = Vec::new();
                let mut to = end;
                while to != donor {
                    let (partition, from) = reached[to]?;
                    path.push((partition, from, to));
                    to = from;
                }
                return Some(path);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
