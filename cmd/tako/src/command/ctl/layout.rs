//! The layout with nodes more, nodes less, or a node elsewhere. Pure.
//!
//! A layout with other nodes is a deployment of its own, named after the active one, for only that can
//! be moved to. Layouts of that kind that nobody uses any more are dropped on the way.

use std::collections::BTreeSet;

use tako_types::{
    ErrorKind, NodeId,
    config::{Address, Bucket, Config, Deployment, NodeConfig},
};

use crate::{command::migrate::orders::next_name, failure::Failure};

/// Digits of the ids that are given to nodes without one.
const ID: &str = "n";

/// Where a node is, and maybe its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: Option<String>,
    pub(super) host: String,
    pub(super) http_port: u16,
    pub(super) rpc_port: u16,
}

/// Reads `[ID=]HOST:HTTP_PORT:RPC_PORT`; IPv6 addresses stand in brackets.
pub(super) fn place(text: &str) -> Result<Place, String> {
    let wrong = || {
        "write it as HOST:HTTP_PORT:RPC_PORT or ID=HOST:HTTP_PORT:RPC_PORT, such as \
         n4=10.0.0.7:5711:4711"
            .to_owned()
    };
    let (id, rest) = match text.split_once('=') {
        Some((id, rest)) => (Some(id.to_owned()), rest),
        None => (None, text),
    };
    let mut parts = rest.rsplitn(3, ':');
    let mut port = || parts.next()?.parse::<u16>().ok().filter(|port| 0 < *port);
    let (rpc_port, http_port) = (port().ok_or_else(wrong)?, port().ok_or_else(wrong)?);
    let host = parts.next().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || id.as_ref().is_some_and(String::is_empty) {
        return Err(wrong());
    }
    Ok(Place { id, host: host.to_owned(), http_port, rpc_port })
}

/// Which bucket new nodes come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Into {
    /// Each to the one with the fewest nodes then.
    Smallest,
    /// This one.
    Bucket(String),
    /// One of their own.
    New(String),
}

