//! Reading a backup through, and comparing with what was found the last time.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use tako_types::{ErrorKind, PartitionId};

use super::{
    AT_ONCE, Backup, BackupError, Backups, Count, Held, Observer, Progress, count::CheckedPages,
    document::Counts, ranges::range_of,
};

/// What reading a backup through came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// What each partition holds, as far as it could be read.
    pub partitions: BTreeMap<PartitionId, Count>,
    /// What is wrong, per partition.
    pub damage: BTreeMap<PartitionId, String>,
    /// Whether an earlier verification had counted, and this one was compared with it.
    pub compared: bool,
}

impl Verified {
    /// Everything together.
    #[must_use]
    pub fn total(&self) -> Count {
        self.partitions.values().copied().sum()
    }
}

impl Backups {
    /// Reads every record of a backup and checks it. The first counts without damage are kept in
    /// the store; later ones are compared with them.
    ///
    /// Limits/cost: reads all of the backup; memory is bounded.
    ///
    /// # Errors
    /// [`BackupError`] where the store fails; damage is no error but the answer.
    pub async fn verify(
        &self,
        backup: &Backup,
        observe: Observer<'_>,
    ) -> Result<Verified, BackupError> {
        let earlier = self.counts(backup).await?;
        let (partitions, damage) = self.count(&backup.partitions, observe).await?;
        let mut verified = Verified { partitions, damage, compared: earlier.is_some() };
        match earlier {
            Some(earlier) => verified.compare(&earlier),
            None if verified.damage.is_empty() => {
                let partitions = verified.partitions.clone();
                let counts = Counts { created_micros: backup.created_micros, partitions };
                self.keep_counts(backup, &counts).await?;
            }
            None => {}
        }
        Ok(verified)
    }

    /// Counts, and damage, of the states given.
    pub(super) async fn count(
        &self,
        states: &BTreeMap<PartitionId, Held>,
        observe: Observer<'_>,
    ) -> Result<(BTreeMap<PartitionId, Count>, BTreeMap<PartitionId, String>), BackupError> {
        let (mut counts, mut damage) = (BTreeMap::new(), BTreeMap::new());
        let mut all = stream::iter(states)
            .map(async |(partition, held)| (*partition, self.count_one(*partition, held).await))
            .buffer_unordered(AT_ONCE);
        let mut done = 0;
        while let Some((partition, outcome)) = all.next().await {
            done += 1;
            observe(Progress { doing: "reading", done, of: states.len() });
            match outcome {
                Ok(count) => {
                    counts.insert(partition, count);
                }
                Err(BackupError::Damaged { what, .. }) => {
                    damage.insert(partition, what);
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    damage.insert(partition, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok((counts, damage))
    }

    async fn count_one(&self, partition: PartitionId, held: &Held) -> Result<Count, BackupError> {
        let opening = self.snapshots.reader_at(partition, held.checkpoint).await;
        let reader = opening.map_err(BackupError::of(partition))?;
        let range = range_of(partition, self.partitions_log2());
        let counted = CheckedPages::all(&reader, partition, range, self.inspect).count_all().await;
        let step = reader.meta().step;
        reader.close().await;
        if step != held.step {
            let what = format!("its checkpoint shows step {step}, not {}", held.step);
            return Err(BackupError::Damaged { partition, what });
        }
        counted
    }
}

impl Verified {
    fn compare(&mut self, earlier: &Counts) {
        for (partition, count) in &self.partitions {
            let before = earlier.partitions.get(partition).copied().unwrap_or_default();
            if before != *count {
                let what = format!(
                    "it holds {} records with the digest {:032x}; an earlier verification found {} \
                     with {:032x}",
                    count.records, count.digest, before.records, before.digest
                );
                self.damage.insert(*partition, what);
            }
        }
    }
}
