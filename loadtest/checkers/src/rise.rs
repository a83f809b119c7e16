//! Acknowledgements rise: with w + w' > n, no write is acknowledged at a version below one that
//! was acknowledged before it began. (It would be in force for nobody: it must be stamped again,
//! or told that it was superseded.)
//!
//! The earlier write was acknowledged by a majority: a replica that has just started takes a write
//! without a vote, so one that it alone acknowledged is not known to those who vote.

use crate::{
    History, Kind, Options, Verdict, Violation,
    floors::{Floor, Floors, of_writes},
    keys::{Fate, by_key},
};

/// Considered: acknowledged writes that followed another at overlapping levels.
pub fn acks_rise(history: &History, options: &Options) -> Verdict {
    let mut verdict = Verdict::default();
    for (key, view) in by_key(history, options.clock_slack_micros) {
        let by_majority = |floor: &Floor| 2 * floor.w > floor.n;
        let mut floors = Floors::new(of_writes(&view).into_iter().filter(by_majority).collect());
        for write in &view.writes {
            floors.advance(write.invoked_at);
            let Fate::Acked(version) = write.fate else { continue };
            let Some(floor) = floors.met_by(write.w, write.n) else { continue };
            verdict.considered += 1;
            if version < floor.version {
                verdict.add(|| {
                    let text = format!(
                        "acknowledged at {version} after {} had been acknowledged",
                        floor.version
                    );
                    let involved = [floor.index, write.index];
                    Violation::new(Kind::AckedBelow, key, text, history, &involved)
                });
            }
        }
    }
    verdict
}
