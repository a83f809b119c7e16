//! What one replica holds by itself, asked over Tako's own RPC: a read over HTTP with `r=1` is
//! answered by any replica.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use tako_checkers::{Answer, Dump, Version};
use tako_flatbuf::{
    Peer, PeerOptions, PutOutcome, Record, RecordHead, Request, Response, RpcError, TcpNetwork,
};
use tako_types::{
    Clock as _, ErrorKind, Key, Kind, NAMESPACE_VALUES, NodeId, StoredKey, SystemClock,
};

use crate::{
    client::number,
    cluster::{Cluster, Member, PARTITIONS_LOG2},
    notes::Notes,
};

/// Who we say we are.
const NAME: &str = "chaos";
/// Longer than a replica waits for the store.
const PATIENCE: Duration = Duration::from_secs(10);
/// Calls for one answer: the epoch is learnt, and a read of the store may hang since an outage.
const TRIES: usize = 6;

/// The key as it is stored.
///
/// # Errors
/// Of a name that is no key.
pub fn stored(name: &str) -> anyhow::Result<StoredKey> {
    Ok(Key::new(NAMESPACE_VALUES, Bytes::copy_from_slice(name.as_bytes()))?.stored())
}

/// Calls to one node.
#[derive(Debug)]
pub struct Replica {
    id: String,
    peer: Peer,
    epoch: AtomicU64,
}

impl Replica {
    /// Does not connect.
    #[must_use]
    pub fn new(node: &Member) -> Self {
        let options = PeerOptions::new(NodeId::new(NAME));
        let peer = Peer::new(Arc::new(TcpNetwork), &node.rpc, options);
        Self { id: node.id.clone(), peer, epoch: AtomicU64::new(0) }
    }

    async fn call(&self, request: Request) -> Result<Response, RpcError> {
        let said = self.epoch.load(Ordering::Relaxed);
        match self.peer.call(said, PATIENCE, request.clone()).await {
            Err(error) if error.kind == ErrorKind::StaleEpoch => {
                self.epoch.store(error.detail, Ordering::Relaxed);
                self.peer.call(error.detail, PATIENCE, request).await
            }
            other => other,
        }
    }

    /// The replica's own record of a key.
    ///
    /// # Errors
    /// When it cannot say, or does not vote.
    pub async fn vote(&self, name: &str) -> anyhow::Result<Option<Record>> {
        let key = stored(name)?;
        let request = Request::Get { partition: key.partition(PARTITIONS_LOG2), key };
        let mut tries = 1;
        loop {
            match self.call(request.clone()).await {
                Ok(Response::Get { record, voting: true, .. }) => return Ok(record),
                Ok(other) => bail!("{} answered {name} with {other:?}", self.id),
                Err(error) if tries == TRIES => bail!("{}: {name}: {error}", self.id),
                Err(_) => tries += 1,
            }
        }
    }

    /// Writes a record to this replica alone; whether it took it.
    ///
    /// # Errors
    /// When it says nothing.
    pub async fn put(&self, name: &str, value: &[u8]) -> anyhow::Result<bool> {
        let key = stored(name)?;
        let version = tako_types::Version { micros: SystemClock.now_micros(), origin: 1 };
        let head = RecordHead { version, kind: Kind::Value, expires_at_micros: 0, flags: 0 };
        let record = Record::encode(&key, head, None, value);
        let partition = key.partition(PARTITIONS_LOG2);
        match self.call(Request::Put { partition, record, repair: false, until_micros: 0 }).await {
            Ok(Response::Put(PutOutcome::Accepted { .. })) => Ok(true),
            Ok(other) => bail!("{} answered {other:?}", self.id),
            Err(error) if error.kind == ErrorKind::Deadline => Err(error).context("no answer"),
            Err(_) => Ok(false),
        }
    }
}

/// What a record says to a client now.
#[must_use]
pub fn answer(record: Option<&Record>) -> Answer {
    let Some(record) = record else { return Answer::Absent { version: None } };
    let version = Version::new(record.version().micros, record.version().origin);
    if record.is_live_at(SystemClock.now_micros()) {
        Answer::Found { value: number(&record.value()), version }
    } else {
        Answer::Absent { version: Some(version) }
    }
}

/// What every node by itself answers for every key.
///
/// # Errors
/// A node that cannot say.
pub async fn dumps(cluster: &Cluster, notes: &Notes, keys: &[String]) -> anyhow::Result<Vec<Dump>> {
    let mut dumps = Vec::new();
    for node in &cluster.nodes {
        let replica = Replica::new(node);
        let mut dump =
            Dump { replica: node.id.clone(), asked_at: notes.micros(), ..Dump::default() };
        for key in keys {
            let record = replica.vote(key).await?;
            dump.answers.insert(key.clone(), answer(record.as_ref()));
        }
        let status =
            cluster.own_status(node).await.with_context(|| format!("{} is gone", node.id))?;
        let held = status["held"].as_array().cloned().unwrap_or_default();
        dump.uncovered = held.iter().filter_map(|p| p["uncovered"].as_u64()).sum();
        dump.answered_at = notes.micros();
        dumps.push(dump);
    }
    Ok(dumps)
}
