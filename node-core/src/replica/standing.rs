//! Where a node stands in a migration: what it noted at the epoch, and what it holds.
//!
//! Invariant: L(e) of a partition, the last entry that no step had covered, is noted after *e* is in
//! force and all that was let in under lower epochs has ended, and only for what this folder has
//! recovered: what was lost may be what a barrier must cover. It is on disk before it is told.

use std::collections::BTreeMap;

use tako_flatbuf::{PartitionStanding, Standing};
use tako_journal::{Adopted, IdentityError};
use tako_types::{Lsn, PartitionId, config::Phase};

use super::Replica;

/// Coverage entries in one answer; it ends with the partition that reaches this.
const COVERAGE_MAX: usize = 1 << 16;

impl Replica {
    /// Notes L(e) of the partitions held where two sets are written; `false` when it must be called
    /// again for partitions that are not recovered yet.
    ///
    /// # Errors
    /// [`IdentityError`]; nothing is noted then.
    pub(crate) async fn note_adopted(&self) -> Result<bool, IdentityError> {
        let current = self.config.current();
        let held = self.identity.held().await.adopted;
        let phase = current.migration.as_ref().map(|migration| migration.phase);
        let incarnation = self.engine.incarnation();
        let held = held.filter(|adopted| adopted.incarnation == incarnation);
        let epoch = match (phase, &held) {
            (Some(Phase::WriteBoth), _) | (Some(Phase::ReadNew), None) => current.epoch.number,
            (Some(Phase::ReadNew), Some(adopted)) => adopted.epoch,
            _ => {
                self.identity.change(|identity| identity.adopted = None).await?;
                return Ok(true);
            }
        };
        self.admissions.ended_below(epoch).await;
        let noted = held.filter(|adopted| adopted.epoch == epoch);
        let mut lsns: BTreeMap<PartitionId, Lsn> = noted.map_or_else(BTreeMap::new, |it| it.lsns);
        let mut whole = true;
        for p in current.partitions_of(self.engine.node()) {
            if !self.engine.is_recovered(p) {
                whole = false;
            } else {
                lsns.entry(p).or_insert_with(|| self.engine.partition_status(p).last_lsn);
            }
        }
        let adopted = Adopted { epoch, incarnation, lsns };
        self.identity.change(|identity| identity.adopted = Some(adopted)).await?;
        Ok(whole)
    }

    /// What a migration's driver must know, from partition `from` on.
    pub(super) async fn standing(&self, from: PartitionId) -> Standing {
        let current = self.config.current();
        let incarnation = self.engine.incarnation();
        let noted = self.identity.held().await.adopted;
        let noted = noted.filter(|adopted| adopted.incarnation == incarnation);
        let mut standing = Standing {
            cluster: Some(self.identity.cluster()),
            epoch: current.epoch.number,
            noted: noted.as_ref().map_or(0, |adopted| adopted.epoch),
            state: self.state(),
            incarnation,
            partitions: Vec::new(),
            more: false,
        };
        let mut entries = 0;
        for p in self.engine.held(&current).into_iter().filter(|p| from <= *p) {
            if COVERAGE_MAX <= entries {
                standing.more = true;
                break;
            }
            let status = self.engine.partition_status(p);
            let view = self.engine.view(p);
            let coverage = view.iter().flat_map(|view| view.meta.coverage.iter());
            let coverage: Vec<_> =
                coverage.map(|(node, (folder, lsn))| (node.clone(), *folder, *lsn)).collect();
            entries += coverage.len();
            let noted = noted.as_ref().and_then(|adopted| adopted.lsns.get(&p).copied());
            standing.partitions.push(PartitionStanding {
                partition: p,
                holder: current.placement(p).holders.contains(self.engine.node()),
                adopted_lsn: noted,
                last_lsn: status.last_lsn,
                step: status.step,
                uncovered: status.uncovered as u64,
                recovered: self.engine.is_recovered(p),
                voting: self.engine.is_voting(p),
                coverage,
            });
        }
        standing
    }
}
