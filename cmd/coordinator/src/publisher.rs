//! Reads the file, publishes what it says, follows what others published, carries out migrations.
//!
//! Invariants: a document is in the store (if there is one), then on the disk, then served. The
//! file is taken only when two looks in a row saw the same bytes, so a half-written one is not;
//! who is told to look (`reload`, the operator's signals) takes it at once. A file that may not follow
//! what is in force changes nothing, and is looked at again when something else is. What comes over
//! HTTP (`ordered.rs`) takes the file's place, and then goes the same way.

use std::{sync::Arc, time::Duration};

use tako_types::config::{Config, Migration, Published};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    CoordinatorError, CoordinatorOptions, Created,
    decide::{Numbering, decide},
    files::Files,
    http::{Document, Progress, Shared, Source},
    migration::{
        order::order,
        phases::{Moment, Next, next},
        standings::Nodes,
    },
    ordered::{Ordered, Refusal, WAITING_MAX},
    publish::{into_document, lay_out, parse, publish, warn},
};

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

/// Why an order is not carried out.
enum Refused {
    /// Nothing was changed.
    Before(Refusal),
    /// The file is there, and will be taken when this is over.
    After(CoordinatorError),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Before(refusal)
    }
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
    /// The number in force when `taken` was refused; it may be allowed to follow another one.
    refused_at: Option<u64>,
    /// The last good file.
    file: Config,
    nodes: Nodes,
    /// Files that come over HTTP.
    orders: mpsc::Receiver<Ordered>,
}

