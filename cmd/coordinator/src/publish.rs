//! Documents: made, numbered, put where they belong; and what a coordinator starts with.
//!
//! Invariant: a document is in the store (if there is one), then on the disk, and only then given to
//! the caller; a number that somebody else took is passed by. Not here: when (`publisher.rs`), and
//! whether a file may follow (`decide.rs`).

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use tako_types::config::{Config, Migration, Published};
use tokio::time::sleep;

use crate::{
    ConfigStore, CoordinatorError, CoordinatorOptions, Created,
    decide::{Decision, Numbering, decide},
    files::Files,
    http::Document,
};

/// How often a create that found its number taken is tried again with a higher one.
const PUBLISH_TRIES: usize = 8;

/// Publishes `config` if it differs from `in_force`; the flag says whether it did.
pub(crate) async fn publish(
    options: &CoordinatorOptions,
    files: &Files,
    mut in_force: Option<Arc<Document>>,
    config: &Config,
) -> Result<(Arc<Document>, bool), CoordinatorError> {
    let shared = options.store.is_some();
    for _ in 0..PUBLISH_TRIES {
        let numbering = Numbering { id: &options.id, shared };
        let published = in_force.as_ref().map(|document| &document.published);
        let decision = decide(published, config, &options.config_path, numbering)?;
        let (number, config, migration) = match (decision, &in_force) {
            (Decision::Publish(number, config, migration), _) => (number, *config, migration),
            (Decision::Keep, Some(document)) => return Ok((Arc::clone(document), false)),
            (Decision::Keep, None) => (1, config.clone(), None),
        };
        let document = lay_out(options, (config, migration), number, in_force.clone()).await?;
        if let Some(store) = &options.store
            && store.create(number, document.bytes.clone()).await? == Created::Exists
        {
            let (_, bytes) = store
                .latest()
                .await?
                .ok_or(CoordinatorError::EpochConflict { number, place: "the store" })?;
            let theirs = into_document(Published::decode(&bytes)?);
            files.keep(&theirs).await?;
            in_force = Some(theirs);
            continue;
        }
        files.keep(&document).await?;
        return Ok((document, true));
    }
    let number = in_force.map_or(0, |document| document.published.epoch.number);
    Err(CoordinatorError::EpochConflict { number, place: "the store" })
}

/// Makes a document; laying out a large ring takes a while.
pub(crate) async fn lay_out(
    options: &CoordinatorOptions,
    (mut config, migration): (Config, Option<Migration>),
    number: u64,
    before: Option<Arc<Document>>,
) -> Result<Arc<Document>, CoordinatorError> {
    // Part of the order, which is in the file.
    config.accept_loss.clear();
    let work = move || {
        let before = before.as_ref().map(|document| &document.published);
        tako_ring::publish_migration(Arc::new(config), number, migration, before)
    };
    Ok(into_document(options.blocking.run(work).await?))
}

/// The document to start with: the newest on the disk and in the store.
pub(crate) async fn first(
    files: &Files,
    store: Option<&dyn ConfigStore>,
) -> Result<Option<Arc<Document>>, CoordinatorError> {
    let kept = files.newest().await?;
    let stored = match store {
        Some(store) => store.latest().await?,
        None => None,
    };
    let stored = stored.map(|(_, bytes)| Published::decode(&bytes)).transpose()?;
    let newest = match (kept, stored) {
        (Some(kept), Some(stored)) if stored.epoch.number < kept.epoch.number => Some(kept),
        (Some(kept), Some(stored))
            if stored.epoch.number == kept.epoch.number && stored.epoch != kept.epoch =>
        {
            let number = kept.epoch.number;
            return Err(CoordinatorError::EpochConflict { number, place: "the own disk" });
        }
        (kept, None) => kept,
        (_, stored) => stored,
    };
    Ok(newest.map(into_document))
}

/// The file once it is at rest, if it says something else than what is in force; else as it was.
///
/// A coordinator may be started while somebody writes the file: that shall not publish a half.
pub(crate) async fn read_at_rest(
    options: &CoordinatorOptions,
    files: &Files,
    in_force: Option<&Arc<Document>>,
    mut text: String,
    config: Config,
) -> Result<(String, Config), CoordinatorError> {
    let is_change =
        in_force.is_some_and(|document| document.published.config.sha256() != config.sha256());
    if !is_change {
        return Ok((text, config));
    }
    loop {
        sleep(options.watch_interval).await;
        let again = files.config().await?;
        if again == text {
            let config = parse(&options.config_path, &text)?;
            return Ok((text, config));
        }
        text = again;
    }
}

pub(crate) fn parse(path: &Path, text: &str) -> Result<Config, CoordinatorError> {
    Config::parse(text).map_err(|error| CoordinatorError::Config {
        path: path.to_owned(),
        source: Box::new(error),
    })
}

pub(crate) fn into_document(published: Published) -> Arc<Document> {
    let bytes = Bytes::from(published.encode());
    Arc::new(Document { published, bytes })
}

pub(crate) fn warn(config: &Config) {
    for warning in config.warnings() {
        tracing::warn!(warning, "configuration");
    }
}
