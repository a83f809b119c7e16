//! Random steps, failures, take-overs and compactions against a map (an oracle).
//!
//! Goal: whatever happens, a reader shows exactly the merge of all committed steps. Method: one
//! seeded generator decides everything; where a step's outcome is unknown, the next writer's step
//! number says whether the map takes it. A failure prints the seed and the round.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    PartitionWriter,
    fault::{Match, When},
};

/// A small generator; good enough to vary a test, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % limit
    }
}

#[derive(Clone, Default)]
struct Model {
    step: u64,
    records: BTreeMap<Bytes, Bytes>,
    due: BTreeSet<DueRow>,
}

impl Model {
    fn apply(&mut self, input: &StepInput) {
        self.step += 1;
        let rows: BTreeSet<&Bytes> = input.rows.iter().map(|row| &row.key).collect();
        for due in input.purge.iter().filter(|due| !rows.contains(&due.key)) {
            self.records.remove(&due.key);
            self.due.remove(due);
        }
        for due in &input.drop_due {
            self.due.remove(due);
        }
        self.due.extend(input.due.iter().cloned());
        for row in &input.rows {
            let merged = match self.records.remove(&row.key) {
                Some(old) => merge(old, row.record.clone()),
                None => row.record.clone(),
            };
            self.records.insert(row.key.clone(), merged);
        }
    }

    fn random_step(&self, random: &mut Random, highest: Version) -> StepInput {
        let rows: Vec<StepRow> = (0..random.below(6))
            .map(|_| {
                let micros = match random.below(2) {
                    0 => highest.micros + 1 + random.below(50),
                    _ => 1 + random.below(highest.micros + 50),
                };
                let text = format!("{}", random.below(1000));
                let newest = version(micros) > highest;
                row(&format!("k{}", random.below(12)), micros, &text, newest)
            })
            .collect();
        let mut input = step(rows, self.step);
        if random.below(3) == 0 {
            input.due.push(due(&format!("k{}", random.below(12)), random.below(100), 1));
        }
        if let Some(old) = self.due.iter().nth(random.below(4) as usize) {
            match random.below(3) {
                0 => input.purge.push(old.clone()),
                1 => input.drop_due.push(old.clone()),
                _ => {}
            }
        }
        input
    }
}

async fn check(node: &Snapshots, model: &Model, what: &str) {
    let Some(reader) = node.reader_latest(P).await.expect("a look") else {
        assert_eq!(model.step, 0, "{what}");
        return;
    };
    assert_eq!(reader.meta().step.0, model.step, "{what}");
    let rows = reader.scan(.., 1000).await.expect("a scan").rows;
    assert_eq!(rows.into_iter().collect::<BTreeMap<_, _>>(), model.records, "{what}");
    for (key, record) in &model.records {
        assert_eq!(reader.get(key).await.expect("a read").as_ref(), Some(record), "{what}");
    }
    let due = reader.due(u64::MAX, 1000).await.expect("due");
    assert_eq!(due, model.due.iter().cloned().collect::<Vec<_>>(), "{what}");
}

async fn run(world: World, seed: u64, rounds: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let nodes = [world.node().await, world.node().await];
    let mut model = Model::default();
    let mut writer: Option<PartitionWriter> = None;
    for round in 0..rounds {
        let what = format!("seed {seed}, round {round}");
        let mut open = match writer.take() {
            Some(writer) if random.below(15) != 0 => writer,
            _ => nodes[random.below(2) as usize].writer(P).await.expect("a writer"),
        };
        let input = model.random_step(&mut random, open.meta().highest);
        if random.below(4) == 0 {
            world.fault.retried(random.below(4) == 0);
            let when = if random.below(2) == 0 { When::Before } else { When::After };
            world.fault.fail_nth(Match::any(), random.below(6), when);
        }
        let outcome = open.step(input.clone()).await;
        world.fault.clear();
        match outcome {
            Ok(done) => {
                model.apply(&input);
                assert_eq!(done.meta.step.0, model.step, "{what}");
                if random.below(3) == 0 {
                    open.maintain().await.expect("maintenance");
                }
            }
            Err(_) => {
                drop(open);
                open = nodes[random.below(2) as usize].writer(P).await.expect("a writer");
                if open.meta().step.0 > model.step {
                    model.apply(&input);
                }
                assert_eq!(open.meta().step.0, model.step, "{what}");
            }
        }
        writer = Some(open);
        if random.below(6) == 0 {
            world.clock.by_hours(i64::try_from(random.below(4)).expect("small") - 1);
        }
        if random.below(4) == 0 {
            check(&nodes[random.below(2) as usize], &model, &what).await;
        }
    }
    check(&nodes[0], &model, &format!("seed {seed}, end")).await;
    drop(writer);
    for node in nodes {
        node.close().await;
    }
}

#[tokio::test]
async fn a_reader_always_shows_the_merge_of_all_committed_steps() {
    for seed in 1..=3 {
        run(World::memory(), seed, 60).await;
    }
    for (seed, world) in (4..).zip(World::all().into_iter().skip(1)) {
        run(world, seed, 40).await;
    }
}
