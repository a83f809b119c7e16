//! Whether the parts of a configuration fit each other.
//!
//! In: a [`Config`] whose single values are right. Out: nothing, or the first contradiction with
//! its path and line. Pure. Not here: whether it may follow the one in force (`change.rs`), what
//! is allowed but unwise (`warn.rs`).

use std::collections::{BTreeMap, HashMap};

use super::{
    Address, Config, ConfigError, Deployment, NodeConfig,
    fields::join,
    format_size,
    yaml::{Data, Entry, Value},
};
use crate::limits::{BUCKETS_MAX, REPLICAS_MAX};

/// Most ring points of one deployment, which bounds the work of laying the ring out.
const POINTS_MAX: f64 = 2_000_000.0;

/// Where each path stands in the document.
pub(super) struct Positions(HashMap<String, (usize, usize)>);

impl Positions {
    /// Of a whole document.
    pub(super) fn of(root: &Value) -> Self {
        let mut positions = Self(HashMap::new());
        positions.0.insert(String::new(), (root.line, root.column));
        positions.walk("", root);
        positions
    }

    /// Of one entry and what is below it.
    pub(super) fn of_entry(path: &str, entry: &Entry) -> Self {
        let mut positions = Self(HashMap::new());
        positions.0.insert(path.to_owned(), (entry.line, entry.column));
        positions.walk(path, &entry.value);
        positions
    }

    fn walk(&mut self, path: &str, value: &Value) {
        if let Data::Map(entries) = &value.data {
            for entry in entries {
                let path = join(path, &entry.key);
                self.walk(&path, &entry.value);
                self.0.insert(path, (entry.line, entry.column));
            }
        }
    }

    /// Adds line and column of the error's path, or of the nearest path above it.
    pub(super) fn locate(&self, error: ConfigError) -> ConfigError {
        if error.line.is_some() {
            return error;
        }
        let mut path = error.path.as_str();
        loop {
            if let Some((line, column)) = self.0.get(path) {
                return error.at(*line, *column);
            }
            match path.rfind('.') {
                Some(dot) => path = &path[..dot],
                None if path.is_empty() => return error,
                None => path = "",
            }
        }
    }
}

/// Checks everything that takes more than one value to see.
pub(super) fn check(config: &Config, positions: &Positions) -> Result<(), ConfigError> {
    references(config)
        .and_then(|()| config.deployments.values().try_for_each(deployment))
        .and_then(|()| addresses(config))
        .and_then(|()| budgets(config))
        .map_err(|error| positions.locate(error))
}

fn references(config: &Config) -> Result<(), ConfigError> {
    let defined = |key: &str, name: &String| {
        if config.deployments.contains_key(name) {
            return Ok(());
        }
        let names: Vec<_> = config.deployments.keys().map(String::as_str).collect();
        Err(ConfigError::new(key, format!("the deployment `{name}` is not defined"))
            .remedy(format!("define it below deployments, or name one of {}", names.join(", "))))
    };
    if config.deployments.is_empty() {
        return Err(ConfigError::new("deployments", "there is none").remedy("define one"));
    }
    defined("active_deployment", &config.active)?;
    if let Some(target) = &config.target {
        defined("target_deployment", target)?;
        if *target == config.active {
            return Err(ConfigError::new("target_deployment", "it is the active deployment")
                .remedy("remove it, or name the deployment to move to"));
        }
    }
    match &config.master_coordinator {
        Some(id) if !config.coordinators.contains_key(id) => {
            Err(ConfigError::new("master_coordinator", format!("there is no coordinator `{id}`"))
                .remedy("define it below coordinators"))
        }
        _ => Ok(()),
    }
}

