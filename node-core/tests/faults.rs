//! Stores, disks, clocks and networks that fail under a running cluster.

mod common;

use std::{io, sync::Arc, time::Duration};

use common::{Cluster, eventually, get, one_bucket, put, text, write};
use tako_flatbuf::NodeState;
use tako_journal::{
    FsDisk, Identity,
    fault::{Call, Fault, FaultDisk},
};
use tako_node_core::replication::{Read, Write};
use tako_snapshot::fault::{Match, When};
use tako_types::PartitionId;

const THREE: [&str; 3] = ["n1", "n2", "n3"];

fn with_disk(config: &str) -> (Cluster, FaultDisk) {
    let mut cluster = Cluster::new(config);
    let disk = FaultDisk::new(Arc::new(FsDisk));
    cluster.disk = Arc::new(disk.clone());
    (cluster, disk)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_outage_stops_no_request_and_is_made_up_for_afterwards() {
    let cluster = Cluster::started(&one_bucket(3), &THREE).await;
    put(cluster.serving("n1"), "before", "v").await.expect("written");
    cluster.covered().await;
    cluster.faults.refuse_all();
    for n in 0..30 {
        put(cluster.serving("n1"), &format!("k{n}"), "v").await.expect("the journal takes it");
        let found = get(cluster.serving("n2"), &format!("k{n}")).await.expect("read");
        assert_eq!(found.as_deref(), Some("v"));
    }
    cluster.faults.clear();
    cluster.covered().await;
    for n in 0..30 {
        assert!(get(cluster.serving("n3"), &format!("k{n}")).await.expect("read").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_slows_steps_and_no_writes() {
    let cluster = Cluster::started(&one_bucket(3), &THREE).await;
    cluster.faults.slow(Some(Duration::from_millis(300)));
    let started = std::time::Instant::now();
    for n in 0..50 {
        put(cluster.serving("n1"), &format!("k{n}"), "v").await.expect("written");
    }
    assert!(started.elapsed() < Duration::from_secs(15), "writes do not wait for the store");
    cluster.covered().await;
    cluster.faults.slow(None);
    assert_eq!(get(cluster.serving("n2"), "k7").await.expect("read").as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_at_any_store_call_loses_nothing() {
    let config = one_bucket(1).replace("300ms", "1h");
    let mut cluster = Cluster::started(&config, &["n1"]).await;
    let mut expected = Vec::new();
    for n in 0..24 {
        let name = format!("k{n}");
        put(cluster.serving("n1"), &name, &name).await.expect("written");
        expected.push(name);
        let when = if n % 2 == 0 { When::Before } else { When::After };
        cluster.faults.fail_nth(Match::any(), n, when);
        let p = common::key(&format!("k{n}")).partition(2);
        let _ = cluster.node("n1").snapshotter.step_here(p).await;
        cluster.faults.clear();
        if n % 5 == 4 {
            // As if it had been killed there.
            cluster.crash("n1").await;
            cluster.start("n1").await;
            cluster.serves("n1").await;
        }
        for name in &expected {
            let found = get(cluster.serving("n1"), name).await.expect("read");
            assert_eq!(found.as_ref(), Some(name), "after failing call {n}");
        }
    }
    for p in 0..4 {
        cluster.node("n1").snapshotter.step_here(PartitionId(p)).await.expect("a step");
    }
    cluster.crash("n1").await;
    cluster.lose_disk("n1");
    cluster.start("n1").await;
    cluster.serves("n1").await;
    for name in &expected {
        assert_eq!(get(cluster.serving("n1"), name).await.expect("read").as_ref(), Some(name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_snapshotters_at_once_waste_work_and_nothing_else() {
    let config = one_bucket(3).replace("300ms", "1h");
    let mut cluster = Cluster::started(&config, &THREE).await;
    for round in 0..6 {
        // Some again and again, and some once: what one round loses no later one makes up for.
        for n in 0..20 {
            for name in [format!("k{n}"), format!("k{n} of {round}")] {
                put(cluster.serving("n2"), &name, &format!("{round}")).await.expect("written");
            }
        }
        let steps = THREE.iter().flat_map(|id| (0..4).map(move |p| (id, PartitionId(p))));
        let steps = steps.map(|(id, p)| {
            let snapshotter = cluster.node(id).snapshotter.clone();
            async move { snapshotter.step_here(p).await }
        });
        futures::future::join_all(steps).await;
    }
    for id in THREE {
        for p in 0..4 {
            let _ = cluster.node(id).snapshotter.step_here(PartitionId(p)).await;
        }
    }
    cluster.crash_all().await;
    for id in THREE {
        cluster.lose_disk(id);
        cluster.start(id).await;
    }
    for id in THREE {
        cluster.serves(id).await;
        for n in 0..20 {
            let found = get(cluster.serving(id), &format!("k{n}")).await.expect("read");
            assert_eq!(found.as_deref(), Some("5"), "k{n} through {id}");
            for round in 0..6 {
                let name = format!("k{n} of {round}");
                let found = get(cluster.serving(id), &name).await.expect("read");
                assert_eq!(found, Some(format!("{round}")), "{name} through {id}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fsync_stops_acknowledgements_for_good_and_loses_none() {
    let (mut cluster, disk) = with_disk(&one_bucket(1).replace("300ms", "1h"));
    cluster.start("n1").await;
    cluster.serves("n1").await;
    put(cluster.serving("n1"), "kept", "v").await.expect("written");
    disk.fail_nth(Call::SyncData, 1, Fault::Error(io::ErrorKind::Other));
    assert!(put(cluster.serving("n1"), "lost?", "v").await.is_err());
    disk.heal();
    assert!(put(cluster.serving("n1"), "later", "v").await.is_err(), "the first error is final");
    assert_eq!(get(cluster.serving("n1"), "kept").await.expect("read").as_deref(), Some("v"));
    cluster.crash("n1").await;
    cluster.start("n1").await;
    cluster.serves("n1").await;
    assert_eq!(get(cluster.serving("n1"), "kept").await.expect("read").as_deref(), Some("v"));
    put(cluster.serving("n1"), "later", "v").await.expect("it serves again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_whose_journal_failed_votes_after_a_restart_only_when_refilled() {
    let (mut cluster, disk) = with_disk(&one_bucket(3).replace("300ms", "1h"));
    cluster.start("n1").await;
    cluster.disk = Arc::new(FsDisk);
    for id in ["n2", "n3"] {
        cluster.start(id).await;
    }
    for id in THREE {
        cluster.serves(id).await;
    }
    put(cluster.serving("n1"), "kept", "v").await.expect("written");
    disk.fail_nth(Call::SyncData, 1, Fault::Error(io::ErrorKind::Other));
    put(cluster.serving("n1"), "elsewhere", "v").await.expect("the others have it");
    // Which may be before this node's own sync; the fault waits for that, and is met once.
    let folder = cluster.node("n1").data_folder().to_owned();
    eventually("its folder is marked", async || {
        let identity = Identity::load(&FsDisk, &folder).expect("intact").expect("there");
        !identity.recovered
    })
    .await;
    // Until it is restarted it votes: what it knows was durable when it learnt it.
    assert_eq!(get(cluster.serving("n1"), "kept").await.expect("read").as_deref(), Some("v"));
    for id in THREE {
        cluster.crash(id).await;
    }
    cluster.start("n1").await;
    eventually("it was looked at", async || cluster.state("n1") != NodeState::Starting).await;
    assert_eq!(cluster.state("n1"), NodeState::Recovering, "it must be refilled first");
    assert!(!cluster.node("n1").replica.engine().is_voting(PartitionId(0)));
    cluster.start("n2").await;
    cluster.start("n3").await;
    cluster.serves("n1").await;
    assert_eq!(get(cluster.serving("n1"), "kept").await.expect("read").as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_keeps_reads_and_ends_with_the_shortage() {
    let (mut cluster, disk) = with_disk(&one_bucket(1).replace("300ms", "1h"));
    cluster.start("n1").await;
    cluster.serves("n1").await;
    put(cluster.serving("n1"), "k", "v").await.expect("written");
    disk.set_space(Some(34 << 20));
    let big = "x".repeat(1 << 20);
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for n in 0..60 {
        match put(cluster.serving("n1"), &format!("big{n}"), &big).await {
            Ok(_) => acknowledged.push(n),
            Err(error) => {
                assert_eq!(error.kind(), tako_types::ErrorKind::Busy, "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && !acknowledged.is_empty());
    assert_eq!(get(cluster.serving("n1"), "k").await.expect("read").as_deref(), Some("v"));
    disk.set_space(None);
    eventually("writes are taken again", async || {
        put(cluster.serving("n1"), "again", "v").await.is_ok()
    })
    .await;
    cluster.crash("n1").await;
    cluster.start("n1").await;
    cluster.serves("n1").await;
    for n in acknowledged {
        let found = get(cluster.serving("n1"), &format!("big{n}")).await.expect("read");
        assert_eq!(found.map(|value| value.len()), Some(1 << 20), "big{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_goes_back_an_hour_still_writes_newer_versions() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    let clock = cluster.clock("n1");
    put(cluster.serving("n1"), "k", "1").await.expect("written");
    clock.skew(-3_600_000_000);
    put(cluster.serving("n1"), "k", "2").await.expect("written");
    assert_eq!(get(cluster.serving("n2"), "k").await.expect("read").as_deref(), Some("2"));
    // Also after a restart, when only the ceiling on disk remembers.
    cluster.crash("n1").await;
    cluster.start("n1").await;
    eventually("it serves", async || {
        put(cluster.serving("n2"), "other", "v").await.is_ok()
            && cluster.serving("n2").readiness().is_ok()
    })
    .await;
    eventually("its clock is found out", async || {
        put(cluster.serving("n1"), "k", "3").await.is_err()
    })
    .await;
    put(cluster.serving("n2"), "k", "4").await.expect("the others serve");
    assert_eq!(get(cluster.serving("n1"), "k").await.expect("read").as_deref(), Some("4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_a_day_ahead_issues_no_versions_and_the_others_go_on() {
    let mut cluster = Cluster::started(&one_bucket(3), &THREE).await;
    let clock = cluster.clock("n1");
    put(cluster.serving("n1"), "k", "1").await.expect("written");
    clock.skew(86_400_000_000);
    eventually("its clock is found out", async || {
        put(cluster.serving("n1"), "probe", "x").await.is_err()
    })
    .await;
    put(cluster.serving("n2"), "k", "2").await.expect("the others serve");
    assert_eq!(get(cluster.serving("n1"), "k").await.expect("read").as_deref(), Some("2"));
    clock.skew(0);
    eventually("it serves again", async || put(cluster.serving("n1"), "k", "3").await.is_ok())
        .await;
    // What it wrote while nobody knew is overwritten all the same.
    put(cluster.serving("n2"), "probe", "mended").await.expect("written above it");
    assert_eq!(get(cluster.serving("n3"), "probe").await.expect("read").as_deref(), Some("mended"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_replica_costs_no_request_and_catches_up() {
    let cluster = Cluster::started(&one_bucket(3), &THREE).await;
    for other in ["n1", "n2"] {
        cluster.network.cut_both("n3", other);
    }
    for n in 0..20 {
        put(cluster.serving("n1"), &format!("k{n}"), "v").await.expect("two of three");
        assert!(get(cluster.serving("n2"), &format!("k{n}")).await.expect("read").is_some());
    }
    assert!(put(cluster.serving("n3"), "alone", "v").await.is_err());
    cluster.network.heal_all();
    cluster.serves("n3").await;
    for n in 0..20 {
        let found = get(cluster.serving("n3"), &format!("k{n}")).await.expect("read");
        assert_eq!(found.as_deref(), Some("v"));
    }
    cluster.covered().await;
    let step = |id: &str, p| cluster.node(id).replica.engine().step(PartitionId(p));
    eventually("it sees the steps of the others", async || {
        (0..4).all(|p| step("n3", p) == step("n1", p))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_finds_replicas_differing_writes_the_newest_back_first() {
    let config = one_bucket(3).replace("300ms", "1h");
    let mut cluster = Cluster::started(&config, &THREE).await;
    // A write that reaches one replica only and fails: later reads must agree on it for ever.
    cluster.network.cut_both("n1", "n2");
    cluster.network.cut_both("n1", "n3");
    let lonely = Write { ..write("k", "maybe") };
    assert!(cluster.serving("n1").put(lonely, Duration::from_secs(1)).await.is_err());
    // What still waits in the cut is lost with its connections.
    cluster.network.drop_connections("n1");
    cluster.network.heal_all();
    cluster.serves("n1").await;
    let p = common::key("k").partition(2);
    let holds = |id: &str| cluster.node(id).replica.engine().partition_status(p).uncovered;
    assert_eq!(THREE.map(holds), [1, 0, 0]);
    let all = Read { key: common::key("k"), r: Some(3) };
    // A connection that broke may be noticed by the first read that needs it.
    eventually("n2 reads what n1 holds", async || {
        let seen = cluster.serving("n2").get(&all, Duration::from_secs(5)).await;
        seen.is_ok_and(|seen| seen.as_ref().map(text).as_deref() == Some("maybe"))
    })
    .await;
    // Its only first holder may die now.
    cluster.crash("n1").await;
    for id in ["n2", "n3"] {
        assert_eq!(get(cluster.serving(id), "k").await.expect("read").as_deref(), Some("maybe"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_left_memory_are_read_back_from_the_journal() {
    let config = format!("journal: {{memory: 1MiB}}\n{}", one_bucket(1).replace("300ms", "1h"));
    let cluster = Cluster::started(&config, &["n1"]).await;
    let value = "x".repeat(40_000);
    for n in 0..100 {
        put(cluster.serving("n1"), &format!("k{n}"), &value).await.expect("written");
    }
    assert!(cluster.node("n1").replica.engine().memory_bytes() <= 1 << 20);
    for n in 0..100 {
        let found = get(cluster.serving("n1"), &format!("k{n}")).await.expect("read");
        assert_eq!(found.as_ref(), Some(&value));
    }
    for p in 0..4 {
        cluster.node("n1").snapshotter.step_here(PartitionId(p)).await.expect("a step");
    }
    for n in 0..100 {
        let found = get(cluster.serving("n1"), &format!("k{n}")).await.expect("read");
        assert_eq!(found.as_ref(), Some(&value));
    }
}
