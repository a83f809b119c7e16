//! Tests of reading, checking, writing and comparing configurations.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::*;
use crate::{ErrorKind, NodeId, PartitionId, StepNumber};

const THREE: &str = "\
active_deployment: d
deployments:
    d:
        hash: {buckets_per_key: 2}
        buckets:
            b1:
                n1: [localhost, 5711, 4711]
                n2: [localhost, 5712, 4712]
            b2:
                n3: [localhost, 5713, 4713]
            b3:
                n4: [localhost, 5714, 4714]
";

fn parse(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The document with one text in it replaced.
fn edited(from: &str, to: &str) -> String {
    assert!(THREE.contains(from), "`{from}` is not in the document");
    THREE.replacen(from, to, 1)
}

fn refusal(text: &str) -> String {
    match Config::parse(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error.to_string(),
    }
}

fn samples() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut samples = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the examples are there") {
        let path = entry.expect("a readable folder").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            samples.push((name, std::fs::read_to_string(&path).expect("a readable file")));
        }
    }
    samples
}

#[test]
fn every_example_loads_and_reads_back_from_both_forms() {
    let samples = samples();
    assert!(5 <= samples.len());
    for (name, text) in samples {
        let config = Config::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(parse(&config.effective_yaml()), config, "{name}");
        assert_eq!(parse(&config.to_canonical_json()), config, "{name}");
    }
}

#[test]
fn the_sample_cluster_says_what_its_file_says() {
    let samples: BTreeMap<_, _> = samples().into_iter().collect();
    let config = parse(&samples["cluster.yaml"]);
    assert_eq!(config.master_coordinator.as_deref(), Some("c1"));
    assert_eq!(config.coordinators["c1"].to_string(), "tako-coordinator-1.domain:4710");
    let deployment = config.active_deployment();
    assert!(deployment.read_repair && deployment.background_healing);
    assert_eq!(deployment.background_healing_interval, Duration::from_secs(86_400));
    assert_eq!((deployment.buckets_per_key, deployment.points_per_bucket), (2, 120));
    assert_eq!((deployment.buckets.len(), deployment.nodes().count()), (5, 10));
    let node = deployment.nodes().find(|n| n.id == NodeId::new("n10")).expect("n10");
    assert_eq!((node.http_port, node.rpc_port), (Some(5711), 4711));
    let alone = parse(&samples["standalone.yaml"]);
    let alone = alone.active_deployment();
    assert!(!alone.read_repair && !alone.background_healing);
}

#[test]
fn json_older_spellings_and_all_forms_of_a_node_are_read() {
    let config = parse(
        "{\"active_deployment\": \"d\",\n\t\"deployments\": {\"d\": {\"read_repair\": false,\n\
         \t\"background_repair\": true, \"background_repair_interval\": \"2 days, 1:00:00\",\n\
         \t\"hash\": {\"buckets_per_key\": 1}, \"buckets\": {\"b1\": {\"n1\": [\"h\", 4711],\n\
         \t\"n2\": {\"host\": \"[::1]\", \"http_port\": 1, \"rpc_port\": 2, \"zone\": \"a\",\n\
         \t\"memcached_port\": 3}}}}}}",
    );
    let deployment = config.active_deployment();
    assert!(deployment.background_healing && !deployment.read_repair);
    assert_eq!(deployment.background_healing_interval, Duration::from_secs(49 * 3600));
    let [n1, n2] = deployment.buckets[0].nodes.as_slice() else { panic!("two nodes") };
    assert_eq!((n1.http_port, n1.memcached_port, n1.rpc_port), (None, None, 4711));
    let memcached = n2.memcached_address().map(|address| address.to_string());
    assert_eq!(memcached.as_deref(), Some("[::1]:3"));
    assert_eq!((n2.rpc_address().to_string(), n2.zone.as_deref()), ("[::1]:2".into(), Some("a")));
    assert_eq!(parse(&config.effective_yaml()), config);
}

