//! Backups of a running cluster, and clusters restored from the store alone.

use std::path::Path;

use serde_json::Value;

use crate::support::{Cluster, http, must_be_ready, must_get, must_put, tako};

/// Runs `tako ctl …`, which must succeed; its answer.
fn ctl(args: &[&str]) -> Value {
    let args = [&["ctl"], args, &["--output", "json"]].concat();
    let done = tako(&args);
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "tako {args:?}: {err}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("tako {args:?}: {error}\n{out}"))
}

fn url(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

fn delete(port: u16, key: &str) {
    let (status, _) = http("DELETE", port, &format!("/values/{key}"), b"").expect("an answer");
    assert_eq!(status, 204, "{key}");
}

/// Has a cluster go by other partitions and a root of its own.
fn configured(mut cluster: Cluster, root: &Path, partitions: u32) -> Cluster {
    cluster.partitions = partitions;
    cluster.configure("1s", 3);
    cluster.arguments = vec!["--store".to_owned(), url(root)];
    cluster
}

#[test]
fn a_cluster_is_restored_from_its_newest_steps_and_from_a_backup_with_other_partitions() {
    let mut cluster = Cluster::started(3);
    let store = url(&cluster.var().join("store"));
    for n in 0..60 {
        must_put(cluster.proxy, &format!("key/{n}"), &format!("then {n}"));
    }
    // What was acknowledged before is in it, though no interval may have passed.
    let made = ctl(&["snapshot", "create", "then", "--store", &store]);
    assert_eq!(made["not_stepped"], Value::Array(Vec::new()), "{made}");
    for n in 0..20 {
        must_put(cluster.proxy, &format!("key/{n}"), &format!("now {n}"));
    }
    for n in 20..40 {
        delete(cluster.proxy, &format!("key/{n}"));
    }
    must_put(cluster.proxy, "new", "now");
    let now = |key: &str, n: u32| match n {
        0..20 => Some(format!("now {n}")),
        20..40 => None,
        _ => Some(format!("then {n}")).filter(|_| key.starts_with("key")),
    };

    let verified = ctl(&["snapshot", "verify", "then", "--store", &store]);
    assert_eq!((&verified["intact"], &verified["compared"]), (&true.into(), &false.into()));
    let verified = ctl(&["snapshot", "verify", "then", "--store", &store]);
    assert_eq!(verified["compared"], true);
    let listed = ctl(&["snapshot", "list", "--store", &store]);
    assert_eq!((&listed[0]["name"], &listed[0]["verified"]), (&"then".into(), &true.into()));
    let again = tako(&["ctl", "snapshot", "create", "then", "--store", &store]);
    assert_eq!(again.status.code(), Some(4), "{again:?}");

    // A backup is restored while the old cluster serves.
    let roots = tempfile::tempdir().expect("a temp folder");
    let (then_root, now_root) = (roots.path().join("then"), roots.path().join("now"));
    // At other addresses, so by a configuration of its own.
    let mut other = configured(Cluster::new(3), &then_root, 2);
    let config = other.config().display().to_string();
    let restored = ctl(&[
        "restore",
        "--store",
        &store,
        "--to",
        &url(&then_root),
        "--snapshot",
        "then",
        "--new-config",
        &config,
    ]);
    assert_eq!(restored["verified"], true);
    assert_eq!(restored["partitions_of_cluster"], 2);
    other.start();
    must_be_ready(other.proxy);
    for n in 0..60 {
        let found = must_get(other.proxy, &format!("key/{n}"));
        assert_eq!(found, Some(format!("then {n}")), "as of the backup");
    }
    assert_eq!(must_get(other.proxy, "new"), None);
    must_put(other.proxy, "key/0", "a cluster of its own");
    drop(other);
    assert_eq!(must_get(cluster.proxy, "key/0").as_deref(), Some("now 0"));

    // Stopped in good order, its steps hold everything; the same processes go on with the new root.
    assert!(cluster.stop().success());
    let twice = ["restore", "--store", &store, "--to", &url(&now_root), "--partitions", "8"];
    let restored = ctl(&twice);
    assert_eq!(restored["configuration"], 2, "{restored}");
    let refused = tako(&[&["ctl"][..], &twice].concat());
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let mut cluster = configured(cluster, &now_root, 8);
    cluster.start();
    must_be_ready(cluster.proxy);
    for n in 0..60 {
        let key = format!("key/{n}");
        assert_eq!(must_get(cluster.proxy, &key), now(&key, n), "{key}");
    }
    assert_eq!(must_get(cluster.proxy, "new").as_deref(), Some("now"));
    must_put(cluster.proxy, "key/25", "after");
    assert_eq!(must_get(cluster.nodes[2].0, "key/25").as_deref(), Some("after"));
    // The folders of the old cluster were set aside.
    let aside = std::fs::read_dir(cluster.var().join("data")).expect("readable").flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains("foreign"));
    assert_eq!(aside.count(), 3);

    let deleted = ctl(&["snapshot", "delete", "then", "--store", &store]);
    assert_eq!(deleted["deleted"], "then");
    let gone = tako(&["ctl", "snapshot", "show", "then", "--store", &store]);
    assert_eq!(gone.status.code(), Some(3), "{gone:?}");
}

#[test]
fn a_rule_in_the_configuration_makes_backups_and_keeps_the_newest() {
    let mut cluster = Cluster::new(1);
    cluster.more = "backups: [{every: 1h, keep: 2}]\n".to_owned();
    cluster.configure("1s", 1);
    cluster.start();
    let store = url(&cluster.var().join("store"));
    let listed = crate::support::wait_for("a backup by the rule", || {
        let listed = ctl(&["snapshot", "list", "--store", &store]);
        listed.get(0).is_some().then_some(listed)
    });
    let name = listed[0]["name"].as_str().expect("a name");
    assert!(name.starts_with("1h-20"), "{name}");
}
