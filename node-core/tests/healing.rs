//! Background healing: what rotted in the store, in a cache or in a journal file is found.

mod common;

use std::{path::Path, time::Duration};

use bytes::Bytes;
use common::{Cluster, eventually, get, key, one_bucket, put};
use tako_flatbuf::{
    OrphanOrder, PartitionScrub, Record, RecordHead, Request, Response, ScrubOrder, ScrubReport,
    StepAnnouncement,
};
use tako_node_core::node::Node;
use tako_snapshot::{StepInput, StepRow};
use tako_types::{Kind, NodeId, PartitionId, RecordStat, Version};

const THREE: [&str; 3] = ["n1", "n2", "n3"];
const P: PartitionId = PartitionId(0);

/// One partition and no steps but those that a test asks for.
fn one_partition(nodes: usize) -> String {
    one_bucket(nodes).replace("partitions: 4", "partitions: 1").replace("300ms", "1h")
}

async fn scrubbed(node: &Node, order: ScrubOrder) -> ScrubReport {
    node.healer.on_order(&ScrubOrder { start: true, ..order }).expect("it holds the partition");
    eventually("the scrub is done", async || {
        let report = node.healer.report();
        report.waiting.is_empty() && !report.journal_waiting && !report.orphans_waiting
    })
    .await;
    node.healer.report()
}

async fn scrub(node: &Node) -> PartitionScrub {
    let order = ScrubOrder { partitions: vec![P], ..ScrubOrder::default() };
    let report = scrubbed(node, order).await;
    let row = *report.partitions.first().expect("a pass");
    assert!(row.whole && !row.running, "{row:?}");
    row
}

async fn step(node: &Node) {
    node.snapshotter.step_here(P).await.expect("a step");
}

/// Commits a step as a snapshotter does that is wrong about what is in it: the replicas are told
/// that they missed nothing.
async fn commit_wrongly(cluster: &Cluster, name: &str, record: Bytes, claimed: Version) {
    let mut writer =
        cluster.node("n1").replica.engine().snapshots().writer(P).await.expect("a writer");
    let previous = writer.meta().step;
    let stat = RecordStat::value(claimed, 0);
    let row = StepRow { key: key(name).as_bytes().clone(), record, stat, newest: true };
    let input = StepInput { rows: vec![row], highest: claimed, ..StepInput::default() };
    let committed = writer.step(input).await.expect("a step");
    for node in cluster.nodes.values() {
        let coverage = committed.meta.coverage.iter();
        let announcement = StepAnnouncement {
            partition: P,
            step: committed.meta.step,
            manifest: committed.checkpoint.manifest,
            checkpoint: committed.checkpoint.id,
            highest: committed.meta.highest,
            coverage: coverage.map(|(node, (inc, lsn))| (node.clone(), *inc, *lsn)).collect(),
            previous,
            missed: Some(Vec::new()),
        };
        let answer = node.replica.handle(Request::Step(announcement)).await.expect("installed");
        assert_eq!(answer, Response::Step { step: committed.meta.step });
    }
    writer.close().await;
}

fn above(node: &Node) -> Version {
    let highest = node.replica.engine().view(P).expect("open").meta.highest;
    Version { micros: highest.micros + 1, origin: 1 }
}