#[test]
fn nodes_given_up_are_part_of_the_order_and_not_of_what_is_published() {
    let config = parse(&format!("{THREE}migration: {{accept_loss: [n3, n1, n3]}}\n"));
    let lost: Vec<&str> = config.accept_loss.iter().map(NodeId::as_str).collect();
    assert_eq!(lost, ["n1", "n3"]);
    assert_eq!(config.to_canonical_json(), parse(THREE).to_canonical_json());
    assert_eq!(parse(&config.to_yaml()), config);
    assert_eq!(parse(&config.effective_yaml()), config);
    for (given, part) in [
        ("migration: [n1]", "a map is wanted"),
        ("migration: {accept_loss: n1}", "migration.accept_loss: line"),
        ("migration: {accept_loss: [{}]}", "migration.accept_loss: line"),
        ("migration: {accept_los: [n1]}", "did you mean `accept_loss`?"),
    ] {
        let error = refusal(&format!("{THREE}{given}\n"));
        assert!(error.contains(part), "{given}: {error}");
    }
}

#[test]
fn the_master_is_who_is_named_or_the_first_of_several() {
    let of = |more: &str| parse(&format!("{THREE}{more}")).master().map(str::to_owned);
    assert_eq!(of(""), None);
    assert_eq!(of("coordinators: {c2: [h, 92]}\n"), None);
    assert_eq!(of("coordinators: {c2: [h, 92], c1: [h, 91]}\n").as_deref(), Some("c1"));
    let named = "coordinators: {c2: [h, 92], c1: [h, 91]}\nmaster_coordinator: c2\n";
    assert_eq!(of(named).as_deref(), Some("c2"));
}

#[test]
fn every_setting_has_a_default_and_can_be_given() {
    assert_eq!(parse(THREE).cluster, ClusterSettings::default());
    let config = parse(&format!(
        "{THREE}epoch: 7\npartitions: 64\ndurability: os\nstore:\n    url: s3://b/p/\n    \
         endpoint: http://localhost:9000\n    access_key_id: me\n    secret_access_key: hush\n    \
         path_style: on\n    allow_http: True\njournal: {{memory: 1MiB, disk: 128MiB}}\n\
         cache: {{records: 2MiB, memory: 1MiB, disk: 0}}\nsnapshot: {{interval: 250ms, bytes: 1MiB}}\n\
         tombstone_grace: 2h\nvalue_bytes_max: 1MB\nrequest_deadline: 2.5\n"
    ));
    assert_eq!((config.epoch, config.partitions_log2()), (Some(7), 6));
    let cluster = &config.cluster;
    let store = cluster.store.as_ref().expect("a store");
    assert_eq!(store.url, "s3://b/p");
    assert!(store.path_style && store.allow_http);
    assert_eq!(store.secret_access_key.as_ref().map(Secret::expose), Some("hush"));
    assert_eq!((cluster.durability, cluster.cache.disk_bytes), (Durability::Os, 0));
    assert_eq!(cluster.snapshot.interval, Duration::from_millis(250));
    assert_eq!((cluster.value_bytes_max, cluster.request_deadline.as_millis()), (1_000_000, 2_500));
    // The canonical form carries everything but the epoch.
    let again = parse(&config.to_canonical_json());
    assert_eq!(again, Config { epoch: None, ..config });
    assert_eq!(
        parse(&format!("{THREE}store: file:///data/\n")).cluster.store.map(|s| s.url).as_deref(),
        Some("file:///data")
    );
}

#[test]
fn a_secret_is_never_shown_and_its_mask_is_no_secret() {
    let text = format!("{THREE}store: {{url: s3://b, secret_access_key: hush}}\n");
    let config = parse(&text);
    assert!(!config.effective_yaml().contains("hush"));
    assert!(!format!("{config:?}").contains("hush"));
    assert!(config.warnings().iter().any(|w| w.starts_with("store.secret_access_key: ")));
    assert!(refusal(&config.effective_yaml()).contains("the mask"));
    let error = refusal(&format!("{THREE}store: {{url: s3://b, secret_access_key: [hush]}}\n"));
    assert!(!error.contains("hush"));
    let error = refusal(&format!("{THREE}store: s3://me:hush@b\n"));
    assert!(!error.contains("hush"));
}

