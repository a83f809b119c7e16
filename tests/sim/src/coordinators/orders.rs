//! The operator of a cluster that moves: writes orders, mends what came too late, and brings the
//! last one to its end.
//!
//! An order is chosen by what is published when it is written. Until a coordinator looks at it the
//! migration may have gone on, and the file is refused then, or is taken later when it may follow
//! again: what never may the operator puts right.

use std::time::Duration;

use super::Coordinators;
use crate::{
    operator::{Stand, Wish},
    plan::Half,
    settings::Settings,
};

impl Coordinators {
    /// Writes what `wish` comes to now, with other settings at the same time if so wanted; after
    /// `lasts` it is looked at whether it can still be taken.
    pub fn order(
        &self,
        wish: Wish,
        settings: Option<Settings>,
        half: Option<Half>,
        lasts: Duration,
    ) {
        let all = self.clone();
        self.0.around.tasks.spawn(async move {
            let Ok(Some(newest)) = all.newest().await else { return };
            let stand = wish.stand(&all.0.scenario, &newest);
            all.0.around.counts.add(wish.kind());
            all.0.around.lines.say(|| format!("the operator wants {stand:?} at {}", newest.epoch));
            all.0.epochs.ordered(newest.epoch.number, &stand);
            let (change, bytes) = {
                let mut wanted = all.0.wanted.lock();
                wanted.change += 1;
                wanted.stand = stand;
                if let Some(settings) = settings {
                    wanted.settings = settings;
                }
                all.allow(&wanted);
                (wanted.change, wanted.file(&all.0.scenario))
            };
            all.spread(change, &bytes.into_bytes(), half);
            all.later(lasts, |all| {
                let all = all.clone();
                all.clone().0.around.tasks.spawn(async move { all.mend().await });
            });
        });
    }

    /// Writes another order where the last one cannot be taken any more.
    async fn mend(&self) {
        let Ok(Some(newest)) = self.newest().await else { return };
        if !self.0.wanted.lock().stand.may_follow(&newest) {
            self.write(newest.epoch.number, Stand::alone(&newest.config.active));
        }
    }

    /// Writes what brings the last order to an end, unless it does so by itself. Call it again and
    /// again: some orders have to be taken first.
    pub async fn bring_to_end(&self) {
        if self.0.scenario.moves.is_none() {
            return;
        }
        let Ok(Some(newest)) = self.newest().await else { return };
        let next = self.0.wanted.lock().stand.to_end(&newest, self.0.finish_at_end);
        if let Some(stand) = next {
            self.write(newest.epoch.number, stand);
        }
    }

    /// At once, everywhere.
    fn write(&self, newest: u64, stand: Stand) {
        self.0.around.counts.add("order: mended or ended");
        self.0.around.lines.say(|| format!("the operator puts right: {stand:?}"));
        self.0.epochs.ordered(newest, &stand);
        {
            let mut wanted = self.0.wanted.lock();
            wanted.stand = stand;
            self.allow(&wanted);
        }
        self.put_back();
    }
}
