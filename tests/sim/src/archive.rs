//! Backups of the simulated cluster: an operator makes them while everything goes on.
//!
//! ```text
//! plan ─► make: document ─► steps forced ─► Backups::create ─► what was told, and when
//!                 └ the operator's process ends, tries again, deletes ┘      │
//! coordinators, by the rule in the file ─────────────────────────────► store ─► judged (judge.rs)
//! ```
//! What is called here is what `tako ctl snapshot` calls. Each operator is a host of its own, which
//! has the store's faults but no partitions. Invariant: one name is worked on by one process at a
//! time, as the contract of backups wants it.

mod judge;
mod restored;

use std::{ops::Range, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tako_checkers::History;
use tako_coordinator::{Nodes, RECORDS, step_all};
use tako_snapshot::{
    Store,
    backup::{About, Backup, BackupError, BackupName, Backups},
};
use tako_types::{Clock, PartitionId, config::Published};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    chance::Chance, coordinators::Surroundings, load::KeyUse, plan::Wanted, scenario::Scenario,
};

/// What an operator waits before the next try.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
/// Longest time that one try may take: every call to nodes and store has a deadline.
const TRY_MAX: Duration = Duration::from_secs(600);

/// What is known of a backup that an operator made, or wanted to.
#[derive(Debug, Clone)]
struct Told {
    name: String,
    outcome: Outcome,
}

#[derive(Debug, Clone)]
enum Outcome {
    /// It is there.
    Made(Made),
    /// It is there or not.
    Unknown,
    /// It is not.
    Deleted,
}

/// A backup that was made.
#[derive(Debug, Clone)]
struct Made {
    /// Before the nodes were asked for steps, in microseconds since the world began.
    asked_at: u64,
    /// When it was there.
    returned_at: u64,
    /// What may lack in it.
    not_stepped: Vec<PartitionId>,
}

#[derive(Default)]
struct State {
    running: usize,
    told: Vec<Told>,
    wrong: Vec<String>,
}

struct Inner {
    around: Surroundings,
    began: Instant,
    state: Mutex<State>,
}

/// See the module; clones are the same.
#[derive(Clone)]
pub struct Archive(Arc<Inner>);

/// What the end of a run has to be judged by.
pub struct Evidence<'a> {
    /// Of the run.
    pub scenario: &'a Scenario,
    /// What clients were told.
    pub history: &'a History,
    /// What they asked for.
    pub keys: &'a [KeyUse],
    /// When a rotten record was in the store: backups of that time have it as well.
    pub rotten: Option<Range<u64>>,
    /// How far clocks may have been off.
    pub clock_slack_micros: u64,
}

impl Archive {
    /// No backups yet, in a world that began then.
    #[must_use]
    pub fn new(around: Surroundings, began: Instant) -> Self {
        Self(Arc::new(Inner { around, began, state: Mutex::default() }))
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.0.around.store.clock()
    }

    /// An operator begins to make a backup.
    pub fn make(&self, wanted: Wanted) {
        self.0.around.counts.add("backup begun");
        self.0.state.lock().running += 1;
        let archive = self.clone();
        self.0.around.tasks.spawn(async move {
            archive.carry_out(wanted).await;
            archive.0.state.lock().running -= 1;
        });
    }

