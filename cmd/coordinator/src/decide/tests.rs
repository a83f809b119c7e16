//! Files as orders, in every phase.

use std::sync::Arc;

use tako_ring::publish_migration;
use tako_types::StepNumber;

use super::*;

/// `d` and `t`; `more` goes before them.
fn file(active: &str, target: Option<&str>, more: &str) -> Config {
    let target = target.map_or(String::new(), |name| format!("target_deployment: {name}\n"));
    let text = format!(
        "partitions: 1\nactive_deployment: {active}\n{target}{more}deployments:\n  \
         d: {{hash: {{buckets_per_key: 1}}, buckets: {{b1: {{n1: [localhost, 1]}}}}}}\n  \
         t: {{hash: {{buckets_per_key: 1}}, buckets: {{b1: {{n2: [localhost, 2]}}}}}}\n  \
         u: {{hash: {{buckets_per_key: 1}}, buckets: {{b1: {{n3: [localhost, 3]}}}}}}\n"
    );
    Config::parse(&text).expect("a valid configuration")
}

fn moving(phase: Option<Phase>, barrier: usize) -> Published {
    let (active, other) = if phase == Some(Phase::Leave) { ("t", "d") } else { ("d", "t") };
    let target = phase.filter(|phase| *phase != Phase::Leave).map(|_| "t");
    let barrier = vec![StepNumber(1); barrier];
    let migration = phase.map(|phase| Migration { phase, other: other.into(), barrier });
    let config = Arc::new(file(active, target, ""));
    publish_migration(config, 5, migration, None).expect("a document")
}

