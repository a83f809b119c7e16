//! Reads the file, publishes what it says, follows what others published, carries out migrations.
//!
//! Invariants: a document is in the store (if there is one), then on the disk, then served. The
//! file is taken only when two looks in a row saw the same bytes, so a half-written one is not;
//! who is told to look (`reload`, the operator's signals) takes it at once. A file that may not follow
//! what is in force changes nothing, and is looked at again when something else is. What comes over
//! HTTP (`ordered.rs`) takes the file's place, and then goes the same way.
//!
//! A text is judged once for what it changes. When another coordinator has had its way since
//! (`mandate.rs`) it changes nothing any more, whoever becomes master and however often this one
//! starts: what is in force goes on. A migration then comes to `write-both`, stays in `write-both` and
//! `read-new`, is neither finished nor given up, and ends by itself where a deployment is being left.
//! That holds until the text changes or an order comes over HTTP. A change that was refused because
//! another coordinator is master is no exception: it is not taken when mastery comes.

use std::{sync::Arc, time::Duration};

use tako_types::config::{Config, Migration, Published};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    CoordinatorError, CoordinatorOptions, Created,
    decide::{Decision, Numbering, decide},
    files::Files,
    http::{Document, Progress, Shared, Source},
    mandate::Mandate,
    migration::{
        order::order,
        phases::{Moment, Next, next},
        standings::Nodes,
    },
    ordered::{MARK, Ordered, Refusal, WAITING_MAX},
    publish::{Found, Only, Wanted, into_document, lay_out, parse, publish, warn},
};

/// How often the nodes of a migration are asked where they stand.
const DRIVE_EVERY: Duration = Duration::from_millis(250);
/// How long a phase waits for nodes that it could do without.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long steps are waited for: orders wait meanwhile, and a command gives one 40 s. The next look
/// asks again; a node goes on with a step that nobody waits for.
const STEPS_MAX: Duration = Duration::from_secs(10);

/// What a look at the file or the store came to.
enum Looked {
    /// As before.
    Nothing,
    /// In order, whatever was wrong before.
    Settled,
}

/// When a file that did not change is looked at again.
#[derive(Clone, Copy)]
enum Again {
    /// Not at all.
    No,
    /// When another number than this is in force: it was refused, and may be allowed to follow then.
    After(u64),
    /// At once: something was away.
    Soon,
}

/// Where a text comes from.
enum Origin<'a> {
    /// It is in the file.
    File,
    /// An order put it there, maybe for certain documents.
    Order(Option<&'a str>),
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
    /// The text that was judged last, and whether it still counts.
    mandate: Mandate,
    /// What the last look saw, where that was not judged yet.
    seen: Option<String>,
    again: Again,
    /// What is to be in force: the last good file, or what another coordinator published since.
    file: Config,
    nodes: Nodes,
    /// Files that come over HTTP.
    orders: mpsc::Receiver<Ordered>,
}

