//! Keeps the node's identity file: one owner, every change on disk before it counts.

use std::{path::PathBuf, sync::Arc};

use tako_journal::{Blocking, Disk, Identity, IdentityError};
use tako_types::{ClusterId, Incarnation, NodeId};
use tokio::sync::Mutex;

/// How far ahead of the wall clock the ceiling is set, in microseconds.
const CEILING_AHEAD_MICROS: u64 = 20_000_000;
/// How far ahead of the versions issued, where these are ahead of the wall clock: as many writes.
const CEILING_ABOVE_MICROS: u64 = 1_000_000;

/// The ceiling to keep next, if `held` is too low: above all that will be issued until the next
/// look, a few seconds later. `now`: the wall clock; `last`: the highest version issued.
///
/// A node that starts again and again goes on at the ceiling each time. So while its versions are
/// ahead of the wall clock, the ceiling follows them closely: else they would run away from the
/// wall clock, beyond the drift that others bear.
pub(crate) fn ceiling_due(held_micros: u64, now: u64, last: u64) -> Option<u64> {
    let at_least = (now + CEILING_AHEAD_MICROS / 2).max(last + CEILING_ABOVE_MICROS / 2);
    let next = (now + CEILING_AHEAD_MICROS).max(last + CEILING_ABOVE_MICROS);
    (held_micros < at_least).then_some(next)
}

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
        // The lock goes along: a caller that is dropped must not let the next one in too early.
        let store = move || {
            next.store(disk.as_ref(), &folder)?;
            *held = next;
            Ok(())
        };
        self.blocking.run(store).await
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

    #[test]
    fn restarts_in_quick_succession_do_not_run_away_from_the_wall_clock() {
        let (mut ceiling, mut now) = (0, 1_000_000_000);
        for _ in 0..1_000 {
            // A start, some versions, the look at the ceiling, a crash two seconds later.
            let last = ceiling.max(now) + 100;
            ceiling = ceiling_due(ceiling, now, last).unwrap_or(ceiling);
            assert!(last < ceiling);
            now += 2_000_000;
        }
        assert!(ceiling < now + 2 * CEILING_AHEAD_MICROS, "{} ahead", ceiling - now);
    }

    #[test]
    fn the_ceiling_is_above_all_that_is_issued_until_the_next_look() {
        let mut ceiling = 0;
        for second in 1..200u64 {
            let now = second * 5_000_000;
            // Versions issued since the last look: up to the wall clock, or a burst above it.
            let last = if second % 3 == 0 { now + 30_000_000 + second * 1_000 } else { now };
            assert!(second < 3 || now < ceiling, "{second}");
            ceiling = ceiling_due(ceiling, now, last).unwrap_or(ceiling).max(ceiling);
            assert!(last < ceiling && now + 5_000_000 < ceiling);
        }
    }
}
