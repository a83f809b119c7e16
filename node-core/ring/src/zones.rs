//! Zones: that no zone holds a majority of a partition's replicas, where the layout allows.
//!
//! A row is harmed when one zone alone holds W (a majority) of its nodes: with that zone down the
//! partition takes no writes. Joining buckets avoid harm; what is left is mended by exchanging
//! buckets between two partitions, which keeps every bucket's load. Nodes without a zone count as
//! being in none.

use std::collections::BTreeMap;

use tako_types::config::{Consistency, Deployment, Quorum};

/// Per bucket how many of its nodes are in which zone.
pub(crate) struct Zones {
    counts: Vec<Vec<usize>>,
    sizes: Vec<usize>,
    zones: usize,
}

impl Zones {
    pub(crate) fn of(deployment: &Deployment) -> Self {
        let mut index: BTreeMap<&str, usize> = BTreeMap::new();
        for zone in deployment.nodes().filter_map(|node| node.zone.as_deref()) {
            let next = index.len();
            index.entry(zone).or_insert(next);
        }
        let counts = deployment
            .buckets
            .iter()
            .map(|bucket| {
                let mut counts = vec![0; index.len()];
                for zone in bucket.nodes.iter().filter_map(|node| node.zone.as_deref()) {
                    counts[index[zone]] += 1;
                }
                counts
            })
            .collect();
        let sizes = deployment.buckets.iter().map(|bucket| bucket.nodes.len()).collect();
        Self { counts, sizes, zones: index.len() }
    }

    /// Whether one zone alone holds a majority of these buckets' nodes.
    pub(crate) fn is_harmed(&self, buckets: impl Iterator<Item = usize> + Clone) -> bool {
        if self.zones == 0 {
            return false;
        }
        let n: usize = buckets.clone().map(|bucket| self.sizes[bucket]).sum();
        let w = Quorum::of(Consistency::Quorum, n).w;
        (0..self.zones)
            .any(|zone| w <= buckets.clone().map(|bucket| self.counts[bucket][zone]).sum::<usize>())
    }

    /// 1 when `row` would be harmed with `joining` in the place of `leaving`, 0 when not.
    pub(crate) fn harm(&self, row: &[usize], leaving: usize, joining: usize) -> u8 {
        let after = row.iter().map(|held| if *held == leaving { joining } else { *held });
        u8::from(self.is_harmed(after))
    }

    /// Exchanges buckets between partitions until no row is harmed, or nothing helps.
    pub(crate) fn spread(&self, rows: &mut [Vec<usize>], near: &[Vec<u64>]) {
        for p in 0..rows.len() {
            if !self.is_harmed(rows[p].iter().copied()) {
                continue;
            }
            // What would mend this row; often nothing, and then no partner is looked for.
            let mends: Vec<(usize, usize)> = (0..rows[p].len())
                .flat_map(|i| (0..self.sizes.len()).map(move |b| (i, b)))
                .filter(|(i, b)| !rows[p].contains(b) && self.harm(&rows[p], rows[p][*i], *b) == 0)
                .collect();
            if mends.is_empty() {
                continue;
            }
            let mut best: Option<(u64, usize, usize, usize)> = None;
            for q in (0..rows.len()).filter(|q| *q != p) {
                let harmed_before = u8::from(self.is_harmed(rows[q].iter().copied()));
                for (i, b) in &mends {
                    let a = rows[p][*i];
                    let Some(j) = rows[q].iter().position(|held| held == b) else { continue };
                    if rows[q].contains(&a) || harmed_before < self.harm(&rows[q], *b, a) {
                        continue;
                    }
                    let cost = near[*b][p].saturating_add(near[a][q]);
                    if best.is_none_or(|(least, ..)| cost < least) {
                        best = Some((cost, q, *i, j));
                    }
                }
            }
            if let Some((_, q, i, j)) = best {
                let a = rows[p][i];
                rows[p][i] = rows[q][j];
                rows[q][j] = a;
            }
        }
    }
}
