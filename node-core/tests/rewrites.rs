//! Journal entries that are appended once more, while steps and other writes go on.

mod common;

use std::sync::Arc;

use common::{
    alone::{Alone, MINE, P, coverage, record},
    key,
};
use futures::FutureExt;
use tako_node_core::engine::{Engine, Intent, Missed, View};
use tako_snapshot::Meta;
use tako_types::{Lsn, StepNumber};

const MEMORY_BYTES: u64 = 1 << 20;
const COUNT: u64 = 4;

/// An engine that holds `k1` to `k4`, at the LSNs of these numbers, all in one file.
async fn filled(alone: &Alone) -> (Arc<Engine>, u64) {
    let (engine, _) = alone.engine(MEMORY_BYTES).await;
    engine.trust_coverage();
    engine.install(P, Arc::new(View::empty()), &Missed::All);
    for n in 1..=COUNT {
        let record = record(&format!("k{n}"), n, b"value");
        engine.put(P, record, Intent::Write).await.expect("written");
    }
    let holds = |file: &u64| engine.needs_of_file(P, &key("k1"), *file);
    let file = (0..100).find(holds).expect("one of the first files");
    (engine, file)
}

/// The view of a step that covers all of them.
fn cover(engine: &Engine) {
    let coverage = coverage(engine.node().as_str(), MINE, COUNT);
    let meta = Meta { step: StepNumber(1), coverage, ..Meta::default() };
    engine.install(P, Arc::new(View { meta, reader: None }), &Missed::All);
}

#[tokio::test]
async fn an_entry_that_is_covered_while_its_file_is_rewritten_is_not_appended_again() {
    let alone = Alone::of(3);
    let (engine, file) = filled(&alone).await;
    let mut rewrite = Box::pin(engine.rewrite_damaged_file(file));
    assert!(rewrite.as_mut().now_or_never().is_none(), "the first one is being read");
    cover(&engine);
    assert_eq!(rewrite.await.expect("the journal takes it"), []);
    let mut held = Vec::new();
    for n in 1..=COUNT {
        let (found, _) = engine.fetch(P, &[key(&format!("k{n}"))]).await.expect("readable");
        held.extend(found.iter().map(|_| n));
    }
    assert_eq!(held, [0; 0], "they are covered, and a purge may have followed");
}

#[tokio::test]
async fn while_an_entry_is_appended_again_no_tail_says_that_all_is_covered() {
    let alone = Alone::of(3);
    let (engine, _) = filled(&alone).await;
    let is_quiet = || engine.tail(P, Lsn(0), engine.incarnation()).quiet;
    assert!(is_quiet());
    let fetched = record("k2", 2, b"value");
    let mut again = Box::pin(engine.restore_entry(P, &fetched));
    // Nobody else gets at the journal's file meanwhile.
    assert!(alone.disk.edit(&alone.first_journal_file(), |_| {
        assert!(again.as_mut().now_or_never().is_none(), "it is on its way");
        cover(&engine);
        assert!(!is_quiet(), "a tombstone above it would be purged before it is here again");
    }));
    assert!(again.await.expect("the journal takes it"));
    assert!(is_quiet(), "nothing is on its way any more");
}

#[tokio::test]
async fn an_entry_fetched_for_a_damaged_file_is_not_taken_once_it_is_covered() {
    let alone = Alone::of(3);
    let (engine, _) = filled(&alone).await;
    let fetched = record("k2", 2, b"value");
    assert!(engine.restore_entry(P, &fetched).await.expect("the journal takes it"));
    // The new entry bears the next number.
    let coverage = coverage(engine.node().as_str(), MINE, COUNT + 1);
    let meta = Meta { step: StepNumber(1), coverage, ..Meta::default() };
    engine.install(P, Arc::new(View { meta, reader: None }), &Missed::All);
    assert!(!engine.restore_entry(P, &fetched).await.expect("nothing to take"));
    assert_eq!(engine.partition_status(P).uncovered, 0);
}
