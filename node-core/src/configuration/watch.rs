//! Keeps a process's configuration fresh: asks its sources every few seconds and on a signal.
//!
//! Sources in order: the own file, or coordinators (those given and those the document names).
//! An unreachable source is logged once until it answers again; the document in force stays.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tako_flatbuf::Network;
use tako_snapshot::Store;
use tako_types::config::{Published, check_change};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    ConfigCell, ConfigSource, SourceError, fetch_store, load_file, source::fetch_coordinator,
};

const EVERY: Duration = Duration::from_secs(3);

/// See the module.
pub struct ConfigWatcher {
    source: ConfigSource,
    network: Arc<dyn Network>,
    said: Option<String>,
}

impl ConfigWatcher {
    /// Watches `source`; coordinators are reached over `network`.
    #[must_use]
    pub fn new(source: ConfigSource, network: Arc<dyn Network>) -> Self {
        Self { source, network, said: None }
    }

    /// The document that the source gives now, `previous` being in force.
    ///
    /// # Errors
    /// [`SourceError`] of the last source asked.
    pub async fn fetch(&self, previous: Option<&Published>) -> Result<Published, SourceError> {
        match &self.source {
            ConfigSource::File(path) => {
                let document = load_file(path, previous)?;
                // Numbers that were left out stand for documents that were missed; a file's do not.
                if let Some(previous) = previous
                    && previous.epoch.number + 1 < document.epoch.number
                {
                    check_change(&previous.config, &document.config)?;
                }
                Ok(document)
            }
            ConfigSource::Coordinators(given) => {
                let mut addresses = given.clone();
                if let Some(previous) = previous {
                    let named = previous.config.coordinators.values();
                    addresses.extend(named.map(|a| a.to_string()));
                }
                // Whoever does not answer costs its time-out once.
                let mut asked = BTreeSet::new();
                addresses.retain(|address| asked.insert(address.clone()));
                let mut last = Err(SourceError::Coordinator {
                    address: "(none)".to_owned(),
                    reason: "no coordinator is known; give --coordinator or --config".to_owned(),
                });
                for address in addresses {
                    last = fetch_coordinator(&*self.network, &address).await;
                    if last.is_ok() {
                        break;
                    }
                }
                last
            }
        }
    }

    /// The first document: coordinators, and then the store where one is known, are asked until
    /// one answers (`None` at the shutdown); a file is read once.
    ///
    /// # Errors
    /// [`SourceError`] of the file.
    pub async fn first(
        &mut self,
        store: Option<&Store>,
        shutdown: &CancellationToken,
    ) -> Result<Option<Published>, SourceError> {
        loop {
            match self.fetch(None).await {
                Ok(document) => return Ok(Some(document)),
                Err(error) if matches!(self.source, ConfigSource::File(_)) => return Err(error),
                Err(error) => self.say(&error),
            }
            if let Some(store) = store {
                let found = tokio::select! {
                    () = shutdown.cancelled() => return Ok(None),
                    found = fetch_store(store) => found,
                };
                match found {
                    Ok(Some(document)) => return Ok(Some(document)),
                    Ok(None) => {}
                    Err(error) => tracing::debug!("no configuration from the store: {error}"),
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    /// Keeps `cell` fresh until the shutdown; `look` asks at once.
    pub async fn run(
        mut self,
        cell: Arc<ConfigCell>,
        look: Arc<Notify>,
        shutdown: CancellationToken,
    ) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = look.notified() => {}
                _ = ticks.tick() => {}
            }
            match self.fetch(Some(&cell.current())).await {
                Ok(document) => {
                    self.said = None;
                    // A refusal is logged and shown by the cell.
                    let _ = cell.adopt(document);
                }
                Err(error) => self.say(&error),
            }
        }
    }

    fn say(&mut self, error: &SourceError) {
        let text = error.to_string();
        if self.said.as_ref() != Some(&text) {
            tracing::warn!("no configuration from its source: {text}");
            self.said = Some(text);
        }
    }
}
