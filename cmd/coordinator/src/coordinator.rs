//! The coordinator's life: start, watch the file, publish, serve, stop.
//!
//! One task reads and publishes, one serves; they share the document through a `watch` channel.
//! Invariant: what is served is in the store (if there is one) and on the disk; epoch numbers only
//! grow. A file is taken only when two looks in a row saw the same bytes, so a half-written one
//! is not; a signal (SIGHUP, SIGUSR1) takes it at once.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tako_types::{
    config::{Config, Published},
    limits::CONFIGURATION_BYTES_MAX,
};
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, watch},
};

use crate::{
    ConfigStore, CoordinatorError, Created,
    decide::{Decision, Numbering, decide},
    disk::Disk,
    http::{self, Document, Shared, Source},
};

/// How often a create that found its number taken is tried again with a higher one.
const PUBLISH_TRIES: usize = 8;
/// How long open connections may take to finish at the end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What a coordinator needs to know.
#[derive(Clone)]
pub struct CoordinatorOptions {
    /// Its id in the configuration.
    pub id: String,
    /// The configuration file.
    pub config_path: PathBuf,
    /// Its folder; documents are kept below `etc/coordinator-<id>`.
    pub var: PathBuf,
    /// Where to listen, instead of the address in the configuration; port 0 lets the system choose.
    pub bind: Option<SocketAddr>,
    /// Where documents are published for all; without one only on the own disk.
    pub store: Option<Arc<dyn ConfigStore>>,
    /// How often the file is looked at.
    pub watch_interval: Duration,
    /// How often the store is asked for documents of other coordinators.
    pub store_interval: Duration,
}

impl CoordinatorOptions {
    /// The usual options: a look at the file each second, at the store every 30.
    #[must_use]
    pub fn new(id: impl Into<String>, config_path: PathBuf, var: PathBuf) -> Self {
        Self {
            id: id.into(),
            config_path,
            var,
            bind: None,
            store: None,
            watch_interval: Duration::from_secs(1),
            store_interval: Duration::from_secs(30),
        }
    }
}

/// Runs a coordinator until `shutdown` resolves.
///
/// # Errors
/// [`CoordinatorError`] when it cannot start (bad file, unknown id, port taken, store away); later
/// troubles are logged and shown in `/status`.
pub async fn run(
    options: CoordinatorOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), CoordinatorError> {
    Coordinator::start(options).await?.serve(shutdown).await
}

/// A coordinator that has published its document and listens, but does not answer yet.
pub struct Coordinator {
    listener: TcpListener,
    address: SocketAddr,
    publisher: Publisher,
    reload: Arc<Notify>,
}

impl Coordinator {
    /// Reads, checks and publishes the file, and binds the port.
    ///
    /// # Errors
    /// As [`run`].
    pub async fn start(options: CoordinatorOptions) -> Result<Self, CoordinatorError> {
        let text = read_text(&options.config_path).await?;
        let config = parse(&options.config_path, &text)?;
        // The port first: whoever cannot serve publishes nothing.
        let (listener, address) = bind(&options, &config).await?;
        let disk = {
            let (var, id) = (options.var.clone(), options.id.clone());
            blocking(move || Disk::open(&var, &id)).await?
        };
        let in_force = newest(&disk, options.store.as_deref()).await?;
        let in_force = in_force.map(into_document).map(Arc::new);
        let (document, is_new) = publish(&options, &disk, in_force, &config).await?;
        if !is_new {
            // It may have come from the store alone, or the disk alone: both shall have it.
            keep(&disk, &document).await?;
            if let Some(store) = &options.store {
                let number = document.published.epoch.number;
                // Exists is the usual case, and `newest` has seen that it is the same.
                let _created: Created = store.create(number, document.bytes.clone()).await?;
            }
        }
        for warning in config.warnings() {
            tracing::warn!(warning, "configuration");
        }
        tracing::info!(epoch = %document.published.epoch, %address, "coordinator ready");
        let (sender, receiver) = watch::channel(document);
        let shared =
            Shared { id: options.id.as_str().into(), document: receiver, troubles: Arc::default() };
        let publisher = Publisher { options, disk, sender, shared, taken: text, seen: None };
        Ok(Self { listener, address, publisher, reload: Arc::default() })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Asks for the file to be read at once, as the signals do.
    #[must_use]
    pub fn reload_handle(&self) -> Arc<Notify> {
        Arc::clone(&self.reload)
    }

    /// The document in force.
    #[must_use]
    pub fn published(&self) -> Published {
        self.publisher.sender.borrow().published.clone()
    }

    /// Serves and watches until `shutdown` resolves.
    ///
    /// # Errors
    /// [`CoordinatorError::Serve`] when the server or the signal handlers fail.
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), CoordinatorError> {
        let router = http::router(self.publisher.shared.clone());
        let (stop, mut stopped) = watch::channel(false);
        let server = axum::serve(self.listener, router).with_graceful_shutdown(async move {
            // An error means the sender is gone, which is a stop as well.
            let _gone = stopped.wait_for(|stop| *stop).await;
        });
        let hangup = signal(SignalKind::hangup()).map_err(CoordinatorError::Serve)?;
        let user = signal(SignalKind::user_defined1()).map_err(CoordinatorError::Serve)?;
        let mut publisher = self.publisher;
        let mut server = std::pin::pin!(server.into_future());
        tokio::select! {
            result = &mut server => return result.map_err(CoordinatorError::Serve),
            () = publisher.watch(&self.reload, hangup, user) => {}
            () = shutdown => {}
        }
        stop.send_replace(true);
        // Connections that stay open beyond the grace are cut.
        if let Ok(result) = tokio::time::timeout(SHUTDOWN_GRACE, server).await {
            result.map_err(CoordinatorError::Serve)?;
        }
        Ok(())
    }
}

