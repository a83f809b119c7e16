//! Chains of documents, and what is kept of them.

use std::sync::Arc;

use tako_snapshot::Store;
use tako_types::config::Config;

use super::*;

const C1: Numbering<'_> = Numbering { id: "c1", shared: true };

fn document(number: u64, master: &str) -> Published {
    let text = format!(
        "partitions: 1\nactive_deployment: d\nmaster_coordinator: {master}\n\
         coordinators: {{c1: [h, 91], c2: [h, 92]}}\ndeployments:\n  \
         d: {{hash: {{buckets_per_key: 1}}, buckets: {{b1: {{n1: [h, 1]}}}}}}\n"
    );
    let config = Arc::new(Config::parse(&text).expect("a valid configuration"));
    tako_ring::publish(config, number, None).expect("a document")
}

/// Whether a file of c1 that was seen at the first of these still counts at the last.
async fn reaches(mandate: &Mandate, chain: &[(u64, &str)]) -> bool {
    let store = Store::in_memory();
    let documents: Vec<_> =
        chain.iter().map(|(number, master)| document(*number, master)).collect();
    for one in &documents {
        let created = store.create(one.epoch.number, one.encode().into());
        created.await.expect("the store is there");
    }
    let both = (&documents[0], &documents[documents.len() - 1]);
    mandate.reaches(&store, C1, both).await.expect("the store is there")
}

#[tokio::test]
async fn a_file_counts_as_long_as_every_document_names_its_coordinator_as_master() {
    let file = Mandate::of("text");
    assert!(reaches(&file, &[(5, "c1")]).await);
    assert!(reaches(&file, &[(5, "c1"), (6, "c1"), (9, "c1")]).await);
    assert!(!reaches(&file, &[(5, "c1"), (6, "c2")]).await);
    assert!(!reaches(&file, &[(5, "c1"), (6, "c2"), (7, "c1")]).await, "taken over and given back");
    assert!(!reaches(&file, &[(5, "c2"), (6, "c1")]).await, "given by the other one");
    assert!(!reaches(&file, &[(5, "c1"), (5 + 2 * WALK_MAX, "c1")]).await, "too far to be known");
    assert!(!reaches(&file.ended(), &[(5, "c1"), (6, "c1")]).await, "it never begins again");
}

#[tokio::test]
async fn a_take_over_that_was_tried_is_its_own() {
    let tried = Mandate::of("text").trying(document(6, "c1").epoch);
    assert!(reaches(&tried, &[(5, "c2"), (6, "c1"), (7, "c1")]).await);
    assert!(!reaches(&tried, &[(5, "c2"), (6, "c2"), (7, "c1")]).await, "somebody else was faster");
    // The next text may come before it is seen that the try was no failure.
    let next = tried.renewed("another text");
    assert!(reaches(&next, &[(5, "c2"), (6, "c1"), (7, "c1")]).await);
    assert!(next.is_for("another text") && !tried.ended().renewed("text").is_over());
}

#[test]
fn what_is_kept_reads_back_and_what_makes_no_sense_is_nothing() {
    let mandate = Mandate::of("text").trying(document(6, "c1").epoch).ended();
    assert_eq!(Mandate::decode(&mandate.encode()), Some(mandate.clone()));
    assert!(mandate.is_for("text") && !mandate.is_for("text "));
    let replacing = Mandate::of("order").in_place_of(&mandate);
    assert_eq!(Mandate::decode(&replacing.encode()), Some(replacing.clone()));
    assert_eq!(replacing.clone().of_either("text"), Some(mandate.clone()));
    assert_eq!(replacing.settled(), Some(Mandate::of("order")));
    for damaged in ["", "{}", "{\"text\": 7, \"tried\": [], \"is_over\": true}"] {
        assert_eq!(Mandate::decode(damaged.as_bytes()), None, "{damaged}");
    }
}
