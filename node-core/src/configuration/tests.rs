use std::sync::Barrier;

use tako_flatbuf::MemoryNetwork;
use tako_journal::FsDisk;
use tako_snapshot::Store;
use tako_types::config::Config;
use tokio_util::sync::CancellationToken;

use super::*;

/// A document with this number; `interval_s` makes its content its own.
fn document(number: u64, interval_s: u64) -> Published {
    let text = format!(
        "partitions: 4\nsnapshot: {{interval: {interval_s}s}}\nactive_deployment: d\ndeployments:\n  \
         d:\n    hash: {{buckets_per_key: 1}}\n    buckets:\n      b1:\n        n1: [localhost, 4701]\n"
    );
    let config = Arc::new(Config::parse(&text).expect("a valid configuration"));
    tako_ring::publish(config, number, None).expect("it can be laid out")
}

/// Offers all documents at the same time, each from a thread of its own.
fn adopt_at_once(cell: &ConfigCell, documents: Vec<Published>) {
    let start = Barrier::new(documents.len());
    std::thread::scope(|scope| {
        for document in documents {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let _ = cell.adopt(document);
            });
        }
    });
}

#[test]
fn of_documents_that_arrive_at_once_the_newest_is_in_force_and_on_disk() {
    for _ in 0..8 {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cell =
            ConfigCell::new(document(1, 1), Arc::new(FsDisk), Some(folder.path().to_owned()))
                .expect("kept");
        adopt_at_once(&cell, (2..=7).map(|number| document(number, number)).collect());
        assert_eq!(cell.epoch().number, 7, "an older document came late");
        let kept = newest_kept(&FsDisk, folder.path()).expect("a document");
        assert_eq!(kept.epoch, cell.epoch());
        assert_eq!(cell.refused(), None);
    }
}

#[test]
fn of_two_documents_of_one_number_the_one_in_force_is_the_one_on_disk() {
    for _ in 0..8 {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cell =
            ConfigCell::new(document(1, 1), Arc::new(FsDisk), Some(folder.path().to_owned()))
                .expect("kept");
        adopt_at_once(&cell, (2..=5).map(|interval_s| document(2, interval_s)).collect());
        let kept = newest_kept(&FsDisk, folder.path()).expect("a document");
        assert_eq!(kept.epoch, cell.epoch());
        assert!(cell.refused().is_some_and(|reason| reason.contains("differs")));
    }
}

#[tokio::test(start_paused = true)]
async fn without_coordinators_the_first_document_is_found_in_the_store() {
    let network = Arc::new(MemoryNetwork::new().as_host("n1"));
    let source = ConfigSource::Coordinators(vec!["c1:4600".to_owned()]);
    let store = Store::in_memory();
    for number in [1, 2] {
        let bytes = document(number, number).encode().into();
        store.publish_config(number, bytes).await.expect("published");
    }
    let mut watcher = ConfigWatcher::new(source, network);
    let shutdown = CancellationToken::new();
    let first = watcher.first(Some(&store), &shutdown);
    let first = tokio::time::timeout(std::time::Duration::from_secs(60), first).await;
    let found = first.expect("it waits for a coordinator").expect("no file").expect("no shutdown");
    assert_eq!(found.epoch.number, 2);
}

/// The same cluster's data, restored to a root with other partitions.
fn restored(number: u64, partitions: u32) -> Published {
    let mut config = (*document(number, 1).config).clone();
    config.partitions = partitions;
    tako_ring::publish(Arc::new(config), number, None).expect("it can be laid out")
}

#[test]
fn what_was_kept_may_be_followed_by_anything_newer_only_until_it_was_confirmed() {
    let cell = |provisional: bool| {
        let cell = ConfigCell::new(document(1, 1), Arc::new(FsDisk), None).expect("kept");
        if provisional { cell.provisional() } else { cell }
    };
    assert!(cell(false).adopt(restored(2, 8)).is_err());
    let kept = cell(true);
    assert_eq!(kept.adopt(restored(2, 8)).ok(), Some(true));
    assert!(kept.adopt(restored(3, 16)).is_err(), "only the first one");
    let confirmed = cell(true);
    assert_eq!(confirmed.adopt(document(1, 1)).ok(), Some(false));
    assert!(confirmed.adopt(restored(2, 8)).is_err());
}
