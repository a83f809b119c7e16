//! Reads are fresh: with w + r > n, none is older than a write acknowledged before it began; and
//! at any level, every answer is one that somebody wrote.

use crate::{
    History, Kind, Options, Verdict, Violation,
    floors::{Floors, of_writes},
    keys::{by_key, told},
};

/// Considered: reads that followed an acknowledged write at overlapping levels.
pub fn reads_are_fresh(history: &History, options: &Options) -> Verdict {
    let mut verdict = Verdict::default();
    for (key, view) in by_key(history, options.clock_slack_micros) {
        for &(first, second) in &view.conflicts {
            verdict.add(|| {
                let text = "two acknowledged writes have one version".to_owned();
                Violation::new(Kind::SplitVersion, key, text, history, &[first, second])
            });
        }
        let mut floors = Floors::new(of_writes(&view));
        for read in &view.reads {
            floors.advance(read.invoked_at);
            if let Some(floor) = floors.met_by(read.r, read.n) {
                verdict.considered += 1;
                if view.is_below(read.answer, floor.version, read.returned_at) {
                    verdict.add(|| {
                        let text = format!(
                            "the read began after {} was acknowledged at w={}, and at r={} of n={} \
                             got {}",
                            floor.version,
                            floor.w,
                            read.r,
                            read.n,
                            told(read.answer)
                        );
                        let involved = [floor.index, read.index];
                        Violation::new(Kind::StaleRead, key, text, history, &involved)
                    });
                }
            }
            if let Some(mut why) = view.unexplained(read.answer, read.returned_at) {
                why.involved.push(read.index);
                verdict.add(|| Violation::new(why.kind, key, why.text, history, &why.involved));
            }
        }
    }
    verdict
}
