//! What the operator's file asks for while a document is in force. Pure.
//!
//! Invariant: the configuration of a document that follows is the file's, or the file's and the
//! deployment that is being left, which the file need not have any more.

use tako_types::config::{Config, ConfigError, Phase, Published, check_change};

/// How far the file wants the migration under way to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Until both sets are written, and the other one may take over.
    Hold,
    /// Until reads have moved, and they may still move back.
    Promote,
    /// To its end.
    Finish,
    /// Back to where it began.
    Abort,
}

impl Order {
    /// The word for it, in `/status`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Promote => "promote",
            Self::Finish => "finish",
            Self::Abort => "abort",
        }
    }
}

/// What `file` orders about the migration of `in_force`; `None` when that has none.
///
/// # Errors
/// [`ConfigError`] when the file wants something else than this migration, or changes what it moves.
pub(crate) fn order(in_force: &Published, file: &Config) -> Result<Option<Order>, ConfigError> {
    let Some(migration) = &in_force.migration else { return Ok(None) };
    let (other, active) = (&migration.other, &in_force.config.active);
    let order = match (&file.target, &file.active) {
        _ if migration.phase == Phase::Leave => {
            if file.active != *active || file.target.is_some() {
                let what = format!("`{other}` is still being left");
                return Err(ConfigError::new("active_deployment", what)
                    .remedy(format!("leave `{active}` alone in it until that has ended")));
            }
            Order::Finish
        }
        (Some(target), named) if target == other && named == active => Order::Hold,
        (Some(target), named) if target == active && named == other => Order::Promote,
        (None, named) if named == other => Order::Finish,
        (None, named) if named == active => Order::Abort,
        _ => {
            let what = format!("`{active}` is moving to `{other}`");
            return Err(ConfigError::new("target_deployment", what).remedy(format!(
                "give that up first: active_deployment: {active}, without a target"
            )));
        }
    };
    if let Some(unknown) = file.accept_loss.iter().find(|node| in_force.node(node).is_none()) {
        let what = format!("neither `{active}` nor `{other}` has a node {unknown}");
        return Err(ConfigError::new("migration.accept_loss", what)
            .remedy("name nodes of the move that are gone for good, or nobody"));
    }
    // What the requests go by stays as it was when the migration began.
    for name in [active, other] {
        if file.deployments.contains_key(name) {
            check_change(&seen_from(&in_force.config, name), &seen_from(file, name))?;
        }
    }
    Ok(Some(order))
}

/// The configuration as if `name` alone were in use.
fn seen_from(config: &Config, name: &str) -> Config {
    let mut config = config.clone();
    name.clone_into(&mut config.active);
    config.target = None;
    config
}

/// The file's configuration with the deployment `other` of `in_force`, which nodes still hold
/// entries of.
pub(crate) fn leaving(in_force: &Published, file: &Config, other: &str) -> Config {
    let mut config = file.clone();
    if let Some(deployment) = in_force.config.deployments.get(other) {
        config.deployments.entry(other.to_owned()).or_insert_with(|| deployment.clone());
    }
    config
}
