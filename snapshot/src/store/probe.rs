//! Whether a store does what Tako relies on; run at start, before anything is written for good.
//!
//! Some servers accept the headers of a conditional write and ignore them; two snapshotters would
//! then overwrite each other without an error. So the checks look at effects, not at answers.
//! Objects live under `<root>/probe/<random>` and are deleted at the end, also after a failure.

use bytes::Bytes;
use futures::{TryStreamExt, future::join_all};
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};

use super::{Store, StoreError};

const RACERS: usize = 8;
const RACES: usize = 3;
const NOT_EXCLUSIVE: &str =
    "two snapshotters or coordinators could both believe that they won, and data would be lost";
const NOT_VISIBLE: &str =
    "a node could miss the newest snapshot or configuration and serve old data";
const NOT_RANGED: &str = "snapshot blocks could not be read";

impl Store {
    /// Checks that create-only writes are refused the second time, that exactly one of several
    /// concurrent creates wins, that a listing shows what was written, and that range reads work.
    ///
    /// Limits/cost: 26 PUT, 5 GET, 2 LIST and 4 DELETE, a few hundred bytes.
    ///
    /// # Errors
    /// [`StoreError::Probe`] says which check failed and what that means; [`StoreError::Io`] and
    /// [`StoreError::Deadline`] when the store cannot be reached or written.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let folder = self.path(&format!("probe/{:032x}", uuid::Uuid::new_v4().as_u128()));
        let outcome = self.run_checks(&folder).await;
        let cleaned = self
            .bounded("clean up", &folder, || async {
                let listed: Vec<_> = self.counting.list(Some(&folder)).try_collect().await?;
                for meta in listed {
                    match self.counting.delete(&meta.location).await {
                        Ok(()) | Err(Error::NotFound { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            })
            .await;
        outcome.and(cleaned)
    }

    async fn run_checks(&self, folder: &Path) -> Result<(), StoreError> {
        self.check_create(&folder.clone().join("create")).await?;
        for race in 0..RACES {
            self.check_race(&folder.clone().join(format!("race-{race}"))).await?;
        }
        self.check_list(folder).await?;
        self.check_ranges(&folder.clone().join("create")).await
    }

    async fn check_create(&self, path: &Path) -> Result<(), StoreError> {
        let check = "create-only";
        // The first one is the plainest request there is: its failure is the store's own error.
        self.bounded("write", path, || async {
            match self.create_once(path, FIRST).await {
                Err(Error::AlreadyExists { .. }) => Ok(()),
                other => other,
            }
        })
        .await?;
        let second = self
            .bounded("create", path, || async {
                match self.create_once(path, b"second").await {
                    Ok(()) => Ok(false),
                    Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(true),
                    Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => Ok(false),
                    Err(error) => Err(error),
                }
            })
            .await?;
        if !second {
            let found = "a second create of the same object was not refused".to_owned();
            return Err(StoreError::Probe { check, found, meaning: NOT_EXCLUSIVE });
        }
        match self.read(path).await? {
            Some(bytes) if bytes == FIRST => Ok(()),
            Some(_) => {
                let found = "a refused create changed the object".to_owned();
                Err(StoreError::Probe { check, found, meaning: NOT_EXCLUSIVE })
            }
            None => {
                let found = "an object cannot be read after it was written".to_owned();
                Err(StoreError::Probe { check, found, meaning: NOT_VISIBLE })
            }
        }
    }

    async fn check_race(&self, path: &Path) -> Result<(), StoreError> {
        let texts: Vec<String> = (0..RACERS).map(|racer| format!("racer {racer}")).collect();
        let racers = texts.iter().map(|text| self.create_once(path, text.as_bytes()));
        let outcomes = join_all(racers).await;
        let winners: Vec<&String> = texts
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| outcome.is_ok())
            .map(|(text, _)| text)
            .collect();
        let content = self.read(path).await?;
        let found = match (winners.as_slice(), &content) {
            ([winner], Some(content)) if *content == winner.as_bytes() => return Ok(()),
            // The winner's answer may have been lost; nobody then believes that it won.
            ([], Some(_)) => return Ok(()),
            ([], None) => "none of 8 concurrent creates succeeded".to_owned(),
            ([_], _) => "the object does not hold what the winner of a race wrote".to_owned(),
            (several, _) => format!("{} of 8 concurrent creates succeeded", several.len()),
        };
        Err(StoreError::Probe { check: "one winner of a race", found, meaning: NOT_EXCLUSIVE })
    }

    async fn check_list(&self, folder: &Path) -> Result<(), StoreError> {
        let listed = self
            .bounded("list", folder, || async {
                let listed: Vec<_> = self.counting.list(Some(folder)).try_collect().await?;
                Ok(listed.len())
            })
            .await?;
        if listed == RACES + 1 {
            return Ok(());
        }
        let found = format!("a listing shows {listed} of {} objects", RACES + 1);
        Err(StoreError::Probe { check: "list after put", found, meaning: NOT_VISIBLE })
    }

    async fn check_ranges(&self, path: &Path) -> Result<(), StoreError> {
        let range = 1..4;
        let read = self
            .bounded("read a range of", path, || async {
                self.counting.get_range(path, range.clone()).await
            })
            .await?;
        if read == FIRST[1..4] {
            return Ok(());
        }
        let found = format!("bytes 1 to 3 of an object came as {} bytes", read.len());
        Err(StoreError::Probe { check: "range read", found, meaning: NOT_RANGED })
    }

    async fn create_once(&self, path: &Path, bytes: &[u8]) -> object_store::Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let payload = Bytes::copy_from_slice(bytes).into();
        self.counting.put_opts(path, payload, options).await.map(|_| ())
    }
}

const FIRST: &[u8] = b"first";
