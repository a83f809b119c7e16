//! Nothing returns: no value is seen below a delete or expiry that was acknowledged (with w + r >
//! n for reads, always for dumps), nor, at any level, after its own expiry.

use crate::{
    Answer, Dump, History, Kind, Options, Verdict, Violation,
    floors::{Floor, Floors, of_absences},
    keys::{KeyView, by_key, told},
};

/// Considered: answers, of reads and dumps, for keys that had a delete or expiry before, or a
/// value that could have expired.
pub fn nothing_returns(history: &History, dumps: &[Dump], options: &Options) -> Verdict {
    let mut verdict = Verdict::default();
    let slack = options.clock_slack_micros;
    for (key, view) in by_key(history, slack) {
        let mut floors = Floors::new(of_absences(&view, slack));
        for read in &view.reads {
            floors.advance(read.invoked_at);
            let floor = floors.met_by(read.r, read.n);
            let expires = may_expire(&view, read.answer);
            verdict.considered += usize::from(floor.is_some() || expires);
            let who = format!("a read at r={} of n={} got", read.r, read.n);
            if let Some((text, mut involved)) =
                returned(&view, read.answer, floor, read.invoked_at, &who)
            {
                involved.push(read.index);
                verdict.add(|| Violation::new(Kind::Returned, key, text, history, &involved));
            }
        }
        for dump in dumps {
            let Some(&answer) = dump.answers.get(key) else { continue };
            let floor = of_absences(&view, slack)
                .into_iter()
                .filter(|floor| floor.w > options.lost_replicas && floor.from < dump.asked_at)
                .max_by_key(|floor| floor.version);
            verdict.considered += usize::from(floor.is_some() || may_expire(&view, answer));
            let who = format!("at the end {} answers", dump.replica);
            if let Some((text, involved)) = returned(&view, answer, floor, dump.asked_at, &who) {
                verdict.add(|| Violation::new(Kind::Returned, key, text, history, &involved));
            }
        }
    }
    verdict
}

/// Why `answer` is a return, and by which operations.
fn returned(
    view: &KeyView,
    answer: Answer,
    floor: Option<Floor>,
    asked_at: u64,
    who: &str,
) -> Option<(String, Vec<usize>)> {
    let Answer::Found { value, version } = answer else { return None };
    if let Some(floor) = floor.filter(|floor| version < floor.version) {
        let gone = floor.version;
        let text = format!("{who} {}, below what was gone at {gone}", told(answer));
        return Some((text, vec![floor.index]));
    }
    let writes = view.is_expired(value, asked_at)?;
    Some((format!("{who} {} after its expiry", told(answer)), writes))
}

fn may_expire(view: &KeyView, answer: Answer) -> bool {
    matches!(answer, Answer::Found { value, .. } if view.may_be_expired(value, u64::MAX))
}
