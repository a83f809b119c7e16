//! Entries of the journal that are appended once more: their file is damaged, or kept by them alone.
//!
//! Invariant: only an entry that is still the one needed of its key is appended, which is looked at
//! under the lock that counts the append as one under way. While it was read, a step may have
//! covered it and a later one may have purged the tombstone above it: appended then, it would bring
//! the record back. Once it is counted, no replica says that all it holds is covered, so nothing
//! is purged before this entry is covered again. Not here: finding damage (`healing/journal.rs`).

use tako_flatbuf::Record;
use tako_types::{Lsn, PartitionId, StoredKey};

use super::{Engine, EngineError, index::Held, partition::InFlight};

impl Engine {
    /// Appends everything held once more: after damage the readable entries lie in files that were
    /// moved aside. Call it after the views were opened, so that nothing covered is among them.
    ///
    /// # Errors
    /// [`EngineError`] when the journal cannot be read or take it.
    pub async fn journal_again(&self) -> Result<(), EngineError> {
        self.rewrite(|_| true).await
    }

    /// Frees a journal file that few needed entries keep alive: appends them once more.
    ///
    /// # Errors
    /// [`EngineError`] when the journal cannot be read or take them.
    pub async fn rewrite_sparse_file(&self) -> Result<(), EngineError> {
        let Some(file) = self.journal.sparse_file() else { return Ok(()) };
        self.rewrite(|held| held.location.file == file).await
    }

    /// Appends once more what is needed of a journal file that is damaged, as far as memory or the
    /// file has it. Answers with the keys of which neither has.
    ///
    /// # Errors
    /// [`EngineError`] when the journal cannot take them.
    pub async fn rewrite_damaged_file(
        &self,
        file: u64,
    ) -> Result<Vec<(PartitionId, StoredKey)>, EngineError> {
        let mut lacking = Vec::new();
        for p in self.partitions() {
            for (key, held) in self.held_where(p, |held| held.location.file == file) {
                let lsn = held.lsn;
                match self.read_back(p, held).await {
                    Ok(record) => {
                        self.append_again(p, &record, |now| now.lsn == lsn).await?;
                    }
                    Err(error) => {
                        tracing::warn!(partition = p.0, file, "a journal entry is lost: {error}");
                        lacking.push((p, key));
                    }
                }
            }
        }
        Ok(lacking)
    }

    /// Takes in from elsewhere what this node's journal cannot give back any more; `false` where it
    /// is not the record that the index speaks of.
    ///
    /// # Errors
    /// [`EngineError`] when the journal cannot take it.
    pub async fn restore_entry(
        &self,
        p: PartitionId,
        record: &Record,
    ) -> Result<bool, EngineError> {
        let is_it = |now: &Held| (now.version(), now.crc) == (record.version(), record.crc());
        self.append_again(p, record, is_it).await
    }

    /// Whether the entry that is needed of a key lies in this journal file.
    #[must_use]
    pub fn needs_of_file(&self, p: PartitionId, key: &StoredKey, file: u64) -> bool {
        let inner = self.partition(p).lock();
        inner.index.get(key).is_some_and(|held| held.location.file == file)
    }

    /// Appends all entries once more of which `wanted` holds.
    async fn rewrite(&self, wanted: impl Fn(&Held) -> bool) -> Result<(), EngineError> {
        for p in self.partitions() {
            for (key, held) in self.held_where(p, &wanted) {
                let lsn = held.lsn;
                match self.read_back(p, held).await {
                    Ok(record) => {
                        self.append_again(p, &record, |now| now.lsn == lsn).await?;
                    }
                    // Its file may have gone since, with the need for it.
                    Err(_) if !self.is_held_at(p, &key, lsn) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// What is held of a partition, oldest first.
    fn held_where(&self, p: PartitionId, wanted: impl Fn(&Held) -> bool) -> Vec<(StoredKey, Held)> {
        let inner = self.partition(p).lock();
        let there = inner.index.tail(Lsn(0)).filter(|(_, held)| wanted(held));
        there.map(|(key, held)| (key.clone(), held.clone())).collect()
    }

    fn is_held_at(&self, p: PartitionId, key: &StoredKey, lsn: Lsn) -> bool {
        let inner = self.partition(p).lock();
        inner.index.get(key).is_some_and(|now| now.lsn == lsn)
    }

    /// Appends a record once more if what is held of its key now is still it; `false` if not.
    async fn append_again(
        &self,
        p: PartitionId,
        record: &Record,
        is_it: impl FnOnce(&Held) -> bool,
    ) -> Result<bool, EngineError> {
        let (partition, key) = (self.partition(p), record.key());
        let _in_flight = {
            let mut inner = partition.lock();
            if !inner.index.get(&key).is_some_and(is_it) {
                return Ok(false);
            }
            InFlight::begin(partition, &mut inner, &key)
        };
        self.append_record(p, record).await?;
        Ok(true)
    }
}
