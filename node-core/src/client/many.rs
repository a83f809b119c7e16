//! Many keys in one call, and listings.
//!
//! A batch is no transaction: each item is a call of its own with a result of its own, in the order
//! given. Items run beside each other, those of one key one after the other.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt, stream};
use tako_types::{NAMESPACE_VALUES, RecordStat, Version};

use super::{Client, ClientError, Put, Value};
use crate::replication::{List, Lister};

/// Items of one batch under way at one time.
const AT_ONCE: usize = 64;

impl Client {
    /// [`Self::get`] of each key.
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<Result<Option<Value>, ClientError>> {
        stream::iter(keys).map(|key| self.get(key)).buffered(AT_ONCE).collect().await
    }

    /// [`Self::put`] of each; of those with one key the last one stays.
    pub async fn put_many<K: AsRef<[u8]>, P: Into<Put>>(
        &self,
        puts: impl IntoIterator<Item = (K, P)>,
    ) -> Vec<Result<Version, ClientError>> {
        let items =
            puts.into_iter().map(|(key, put)| (key.as_ref().to_vec(), put.into())).collect();
        each_by_key(items, |(key, put)| self.put(key, put)).await
    }

    /// [`Self::delete`] of each key.
    pub async fn delete_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<Result<Version, ClientError>> {
        stream::iter(keys).map(|key| self.delete(key)).buffered(AT_ONCE).collect().await
    }

    /// The keys that begin with `prefix` and come after `after`, in the order of bytes, over the whole
    /// cluster. Eventually consistent: a key written in the last seconds may be missing.
    #[must_use]
    pub fn list(&self, prefix: impl Into<Bytes>, after: Option<Bytes>) -> Listing<'_> {
        Listing { client: self, prefix: prefix.into(), after, lister: None }
    }
}

/// Does each item and gives the results in the order of the items; those of one key in turn.
async fn each_by_key<R, F: Future<Output = R>>(
    items: Vec<(Vec<u8>, Put)>,
    work: impl Fn((Vec<u8>, Put)) -> F,
) -> Vec<R> {
    let mut by_key: HashMap<Vec<u8>, Vec<(usize, Put)>> = HashMap::new();
    for (place, (key, put)) in items.into_iter().enumerate() {
        by_key.entry(key).or_default().push((place, put));
    }
    let work = &work;
    let done = stream::iter(by_key).map(|(key, puts)| async move {
        let mut done = Vec::with_capacity(puts.len());
        for (place, put) in puts {
            done.push((place, work((key.clone(), put)).await));
        }
        done
    });
    let done: Vec<Vec<(usize, R)>> = done.buffer_unordered(AT_ONCE).collect().await;
    let mut done: Vec<(usize, R)> = done.into_iter().flatten().collect();
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

/// One key of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// Its version, length and expiry.
    pub stat: RecordStat,
}

/// A listing that goes on.
pub struct Listing<'a> {
    client: &'a Client,
    prefix: Bytes,
    /// The last key that was given.
    after: Option<Bytes>,
    /// `None` at the beginning, and after a failure: what it held then is asked for again.
    lister: Option<Lister>,
}

impl Listing<'_> {
    /// The next keys, at most `limit`; fewer only at the end.
    ///
    /// # Errors
    /// [`ClientError`]; may be called again, and goes on behind the last key that was given.
    pub async fn next(&mut self, limit: usize) -> Result<Vec<Entry>, ClientError> {
        let serving = self.client.serving();
        let list = List {
            namespace: NAMESPACE_VALUES,
            prefix: self.prefix.clone(),
            after: self.after.clone(),
        };
        let mut lister = self.lister.take().unwrap_or_else(|| serving.list(list));
        let given = lister.next(serving, limit, self.client.deadline()).await;
        let given = given.map_err(ClientError::of_nothing_done)?;
        self.lister = Some(lister);
        if let Some((last, _)) = given.last() {
            self.after = Some(last.clone());
        }
        Ok(given.into_iter().map(|(key, stat)| Entry { key, stat }).collect())
    }
}
