//! What must be true of backups at the end of a run.
//!
//! Rules: what was made is listed, what was deleted is not; every listed one, whoever made it and
//! whatever he was told, verifies, also after all garbage was collected; one of them is restored,
//! and the new root holds all that was acknowledged before the create began (where steps covered
//! it), nothing that was deleted before, and nothing that was written after the create had ended.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tako_checkers::{Dump, History, Op, Options, nothing_returns, rebuilt_from_store};
use tako_flatbuf::merge_encoded;
use tako_snapshot::{
    SnapshotOptions, Snapshots, StepInput, Store,
    backup::{Backup, Listed},
};
use tako_types::{Clock, PartitionId};

use super::{
    Archive, Evidence, Made, Outcome,
    restored::{NewRoot, Source, restored},
};
use crate::{
    chance::Chance,
    clock::{EPOCH_MICROS, SimClock},
    load::stored,
};

/// Beyond every lease and least age.
const LATER_MICROS: i64 = 2 * 3_600_000_000;
/// Replicas that a fault may have taken a write from, where it was acknowledged by one.
const LOST_REPLICAS: u32 = 1;

/// What was looked at, and what is wrong.
type Verdicts = (Vec<(&'static str, usize)>, Vec<String>);

pub(super) async fn judge(
    archive: &Archive,
    evidence: &Evidence<'_>,
    chance: &Chance,
) -> Result<Verdicts, String> {
    let (told, mut wrong) = {
        let state = archive.0.state.lock();
        (state.told.clone(), state.wrong.clone())
    };
    let store = archive.0.around.store.sound();
    let log2 = evidence.scenario.partitions.ilog2();
    let clock = SimClock::new(archive.0.began);
    let collected = collect(&store, log2, &clock).await?;
    let clock: Arc<dyn Clock> = Arc::new(clock);
    let backups = super::Backups::open(store, log2, clock.clone(), super::RECORDS).await;
    let backups = backups.map_err(|error| error.to_string())?;
    let listed = backups.list().await.map_err(|error| format!("backups: {error}"))?;
    let mut sound: BTreeMap<String, Backup> = BTreeMap::new();
    for Listed { name, backup, .. } in listed {
        match backup {
            Ok(backup) => drop(sound.insert(name.to_string(), backup)),
            Err(error) => wrong.push(format!("backup {name} is listed, but: {error}")),
        }
    }
    let mut rotten = Vec::new();
    for backup in sound.values() {
        match backups.verify(backup, &|_| {}).await {
            Ok(verified) if !verified.damage.is_empty() && is_rotten(backup, evidence) => {
                rotten.push(backup.name.to_string());
            }
            Ok(verified) => wrong.extend(verified.damage.iter().map(|(p, what)| {
                format!("backup {} is damaged in partition {p}: {what}", backup.name)
            })),
            Err(error) => wrong.push(format!("backup {} cannot be read: {error}", backup.name)),
        }
    }
    backups.close().await;
    for told in &told {
        match (&told.outcome, sound.contains_key(&told.name)) {
            (Outcome::Made(_), false) => {
                wrong.push(format!("backup {} was made, and is not listed", told.name));
            }
            (Outcome::Deleted, true) => {
                wrong.push(format!("backup {} was deleted, and is listed", told.name));
            }
            _ => {}
        }
    }
    let by_rule = sound.keys().filter(|name| name.starts_with("1m-")).count();
    let mut seen = vec![
        ("backups_verify", sound.len() - rotten.len()),
        ("backups_of_a_rotten_record", rotten.len()),
        ("backups_by_a_rule", by_rule),
        ("partitions_collected", collected),
    ];
    let mut chance = chance.part("restore");
    let names: Vec<&String> = sound.keys().filter(|name| !rotten.contains(*name)).collect();
    if wrong.is_empty() && !names.is_empty() {
        let name = *chance.pick(&names);
        let made =
            told.iter().find(|told| told.name == *name).and_then(|told| match &told.outcome {
                Outcome::Made(made) => Some(made.clone()),
                _ => None,
            });
        let source = Source {
            store: &archive.0.around.store,
            clock,
            partitions_log2: log2,
            backup: &sound[name],
        };
        let root = restored(&source, &mut chance).await?;
        seen.push(("backups_restored", 1));
        // Of one that nobody was told of it is only known that it was made by now.
        let made = made.unwrap_or_else(|| Made {
            asked_at: 0,
            returned_at: archive.micros(),
            not_stepped: Vec::new(),
        });
        let (count, found) = compare(&root, &made, evidence, log2).await?;
        seen.push(("restored_as_acknowledged", count));
        wrong.extend(found.into_iter().map(|it| format!("backup {name}, restored: {it}")));
    }
    Ok((seen, wrong))
}

/// Whether a backup was made of a store in which a record had rotted.
fn is_rotten(backup: &Backup, evidence: &Evidence<'_>) -> bool {
    let made_at = backup.created_micros.saturating_sub(EPOCH_MICROS);
    evidence.rotten.as_ref().is_some_and(|between| between.contains(&made_at))
}

/// Collects all garbage that there is some hours later; in how many partitions.
async fn collect(store: &Store, partitions_log2: u32, clock: &SimClock) -> Result<usize, String> {
    let options = SnapshotOptions {
        partitions_log2,
        cache_memory_bytes: 1 << 20,
        collect_interval: Duration::ZERO,
        ..SnapshotOptions::default()
    };
    let wall = Arc::new(clock.clone());
    let snapshots = Snapshots::new(store.clone(), options, wall, merge_encoded).await;
    let snapshots = snapshots.map_err(|error| error.to_string())?;
    let mut writers = Vec::new();
    for p in (0..1u16 << partitions_log2).map(PartitionId) {
        let failed = |error| format!("garbage of partition {p}: {error}");
        let Some(reader) = snapshots.reader_latest(p).await.map_err(failed)? else { continue };
        reader.close().await;
        let mut writer = snapshots.writer(p).await.map_err(failed)?;
        writer.step(StepInput::default()).await.map_err(failed)?;
        writers.push(writer);
    }
    let mut collected = 0;
    for _ in 0..2 {
        clock.jump(LATER_MICROS);
        for writer in &mut writers {
            let failed = |error| format!("garbage: {error}");
            writer.step(StepInput::default()).await.map_err(failed)?;
            // A compaction may come first.
            for _ in 0..2 {
                let done = writer.maintain().await.map_err(failed)?;
                collected += usize::from(done.collected);
            }
        }
    }
    for writer in writers {
        writer.close().await;
    }
    snapshots.close().await;
    Ok(collected)
}

/// Compares a restored root with what clients were told; how much there was to compare.
async fn compare(
    root: &NewRoot,
    made: &Made,
    evidence: &Evidence<'_>,
    log2: u32,
) -> Result<(usize, Vec<String>), String> {
    let dump = root.dump(evidence.keys, made.returned_at).await?;
    let options = Options {
        clock_slack_micros: evidence.clock_slack_micros,
        lost_replicas: LOST_REPLICAS,
        ..Options::default()
    };
    let is_stepped =
        |name: &str| 0 < made.asked_at && !made.not_stepped.contains(&stored(name).partition(log2));
    let (mut count, mut wrong) = (0, Vec::new());
    for stepped in [true, false] {
        let keys = |name: &str| is_stepped(name) == stepped;
        let history = writes(evidence.history, keys);
        let asked_at = if stepped { made.asked_at } else { 0 };
        let answers = dump.answers.iter().filter(|(name, _)| keys(name));
        let dump = Dump {
            asked_at,
            answered_at: made.returned_at,
            answers: answers.map(|(name, answer)| (name.clone(), *answer)).collect(),
            ..dump.clone()
        };
        let kept = rebuilt_from_store(&history, &dump, asked_at, &options);
        let gone = nothing_returns(&history, std::slice::from_ref(&dump), &options);
        count += kept.considered + gone.considered;
        wrong.extend([kept, gone].iter().flat_map(|it| &it.violations).map(ToString::to_string));
    }
    Ok((count, wrong))
}

/// The writes of some keys.
fn writes(history: &History, keys: impl Fn(&str) -> bool) -> History {
    let mut writes = History::default();
    for operation in &history.operations {
        if keys(&operation.key) && !matches!(operation.op, Op::Get { .. }) {
            writes.push(operation.clone());
        }
    }
    writes
}
