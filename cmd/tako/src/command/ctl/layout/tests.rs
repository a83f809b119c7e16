//! Nodes more, less and elsewhere.

use super::*;

fn config() -> Config {
    let text = "partitions: 4\nactive_deployment: d\ndeployments:\n  d:\n    hash: {buckets_per_key: 2}\n    \
                buckets:\n      b1: {n1: [h, 11, 1], n2: [h, 12, 2]}\n      b2: {n3: [h, 13, 3]}\n";
    Config::parse(text).expect("valid")
}

fn here(text: &str) -> Place {
    place(text).expect("a place")
}

fn nodes(deployment: &Deployment, bucket: &str) -> Vec<String> {
    let bucket = deployment.bucket(bucket).expect("it is there");
    bucket.nodes.iter().map(|node| node.id.to_string()).collect()
}

#[test]
fn places_are_read_with_and_without_ids_and_brackets() {
    let of = |text: &str| {
        let Place { id, host, http_port, rpc_port } = here(text);
        (id, host, http_port, rpc_port)
    };
    assert_eq!(of("a.b:1:2"), (None, "a.b".into(), 1, 2));
    assert_eq!(of("n7=10.0.0.7:5711:4711"), (Some("n7".into()), "10.0.0.7".into(), 5711, 4711));
    assert_eq!(of("[::1]:1:2"), (None, "::1".into(), 1, 2));
    for wrong in ["a", "a:1", "a:1:0", ":1:2", "=a:1:2", "a:b:1", ""] {
        assert!(place(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn new_nodes_come_to_the_smallest_bucket_or_where_they_are_wanted() {
    let config = config();
    let two = [here("h:21:4"), here("h:22:5")];
    let layout = attached(&config, &two, &Into::Smallest).expect("a layout");
    assert_eq!(layout.name, "d-1");
    assert_eq!(nodes(&layout, "b2"), ["n3", "n4"]);
    assert_eq!(nodes(&layout, "b1"), ["n1", "n2", "n5"], "both have two by then");
    let named = [here("x=h:21:4")];
    let layout = attached(&config, &named, &Into::Bucket("b1".into())).expect("a layout");
    assert_eq!(nodes(&layout, "b1"), ["n1", "n2", "x"]);
    let layout = attached(&config, &two, &Into::New("b0".into())).expect("a layout");
    assert_eq!(nodes(&layout, "b0"), ["n4", "n5"]);
    assert_eq!(layout.buckets[0].name, "b0", "sorted");
    let error = attached(&config, &two, &Into::Bucket("b9".into())).expect_err("no b9");
    assert!(error.to_string().contains("it has b1, b2; --new-bucket b9"), "{error}");
    assert!(attached(&config, &[here("n1=h:1:2")], &Into::Smallest).is_err(), "it is there");
}

#[test]
fn a_place_keeps_its_id_when_a_layout_with_it_was_given_up() {
    let mut config = config();
    let two = [here("h:21:4"), here("h:22:5")];
    let given_up = attached(&config, &two, &Into::Smallest).expect("a layout");
    config.deployments.insert(given_up.name.clone(), given_up);
    let others = [here("h:22:5"), here("h:23:6")];
    let layout = attached(&config, &others, &Into::Bucket("b2".into())).expect("a layout");
    assert_eq!(nodes(&layout, "b2"), ["n3", "n5", "n6"]);
}

#[test]
fn nodes_go_and_empty_buckets_with_them_as_long_as_keys_have_their_buckets() {
    let config = config();
    let without = |ids: &[&str]| {
        let ids: BTreeSet<NodeId> = ids.iter().map(|id| NodeId::new(id)).collect();
        detached(&config, &ids)
    };
    assert_eq!(nodes(&without(&["n1"]).expect("a layout"), "b1"), ["n2"]);
    let error = without(&["n3"]).expect_err("b2 would be empty").to_string();
    assert!(error.contains("there are 1 buckets, and each key lies on 2"), "{error}");
    let error = without(&["n9"]).expect_err("no n9");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_node_moves_in_every_deployment_that_has_it() {
    let mut config = config();
    let second = Deployment { name: "old".into(), ..config.active_deployment().clone() };
    config.deployments.insert("old".into(), second);
    let moved = moved(&config, &NodeId::new("n3"), &here("g:33:34")).expect("known");
    for name in ["d", "old"] {
        let node = &moved.deployments[name].bucket("b2").expect("there").nodes[0];
        assert_eq!((node.host.as_str(), node.http_port, node.rpc_port), ("g", Some(33), 34));
    }
}
