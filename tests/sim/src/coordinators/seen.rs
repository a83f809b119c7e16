//! What documents there are: in the store, at the coordinators, at nodes and proxies.
//!
//! Everything seen is told to [`Epochs`](crate::epochs::Epochs), which judges it.

use std::sync::Arc;

use tako_node_core::configuration::ConfigCell;
use tako_snapshot::Store;
use tako_types::config::{Config, Published};
use tokio_util::sync::CancellationToken;

use super::Coordinators;

impl Coordinators {
    /// Notes what a process has in force, as long as it lives.
    pub fn watch(&self, who: &str, config: &ConfigCell, dead: CancellationToken) {
        let (epochs, who) = (self.0.epochs.clone(), who.to_owned());
        let mut documents = config.subscribe();
        self.0.around.tasks.spawn(async move {
            loop {
                let document = documents.borrow_and_update().clone();
                epochs.in_force(&who, &document);
                tokio::select! {
                    biased;
                    () = dead.cancelled() => return,
                    changed = documents.changed() => {
                        if changed.is_err() {
                            return;
                        }
                    }
                }
            }
        });
    }

    /// Whether the last good file is published and everybody has it: `others` are nodes' and
    /// proxies' names and what they have in force.
    ///
    /// # Errors
    /// Who has not.
    pub async fn is_settled(&self, others: Vec<(String, Arc<Published>)>) -> Result<(), String> {
        let newest = self.newest().await?.ok_or("nothing is published")?;
        let wanted = self.0.wanted.lock().file(&self.0.scenario);
        let wanted = Config::parse(&wanted).map_err(|error| error.to_string())?;
        if newest.config.sha256() != wanted.sha256() {
            return Err(format!("configuration {} is not the last file", newest.epoch));
        }
        if let Some(migration) = &newest.migration {
            let phase = migration.phase.as_str();
            return Err(format!("configuration {} is in {phase}", newest.epoch));
        }
        for place in self.0.places.lock().iter() {
            let running = place.running.as_ref().and_then(|running| running.in_force.as_ref());
            let Some(in_force) = running else { return Err(format!("{} is down", place.id)) };
            let epoch = in_force.published().epoch;
            if epoch != newest.epoch {
                return Err(format!("{} is at {epoch}, not at {}", place.id, newest.epoch));
            }
        }
        for (name, document) in others {
            if document.epoch != newest.epoch {
                let (has, newest) = (document.epoch, newest.epoch);
                return Err(format!("{name} is at {has}, not at {newest}"));
            }
        }
        Ok(())
    }

    fn backend(&self) -> Store {
        self.0.around.store.sound()
    }

    /// The newest document in the store.
    ///
    /// # Errors
    /// A document that makes no sense.
    pub async fn newest(&self) -> Result<Option<Published>, String> {
        let latest = self.backend().latest_config().await.map_err(|error| error.to_string())?;
        let decoded = latest.map(|(_, bytes)| Published::decode(&bytes));
        decoded.transpose().map_err(|error| format!("a published document: {error}"))
    }

    /// Looks at every document in the store.
    ///
    /// # Errors
    /// A document that is not there or makes no sense.
    pub async fn look_at_store(&self) -> Result<(), String> {
        let newest = self.newest().await?.map_or(0, |document| document.epoch.number);
        for number in 1..=newest {
            let found = self.backend().config(number).await.map_err(|error| error.to_string())?;
            let bytes = found.ok_or_else(|| format!("configuration {number} is not there"))?;
            let document = Published::decode(&bytes)
                .map_err(|error| format!("configuration {number}: {error}"))?;
            if document.epoch.number != number {
                return Err(format!("configuration {number} says it is {}", document.epoch));
            }
            self.0.epochs.seen("the store", &document);
        }
        Ok(())
    }
}