    /// Waits until no operator is at it any more.
    ///
    /// # Errors
    /// Somebody is, for longer than any deadline explains.
    pub async fn ended(&self) -> Result<(), String> {
        let until = Instant::now() + 4 * TRY_MAX;
        while 0 < self.0.state.lock().running {
            if until < Instant::now() {
                return Err("an operator is at a backup without an end".to_owned());
            }
            sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    }

    async fn carry_out(&self, wanted: Wanted) {
        let name = format!("by-hand-{}", wanted.number);
        let mut outcome = Outcome::Unknown;
        for life in 1..=1 + wanted.again as u64 {
            let dies = wanted.dies_after.filter(|_| life == 1).unwrap_or(TRY_MAX);
            let asked_at = self.micros();
            let trying = timeout(dies, self.create(&name, wanted.number, life));
            match trying.await {
                Ok(Ok(made)) => {
                    self.count("backup made");
                    let (returned_at, not_stepped) = (self.micros(), made.not_stepped);
                    if !not_stepped.is_empty() {
                        self.count("backup without all steps");
                    }
                    outcome = Outcome::Made(Made { asked_at, returned_at, not_stepped });
                }
                Ok(Err(why)) => {
                    self.count("backup failed");
                    self.0.around.lines.say(|| format!("no backup {name}, try {life}: {why}"));
                }
                Err(_) if dies == TRY_MAX => {
                    let wrong = format!("a try of backup {name} lasts longer than {TRY_MAX:?}");
                    self.0.state.lock().wrong.push(wrong);
                }
                Err(_) => self.count("backup cut short"),
            }
            // Its process ends, with all that it left to be done.
            self.end(wanted.number, life);
            if matches!(outcome, Outcome::Made(_)) {
                break;
            }
            sleep(AGAIN_AFTER).await;
        }
        if let (Outcome::Made(_), Some(after)) = (&outcome, wanted.delete_after) {
            sleep(after).await;
            let life = 100;
            outcome = match timeout(TRY_MAX, self.delete(&name, wanted.number, life)).await {
                Ok(Ok(_)) => {
                    self.count("backup deleted");
                    Outcome::Deleted
                }
                _ => Outcome::Unknown,
            };
            self.end(wanted.number, life);
        }
        self.0.around.lines.say(|| format!("backup {name}: {outcome:?}"));
        self.0.state.lock().told.push(Told { name, outcome });
    }

    fn count(&self, what: &'static str) {
        self.0.around.counts.add(what);
    }

    fn end(&self, number: usize, life: u64) {
        let host = host(number);
        self.0.around.network.crash(&host);
        self.0.around.store.crash(&host, life);
    }

    /// As `tako ctl snapshot create` does it.
    async fn create(&self, name: &str, number: usize, life: u64) -> Result<Backup, String> {
        let (store, host) = (self.0.around.store.view(&host(number), life), host(number));
        let network = self.0.around.network.as_host(&host, life);
        let document = newest(&store).await?;
        let document = document.ok_or("nothing is published")?;
        let opened = self.open(store, document.partitions_log2());
        let backups = opened.await.map_err(|error| error.to_string())?;
        let not_stepped = step_all(&Nodes::new(Arc::new(network), &host), &document).await;
        let about = About { configuration: Some(document.encode().into()), not_stepped };
        let made = match BackupName::new(name) {
            Ok(name) => backups.create(&name, about, &|_| {}).await,
            Err(error) => Err(error),
        };
        backups.close().await;
        made.map_err(|error| error.to_string())
    }

    async fn delete(&self, name: &str, number: usize, life: u64) -> Result<bool, String> {
        let store = self.0.around.store.view(&host(number), life);
        let document = newest(&store).await?.ok_or("nothing is published")?;
        let delete = async {
            let backups = self.open(store, document.partitions_log2()).await?;
            let deleted = backups.delete(&BackupName::new(name)?).await;
            backups.close().await;
            deleted
        };
        delete.await.map_err(|error: BackupError| error.to_string())
    }

    async fn open(&self, store: Store, partitions_log2: u32) -> Result<Backups, BackupError> {
        Backups::open(store, partitions_log2, self.clock(), RECORDS).await
    }

    /// Looks at every backup there is, restores one, and compares with what clients were told.
    /// Nothing else may run any more: garbage is collected as hours later.
    ///
    /// # Errors
    /// What cannot be looked at at all.
    pub async fn judge(
        &self,
        evidence: &Evidence<'_>,
        chance: &Chance,
    ) -> Result<(Vec<(&'static str, usize)>, Vec<String>), String> {
        judge::judge(self, evidence, chance).await
    }
}

/// The host of an operator.
fn host(number: usize) -> String {
    format!("o{number}")
}

/// The newest document in the store.
async fn newest(store: &Store) -> Result<Option<Published>, String> {
    let latest = store.latest_config().await.map_err(|error| error.to_string())?;
    let decoded = latest.map(|(_, bytes)| Published::decode(&bytes));
    decoded.transpose().map_err(|error| format!("a published document: {error}"))
}
