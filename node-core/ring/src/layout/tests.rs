//! Properties of the table over many layouts, and golden tables of the sample configurations.

use tako_types::config::{Config, NodeConfig};
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::{
    fixture::{Seeded, check_rows, deployment, loads},
    movement, publish, zone_warnings,
};

/// Partitions, buckets per key, names of buckets in natural order, all of weight 1.
fn layouts() -> impl Iterator<Item = (u32, usize, Vec<(String, f64)>)> {
    (1..=150).map(|seed| {
        let mut random = Seeded(seed * 1_000_000);
        let partitions = 1 << (3 + random.below(7));
        let k = 1 + random.below(4);
        let count = k + random.below(24);
        let mut names: Vec<(String, f64)> = match seed % 2 {
            0 => (1..=count).map(|n| (format!("b{n}"), 1.0)).collect(),
            _ => (0..count).map(|_| (format!("x{:08x}", random.next() >> 32), 1.0)).collect(),
        };
        names.sort_by(|a, b| natural_order(&a.0, &b.0));
        (partitions, k, names)
    })
}

#[test]
fn every_partition_falls_on_k_different_buckets_and_none_is_above_its_bound() {
    for (partitions, k, names) in layouts() {
        let layout = deployment(&names, k);
        let table = table(&layout, partitions);
        check_rows(&layout, &table, partitions);
        let shares = fair_shares(&layout, partitions);
        for (load, share) in loads(&table, names.len()).into_iter().zip(&shares) {
            let allowed = (share * 1.10).floor().max((share - 1e-9).ceil());
            assert!(load as f64 <= allowed, "{partitions} {k} {names:?}: {load} of {share}");
        }
    }
}

#[test]
fn weights_give_shares_in_proportion_and_never_more_than_all() {
    let names = |weights: &[f64]| -> Vec<(String, f64)> {
        weights.iter().enumerate().map(|(at, w)| (format!("b{}", at + 1), *w)).collect()
    };
    let layout = deployment(&names(&[1.0, 2.0, 1.0]), 1);
    assert_eq!(fair_shares(&layout, 64), [16.0, 32.0, 16.0]);
    // A bucket of nine tenths of the weight cannot hold a partition twice.
    let layout = deployment(&names(&[18.0, 1.0, 1.0]), 2);
    assert_eq!(fair_shares(&layout, 64), [64.0, 32.0, 32.0]);
    for seed in 1..=100 {
        let mut random = Seeded(seed * 1_000);
        let k = 1 + random.below(3);
        let weights: Vec<f64> =
            (0..k + 1 + random.below(9)).map(|_| 0.25 * (1 + random.below(16)) as f64).collect();
        let layout = deployment(&names(&weights), k);
        let table = table(&layout, 256);
        check_rows(&layout, &table, 256);
        let shares = fair_shares(&layout, 256);
        for (load, share) in loads(&table, weights.len()).into_iter().zip(&shares) {
            let most = (share * 1.10).floor().max((share - 1e-9).ceil());
            let least = share - share.max(10.0) * 0.2 - 1.0;
            assert!((least..=most).contains(&(load as f64)), "seed {seed}: {load} of {share}");
        }
    }
}

#[test]
fn as_many_buckets_as_copies_hold_everything() {
    let names: Vec<(String, f64)> = (0..3).map(|n| (format!("b{n}"), 1.0)).collect();
    let table = table(&deployment(&names, 3), 16);
    assert_eq!(loads(&table, 3), [16, 16, 16]);
}

#[test]
fn names_are_ordered_by_their_numbers() {
    let mut names = ["b10", "b2", "b", "a3", "b02", "b2x", "b1"];
    names.sort_by(|a, b| natural_order(a, b));
    assert_eq!(names, ["a3", "b", "b1", "b02", "b2", "b2x", "b10"]);
}

/// Three zones of two buckets each, whose names bring the same zones together at first.
#[test]
fn no_zone_holds_a_majority_where_the_layout_allows() {
    for (nodes, k) in [(1, 3), (1, 2), (2, 2), (2, 3)] {
        let names: Vec<(String, f64)> = (1..=6).map(|n| (format!("b{n}"), 1.0)).collect();
        let mut layout = deployment(&names, k);
        for (at, bucket) in layout.buckets.iter_mut().enumerate() {
            let node = NodeConfig { zone: Some(format!("z{}", at / 2)), ..bucket.nodes[0].clone() };
            bucket.nodes = (0..nodes)
                .map(|n| NodeConfig {
                    id: format!("{}-{n}", node.id).as_str().into(),
                    ..node.clone()
                })
                .collect();
        }
        let table = table(&layout, 64);
        check_rows(&layout, &table, 64);
        let zones = Zones::of(&layout);
        // Two replicas have a majority of two: one zone must hold both to be harmful.
        let harmed = table.iter().filter(|row| zones.is_harmed(row.iter().copied())).count();
        assert_eq!(harmed, 0, "{nodes} nodes, {k} buckets per key");
        let even = 64 * k / 6 + 2;
        assert!(loads(&table, 6).into_iter().all(|load| load <= even));
    }
}

