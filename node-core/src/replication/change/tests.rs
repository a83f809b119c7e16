//! A change over replicas that answer as a test says: what is known of a record that some took.

use std::sync::Mutex;

use tako_flatbuf::{PrepareOutcome, PutOutcome, StatAnswer};
use tako_types::{Incarnation, StepNumber};

use super::*;
use crate::replication::{
    Read,
    tests::{Fakes, fakes, record},
};

const DEADLINE: Duration = Duration::from_secs(5);

type Answer = Option<Result<Response, RpcError>>;

/// A replica with one record, which it keeps as a real one does, but for Accepts that go wrong.
#[derive(Default)]
struct Acceptor {
    held: Mutex<Option<Record>>,
    /// What becomes of the next Accepts, first one first; after them it takes what it must.
    accepts: Mutex<Vec<Accept>>,
    /// Versions of all Accepts that came.
    offered: Mutex<Vec<Version>>,
    repairs: Mutex<usize>,
    /// Takes no repairs below.
    promised: Mutex<Version>,
}

#[derive(Clone, Copy)]
enum Accept {
    /// Not taken, and not answered.
    Lost,
    /// Taken, but the answer is lost.
    Taken,
    /// Refused for a record.
    Refused,
}

fn accepted() -> PutOutcome {
    PutOutcome::Accepted { incarnation: Incarnation(1), voting: true, known: Vec::new() }
}

impl Acceptor {
    fn answer(&self, request: &Request) -> Answer {
        let mut held = self.held.lock().expect("no test panics holding it");
        let version = held.as_ref().map(Record::version).unwrap_or_default();
        let lost = || Some(Err(RpcError::unavailable("the answer is lost")));
        match request {
            Request::Prepare { ballot, .. } if *ballot < version => {
                Some(Ok(Response::Prepare(PrepareOutcome::Refused { version })))
            }
            Request::Prepare { .. } => Some(Ok(Response::Prepare(PrepareOutcome::Promised {
                incarnation: Incarnation(1),
                known: Vec::new(),
                record: held.clone(),
                step: StepNumber(0),
                covered: false,
                voting: true,
            }))),
            Request::Accept { base, record, .. } => {
                self.offered.lock().expect("no test panics holding it").push(record.version());
                let mut accepts = self.accepts.lock().expect("no test panics holding it");
                let fate = (!accepts.is_empty()).then(|| accepts.remove(0));
                match fate {
                    Some(Accept::Lost) => lost(),
                    Some(Accept::Taken) => {
                        *held = Some(record.clone());
                        lost()
                    }
                    Some(Accept::Refused) => {
                        Some(Ok(Response::Accept(PutOutcome::Superseded { version: *base })))
                    }
                    None if *base < version && version != record.version() => {
                        Some(Ok(Response::Accept(PutOutcome::Superseded { version })))
                    }
                    None => {
                        *held = Some(record.clone());
                        Some(Ok(Response::Accept(accepted())))
                    }
                }
            }
            Request::Put { record, repair, .. } => {
                assert!(*repair, "a change sends nothing else");
                *self.repairs.lock().expect("no test panics holding it") += 1;
                let promised = *self.promised.lock().expect("no test panics holding it");
                if record.version() > version && record.version() < promised {
                    let version = promised;
                    return Some(Ok(Response::Put(PutOutcome::Promised { version })));
                }
                if record.version() < version {
                    return Some(Ok(Response::Put(PutOutcome::Superseded { version })));
                }
                *held = Some(record.clone());
                Some(Ok(Response::Put(accepted())))
            }
            Request::Get { .. } => Some(Ok(Response::Get {
                record: held.clone(),
                step: StepNumber(0),
                covered: false,
                voting: true,
            })),
            Request::Stat { .. } => {
                let crc = held.as_ref().map(Record::crc).unwrap_or_default();
                let version = held.as_ref().map(Record::version);
                let answers = vec![StatAnswer { version, crc }];
                Some(Ok(Response::Stat { answers, step: StepNumber(0), voting: true }))
            }
            _ => None,
        }
    }

    fn version(&self) -> Option<Version> {
        self.held.lock().expect("no test panics holding it").as_ref().map(Record::version)
    }
}

/// Three replicas that begin with these records, the first with these fates of its Accepts, and so on.
async fn three(
    held: [Option<Record>; 3],
    accepts: [&[Accept]; 3],
) -> (Fakes, Vec<&'static Acceptor>) {
    let world = fakes(3).await;
    let mut acceptors = Vec::new();
    for ((fake, held), accepts) in world.replicas.iter().zip(held).zip(accepts) {
        let acceptor: &'static Acceptor = Box::leak(Box::default());
        *acceptor.held.lock().expect("just made") = held;
        *acceptor.accepts.lock().expect("just made") = accepts.to_vec();
        fake.answers(|request| acceptor.answer(request));
        acceptors.push(acceptor);
    }
    (world, acceptors)
}

async fn change(world: &Fakes, condition: Condition) -> ChangeOutcome {
    let change = Change::new(condition, record(0));
    world.serving.change_here(&change, DEADLINE).await.expect("it is known, or not")
}

const OLD: u64 = 1_000;

fn old() -> Version {
    record(OLD).version()
}

fn all(micros: u64) -> [Option<Record>; 3] {
    [(); 3].map(|()| Some(record(micros)))
}

