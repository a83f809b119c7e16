//! Documents: made, numbered, put where they belong; and what a coordinator starts with.
//!
//! Invariant: a document is in the store (if there is one), then on the disk, and only then given to
//! the caller; a number that somebody else took is passed by, as far as the order allows ([`Only`]).
//! Not here: when (`publisher.rs`), and
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
    mandate::Mandate,
};

/// How often a create that found its number taken is tried again with a higher one.
const PUBLISH_TRIES: usize = 8;

/// What is to be published.
pub(crate) struct Wanted<'a> {
    pub(crate) config: &'a Config,
    pub(crate) only: Only<'a>,
}

/// What it may follow, where another document came while it was being published.
#[derive(Clone, Copy)]
pub(crate) enum Only<'a> {
    /// Anything: it is decided about anew.
    Any,
    /// The documents that `If-Match` names.
    OneOf(&'a str),
    /// What this coordinator published: the file was seen before.
    Own,
}

impl Only<'_> {
    /// Whether an order that was made under this condition is still meant for `document`.
    pub(crate) fn check(self, document: &Document) -> Result<(), CoordinatorError> {
        match self {
            Self::OneOf(known) if !document.is_one_of(known) => {
                Err(CoordinatorError::Changed { in_force: document.published.epoch })
            }
            _ => Ok(()),
        }
    }
}

/// Publishes a configuration if it differs from `in_force`; the flag says whether it did.
pub(crate) async fn publish(
    options: &CoordinatorOptions,
    files: &Files,
    mandate: &mut Mandate,
    mut in_force: Option<Arc<Document>>,
    wanted: Wanted<'_>,
) -> Result<(Arc<Document>, bool), CoordinatorError> {
    let Wanted { config, only } = wanted;
    let numbering = Numbering { id: &options.id, shared: options.store.is_some() };
    for _ in 0..PUBLISH_TRIES {
        let published = in_force.as_ref().map(|document| &document.published);
        let decision = decide(published, config, &options.config_path, numbering)?;
        let (number, config, migration) = match (decision, &in_force) {
            (Decision::Publish(number, config, migration), _) => (number, *config, migration),
            (Decision::Keep, Some(document)) => return Ok((Arc::clone(document), false)),
            (Decision::Keep, None) => (1, config.clone(), None),
        };
        let takes_over = published.is_some_and(|document| {
            numbering.other_master(&document.config).is_some()
                && numbering.other_master(&config).is_none()
        });
        let document = lay_out(options, (config, migration), number, in_force.clone()).await?;
        if takes_over {
            // Before it is tried: whether it came about may not be heard.
            let trying = mandate.trying(document.published.epoch);
            files.keep_mandate(&trying).await?;
            *mandate = trying;
        }
        if let Some(store) = &options.store
            && store.create(number, document.bytes.clone()).await? == Created::Exists
        {
            let (_, bytes) = store
                .latest()
                .await?
                .ok_or(CoordinatorError::EpochConflict { number, place: "the store" })?;
            let theirs = into_document(Published::decode(&bytes)?);
            only.check(&theirs)?;
            if let (Only::Own, Some(known)) = (only, &in_force) {
                let both = (&known.published, &theirs.published);
                if !mandate.reaches(store.as_ref(), numbering, both).await? {
                    let in_force = theirs.published.epoch.number;
                    return Err(CoordinatorError::Superseded { in_force });
                }
            }
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

/// What there is at the start.
pub(crate) struct Found {
    /// The newest document on the own disk.
    pub(crate) kept: Option<Arc<Document>>,
    /// The newest on the disk and in the store.
    pub(crate) newest: Option<Arc<Document>>,
}

/// The documents to start with.
pub(crate) async fn first(
    files: &Files,
    store: Option<&dyn ConfigStore>,
) -> Result<Found, CoordinatorError> {
    let kept = files.newest().await?.map(into_document);
    let stored = match store {
        Some(store) => store.latest().await?,
        None => None,
    };
    let stored = stored.map(|(_, bytes)| Published::decode(&bytes)).transpose()?;
    let newest = match (&kept, stored) {
        (Some(kept), Some(stored)) => {
            let (ours, theirs) = (kept.published.epoch, stored.epoch);
            if theirs.number == ours.number && theirs != ours {
                let number = ours.number;
                return Err(CoordinatorError::EpochConflict { number, place: "the own disk" });
            }
            match theirs.number <= ours.number {
                true => Some(Arc::clone(kept)),
                false => Some(into_document(stored)),
            }
        }
        (None, Some(stored)) => Some(into_document(stored)),
        (kept, None) => kept.clone(),
    };
    Ok(Found { kept, newest })
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
