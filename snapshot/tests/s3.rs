//! Claims about a store, made of a real S3 server over HTTP.
//!
//! The suite in `src/tests` shows the same of memory and folders, with faults; here it is shown
//! that requests, conditions and errors mean the same to somebody else's server. See `s3_server`
//! for which one, and for what happens without.

#[allow(unreachable_pub, reason = "shared with another package's tests by path")]
mod s3_server;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tako_snapshot::{
    Checkpoint, Coverage, PartitionReader, PartitionWriter, Published, SnapshotError,
    SnapshotOptions, Snapshots, StepInput, StepRow, Store, StoreError, StoreSettings,
    backup::{
        About, BackupName, Backups, Method, RecordFns, RestoreOptions, partitions_log2_of, restore,
    },
};
use tako_types::{
    Clock, ClusterId, ErrorKind, Incarnation, Key, Lsn, NodeId, PartitionId, RecordStat,
    StepNumber, SystemClock, Version,
};

use s3_server::{BUCKET, S3Server};

const P: PartitionId = PartitionId(5);
/// Far above the number of tables that starts a compaction.
const STEPS_MAX: u64 = 100;

/// A server of its own and a root in it.
struct World {
    server: S3Server,
    url: String,
    clock: Arc<Moved>,
}

/// The machine's clock, moved ahead by hand.
#[derive(Debug, Default)]
struct Moved {
    ahead_micros: AtomicU64,
}

impl Clock for Moved {
    fn now_micros(&self) -> u64 {
        SystemClock.now_micros() + self.ahead_micros.load(Ordering::Relaxed)
    }
}

impl World {
    fn new(test: &str) -> Option<Self> {
        let server = S3Server::find()?;
        let url = server.url(test);
        Some(Self { server, url, clock: Arc::default() })
    }

    fn settings(&self) -> StoreSettings {
        StoreSettings {
            url: self.url.clone(),
            endpoint: Some(self.server.endpoint.clone()),
            region: Some("us-east-1".to_owned()),
            access_key_id: Some(self.server.access_key_id.clone()),
            secret_access_key: Some(self.server.secret_access_key.clone()),
            path_style: Some(true),
            allow_http: Some(true),
        }
    }

    /// A client of its own, as each process has.
    fn store(&self) -> Store {
        Store::open(&self.settings()).expect("settings of a store")
    }

    async fn node(&self) -> Arc<Snapshots> {
        let options = SnapshotOptions {
            cache_memory_bytes: 8 << 20,
            compaction_poll: Duration::from_millis(50),
            maintain_patience: Duration::from_secs(60),
            ..SnapshotOptions::default()
        };
        Snapshots::new(self.store(), options, self.clock.clone(), Ord::max)
            .await
            .expect("valid options")
    }
}

fn key(name: &str) -> Bytes {
    let key = Key::new(0, Bytes::copy_from_slice(name.as_bytes())).expect("a short key");
    key.stored().as_bytes().clone()
}

/// A step of plain puts at this time that covers up to this LSN. The record is time and text, so
/// that the greater bytes are the newer record.
fn step(time: u64, rows: &[(&str, &str)]) -> StepInput {
    let version = Version { micros: time, origin: 1 };
    let row = |(name, text): &(&str, &str)| StepRow {
        key: key(name),
        record: Bytes::from(format!("{time:020}{text}")),
        stat: RecordStat::value(version, text.len()),
        newest: !time.is_multiple_of(3),
    };
    StepInput {
        rows: rows.iter().map(row).collect(),
        coverage: Coverage::from([(NodeId::new("n1"), (Incarnation(1), Lsn(time)))]),
        highest: version,
        ..StepInput::default()
    }
}

async fn text(reader: &PartitionReader, name: &str) -> Option<String> {
    let found = reader.get(&key(name)).await.expect("a read");
    found.map(|bytes| String::from_utf8(bytes[20..].to_vec()).expect("text"))
}

/// Steps until a compaction has run; the last step.
async fn steps_until_compacted(writer: &mut PartitionWriter, from: u64) -> u64 {
    for n in from..from + STEPS_MAX {
        let (always, once) = (format!("v{n}"), format!("once-{n}"));
        writer.step(step(n, &[("always", &always), (&once, "x")])).await.expect("a step");
        if writer.maintain().await.expect("maintenance").compacted {
            return n;
        }
    }
    panic!("no compaction in {STEPS_MAX} steps");
}

#[tokio::test]
async fn a_real_s3_server_passes_the_probe_and_is_left_clean() {
    let Some(world) = World::new("probe") else { return };
    let store = world.store();
    store.probe().await.expect("conditions, races, listings and ranges");
    let left = store.object_store().list_with_delimiter(Some(store.root())).await.expect("listed");
    assert_eq!((left.objects.len(), left.common_prefixes.len()), (0, 0));
}

