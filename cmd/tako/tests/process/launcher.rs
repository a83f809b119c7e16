//! What the launcher refuses, and that it starts nothing then.

use std::net::TcpListener;

use crate::support::{Cluster, free_port, must_end, tako};

/// The launcher ends with the code and says all of the words; no process is left.
fn check(cluster: &Cluster, more: &[&str], code: i32, words: &[&str]) {
    let mut launcher = cluster.launch(more);
    let status = must_end(&mut launcher);
    let log = cluster.launcher_log();
    assert_eq!(status.code(), Some(code), "{log}");
    for word in words {
        assert!(log.contains(word), "`{word}` is not in: {log}");
    }
}

#[test]
fn a_second_launcher_on_the_same_folder_is_refused() {
    let mut cluster = Cluster::started(1);
    let first = cluster.launcher().as_raw_nonzero().to_string();
    // Its log is the first one's file, so it is asked directly.
    let config = cluster.config().display().to_string();
    let var = cluster.var().display().to_string();
    let second = tako(&["cluster", &config, "--var", &var, "-p", &free_port().to_string()]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(4), "{said}");
    assert!(said.contains("another `tako cluster`") && said.contains(&first), "{said}");
    assert_eq!(cluster.stop().code(), Some(0), "{}", cluster.launcher_log());
}

#[test]
fn a_taken_port_is_named_with_who_needs_it_and_nothing_is_started() {
    let cluster = Cluster::new(2);
    let (_, rpc) = cluster.nodes[1];
    let held = TcpListener::bind(("127.0.0.1", rpc)).expect("the port is free");
    check(&cluster, &[], 6, &["taken", "node n2", &format!("127.0.0.1:{rpc}"), "RPC"]);
    drop(held);
    assert!(cluster.pids().is_empty());
    assert!(!cluster.var().join("data").exists());
}

#[test]
fn a_process_that_gives_up_while_starting_stops_everything_with_its_reason() {
    let cluster = Cluster::new(1);
    check(&cluster, &["--store", "ftp://nowhere"], 2, &["while starting", "`ftp`"]);
    assert!(cluster.pids().is_empty());
}

#[test]
fn an_address_beyond_this_machine_is_refused_and_a_migration_without_a_coordinator() {
    let cluster = Cluster::new(1);
    let text = std::fs::read_to_string(cluster.config()).expect("readable");
    let write = |text: &str| std::fs::write(cluster.config(), text).expect("written");
    write(&text.replace("n1: [127.0.0.1", "n1: [0.0.0.0"));
    check(&cluster, &[], 2, &["node n1", "--insecure"]);
    let target = format!(
        "  e: {{hash: {{buckets_per_key: 1}}, buckets: {{b: {{n1: [127.0.0.1, {}, {}]}}}}}}\n",
        cluster.nodes[0].0, cluster.nodes[0].1
    );
    let coordinators = text.lines().find(|line| line.starts_with("coordinators")).expect("one");
    let alone = text.replace(coordinators, "");
    write(&format!("target_deployment: e\n{alone}{target}"));
    check(&cluster, &[], 2, &["only a coordinator can do"]);
    assert!(cluster.pids().is_empty());
}
