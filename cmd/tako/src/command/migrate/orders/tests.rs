//! What is sent, in every phase.

use std::sync::Arc;

use tako_ring::publish_migration;
use tako_types::{StepNumber, config::Migration};

use super::*;

fn config(active: &str, target: Option<&str>) -> Config {
    let target = target.map_or(String::new(), |name| format!("target_deployment: {name}\n"));
    let text = format!(
        "partitions: 2\nactive_deployment: {active}\n{target}\
         store: {{url: 's3://b/p', access_key_id: me, secret_access_key: hush}}\ndeployments:\n  \
         d: {{hash: {{buckets_per_key: 1}}, buckets: {{b1: {{n1: [h, 1]}}}}}}\n  \
         t: {{hash: {{buckets_per_key: 1}}, buckets: {{b1: {{n2: [h, 2]}}}}}}\n"
    );
    Config::parse(&text).expect("valid")
}

fn moving(phase: Option<Phase>) -> Published {
    let (active, other) = if phase == Some(Phase::Leave) { ("t", "d") } else { ("d", "t") };
    let target = phase.filter(|phase| *phase != Phase::Leave).map(|_| "t");
    let barrier = if phase == Some(Phase::ReadNew) { vec![StepNumber(1); 2] } else { Vec::new() };
    let migration = phase.map(|phase| Migration { phase, other: other.into(), barrier });
    publish_migration(Arc::new(config(active, target)), 5, migration, None).expect("a document")
}

fn layout(name: &str, node: &str) -> Deployment {
    let text = format!(
        "active_deployment: {name}\ndeployments: {{{name}: {{hash: {{buckets_per_key: 1}}, buckets: \
         {{b1: {{{node}: [h, 9]}}}}}}}}"
    );
    Config::parse(&text).expect("valid").active_deployment().clone()
}

#[test]
fn each_order_names_the_deployments_that_a_coordinator_takes_it_by() {
    let lost = BTreeSet::from([NodeId::new("n1")]);
    for phase in [Phase::Join, Phase::WriteBoth, Phase::ReadNew] {
        for (goal, active, target) in
            [(Goal::Promote, "t", Some("d")), (Goal::Finish, "t", None), (Goal::Abort, "d", None)]
        {
            let order = steer(&moving(Some(phase)), goal, &lost).expect("an order");
            assert_eq!((order.active.as_str(), order.target.as_deref()), (active, target));
            assert_eq!(order.accept_loss, lost);
            let read = Config::parse(&order.to_yaml()).expect("its own text");
            assert_eq!(read, order, "the secret and the nodes given up included");
        }
    }
}

#[test]
fn what_cannot_be_any_more_is_a_conflict() {
    let leaving = moving(Some(Phase::Leave));
    for goal in [Goal::Abort, Goal::Promote] {
        let error = steer(&leaving, goal, &BTreeSet::new()).expect_err("too late");
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    let order = steer(&leaving, Goal::Finish, &BTreeSet::new()).expect("it ends by itself");
    assert_eq!((order.active.as_str(), order.target), ("t", None));
    let unknown = BTreeSet::from([NodeId::new("n9")]);
    let error = steer(&moving(Some(Phase::Join)), Goal::Finish, &unknown).expect_err("no n9");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = begin(&moving(Some(Phase::WriteBoth)), &layout("u", "n7")).expect_err("moving");
    assert!(error.to_string().contains("`d` is moving to `t`"), "{error}");
    let error = begin(&leaving, &layout("u", "n7")).expect_err("leaving");
    assert!(error.to_string().contains("`d` is still being left for `t`"), "{error}");
}

#[test]
fn a_move_begins_with_the_wanted_layout_beside_the_active_one() {
    let still = moving(None);
    let Ok(Begin::Order(order)) = begin(&still, &layout("u", "n7")) else { panic!("an order") };
    assert_eq!((order.active.as_str(), order.target.as_deref()), ("d", Some("u")));
    assert!(order.deployments.contains_key("d") && order.deployments.contains_key("t"));
    let same = still.config.deployments["d"].clone();
    assert!(matches!(begin(&still, &same), Ok(Begin::Done)));
    let same = still.config.deployments["t"].clone();
    assert!(matches!(begin(&moving(Some(Phase::Join)), &same), Ok(Begin::UnderWay)));
}

#[test]
fn a_layout_under_the_active_ones_name_or_with_a_second_address_is_refused_with_what_to_do() {
    let still = moving(None);
    let error = begin(&still, &layout("d", "n7")).expect_err("a clash").to_string();
    assert!(error.contains("another name, such as `d-1`"), "{error}");
    let error = begin(&still, &layout("u", "n1")).expect_err("two addresses").to_string();
    assert!(error.contains("another address here than in the deployment `d`"), "{error}");
    assert!(!error.contains("line"), "{error}");
    let mut other = config("d", None);
    other.partitions = 4;
    let error = check_cluster(&still.config, &other).expect_err("partitions").to_string();
    assert!(error.contains("fixed for a cluster's data"), "{error}");
}

#[test]
fn names_go_on_counting_and_old_ones_of_that_kind_are_dropped() {
    let mut config = config("d", None);
    assert_eq!(next_name(&config), "d-1");
    for name in ["d-1", "d-2", "d-x"] {
        config.deployments.insert(name.into(), layout(name, "n7"));
    }
    config.active = "d-2".into();
    assert_eq!(next_name(&config), "d-3");
    let in_force = tako_ring::publish(Arc::new(config), 5, None).expect("a document");
    let Ok(Begin::Order(order)) = begin(&in_force, &layout("d-3", "n7")) else {
        panic!("an order")
    };
    let names: Vec<&str> = order.deployments.keys().map(String::as_str).collect();
    assert_eq!(names, ["d", "d-2", "d-3", "d-x", "t"]);
}
