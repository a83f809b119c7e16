//! What an index answer proves.

use super::*;

const SHOWN: (Version, u32) = (Version { micros: 5, origin: 1 }, 7);

fn answer(micros: Option<u64>) -> StatAnswer {
    let version = micros.map(|micros| Version { micros, origin: 1 });
    StatAnswer { version, crc: if micros == Some(5) { 7 } else { 8 } }
}

#[test]
fn an_index_answer_proves_a_vote_only_where_steps_allow_it() {
    let at = |micros, step, shown, covered| {
        index_agrees(answer(micros), StepNumber(step), shown, StepNumber(3), covered)
    };
    assert!(at(Some(5), 3, Some(SHOWN), false), "it holds the very record");
    assert!(at(Some(5), 2, Some(SHOWN), false), "at an earlier step as well");
    assert!(!at(Some(5), 4, Some(SHOWN), false), "a later snapshot may hold something newer");
    assert!(!at(Some(6), 3, Some(SHOWN), true), "it holds something newer");
    assert!(at(None, 3, Some(SHOWN), true), "both see the record in the same snapshot");
    assert!(!at(None, 2, Some(SHOWN), true), "an earlier snapshot may lack it");
    assert!(!at(None, 3, Some(SHOWN), false), "the record is in the other's index only");
    assert!(at(Some(4), 3, Some(SHOWN), true), "an older entry under the same snapshot");
    assert!(at(None, 3, None, true) && at(None, 2, None, true));
    assert!(!at(None, 4, None, true) && !at(Some(4), 3, None, true));
}
