//! The file that is sent for each order, made from what is in force. Pure.
//!
//! A file is the order (docs/decisions/0008-migration.md): which deployment it names as active, and
//! which as target. Everything else in it stays as it is in force.

use std::collections::BTreeSet;

use tako_types::{
    ErrorKind, NodeId,
    config::{Config, Deployment, Phase, Published},
};

use crate::failure::Failure;

/// How far a migration that is under way is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Reads move, and may move back.
    Promote,
    /// To its end.
    Finish,
    /// Back to where it began.
    Abort,
}

/// What the beginning of a move comes to.
#[derive(Debug)]
pub(crate) enum Begin {
    /// This is to be sent.
    Order(Box<Config>),
    /// That very move is under way.
    UnderWay,
    /// What is wanted is active.
    Done,
}

/// The layout that a whole configuration wants: its target, or its active deployment.
pub(crate) fn wanted(file: &Config) -> &Deployment {
    file.target_deployment().unwrap_or_else(|| file.active_deployment())
}

/// Why a whole configuration is not one of this cluster's.
///
/// # Errors
/// [`ErrorKind::Invalid`] with what to do.
pub(crate) fn check_cluster(in_force: &Config, file: &Config) -> Result<(), Failure> {
    if in_force.partitions != file.partitions {
        return Err(Failure::invalid(format!(
            "partitions: {} are in force, the file says {}; the number is fixed for a cluster's data, \
             put the old one there",
            in_force.partitions, file.partitions
        )));
    }
    if let (Some(ours), Some(theirs)) = (&in_force.cluster.store, &file.cluster.store)
        && ours.url != theirs.url
    {
        return Err(Failure::invalid(format!(
            "store.url: the data are in `{}`, the file says `{}`; put the old one there",
            ours.url, theirs.url
        )));
    }
    Ok(())
}

/// The order to move to `wanted`.
///
/// # Errors
/// [`ErrorKind::Conflict`] while another move is under way, [`ErrorKind::Invalid`] for a layout that
/// cannot be.
pub(crate) fn begin(in_force: &Published, wanted: &Deployment) -> Result<Begin, Failure> {
    let config = &in_force.config;
    let (active, name) = (&config.active, &wanted.name);
    let is_known = config.deployments.get(name).is_some_and(|known| known == wanted);
    if let Some(migration) = &in_force.migration {
        let other = &migration.other;
        if migration.phase == Phase::Leave {
            return Err(conflict(format!(
                "`{other}` is still being left for `{active}`; wait for that: tako migrate status --wait"
            )));
        }
        if name == other && is_known {
            return Ok(Begin::UnderWay);
        }
        return Err(conflict(format!(
            "`{active}` is moving to `{other}`; first finish that, or give it up: tako migrate abort \
             --wait"
        )));
    }
    if name == active {
        if is_known {
            return Ok(Begin::Done);
        }
        return Err(Failure::invalid(format!(
            "`{name}` is the name of the active deployment, which looks otherwise; give the new layout \
             another name, such as `{}`",
            next_name(config)
        )));
    }
    let mut config = (**config).clone();
    // Layouts of single nodes more or less pile up; who is not in use any more may go.
    let base = base_name(active).to_owned();
    config.deployments.retain(|name, _| name == active || *name == base || base_name(name) != base);
    config.deployments.insert(name.clone(), wanted.clone());
    config.target = Some(name.clone());
    checked(config).map(|config| Begin::Order(Box::new(config)))
}

/// The order to take the migration under way to `goal`, giving up `lost`.
///
/// # Errors
/// [`ErrorKind::Conflict`] when it cannot go there any more; [`ErrorKind::NotFound`] when there is
/// none, or no such node.
pub(crate) fn steer(
    in_force: &Published,
    goal: Goal,
    lost: &BTreeSet<NodeId>,
) -> Result<Config, Failure> {
    let Some(migration) = &in_force.migration else {
        let text = format!("no migration is under way; `{}` is active", in_force.config.active);
        return Err(Failure::new(ErrorKind::NotFound, text));
    };
    if let Some(unknown) = lost.iter().find(|node| in_force.node(node).is_none()) {
        let text = format!("--accept-loss: the move has no node {unknown}");
        return Err(Failure::new(ErrorKind::NotFound, text));
    }
    let mut config = (*in_force.config).clone();
    let (active, other) = (config.active.clone(), migration.other.clone());
    config.accept_loss.clone_from(lost);
    (config.active, config.target) = match (goal, migration.phase) {
        // It ends by itself; only who is given up may change.
        (Goal::Finish, Phase::Leave) => (active, None),
        (Goal::Promote | Goal::Abort, Phase::Leave) => {
            return Err(conflict(format!(
                "it is too late: requests go to `{active}` alone, and `{other}` is being left; to go \
                 back, wait for the end and begin a move to `{other}`"
            )));
        }
        (Goal::Promote, _) => (other, Some(active)),
        (Goal::Finish, _) => (other, None),
        (Goal::Abort, _) => (active, None),
    };
    Ok(config)
}

/// A name for the layout that comes after the active one: `d`, `d-1`, `d-2`.
pub(crate) fn next_name(config: &Config) -> String {
    let base = base_name(&config.active);
    let number = |name: &String| match name.strip_prefix(base)? {
        "" => Some(0),
        rest => rest.strip_prefix('-')?.parse::<u64>().ok(),
    };
    let last = config.deployments.keys().filter_map(number).max().unwrap_or(0);
    format!("{base}-{}", last.saturating_add(1))
}

/// A name without the number that [`next_name`] gave it.
pub(crate) fn base_name(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((base, number)) if !base.is_empty() && number.parse::<u64>().is_ok() => base,
        _ => name,
    }
}

/// The same, if its parts fit each other.
///
/// # Errors
/// [`ErrorKind::Invalid`] with the first contradiction.
pub(crate) fn checked(config: Config) -> Result<Config, Failure> {
    let read = Config::parse(&config.to_yaml());
    read.map_err(|mut error| {
        // Of a text that nobody sees.
        (error.line, error.column) = (None, None);
        Failure::invalid(error.to_string())
    })
}

pub(crate) fn conflict(text: String) -> Failure {
    Failure::new(ErrorKind::Conflict, text)
}

#[cfg(test)]
mod tests;
