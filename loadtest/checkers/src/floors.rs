//! What a request must not be older than: the versions that earlier requests made sure of.
//!
//! A floor holds for a later request iff the replicas of both must overlap: w + r > n. Levels are
//! few, so one running maximum per (w, n) makes a sweep over all requests linear.

use crate::{Version, keys::KeyView};

/// A version that `w` of `n` replicas have, or are above, from `from` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor {
    pub(crate) from: u64,
    pub(crate) w: u32,
    pub(crate) n: u32,
    pub(crate) version: Version,
    /// The operation that made sure of it.
    pub(crate) index: usize,
}

/// Floors by time, and the highest of them so far per level.
#[derive(Debug)]
pub(crate) struct Floors {
    /// Ascending by `from`.
    coming: std::iter::Peekable<std::vec::IntoIter<Floor>>,
    highest: Vec<Floor>,
}

impl Floors {
    pub(crate) fn new(mut floors: Vec<Floor>) -> Self {
        floors.sort_by_key(|floor| floor.from);
        Self { coming: floors.into_iter().peekable(), highest: Vec::new() }
    }

    /// Takes in what was sure before `at`. Calls come with ascending `at`.
    pub(crate) fn advance(&mut self, at: u64) {
        while let Some(floor) = self.coming.next_if(|floor| floor.from < at) {
            match self.highest.iter_mut().find(|high| (high.w, high.n) == (floor.w, floor.n)) {
                Some(high) if high.version < floor.version => *high = floor,
                Some(_) => {}
                None => self.highest.push(floor),
            }
        }
    }

    /// The highest floor that a request to `level` of `n` replicas must meet.
    pub(crate) fn met_by(&self, level: u32, n: u32) -> Option<Floor> {
        self.highest
            .iter()
            .filter(|floor| u64::from(floor.w) + u64::from(level) > u64::from(floor.n.max(n)))
            .max_by_key(|floor| floor.version)
            .copied()
    }
}

/// The floors that returned writes set.
pub(crate) fn of_writes(view: &KeyView) -> Vec<Floor> {
    view.writes
        .iter()
        .filter_map(|write| {
            Some(Floor {
                from: write.returned_at?,
                w: write.w,
                n: write.n,
                version: write.floor()?,
                index: write.index,
            })
        })
        .collect()
}

/// The floors that acknowledged deletes set, and writes once they are expired on every clock.
pub(crate) fn of_absences(view: &KeyView, clock_slack: u64) -> Vec<Floor> {
    let mut floors = of_writes(view);
    let mut of_index = std::collections::HashMap::new();
    for write in &view.writes {
        let gone_from = match (write.content, write.expires) {
            (None, _) => Some(0),
            (Some(_), expires) => expires.map(|(_, by)| by.saturating_add(clock_slack)),
        };
        of_index.insert(write.index, gone_from);
    }
    floors.retain_mut(|floor| match of_index.get(&floor.index) {
        Some(Some(gone_from)) => {
            floor.from = floor.from.max(*gone_from);
            true
        }
        _ => false,
    });
    floors
}