impl Publisher {
    /// Publishes `config`, read as `text`, unless it is in force already. Where it may not follow what
    /// is in force, that is served: an order that came too late must not keep a coordinator down.
    pub(crate) async fn start(
        options: CoordinatorOptions,
        files: Files,
        in_force: Option<Arc<Document>>,
        text: String,
        config: &Config,
    ) -> Result<Self, CoordinatorError> {
        let (mut file, mut refused) = (config.clone(), None);
        let published = publish(&options, &files, in_force.clone(), config).await;
        let (document, is_new) = match (published, in_force) {
            (Err(error), Some(in_force)) if error.is_refusal() => {
                // Goes on as far as the document says.
                file = (*in_force.published.config).clone();
                refused = Some(error.to_string());
                (in_force, false)
            }
            (published, _) => published?,
        };
        if !is_new {
            // It may have come from the store alone, or the disk alone: both shall have it.
            files.keep(&document).await?;
            if let Some(store) = &options.store {
                let number = document.published.epoch.number;
                // Exists is the usual case, and `first` has seen that it is the same.
                let _created: Created = store.create(number, document.bytes.clone()).await?;
            }
        }
        match &refused {
            None => warn(config),
            Some(trouble) => tracing::error!(trouble, "the configuration in force stays"),
        }
        let refused_at = refused.as_ref().map(|_| document.published.epoch.number);
        let (sender, receiver) = watch::channel(document);
        let (order, orders) = mpsc::channel(WAITING_MAX);
        let shared = Shared {
            id: options.id.as_str().into(),
            document: receiver,
            troubles: Arc::default(),
            progress: Arc::default(),
            orders: order,
        };
        let _is_news = shared.note(Source::File, refused);
        let nodes = Nodes::new(options.network.clone(), &options.id);
        let (taken, seen) = (text, None);
        Ok(Self { options, files, sender, shared, taken, seen, refused_at, file, nodes, orders })
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
                Some(ordered) = self.orders.recv() => {
                    (Source::File, self.answer(ordered).await)
                }
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
        let number = self.sender.borrow().published.epoch.number;
        // Refused while another document was in force.
        let is_open = text == self.taken && self.refused_at.is_some_and(|at| at != number);
        if !at_once && !is_open {
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
        self.refused_at = None;
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
                    self.refused_at = error.is_refusal().then_some(number);
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

    /// Carries out what came over HTTP and says what became of it.
    async fn answer(&mut self, ordered: Ordered) -> Result<Looked, CoordinatorError> {
        let Ordered { text, unless_changed, reply } = ordered;
        let (answer, looked) = match self.order(text, unless_changed.as_deref()).await {
            Ok(()) => (Ok(self.sender.borrow().clone()), Ok(Looked::Settled)),
            Err(Refused::Before(refusal)) => (Err(refusal), Ok(Looked::Nothing)),
            Err(Refused::After(error)) => (Err(Refusal::later(&error)), Err(error)),
        };
        // Who asked may have gone.
        let _ = reply.send(answer);
        looked
    }

    /// Puts `text` in the place of the file, if it may follow what is in force, and takes it.
    async fn order(&mut self, text: String, unless: Option<&str>) -> Result<(), Refused> {
        let before = |error: CoordinatorError| Refused::Before(Refusal::of(&error));
        // Errors are to name the lines of what came.
        let config = Config::parse(&text).map_err(|error| Refusal::Text(error.to_string()))?;
        self.follow().await.map_err(before)?;
        let in_force = self.sender.borrow().clone();
        if unless.is_some_and(|known| !in_force.is_one_of(known)) {
            return Err(Refusal::Changed(in_force).into());
        }
        self.check_is_ours(&in_force.published, &config).map_err(before)?;
        let path = &self.options.config_path;
        decide(Some(&in_force.published), &config, path, self.numbering()).map_err(before)?;
        let former = self.files.replace_config(text).await.map_err(before)?;
        let taken = self.look(true).await.map(|_| ());
        // Another coordinator was faster. What was refused must not be taken later.
        if let (Err(error), Some(former)) = (&taken, former)
            && error.is_refusal()
        {
            self.files.put_back_config(former).await.map_err(Refused::After)?;
        }
        taken.map_err(Refused::After)
    }

    /// What a migration is to do next changes no document by itself, so it would lie in a file that
    /// only the master acts on.
    fn check_is_ours(&self, in_force: &Published, file: &Config) -> Result<(), CoordinatorError> {
        let number = in_force.epoch.number;
        let takes_over = file.epoch.is_some_and(|claimed| number < claimed);
        match self.numbering().other_master(&in_force.config) {
            Some(master) if in_force.migration.is_some() && !takes_over => {
                Err(CoordinatorError::NotMaster { master: master.to_owned(), in_force: number })
            }
            _ => Ok(()),
        }
    }

    fn numbering(&self) -> Numbering<'_> {
        Numbering { id: &self.options.id, shared: self.options.store.is_some() }
    }

    fn is_moving(&self) -> bool {
        let in_force = self.sender.borrow();
        in_force.published.migration.is_some() || self.shared.progress.borrow().is_some()
    }

    /// Takes the migration under way one step further, if the nodes are ready for it.
    async fn drive(&mut self) -> Result<Looked, CoordinatorError> {
        let in_force = self.sender.borrow().clone();
        let document = &in_force.published;
        // The master's affair; the file here may be an older one.
        if self.numbering().other_master(&document.config).is_some() {
            self.shared.progress.send_replace(None);
            return Ok(Looked::Nothing);
        }
        let number = document.epoch.number;
        let refused = |error| CoordinatorError::Config {
            path: self.options.config_path.clone(),
            source: Box::new(error),
        };
        let Some(order) = order(document, &self.file).map_err(refused)? else {
            self.shared.progress.send_replace(None);
            return Ok(Looked::Settled);
        };
        let since = match &*self.shared.progress.borrow() {
            Some(progress) if progress.number == number => progress.since,
            _ => Instant::now(),
        };
        let standings = self.nodes.standings(document).await;
        let patient = since.elapsed() < PATIENCE;
        let (file, standings) = (&self.file, &standings);
        let next = next(&Moment { in_force: document, file, order, standings, patient });
        let progress = |waits_for: Vec<String>| {
            let (goal, gives_up) = (order.as_str(), file.accept_loss.clone());
            let progress = Progress { number, since, goal, waits_for, gives_up };
            self.shared.progress.send_replace(Some(progress));
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