#[tokio::test(start_paused = true)]
async fn a_majority_takes_a_change_whose_condition_holds_and_none_another() {
    let (world, replicas) = three(all(OLD), [&[], &[], &[]]).await;
    let fails = change(&world, Condition::Absent).await;
    assert_eq!(fails, ChangeOutcome::Fails { version: Some(old()) });
    assert!(replicas.iter().all(|it| it.version() == Some(old())));
    let done = change(&world, Condition::OneOf(vec![old()])).await;
    let ChangeOutcome::Done { version, .. } = done else { panic!("{done:?}") };
    assert!(old() < version);
    assert!(replicas.iter().filter(|it| it.version() == Some(version)).count() >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_answers_are_lost_is_sent_again_under_the_same_version() {
    use Accept::{Lost, Taken};
    let (world, replicas) = three(all(OLD), [&[Taken], &[Lost], &[Lost]]).await;
    let done = change(&world, Condition::OneOf(vec![old()])).await;
    let ChangeOutcome::Done { version, .. } = done else { panic!("{done:?}") };
    // Somebody may have read it at the first one and change the key by the version that it had.
    for replica in replicas {
        let offered = replica.offered.lock().expect("no panic");
        assert_eq!((offered.len(), offered.iter().all(|it| *it == version)), (2, true));
        assert_eq!(*replica.repairs.lock().expect("no panic"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_one_replica_took_and_others_refused_is_left_and_its_outcome_unknown() {
    use Accept::{Refused, Taken};
    for first in [Taken, Accept::Lost] {
        let (world, replicas) = three(all(OLD), [&[first], &[Refused], &[Refused]]).await;
        let outcome = change(&world, Condition::OneOf(vec![old()])).await;
        assert!(matches!(outcome, ChangeOutcome::Unknown { .. }), "{outcome:?}");
        // Another one, decided on what was before both, may lie above it at one of the others: neither
        // may be brought to more replicas, nor may it be made again.
        for replica in replicas {
            assert_eq!(replica.offered.lock().expect("no panic").len(), 1);
            assert_eq!(*replica.repairs.lock().expect("no panic"), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_nobody_took_leaves_nothing_in_doubt() {
    use Accept::Refused;
    let (world, _) = three(all(OLD), [&[Refused], &[Refused], &[Refused]]).await;
    let done = change(&world, Condition::OneOf(vec![old()])).await;
    assert!(matches!(done, ChangeOutcome::Done { .. }), "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_fails_for_what_a_minority_holds_fails_for_all_from_then_on() {
    let newest = record(OLD + 5);
    let held = [Some(newest.clone()), Some(record(OLD)), Some(newest.clone())];
    let (world, replicas) = three(held, [&[], &[], &[]]).await;
    // Which two are heard first is chance; none is missed when all are different.
    let fails = change(&world, Condition::Absent).await;
    let ChangeOutcome::Fails { version: Some(version) } = fails else { panic!("{fails:?}") };
    let holding = replicas.iter().filter(|it| it.version() >= Some(version)).count();
    assert!(holding >= 2, "{version:?}");
    let apart = [Some(record(OLD + 1)), Some(record(OLD + 2)), Some(record(OLD + 3))];
    let (world, replicas) = three(apart, [&[], &[], &[]]).await;
    let fails = change(&world, Condition::Absent).await;
    let ChangeOutcome::Fails { version: Some(version) } = fails else { panic!("{fails:?}") };
    let holding = replicas.iter().filter(|it| it.version() >= Some(version)).count();
    assert!(holding >= 2, "{version:?}");
    let repairs: usize = replicas.iter().map(|it| *it.repairs.lock().expect("no panic")).sum();
    assert!(repairs > 0);
}

#[tokio::test(start_paused = true)]
async fn a_read_of_a_record_that_something_newer_overtook_asks_all_and_finds_that() {
    // Two changes that were left, each at one replica, decided on what the third still has.
    let (first, second) = (record(OLD + 1), record(OLD + 2));
    let held = [Some(first), Some(record(OLD)), Some(second.clone())];
    let (world, replicas) = three(held, [&[], &[], &[]]).await;
    *replicas[1].promised.lock().expect("no panic") = second.version();
    for _ in 0..3 {
        let read = Read { key: record(0).key(), r: None };
        let found = world.serving.get(&read, DEADLINE).await.expect("all are there");
        // Whichever two it asks: never the one of which later reads would know nothing.
        assert_eq!(found.map(|it| it.version()), Some(second.version()));
    }
    let holding = replicas.iter().filter(|it| it.version() == Some(second.version()));
    assert!(holding.count() >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_while_what_it_found_lies_below_a_promise_and_no_longer() {
    let newest = record(OLD + 1);
    let held = [Some(newest.clone()), Some(record(OLD)), Some(record(OLD))];
    let (world, replicas) = three(held, [&[], &[], &[]]).await;
    let promise = |version| {
        for replica in &replicas[1..] {
            *replica.promised.lock().expect("no panic") = version;
        }
    };
    let read = Read { key: newest.key(), r: Some(3) };
    promise(record(OLD + 2).version());
    let refused = world.serving.get(&read, DEADLINE).await;
    assert!(matches!(refused, Err(RequestError::Contended)), "{refused:?}");
    promise(Version::ZERO);
    let found = world.serving.get(&read, DEADLINE).await.expect("nothing is in the way");
    assert_eq!(found.map(|it| it.version()), Some(newest.version()));
    assert!(replicas.iter().filter(|it| it.version() == Some(newest.version())).count() >= 2);
}
