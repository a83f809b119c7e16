//! Whether a new configuration may follow the one in force without a migration.
//!
//! Rule: whatever decides which nodes hold a partition, or how many of them a request needs, is
//! changed by a migration only; the rest may change at any time. Conservative where the ring would
//! have to be asked: a zone may move partitions, so it counts as a change of placement.

use super::{Config, ConfigError, Deployment};

const AS_MIGRATION: &str = "accepted only as a migration (a target_deployment)";

fn refused(path: impl Into<String>, what: &str) -> ConfigError {
    ConfigError::new(path, format!("{what}: {AS_MIGRATION}"))
        .remedy("put the old value back, or make it a deployment of its own and name that target_deployment")
}

/// Whether `new` may take the place of `old` as it is.
///
/// Allowed: another address of the same node, budgets, intervals, repair and healing, deployments
/// that are not active, coordinators.
///
/// # Errors
/// [`ConfigError`] naming the first thing that only a migration may change, or that never may.
pub fn check_change(old: &Config, new: &Config) -> Result<(), ConfigError> {
    if old.partitions != new.partitions {
        let what = format!("{} became {}", old.partitions, new.partitions);
        return Err(ConfigError::new("partitions", what)
            .remedy("put the old value back: it is fixed for a cluster's data"));
    }
    if old.active != new.active {
        let what = format!("`{}` became `{}`", old.active, new.active);
        return Err(refused("active_deployment", &what));
    }
    if let (Some(before), Some(after)) = (&old.cluster.store, &new.cluster.store)
        && before.url != after.url
    {
        let what = format!("`{}` became `{}`, where the data are not", before.url, after.url);
        return Err(ConfigError::new("store.url", what).remedy("put the old value back"));
    }
    deployment(old.active_deployment(), new.active_deployment())
}

fn deployment(old: &Deployment, new: &Deployment) -> Result<(), ConfigError> {
    let path = format!("deployments.{}", new.name);
    let numbers = [
        ("hash.buckets_per_key", old.buckets_per_key, new.buckets_per_key),
        ("hash.points_per_bucket", old.points_per_bucket, new.points_per_bucket),
    ];
    for (key, before, after) in numbers {
        if before != after {
            return Err(refused(format!("{path}.{key}"), &format!("{before} became {after}")));
        }
    }
    if old.consistency != new.consistency {
        let what = format!("{} became {}", old.consistency.as_str(), new.consistency.as_str());
        return Err(refused(format!("{path}.consistency"), &what));
    }
    for bucket in &new.buckets {
        let Some(before) = old.bucket(&bucket.name) else {
            return Err(refused(format!("{path}.buckets.{}", bucket.name), "the bucket is new"));
        };
        if before.weight != bucket.weight {
            let what = format!("{} became {}", before.weight, bucket.weight);
            return Err(refused(format!("{path}.weights.{}", bucket.name), &what));
        }
        for node in &bucket.nodes {
            let path = format!("{path}.buckets.{}.{}", bucket.name, node.id);
            match before.nodes.iter().find(|known| known.id == node.id) {
                None => return Err(refused(path, "the node is new in this bucket")),
                Some(known) if known.zone != node.zone => {
                    return Err(refused(format!("{path}.zone"), "the zone changed"));
                }
                Some(_) => {}
            }
        }
    }
    for bucket in &old.buckets {
        let Some(after) = new.bucket(&bucket.name) else {
            return Err(refused(format!("{path}.buckets.{}", bucket.name), "the bucket is gone"));
        };
        let gone = bucket.nodes.iter().find(|n| after.nodes.iter().all(|known| known.id != n.id));
        if let Some(node) = gone {
            let path = format!("{path}.buckets.{}.{}", bucket.name, node.id);
            return Err(refused(path, "the node is gone from this bucket"));
        }
    }
    Ok(())
}

/// Whether a process can go by this configuration without a coordinator.
///
/// # Errors
/// [`ConfigError`] when it asks for a migration.
pub fn check_startable(config: &Config) -> Result<(), ConfigError> {
    match &config.target {
        Some(target) => Err(ConfigError::new(
            "target_deployment",
            format!(
                "moving from `{}` to `{target}` is asked for, which only a coordinator can do",
                config.active
            ),
        )
        .remedy("give this process a --coordinator, or remove target_deployment")),
        None => Ok(()),
    }
}
