//! Replicas agree: after quiet, all that hold a key answer alike, and tails are empty.
//!
//! Alike as a client sees it: the same value at the same version, or no value. A tombstone that
//! one replica still names and another has forgotten is no difference; two that both name theirs
//! must name the same.

use std::collections::BTreeMap;

use crate::{Answer, Dump, History, Kind, Verdict, Violation, keys::told};

/// Considered: answers that could be compared with another replica's.
pub fn replicas_agree(dumps: &[Dump]) -> Verdict {
    let mut verdict = Verdict::default();
    let none = History::default();
    for dump in dumps.iter().filter(|dump| dump.uncovered > 0) {
        verdict.add(|| {
            let text = format!("{} has {} uncovered entries", dump.replica, dump.uncovered);
            Violation::new(Kind::Uncovered, "", text, &none, &[])
        });
    }
    let mut first: BTreeMap<&str, (&Dump, Answer)> = BTreeMap::new();
    for dump in dumps {
        for (key, &answer) in &dump.answers {
            let Some(known) = first.get_mut(key.as_str()) else {
                first.insert(key, (dump, answer));
                continue;
            };
            verdict.considered += 1;
            if !alike(known.1, answer) {
                verdict.add(|| {
                    let (one, other) = (&known.0.replica, &dump.replica);
                    let text = format!(
                        "{one} answers {}, {other} answers {}",
                        told(known.1),
                        told(answer)
                    );
                    Violation::new(Kind::Disagree, key, text, &none, &[])
                });
            }
            if known.1 == (Answer::Absent { version: None }) {
                // A named absence is the stricter standard for those that follow.
                *known = (dump, answer);
            }
        }
    }
    verdict
}

fn alike(one: Answer, other: Answer) -> bool {
    match (one, other) {
        (Answer::Absent { version: Some(one) }, Answer::Absent { version: Some(other) }) => {
            one == other
        }
        (Answer::Absent { .. }, Answer::Absent { .. }) => true,
        _ => one == other,
    }
}
