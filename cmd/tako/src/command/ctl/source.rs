//! Which cluster an operator means: its store, and the configuration that is in force there.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use tako_coordinator::RECORDS;
use tako_snapshot::{
    Store, StoreSettings,
    backup::{Backups, Progress, partitions_log2_of},
};
use tako_types::{
    ErrorKind, SystemClock,
    config::{Config, Published},
};

use crate::{arguments::absolute, command::check, failure::Failure};

/// Where the cluster's data are.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct SourceArgs {
    /// The object store: s3://BUCKET/PREFIX, file:///FOLDER or a folder
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// A configuration file, whose `store` is used unless --store is given
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The cluster that is meant.
pub(super) struct Source {
    pub(super) settings: StoreSettings,
    pub(super) store: Store,
    /// The newest document in the store.
    pub(super) document: Option<Published>,
    /// The operator's file.
    pub(super) file: Option<Config>,
}

impl SourceArgs {
    /// Opens the store and looks for the configuration.
    pub(super) async fn open(&self) -> Result<Source, Failure> {
        let file = self.config.as_ref().map(check::load).transpose()?;
        let configured = file.as_ref().and_then(|file| file.cluster.store.as_ref());
        let mut settings = configured.map(StoreSettings::from).unwrap_or_default();
        if let Some(url) = &self.store {
            settings.url.clone_from(url);
        }
        if settings.url.is_empty() {
            let what = "the configuration names no store: give --store URL";
            return Err(Failure::invalid(what));
        }
        let settings = settings.with_url(&url_of(&settings.url)?);
        let store = Store::open(&settings)?;
        let document = match store.latest_config().await? {
            None => None,
            Some((number, bytes)) => Some(Published::decode(&bytes).map_err(|error| {
                Failure::new(error.kind(), format!("configuration {number} in the store: {error}"))
            })?),
        };
        Ok(Source { settings, store, document, file })
    }
}

impl Source {
    /// The backups of the partitions that there are.
    pub(super) async fn backups(&self) -> Result<Backups, Failure> {
        let found = partitions_log2_of(&self.store).await?;
        let told = self.document.as_ref().map(|document| &*document.config).or(self.file.as_ref());
        let Some(log2) = found.or(told.map(Config::partitions_log2)) else {
            let what = format!("nothing of a cluster at {}", self.settings.url);
            return Err(Failure::new(ErrorKind::NotFound, what));
        };
        let clock = Arc::new(SystemClock);
        Ok(Backups::open(self.store.clone(), log2, clock, RECORDS).await?)
    }
}

/// A folder's path as a URL; other texts as they are.
pub(super) fn url_of(text: &str) -> Result<String, Failure> {
    let text = text.trim().trim_end_matches('/');
    if text.is_empty() || text.contains("://") {
        return Ok(text.to_owned());
    }
    let folder = absolute(text.as_ref())?;
    Ok(format!("file://{}", folder.display()))
}

/// Tells on standard error how far a long work is: now and then, not each time.
pub(super) fn narrator() -> impl Fn(Progress) + Sync {
    let last = std::sync::Mutex::new((std::time::Instant::now(), ""));
    move |Progress { doing, done, of }| {
        const EVERY: std::time::Duration = std::time::Duration::from_secs(2);
        let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if EVERY <= last.0.elapsed() {
            *last = (std::time::Instant::now(), doing);
            eprintln!("{doing}: {done} of {of} partitions");
        }
    }
}