/// Judges a server: `cargo test -p tako-snapshot --test s3 -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "minutes of load; one probe is part of every start"]
async fn a_real_s3_server_passes_six_hundred_probes() {
    let Some(world) = World::new("probes") else { return };
    let store = world.store();
    let mut refused = 0;
    for _ in 0..100 {
        let probes = futures::future::join_all((0..6).map(|_| store.probe())).await;
        for error in probes.into_iter().filter_map(Result::err) {
            println!("{error}");
            refused += 1;
        }
    }
    assert_eq!(refused, 0, "of 600");
}

#[tokio::test]
async fn what_cannot_be_used_is_told_from_what_is_away() {
    let Some(world) = World::new("errors") else { return };
    let mut nowhere = world.settings();
    nowhere.url = format!("s3://{BUCKET}-that-is-not-there/x");
    let error = Store::open(&nowhere).expect("settings").probe().await.expect_err("no bucket");
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");

    let (store, settings) = (world.store(), world.settings());
    let ours = world.server.is_ours();
    drop(world);
    if ours {
        // The server is gone.
        let error = store.cluster_id(None).await.expect_err("nobody answers");
        assert!(error.kind().retry(), "{error:?}");
        let error = Store::open(&settings).expect("settings").probe().await.expect_err("nobody");
        assert!(error.kind().retry(), "{error:?}");
    }
}

#[tokio::test]
async fn the_first_cluster_id_and_the_first_document_of_a_number_stay() {
    let Some(world) = World::new("documents") else { return };
    let (one, two) = (world.store(), world.store());
    assert_eq!(one.cluster_id(None).await.expect("a look"), None);
    let (first, second) =
        tokio::join!(one.cluster_id(Some(ClusterId(7))), two.cluster_id(Some(ClusterId(8))));
    let first = first.expect("created or read");
    assert_eq!(first, second.expect("read or created"));
    assert_eq!(one.cluster_id(None).await.expect("read"), first);

    assert_eq!(one.latest_config().await.expect("a look"), None);
    let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
    assert_eq!(one.publish_config(9, a.clone()).await.expect("first"), Published::Written);
    let lost = two.publish_config(9, b.clone()).await.expect("second");
    assert_eq!(lost, Published::Exists(a.clone()));
    assert_eq!(two.publish_config(9, a.clone()).await.expect("same"), Published::Written);
    two.publish_config(10, b.clone()).await.expect("next");
    assert_eq!(one.latest_config().await.expect("latest"), Some((10, b)));
    assert_eq!(one.config(9).await.expect("one"), Some(a));
    assert_eq!(one.config(11).await.expect("none"), None);
}

