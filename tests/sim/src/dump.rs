//! What nodes hold by themselves at the end of a run.

use tako_checkers::{Answer, Dump, Version};
use tako_flatbuf::Record;

use crate::{
    clock::EPOCH_MICROS,
    load::{KeyUse, stored, value_of},
    world::World,
};

/// A version as the checkers know it.
#[must_use]
pub fn version(version: tako_types::Version) -> Version {
    Version::new(version.micros, version.origin)
}

/// What a record says to a client at that time of day.
#[must_use]
pub fn answer(record: Option<&Record>, now_micros: u64) -> Answer {
    match record {
        None => Answer::Absent { version: None },
        Some(record) if !record.is_live_at(now_micros) => {
            Answer::Absent { version: Some(version(record.version())) }
        }
        Some(record) => {
            // What nobody wrote is no client's value.
            let value = value_of(&record.value()).unwrap_or(0);
            Answer::Found { value, version: version(record.version()) }
        }
    }
}

/// What every node by itself holds of the keys it is a replica of, all as of one moment, for a
/// value that expires while they are asked would differ.
///
/// # Errors
/// A node that cannot say.
pub async fn dumps(world: &World, keys: &[KeyUse]) -> Result<Vec<Dump>, String> {
    let published = world.published();
    let asked_at = world.micros();
    let mut dumps = Vec::new();
    for (id, node) in world.nodes() {
        let engine = node.replica.engine();
        let mut dump = Dump { replica: id.clone(), asked_at, ..Dump::default() };
        for KeyUse { name, .. } in keys {
            let stored = stored(name);
            let p = stored.partition(published.partitions_log2());
            if !published.replicas(p).contains(engine.node()) {
                continue;
            }
            // A read may wait for one of the same block that hangs since a store outage.
            let mut tries = 0;
            let vote = loop {
                match engine.vote(p, &stored).await {
                    Ok(vote) => break vote,
                    Err(error) if tries == 5 => return Err(format!("{id}: {error}")),
                    Err(_) => tries += 1,
                }
            };
            let said = answer(vote.record.as_ref(), EPOCH_MICROS + asked_at);
            dump.answers.insert(name.clone(), said);
        }
        // Of what it is no replica of, too: nobody would pull that.
        let all = published.partitions();
        let uncovered = all.map(|p| engine.partition_status(p).uncovered as u64);
        dump.uncovered = uncovered.sum();
        dump.answered_at = world.micros();
        dumps.push(dump);
    }
    Ok(dumps)
}
