//! Where configurations come from: a file, coordinators, the object store.
//!
//! A source only fetches and decodes; [`super::ConfigCell`] decides what is taken.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Empty, Limited};
use hyper_util::rt::TokioIo;
use tako_flatbuf::Network;
use tako_ring::publish;
use tako_snapshot::Store;
use tako_types::config::{Config, ConfigError, Published, PublishedError};
use tokio::time::timeout;

/// Time for one coordinator to answer.
const FETCH_DEADLINE: Duration = Duration::from_secs(2);
/// Longest document accepted.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// Why a source gave nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a valid configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It cannot be laid out.
    #[error(transparent)]
    Published(#[from] PublishedError),
    /// The coordinator could not be asked or its answer not be used.
    #[error("coordinator {address}: {reason}")]
    Coordinator {
        /// Which one.
        address: String,
        /// Why.
        reason: String,
    },
    /// The object store could not be asked.
    #[error("object store: {0}")]
    Store(String),
}

/// Where a process looks for configurations.
#[derive(Debug, Clone)]
pub enum ConfigSource {
    /// A file of its own; no coordinator.
    File(PathBuf),
    /// Coordinators, `host:port`; once a document is there, those it names are asked as well.
    Coordinators(Vec<String>),
}

/// Reads and validates a configuration file and gives it a number.
///
/// The number is the file's `epoch`, else that of `previous` when the content is the same, else
/// the one above it.
///
/// # Errors
/// [`SourceError`] with line and reason.
pub fn load_file(path: &PathBuf, previous: Option<&Published>) -> Result<Published, SourceError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SourceError::File { path: path.clone(), source })?;
    let config = Arc::new(Config::parse(&text)?);
    let number = config.epoch;
    let document = publish(config, number.unwrap_or(1), previous)?;
    let Some(previous) = previous.filter(|_| number.is_none()) else { return Ok(document) };
    let number = previous.epoch.number + u64::from(previous.epoch.sha256 != document.epoch.sha256);
    Ok(publish(document.config.clone(), number, Some(previous))?)
}

/// Asks one coordinator for its document.
///
/// # Errors
/// [`SourceError::Coordinator`].
pub(super) async fn fetch_coordinator(
    network: &dyn Network,
    address: &str,
) -> Result<Published, SourceError> {
    let failed = |reason: String| SourceError::Coordinator { address: address.to_owned(), reason };
    let bytes = timeout(FETCH_DEADLINE, http_get(network, address, "/configuration"))
        .await
        .map_err(|_| failed(format!("no answer within {FETCH_DEADLINE:?}")))?
        .map_err(failed)?;
    Published::decode(&bytes).map_err(|error| failed(error.to_string()))
}

/// The body of a plain HTTP answer; an error in words.
async fn http_get(network: &dyn Network, address: &str, path: &str) -> Result<Bytes, String> {
    let stream = network.connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let request = hyper::Request::get(path)
        .header(hyper::header::HOST, address)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await;
        body.map(Collected::to_bytes).map_err(|error| error.to_string())
    };
    // The connection lives as long as the exchange needs it: no task of its own.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// The newest document in the object store.
///
/// # Errors
/// [`SourceError::Store`].
pub async fn fetch_store(store: &Store) -> Result<Option<Published>, SourceError> {
    let latest = store.latest_config().await.map_err(|e| SourceError::Store(e.to_string()))?;
    latest
        .map(|(_, bytes)| Published::decode(&bytes).map_err(|e| SourceError::Store(e.to_string())))
        .transpose()
}
