//! Reads are monotonic where 2r > n: none is older than what an earlier one, of any client, saw.
//!
//! A read that found nothing, and was not told at which version, has seen a delete above every
//! value that it must have known of: that is its version here.

use crate::{
    Answer, History, Kind, Options, Verdict, Version, Violation,
    floors::{Floors, of_writes},
    keys::{KeyView, ReadView, by_key, told},
};

/// Considered: reads at 2r > n that followed another such read.
pub fn reads_are_monotonic(history: &History, options: &Options) -> Verdict {
    let mut verdict = Verdict::default();
    for (key, view) in by_key(history, options.clock_slack_micros) {
        sweep(&view, |read, seen| {
            let Some((floor, earlier)) = seen else { return };
            verdict.considered += 1;
            if view.is_below(read.answer, floor, read.returned_at) {
                verdict.add(|| {
                    let text = format!(
                        "an earlier read saw {}, and this one, at r={} of n={}, {}",
                        told(earlier.answer),
                        read.r,
                        read.n,
                        told(read.answer)
                    );
                    let involved = [earlier.index, read.index];
                    Violation::new(Kind::WentBack, key, text, history, &involved)
                });
            }
        });
    }
    verdict
}

/// The highest version that reads at 2r > n, returned before `before`, with r above
/// `lost_replicas`, saw; and the read.
pub(crate) fn highest_seen(
    view: &KeyView,
    before: u64,
    lost_replicas: u32,
) -> Option<(Version, usize)> {
    view.reads
        .iter()
        .filter(|read| read.is_monotonic() && read.r > lost_replicas && read.returned_at < before)
        .filter_map(|read| match read.answer {
            Answer::Found { version, .. } => Some((version, read.index)),
            Answer::Absent { version } => Some((version?, read.index)),
        })
        .max()
}

/// Gives each read at 2r > n, in order of invocation, with the highest version that such reads
/// had seen before it began.
fn sweep<'a>(
    view: &'a KeyView,
    mut each: impl FnMut(&'a ReadView, Option<(Version, &'a ReadView)>),
) {
    let reads: Vec<&ReadView> = view.reads.iter().filter(|read| read.is_monotonic()).collect();
    let mut by_return: Vec<usize> = (0..reads.len()).collect();
    by_return.sort_by_key(|&at| reads[at].returned_at);
    let mut returned = by_return.into_iter().peekable();
    let mut floors = Floors::new(of_writes(view));
    let mut saw = vec![Version::ZERO; reads.len()];
    let mut highest: Option<(Version, &ReadView)> = None;
    for (at, &read) in reads.iter().enumerate() {
        // Whoever returned before this one began, began before it: its `saw` is known.
        while let Some(earlier) =
            returned.next_if(|&earlier| reads[earlier].returned_at < read.invoked_at)
        {
            if saw[earlier] > highest.map_or(Version::ZERO, |(version, _)| version) {
                highest = Some((saw[earlier], reads[earlier]));
            }
        }
        floors.advance(read.invoked_at);
        saw[at] = match read.answer {
            Answer::Found { version, .. } | Answer::Absent { version: Some(version) } => version,
            Answer::Absent { version: None } => {
                let acked = floors.met_by(read.r, read.n).map(|floor| floor.version);
                let known = acked.max(highest.map(|(version, _)| version));
                known.map_or(Version::ZERO, |known| above(view, known, read.returned_at))
            }
        };
        each(read, highest);
    }
}

/// What an absence says that was answered in knowledge of `known`: something above, if `known` is
/// a value that cannot have expired; else `known` may itself be the absence.
fn above(view: &KeyView, known: Version, at: u64) -> Version {
    match view.content_at(known) {
        Some(Some(value)) if !view.may_be_expired(value, at) => known.next(),
        _ => known,
    }
}
