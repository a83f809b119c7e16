//! The configuration file on the coordinators' disks, as the operator changes it.
//!
//! Invariant: a file that was begun is finished, unless another one came in between; a bad one is
//! taken back. Not here: orders about migrations (`orders.rs`), what stands in files (`settings.rs`).

use std::{path::Path, time::Duration};

use tako_journal::replace_file;
use tako_types::config::Config;
use tokio::time::sleep;

use super::{Coordinators, FILE, FOLDER, Place, Wanted};
use crate::plan::{Half, NewFile};

/// Longest time between the files of two coordinators.
const FILES_APART_MAX: Duration = Duration::from_secs(5);

impl Coordinators {
    pub(super) fn allow(&self, wanted: &Wanted) {
        // Settings always make a valid file; one that does not would never be seen published.
        if let Ok(config) = Config::parse(&wanted.file(&self.0.scenario)) {
            self.0.epochs.allow(config.sha256());
        }
    }

    /// Puts another file on the disks, at each a little later; first a half of it, if so wanted. A
    /// bad one is taken back after a while.
    pub fn configure(&self, file: &NewFile, half: Option<Half>, lasts: Duration) {
        let inner = &self.0;
        let (change, bytes) = {
            let mut wanted = inner.wanted.lock();
            wanted.change += 1;
            let bytes = match file {
                NewFile::Good(settings) => {
                    wanted.settings = settings.clone();
                    self.allow(&wanted);
                    wanted.file(&inner.scenario).into_bytes()
                }
                NewFile::Bad(bad) => bad.file(&inner.scenario, &wanted.settings, &wanted.stand),
            };
            (wanted.change, bytes)
        };
        inner.around.counts.add(match file {
            NewFile::Good(_) => "configuration changed",
            NewFile::Bad(_) => "bad configuration",
        });
        if matches!(file, NewFile::Bad(_)) {
            self.later(lasts, move |all| {
                if all.0.wanted.lock().change == change {
                    all.put_back();
                }
            });
        }
        self.spread(change, &bytes, half);
    }

    /// Puts a file on the disks, at each a little later.
    pub(super) fn spread(&self, change: u64, bytes: &[u8], half: Option<Half>) {
        let inner = &self.0;
        for n in 0..inner.scenario.coordinators {
            let apart = match n {
                0 => Duration::ZERO,
                _ => inner.chance.lock().time(Duration::ZERO, FILES_APART_MAX),
            };
            let (all, bytes) = (self.clone(), bytes.to_vec());
            inner.around.tasks.spawn(async move {
                sleep(apart).await;
                let Some(Half { share, lasts }) = half else {
                    return all.put_file(n, change, &bytes);
                };
                let most = bytes.len().saturating_sub(1);
                let length = (bytes.len() as f64 * share) as usize;
                let part = &bytes[..length.min(most)];
                all.put_file(n, change, part);
                sleep(lasts).await;
                // Who began goes on to the end, unless another file came in between.
                let mut places = all.0.places.lock();
                if places[n].file == part {
                    all.0.around.counts.add("half a configuration");
                    places[n].file = bytes;
                    places[n].put_file();
                }
            });
        }
    }

    /// The operator writes a file, unless there was another change since.
    fn put_file(&self, n: usize, change: u64, bytes: &[u8]) {
        if self.0.wanted.lock().change == change {
            let mut places = self.0.places.lock();
            places[n].file = bytes.to_vec();
            places[n].put_file();
        }
    }

    /// The last good file, everywhere.
    pub(super) fn put_back(&self) {
        let (change, file) = {
            let mut wanted = self.0.wanted.lock();
            wanted.change += 1;
            (wanted.change, wanted.file(&self.0.scenario))
        };
        for n in 0..self.0.scenario.coordinators {
            self.put_file(n, change, file.as_bytes());
        }
    }
}

impl Place {
    pub(super) fn put_file(&self) {
        // A disk whose process has just died takes nothing: the next one gets the file.
        let _ = replace_file(&self.disk, Path::new(FOLDER), FILE, &self.file);
    }
}
