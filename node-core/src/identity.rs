//! Keeps the node's identity file: one owner, every change on disk before it counts.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tako_journal::{Blocking, Disk, Identity, IdentityError};
use tako_types::{ClusterId, Incarnation, NodeId};
use tokio::sync::Mutex;

/// How far ahead of the clock the ceiling of versions is set, in microseconds. After a kill a node
/// starts there, so it must lie well within the drift.
const VERSIONS_AHEAD_MICROS: u64 = 20_000_000;

/// The same where versions are ahead of the clock already: a node that is killed again and again
/// must not run away from it.
const VERSIONS_STEP_MICROS: u64 = 1_000_000;

/// How far above a ballot the ceiling of promises is set, in microseconds: one write of the file
/// serves conditional writes for so long, and a restart bars plain writes for no longer.
const PROMISES_AHEAD_MICROS: u64 = 10_000_000;

/// See the module.
#[derive(Debug)]
pub struct IdentityKeeper {
    disk: Arc<dyn Disk>,
    blocking: Blocking,
    folder: PathBuf,
    cluster: ClusterId,
    identity: Arc<Mutex<Identity>>,
    /// That of the identity on disk, for a look without its lock.
    clock_ceiling: Arc<AtomicU64>,
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
        Self {
            disk,
            blocking,
            folder,
            cluster: identity.cluster,
            clock_ceiling: Arc::new(AtomicU64::new(identity.clock_ceiling_micros)),
            identity: Arc::new(Mutex::new(identity)),
        }
    }

    /// The cluster whose data this is.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Changes the identity; it is durable when this returns.
    ///
    /// Guarantee: changes reach the disk one by one, also when a caller gives up waiting; its
    /// change then still happens or not, as a whole.
    ///
    /// # Errors
    /// [`IdentityError`]; the old identity then stays in force.
    pub async fn change(&self, change: impl FnOnce(&mut Identity)) -> Result<(), IdentityError> {
        let mut held = self.identity.clone().lock_owned().await;
        let mut next = held.clone();
        change(&mut next);
        if next == *held {
            return Ok(());
        }
        let (disk, folder) = (self.disk.clone(), self.folder.clone());
        let clock_ceiling = self.clock_ceiling.clone();
        // The lock goes along: a caller that is dropped must not let the next one in too early.
        let store = move || {
            // Another ceiling counts once it is on disk, a lower one already before.
            clock_ceiling.fetch_min(next.clock_ceiling_micros, Ordering::AcqRel);
            next.store(disk.as_ref(), &folder)?;
            clock_ceiling.store(next.clock_ceiling_micros, Ordering::Release);
            *held = next;
            Ok(())
        };
        self.blocking.run(store).await
    }

    /// Versions below this may be issued: it is on disk, and the next start begins there.
    #[must_use]
    pub fn clock_ceiling_micros(&self) -> u64 {
        self.clock_ceiling.load(Ordering::Acquire)
    }

    /// Makes room for versions from `micros` on, at this time of the clock.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub async fn raise_clock_ceiling(
        &self,
        micros: u64,
        now_micros: u64,
    ) -> Result<(), IdentityError> {
        let ahead = micros.min(now_micros).saturating_add(VERSIONS_AHEAD_MICROS);
        self.change(|identity| {
            // Of many writes that come to the ceiling at once the first one raises it.
            if identity.clock_ceiling_micros <= micros {
                let step = micros.saturating_add(VERSIONS_STEP_MICROS);
                identity.clock_ceiling_micros = ahead.max(step);
            }
        })
        .await
    }

    /// The same in time, for a clock that has come to `last_micros`, so that no write waits for it.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub async fn keep_clock_ceiling_ahead(
        &self,
        last_micros: u64,
        now_micros: u64,
    ) -> Result<(), IdentityError> {
        let at = last_micros.min(now_micros);
        if at == 0 || at + VERSIONS_AHEAD_MICROS / 2 < self.clock_ceiling_micros() {
            return Ok(());
        }
        let ceiling = at + VERSIONS_AHEAD_MICROS;
        self.change(|identity| {
            identity.clock_ceiling_micros = identity.clock_ceiling_micros.max(ceiling);
        })
        .await
    }

    /// Makes room for a promise at `micros`; gives the ceiling that is on disk, which is above.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub async fn raise_promise_ceiling(&self, micros: u64) -> Result<u64, IdentityError> {
        let mut ceiling = 0;
        self.change(|identity| {
            if identity.promise_ceiling_micros <= micros {
                identity.promise_ceiling_micros = micros.saturating_add(PROMISES_AHEAD_MICROS);
            }
            ceiling = identity.promise_ceiling_micros;
        })
        .await?;
        Ok(ceiling)
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tako_types::config::Durability;

    use super::*;
    use tako_journal::FsDisk;

    #[tokio::test]
    async fn a_change_whose_caller_gave_up_is_not_undone_by_the_next_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let identity = Identity {
            cluster: ClusterId(7),
            node: NodeId::new("n1"),
            incarnation: Incarnation(1),
            clock_ceiling_micros: 0,
            promise_ceiling_micros: 0,
            boot_id: String::new(),
            clean: false,
            durability: Durability::Fsync,
            recovered: false,
            refilled: Default::default(),
            forgotten: Default::default(),
            earlier: Default::default(),
            untrusted_since: None,
            left: Default::default(),
            adopted: None,
            known: Default::default(),
        };
        let keeper = IdentityKeeper::new(
            Arc::new(FsDisk),
            Blocking::Threads,
            folder.path().to_owned(),
            identity,
        );
        // Polled once, then dropped, as a call is whose deadline passed.
        let known = [(NodeId::new("n2"), Incarnation(9))];
        drop(keeper.remember(&known).now_or_never());
        keeper.change(|identity| identity.recovered = true).await.expect("stored");
        let held = keeper.held().await;
        assert!(held.recovered);
        assert_eq!(held.known, known.into());
        assert_eq!(Identity::load(&FsDisk, folder.path()).expect("intact"), Some(held));
    }
}