#[test]
fn the_hash_depends_on_what_is_said_and_not_on_how() {
    let config = parse(THREE);
    let other = parse(&edited(
        "[localhost, 5713, 4713]",
        "{rpc_port: 4713, host: localhost, http_port: '5713'}",
    ));
    assert_eq!(config.sha256(), other.sha256());
    let other = parse(&format!("epoch: 9\n# a remark\n{THREE}durability: fsync\n"));
    assert_eq!(config.sha256(), other.sha256());
    let other = parse(&edited("5713", "5799"));
    assert_ne!(config.sha256(), other.sha256());
    // The bytes themselves: a change here changes the hash of every configuration in force.
    let begin = r#"{"active_deployment":"d","cache":{"disk":"256MiB","memory":"16MiB","records":"32MiB"},"deployments":{"d":{"background_healing":true,"background_healing_interval":"1d","buckets":{"b1":{"n1":{"host":"localhost","http_port":5711,"rpc_port":4711},"#;
    assert!(config.to_canonical_json().starts_with(begin), "{}", config.to_canonical_json());
}

/// Each edit of the good document, and the whole error it leads to.
#[test]
fn every_contradiction_is_refused_with_path_line_and_remedy() {
    for (from, to, error) in [
        (
            "5714",
            "99999",
            "deployments.d.buckets.b3.n4: line 12, column 33: port 99999 is not in 1..=65535",
        ),
        (
            "4714",
            "0",
            "deployments.d.buckets.b3.n4: line 12, column 39: port 0 is not in 1..=65535",
        ),
        (
            "[localhost, 5714, 4714]",
            "[localhost]",
            "deployments.d.buckets.b3.n4: line 12, column 21: a list of 1 is not the address of a node; write [host, http_port, rpc_port], [host, rpc_port] or {host, http_port, memcached_port, rpc_port, zone}",
        ),
        (
            "n4: [localhost, 5714, 4714]",
            "",
            "deployments.d.buckets.b3: line 11, column 13: the bucket has no nodes; give it at least one, or remove the bucket",
        ),
        (
            "active_deployment: d",
            "active_deployment: e",
            "active_deployment: line 1, column 1: the deployment `e` is not defined; define it below deployments, or name one of d",
        ),
        (
            "active_deployment: d",
            "active_deploiment: d",
            "active_deploiment: line 1, column 1: there is no such key; did you mean `active_deployment`?",
        ),
        (
            "active_deployment: d",
            "partitions: 32",
            "active_deployment: line 1, column 1: is missing; add the key `active_deployment`",
        ),
        (
            "buckets_per_key: 2",
            "buckets_per_key: 4",
            "deployments.d.hash.buckets_per_key: line 4, column 16: each key lies on 4 buckets, but there are 3; add buckets or write a smaller number (without one it is 3)",
        ),
        (
            "buckets_per_key: 2",
            "bucket_per_key: 2",
            "deployments.d.hash.bucket_per_key: line 4, column 16: there is no such key; did you mean `buckets_per_key`?",
        ),
        (
            "n3: [localhost, 5713, 4713]",
            "n1: [localhost, 5711, 4711]",
            "deployments.d.buckets.b2.n1: line 10, column 17: the node is in the bucket `b1` as well; put each node into one bucket",
        ),
        (
            "5713, 4713",
            "5713, 4711",
            "deployments.d.buckets.b2.n3: line 10, column 17: localhost:4711 is the address of the node n1 (RPC) as well; give each its own host or port",
        ),
        (
            "5713, 4713",
            "4713, 4713",
            "deployments.d.buckets.b2.n3: line 10, column 17: localhost:4713 is the address of the node n3 (RPC) as well; give each its own host or port",
        ),
        (
            "hash:",
            "weights: {b9: 2}\n        hash:",
            "deployments.d.weights.b9: line 4, column 19: there is no such bucket; did you mean `b1`?",
        ),
        (
            "hash:",
            "weights: {b1: 0}\n        hash:",
            "deployments.d.weights.b1: line 4, column 23: `0` is not a weight in 0.001..=1000; 1 is the usual weight; remove a bucket that shall hold nothing",
        ),
        (
            "hash:",
            "weights: {b1: .nan}\n        hash:",
            "deployments.d.weights.b1: line 4, column 23: `.nan` is not a weight in 0.001..=1000; 1 is the usual weight; remove a bucket that shall hold nothing",
        ),
        (
            "hash:",
            "read_repair: maybe\n        hash:",
            "deployments.d.read_repair: line 4, column 22: `maybe` is neither yes nor no; write yes or no",
        ),
        (
            "hash:",
            "background_healing_interval: 0\n        hash:",
            "deployments.d.background_healing_interval: line 4, column 38: the duration is zero; give at least 1ms",
        ),
        (
            "hash:",
            "background_repair: no\n        background_healing: no\n        hash:",
            "deployments.d.background_repair: line 4, column 9: it is the older spelling of `background_healing`, which is here as well; keep one of them",
        ),
        (
            "hash:",
            "consistency: most\n        hash:",
            "deployments.d.consistency: line 4, column 22: `most` is not known here; write one of quorum, one, all",
        ),
        (
            "deployments:",
            "partitions: 48\ndeployments:",
            "partitions: line 2, column 13: 48 is not a power of two; take 32 or 64",
        ),
        (
            "deployments:",
            "partitions: 8192\ndeployments:",
            "partitions: line 2, column 13: `8192` is not a whole number in 1..=4096",
        ),
        (
            "deployments:",
            "target_deployment: d\ndeployments:",
            "target_deployment: line 2, column 1: it is the active deployment; remove it, or name the deployment to move to",
        ),
        (
            "deployments:",
            "master_coordinator: c1\ndeployments:",
            "master_coordinator: line 2, column 1: there is no coordinator `c1`; define it below coordinators",
        ),
        ("deployments:", "coordinators: {c1: [localhost, 4711]}\ndeployments:", "deployments"),
        (
            "deployments:",
            "cache: {disc: 1MiB}\ndeployments:",
            "cache.disc: line 2, column 9: there is no such key; did you mean `disk`?",
        ),
        (
            "deployments:",
            "journal: {disk: 1KiB}\ndeployments:",
            "journal.disk: line 2, column 17: `1KiB` is not in 64MiB..=1024TiB",
        ),
        (
            "deployments:",
            "value_bytes_max: 65MiB\ndeployments:",
            "value_bytes_max: line 2, column 18: `65MiB` is not in 1B..=64MiB",
        ),
        (
            "deployments:",
            "snapshot: {bytes: 2GiB}\ndeployments:",
            "snapshot.bytes: line 2, column 12: the journal would be full before a step is taken; lower it, or raise journal.disk",
        ),
        (
            "deployments:",
            "tombstone_grace: 1s\ndeployments:",
            "tombstone_grace: line 2, column 1: it is shorter than snapshot.interval; raise it; 1d is usual",
        ),
        (
            "deployments:",
            "store: ftp://x\ndeployments:",
            "store: line 2, column 8: `ftp://x` is not the address of a store; write s3://bucket/prefix, file:///folder or memory:///",
        ),
        (
            "deployments:",
            "active_deployment: d\ndeployments:",
            "line 2, column 1: the key `active_deployment` stands here and on line 1; keep one of them",
        ),
        (
            "b2:",
            "../b2:",
            "deployments.d.buckets.../b2: line 9, column 13: `../b2` is not a name; use letters, digits, `.`, `_` and `-`, beginning with a letter, digit or `_`",
        ),
        (
            "[localhost, 5711",
            "[local host, 5711",
            "deployments.d.buckets.b1.n1: line 7, column 22: `local host` is not a host; write a name such as node-1.domain or an address such as 10.0.0.1",
        ),
        (
            "[localhost, 5711",
            "[localhost:80, 5711",
            "deployments.d.buckets.b1.n1: line 7, column 22: `localhost:80` is not a host; give the port as a value of its own",
        ),
    ] {
        let found = refusal(&edited(from, to));
        if error == "deployments" {
            assert!(
                found.starts_with("coordinators.c1: line 2, column 16: localhost:4711 is"),
                "{found}"
            );
        } else {
            assert_eq!(found, error);
        }
    }
}