/// What a look at the file or the store came to.
enum Looked {
    /// As before.
    Nothing,
    /// In order, whatever was wrong before.
    Settled,
}

/// Reads the file, publishes what it says, follows the store.
struct Publisher {
    options: CoordinatorOptions,
    disk: Disk,
    sender: watch::Sender<Arc<Document>>,
    shared: Shared,
    /// The text that was last taken or refused.
    taken: String,
    /// What the last look saw, where that differs from `taken`.
    seen: Option<String>,
}

impl Publisher {
    async fn watch(&mut self, reload: &Notify, mut hangup: Signal, mut user: Signal) {
        // An interval of zero is a panic in tokio.
        let least = Duration::from_millis(1);
        let mut look = tokio::time::interval(self.options.watch_interval.max(least));
        let mut ask = tokio::time::interval(self.options.store_interval.max(least));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ask.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let (source, result) = tokio::select! {
                _ = look.tick() => (Source::File, self.look(false).await),
                _ = ask.tick() => (Source::Store, self.follow().await),
                () = reload.notified() => (Source::File, self.look(true).await),
                Some(()) = hangup.recv() => (Source::File, self.look(true).await),
                Some(()) = user.recv() => (Source::File, self.look(true).await),
            };
            let trouble = match result {
                Ok(Looked::Nothing) => continue,
                Ok(Looked::Settled) => None,
                Err(error) => Some(error.to_string()),
            };
            if self.shared.note(source, trouble.clone())
                && let Some(trouble) = trouble
            {
                tracing::error!(trouble, "the configuration in force stays");
            }
        }
    }

    /// Looks at the file; takes it if it changed and is at rest, or if `at_once`.
    async fn look(&mut self, at_once: bool) -> Result<Looked, CoordinatorError> {
        let text = match read_text(&self.options.config_path).await {
            Ok(text) => text,
            Err(error) => {
                // When it comes back it is looked at afresh.
                self.taken.clear();
                return Err(error);
            }
        };
        if !at_once {
            if text == self.taken {
                self.seen = None;
                return Ok(Looked::Nothing);
            }
            if self.seen.as_ref() != Some(&text) {
                self.seen = Some(text);
                return Ok(Looked::Nothing);
            }
        }
        self.seen = None;
        let parsed = parse(&self.options.config_path, &text);
        self.taken = text;
        let config = parsed?;
        let in_force = self.sender.borrow().clone();
        let (document, is_new) =
            match publish(&self.options, &self.disk, Some(in_force), &config).await {
                Ok(published) => published,
                Err(error) => {
                    // A store or disk that is away may come back: the next looks try again.
                    if error.kind().retry() {
                        self.taken.clear();
                    }
                    return Err(error);
                }
            };
        if is_new {
            tracing::info!(epoch = %document.published.epoch, "configuration published");
            for warning in config.warnings() {
                tracing::warn!(warning, "configuration");
            }
        }
        self.sender.send_replace(document);
        Ok(Looked::Settled)
    }

    /// Takes over what another coordinator published.
    async fn follow(&mut self) -> Result<Looked, CoordinatorError> {
        let Some(store) = &self.options.store else { return Ok(Looked::Settled) };
        let Some((number, bytes)) = store.latest().await? else { return Ok(Looked::Settled) };
        let in_force = self.sender.borrow().published.epoch;
        if number < in_force.number {
            return Ok(Looked::Settled);
        }
        let document = into_document(Published::decode(&bytes)?);
        let epoch = document.published.epoch;
        if epoch.number == in_force.number {
            if epoch.sha256 != in_force.sha256 {
                return Err(CoordinatorError::EpochConflict { number, place: "the store" });
            }
            return Ok(Looked::Settled);
        }
        keep(&self.disk, &document).await?;
        tracing::info!(%epoch, "configuration of another coordinator followed");
        self.sender.send_replace(Arc::new(document));
        Ok(Looked::Settled)
    }
}

