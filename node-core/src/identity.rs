//! Keeps the node's identity file: one owner, every change on disk before it counts.

use std::{path::PathBuf, sync::Arc};

use tako_journal::{Blocking, Disk, Identity, IdentityError};
use tako_types::{ClusterId, Incarnation, NodeId};
use tokio::sync::Mutex;

/// How far ahead of the clock the ceiling is set, in microseconds.
pub(crate) const CEILING_AHEAD_MICROS: u64 = 60_000_000;

/// See the module.
#[derive(Debug)]
pub struct IdentityKeeper {
    disk: Arc<dyn Disk>,
    blocking: Blocking,
    folder: PathBuf,
    cluster: ClusterId,
    identity: Mutex<Identity>,
}

impl IdentityKeeper {
    /// Takes over an identity that is (or is about to be) stored in `folder`.
    #[must_use]
    pub fn new(
        disk: Arc<dyn Disk>,
        blocking: Blocking,
        folder: PathBuf,
        identity: Identity,
    ) -> Self {
        Self { disk, blocking, folder, cluster: identity.cluster, identity: Mutex::new(identity) }
    }

    /// The cluster whose data this is.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Changes the identity; it is durable when this returns.
    ///
    /// # Errors
    /// [`IdentityError`]; the old identity then stays in force.
    pub async fn change(&self, change: impl FnOnce(&mut Identity)) -> Result<(), IdentityError> {
        let mut held = self.identity.lock().await;
        let mut next = held.clone();
        change(&mut next);
        if next == *held {
            return Ok(());
        }
        let (disk, folder, stored) = (self.disk.clone(), self.folder.clone(), next.clone());
        self.blocking.run(move || stored.store(disk.as_ref(), &folder)).await?;
        *held = next;
        Ok(())
    }

    /// Remembers incarnations of other nodes.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub async fn remember(&self, known: &[(NodeId, Incarnation)]) -> Result<(), IdentityError> {
        self.change(|identity| {
            for (node, incarnation) in known {
                let held: &mut Incarnation = identity.known.entry(node.clone()).or_default();
                *held = (*held).max(*incarnation);
            }
        })
        .await
    }

    /// The identity as it is on disk.
    pub async fn held(&self) -> Identity {
        self.identity.lock().await.clone()
    }
}
