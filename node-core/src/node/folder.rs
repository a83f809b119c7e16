//! A node's files: `<var>/data/<id>/{identity,journal,cache}`, `<var>/etc/node-<id>/`.
//!
//! Nothing of an old or foreign folder is ever deleted: it is moved aside under another name.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tako_journal::{DirLock, Disk, Identity, IdentityError, lock_dir};
use tako_types::{ClusterId, Incarnation, NodeId, config::Durability};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::NodeError;

/// How long a start waits for the folder's lock: a process that was killed holds it until the
/// system has taken its memory and its last writes down, which a busy machine takes seconds for.
const DYING: Duration = Duration::from_secs(10);
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Why a folder that was just made does not vote yet.
pub(super) const NEW_FOLDER: &str = "the data folder is new";

/// See the module.
#[derive(Debug)]
pub(super) struct Folder {
    disk: Arc<dyn Disk>,
    data: PathBuf,
    etc: PathBuf,
    _lock: DirLock,
}

/// An identity to go on with, and why the folder lost state, if it did.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) identity: Identity,
    pub(super) lost: Option<String>,
    /// The folder may have acknowledged what it does not have: it must go on as a new one.
    pub(super) renew: bool,
}

impl Folder {
    /// Makes and locks the folder; a lock that is held is tried again until [`DYING`] is over.
    ///
    /// # Errors
    /// [`IdentityError::Locked`] where another process goes on, [`NodeError::Stopped`] where this
    /// one is stopped first.
    pub(super) async fn open(
        disk: Arc<dyn Disk>,
        var: &Path,
        id: &NodeId,
        shutdown: &CancellationToken,
    ) -> Result<Self, NodeError> {
        let data = var.join("data").join(id.as_str());
        let etc = var.join("etc").join(format!("node-{id}"));
        let until = Instant::now() + DYING;
        let mut told = false;
        let _lock = loop {
            match lock_dir(disk.as_ref(), &data) {
                Err(error @ IdentityError::Locked { .. }) if Instant::now() < until => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!("{error}; waiting for it to end, at most {DYING:?}");
                    }
                }
                locked => break locked?,
            }
            tokio::select! {
                () = shutdown.cancelled() => return Err(NodeError::Stopped),
                () = sleep(AGAIN_AFTER) => {}
            }
        };
        Ok(Self { disk, data, etc, _lock })
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn etc(&self) -> &Path {
        &self.etc
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.data.join("journal")
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.data.join("cache")
    }

    /// The identity as it lies there, if it is intact.
    pub(super) fn peek_identity(&self) -> Option<Identity> {
        Identity::load(self.disk.as_ref(), &self.data).ok().flatten()
    }

    /// Reads the identity or makes a new one, and marks the folder as in use.
    pub(super) fn open_identity(
        &self,
        id: &NodeId,
        cluster: ClusterId,
        durability: Durability,
        now_micros: u64,
    ) -> Result<Opened, IdentityError> {
        let boot = self.disk.boot_id().unwrap_or_default();
        let (held, mut lost) = match Identity::load(self.disk.as_ref(), &self.data) {
            Ok(Some(held)) if held.cluster != cluster || held.node != *id => {
                let moved = self.move_aside("foreign")?;
                let whose = if held.cluster == cluster { held.node.as_str() } else { "a cluster" };
                let reason = format!(
                    "the data folder is of {whose} that this node does not belong to; it was \
                     moved to {moved}"
                );
                (None, Some(reason))
            }
            Ok(Some(held)) => (Some(held), None),
            Ok(None) if self.disk.exists(&self.journal()) => {
                let moved = self.move_aside("unnamed")?;
                (None, Some(format!("the journal has no identity; it was moved to {moved}")))
            }
            Ok(None) => (None, Some(NEW_FOLDER.to_owned())),
            Err(IdentityError::Damaged { path, reason }) => {
                let moved = self.move_aside("damaged")?;
                let text = format!("{} is damaged ({reason}); moved to {moved}", path.display());
                (None, Some(text))
            }
            Err(error) => return Err(error),
        };
        let mut renew = false;
        let identity = match held {
            Some(mut held) => {
                if !held.recovered {
                    lost =
                        Some("its journal failed, or an earlier recovery did not end".to_owned());
                    // What was refilled already says that the folder went on as a new one.
                    renew = held.refilled.is_empty();
                }
                let machine_stopped = !held.clean && held.boot_id != boot;
                if machine_stopped && held.durability != Durability::Fsync {
                    lost = Some(format!(
                        "the machine stopped while durability was `{}`",
                        held.durability.as_str()
                    ));
                    renew = true;
                    held.refilled.clear();
                }
                held
            }
            None => Identity {
                cluster,
                node: id.clone(),
                incarnation: Incarnation(now_micros),
                clock_ceiling_micros: 0,
                promise_ceiling_micros: 0,
                boot_id: String::new(),
                clean: false,
                durability,
                recovered: false,
                refilled: Default::default(),
                forgotten: Default::default(),
                earlier: Default::default(),
                untrusted_since: None,
                left: Default::default(),
                adopted: None,
                known: Default::default(),
            },
        };
        let identity = Identity {
            boot_id: boot,
            clean: false,
            durability,
            recovered: identity.recovered && lost.is_none(),
            ..identity
        };
        identity.store(self.disk.as_ref(), &self.data)?;
        Ok(Opened { identity, lost, renew })
    }

    /// Keeps the journal's files, as they are now, in a sibling folder; gives its name.
    pub(super) fn keep_journal(&self, why: &str) -> Result<String, IdentityError> {
        let aside = self.aside(why).join("journal");
        let io = |source| IdentityError::io("keep", &self.data, source);
        self.disk.create_dir(&aside).map_err(io)?;
        for name in self.disk.list(&self.journal()).map_err(io)? {
            if name.ends_with(".log") {
                // Linked, not copied: the journal only ever removes or appends.
                self.disk.link(&self.journal().join(&name), &aside.join(&name)).map_err(io)?;
            }
        }
        Ok(aside.display().to_string())
    }

    /// A sibling folder that does not exist yet.
    fn aside(&self, why: &str) -> PathBuf {
        let parent = self.data.parent().unwrap_or(&self.data);
        let name = self.data.file_name().map(|n| n.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        (1..)
            .map(|n| parent.join(format!("{name}.{why}-{n}")))
            .find(|path| !self.disk.exists(path))
            .unwrap_or_else(|| parent.join(format!("{name}.{why}")))
    }

    /// Moves identity and journal to a sibling folder; gives its name.
    fn move_aside(&self, why: &str) -> Result<String, IdentityError> {
        let aside = self.aside(why);
        let io = |source| IdentityError::io("move aside", &self.data, source);
        self.disk.create_dir(&aside).map_err(io)?;
        for part in ["identity", "journal"] {
            let from = self.data.join(part);
            if self.disk.exists(&from) {
                self.disk.rename(&from, &aside.join(part)).map_err(io)?;
            }
        }
        Ok(aside.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc, time::Duration};

    use tako_journal::{fault::MemDisk, lock_dir};
    use tako_types::NodeId;
    use tokio::time::{Instant, sleep};
    use tokio_util::sync::CancellationToken;

    use super::{DYING, Folder};
    use crate::node::NodeError;

    const VAR: &str = "/var";

    async fn open(disk: &MemDisk, shutdown: &CancellationToken) -> Result<Folder, NodeError> {
        let id = NodeId::new("n1");
        Folder::open(Arc::new(disk.clone()), Path::new(VAR), &id, shutdown).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_while_a_killed_process_still_holds_the_folder() {
        let disk = MemDisk::default();
        let held = lock_dir(&disk, &Path::new(VAR).join("data/n1")).expect("free");
        let dying = async {
            sleep(Duration::from_secs(2)).await;
            drop(held);
        };
        let shutdown = CancellationToken::new();
        let (opened, ()) = tokio::join!(open(&disk, &shutdown), dying);
        opened.expect("opened once it was free");
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_another_process_keeps_is_refused_in_bounded_time() {
        let disk = MemDisk::default();
        let first = open(&disk, &CancellationToken::new()).await.expect("free");
        let began = Instant::now();
        let error = open(&disk, &CancellationToken::new()).await.expect_err("held");
        assert!(error.to_string().contains("in use by another process"), "{error}");
        assert!(began.elapsed() <= DYING + Duration::from_secs(1), "{:?}", began.elapsed());
        drop(first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_waits_for_its_folder_can_be_stopped() {
        let disk = MemDisk::default();
        let first = open(&disk, &CancellationToken::new()).await.expect("free");
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let ended = open(&disk, &shutdown).await;
        assert!(matches!(ended, Err(NodeError::Stopped)), "{ended:?}");
        drop(first);
    }
}