fn deployment(deployment: &Deployment) -> Result<(), ConfigError> {
    let path = format!("deployments.{}", deployment.name);
    let count = deployment.buckets.len();
    if count < deployment.buckets_per_key {
        return Err(ConfigError::new(
            format!("{path}.hash.buckets_per_key"),
            format!(
                "each key lies on {} buckets, but there are {count}",
                deployment.buckets_per_key
            ),
        )
        .remedy("add buckets or write a smaller number (without one it is 3)"));
    }
    if BUCKETS_MAX < count {
        let what = format!("{count} buckets, the limit is {BUCKETS_MAX}");
        return Err(ConfigError::new(format!("{path}.buckets"), what));
    }
    let mut sizes: Vec<usize> = deployment.buckets.iter().map(|b| b.nodes.len()).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let replicas: usize = sizes.iter().take(deployment.buckets_per_key).sum();
    if REPLICAS_MAX < replicas {
        let what = format!("a key may lie on {replicas} nodes, the limit is {REPLICAS_MAX}");
        return Err(ConfigError::new(format!("{path}.buckets"), what)
            .remedy("make more and smaller buckets"));
    }
    let points: f64 = deployment.buckets.iter().map(|b| b.weight).sum::<f64>()
        * deployment.points_per_bucket as f64;
    if POINTS_MAX < points {
        let what = format!("the ring has {points} points, the limit is {POINTS_MAX}");
        return Err(ConfigError::new(format!("{path}.hash.points_per_bucket"), what)
            .remedy("lower points_per_bucket or the weights"));
    }
    let mut seen: HashMap<_, &str> = HashMap::new();
    for bucket in &deployment.buckets {
        for node in &bucket.nodes {
            if let Some(other) = seen.insert(&node.id, &bucket.name) {
                return Err(ConfigError::new(
                    format!("{path}.buckets.{}.{}", bucket.name, node.id),
                    format!("the node is in the bucket `{other}` as well"),
                )
                .remedy("put each node into one bucket"));
            }
        }
    }
    Ok(())
}

/// One address per id and one id per address, over all deployments and coordinators.
fn addresses(config: &Config) -> Result<(), ConfigError> {
    let mut owners: BTreeMap<Address, String> = BTreeMap::new();
    let mut claim = |address: Address, owner: &str, path: &str| match owners.get(&address) {
        Some(other) if other != owner => {
            Err(ConfigError::new(path, format!("{address} is the address of {other} as well"))
                .remedy("give each its own host or port"))
        }
        Some(_) => Ok(()),
        None => {
            owners.insert(address, owner.to_owned());
            Ok(())
        }
    };
    let mut nodes = HashMap::new();
    for deployment in config.deployments.values() {
        for bucket in &deployment.buckets {
            for node in &bucket.nodes {
                let path =
                    format!("deployments.{}.buckets.{}.{}", deployment.name, bucket.name, node.id);
                let known = nodes.entry(&node.id).or_insert((node, &deployment.name));
                let ports = |it: &NodeConfig| (it.rpc_port, it.http_port, it.memcached_port);
                if known.0.host != node.host || ports(known.0) != ports(node) {
                    let what = format!(
                        "the node has another address here than in the deployment `{}` ({})",
                        known.1,
                        known.0.rpc_address()
                    );
                    return Err(ConfigError::new(path, what)
                        .remedy("give one id one address, or give another node another id"));
                }
                claim(node.rpc_address(), &format!("the node {} (RPC)", node.id), &path)?;
                if let Some(address) = node.http_address() {
                    claim(address, &format!("the node {} (HTTP)", node.id), &path)?;
                }
                if let Some(address) = node.memcached_address() {
                    claim(address, &format!("the node {} (memcached)", node.id), &path)?;
                }
            }
        }
    }
    for (id, address) in &config.coordinators {
        let owner = format!("the coordinator {id}");
        claim(address.clone(), &owner, &format!("coordinators.{id}"))?;
    }
    Ok(())
}

fn budgets(config: &Config) -> Result<(), ConfigError> {
    let cluster = &config.cluster;
    let value = cluster.value_bytes_max as u64;
    if cluster.journal.disk_bytes < 2 * value {
        return Err(ConfigError::new(
            "journal.disk",
            format!(
                "{} is less than two values of {}",
                format_size(cluster.journal.disk_bytes),
                format_size(value)
            ),
        )
        .remedy("raise it, or lower value_bytes_max"));
    }
    if cluster.journal.disk_bytes < cluster.snapshot.bytes {
        return Err(ConfigError::new(
            "snapshot.bytes",
            "the journal would be full before a step is taken",
        )
        .remedy("lower it, or raise journal.disk"));
    }
    if cluster.tombstone_grace < cluster.snapshot.interval {
        return Err(ConfigError::new("tombstone_grace", "it is shorter than snapshot.interval")
            .remedy("raise it; 1d is usual"));
    }
    Ok(())
}