#[test]
fn one_id_has_one_address_in_all_deployments() {
    let with = |node: &str| {
        format!(
            "{THREE}    e:\n        hash: {{buckets_per_key: 1}}\n        buckets: {{x: {{{node}}}}}\n"
        )
    };
    parse(&with("n1: [localhost, 5711, 4711]"));
    let error = refusal(&with("n1: [localhost, 5711, 4799]"));
    assert!(error.contains("n1: line 15") && error.contains("another address"), "{error}");
    let error = refusal(&with("n9: [localhost, 5711, 4799]"));
    assert!(
        error.contains("localhost:5711 is the address of the node n1 (HTTP) as well"),
        "{error}"
    );
}

#[test]
fn no_document_can_cost_more_than_its_limits() {
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
    for (this, last) in "bcdefghij".chars().zip("abcdefghi".chars()) {
        let row = vec![format!("*{last}"); 10].join(",");
        bomb.push_str(&format!("{this}: &{this} [{row}]\n"));
    }
    assert!(refusal(&bomb).contains("aliases unfolded"));
    assert!(refusal("a: &a [*a]\n").contains("within what it stands for"));
    assert!(refusal("a: *b\n").contains("line 1"));
    assert!(refusal(&format!("a: {}{}", "[".repeat(40), "]".repeat(40))).contains("nested deeper"));
    assert!(refusal(&"#".repeat(2 << 20)).contains("the limit is"));
    for text in ["", "---\n", "# only a remark\n", "~", "a: [", "\t- x: {", "a: b: c", "- a\n- b"] {
        Config::parse(text).expect_err(text);
    }
    assert!(refusal(&format!("{THREE}---\n{THREE}")).contains("a second document"));
    assert!(
        refusal(&edited("active_deployment: d", "active_deployment: !python d")).contains("tag")
    );
}