/// Publishes `config` if it differs from `in_force`; the flag says whether it did.
async fn publish(
    options: &CoordinatorOptions,
    disk: &Disk,
    mut in_force: Option<Arc<Document>>,
    config: &Config,
) -> Result<(Arc<Document>, bool), CoordinatorError> {
    let shared = options.store.is_some();
    for _ in 0..PUBLISH_TRIES {
        let numbering = Numbering { id: &options.id, shared };
        let published = in_force.as_ref().map(|document| &document.published);
        let number = match (decide(published, config, &options.config_path, numbering)?, &in_force)
        {
            (Decision::Keep, Some(document)) => return Ok((Arc::clone(document), false)),
            (Decision::Keep, None) => 1,
            (Decision::Publish(number), _) => number,
        };
        let (config, before) = (Arc::new(config.clone()), in_force.clone());
        // Laying out a large ring takes a while.
        let published = blocking(move || {
            let before = before.as_ref().map(|document| &document.published);
            Ok(tako_ring::publish(config, number, before)?)
        })
        .await?;
        let document = into_document(published);
        if let Some(store) = &options.store
            && store.create(number, document.bytes.clone()).await? == Created::Exists
        {
            let (_, bytes) = store
                .latest()
                .await?
                .ok_or(CoordinatorError::EpochConflict { number, place: "the store" })?;
            in_force = Some(Arc::new(into_document(Published::decode(&bytes)?)));
            continue;
        }
        keep(disk, &document).await?;
        return Ok((Arc::new(document), true));
    }
    let number = in_force.map_or(0, |document| document.published.epoch.number);
    Err(CoordinatorError::EpochConflict { number, place: "the store" })
}

fn into_document(published: Published) -> Document {
    let bytes = Bytes::from(published.encode());
    Document { published, bytes }
}

/// The newest document on the disk and in the store.
async fn newest(
    disk: &Disk,
    store: Option<&dyn ConfigStore>,
) -> Result<Option<Published>, CoordinatorError> {
    let own = disk.clone();
    let kept = blocking(move || own.latest()).await?;
    let Some(store) = store else { return Ok(kept) };
    let Some((_, bytes)) = store.latest().await? else { return Ok(kept) };
    let stored = Published::decode(&bytes)?;
    match kept {
        Some(kept) if stored.epoch.number < kept.epoch.number => Ok(Some(kept)),
        Some(kept) if stored.epoch.number == kept.epoch.number && stored.epoch != kept.epoch => {
            Err(CoordinatorError::EpochConflict {
                number: kept.epoch.number,
                place: "the own disk",
            })
        }
        _ => Ok(Some(stored)),
    }
}

async fn keep(disk: &Disk, document: &Document) -> Result<(), CoordinatorError> {
    let (disk, bytes) = (disk.clone(), document.bytes.clone());
    let number = document.published.epoch.number;
    blocking(move || disk.keep(number, &bytes)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CoordinatorError> + Send + 'static,
) -> Result<T, CoordinatorError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| CoordinatorError::Serve(io::Error::other(error)))?
}

async fn read_text(path: &Path) -> Result<String, CoordinatorError> {
    let at = |source| CoordinatorError::File { path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(at)?;
    let mut text = String::new();
    // One byte more than allowed, so that too long a file is refused and not cut.
    file.take(CONFIGURATION_BYTES_MAX as u64 + 1).read_to_string(&mut text).await.map_err(at)?;
    Ok(text)
}

fn parse(path: &Path, text: &str) -> Result<Config, CoordinatorError> {
    Config::parse(text).map_err(|error| CoordinatorError::Config {
        path: path.to_owned(),
        source: Box::new(error),
    })
}

async fn bind(
    options: &CoordinatorOptions,
    config: &Config,
) -> Result<(TcpListener, SocketAddr), CoordinatorError> {
    // The id becomes the name of a folder.
    let is_name = !options.id.is_empty() && !options.id.contains(['/', '\\', '\0']);
    let address = match (options.bind, config.coordinators.get(&options.id)) {
        (Some(address), _) if is_name => address.to_string(),
        (None, Some(address)) => address.to_string(),
        (Some(_) | None, _) => {
            let known: Vec<_> = config.coordinators.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(CoordinatorError::UnknownId { id: options.id.clone(), known });
        }
    };
    let failed = |source| CoordinatorError::Bind { address: address.clone(), source };
    let listener = TcpListener::bind(&address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}
