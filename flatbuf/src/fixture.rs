//! What the tests of client and server share: a service that does as its requests say.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tako_types::{
    ErrorKind, Incarnation, Key, Kind, NodeId, PartitionId, StepNumber, StoredKey, Version,
};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    CallHead, Caller, Network, NodeState, Peer, PeerOptions, PutOutcome, Record, RecordHead,
    Request, Response, RpcError, RpcMetrics, ServeOptions, Service, serve,
};

/// Health and Put are ready at once; Get waits for a permit of `gate`; Configuration waits `above`
/// milliseconds; ForceStep fails with the caller's epoch; other requests are `Invalid`.
pub(crate) struct Probe {
    pub(crate) gate: Semaphore,
    pub(crate) running: AtomicUsize,
    pub(crate) started: Semaphore,
    pub(crate) puts: AtomicUsize,
}

struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Service for Probe {
    async fn call(
        &self,
        caller: &Caller,
        head: &CallHead,
        request: Request,
    ) -> Result<Response, RpcError> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(&self.running);
        self.started.add_permits(1);
        match request {
            Request::Hello { node, .. } if node.as_str() == "stranger" => {
                Err(RpcError::new(ErrorKind::Conflict, "another cluster"))
            }
            Request::Hello { cluster, .. } => {
                let (node, incarnation) = (NodeId::new("server"), Incarnation(7));
                Ok(Response::Hello { cluster, node, incarnation })
            }
            Request::Health => Ok(Response::Health { state: NodeState::Serving }),
            Request::Put { record, .. } => {
                self.puts.fetch_add(1, Ordering::SeqCst);
                let version = record.version();
                Ok(Response::Put(PutOutcome::Superseded { version }))
            }
            Request::Get { key, .. } => {
                self.gate.acquire().await.expect("never closed").forget();
                let value = caller.node.as_str().as_bytes();
                let record = Some(record_of(&key, value));
                Ok(Response::Get { record, step: StepNumber(0), covered: false, voting: true })
            }
            Request::Configuration { above } => {
                tokio::time::sleep(Duration::from_millis(above)).await;
                Ok(Response::Configuration { document: None })
            }
            Request::ForceStep { .. } => Err(RpcError::stale_epoch(head.epoch)),
            _ => Err(RpcError::new(ErrorKind::Invalid, "not here")),
        }
    }
}

pub(crate) fn key(name: &str) -> StoredKey {
    Key::new(0, Bytes::copy_from_slice(name.as_bytes())).expect("a short key").stored()
}

pub(crate) fn record_of(key: &StoredKey, value: &[u8]) -> Record {
    let version = Version { micros: value.len() as u64, origin: 1 };
    let head = RecordHead { version, kind: Kind::Value, expires_at_micros: 0, flags: 0 };
    Record::encode(key, head, None, value)
}

pub(crate) fn put(value: &[u8]) -> Request {
    let record = record_of(&key("k"), value);
    Request::Put { partition: PartitionId(0), record, repair: false, until_micros: 0 }
}

pub(crate) fn get() -> Request {
    Request::Get { partition: PartitionId(0), key: key("k") }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) probe: Arc<Probe>,
    pub(crate) metrics: Arc<RpcMetrics>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(network: &dyn Network, address: &str) -> Self {
        Self::start_with(network, address, |_| {}).await
    }

    pub(crate) async fn start_with(
        network: &dyn Network,
        address: &str,
        change: impl FnOnce(&mut ServeOptions),
    ) -> Self {
        let listener = network.listen(address).await.expect("a free address");
        let probe = Arc::new(Probe {
            gate: Semaphore::new(0),
            running: AtomicUsize::new(0),
            started: Semaphore::new(0),
            puts: AtomicUsize::new(0),
        });
        let mut options = ServeOptions::default();
        change(&mut options);
        let metrics = Arc::clone(&options.metrics);
        let (address, shutdown) = (listener.address(), CancellationToken::new());
        let task = tokio::spawn(serve(listener, Arc::clone(&probe), options, shutdown.clone()));
        Self { address, probe, metrics, shutdown, task }
    }

    /// Waits until `count` further calls (Hello included) have started.
    pub(crate) async fn started(&self, count: u32) {
        self.probe.started.acquire_many(count).await.expect("never closed").forget();
    }

    pub(crate) fn running(&self) -> usize {
        self.probe.running.load(Ordering::SeqCst)
    }
}

pub(crate) fn peer(network: impl Network + 'static, address: &str) -> Peer {
    Peer::new(Arc::new(network), address, PeerOptions::new(NodeId::new("client")))
}