#[test]
fn an_alias_stands_for_the_same_text() {
    let text = edited("[localhost, 5711, 4711]", "[&h localhost, 5711, 4711]")
        .replace("[localhost", "[*h");
    assert_eq!(parse(&text), parse(THREE));
}

/// Damaged documents: every prefix, and a few thousand random edits; none may panic.
#[test]
fn damaged_documents_are_refused_or_read_but_never_panic() {
    for end in 0..THREE.len() {
        let _ = Config::parse(&THREE[..end]);
    }
    let letters: Vec<char> = " \n\t:,-[]{}&*!|>'\"%@`#?~0aé".chars().collect();
    let mut state = 1u64;
    let mut random = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..4_000 {
        let mut text: Vec<char> = THREE.chars().collect();
        for _ in 0..=random(4) {
            let at = random(text.len());
            text[at] = letters[random(letters.len())];
        }
        let text: String = text.into_iter().collect();
        if let Ok(config) = Config::parse(&text) {
            assert_eq!(parse(&config.effective_yaml()), config);
        }
    }
}

#[test]
fn what_decides_placement_changes_only_by_migration() {
    let old = parse(THREE);
    let change = |from: &str, to: &str| check_change(&old, &parse(&edited(from, to)));
    for (from, to) in [
        ("[localhost, 5713, 4713]", "[elsewhere, 1, 2]"),
        ("hash:", "read_repair: no\n        background_healing_interval: 1h\n        hash:"),
        ("deployments:", "journal: {memory: 1MiB}\nstore: file:///d\ndeployments:"),
        ("deployments:", "epoch: 4\ncoordinators: {c1: [h, 1]}\ndeployments:"),
    ] {
        assert_eq!(change(from, to), Ok(()));
    }
    for (from, to, path) in [
        ("buckets_per_key: 2", "buckets_per_key: 3", "deployments.d.hash.buckets_per_key"),
        (
            "buckets_per_key: 2",
            "buckets_per_key: 2, points_per_bucket: 9",
            "deployments.d.hash.points_per_bucket",
        ),
        ("hash:", "weights: {b2: 2}\n        hash:", "deployments.d.weights.b2"),
        ("hash:", "consistency: all\n        hash:", "deployments.d.consistency"),
        ("b2:", "    n5: [localhost, 5715, 4715]\n            b2:", "deployments.d.buckets.b1.n5"),
        (
            "b3:",
            "b4:\n                n5: [localhost, 5715, 4715]\n            b3:",
            "deployments.d.buckets.b4",
        ),
        ("n3:", "n5:", "deployments.d.buckets.b2.n5"),
        ("b3:", "b4:", "deployments.d.buckets.b4"),
        ("                n2: [localhost, 5712, 4712]\n", "", "deployments.d.buckets.b1.n2"),
        (
            "            b3:\n                n4: [localhost, 5714, 4714]\n",
            "",
            "deployments.d.buckets.b3",
        ),
        (
            "[localhost, 5713, 4713]",
            "{host: localhost, http_port: 5713, rpc_port: 4713, zone: a}",
            "deployments.d.buckets.b2.n3.zone",
        ),
    ] {
        let error = change(from, to).expect_err(path);
        assert_eq!((error.path.as_str(), error.kind()), (path, ErrorKind::Invalid));
        assert!(error.to_string().contains("accepted only as a migration"), "{error}");
    }
    assert_eq!(
        change("deployments:", "partitions: 64\ndeployments:").expect_err("fixed").path,
        "partitions"
    );
    // Not even for the same nodes under another name.
    let twice = |active: &str| {
        let (_, d) = THREE.split_once("    d:\n").expect("the deployment");
        parse(&format!("active_deployment: {active}\ndeployments:\n    d:\n{d}    e:\n{d}"))
    };
    let error = check_change(&twice("d"), &twice("e")).expect_err("another deployment");
    assert_eq!(error.path, "active_deployment");
}

