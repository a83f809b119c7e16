//! A request that meets a newer configuration: of a node that adopts one before its answer, and of a
//! process that has one which the node asked has not. The peers are scripts.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use common::{
    alone::{Alone, P},
    key, one_bucket, write,
};
use futures::FutureExt;
use tako_flatbuf::{
    CallHead, Caller, GossipState, Network, NodeState, PutOutcome, Request, Response, RpcError,
    ServeOptions, Service, serve,
};
use tako_node_core::{
    links::Links,
    replica::Calls,
    replication::{RequestError, Serving},
    snapshotter::Snapshotter,
};
use tako_types::{
    ClusterId, ErrorKind, HybridClock, Incarnation, NodeId, SystemClock, Version,
    config::{Config, Migration, Phase, Published},
};
use tokio_util::sync::CancellationToken;

/// The configuration after that of three nodes: writes go to `n4` as well.
fn write_both() -> Published {
    let text = one_bucket(3).replace("partitions: 4", "partitions: 1\ntarget_deployment: t")
        + "  t:\n    hash: {buckets_per_key: 1}\n    buckets:\n      b2:\n        \
           n4: [localhost, 4704]\n";
    let config = Arc::new(Config::parse(&text).expect("a valid configuration"));
    let migration = Migration { phase: Phase::WriteBoth, other: "t".into(), barrier: Vec::new() };
    tako_ring::publish_migration(config, 2, Some(migration), None).expect("it can be laid out")
}

/// A replica that answers the first write as it is told and takes the others, under any epoch.
struct Script {
    node: NodeId,
    first: AtomicBool,
    /// The caller's links: it has the newer configuration when the first answer goes out.
    links: Option<Arc<Links>>,
}

#[async_trait]
impl Service for Script {
    async fn call(&self, _: &Caller, _: &CallHead, request: Request) -> Result<Response, RpcError> {
        let record = match request {
            Request::Put { record, .. } => record,
            Request::Hello { .. } => {
                let (node, incarnation) = (self.node.clone(), Incarnation(1));
                return Ok(Response::Hello { cluster: Some(ClusterId(7)), node, incarnation });
            }
            _ => return Err(RpcError::unavailable("not in the script")),
        };
        if self.first.swap(false, Ordering::AcqRel) {
            let Some(links) = &self.links else { return std::future::pending().await };
            links.config.adopt(write_both()).expect("a newer one");
            let version = Version { micros: record.version().micros + 1, origin: 1 };
            return Ok(Response::Put(PutOutcome::Superseded { version }));
        }
        let (incarnation, voting, known) = (Incarnation(1), true, Vec::new());
        Ok(Response::Put(PutOutcome::Accepted { incarnation, voting, known }))
    }
}

#[tokio::test]
async fn a_nodes_own_replica_takes_nothing_under_a_configuration_older_than_the_one_it_adopted() {
    let alone = Alone::of(3);
    let (engine, _) = alone.engine(1 << 20).await;
    engine.open_latest(P).await.expect("a view");
    let (links, replica) = alone.replica(&engine);
    replica.set_state(NodeState::Serving);
    engine.set_recovered(P, true);
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    for (node, adopts) in [("n1", true), ("n2", false)] {
        let (id, links) = (NodeId::new(node), adopts.then(|| links.clone()));
        let address = format!("localhost:{}", port(&id));
        let listener = alone.network.as_host(node).listen(&address).await.expect("free");
        let script = Arc::new(Script { node: id, first: AtomicBool::new(true), links });
        tokio::spawn(serve(listener, script, ServeOptions::default(), stop.clone()));
    }
    // The first answer of n1 makes the node send the write again, with a higher version. Its own
    // replica has noted by then up to where the old configuration's writes go.
    let serving = Serving::new(links, HybridClock::new(Arc::new(SystemClock), 3, 0));
    let error = serving.put(write("k", "v"), Duration::from_secs(5)).await;
    let error = error.expect_err("n4 does not have it");
    assert!(matches!(error, RequestError::TooFewAcks { got: 0, need: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_replica_behind_a_proxys_epoch_answers_once_it_has_that_configuration() {
    let alone = Alone::of(3);
    let (engine, _) = alone.engine(1 << 20).await;
    engine.open_latest(P).await.expect("a view");
    let (links, replica) = alone.replica(&engine);
    replica.set_state(NodeState::Serving);
    engine.set_recovered(P, true);
    let proxy = Caller { node: NodeId::new("p1"), address: String::new() };
    let head = CallHead { epoch: 2, ..CallHead::default() };
    let get = Request::Get { partition: P, key: key("k") };
    let calls = Calls(replica.clone());
    let mut answer = calls.call(&proxy, &head, get);
    assert!(answer.as_mut().now_or_never().is_none(), "a proxy gives no configuration");
    links.config.adopt(write_both()).expect("a newer one");
    let answer = answer.await;
    assert!(matches!(answer, Ok(Response::Get { voting: true, .. })), "{answer:?}");
}

fn port(node: &NodeId) -> u16 {
    4700 + node.as_str()[1..].parse::<u16>().expect("n and a number")
}

/// A node that has the newer configuration and gives it to whoever asks.
struct Informed(NodeId);

#[async_trait]
impl Service for Informed {
    async fn call(&self, _: &Caller, _: &CallHead, request: Request) -> Result<Response, RpcError> {
        match request {
            Request::Hello { .. } => {
                let (node, incarnation) = (self.0.clone(), Incarnation(1));
                Ok(Response::Hello { cluster: Some(ClusterId(7)), node, incarnation })
            }
            Request::Configuration { .. } => {
                Ok(Response::Configuration { document: Some(write_both().encode().into()) })
            }
            _ => Err(RpcError::unavailable("not in the script")),
        }
    }
}

#[tokio::test]
async fn a_replica_behind_a_proxys_epoch_gets_it_from_a_node_that_told_it_has_it() {
    let alone = Alone::of(3);
    let (engine, _) = alone.engine(1 << 20).await;
    engine.open_latest(P).await.expect("a view");
    let (links, replica) = alone.replica(&engine);
    let snapshotter = Snapshotter::new(links.clone(), engine, CancellationToken::new());
    replica.attach(&snapshotter, &links);
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let n1 = NodeId::new("n1");
    let address = format!("localhost:{}", port(&n1));
    let listener = alone.network.as_host("n1").listen(&address).await.expect("free");
    let informed = Arc::new(Informed(n1.clone()));
    tokio::spawn(serve(listener, informed, ServeOptions::default(), stop.clone()));

    let ask = async || {
        let caller = Caller { node: NodeId::new("proxy"), address: String::new() };
        let head = CallHead { epoch: 2, ..CallHead::default() };
        Calls(replica.clone())
            .call(&caller, &head, Request::Get { partition: P, key: key("k") })
            .await
    };
    // Nobody has it, as far as this node was told.
    let error = ask().await.expect_err("it cannot be judged by a document that is not here");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    let told = GossipState {
        node: n1,
        incarnation: Incarnation(1),
        state: NodeState::Serving,
        clock_micros: 0,
        epoch: write_both().epoch,
        load: 0,
        known: Vec::new(),
        partitions: Vec::new(),
    };
    replica.handle(Request::Gossip(told)).await.expect("taken in");
    assert_eq!(links.config.epoch().number, 1, "to be told of it is not to have it");
    let answer = ask().await;
    assert!(matches!(answer, Ok(Response::Get { .. })), "{answer:?}");
    assert_eq!(links.config.epoch().number, 2);
}