/// The phase of the document that a file brings, or `Keep`, or why it is refused.
fn outcome(in_force: &Published, file: &Config) -> Result<String, String> {
    let numbering = Numbering { id: "c1", shared: false };
    match decide(Some(in_force), file, Path::new("f"), numbering) {
        Ok(Decision::Keep) => Ok("keep".into()),
        Ok(Decision::Publish(number, config, migration)) => {
            assert_eq!(number, 6);
            let phase = migration.as_ref().map_or("none", |it| it.phase.as_str()).to_owned();
            let document = publish_migration(Arc::new(*config), number, migration, Some(in_force));
            document.map(|_| phase).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn a_file_is_an_order_for_the_migration_under_way() {
    use Phase::{Join, Leave, ReadNew, WriteBoth};
    let (hold, finish) = (file("d", Some("t"), ""), file("t", None, ""));
    let abort = file("d", None, "");
    let promote = file("t", Some("d"), "");
    let cases = [
        (moving(Some(Join), 0), &promote, "keep"),
        (moving(Some(WriteBoth), 0), &promote, "keep"),
        (moving(Some(WriteBoth), 1), &promote, "keep"),
        (moving(Some(ReadNew), 1), &promote, "keep"),
        (moving(None, 0), &hold, "join"),
        (moving(None, 0), &abort, "keep"),
        (moving(Some(Join), 0), &hold, "keep"),
        (moving(Some(Join), 0), &finish, "keep"),
        (moving(Some(Join), 0), &abort, "none"),
        (moving(Some(WriteBoth), 0), &hold, "keep"),
        (moving(Some(WriteBoth), 0), &finish, "keep"),
        (moving(Some(WriteBoth), 0), &abort, "leave"),
        (moving(Some(WriteBoth), 1), &abort, "keep"),
        (moving(Some(ReadNew), 1), &hold, "keep"),
        (moving(Some(ReadNew), 1), &finish, "keep"),
        (moving(Some(ReadNew), 1), &abort, "write-both"),
        (moving(Some(Leave), 0), &finish, "keep"),
    ];
    for (in_force, file, expected) in cases {
        let phase = in_force.migration.as_ref().map(|it| it.phase);
        assert_eq!(outcome(&in_force, file).as_deref(), Ok(expected), "{phase:?}");
    }
}

#[test]
fn settings_change_during_a_migration_and_it_goes_on() {
    let settings = file("d", Some("t"), "tombstone_grace: 3h\n");
    let both = moving(Some(Phase::WriteBoth), 0);
    assert_eq!(outcome(&both, &settings).as_deref(), Ok("write-both"));
    let leaving = file("t", None, "tombstone_grace: 3h\n");
    assert_eq!(outcome(&moving(Some(Phase::Leave), 0), &leaving).as_deref(), Ok("leave"));
}

#[test]
fn a_number_of_the_files_own_does_not_stop_the_migration_that_it_began() {
    let hold = file("d", Some("t"), "epoch: 3\n");
    assert_eq!(outcome(&moving(Some(Phase::WriteBoth), 0), &hold).as_deref(), Ok("keep"));
    let abort = file("d", None, "epoch: 3\n");
    assert_eq!(outcome(&moving(Some(Phase::WriteBoth), 0), &abort).as_deref(), Ok("leave"));
}

#[test]
fn what_is_no_order_for_the_migration_under_way_is_refused_with_what_to_do() {
    let both = moving(Some(Phase::WriteBoth), 0);
    let elsewhere = outcome(&both, &file("d", Some("u"), "")).expect_err("another target");
    assert!(elsewhere.contains("`d` is moving to `t`"), "{elsewhere}");
    assert!(elsewhere.contains("give that up first"), "{elsewhere}");
    let leaving = moving(Some(Phase::Leave), 0);
    let back = outcome(&leaving, &file("d", None, "")).expect_err("not yet");
    assert!(back.contains("`d` is still being left"), "{back}");
    let swapped = file("t", Some("d"), "");
    assert!(outcome(&leaving, &swapped).expect_err("not any more").contains("being left"));
    assert!(outcome(&moving(None, 0), &swapped).is_err(), "nothing moves");
    let at_once = outcome(&moving(None, 0), &file("t", None, "")).expect_err("no migration");
    assert!(at_once.contains("active_deployment"), "{at_once}");
    let text = "partitions: 1\nactive_deployment: d\ntarget_deployment: t\ndeployments:\n  \
                d: {hash: {buckets_per_key: 1}, buckets: {b1: {n1: [localhost, 1]}}}\n  \
                t: {hash: {buckets_per_key: 1}, buckets: {b1: {n3: [localhost, 3]}}}\n";
    let changed = Config::parse(text).expect("a valid configuration");
    let changed = outcome(&both, &changed).expect_err("both sets are written");
    assert!(changed.contains("deployments.t.buckets.b1"), "{changed}");
}

const COORDINATORS: &str = "coordinators: {c1: [localhost, 91], c2: [localhost, 92]}\n";

fn decided(id: &str, in_force: Option<&Published>, file: &Config) -> Result<Decision, String> {
    let numbering = Numbering { id, shared: true };
    decide(in_force, file, Path::new("f"), numbering).map_err(|error| error.to_string())
}

fn published(more: &str) -> Published {
    publish_migration(Arc::new(file("d", None, more)), 5, None, None).expect("a document")
}

#[test]
fn who_is_master_by_the_document_in_force_gives_the_next_number_whatever_an_old_file_says() {
    let by_c2 = published(&format!("{COORDINATORS}master_coordinator: c2\n"));
    let old = file("d", None, &format!("{COORDINATORS}master_coordinator: c1\ndurability: os\n"));
    let refused = decided("c1", Some(&by_c2), &old).expect_err("c2 is master");
    assert!(refused.contains("`c2` gives the numbers"), "{refused}");
    assert!(refused.contains("with epoch: 6"), "{refused}");
    // The master may hand over; a number of its own takes over.
    assert!(matches!(decided("c2", Some(&by_c2), &old), Ok(Decision::Publish(6, ..))));
    let taking = file(
        "d",
        None,
        &format!("{COORDINATORS}master_coordinator: c1\ndurability: os\nepoch: 6\n"),
    );
    assert!(matches!(decided("c1", Some(&by_c2), &taking), Ok(Decision::Publish(6, ..))));
}

#[test]
fn where_no_master_is_named_the_first_of_several_is_it() {
    let in_force = published(COORDINATORS);
    let changed = file("d", None, &format!("{COORDINATORS}durability: os\n"));
    assert!(matches!(decided("c1", Some(&in_force), &changed), Ok(Decision::Publish(6, ..))));
    let refused = decided("c2", Some(&in_force), &changed).expect_err("c1 is the first");
    assert!(refused.contains("`c1` gives the numbers"), "{refused}");
    // One number is one document: whoever comes first may publish the first of all.
    assert!(matches!(decided("c2", None, &changed), Ok(Decision::Publish(1, ..))));
    let alone = published("coordinators: {c1: [localhost, 91]}\n");
    assert!(matches!(decided("c7", Some(&alone), &changed), Ok(Decision::Publish(6, ..))));
}

#[test]
fn an_old_number_in_a_file_does_not_make_anybody_else_order_in_a_migration() {
    let text = format!("{COORDINATORS}master_coordinator: c1\n");
    let migration = Migration { phase: Phase::WriteBoth, other: "t".into(), barrier: Vec::new() };
    let config = Arc::new(file("d", Some("t"), &text));
    let both = publish_migration(config, 5, Some(migration), None).expect("a document");
    let abort = file("d", None, &format!("{text}epoch: 3\n"));
    assert!(decided("c2", Some(&both), &abort).is_err(), "c1 is master");
    assert!(matches!(decided("c1", Some(&both), &abort), Ok(Decision::Publish(6, ..))));
}

#[test]
fn where_two_could_publish_at_the_same_time_no_number_is_left_out() {
    let text = |master: &str, epoch: u64| {
        format!("{COORDINATORS}master_coordinator: {master}\nepoch: {epoch}\n")
    };
    let by_c1 = published(&format!("{COORDINATORS}master_coordinator: c1\n"));
    let migration = Migration { phase: Phase::WriteBoth, other: "t".into(), barrier: Vec::new() };
    let both = file("d", Some("t"), &format!("{COORDINATORS}master_coordinator: c1\n"));
    let both = publish_migration(Arc::new(both), 5, Some(migration), None).expect("a document");
    for (who, id, in_force, active, target, master) in [
        ("who hands over", "c1", &by_c1, "d", None, "c2"),
        ("who takes over", "c2", &by_c1, "d", None, "c2"),
        ("the master by itself", "c1", &by_c1, "d", None, "c1"),
        ("who begins a move", "c1", &by_c1, "d", Some("t"), "c1"),
        ("who gives it up", "c1", &both, "d", None, "c1"),
        ("who takes it over", "c2", &both, "t", None, "c2"),
    ] {
        let claims = |epoch: u64| {
            let more = format!("{}durability: os\n", text(master, epoch));
            decided(id, Some(in_force), &file(active, target, &more))
        };
        assert!(matches!(claims(6), Ok(Decision::Publish(6, ..))), "{who}");
        let refused = claims(7).expect_err(who);
        assert!(refused.contains("epoch: 7 leaves out 6"), "{who}: {refused}");
        assert!(refused.contains("say 6"), "{who}: {refused}");
    }
    // The first document of all may: a date, for one.
    let dated = file("d", None, &text("c1", 20_261_121));
    assert!(matches!(decided("c1", None, &dated), Ok(Decision::Publish(20_261_121, ..))));
}

#[test]
fn a_number_from_anybody_but_the_master_takes_over_or_is_no_order() {
    let text = format!("{COORDINATORS}master_coordinator: c1\n");
    let migration = Migration { phase: Phase::WriteBoth, other: "t".into(), barrier: Vec::new() };
    let both = Arc::new(file("d", Some("t"), &text));
    let both = publish_migration(both, 5, Some(migration), None).expect("a document");
    let text = format!("{text}epoch: 6\n");
    let more = format!("{text}durability: os\n");
    let at_rest = published(&text);
    for (in_force, target) in [(&both, None), (&at_rest, Some("t")), (&at_rest, None)] {
        let refused = decided("c2", Some(in_force), &file("d", target, &more));
        let refused = refused.expect_err("c1 would go on by its own file");
        assert!(refused.contains("`c1` gives the numbers"), "{refused}");
    }
}

#[test]
fn whoever_takes_over_in_a_migration_is_master_at_once_whatever_is_ordered() {
    let text = format!("{COORDINATORS}master_coordinator: c1\n");
    let migration = Migration { phase: Phase::WriteBoth, other: "t".into(), barrier: Vec::new() };
    let config = Arc::new(file("d", Some("t"), &text));
    let both = publish_migration(config, 5, Some(migration), None).expect("a document");
    let text = format!("{COORDINATORS}master_coordinator: c2\nepoch: 6\n");
    let finish = file("t", None, &text);
    let Ok(Decision::Publish(6, config, Some(_))) = decided("c2", Some(&both), &finish) else {
        panic!("published");
    };
    assert_eq!((config.active.as_str(), config.master()), ("d", Some("c2")));
}

#[test]
fn nodes_are_given_up_while_something_waits_for_them_and_not_beforehand() {
    let loss = |nodes: &str| format!("migration: {{accept_loss: [{nodes}]}}\n");
    let both = moving(Some(Phase::WriteBoth), 0);
    let finish = file("t", None, &loss("n1"));
    assert_eq!(outcome(&both, &finish).as_deref(), Ok("keep"));
    let unknown = outcome(&both, &file("t", None, &loss("n3"))).expect_err("not of this move");
    assert!(unknown.contains("neither `d` nor `t` has a node n3"), "{unknown}");
    let beforehand = file("d", Some("t"), &loss("n1"));
    let refused = outcome(&moving(None, 0), &beforehand).expect_err("nothing waits");
    assert!(refused.contains("no migration is under way"), "{refused}");
    // What is left in the file when it has ended is no harm.
    let left = file("d", None, &loss("n1"));
    assert_eq!(outcome(&moving(None, 0), &left).as_deref(), Ok("keep"));
}