#[test]
fn a_target_is_read_and_warned_of_and_wants_a_coordinator() {
    let text = format!(
        "target_deployment: e\n{THREE}    e:\n        hash: {{buckets_per_key: 1}}\n        \
         buckets: {{x: {{n1: [localhost, 5711, 4711]}}}}\n"
    );
    let config = parse(&text);
    assert_eq!(config.target_deployment().map(|d| d.name.as_str()), Some("e"));
    assert!(config.warnings()[0].contains("writes go to `e` as well"));
    let error = check_startable(&config).expect_err("nobody would carry it out").to_string();
    assert!(error.contains("only a coordinator can do"), "{error}");
    assert_eq!(check_startable(&parse(THREE)), Ok(()));
}

#[test]
fn unwise_layouts_are_warned_of() {
    let warns = |text: &str, part: &str| {
        let warnings = parse(text).warnings();
        assert!(warnings.iter().any(|w| w.contains(part)), "{part}: {warnings:?}");
    };
    warns(THREE, "with 2 replicas at quorum there are no writes while a node is down");
    warns(&edited("buckets_per_key: 2", "buckets_per_key: 1"), "no redundancy");
    warns(&edited("hash:", "consistency: one\n        hash:"), "a read may miss the last write");
    warns(THREE, "store: there is none");
    warns(&format!("{THREE}durability: none\n"), "durability: none");
    let zoned = THREE.replace("[localhost, 571", "{zone: a, host: localhost, http_port: 571");
    let zoned = zoned.replace(", 471", ", rpc_port: 471").replace("]\n", "}\n");
    warns(&zoned, "1 zone(s) cannot be spread over");
}

fn published() -> Published {
    let config = Arc::new(parse(&format!("partitions: 4\n{THREE}")));
    let table = vec![vec![0, 1], vec![1, 2], vec![2, 0], vec![1, 0]];
    Published::new(5, config, BTreeMap::from([("d".to_owned(), table)]), None).expect("fits")
}

#[test]
fn a_published_document_answers_who_holds_what() {
    let document = published();
    let ids = |p| document.replicas(PartitionId(p)).iter().map(NodeId::as_str).collect::<Vec<_>>();
    assert_eq!(ids(0), ["n1", "n2", "n3"]);
    assert_eq!(ids(1), ["n3", "n4"]);
    assert!(ids(4).is_empty());
    assert_eq!(document.partitions_of(&"n4".into()), [PartitionId(1), PartitionId(2)]);
    assert_eq!(document.quorum(PartitionId(0)), Quorum { n: 3, w: 2, r: 2 });
    assert_eq!(document.quorum(PartitionId(1)), Quorum { n: 2, w: 2, r: 1 });
    assert_eq!(document.node(&"n3".into()).map(|n| n.rpc_port), Some(4713));
    assert_eq!(document.bucket_of(&"n2".into()), Some("b1"));
    assert!(document.node(&"n9".into()).is_none());
    assert_eq!((document.partitions_log2(), document.nodes().count()), (2, 4));
}

