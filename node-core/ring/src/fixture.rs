//! What the tests of tables share: seeded numbers, deployments by name and weight, rows checked.

use std::time::Duration;

use tako_types::config::{Bucket, Consistency, Deployment, NodeConfig};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Numbers from a seed; a failure prints the seed.
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 += 1;
        xxh3_64_with_seed(b"ring", self.0)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

pub(crate) fn deployment(names: &[(String, f64)], k: usize) -> Deployment {
    let mut buckets: Vec<Bucket> = names
        .iter()
        .map(|(name, weight)| Bucket {
            name: name.clone(),
            weight: *weight,
            nodes: vec![NodeConfig {
                id: format!("n-{name}").as_str().into(),
                host: "h".into(),
                http_port: None,
                memcached_port: None,
                rpc_port: 1,
                zone: None,
            }],
        })
        .collect();
    buckets.sort_by(|a, b| a.name.cmp(&b.name));
    Deployment {
        name: "d".into(),
        read_repair: true,
        background_healing: true,
        background_healing_interval: Duration::from_secs(1),
        buckets_per_key: k,
        points_per_bucket: 120,
        consistency: Consistency::Quorum,
        buckets,
    }
}

pub(crate) fn loads(table: &[Vec<usize>], buckets: usize) -> Vec<usize> {
    let mut loads = vec![0; buckets];
    for bucket in table.iter().flatten() {
        loads[*bucket] += 1;
    }
    loads
}

pub(crate) fn check_rows(deployment: &Deployment, table: &[Vec<usize>], partitions: u32) {
    assert_eq!(table.len(), partitions as usize);
    for row in table {
        assert_eq!(row.len(), deployment.buckets_per_key);
        for (at, bucket) in row.iter().enumerate() {
            assert!(*bucket < deployment.buckets.len() && !row[..at].contains(bucket));
        }
    }
}
