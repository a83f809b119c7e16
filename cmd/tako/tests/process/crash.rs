//! Processes are killed with -9 and folders deleted: what was acknowledged is there.

use rustix::process::Signal;

use crate::support::{Cluster, lives, must_be_ready, must_get, must_put, put, signal, wait_for};

#[test]
fn with_one_of_three_nodes_killed_reads_and_writes_go_on_and_it_can_come_back() {
    let mut cluster = Cluster::started(3);
    for n in 0..20 {
        must_put(cluster.proxy, &format!("before/{n}"), &format!("{n}"));
    }
    cluster.kill("n3");
    wait_for("the report of the death", || {
        cluster.launcher_log().contains("node n3 was killed by signal 9").then_some(())
    });
    let (n1, proxy) = (cluster.nodes[0].0, cluster.proxy);
    for n in 0..20 {
        must_put(proxy, &format!("after/{n}"), &format!("{n}"));
        assert_eq!(must_get(proxy, &format!("before/{n}")), Some(format!("{n}")));
        assert_eq!(must_get(n1, &format!("after/{n}")), Some(format!("{n}")));
    }
    // By the very words that the launcher printed.
    cluster.start_as_printed();
    let n3 = cluster.nodes[2].0;
    must_be_ready(n3);
    for n in 0..20 {
        assert_eq!(must_get(n3, &format!("after/{n}")), Some(format!("{n}")));
    }
}

#[test]
fn with_everything_killed_at_once_every_acknowledged_value_is_there_afterwards() {
    let mut cluster = Cluster::started(3);
    // Writes go on while the processes are killed; only acknowledged ones count.
    let acknowledged: Vec<usize> = std::thread::scope(|scope| {
        let proxy = cluster.proxy;
        let writer = scope.spawn(move || {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                if !put(proxy, &format!("key/{n}"), &format!("value {n}")) {
                    break;
                }
                acknowledged.push(n);
            }
            acknowledged
        });
        wait_for("some writes", || {
            (must_get(proxy, "key/50").is_some() || writer.is_finished()).then_some(())
        });
        let mut pids = vec![cluster.launcher()];
        pids.extend(cluster.pids());
        for pid in &pids {
            signal(*pid, Signal::KILL);
        }
        cluster.ended();
        wait_for("the end of all", || pids.iter().all(|pid| !lives(*pid)).then_some(()));
        writer.join().expect("the writer ends")
    });
    assert!(50 <= acknowledged.len(), "{} writes", acknowledged.len());

    cluster.start();
    for n in acknowledged {
        let found = must_get(cluster.proxy, &format!("key/{n}"));
        assert_eq!(found, Some(format!("value {n}")), "key/{n} was acknowledged");
    }
}

#[test]
fn a_node_whose_folder_was_deleted_recovers_and_serves() {
    let mut cluster = Cluster::started(3);
    for n in 0..20 {
        must_put(cluster.proxy, &format!("key/{n}"), &format!("{n}"));
    }
    assert_eq!(cluster.stop().code(), Some(0), "{}", cluster.launcher_log());
    std::fs::remove_dir_all(cluster.var().join("data/n3")).expect("deleted");
    cluster.start();
    let n3 = cluster.nodes[2].0;
    wait_for("n3 to serve", || {
        let status = crate::support::json(n3, "/cluster")?;
        (status["nodes"][2]["state"] == "serving").then_some(())
    });
    // Its vote counts: with another node gone it is needed for every quorum.
    cluster.kill("n1");
    for n in 0..20 {
        assert_eq!(must_get(n3, &format!("key/{n}")), Some(format!("{n}")));
    }
    must_put(n3, "new", "value");
    assert_eq!(must_get(cluster.proxy, "new"), Some("value".to_owned()));
}