#[test]
fn a_published_document_reads_back_and_damage_is_found() {
    let document = published();
    let bytes = document.encode();
    let again = Published::decode(&bytes).expect("whole");
    assert_eq!((again.epoch, &again.config), (document.epoch, &document.config));
    assert_eq!((again.table(), again.encode()), (document.table(), bytes.clone()));
    let text = String::from_utf8(bytes).expect("JSON");
    let damaged = |from: &str, to: &str| {
        assert!(text.contains(from));
        Published::decode(text.replacen(from, to, 1).as_bytes()).expect_err("damaged")
    };
    assert!(matches!(damaged("4713", "4799"), PublishedError::Hash { .. }));
    for (from, to) in [
        ("[\"b2\",\"b3\"]", "[\"b2\",\"b2\"]"),
        ("[\"b2\",\"b3\"]", "[\"b2\",\"b9\"]"),
        (",[\"b2\",\"b3\"]", ""),
        ("\"d\":[[", "\"e\":[["),
    ] {
        // Damage shows in the hash; a writer's mistake has the right one and shows in the table.
        let PublishedError::Hash { expected, found } = damaged(from, to) else { panic!("{to}") };
        let signed = text.replacen(from, to, 1).replacen(&expected, &found, 1);
        let error = Published::decode(signed.as_bytes()).expect_err("wrong");
        assert!(matches!(error, PublishedError::Table { .. }), "{to}: {error}");
    }
    let error = Published::decode(&text.as_bytes()[..text.len() / 2]).expect_err("torn");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// `d` is moved to `e`: partition 0 from {n1, n2, n3} to {n2, n5}; 3 lies on {n3, n4} before and
/// after.
fn moving(phase: Phase) -> Result<Published, PublishedError> {
    let target = if phase == Phase::Leave { "" } else { "target_deployment: e\n" };
    let config = parse(&format!(
        "partitions: 4\n{target}{THREE}    e:\n        hash: {{buckets_per_key: 1}}\n        \
         buckets:\n            x: {{n2: [localhost, 5712, 4712], n5: [localhost, 5715, 4715]}}\n\
         \x20           y: {{n3: [localhost, 5713, 4713], n4: [localhost, 5714, 4714]}}\n"
    ));
    let barrier = match phase {
        Phase::ReadNew => (0..4).map(StepNumber).collect(),
        _ => Vec::new(),
    };
    let tables = BTreeMap::from([
        ("d".to_owned(), vec![vec![0, 1], vec![1, 2], vec![2, 0], vec![1, 2]]),
        ("e".to_owned(), vec![vec![0], vec![0], vec![0], vec![1]]),
    ]);
    Published::new(
        6,
        Arc::new(config),
        tables,
        Some(Migration { phase, other: "e".into(), barrier }),
    )
}

#[test]
fn each_phase_says_who_reads_who_writes_and_who_may_hold_something() {
    let of = |phase, p| {
        let document = moving(phase).expect("fits");
        let ids =
            |nodes: &[NodeId]| nodes.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>();
        let placement = document.placement(PartitionId(p));
        let also = placement.also_write.as_ref().map(|set| ids(&set.nodes));
        (ids(&placement.read.nodes), also, ids(&placement.holders), placement.barrier)
    };
    let (old, new): (Vec<_>, Vec<_>) =
        (["n1", "n2", "n3"].map(str::to_owned).into(), ["n2", "n5"].map(str::to_owned).into());
    let all: Vec<_> = ["n1", "n2", "n3", "n5"].map(str::to_owned).into();
    let none = StepNumber(0);
    assert_eq!(of(Phase::Join, 0), (old.clone(), None, all.clone(), none));
    assert_eq!(of(Phase::WriteBoth, 0), (old.clone(), Some(new.clone()), all.clone(), none));
    assert_eq!(of(Phase::Leave, 0), (old.clone(), None, all.clone(), none));
    assert_eq!(of(Phase::ReadNew, 0), (new, Some(old), all, none));
    assert_eq!(of(Phase::ReadNew, 2).3, StepNumber(2));
    // It stays where it is: nothing is written twice, and nobody has to wait for a step.
    let stays: Vec<_> = ["n3", "n4"].map(str::to_owned).into();
    assert_eq!(of(Phase::ReadNew, 3), (stays.clone(), None, stays, none));
    let document = moving(Phase::Join).expect("fits");
    assert_eq!(document.nodes().count(), 5);
    assert_eq!(document.node(&"n5".into()).map(|n| n.rpc_port), Some(4715));
    assert_eq!(document.bucket_of(&"n2".into()), Some("b1"), "by its place in the active one");
}

#[test]
fn a_migration_travels_with_its_document_counts_for_the_hash_and_must_fit() {
    for phase in [Phase::Join, Phase::WriteBoth, Phase::ReadNew, Phase::Leave] {
        let document = moving(phase).expect("fits");
        let again = Published::decode(&document.encode()).expect("whole");
        assert_eq!((again.epoch, &again.migration), (document.epoch, &document.migration));
    }
    let hash = |phase| moving(phase).expect("fits").epoch.sha256;
    assert_ne!(hash(Phase::Join), hash(Phase::WriteBoth));
    let document = moving(Phase::Join).expect("fits");
    let refused = |migration: Migration| {
        let tables = [("d", document.table()), ("e", document.table_of("e").expect("a table"))];
        let tables = tables.map(|(name, table)| (name.to_owned(), table.clone())).into();
        let error = Published::new(6, document.config.clone(), tables, Some(migration));
        error.expect_err("does not fit").to_string()
    };
    let migration =
        |phase, other: &str| Migration { phase, other: other.into(), barrier: Vec::new() };
    assert!(refused(migration(Phase::Join, "x")).contains("no deployment `x`"));
    assert!(refused(migration(Phase::Join, "d")).contains("is the active deployment"));
    assert!(refused(migration(Phase::Leave, "e")).contains("does not fit the target"));
    let none = refused(migration(Phase::ReadNew, "e"));
    assert!(none.contains("read-new with a barrier of 0 steps for 4 partitions"), "{none}");
    let one = Migration { barrier: vec![StepNumber(1)], ..migration(Phase::WriteBoth, "e") };
    assert!(refused(one).contains("write-both with a barrier of 1 steps for 4 partitions"));
}

#[test]
fn rules_for_backups_are_read_sorted_and_written_and_without_one_nothing_changes() {
    let plain = parse(THREE);
    assert!(plain.cluster.backups.is_empty() && !plain.to_canonical_json().contains("backups"));
    let text =
        format!("{THREE}backups:\n  - {{every: 1d, keep: 7}}\n  - every: 60m\n    keep: 24\n");
    let config = parse(&text);
    let hour = Duration::from_secs(3_600);
    let rules = [BackupRule { every: hour, keep: 24 }, BackupRule { every: 24 * hour, keep: 7 }];
    assert_eq!(config.cluster.backups, rules);
    let canonical = config.to_canonical_json();
    let written = r#""backups":[{"every":"1h","keep":24},{"every":"1d","keep":7}]"#;
    assert!(canonical.contains(written), "{canonical}");
    assert_eq!(parse(&canonical), config);
    assert_eq!(parse(&config.effective_yaml()), config);
    // A rule may change at any time.
    assert_eq!(check_change(&plain, &config), Ok(()));
}

#[test]
fn a_rule_for_backups_that_cannot_be_meant_is_refused_where_it_stands() {
    for (rules, at) in [
        ("1h", "backups: line 13, column 10: a list is wanted"),
        ("[{every: 1h}]", "backups[0].keep: line 13"),
        ("[{every: 1h, keep: 0}]", "backups[0].keep: line 13"),
        ("[{every: 59s, keep: 1}]", "59s is less than a minute"),
        ("[{every: 1h, keep: 1, of: d}]", "backups[0].of: line 13"),
        ("[{every: 1h, keep: 1}, {every: 60m, keep: 2}]", "there is a rule for 1h already"),
    ] {
        let refusal = refusal(&format!("{THREE}backups: {rules}\n"));
        assert!(refusal.contains(at), "{rules}: {refusal}");
    }
}