async fn voted(node: &Node, name: &str) -> Record {
    let vote = node.replica.engine().vote(P, &key(name)).await.expect("a vote");
    vote.record.expect("a record")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_in_the_snapshot_is_healed_by_a_replica_that_has_it_intact() {
    let cluster = Cluster::started(&one_partition(3), &THREE).await;
    cluster.fill("n1", 10, "value").await;
    step(cluster.node("n1")).await;
    assert_eq!(scrub(cluster.node("n1")).await.bad, 0);
    // Every replica has what it wrote in its cache. In the snapshot a byte turns.
    let intact = voted(cluster.node("n1"), "k3").await;
    let mut rotten = intact.bytes().to_vec();
    let at = rotten.windows(5).position(|five| five == b"value").expect("the value");
    rotten[at] ^= 1;
    commit_wrongly(&cluster, "k3", Bytes::from(rotten), above(cluster.node("n1"))).await;

    let found = scrub(cluster.node("n2")).await;
    assert_eq!((found.records, found.bad, found.healed), (10, 1, 1), "{found:?}");
    let findings = cluster.node("n2").healer.report().findings;
    assert!(findings[0].contains("healed by a replica's intact one"), "{findings:?}");
    step(cluster.node("n2")).await;
    let again = scrub(cluster.node("n3")).await;
    assert_eq!((again.records, again.bad), (10, 0), "{again:?}");
    // From the snapshot alone.
    let key = key("k3");
    for id in THREE {
        cluster.node(id).replica.engine().forget_cached(P, &key);
        assert_eq!(voted(cluster.node(id), "k3").await, intact, "{id}");
    }
}

/// The tombstone above what was found may have been purged by then.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_intact_long_ago_is_not_written_back() {
    let mut cluster = Cluster::started(&one_partition(3), &THREE).await;
    let clock = cluster.clock("n2");
    cluster.fill("n1", 3, "value").await;
    step(cluster.node("n1")).await;
    let mut rotten = voted(cluster.node("n1"), "k1").await.bytes().to_vec();
    let at = rotten.windows(5).position(|five| five == b"value").expect("the value");
    rotten[at] ^= 1;
    commit_wrongly(&cluster, "k1", Bytes::from(rotten), above(cluster.node("n1"))).await;
    // The look for an intact one waits for n3, and meanwhile half of the grace goes by.
    cluster.network.cut("n2", "n3");
    let order = ScrubOrder { start: true, partitions: vec![P], ..ScrubOrder::default() };
    let healer = cluster.node("n2").healer.clone();
    healer.on_order(&order).expect("it holds the partition");
    let row = || healer.report().partitions.first().copied().unwrap_or_default();
    eventually("the bad record is met", async || row().bad == 1).await;
    clock.skew(13 * 3_600 * 1_000_000);
    eventually("the pass is over", async || row().whole).await;
    assert_eq!(row().healed, 0);
    let findings = healer.report().findings;
    assert!(findings[0].contains("not healed: the write came too late"), "{findings:?}");
    let status = cluster.node("n2").replica.engine().partition_status(P);
    assert_eq!(status.uncovered, 0, "the next step would write it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_that_nobody_has_intact_is_told_and_left() {
    let mut cluster = Cluster::started(&one_partition(1), &["n1"]).await;
    cluster.fill("n1", 3, "value").await;
    step(cluster.node("n1")).await;
    let mut rotten = voted(cluster.node("n1"), "k1").await.bytes().to_vec();
    let at = rotten.windows(5).position(|five| five == b"value").expect("the value");
    rotten[at] ^= 1;
    commit_wrongly(&cluster, "k1", Bytes::from(rotten), above(cluster.node("n1"))).await;
    cluster.crash("n1").await;
    cluster.start_all(&["n1"]).await;
    let found = scrub(cluster.node("n1")).await;
    assert_eq!((found.bad, found.healed), (1, 0));
    let findings = cluster.node("n1").healer.report().findings;
    assert!(findings[0].contains("not healed: no replica has it intact"), "{findings:?}");
}

/// What replicas have may be older than what was there, such as a tombstone.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_that_does_not_say_its_version_is_replaced_by_nothing() {
    let cluster = Cluster::started(&one_partition(3), &THREE).await;
    cluster.fill("n1", 3, "value").await;
    step(cluster.node("n1")).await;
    voted(cluster.node("n1"), "k1").await;
    let claimed = above(cluster.node("n1"));
    commit_wrongly(&cluster, "k1", Bytes::from_static(b"no record"), claimed).await;
    let found = scrub(cluster.node("n1")).await;
    assert_eq!((found.bad, found.healed), (1, 0));
    let findings = cluster.node("n1").healer.report().findings;
    assert!(findings[0].contains("not healed: it does not say its version"), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_rotted_in_the_store_is_found_although_it_is_cached_and_the_rest_is_read() {
    let cluster = Cluster::started(&one_partition(1), &["n1"]).await;
    let value = "x".repeat(1_000);
    cluster.fill("n1", 300, &value).await;
    step(cluster.node("n1")).await;
    let engine = cluster.node("n1").replica.engine().clone();
    for n in 0..300 {
        let key = key(&format!("k{n}"));
        engine.forget_cached(P, &key);
        engine.vote(P, &key).await.expect("into the block cache");
    }
    let sound = scrub(cluster.node("n1")).await;
    assert_eq!((sound.records, sound.unreadable, sound.bad), (300, 0, 0));
    assert!(sound.bytes > 300_000 && sound.total_bytes > 300_000, "{sound:?}");

    flip_a_byte_of_a_table(&cluster).await;
    engine.forget_cached(P, &key("k7"));
    engine.vote(P, &key("k7")).await.expect("the block cache has it");
    let found = scrub(cluster.node("n1")).await;
    assert!(found.unreadable > 0, "{found:?}");
    assert!((250..300).contains(&found.records), "{found:?}");
    let findings = cluster.node("n1").healer.report().findings;
    assert!(findings[0].contains("cannot be read"), "{findings:?}");
}

/// In the middle of the only table.
async fn flip_a_byte_of_a_table(cluster: &Cluster) {
    use futures::TryStreamExt as _;
    use object_store::{ObjectStore as _, ObjectStoreExt as _};
    let store = cluster.store.object_store();
    let objects: Vec<_> = store.list(None).try_collect().await.expect("listed");
    let table = objects
        .iter()
        .filter(|object| object.location.as_ref().contains("/compacted/"))
        .max_by_key(|object| object.size)
        .expect("a table");
    let bytes = store.get(&table.location).await.expect("there").bytes().await.expect("read");
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    store.put(&table.location, bytes.into()).await.expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_record_older_than_the_snapshot_is_found_on_every_replica_and_dropped() {
    let cluster = Cluster::started(&one_partition(3), &THREE).await;
    cluster.fill("n1", 10, "old").await;
    step(cluster.node("n1")).await;
    let version = above(cluster.node("n1"));
    let head = RecordHead { version, kind: Kind::Value, expires_at_micros: 0, flags: 0 };
    let newer = Record::encode(&key("k4"), head, None, b"new");
    commit_wrongly(&cluster, "k4", newer.bytes().clone(), version).await;
    for id in THREE {
        assert_eq!(common::text(&voted(cluster.node(id), "k4").await), "old", "{id} believes it");
    }
    eventually("n2 sees the others serve", async || {
        let membership = &cluster.serving("n2").links().membership;
        ["n1", "n3"].iter().all(|id| membership.read_rank(&NodeId::new(id)) == 0)
    })
    .await;
    assert_eq!(scrub(cluster.node("n2")).await.stale, 3);
    for id in THREE {
        assert_eq!(common::text(&voted(cluster.node(id), "k4").await), "new", "{id}");
    }
    assert_eq!(scrub(cluster.node("n2")).await.stale, 0);
}

/// Flips a byte in the middle of a journal file.
fn rot(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a journal file");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
    bytes[used / 2] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

fn journal_files(cluster: &Cluster, id: &str) -> Vec<std::path::PathBuf> {
    let folder = cluster.node(id).data_folder().join("journal");
    let entries = std::fs::read_dir(folder).expect("the journal's folder");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "log"));
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_file_that_rots_is_found_at_run_time_and_what_it_held_is_written_anew() {
    let mut cluster = Cluster::new(&one_partition(3));
    cluster.journal_file_bytes = 256 << 10;
    cluster.start_all(&THREE).await;
    let value = "x".repeat(10_000);
    cluster.fill("n1", 60, &value).await;
    let files = journal_files(&cluster, "n1");
    assert!(files.len() >= 3, "{files:?}");
    let order = || ScrubOrder { journal: true, ..ScrubOrder::default() };
    let sound = scrubbed(cluster.node("n1"), order()).await.journal;
    assert_eq!((sound.files, sound.bad), (files.len() as u64 - 1, 0));

    rot(&files[1]);
    let found = scrubbed(cluster.node("n1"), order()).await;
    assert_eq!((found.journal.bad, found.journal.lost), (1, 0), "{found:?}");
    eventually("the bad file goes", async || !files[1].exists()).await;
    // No damage is left that a start would find.
    cluster.crash("n1").await;
    cluster.start("n1").await;
    assert_ne!(cluster.state("n1"), tako_flatbuf::NodeState::Recovering);
    cluster.serves("n1").await;
    for n in 0..60 {
        let found = get(cluster.serving("n1"), &format!("k{n}")).await.expect("read");
        assert_eq!(found.as_ref(), Some(&value), "k{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_only_the_rotten_file_held_is_fetched_from_another_replica() {
    let mut cluster =
        Cluster::new(&format!("journal: {{memory: 1MiB, disk: 64MiB}}\n{}", one_partition(3)));
    cluster.journal_file_bytes = 1 << 20;
    cluster.start_all(&THREE).await;
    // Beyond `journal.memory`: the first ones are in the files alone.
    let value = "x".repeat(40_000);
    cluster.fill("n1", 80, &value).await;
    rot(&journal_files(&cluster, "n1")[0]);
    let order = ScrubOrder { journal: true, ..ScrubOrder::default() };
    let found = scrubbed(cluster.node("n1"), order).await;
    assert_eq!((found.journal.bad, found.journal.lost), (1, 0), "{found:?}");
    for n in 0..80 {
        let vote = voted(cluster.node("n1"), &format!("k{n}")).await;
        assert_eq!(vote.value().len(), value.len(), "k{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_told_and_none_is_deleted_that_is_young_or_not_of_tako() {
    use object_store::ObjectStoreExt as _;
    let cluster = Cluster::started(&one_partition(1), &["n1"]).await;
    put(cluster.serving("n1"), "k", "v").await.expect("written");
    step(cluster.node("n1")).await;
    let order = |orphans| ScrubOrder { orphans, ..ScrubOrder::default() };
    let none = scrubbed(cluster.node("n1"), order(OrphanOrder::Find)).await.orphans;
    assert_eq!((none.found, none.failed), (0, None), "{:?}", none.listed);
    let store = cluster.store.object_store();
    for path in ["partitions/3-1/db/x", "notes.txt", "other/thing"] {
        store.put(&path.into(), "x".into()).await.expect("written");
    }
    let before = cluster.store.counts().deletes;
    let found = scrubbed(cluster.node("n1"), order(OrphanOrder::Delete)).await.orphans;
    assert_eq!(found.deleted, 0, "{found:?}");
    assert_eq!(cluster.store.counts().deletes, before);
}

#[tokio::test(start_paused = true)]
async fn a_round_reads_every_partition_once_per_interval_by_one_replica_one_at_a_time() {
    let healing = "background_healing_interval: 8m\n    hash:";
    let config = one_bucket(3).replace("hash:", healing);
    let mut cluster = Cluster::in_runtime_time(&config);
    cluster.start_all(&THREE).await;
    cluster.fill("n1", 40, "value").await;
    cluster.covered().await;
    let began = tokio::time::Instant::now();
    let mut seen: Vec<(PartitionId, Duration)> = Vec::new();
    let mut before = std::collections::BTreeSet::new();
    while began.elapsed() < Duration::from_secs(24 * 60) {
        let rows: Vec<_> = cluster
            .nodes
            .iter()
            .flat_map(|(id, node)| {
                node.healer.report().partitions.into_iter().map(move |row| (id, row))
            })
            .collect();
        assert!(rows.iter().filter(|(_, row)| row.running).count() <= 1, "two at once");
        for (id, row) in rows {
            if !row.whole || !before.insert((id.clone(), row.partition, row.begun_micros)) {
                continue;
            }
            seen.push((row.partition, began.elapsed()));
            assert_eq!((row.bad, row.unreadable, row.stale), (0, 0, 0));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(seen.len(), 12, "{seen:?}");
    for pair in seen.windows(2) {
        let apart = pair[1].1 - pair[0].1;
        assert!(apart >= Duration::from_secs(110), "{seen:?}");
        assert!(apart <= Duration::from_secs(130), "{seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn healing_stops_and_starts_with_the_configuration() {
    let config = one_bucket(1)
        .replace("hash:", "background_healing: no\n    background_healing_interval: 2m\n    hash:");
    let mut cluster = Cluster::in_runtime_time(&config);
    cluster.start_all(&["n1"]).await;
    cluster.fill("n1", 10, "value").await;
    cluster.covered().await;
    let passes = |cluster: &Cluster| cluster.node("n1").healer.report().partitions.len();
    tokio::time::sleep(Duration::from_secs(5 * 60)).await;
    assert_eq!(passes(&cluster), 0);
    let on = config.replace("healing: no", "healing: yes");
    std::fs::write(cluster.dir.path().join("config.yaml"), format!("cache: {{disk: 0}}\n{on}"))
        .expect("a small file");
    tokio::time::sleep(Duration::from_secs(2 * 60 + 10)).await;
    assert_eq!(passes(&cluster), 4);
}
