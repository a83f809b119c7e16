//! A whole cluster serves clients at every port, and stops in good order.

use std::{fs, net::TcpListener};

use rustix::process::Signal;

use crate::support::{Cluster, http, json, lives, must_get, must_put, signal, tako, wait_for};

#[test]
fn every_port_serves_every_key_and_a_stop_leaves_no_process() {
    let mut cluster = Cluster::started(3);
    let mut ports = vec![cluster.proxy];
    ports.extend(cluster.nodes.iter().map(|(http, _)| *http));
    for (n, port) in ports.iter().enumerate() {
        let path = format!("/values/a%20key/{n}");
        let (status, _) = http("PUT", *port, &path, b"some value").expect("an answer");
        assert_eq!(status, 200, "PUT at {port}");
        for other in &ports {
            let (status, body) = http("GET", *other, &path, b"").expect("an answer");
            assert_eq!((status, body.as_slice()), (200, &b"some value"[..]), "GET at {other}");
        }
        let (status, stat) = http("GET", *port, &format!("/stat/a%20key/{n}"), b"").expect("stat");
        let micros: u64 = String::from_utf8_lossy(&stat).trim().parse().expect("a timestamp");
        assert!(status == 200 && 0 < micros, "{status} {micros}");
        let (status, _) = http("DELETE", *port, &path, b"").expect("an answer");
        assert!((200..300).contains(&status), "DELETE at {port}: {status}");
        for other in &ports {
            assert_eq!(must_get(*other, &format!("a%20key/{n}")), None, "GET at {other}");
        }
    }

    let url = format!("http://127.0.0.1:{}", cluster.proxy);
    let load = ["--keys", "20", "--requests", "200", "--connections", "4", "--warmup", "0s"];
    let bench = tako(&[&["bench", "--url", &url], &load[..]].concat());
    assert_eq!(bench.status.code(), Some(0), "{bench:?}");

    let pids = cluster.pids();
    assert_eq!(pids.len(), 5);
    let status = cluster.stop();
    assert_eq!(status.code(), Some(0), "{}", cluster.launcher_log());
    assert!(pids.iter().all(|pid| !lives(*pid)), "a process was left");
    assert!(cluster.pids().is_empty(), "a pid file was left");
}

#[test]
fn a_killed_launcher_leaves_no_process_and_the_next_one_waits_for_them() {
    let mut cluster = Cluster::started(1);
    let pids = cluster.pids();
    signal(cluster.launcher(), Signal::KILL);
    cluster.ended();
    // Its children may still be stopping: the new one waits for them and their ports.
    cluster.start();
    wait_for("the end of the old processes", || pids.iter().all(|pid| !lives(*pid)).then_some(()));
    // Delivered twice, as some tools do, it is still one wish to stop.
    signal(cluster.launcher(), Signal::TERM);
    assert_eq!(cluster.stop().code(), Some(0), "{}", cluster.launcher_log());
}

#[test]
fn nodes_and_coordinators_are_reached_at_ipv6_addresses() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        eprintln!("SKIPPED: this machine has no IPv6 loopback: {error}");
        return;
    }
    let mut cluster = Cluster::new(3);
    let text = fs::read_to_string(cluster.config()).expect("readable");
    fs::write(cluster.config(), text.replace("[127.0.0.1,", "[\"::1\",")).expect("written");
    cluster.start();
    // Two of three must have it, by RPC, and find each other by what the coordinator gave them.
    must_put(cluster.proxy, "key", "value");
    assert_eq!(must_get(cluster.proxy, "key").as_deref(), Some("value"));
    let nodes = json(cluster.proxy, "/cluster").expect("an answer")["nodes"].clone();
    for (at, (http, rpc)) in cluster.nodes.iter().enumerate() {
        assert_eq!(nodes[at]["http"], format!("[::1]:{http}"));
        assert_eq!(nodes[at]["rpc"], format!("[::1]:{rpc}"));
    }
}
