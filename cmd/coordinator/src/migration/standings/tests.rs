//! Who is asked for a step, and for how long a node is listened to.

use std::sync::Mutex;

use async_trait::async_trait;
use tako_flatbuf::{
    CallHead, Caller, MemoryNetwork, NodeState, PartitionStanding, ServeOptions, Service, serve,
};
use tako_types::{Incarnation, Lsn, StepNumber, config::Config};
use tokio_util::sync::CancellationToken;

use super::*;

/// Takes every step, and notes who took it.
struct Taker {
    node: NodeId,
    taken: Arc<Mutex<BTreeMap<PartitionId, NodeId>>>,
}

#[async_trait]
impl Service for Taker {
    async fn call(&self, _: &Caller, _: &CallHead, request: Request) -> Result<Response, RpcError> {
        let (node, incarnation) = (self.node.clone(), Incarnation(1));
        match request {
            Request::Hello { .. } => Ok(Response::Hello { cluster: None, node, incarnation }),
            Request::ForceStep { partition } => {
                self.taken.lock().expect("nobody panics with it").insert(partition, node);
                Ok(Response::ForceStep { step: StepNumber(1) })
            }
            _ => Err(RpcError::unavailable("it does nothing else")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_is_asked_of_the_node_whose_turn_it_is() {
    let text = "partitions: 16\nactive_deployment: d\ndeployments: {d: {hash: {buckets_per_key: 1}, \
                buckets: {b1: {n1: [n1, 47], n2: [n2, 47], n3: [n3, 47]}}}}";
    let config = Arc::new(Config::parse(text).expect("valid"));
    let document = tako_ring::publish(config, 1, None).expect("a document");
    let (network, stop) = (MemoryNetwork::new(), CancellationToken::new());
    let taken: Arc<Mutex<BTreeMap<PartitionId, NodeId>>> = Arc::default();
    for node in document.replicas(PartitionId(0)) {
        let host = network.as_host(node.as_str());
        let listener = host.listen(&format!("{node}:47")).await.expect("free");
        let taker = Arc::new(Taker { node: node.clone(), taken: taken.clone() });
        tokio::spawn(serve(listener, taker, ServeOptions::default(), stop.clone()));
    }
    let nodes = Nodes::new(Arc::new(network.as_host("c1")), "c1");
    let all: BTreeMap<PartitionId, Vec<NodeId>> =
        document.partitions().map(|p| (p, document.replicas(p).to_vec())).collect();
    nodes.steps(&document, all.clone()).await;
    let first = |(p, by): (&PartitionId, &Vec<NodeId>)| (*p, rendezvous(*p, by)[0].clone());
    let turns: BTreeMap<PartitionId, NodeId> = all.iter().map(first).collect();
    assert_eq!(*taken.lock().expect("nobody panics with it"), turns);
    stop.cancel();
}

/// Tells where it stands in as many pages as it is asked for, each just in time.
struct Slow;

#[async_trait]
impl Service for Slow {
    async fn call(&self, _: &Caller, _: &CallHead, request: Request) -> Result<Response, RpcError> {
        let (node, incarnation) = (NodeId::new("n1"), Incarnation(1));
        let Request::Standing { from } = request else {
            return Ok(Response::Hello { cluster: None, node, incarnation });
        };
        tokio::time::sleep(CALL_DEADLINE - Duration::from_millis(100)).await;
        let row = PartitionStanding {
            partition: from,
            holder: true,
            adopted_lsn: None,
            last_lsn: Lsn(0),
            step: StepNumber(1),
            uncovered: 0,
            recovered: true,
            voting: true,
            coverage: Vec::new(),
        };
        let (state, partitions) = (NodeState::Serving, vec![row]);
        let more = from.0 < 60;
        Ok(Response::Standing(Standing {
            cluster: None,
            epoch: 1,
            noted: 0,
            state,
            incarnation,
            partitions,
            more,
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_tells_too_slowly_is_left_out() {
    let text = "partitions: 64\nactive_deployment: d\ndeployments: {d: {hash: {buckets_per_key: 1}, \
                buckets: {b1: {n1: [n1, 47]}}}}";
    let config = Arc::new(Config::parse(text).expect("valid"));
    let document = tako_ring::publish(config, 1, None).expect("a document");
    let (network, stop) = (MemoryNetwork::new(), CancellationToken::new());
    let listener = network.as_host("n1").listen("n1:47").await.expect("free");
    tokio::spawn(serve(listener, Arc::new(Slow), ServeOptions::default(), stop.clone()));
    let nodes = Nodes::new(Arc::new(network.as_host("c1")), "c1");
    let asked = tokio::time::Instant::now();
    assert_eq!(nodes.standings(&document).await, Standings::new());
    assert!(asked.elapsed() <= STANDING_MAX + CALL_DEADLINE, "{:?}", asked.elapsed());
    stop.cancel();
}