#[tokio::test]
async fn a_step_is_read_back_and_a_second_writer_fences_the_first() {
    let Some(world) = World::new("steps") else { return };
    let (one, two) = (world.node().await, world.node().await);
    assert!(one.reader_latest(P).await.expect("a look").is_none());
    let mut old = one.writer(P).await.expect("a writer");
    let first = old.step(step(1, &[("a", "one"), ("b", "kept")])).await.expect("a step");
    assert_eq!(first.meta.step, StepNumber(1));

    // By the announcement, and by a node that never heard one.
    let told = two.reader_at(P, first.checkpoint).await.expect("a reader");
    let found = two.reader_latest(P).await.expect("a look").expect("a reader");
    assert_eq!(found.checkpoint(), first.checkpoint);
    for reader in [&told, &found] {
        assert_eq!(reader.meta(), &first.meta);
        assert_eq!(text(reader, "a").await.as_deref(), Some("one"));
        assert_eq!(text(reader, "none").await, None);
    }

    // A step larger than what goes in one request.
    let large = "x".repeat(12 << 20);
    let mut new = two.writer(P).await.expect("a take-over");
    assert_eq!(new.meta(), &first.meta);
    let error = old.step(step(2, &[("a", "lost")])).await.expect_err("fenced");
    assert!(matches!(error, SnapshotError::Fenced), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let second = new.step(step(4, &[("a", "two"), ("c", &large)])).await.expect("a step");
    assert_eq!(second.meta.step, StepNumber(2));

    let now = one.reader_at(P, second.checkpoint).await.expect("a reader");
    assert_eq!(text(&now, "a").await.as_deref(), Some("two"));
    assert_eq!(text(&now, "b").await.as_deref(), Some("kept"));
    assert_eq!(text(&now, "c").await.map(|text| text.len()), Some(large.len()));
    // The older reader goes on with its step.
    assert_eq!(text(&told, "a").await.as_deref(), Some("one"));
    for reader in [told, found, now] {
        reader.close().await;
    }
    new.close().await;
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn compaction_and_collection_keep_every_record_and_free_old_files() {
    let Some(world) = World::new("compaction") else { return };
    let node = world.node().await;
    let mut writer = node.writer(P).await.expect("a writer");
    let first = writer.step(step(1, &[("old", "x")])).await.expect("a step");
    let lagging = node.reader_at(P, first.checkpoint).await.expect("a reader");
    let last = steps_until_compacted(&mut writer, 2).await;
    assert!(writer.l0_tables() < 4, "{} tables left", writer.l0_tables());
    assert_eq!(text(&lagging, "old").await.as_deref(), Some("x"));

    // All leases end; the next step brings a new one and a collection.
    world.clock.ahead_micros.fetch_add(3 * 3_600_000_000, Ordering::Relaxed);
    let done = writer.step(step(last + 1, &[("new", "y")])).await.expect("a step");
    let before = node.store().counts();
    let maintained = writer.maintain().await.expect("maintenance");
    assert!(maintained.collected, "{maintained:?}");
    assert!(0 < node.store().counts().since(&before).deletes, "nothing was deleted");
    check_gone(&node, first.checkpoint).await;

    // With a cold cache.
    let fresh = world.node().await;
    let reader = fresh.reader_at(P, done.checkpoint).await.expect("a reader");
    assert_eq!(text(&reader, "always").await, Some(format!("v{last}")));
    for (name, expected) in [("old", "x"), ("new", "y"), ("once-2", "x")] {
        assert_eq!(text(&reader, name).await.as_deref(), Some(expected), "{name}");
    }
    let rows = reader.scan(.., 1_000).await.expect("a scan").rows.len() as u64;
    assert_eq!(rows, (last - 1) + 3, "one for each step, always, old and new");
    node.close().await;
    fresh.close().await;
}

async fn check_gone(node: &Snapshots, checkpoint: Checkpoint) {
    let error = node.reader_at(P, checkpoint).await.err().expect("collected");
    assert!(matches!(error, SnapshotError::Gone), "{error:?}");
}

const RECORDS: RecordFns = RecordFns {
    merge: Ord::max,
    inspect: |_, record| {
        let time = record.get(..20).and_then(|time| std::str::from_utf8(time).ok()?.parse().ok());
        let version = |micros| Version { micros, origin: 1 };
        time.map(|micros| RecordStat::value(version(micros), record.len() - 20))
            .ok_or_else(|| "no time".to_owned())
    },
};

#[tokio::test]
async fn a_backup_is_made_verified_restored_by_copy_and_clone_and_deleted() {
    let Some(world) = World::new("backup") else { return };
    let (store, node) = (world.store(), world.node().await);
    store.cluster_id(Some(ClusterId(7))).await.expect("an id");
    let mut content = Vec::new();
    // Some keys of each of two partitions, in two steps.
    for p in [PartitionId(5), PartitionId(6)] {
        let of_p = |name: &String| {
            Key::new(0, Bytes::from(name.clone())).expect("short").stored().partition(5) == p
        };
        let names: Vec<String> = (0..).map(|n| format!("key-{n}")).filter(of_p).take(30).collect();
        let mut writer = node.writer(p).await.expect("a writer");
        for time in [1, 2] {
            let rows: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
            writer.step(step(time, &rows)).await.expect("a step");
        }
        content.extend(names);
    }
    assert_eq!(partitions_log2_of(&store).await.expect("a list"), Some(5));
    let backups =
        Backups::open(store.clone(), 5, world.clock.clone(), RECORDS).await.expect("opened");
    let name = BackupName::new("one").expect("a name");
    let backup = backups.create(&name, About::default(), &|_| {}).await.expect("a backup");
    let verified = backups.verify(&backup, &|_| {}).await.expect("read");
    assert_eq!((verified.total().records, verified.damage.len()), (60, 0));

    for (method, log2, beside) in
        [(Method::Copy, 3, "copied"), (Method::Clone, 4, "fewer"), (Method::Clone, 6, "more")]
    {
        let url = format!("{}-{beside}", world.url);
        let into = store.open_beside(&world.settings(), &url).expect("a root");
        let cluster = ClusterId(100 + u128::from(log2));
        let options = RestoreOptions {
            partitions_log2: log2,
            method,
            verify: true,
            cluster,
            configuration: None,
        };
        let (clock, observe) = (world.clock.clone(), &|_| {});
        let restored =
            restore(&backups, Some(&backup), into.clone(), &options, clock, RECORDS, observe).await;
        let counts = restored.expect("restored").counts.expect("verified");
        assert_eq!(counts.values().map(|count| count.records).sum::<u64>(), 60);
        // As a process that knows nothing but the new root.
        let mut settings = world.settings();
        settings.url = url;
        let fresh = Store::open(&settings).expect("a store");
        assert_eq!(fresh.cluster_id(None).await.expect("read"), Some(cluster));
        let options = SnapshotOptions {
            partitions_log2: log2,
            cache_memory_bytes: 8 << 20,
            ..SnapshotOptions::default()
        };
        let other =
            Snapshots::new(fresh, options, world.clock.clone(), Ord::max).await.expect("valid");
        for name in &content {
            let p = Key::new(0, Bytes::from(name.clone())).expect("short").stored().partition(log2);
            let reader = other.reader_latest(p).await.expect("a look").expect("a reader");
            assert_eq!(text(&reader, name).await.as_deref(), Some("x"), "{beside}: {name}");
            reader.close().await;
        }
        other.close().await;
    }
    assert!(backups.delete(&name).await.expect("deleted"));
    assert_eq!(backups.list().await.expect("a list").len(), 0);
    node.close().await;
}
