//! Prepare and Accept at a running replica: what is promised, refused, forgotten and remembered.

mod common;

use std::{
    any::Any,
    io,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use common::{Cluster, eventually, get, key, one_bucket, put, text, write};
use tako_flatbuf::{NodeState, PrepareOutcome, PutOutcome, Record, RecordHead, Request, Response};
use tako_journal::{Disk, DiskFile, FsDisk};
use tako_node_core::{node::Node, replication::Write};
use tako_types::{Kind, PartitionId, Version, limits::REPAIR_WAIT};

const THREE: [&str; 3] = ["n1", "n2", "n3"];

fn record(name: &str, version: Version, value: &str) -> Record {
    let head = RecordHead { version, kind: Kind::Value, expires_at_micros: 0, flags: 0 };
    Record::encode(&key(name), head, None, value.as_bytes())
}

fn place(node: &Node, name: &str) -> PartitionId {
    key(name).partition(node.replica.engine().partitions_log2())
}

/// A version above all that the node issued or saw.
fn next(node: &Node) -> Version {
    node.serving.clock().next()
}

async fn prepare(node: &Node, name: &str, ballot: Version) -> PrepareOutcome {
    let request = Request::Prepare { partition: place(node, name), key: key(name), ballot };
    match node.replica.handle(request).await {
        Ok(Response::Prepare(outcome)) => outcome,
        other => panic!("to Prepare: {other:?}"),
    }
}

/// Value and version that come with a promise.
async fn promise(node: &Node, name: &str, ballot: Version) -> Option<(String, Version)> {
    match prepare(node, name, ballot).await {
        PrepareOutcome::Promised { record, voting: true, .. } => {
            record.map(|record| (text(&record), record.version()))
        }
        other => panic!("no promise: {other:?}"),
    }
}

async fn accept(node: &Node, base: Version, record: Record) -> PutOutcome {
    let partition = record.key().partition(node.replica.engine().partitions_log2());
    match node.replica.handle(Request::Accept { partition, base, record }).await {
        Ok(Response::Accept(outcome)) => outcome,
        other => panic!("to Accept: {other:?}"),
    }
}

async fn offer(node: &Node, record: Record, repair: bool) -> PutOutcome {
    let partition = record.key().partition(node.replica.engine().partitions_log2());
    match node.replica.handle(Request::Put { partition, record, repair, until_micros: 0 }).await {
        Ok(Response::Put(outcome)) => outcome,
        other => panic!("to Put: {other:?}"),
    }
}

fn is_vote(outcome: &PutOutcome) -> bool {
    matches!(outcome, PutOutcome::Accepted { voting: true, .. })
}

async fn one_node() -> Cluster {
    Cluster::started(&one_bucket(1).replace("300ms", "1h"), &["n1"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_shows_the_record_and_its_accept_replaces_it_also_when_repeated() {
    let cluster = Cluster::started(&one_bucket(1), &["n1"]).await;
    let node = cluster.node("n1");
    let held = put(cluster.serving("n1"), "k", "old").await.expect("written").version;
    let ballot = next(node);
    assert_eq!(promise(node, "k", ballot).await, Some(("old".into(), held)));
    assert_eq!(promise(node, "k", ballot).await, Some(("old".into(), held)), "once more");
    let new = record("k", ballot, "new");
    assert!(is_vote(&accept(node, held, new.clone()).await));
    // Whose key moved asks again with the same ballot, and is shown its own.
    assert_eq!(promise(node, "k", ballot).await, Some(("new".into(), ballot)));
    assert_eq!(get(cluster.serving("n1"), "k").await.expect("read").as_deref(), Some("new"));
    let left = node.replica.engine().highest_promise(place(node, "k"));
    assert_eq!(left, Version::ZERO, "the durable record says as much");
    assert!(is_vote(&accept(node, held, new.clone()).await), "from the index");
    cluster.covered().await;
    assert_eq!(promise(node, "k", ballot).await, Some(("new".into(), ballot)));
    assert_eq!(node.replica.engine().highest_promise(place(node, "k")), Version::ZERO);
    assert!(is_vote(&accept(node, held, new).await), "from the snapshot");
    let other = accept(node, held, record("k", ballot, "other")).await;
    assert_eq!(other, PutOutcome::Superseded { version: ballot });
    assert_eq!(prepare(node, "k", held).await, PrepareOutcome::Refused { version: ballot });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accept_without_its_promise_is_refused() {
    let cluster = one_node().await;
    let node = cluster.node("n1");
    let (first, second) = (next(node), next(node));
    let zero = Version::ZERO;
    let never = accept(node, zero, record("k", first, "v")).await;
    assert_eq!(never, PutOutcome::Promised { version: first });
    assert_eq!(promise(node, "k", first).await, None);
    assert_eq!(promise(node, "k", second).await, None);
    let outbid = accept(node, zero, record("k", first, "v")).await;
    assert_eq!(outbid, PutOutcome::Promised { version: second });
    assert!(is_vote(&accept(node, zero, record("k", second, "v")).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_write_below_the_promise_is_refused_and_the_serving_node_stamps_it_anew() {
    let mut cluster = one_node().await;
    let node = &cluster.node("n1").clone();
    let old = next(node);
    let ballot = Version { micros: next(node).micros + 30_000_000, origin: 1 };
    promise(node, "k", ballot).await;
    let refused = offer(node, record("k", old, "v"), false).await;
    assert_eq!(refused, PutOutcome::Promised { version: ballot });
    // The client's own timestamp cannot be changed, and no record of the ballot need ever exist.
    let own = Write { timestamp_micros: Some(old.micros), ..write("k", "own") };
    let deadline = Duration::from_secs(10);
    cluster.serving("n1").put(own.clone(), deadline).await.expect_err("not won, not lost");
    assert!(offer(node, record("other", old, "v"), false).await != refused, "another key");
    // The node's own clock went by the ballot; a proxy's does not know of it.
    let proxy = cluster.proxy("p1").await;
    let written = put(&proxy.serving, "k", "plain").await.expect("stamped anew");
    assert!(written.won && written.version > ballot);
    assert_eq!(proxy.serving.metrics().restamps.load(Ordering::Relaxed), 1);
    let lost = cluster.serving("n1").put(own, deadline).await.expect("lost in good order");
    assert_eq!((lost.won, lost.version), (false, written.version));
    let late = accept(node, Version::ZERO, record("k", ballot, "late")).await;
    assert_eq!(late, PutOutcome::Superseded { version: written.version });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_waits_for_the_promise_and_then_stops_its_accept() {
    let cluster = Cluster::started(&one_bucket(1), &["n1"]).await;
    let node = cluster.node("n1");
    let (base, between, ballot) = (next(node), next(node), next(node));
    assert!(is_vote(&offer(node, record("k", base, "base"), false).await));
    assert_eq!(promise(node, "k", ballot).await, Some(("base".into(), base)));
    let barred = offer(node, record("k", between, "b"), true).await;
    assert_eq!(barred, PutOutcome::Promised { version: ballot });
    tokio::time::sleep(REPAIR_WAIT).await;
    assert!(is_vote(&offer(node, record("k", between, "b"), true).await));
    let again = offer(node, record("k", between, "b"), false).await;
    let no_vote = matches!(again, PutOutcome::Accepted { voting: false, .. });
    assert!(no_vote, "as a write it came past the promise: {again:?}");
    let stopped = PutOutcome::Superseded { version: between };
    assert_eq!(accept(node, base, record("k", ballot, "v")).await, stopped);
    // So does a record that only the snapshot shows by now.
    cluster.covered().await;
    assert_eq!(accept(node, base, record("k", ballot, "v")).await, stopped);
    assert!(is_vote(&accept(node, between, record("k", ballot, "v")).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_promises_and_keeps_their_floor() {
    let mut cluster = one_node().await;
    let node = cluster.node("n1").clone();
    let (old, ballot) = (next(&node), next(&node));
    promise(&node, "k", ballot).await;
    drop(node);
    cluster.crash("n1").await;
    cluster.start("n1").await;
    cluster.serves("n1").await;
    let node = cluster.node("n1").clone();
    let PutOutcome::Promised { version: floor } = offer(&node, record("k", old, "v"), false).await
    else {
        panic!("a forgotten promise may stand above")
    };
    assert!(floor > ballot);
    let forgotten = accept(&node, Version::ZERO, record("k", ballot, "v")).await;
    assert_eq!(forgotten, PutOutcome::Promised { version: floor });
    let below = Version { micros: ballot.micros + 1, origin: 1 };
    assert_eq!(prepare(&node, "k", below).await, PrepareOutcome::Refused { version: floor });
    assert!(is_vote(&offer(&node, record("repaired", old, "v"), true).await));
    let above = Version { micros: floor.micros + 1, origin: 1 };
    assert_eq!(promise(&node, "k", above).await, None);
    // When no replica can use what was forgotten any more, old timestamps pass again.
    cluster.clock("n1").skew(150_000_000);
    assert!(is_vote(&offer(&node, record("later", old, "v"), false).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_promises_a_restart_bars_no_timestamp() {
    let mut cluster = one_node().await;
    cluster.crash("n1").await;
    cluster.start("n1").await;
    cluster.serves("n1").await;
    let node = cluster.node("n1");
    let old = Version { micros: 1, origin: 1 };
    assert!(is_vote(&offer(node, record("k", old, "v"), false).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_far_ballot_and_one_not_above_its_base_are_the_callers_fault() {
    let cluster = one_node().await;
    let node = cluster.node("n1");
    let far = Version { micros: next(node).micros + 3_600_000_000, origin: 1 };
    let partition = place(node, "k");
    let request = Request::Prepare { partition, key: key("k"), ballot: far };
    node.replica.handle(request).await.expect_err("an hour ahead");
    let base = next(node);
    let request = Request::Accept { partition, base, record: record("k", base, "v") };
    node.replica.handle(request).await.expect_err("not above");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovering_node_promises_nothing_and_learns_what_it_may_have_promised() {
    let mut cluster = Cluster::started(&one_bucket(3).replace("300ms", "1h"), &THREE).await;
    let (old, ballot) = (next(cluster.node("n1")), next(cluster.node("n1")));
    for node in ["n1", "n3"] {
        promise(cluster.node(node), "k", ballot).await;
    }
    put(cluster.serving("n1"), "elsewhere", "v").await.expect("something to recover");
    cluster.crash("n3").await;
    cluster.lose_disk("n3");
    cluster.crash("n2").await;
    cluster.start("n3").await;
    eventually("it recovers", async || cluster.state("n3") == NodeState::Recovering).await;
    let node = cluster.node("n3").clone();
    let ballot_now = next(&node);
    let partition = place(&node, "k");
    let request = Request::Prepare { partition, key: key("k"), ballot: ballot_now };
    node.replica.handle(request).await.expect_err("no promise");
    let taken = offer(&node, record("k", old, "v"), false).await;
    assert!(matches!(taken, PutOutcome::Accepted { voting: false, .. }), "{taken:?}");
    cluster.start("n2").await;
    cluster.serves("n3").await;
    assert_eq!(node.replica.engine().highest_promise(partition), ballot);
    let again = offer(&node, record("k", old, "v"), false).await;
    assert!(matches!(again, PutOutcome::Accepted { voting: false, .. }), "{again:?}");
    let known = match prepare(cluster.node("n1"), "k", next(cluster.node("n1"))).await {
        PrepareOutcome::Promised { known, .. } => known,
        other => panic!("no promise: {other:?}"),
    };
    let folder = (node.replica.engine().node().clone(), node.replica.engine().incarnation());
    assert!(known.contains(&folder), "else the lost folder's promise would count");
}

/// A disk whose syncs wait while the gate is closed.
#[derive(Debug, Clone, Default)]
struct Gated(Arc<(parking_lot::Mutex<bool>, parking_lot::Condvar)>);

/// The gate is closed as long as this lives.
struct Closed(Gated);

impl Gated {
    fn close(&self) -> Closed {
        *self.0.0.lock() = true;
        Closed(self.clone())
    }

    fn pass(&self) {
        let mut closed = self.0.0.lock();
        while *closed {
            self.0.1.wait(&mut closed);
        }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        *self.0.0.0.lock() = false;
        self.0.0.1.notify_all();
    }
}

#[derive(Debug)]
struct GatedFile(Arc<dyn DiskFile>, Gated);

impl Disk for Gated {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        FsDisk.create_dir(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(GatedFile(FsDisk.open(path)?, self.clone())))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(GatedFile(FsDisk.create(path)?, self.clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        FsDisk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        FsDisk.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        FsDisk.sync_dir(dir)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        FsDisk.link(from, to)
    }
    fn exists(&self, path: &Path) -> bool {
        FsDisk.exists(path)
    }
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        FsDisk.lock(dir)
    }
    fn boot_id(&self) -> io::Result<String> {
        FsDisk.boot_id()
    }
}

impl DiskFile for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.0.allocate(bytes)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(buffer, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync_data()
    }
}

/// Begins a call and waits until its write is on its way into the journal.
async fn begun<T: Send + 'static>(
    node: &Node,
    name: &str,
    call: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    let task = tokio::spawn(call);
    let p = place(node, name);
    eventually("it is under way", async || !node.replica.engine().partition_status(p).quiet).await;
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_and_accepts_see_what_is_under_way_into_the_journal() {
    let gate = Gated::default();
    let mut cluster = Cluster::new(&one_bucket(1).replace("300ms", "1h"));
    cluster.disk = Arc::new(gate.clone());
    cluster.start("n1").await;
    cluster.serves("n1").await;
    let node = cluster.node("n1").clone();
    let (plain, ballot, repair, second) = (next(&node), next(&node), next(&node), next(&node));

    // The ceiling is on disk with this, so that no later call waits for that.
    promise(&node, "other", plain).await;

    // A plain write that passed before the promise is in the promise's answer.
    let closed = gate.close();
    let held = record("k", plain, "plain");
    let (one, two) = (node.clone(), node.clone());
    let writing = begun(&node, "k", async move { offer(&one, held, false).await }).await;
    let mut preparing = Box::pin(promise(&two, "k", ballot));
    assert!(futures::poll!(&mut preparing).is_pending(), "it waits for the append");
    drop(closed);
    assert_eq!(preparing.await, Some(("plain".into(), plain)));
    assert!(is_vote(&writing.await.expect("no panic")));

    // An Accept waits for a repair of what its proposer was not shown.
    promise(&node, "k", second).await;
    tokio::time::sleep(REPAIR_WAIT).await;
    let closed = gate.close();
    let held = record("k", repair, "repair");
    let one = node.clone();
    let repairing = begun(&node, "k", async move { offer(&one, held, true).await }).await;
    let mut accepting = Box::pin(accept(&node, plain, record("k", second, "second")));
    assert!(futures::poll!(&mut accepting).is_pending());
    drop(closed);
    assert_eq!(accepting.await, PutOutcome::Superseded { version: repair });
    assert!(is_vote(&repairing.await.expect("no panic")));

    // A repair below an Accept that is under way waits for it, and has lost.
    let closed = gate.close();
    let one = node.clone();
    let held = record("k", second, "second");
    let accepting = begun(&node, "k", async move { accept(&one, repair, held).await }).await;
    let late = Version { origin: u64::MAX, ..repair };
    let mut repairing = Box::pin(offer(&node, record("k", late, "late"), true));
    let waits = futures::poll!(&mut repairing).is_pending();
    drop(closed);
    assert!(waits && is_vote(&accepting.await.expect("no panic")));
    assert_eq!(repairing.await, PutOutcome::Superseded { version: second });
}
