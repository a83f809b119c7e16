//! Reads the file, publishes what it says, follows what others published, carries out migrations.
//!
//! Invariants: a document is in the store (if there is one), then on the disk, then served. The
//! file is taken only when two looks in a row saw the same bytes, so a half-written one is not;
//! who is told to look (`reload`, the operator's signals) takes it at once.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use tako_types::config::{Config, Migration, Published};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::{
    ConfigStore, CoordinatorError, CoordinatorOptions, Created,
    decide::{Decision, Numbering, decide},
    files::Files,
    http::{Document, Progress, Shared, Source},
    migration::{
        order::{Order, order},
        phases::{Moment, Next, next},
        standings::Nodes,
    },
};

/// How often a create that found its number taken is tried again with a higher one.
const PUBLISH_TRIES: usize = 8;
/// How often the nodes of a migration are asked where they stand.
const DRIVE_EVERY: Duration = Duration::from_millis(250);
/// How long a phase waits for nodes that it could do without.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a look at the file or the store came to.
enum Looked {
    /// As before.
    Nothing,
    /// In order, whatever was wrong before.
    Settled,
}

/// See the module.
pub(crate) struct Publisher {
    options: CoordinatorOptions,
    files: Files,
    sender: watch::Sender<Arc<Document>>,
    shared: Shared,
    /// The text that was last taken or refused.
    taken: String,
    /// What the last look saw, where that differs from `taken`.
    seen: Option<String>,
    /// The last good file.
    file: Config,
    nodes: Nodes,
    /// The document that is being carried out, and since when.
    driving: Option<(u64, Instant)>,
}

impl Publisher {
    /// Publishes `config`, read as `text`, unless it is in force already.
    pub(crate) async fn start(
        options: CoordinatorOptions,
        files: Files,
        in_force: Option<Arc<Document>>,
        text: String,
        config: &Config,
    ) -> Result<Self, CoordinatorError> {
        let (document, is_new) = publish(&options, &files, in_force, config).await?;
        if !is_new {
            // It may have come from the store alone, or the disk alone: both shall have it.
            files.keep(&document).await?;
            if let Some(store) = &options.store {
                let number = document.published.epoch.number;
                // Exists is the usual case, and `first` has seen that it is the same.
                let _created: Created = store.create(number, document.bytes.clone()).await?;
            }
        }
        warn(config);
        let (sender, receiver) = watch::channel(document);
        let shared = Shared {
            id: options.id.as_str().into(),
            document: receiver,
            troubles: Arc::default(),
            progress: Arc::default(),
        };
        let nodes = Nodes::new(options.network.clone(), &options.id);
        let (file, driving) = (config.clone(), None);
        Ok(Self { options, files, sender, shared, taken: text, seen: None, file, nodes, driving })
    }

    /// What requests read.
    pub(crate) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Looks and follows for ever; at once when notified.
    pub(crate) async fn watch(&mut self, reload: &Notify) {
        // An interval of zero is a panic in tokio.
        let least = Duration::from_millis(1);
        let mut look = interval(self.options.watch_interval.max(least));
        let mut ask = interval(self.options.store_interval.max(least));
        let mut drive = interval(DRIVE_EVERY);
        drive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (source, result) = tokio::select! {
                _ = look.tick() => (Source::File, self.look(false).await),
                _ = ask.tick() => (Source::Store, self.follow().await),
                () = reload.notified() => (Source::File, self.look(true).await),
                _ = drive.tick(), if self.is_moving() => (Source::Migration, self.drive().await),
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
        let text = match self.files.config().await {
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
            match publish(&self.options, &self.files, Some(in_force), &config).await {
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
            warn(&config);
        }
        self.file = config;
        self.sender.send_replace(document);
        Ok(Looked::Settled)
    }

    fn numbering(&self) -> Numbering<'_> {
        Numbering { id: &self.options.id, shared: self.options.store.is_some() }
    }

    fn is_moving(&self) -> bool {
        self.sender.borrow().published.migration.is_some() || self.driving.is_some()
    }

    /// Takes the migration under way one step further, if the nodes are ready for it.
    async fn drive(&mut self) -> Result<Looked, CoordinatorError> {
        let in_force = self.sender.borrow().clone();
        let document = &in_force.published;
        // The master's affair; the file here may be an older one.
        if self.numbering().other_master(&document.config).is_some() {
            self.driving = None;
            return Ok(Looked::Nothing);
        }
        let number = document.epoch.number;
        let refused = |error| CoordinatorError::Config {
            path: self.options.config_path.clone(),
            source: Box::new(error),
        };
        let Some(order) = order(document, &self.file).map_err(refused)? else {
            self.driving = None;
            self.shared.progress.send_replace(None);
            return Ok(Looked::Settled);
        };
        let since = match self.driving {
            Some((driven, since)) if driven == number => since,
            _ => self.driving.insert((number, Instant::now())).1,
        };
        let standings = self.nodes.standings(document).await;
        let patient = since.elapsed() < PATIENCE;
        let (file, standings) = (&self.file, &standings);
        let next = next(&Moment { in_force: document, file, order, standings, patient });
        let progress = |waits_for: Vec<String>| {
            let goal = match order {
                Order::Hold => "hold",
                Order::Finish => "finish",
                Order::Abort => "abort",
            };
            self.shared.progress.send_replace(Some(Progress { number, goal, waits_for }));
        };
        match next {
            Next::Hold => progress(Vec::new()),
            Next::Wait(reasons) => progress(reasons),
            Next::Steps(steps) => {
                progress(vec![format!("a step of {} partitions", steps.len())]);
                self.nodes.steps(document, steps).await;
            }
            Next::Publish(config, migration) => {
                progress(Vec::new());
                self.publish_next(&in_force, *config, migration).await?;
            }
        }
        Ok(Looked::Settled)
    }

    /// Publishes what a migration comes to next; where somebody else gave out the number, that is
    /// followed.
    async fn publish_next(
        &mut self,
        in_force: &Arc<Document>,
        config: Config,
        migration: Option<Migration>,
    ) -> Result<(), CoordinatorError> {
        let number = in_force.published.epoch.number.saturating_add(1);
        let document =
            lay_out(&self.options, (config, migration), number, Some(in_force.clone())).await?;
        if let Some(store) = &self.options.store
            && store.create(number, document.bytes.clone()).await? == Created::Exists
        {
            self.follow().await?;
            return Ok(());
        }
        self.files.keep(&document).await?;
        let phase = document.published.migration.as_ref().map_or("ended", |it| it.phase.as_str());
        tracing::info!(epoch = %document.published.epoch, phase, "migration");
        self.sender.send_replace(document);
        Ok(())
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
        self.files.keep(&document).await?;
        tracing::info!(%epoch, "configuration of another coordinator followed");
        self.sender.send_replace(document);
        Ok(Looked::Settled)
    }
}

/// Publishes `config` if it differs from `in_force`; the flag says whether it did.
async fn publish(
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
async fn lay_out(
    options: &CoordinatorOptions,
    (config, migration): (Config, Option<Migration>),
    number: u64,
    before: Option<Arc<Document>>,
) -> Result<Arc<Document>, CoordinatorError> {
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

fn into_document(published: Published) -> Arc<Document> {
    let bytes = Bytes::from(published.encode());
    Arc::new(Document { published, bytes })
}

fn warn(config: &Config) {
    for warning in config.warnings() {
        tracing::warn!(warning, "configuration");
    }
}
