//! Mending a bad record: some replica may hold it intact, uncovered or in its cache.
//!
//! Invariant: it is replaced only by what a replica holds at its version or above. The intact one is
//! written as a repair, at its own version; the next step merges it with the bad one, which gives
//! way. Like every repair it is taken only for half of the tombstones' grace from when it was looked
//! for: later, the tombstone above it may be purged. Not here: what a bad record is (`pass.rs`).

use std::time::Duration;

use tako_flatbuf::{PutOutcome, Record, Request, Response, merge};
use tako_types::{PartitionId, StoredKey, Version, limits::CALL_DEADLINE};

use super::Healer;
use crate::replication::put_until;

const REPAIR_DEADLINE: Duration = Duration::from_secs(10);

impl Healer {
    /// Finds an intact record of the key and writes it back; the error says why not.
    ///
    /// `claimed` is the version that the bad one says it has. Where it does not say, anything found
    /// may be older than what was there: a deleted key would come back.
    pub(super) async fn mend(
        &self,
        p: PartitionId,
        key: &StoredKey,
        claimed: Option<Version>,
    ) -> Result<(), String> {
        let Some(claimed) = claimed else {
            return Err("it does not say its version; only a backup may have it".to_owned());
        };
        // What is found is as old as the look for it.
        let found_micros = self.engine.clock().now_micros();
        let Some(found) = self.intact(p, key).await else {
            return Err("no replica has it intact; only a backup may".to_owned());
        };
        if found.version() < claimed {
            return Err("replicas have only older ones".to_owned());
        }
        // A cached copy would have this replica say that it holds the record already.
        self.engine.forget_cached(p, key);
        // Others may say so of theirs, which brings nothing into any step: this one journals it.
        let until_micros = put_until(&self.links().config.current(), found_micros);
        let put = Request::Put { partition: p, record: found.clone(), repair: true, until_micros };
        match self.links().call(self.engine.node(), REPAIR_DEADLINE, put).await {
            Ok(Response::Put(PutOutcome::Accepted { .. })) => {}
            Ok(Response::Put(_)) => return Err("this replica holds something newer".to_owned()),
            Ok(_) => return Err("this replica answered something else".to_owned()),
            Err(error) => return Err(error.message),
        }
        let repair = self.serving.repair(found, found_micros, REPAIR_DEADLINE);
        repair.await.map_err(|error| error.to_string())
    }

    /// The newest intact record that any replica has.
    async fn intact(&self, p: PartitionId, key: &StoredKey) -> Option<Record> {
        let current = self.links().config.current();
        let mut newest: Option<Record> = None;
        for node in &current.placement(p).holders {
            // The vote comes from memory where the record is hot; what no step has covered is
            // fetched, as the vote would look at the bad one as well.
            let get = Request::Get { partition: p, key: key.clone() };
            let fetch = Request::Fetch { partition: p, keys: vec![key.clone()] };
            for request in [get, fetch] {
                let found = match self.links().call(node, CALL_DEADLINE, request).await {
                    Ok(Response::Get { record, .. }) => record,
                    Ok(Response::Fetch { records, .. }) => records.into_iter().next(),
                    _ => None,
                };
                let found = found.filter(|record| record.key() == *key);
                newest = match (newest, found) {
                    (Some(newest), Some(found)) => Some(merge(newest, found)),
                    (newest, found) => newest.or(found),
                };
            }
        }
        newest
    }
}