impl Publisher {
    /// Publishes `config`, read as `text`, unless it is in force already. Where it may not follow what
    /// is in force, or is older, that is served: an order that came too late must not keep a
    /// coordinator down.
    pub(crate) async fn start(
        options: CoordinatorOptions,
        files: Files,
        found: &Found,
        text: &str,
        config: &Config,
    ) -> Result<Self, CoordinatorError> {
        let in_force = found.newest.clone();
        let (mut mandate, only) = mandate_at_start(&options, &files, found, text).await?;
        let (mut file, mut refused) = (config.clone(), None);
        let published = match &in_force {
            Some(document) if mandate.is_over() => {
                let document = Arc::clone(document);
                review(&options, &document, config).map(|()| (document, false))
            }
            _ => {
                let wanted = Wanted { config, only };
                publish(&options, &files, &mut mandate, in_force.clone(), wanted).await
            }
        };
        let (document, is_new) = match (published, in_force) {
            (Err(error), Some(in_force)) if error.is_refusal() => {
                refused = Some(error.to_string());
                (in_force, false)
            }
            (published, _) => published?,
        };
        if refused.is_some() || mandate.is_over() {
            // Goes on as far as the document says.
            file = (*document.published.config).clone();
        }
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
        let number = document.published.epoch.number;
        let again = if refused.is_some() { Again::After(number) } else { Again::No };
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
        let seen = None;
        Ok(Self { options, files, sender, shared, mandate, seen, again, file, nodes, orders })
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
                _ = drive.tick(), if self.is_moving() => {
                    let driven = self.drive().await;
                    // One that took long is not followed by the next before an order that waits.
                    drive.reset();
                    (Source::Migration, driven)
                }
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
                self.again = Again::Soon;
                return Err(error);
            }
        };
        let is_known = self.mandate.is_for(&text);
        let is_open = match self.again {
            Again::No => false,
            Again::After(number) => number != self.sender.borrow().published.epoch.number,
            Again::Soon => true,
        };
        let is_at_rest = if is_known { is_open } else { self.seen.as_ref() == Some(&text) };
        if !at_once && !is_at_rest {
            self.seen = (!is_known).then_some(text);
            return Ok(Looked::Nothing);
        }
        self.judge(&text, Origin::File).await
    }

    /// Publishes what a text asks for, if that still counts and may follow what is in force.
    async fn judge(&mut self, text: &str, from: Origin<'_>) -> Result<Looked, CoordinatorError> {
        self.seen = None;
        let only = match from {
            Origin::File if self.mandate.is_for(text) => Only::Own,
            Origin::File | Origin::Order(None) => Only::Any,
            Origin::Order(Some(known)) => Only::OneOf(known),
        };
        if !matches!(only, Only::Own) {
            let mut mandate = self.mandate.renewed(text);
            if matches!(from, Origin::Order(_)) {
                mandate = mandate.in_place_of(&self.mandate);
            }
            if self.options.store.is_some() {
                self.files.keep_mandate(&mandate).await?;
            }
            self.mandate = mandate;
        }
        self.again = Again::No;
        let config = parse(&self.options.config_path, text)?;
        let in_force = self.sender.borrow().clone();
        let number = in_force.published.epoch.number;
        if self.mandate.is_over() {
            let reviewed = review(&self.options, &in_force, &config);
            self.again = Again::After(number);
            return reviewed.map(|()| Looked::Settled);
        }
        let wanted = Wanted { config: &config, only };
        let (options, files) = (&self.options, &self.files);
        let published = publish(options, files, &mut self.mandate, Some(in_force), wanted).await;
        let (document, is_new) = match published {
            Ok(published) => published,
            Err(error) => {
                if error.is_refusal() {
                    self.again = Again::After(number);
                } else if error.kind().retry() {
                    // A store or disk that is away may come back: the next looks try again. What was
                    // tried may be in force by then, and goes on as it was meant.
                    self.again = Again::Soon;
                    self.file = config;
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
        self.settle().await;
        Ok(Looked::Settled)
    }

    /// The file that an order replaced does not come back.
    async fn settle(&mut self) {
        let Some(settled) = self.mandate.settled() else { return };
        let kept = match &self.options.store {
            Some(_) => self.files.keep_mandate(&settled).await,
            None => Ok(()),
        };
        match kept {
            Ok(()) => self.mandate = settled,
            // The order is carried out; the next that is judged tries this again.
            Err(error) => tracing::warn!(%error, "cannot note that an order was carried out"),
        }
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
        unless.map_or(Only::Any, Only::OneOf).check(&in_force).map_err(before)?;
        self.check_is_ours(&in_force.published, &config).map_err(before)?;
        let path = &self.options.config_path;
        decide(Some(&in_force.published), &config, path, self.numbering()).map_err(before)?;
        let text = format!("{MARK}{text}");
        let former = self.files.replace_config(text.clone()).await.map_err(before)?;
        let (mandate, again) = (self.mandate.clone(), self.again);
        let Err(error) = self.judge(&text, Origin::Order(unless)).await else { return Ok(()) };
        // Another coordinator was faster. What was refused must not be taken later, and what was
        // there before counts as it did.
        if let Some(former) = former.filter(|_| error.is_refusal()) {
            self.files.put_back_config(former).await.map_err(Refused::After)?;
            self.files.keep_mandate(&mandate).await.map_err(Refused::After)?;
            (self.mandate, self.again) = (mandate, again);
            return Err(before(error));
        }
        Err(Refused::After(error))
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
        // The master's affair.
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
                // What was not done in time is asked for again.
                let _in_time = timeout(STEPS_MAX, self.nodes.steps(document, steps)).await;
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
        let known = self.sender.borrow().clone();
        let both = (&known.published, &document.published);
        let is_own = self.mandate.reaches(store.as_ref(), self.numbering(), both).await?;
        if !is_own && !self.mandate.is_over() {
            // Before the document is kept, by which a start sees what it did not know.
            let ended = self.mandate.ended();
            self.files.keep_mandate(&ended).await?;
            self.mandate = ended;
        }
        self.files.keep(&document).await?;
        tracing::info!(%epoch, "configuration of another coordinator followed");
        if !is_own {
            self.file = (*document.published.config).clone();
            // A master is to say that its file is not what it goes by; others say so if they did.
            let is_master = self.numbering().other_master(&self.file).is_none();
            if is_master || !matches!(self.again, Again::No) {
                self.again = Again::After(in_force.number);
            }
        }
        self.sender.send_replace(document);
        Ok(Looked::Settled)
    }
}

/// Whether the file counts at the start, and what it may follow.
async fn mandate_at_start(
    options: &CoordinatorOptions,
    files: &Files,
    found: &Found,
    text: &str,
) -> Result<(Mandate, Only<'static>), CoordinatorError> {
    let Some(store) = &options.store else { return Ok((Mandate::of(text), Only::Any)) };
    let Some(mandate) = files.mandate().await?.and_then(|kept| kept.of_either(text)) else {
        // Written while nobody looked, or the disk is a new one.
        let mandate = Mandate::of(text);
        files.keep_mandate(&mandate).await?;
        return Ok((mandate, Only::Any));
    };
    if let (Some(kept), Some(newest)) = (&found.kept, &found.newest) {
        let numbering = Numbering { id: &options.id, shared: true };
        let both = (&kept.published, &newest.published);
        // Each own document is kept before the next one: with more of them the disk is an older one.
        let is_rolled_back =
            kept.published.epoch.number.saturating_add(1) < newest.published.epoch.number;
        if !mandate.is_over()
            && (is_rolled_back || !mandate.reaches(store.as_ref(), numbering, both).await?)
        {
            let ended = mandate.ended();
            files.keep_mandate(&ended).await?;
            return Ok((ended, Only::Own));
        }
    }
    Ok((mandate, Only::Own))
}

/// What stands against a file that does not count any more, if it says something else than what is
/// in force.
fn review(
    options: &CoordinatorOptions,
    in_force: &Document,
    file: &Config,
) -> Result<(), CoordinatorError> {
    let published = &in_force.published;
    let numbering = Numbering { id: &options.id, shared: options.store.is_some() };
    let is_master = numbering.other_master(&published.config).is_none();
    let is_same = published.config.sha256() == file.sha256();
    match decide(Some(published), file, &options.config_path, numbering)? {
        Decision::Keep if is_same || !is_master => Ok(()),
        _ => Err(CoordinatorError::Superseded { in_force: published.epoch.number }),
    }
}