/// The active deployment with these nodes more.
///
/// # Errors
/// [`ErrorKind::NotFound`] for an unknown bucket, [`ErrorKind::Invalid`] for ids or buckets that are
/// there already.
pub(super) fn attached(
    config: &Config,
    places: &[Place],
    to: &Into,
) -> Result<Deployment, Failure> {
    let mut deployment = renamed(config);
    if let Into::New(name) = to {
        if deployment.bucket(name).is_some() {
            let text = format!("there is a bucket `{name}` already; give --bucket {name}");
            return Err(Failure::invalid(text));
        }
        let bucket = Bucket { name: name.clone(), weight: 1.0, nodes: Vec::new() };
        deployment.buckets.push(bucket);
        deployment.buckets.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let mut ids: BTreeSet<NodeId> = ids(config);
    for place in places {
        let id = match &place.id {
            Some(id) => NodeId::new(id),
            None => known_id(config, place).unwrap_or_else(|| free_id(&ids)),
        };
        if deployment.nodes().any(|node| node.id == id) {
            let text =
                format!("there is a node {id} already; tako ctl replace gives it an address");
            return Err(Failure::invalid(text));
        }
        ids.insert(id.clone());
        let bucket = match to {
            Into::Smallest => deployment.buckets.iter_mut().min_by_key(|bucket| bucket.nodes.len()),
            Into::Bucket(name) | Into::New(name) => {
                deployment.buckets.iter_mut().find(|bucket| bucket.name == *name)
            }
        };
        let bucket = bucket.ok_or_else(|| no_bucket(config, to))?;
        bucket.nodes.push(NodeConfig {
            id,
            host: place.host.clone(),
            http_port: Some(place.http_port),
            memcached_port: None,
            rpc_port: place.rpc_port,
            zone: None,
        });
        bucket.nodes.sort_by(|a, b| a.id.cmp(&b.id));
    }
    Ok(deployment)
}

/// The active deployment without these nodes, and without the buckets that become empty.
///
/// # Errors
/// [`ErrorKind::NotFound`] for a node that is not there; [`ErrorKind::Invalid`] when fewer buckets are
/// left than each key lies on.
pub(super) fn detached(config: &Config, nodes: &BTreeSet<NodeId>) -> Result<Deployment, Failure> {
    let mut deployment = renamed(config);
    if let Some(node) = nodes.iter().find(|id| deployment.nodes().all(|known| known.id != **id)) {
        return Err(unknown(config, node));
    }
    for bucket in &mut deployment.buckets {
        bucket.nodes.retain(|node| !nodes.contains(&node.id));
    }
    deployment.buckets.retain(|bucket| !bucket.nodes.is_empty());
    let (left, needed) = (deployment.buckets.len(), deployment.buckets_per_key);
    if left < needed {
        let names: Vec<&str> = nodes.iter().map(NodeId::as_str).collect();
        return Err(Failure::invalid(format!(
            "without {} there are {left} buckets, and each key lies on {needed} (buckets_per_key); \
             attach others first, or move to a layout with fewer: tako migrate start --to NEW.yaml",
            names.join(", ")
        )));
    }
    Ok(deployment)
}

/// The configuration with a node elsewhere, in every deployment that has it.
///
/// # Errors
/// [`ErrorKind::NotFound`] when none has.
pub(super) fn moved(config: &Config, node: &NodeId, place: &Place) -> Result<Config, Failure> {
    let mut config = config.clone();
    let all = config.deployments.values_mut().flat_map(|deployment| &mut deployment.buckets);
    let mut found = false;
    for known in all.flat_map(|bucket| &mut bucket.nodes).filter(|known| known.id == *node) {
        known.host.clone_from(&place.host);
        (known.http_port, known.rpc_port) = (Some(place.http_port), place.rpc_port);
        found = true;
    }
    if found { Ok(config) } else { Err(unknown(&config, node)) }
}

/// A node that nobody knows.
pub(super) fn unknown(config: &Config, node: &NodeId) -> Failure {
    let known: Vec<&str> = config.active_deployment().nodes().map(|it| it.id.as_str()).collect();
    let text = format!("`{}` has no node {node}; it has {}", config.active, known.join(", "));
    Failure::new(ErrorKind::NotFound, text)
}

fn no_bucket(config: &Config, to: &Into) -> Failure {
    let known: Vec<&str> =
        config.active_deployment().buckets.iter().map(|bucket| bucket.name.as_str()).collect();
    let name = match to {
        Into::Bucket(name) | Into::New(name) => name.as_str(),
        Into::Smallest => "",
    };
    let text = format!(
        "`{}` has no bucket `{name}`; it has {}; --new-bucket {name} makes one",
        config.active,
        known.join(", ")
    );
    Failure::new(ErrorKind::NotFound, text)
}

fn renamed(config: &Config) -> Deployment {
    Deployment { name: next_name(config), ..config.active_deployment().clone() }
}

/// Ids and addresses of all deployments: one id has one address, also in those that are not used.
fn ids(config: &Config) -> BTreeSet<NodeId> {
    config.deployments.values().flat_map(Deployment::nodes).map(|node| node.id.clone()).collect()
}

/// The id that a place had in a layout which is not in use, such as one that was given up.
fn known_id(config: &Config, place: &Place) -> Option<NodeId> {
    let known = config.deployments.values().flat_map(Deployment::nodes);
    let is_there = |node: &&NodeConfig| {
        let Place { host, http_port, rpc_port, .. } = place;
        node.host == *host && node.http_port == Some(*http_port) && node.rpc_port == *rpc_port
    };
    let is_active = |id: &NodeId| config.active_deployment().nodes().any(|node| node.id == *id);
    known.filter(is_there).map(|node| node.id.clone()).find(|id| !is_active(id))
}

/// The id after the highest of that form.
fn free_id(ids: &BTreeSet<NodeId>) -> NodeId {
    let number = |id: &NodeId| id.as_str().strip_prefix(ID)?.parse::<u64>().ok();
    let last = ids.iter().filter_map(number).max().unwrap_or(0);
    NodeId::new(&format!("{ID}{}", last.saturating_add(1)))
}

/// Where clients of RPC reach it.
pub(super) fn rpc_address(place: &Place) -> String {
    Address { host: place.host.clone(), port: place.rpc_port }.to_string()
}

#[cfg(test)]
mod tests;
