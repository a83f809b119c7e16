//! The coordinator's life: start, watch the file, publish, serve, stop.
//!
//! One part reads and publishes (`publisher.rs`), one serves (`server.rs`), one makes backups
//! (`backups.rs`); they share the document through a `watch` channel. Invariant: what is served is in the store (if there is one) and on
//! the disk; epoch numbers only grow. Everything from outside comes in by [`CoordinatorOptions`].

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use tako_flatbuf::{Listener, Network};
use tako_journal::{Blocking, Disk, FsDisk};
use tako_types::config::{Config, Published};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    ConfigStore, CoordinatorError,
    backups::{self, Schedule},
    files::Files,
    http::{self, Document},
    publish::{first, parse, read_at_rest},
    publisher::Publisher,
    server,
};

/// What a coordinator is made of.
#[derive(Clone)]
pub struct CoordinatorOptions {
    /// Its id in the configuration.
    pub id: String,
    /// The configuration file.
    pub config_path: PathBuf,
    /// Its folder; documents are kept below `etc/coordinator-<id>`.
    pub var: PathBuf,
    /// Where to listen, instead of the address in the configuration; port 0 takes a free one.
    pub bind: Option<String>,
    /// Where documents are published for all; without one only on the own disk.
    pub store: Option<Arc<dyn ConfigStore>>,
    /// What makes the backups that the configuration asks for; none are made without.
    pub backups: Option<Schedule>,
    /// How often the file is looked at.
    pub watch_interval: Duration,
    /// How often the store is asked for documents of other coordinators.
    pub store_interval: Duration,
    /// Where it listens.
    pub network: Arc<dyn Network>,
    /// The disk of the configuration file and of the folder.
    pub disk: Arc<dyn Disk>,
    /// Where calls to the disk are made, and rings laid out.
    pub blocking: Blocking,
    /// What else it answers over HTTP.
    pub more_routes: Router,
}

impl CoordinatorOptions {
    /// The usual options: a look at the file each second, at the store every 30; the machine's
    /// disk, and threads for what blocks.
    #[must_use]
    pub fn new(
        id: impl Into<String>,
        config_path: PathBuf,
        var: PathBuf,
        network: Arc<dyn Network>,
    ) -> Self {
        Self {
            id: id.into(),
            config_path,
            var,
            bind: None,
            store: None,
            backups: None,
            watch_interval: Duration::from_secs(1),
            store_interval: Duration::from_secs(30),
            network,
            disk: Arc::new(FsDisk),
            blocking: Blocking::Threads,
            more_routes: Router::new(),
        }
    }
}

/// A coordinator that has published its document and listens, but does not answer yet.
pub struct Coordinator {
    listener: Box<dyn Listener>,
    publisher: Publisher,
    reload: Arc<Notify>,
    backups: Option<Schedule>,
    more_routes: Router,
}

impl Coordinator {
    /// Reads, checks and publishes the file, and takes the port.
    ///
    /// # Errors
    /// [`CoordinatorError`] when it cannot start (bad file, unknown id, port taken, store away);
    /// later troubles are logged and shown in `/status`.
    pub async fn start(options: CoordinatorOptions) -> Result<Self, CoordinatorError> {
        let files = Files::new(&options);
        let text = files.config().await?;
        let config = parse(&options.config_path, &text)?;
        // The port first: whoever cannot serve publishes nothing.
        let listener = bind(&options, &config).await?;
        files.make_folder().await?;
        let found = first(&files, options.store.as_deref()).await?;
        let (text, config) =
            read_at_rest(&options, &files, found.newest.as_ref(), text, config).await?;
        let (backups, more_routes) = (options.backups.clone(), options.more_routes.clone());
        let publisher = Publisher::start(options, files, &found, &text, &config).await?;
        let epoch = publisher.shared().document.borrow().published.epoch;
        tracing::info!(%epoch, address = listener.address(), "coordinator ready");
        Ok(Self { listener, publisher, reload: Arc::default(), backups, more_routes })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> String {
        self.listener.address()
    }

    /// Notify it to have the file read at once, as the signals do.
    #[must_use]
    pub fn reload_handle(&self) -> Arc<Notify> {
        Arc::clone(&self.reload)
    }

    /// The document in force, also while it serves.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        InForce(self.publisher.shared().document)
    }

    /// Serves and watches until `shutdown` resolves, then gives open connections a grace.
    pub async fn serve(mut self, shutdown: impl Future<Output = ()> + Send) {
        let router = http::router(self.publisher.shared()).merge(self.more_routes);
        let stop = CancellationToken::new();
        let backups = backups::run(self.backups.take(), self.publisher.shared());
        let watching = async {
            tokio::select! {
                () = self.publisher.watch(&self.reload) => {}
                () = backups => {}
                () = shutdown => {}
            }
            stop.cancel();
        };
        tokio::join!(server::serve(self.listener, router, stop.clone()), watching);
    }
}

/// What a coordinator publishes.
#[derive(Debug, Clone)]
pub struct InForce(watch::Receiver<Arc<Document>>);

impl InForce {
    /// The document now.
    #[must_use]
    pub fn published(&self) -> Published {
        self.0.borrow().published.clone()
    }

    /// Waits for the next one; `false` when the coordinator has ended.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

async fn bind(
    options: &CoordinatorOptions,
    config: &Config,
) -> Result<Box<dyn Listener>, CoordinatorError> {
    // The id becomes the name of a folder.
    let is_name = !options.id.is_empty() && !options.id.contains(['/', '\\', '\0']);
    let address = match (&options.bind, config.coordinators.get(&options.id)) {
        (Some(address), _) if is_name => address.clone(),
        (None, Some(address)) => address.to_string(),
        (Some(_) | None, _) => {
            let known: Vec<_> = config.coordinators.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(CoordinatorError::UnknownId { id: options.id.clone(), known });
        }
    };
    let listening = options.network.listen(&address).await;
    listening.map_err(|source| CoordinatorError::Bind { address, source })
}
