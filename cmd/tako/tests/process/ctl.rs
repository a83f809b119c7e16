//! `tako ctl` on a cluster that serves.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{
    migrate::{must_serve, started, while_writing},
    support::{Cluster, free_port, json, must_get, must_put, wait_for},
};

/// What is awaited comes within this, or never.
const PATIENCE: Duration = Duration::from_secs(60);

fn nodes(cluster: &Cluster) -> Vec<String> {
    let seen = json(cluster.proxy, "/cluster").expect("it answers");
    let nodes = seen["nodes"].as_array().expect("nodes");
    nodes.iter().map(|node| node["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn a_node_is_attached_and_another_detached_while_clients_write() {
    let mut cluster = started();
    let (http, rpc) = cluster.nodes[3];
    let place = format!("127.0.0.1:{http}:{rpc}");
    let plan = cluster.must_order(&["ctl", "attach", "--dry-run", &place]);
    assert!(plan.contains("To be started: n4"), "{plan}");
    assert!(json(cluster.coordinator, "/status").expect("it answers")["migration"].is_null());
    cluster.start_by_hand("node", "n4");
    let proxy = cluster.proxy;
    let (_, said) = while_writing(proxy, || cluster.must_order(&["ctl", "attach", &place]));
    assert!(said.contains("Done: `d-1` is active"), "{said}");
    let (_, said) = while_writing(proxy, || cluster.must_order(&["ctl", "detach", "n1"]));
    assert!(said.contains("Done: `d-2` is active. May be stopped now: n1"), "{said}");
    cluster.kill("n1");
    wait_for("the proxy to know three nodes", || {
        (nodes(&cluster) == ["n2", "n3", "n4"]).then_some(())
    });
    cluster.kill("n2");
    assert_eq!(must_get(proxy, "before").as_deref(), Some("value"));
    let (code, said) = cluster.order(&["ctl", "detach", "n9"]);
    assert_eq!(code, Some(3), "{said}");
}

#[test]
fn where_a_key_lives_and_who_has_which_share_is_told() {
    let cluster = started();
    let said = cluster.must_order(&["ctl", "locate", "a key", "b", "--output", "json"]);
    let keys: serde_json::Value = serde_json::from_str(&said).expect(&said);
    assert_eq!(keys[0]["key"], "a key");
    assert_eq!(keys[1]["buckets"], serde_json::json!(["b1"]));
    assert_eq!(keys[1]["nodes"], serde_json::json!(["n1", "n2", "n3"]));
    assert!(keys[1]["partition"].as_u64().expect("a number") < 4 && keys[1]["also"].is_null());
    let said = cluster.must_order(&["ctl", "locate", "b"]);
    let hash = keys[1]["hash"].as_str().expect("a hash");
    let address = format!("n2 (127.0.0.1:{})", cluster.nodes[1].0);
    assert!(said.contains(hash) && said.contains(&address), "{said}");
    let (code, said) = cluster.order(&["ctl", "locate", ""]);
    assert_eq!((code, said.trim()), (Some(2), "tako: the key is empty"));
    let said = cluster.must_order(&["ctl", "ring", "--output", "json"]);
    let ring: serde_json::Value = serde_json::from_str(&said).expect(&said);
    let bucket = &ring["buckets"]["b1"];
    assert_eq!((bucket["holds"].as_u64(), bucket["leads"].as_u64()), (Some(4), Some(4)), "{said}");
    assert_eq!(bucket["share"].as_f64(), Some(1.0));
    assert!(cluster.must_order(&["ctl", "ring"]).contains("100.0%  n1 n2 n3"));
}

#[test]
fn the_status_shows_every_node_and_tells_by_its_code_whether_all_serve() {
    let cluster = started();
    let said = cluster.must_order(&["ctl", "status"]);
    assert_eq!(said.matches(" serving ").count(), 3, "{said}");
    cluster.kill("n2");
    let (code, said) = cluster.order(&["ctl", "status"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("n2") && said.contains("silent"), "{said}");
    let (_, said) = cluster.order(&["ctl", "status", "--output", "json"]);
    let status: serde_json::Value = serde_json::from_str(&said).expect(&said);
    assert_eq!((&status["well"], &status["nodes"][0]["id"]), (&false.into(), &"n1".into()));
    assert_eq!(status["nodes"][0]["epoch"], status["epoch"]);
}

#[test]
fn what_nodes_have_done_and_what_they_do_is_shown() {
    let cluster = started();
    cluster.must_order(&["ctl", "put", "k", "v"]);
    let said = cluster.must_order(&["ctl", "stat"]);
    assert_eq!(said.lines().count(), 4, "{said}");
    let all = cluster.must_order(&["ctl", "stat", "n1", "--all"]);
    assert!(all.lines().any(|line| line == "n1 tako_node_serving 1"), "{all}");
    let parse = |text: &str| -> serde_json::Value { serde_json::from_str(text).expect(text) };
    let stat = parse(&cluster.must_order(&["ctl", "stat", "--output", "json"]));
    let writes = stat["nodes"].as_array().expect("nodes").iter();
    let writes: f64 = writes.map(|node| node["writes"]["count"].as_f64().expect("a number")).sum();
    assert!(1.0 <= writes, "{stat}");
    cluster.kill("n3");
    let args = ["ctl", "top", "--interval", "100ms", "--count", "2", "--output", "json"];
    let lines = cluster.must_order(&args);
    let lines: Vec<_> = lines.lines().map(parse).collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert!(line["nodes"][0]["reads"]["count"].is_number(), "{line}");
        assert!(line["nodes"][2]["why"].is_string(), "{line}");
    }
    let (code, said) = cluster.order(&["ctl", "stat"]);
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = cluster.order(&["ctl", "stat", "n9"]);
    assert_eq!(code, Some(3), "{said}");
}

#[test]
fn what_happened_is_told_by_all_and_followed_through_the_end_of_a_node_and_its_next_life() {
    let mut cluster = started();
    let parse = |text: &str| -> serde_json::Value { serde_json::from_str(text).expect(text) };
    let said = cluster.must_order(&["ctl", "log", "--output", "json"]);
    let events: Vec<_> = said.lines().map(parse).collect();
    assert!(events.is_sorted_by_key(|event| event["at"].as_u64()), "{said}");
    for process in ["c1", "n1", "n2", "n3"] {
        assert!(events.iter().any(|event| event["process"] == process), "{process}: {said}");
    }
    let proxy = format!("127.0.0.1:{}", cluster.proxy);
    let said = cluster.must_order(&["ctl", "log", "--at", &proxy]);
    assert!(said.lines().all(|line| line.contains("  p1 ")) && !said.is_empty(), "{said}");
    let said = cluster.must_order(&["ctl", "log", "n1", "--level", "error"]);
    assert_eq!(said, "");
    let (code, said) = cluster.order(&["ctl", "log", "n9"]);
    assert_eq!(code, Some(3), "{said}");

    let coordinator = format!("127.0.0.1:{}", cluster.coordinator);
    let mut follower = Command::new(env!("CARGO_BIN_EXE_tako"))
        .args(["ctl", "log", "n2", "--follow", "--output", "json", "-c", &coordinator])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(follower.stdout.take().expect("piped")).lines();
    let (sender, told) = mpsc::channel();
    thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let until = |what: &str, holds: &dyn Fn(&serde_json::Value) -> bool| {
        loop {
            let line = told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("never: {what}"));
            let event = parse(&line);
            if holds(&event) {
                return event;
            }
        }
    };
    until("what it remembers", &|event| event["text"] == "node listens");
    cluster.kill("n2");
    until("it is away", &|event| event["text"].as_str().is_some_and(|it| it.contains("silent")));
    cluster.start_by_hand("node", "n2");
    let again = until("its next life", &|event| event["text"] == "node listens");
    assert_eq!(again["process"], "n2");
    follower.kill().expect("it runs");
    follower.wait().expect("it ends");
    let (code, said) = cluster.order(&["ctl", "log", "n2"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn values_are_read_and_written_by_hand_at_any_node_that_serves() {
    let cluster = started();
    let awkward = "a b/c%2F+?#\u{e9}";
    let version = cluster.must_order(&["ctl", "put", awkward, "by hand"]);
    assert!(version.trim().parse::<tako_types::Version>().is_ok(), "{version}");
    assert_eq!(cluster.must_order(&["ctl", "get", awkward]), "by hand");
    let told = cluster.must_order(&["ctl", "get", awkward, "--output", "json"]);
    let told: serde_json::Value = serde_json::from_str(&told).expect(&told);
    assert_eq!((&told["value"], &told["version"]), (&"by hand".into(), &version.trim().into()));
    let again = cluster.must_order(&["ctl", "put", awkward, "by hand", "--output", "json"]);
    let again: serde_json::Value = serde_json::from_str(&again).expect(&again);
    assert!(told["timestamp"].as_u64() < again["timestamp"].as_u64(), "{again}");
    assert_eq!(must_get(cluster.proxy, "a%20b/c%252F%2B%3F%23%C3%A9").as_deref(), Some("by hand"));
    let file = cluster.var().join("some-file");
    fs::write(&file, "of a file").expect("written");
    let name = file.to_str().expect("a name");
    cluster.must_order(&["ctl", "put", "k", "--file", name, "--ttl", "1h"]);
    // The first node of the configuration is gone: the next one is asked.
    cluster.kill("n1");
    assert_eq!(cluster.must_order(&["ctl", "get", "k"]), "of a file");
    let url = format!("127.0.0.1:{}", cluster.proxy);
    cluster.must_order(&["ctl", "delete", "k", "--url", &url]);
    let (code, said) = cluster.order(&["ctl", "get", "k"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("there is no value of this key"), "{said}");
    let (code, said) = cluster.order(&["ctl", "put", "k", "x", "--ttl", "never"]);
    assert_eq!(code, Some(2), "{said}");
    for n in 0..3 {
        cluster.must_order(&["ctl", "put", &format!("many/{n}"), "x"]);
    }
    assert_eq!(cluster.must_order(&["ctl", "ls", "many/"]), "many/0\nmany/1\nmany/2\n");
    assert_eq!(cluster.must_order(&["ctl", "ls", "--after", "many/0", "--limit", "1"]), "many/1\n");
    assert!(cluster.must_order(&["ctl", "ls", "a"]).contains("a b/c%2F+?#\u{e9}"));
    let listed = cluster.must_order(&["ctl", "ls", "--url", &url, "--output", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect(&listed);
    assert!(listed["values"].as_array().expect("a list").iter().any(|row| row["key"] == "many/2"));
}

#[test]
fn whether_a_node_may_be_stopped_depends_on_the_others() {
    let cluster = started();
    let said = cluster.must_order(&["ctl", "safe-to-stop", "n3"]);
    assert!(said.contains("Yes: n3"), "{said}");
    let (code, said) = cluster.order(&["ctl", "safe-to-stop", "n2", "n3"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("only n1 of n1, n2, n3 would be left, 2 are needed"), "{said}");
    cluster.kill("n2");
    let (code, said) = cluster.order(&["ctl", "safe-to-stop", "n3"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("n2 does not answer"), "{said}");
}

#[test]
fn a_node_comes_back_on_another_machine_with_an_empty_folder() {
    let mut cluster = started();
    cluster.kill("n3");
    fs::remove_dir_all(cluster.var().join("data/n3")).expect("it was there");
    let place = format!("127.0.0.1:{}:{}", free_port(), free_port());
    let said = cluster.must_order(&["ctl", "replace", "--no-wait", "n3", &place]);
    assert!(said.contains("n3 is at"), "{said}");
    cluster.start_by_hand("node", "n3");
    let said = cluster.must_order(&["ctl", "replace", "n3", &place]);
    assert!(said.contains("Done: n3 serves at"), "{said}");
    must_serve(&cluster);
    // Who runs already is looked for where it does not listen, and says so.
    let place = format!("127.0.0.1:{}:{}", free_port(), free_port());
    cluster.must_order(&["ctl", "replace", "--no-wait", "n3", &place]);
    let log = cluster.var().join("log/n3.log");
    wait_for("the log", || fs::read_to_string(&log).ok()?.contains("restart it").then_some(()));
    cluster.kill_last_by_hand();
    cluster.start_by_hand("node", "n3");
    let said = cluster.must_order(&["ctl", "replace", "n3", &place]);
    assert!(said.contains("Done: n3 serves at"), "{said}");
    cluster.kill("n1");
    assert_eq!(must_get(cluster.proxy, "before").as_deref(), Some("value"));
    must_put(cluster.proxy, "after", "value");
}

#[test]
fn a_cluster_without_a_coordinator_serves_and_is_reconfigured_from_a_new_one() {
    let mut cluster = started();
    cluster.kill("c1");
    must_put(cluster.proxy, "alone", "value");
    let (code, said) = cluster.order(&["migrate", "status"]);
    assert_eq!(code, Some(6), "{said}");
    // A new one, with nothing but a file.
    fs::remove_dir_all(cluster.var().join("etc/coordinator-c1")).expect("it was there");
    cluster.start_by_hand("coordinator", "c1");
    wait_for("the coordinator", || json(cluster.coordinator, "/status"));
    cluster.start_by_hand("node", "n4");
    let (http, rpc) = cluster.nodes[3];
    cluster.must_order(&["ctl", "attach", &format!("127.0.0.1:{http}:{rpc}")]);
    assert_eq!(must_get(cluster.proxy, "alone").as_deref(), Some("value"));
}
