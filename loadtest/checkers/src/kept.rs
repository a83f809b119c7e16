//! Nothing is lost: at the end every key is at the highest acknowledged version or above, and
//! what it holds is explained by a write. The same of a cluster rebuilt from the store alone, for
//! what was acknowledged before a cutoff.
//!
//! At its level: a write acknowledged at W survives the loss of W − 1 replicas' folders;
//! [`Options::lost_replicas`] says how many were lost at once.

use crate::{
    Answer, Dump, History, Kind, Options, Verdict, Version, Violation,
    floors::of_writes,
    keys::{KeyView, by_key, told},
    monotonic::highest_seen,
};

/// Considered: answers, one per dump, for keys with an acknowledged write or a read at 2r > n. A
/// key that no dump has is lost. Without dumps nothing is considered.
pub fn nothing_is_lost(history: &History, dumps: &[Dump], options: &Options) -> Verdict {
    let mut verdict = Verdict::default();
    let keys = by_key(history, options.clock_slack_micros);
    for (key, view) in &keys {
        let mut asked = false;
        for dump in dumps {
            let Some(&answer) = dump.answers.get(*key) else { continue };
            asked = true;
            let acked = highest_acked(view, dump.asked_at, options);
            let seen = highest_seen(view, dump.asked_at, options.lost_replicas);
            verdict.considered += usize::from(acked.is_some() || seen.is_some());
            check(&mut verdict, history, key, view, dump, answer, acked.max(seen));
        }
        if let Some((version, index)) = highest_acked(view, u64::MAX, options)
            && !asked
            && !dumps.is_empty()
        {
            verdict.considered += 1;
            verdict.add(|| {
                let text = format!("{version} was acknowledged, and no dump has the key");
                Violation::new(Kind::Lost, key, text, history, &[index])
            });
        }
    }
    for dump in dumps {
        strangers(&mut verdict, history, dump, |key| keys.contains_key(key));
    }
    verdict
}

/// Considered: keys with a write acknowledged before `cutoff_micros`. A key that is not in the
/// dump is lost.
pub fn rebuilt_from_store(
    history: &History,
    dump: &Dump,
    cutoff_micros: u64,
    options: &Options,
) -> Verdict {
    let mut verdict = Verdict::default();
    let keys = by_key(history, options.clock_slack_micros);
    for (key, view) in &keys {
        let acked = highest_acked(view, cutoff_micros, options);
        verdict.considered += usize::from(acked.is_some());
        let answer = dump.answers.get(*key).copied().unwrap_or(Answer::Absent { version: None });
        check(&mut verdict, history, key, view, dump, answer, acked);
    }
    strangers(&mut verdict, history, dump, |key| keys.contains_key(key));
    verdict
}

/// The highest version acknowledged before `before`, at a level that survived.
fn highest_acked(view: &KeyView, before: u64, options: &Options) -> Option<(Version, usize)> {
    of_writes(view)
        .into_iter()
        .filter(|floor| floor.w > options.lost_replicas && floor.from < before)
        .map(|floor| (floor.version, floor.index))
        .max()
}

/// One answer against the floor and the writes.
fn check(
    verdict: &mut Verdict,
    history: &History,
    key: &str,
    view: &KeyView,
    dump: &Dump,
    answer: Answer,
    floor: Option<(Version, usize)>,
) {
    if let Some((version, index)) = floor
        && view.is_below(answer, version, dump.answered_at)
    {
        verdict.add(|| {
            let text = format!(
                "at the end {} answers {}, though {version} was acknowledged or read",
                dump.replica,
                told(answer)
            );
            Violation::new(Kind::Lost, key, text, history, &[index])
        });
    }
    if let Some(why) = view.unexplained(answer, dump.answered_at) {
        verdict.add(|| {
            let text =
                format!("at the end {} answers {}: {}", dump.replica, told(answer), why.text);
            Violation::new(why.kind, key, text, history, &why.involved)
        });
    }
}

/// Values under keys that no client wrote.
fn strangers(
    verdict: &mut Verdict,
    history: &History,
    dump: &Dump,
    is_known: impl Fn(&str) -> bool,
) {
    for (key, &answer) in &dump.answers {
        if matches!(answer, Answer::Found { .. }) && !is_known(key) {
            verdict.add(|| {
                let who = &dump.replica;
                let text =
                    format!("at the end {who} answers {}, and nobody wrote this key", told(answer));
                Violation::new(Kind::Unwritten, key, text, history, &[])
            });
        }
    }
}
