//! Starting on a root that this node's data were restored to.
//!
//! A restored cluster has an id of its own, and maybe another number of partitions, which no
//! document may change while a cluster lives. So a node that kept a configuration of the old root
//! takes the new root's over its rules, once, at its start, before anything is opened: only when the
//! new root says that it was restored from the cluster that this node's folder is of. The folder is
//! then set aside as a foreign one (`folder.rs`). While the new root's store does not answer nothing is
//! decided: the node waits.

use std::time::Duration;

use tako_snapshot::{Store, StoreError};
use tako_types::config::Published;
use tokio_util::sync::CancellationToken;

use super::{NodeError, NodeOptions, folder::Folder, open_store};
use crate::configuration::AdoptError;

/// Pause before the store is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A document that the rules refuse to follow the kept one.
pub(super) struct Refused {
    pub(super) offered: Published,
    pub(super) why: AdoptError,
    /// It lies in the very store that the node would use.
    pub(super) in_store: bool,
}

/// Whether the node goes by what was refused: `Some` with the store to use.
///
/// # Errors
/// [`NodeError`] when it may not, but its own data lie under other partitions than the store's, or
/// when the store answers what nobody wrote.
pub(super) async fn moved_to(
    options: &NodeOptions,
    folder: &Folder,
    kept: &Published,
    refused: Refused,
    shutdown: &CancellationToken,
) -> Result<Option<(Published, Store)>, NodeError> {
    let Refused { offered, why, in_store } = refused;
    let store = open_store(options, &offered)?;
    if kept.epoch.number < offered.epoch.number
        && is_restored_from(&store, folder, shutdown).await?
    {
        tracing::warn!(
            kept = %kept.epoch,
            epoch = %offered.epoch,
            "the data were restored to another root: this node goes by the configuration there"
        );
        return Ok(Some((offered, store)));
    }
    if in_store && offered.config.partitions != kept.config.partitions {
        return Err(why.into());
    }
    Ok(None)
}

/// Whether the data in `store` were restored from those of the folder's cluster. A folder of no
/// cluster has none to lose.
async fn is_restored_from(
    store: &Store,
    folder: &Folder,
    shutdown: &CancellationToken,
) -> Result<bool, NodeError> {
    let ask = async || Ok::<_, StoreError>((store.cluster_id(None).await?, store.origin().await?));
    loop {
        match ask().await {
            Ok((Some(cluster), Some(origin))) => {
                return Ok(folder.peek_identity().is_none_or(|identity| {
                    identity.cluster != cluster && origin.clusters.contains(&identity.cluster)
                }));
            }
            Ok(_) => return Ok(false),
            Err(error) if error.kind().retry() => {
                tracing::warn!(
                    "object store: {error}; whether this node's data were restored to it cannot be \
                     told before it answers"
                );
            }
            Err(error) => {
                let url = store.root().to_string();
                return Err(NodeError::Store { url, source: Box::new(error) });
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Err(NodeError::Stopped),
            () = tokio::time::sleep(AGAIN_AFTER) => {}
        }
    }
}
