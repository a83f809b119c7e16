//! Assembly of a proxy: what serves without data of its own, as a process or within a client's.
//!
//! It keeps only configurations, gossips to learn who is there, and serves by RPC to the nodes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tako_flatbuf::{Network, PeerOptions, Peers};
use tako_journal::Disk;
use tako_types::{Clock, HybridClock, NodeId, config::Published};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    configuration::{
        AdoptError, ConfigCell, ConfigSource, ConfigWatcher, SourceError, newest_kept,
    },
    links::Links,
    membership::{Gossiper, Membership},
    node::origin_of,
    replication::Serving,
};

/// Everything a proxy is made of.
pub struct ProxyOptions {
    /// Its name, such as `p1`.
    pub id: NodeId,
    /// Folder for kept configurations; `None`: none is kept.
    pub var: Option<PathBuf>,
    /// Where configurations come from.
    pub source: ConfigSource,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for its versions' origin.
    pub seed: u64,
    /// Byte streams to the nodes.
    pub network: Arc<dyn Network>,
    /// The disk of the folder.
    pub disk: Arc<dyn Disk>,
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// There is no configuration to start with.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The configuration cannot be kept.
    #[error(transparent)]
    Configuration(#[from] AdoptError),
}

/// A running proxy.
pub struct Proxy {
    /// Serves clients' requests.
    pub serving: Arc<Serving>,
    /// The configuration in force.
    pub config: Arc<ConfigCell>,
    /// Notify it to look for a newer configuration at once.
    pub look: Arc<Notify>,
    tasks: TaskTracker,
    background: CancellationToken,
}

impl Proxy {
    /// Starts a proxy; `None` when the shutdown came before a configuration.
    ///
    /// # Errors
    /// [`ProxyError`] when there is no usable configuration.
    pub async fn start(
        options: ProxyOptions,
        shutdown: CancellationToken,
    ) -> Result<Option<Self>, ProxyError> {
        let etc = options.var.as_ref().map(|var| folder_of(var, &options.id));
        let mut watcher = ConfigWatcher::new(options.source.clone(), options.network.clone());
        let kept = etc.as_ref().and_then(|etc| newest_kept(options.disk.as_ref(), etc));
        let first = match kept {
            Some(kept) => kept,
            None => match watcher.first(None, &shutdown).await? {
                Some(first) => first,
                None => return Ok(None),
            },
        };
        Self::start_with(first, watcher, options).await.map(Some)
    }

    /// Starts one with this configuration, or the one that `watcher` finds now.
    ///
    /// # Errors
    /// [`ProxyError`] when the configuration cannot be kept.
    pub(crate) async fn start_with(
        first: Published,
        watcher: ConfigWatcher,
        options: ProxyOptions,
    ) -> Result<Self, ProxyError> {
        let etc = options.var.as_ref().map(|var| folder_of(var, &options.id));
        // With nothing of its own it need not have seen what lies between what it kept and what is in
        // force; and there may be nothing: the data may have been restored to another root.
        let config = Arc::new(ConfigCell::new(first, options.disk, etc)?.provisional());
        if let Ok(fresh) = watcher.fetch(Some(&config.current())).await {
            let _ = config.adopt(fresh);
        }
        let origin = origin_of(&options.id, options.clock.now_micros(), options.seed);
        let clock = HybridClock::new(options.clock, origin, 0);
        let peers = Arc::new(Peers::new(options.network, PeerOptions::new(options.id.clone())));
        let membership = Arc::new(Membership::default());
        let serving =
            Serving::new(Links::new(options.id, config.clone(), membership, peers), clock);
        let proxy = Self {
            serving: serving.clone(),
            config: config.clone(),
            look: Arc::new(Notify::new()),
            tasks: TaskTracker::new(),
            background: CancellationToken::new(),
        };
        let background = proxy.background.clone();
        proxy.tasks.spawn(Gossiper::new(serving).run(background.clone()));
        proxy.tasks.spawn(watcher.run(config, proxy.look.clone(), background));
        Ok(proxy)
    }

    /// Lets answered writes end at every replica, then stops every task.
    pub async fn stop(&self) {
        self.serving.finish().await;
        self.background.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn folder_of(var: &Path, id: &NodeId) -> PathBuf {
    var.join("etc").join(format!("proxy-{id}"))
}
