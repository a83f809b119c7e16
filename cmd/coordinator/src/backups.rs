//! Backups by the configuration's rules: made when they are due, and pruned.
//!
//! Invariants: when a rule's next backup is due follows from the names of those in the store, so a
//! restart neither repeats nor skips one; only backups made by a rule, as their names say, are
//! pruned by it, and only after a newer one was made. One coordinator does it: the master, else the
//! first by id. What fails is tried again and stands in `/status`. How a backup is made is the
//! [`BackupStore`]'s affair.

mod records;
mod scheduled;
mod steps;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use tako_types::{
    Clock,
    config::{BackupRule, Config, Published, format_duration},
};
use tokio::time::{MissedTickBehavior, interval};

pub use self::{records::RECORDS, scheduled::ScheduledBackups, steps::step_all};
use crate::{
    StoreError,
    http::{Shared, Source},
};

/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Pause after a failure.
const AGAIN_AFTER_MICROS: u64 = 15_000_000;

/// Where backups are made; see the module.
#[async_trait]
pub trait BackupStore: Send + Sync {
    /// The names of all backups.
    async fn names(&self) -> Result<Vec<String>, StoreError>;
    /// Makes one of the newest steps, while this document is in force. One of that name may be there
    /// already: then it is done.
    async fn create(&self, name: &str, document: &Published) -> Result<(), StoreError>;
    /// Deletes one, if it is there.
    async fn delete(&self, name: &str, document: &Published) -> Result<(), StoreError>;
}

/// What makes backups by rules, and the time that it goes by.
#[derive(Clone)]
pub struct Schedule {
    /// Where.
    pub store: Arc<dyn BackupStore>,
    /// When.
    pub clock: Arc<dyn Clock>,
}

/// Makes backups for ever.
pub(crate) async fn run(schedule: Option<Schedule>, shared: Shared) {
    let Some(Schedule { store, clock }) = schedule else {
        return std::future::pending().await;
    };
    let mut keeper = Keeper { store, clock, due: BTreeMap::new() };
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let document = shared.document.borrow().clone();
        let trouble = keeper.look(&shared.id, &document.published).await.err();
        let trouble = trouble.map(|error| format!("backup: {error}"));
        if shared.note(Source::Backups, trouble.clone())
            && let Some(trouble) = trouble
        {
            tracing::error!(trouble, "no backup was made; it is tried again");
        }
    }
}

/// See the module.
struct Keeper {
    store: Arc<dyn BackupStore>,
    clock: Arc<dyn Clock>,
    /// When each rule is to be looked at next; microseconds since the Unix epoch.
    due: BTreeMap<Duration, u64>,
}

impl Keeper {
    /// Does what is due by now; the first failure of several.
    async fn look(&mut self, id: &str, document: &Published) -> Result<(), StoreError> {
        let rules = match is_ours(id, &document.config) {
            true => document.config.cluster.backups.as_slice(),
            false => &[],
        };
        self.due.retain(|every, _| rules.iter().any(|rule| rule.every == *every));
        let mut first = Ok(());
        for rule in rules {
            let now = self.clock.now_micros();
            if self.due.get(&rule.every).is_some_and(|due| now < *due) {
                continue;
            }
            let outcome = self.carry_out(*rule, now, document).await;
            let next = *outcome.as_ref().unwrap_or(&(now + AGAIN_AFTER_MICROS));
            self.due.insert(rule.every, next);
            first = first.and(outcome.map(drop));
        }
        first
    }

    /// Makes the backup of a rule, if it is due; when the next one is.
    async fn carry_out(
        &self,
        rule: BackupRule,
        now: u64,
        document: &Published,
    ) -> Result<u64, StoreError> {
        let every = u64::try_from(rule.every.as_micros()).unwrap_or(u64::MAX);
        let names = self.store.names().await?;
        let mut made: Vec<(u64, String)> = names
            .into_iter()
            .filter_map(|name| Some((made_at(rule.every, &name)?, name)))
            .collect();
        made.sort();
        // One of the future is not waited for.
        let newest = made.iter().rev().map(|(at, _)| *at).find(|at| *at <= now);
        if let Some(due) = newest.map(|at| at.saturating_add(every))
            && now < due
        {
            return Ok(due);
        }
        let name = name_of(rule.every, now);
        self.store.create(&name, document).await?;
        tracing::info!(name, "backup made");
        made.push((now, name));
        // One of the future is of a clock that was wrong: it takes nobody's place.
        made.retain(|(at, _)| *at <= now);
        made.sort();
        let surplus = made.len().saturating_sub(rule.keep as usize);
        for (_, old) in &made[..surplus] {
            self.store.delete(old, document).await?;
            tracing::info!(name = old, "backup deleted: newer ones are kept");
        }
        Ok(now.saturating_add(every))
    }
}

/// Whether this coordinator makes the backups.
fn is_ours(id: &str, config: &Config) -> bool {
    config.master().is_none_or(|master| master == id)
}

/// The name of a rule's backup: `1h-20261121t170000z`.
fn name_of(every: Duration, at_micros: u64) -> String {
    format!("{}-{}", format_duration(every), tako_snapshot::backup::utc(at_micros))
}

/// When a backup was made, if a rule made it.
fn made_at(every: Duration, name: &str) -> Option<u64> {
    let time = name.strip_prefix(&format_duration(every))?.strip_prefix('-')?;
    tako_snapshot::backup::from_utc(time)
}

#[cfg(test)]
mod tests;
