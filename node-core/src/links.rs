//! How a process reaches replicas: its own engine directly, every other node by RPC.
//!
//! Every call carries an epoch, and a node that knows a newer one refuses with it. [`Links::call`]
//! is for what means the same under any document: it fetches the newer one and sends again.
//! [`Links::call_under`] is for a part of a request, which one document judges from beginning to
//! end: it sends once, and what a refusal means is the request's affair (`replication/attempt.rs`).
//! What calls show of a node's health goes to the membership.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tako_flatbuf::{CallHead, Caller, Peers, Request, Response, RpcError, Service};
use tako_types::{ErrorKind, Incarnation, NodeId, config::Published, limits::CALL_DEADLINE};

use crate::{
    configuration::ConfigCell,
    membership::Membership,
    replica::{Calls, Replica, is_upkeep},
};

/// See the module.
pub struct Links {
    /// This process: a node id, or a proxy's.
    pub me: NodeId,
    /// The configuration in force.
    pub config: Arc<ConfigCell>,
    /// Who is there.
    pub membership: Arc<Membership>,
    peers: Arc<Peers>,
    local: OnceLock<Arc<Replica>>,
}

impl Links {
    /// Links of process `me` over `peers`.
    #[must_use]
    pub fn new(
        me: NodeId,
        config: Arc<ConfigCell>,
        membership: Arc<Membership>,
        peers: Arc<Peers>,
    ) -> Arc<Self> {
        Arc::new(Self { me, config, membership, peers, local: OnceLock::new() })
    }

    /// Makes this process a replica of its own.
    pub fn attach(&self, replica: Arc<Replica>) {
        let _ = self.local.set(replica);
    }

    /// The replica of this process, if it is a node.
    #[must_use]
    pub fn local(&self) -> Option<&Arc<Replica>> {
        self.local.get()
    }

    /// Whether `node` is this process.
    #[must_use]
    pub fn is_local(&self, node: &NodeId) -> bool {
        self.local.get().is_some() && *node == self.me
    }

    /// Sends a request to a node and awaits its answer, under whichever document is in force.
    ///
    /// # Errors
    /// [`RpcError`]: the node's own, or `Unavailable`/`Deadline` when it did not answer in time.
    pub async fn call(
        &self,
        node: &NodeId,
        deadline: Duration,
        request: Request,
    ) -> Result<Response, RpcError> {
        if let Some(local) = self.local.get().filter(|_| *node == self.me) {
            return in_time(deadline, local.handle(request)).await;
        }
        let first = self.remote(&self.config.current(), node, deadline, request.clone()).await;
        match first {
            Err(error) if error.kind == ErrorKind::StaleEpoch => {
                if error.detail > self.config.epoch().number {
                    self.fetch_configuration(node).await;
                }
                self.remote(&self.config.current(), node, deadline, request).await
            }
            answer => answer,
        }
    }

    /// Sends a request once, to be judged by `document`.
    ///
    /// # Errors
    /// [`RpcError`]; `StaleEpoch` where the node knows a newer document, this process not excepted:
    /// it may have adopted one since `document` was taken.
    pub(crate) async fn call_under(
        &self,
        document: &Published,
        node: &NodeId,
        deadline: Duration,
        request: Request,
    ) -> Result<Response, RpcError> {
        let Some(local) = self.local.get().filter(|_| *node == self.me) else {
            return self.remote(document, node, deadline, request).await;
        };
        // By the same door as everybody else's calls: what is taken in there under an older epoch
        // than this node noted its last LSN for would be in nobody's barrier.
        let caller = Caller { node: self.me.clone(), address: String::new() };
        let head = CallHead { epoch: document.epoch.number, ..CallHead::default() };
        in_time(deadline, Calls(local.clone()).call(&caller, &head, request)).await
    }

    async fn remote(
        &self,
        document: &Published,
        node: &NodeId,
        deadline: Duration,
        request: Request,
    ) -> Result<Response, RpcError> {
        let Some(target) = document.node(node) else {
            let text = format!("{node} is not in configuration {}", document.epoch);
            return Err(RpcError::new(ErrorKind::StaleEpoch, text));
        };
        let address = target.rpc_address().to_string();
        let peer = self.peers.get(&address);
        let may_wait = is_upkeep(&request);
        let answer = peer.call(document.epoch.number, deadline, request).await;
        let silent = match answer.as_ref().map_err(|error| error.kind) {
            Err(ErrorKind::Deadline) => true,
            // The node's own "unavailable" is an answer; a broken connection is none.
            Err(ErrorKind::Unavailable) => !peer.is_connected(),
            _ => false,
        };
        match silent {
            false => self.membership.on_answer(node),
            // It does such work when its requests leave it the time: being late says nothing.
            true if may_wait && peer.is_connected() => {}
            true => self.membership.on_failure(node),
        }
        answer
    }

    /// Refuses what a node answered from a data folder that another one came after: all it holds
    /// was covered, refilled or deleted since, and must not come back.
    ///
    /// `covered` is the folder that the snapshot knows.
    ///
    /// # Errors
    /// `Conflict`; the node will notice by itself and go on as a new folder.
    pub(crate) fn check_folder(
        &self,
        node: &NodeId,
        answered: Incarnation,
        covered: Incarnation,
    ) -> Result<(), RpcError> {
        let known = self.membership.incarnation(node).unwrap_or_default().max(covered);
        if known <= answered {
            return Ok(());
        }
        let text = format!("{node} runs on data folder {answered}, but {known} came after it");
        Err(RpcError::new(ErrorKind::Conflict, text))
    }

    /// Fetches a newer configuration from a node and adopts it; failures are logged by the cell.
    pub async fn fetch_configuration(&self, node: &NodeId) {
        let current = self.config.current();
        let request = Request::Configuration { above: current.epoch.number };
        let answer = self.remote(&current, node, CALL_DEADLINE, request).await;
        let Ok(Response::Configuration { document: Some(document) }) = answer else { return };
        match Published::decode(&document) {
            Ok(document) => drop(self.config.adopt(document)),
            Err(error) => tracing::warn!(%node, "a configuration cannot be read: {error}"),
        }
    }
}

/// The own replica's answer, or that it took too long.
async fn in_time(
    deadline: Duration,
    answer: impl Future<Output = Result<Response, RpcError>>,
) -> Result<Response, RpcError> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(RpcError::new(ErrorKind::Deadline, "this node took too long")),
    }
}