fn sample(name: &str) -> Config {
    let path = format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"));
    Config::parse(&std::fs::read_to_string(path).expect("the example is there")).expect("valid")
}

/// The placement of the samples for ever: a change here moves the data of every cluster.
#[test]
fn the_tables_of_the_sample_configurations_are_fixed() {
    let mut found = Vec::new();
    for name in ["standalone.yaml", "cluster.yaml", "local_cluster.yaml"] {
        let config = sample(name);
        let table = table(config.active_deployment(), config.partitions);
        check_rows(config.active_deployment(), &table, 32);
        let text: Vec<String> = table
            .iter()
            .map(|row| row.iter().map(ToString::to_string).collect::<Vec<_>>().join("-"))
            .collect();
        found.push(format!(
            "{name} {:016x} {}",
            xxh3_64(text.join(" ").as_bytes()),
            text[..4].join(" ")
        ));
    }
    assert_eq!(
        found,
        [
            "standalone.yaml 1dcef21555a1a4f9 0 0 0 0",
            "cluster.yaml d705a82d8e303679 3-1 4-2 4-2 1-2",
            "local_cluster.yaml d705a82d8e303679 3-1 4-2 4-2 1-2"
        ]
    );
}

#[test]
fn publishing_gives_every_partition_its_nodes() {
    let published = publish(sample("cluster.yaml").into(), 3, None).expect("publishable");
    assert_eq!(published.epoch.number, 3);
    assert!(published.partitions().all(|p| published.replicas(p).len() == 4));
    assert_eq!(published.quorum(tako_types::PartitionId(0)).w, 3);
    let held: usize = published.nodes().map(|n| published.partitions_of(&n.id).len()).sum();
    assert_eq!(held, 32 * 4);
    assert!(zone_warnings(&published).is_empty());
    let again = tako_types::config::Published::decode(&published.encode()).expect("whole");
    assert_eq!(again.table(), published.table());
}

/// Two zones cannot hold three replicas apart: the search for a way ends soon, all is laid out.
#[test]
fn zones_that_cannot_be_spread_do_not_hinder() {
    let names: Vec<(String, f64)> = (0..12).map(|n| (format!("b{n}"), 1.0)).collect();
    let mut layout = deployment(&names, 3);
    for (at, bucket) in layout.buckets.iter_mut().enumerate() {
        bucket.nodes[0].zone = Some(format!("z{}", at % 2));
    }
    check_rows(&layout, &table(&layout, 4_096), 4_096);
}

#[test]
fn the_greatest_layout_is_laid_out() {
    let names: Vec<(String, f64)> = (0..64).map(|n| (format!("b{n}"), 1.0)).collect();
    let layout = deployment(&names, 3);
    check_rows(&layout, &table(&layout, 4_096), 4_096);
}

/// Publishing again changes no place; a target starts from the active deployment's table.
#[test]
fn a_document_is_laid_out_from_the_one_in_force() {
    let mut config = sample("cluster.yaml");
    let first = publish(config.clone().into(), 1, None).expect("publishable");
    config.cluster.value_bytes_max += 1;
    let mut target = config.active_deployment().clone();
    target.name = "grown".into();
    let mut added = target.buckets[0].clone();
    added.name = "b0".into();
    added.nodes.iter_mut().for_each(|node| node.id = format!("new-{}", node.id).as_str().into());
    target.buckets.insert(0, added);
    config.deployments.insert("grown".into(), target);
    config.target = Some("grown".into());
    let second = publish(config.clone().into(), 2, Some(&first)).expect("publishable");
    assert_eq!(second.table(), first.table());
    let rows = |document: &tako_types::config::Published, name: &str| -> Vec<Vec<usize>> {
        let table = document.table_of(name).expect("it has one");
        table.iter().map(|row| row.iter().map(|index| usize::from(*index)).collect()).collect()
    };
    let grown = rows(&second, "grown");
    let active = config.active_deployment();
    let target = &config.deployments["grown"];
    let moved = movement((active, &rows(&first, &config.active)), (target, &grown));
    assert_eq!(moved, loads(&grown, target.buckets.len())[0], "only the new bucket receives");
    // Promoted, it keeps its table, though from nothing it would have another.
    (config.active, config.target) = ("grown".into(), None);
    let third = publish(config.clone().into(), 3, Some(&second)).expect("publishable");
    assert_eq!(rows(&third, "grown"), grown);
    let afresh = publish(config.into(), 3, None).expect("publishable");
    assert_ne!(afresh.table(), third.table());
    assert_ne!(afresh.epoch.sha256, third.epoch.sha256, "the table is part of the epoch");
}
