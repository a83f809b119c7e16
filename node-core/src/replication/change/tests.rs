//! A change over replicas that answer as a test says: what is known of a record that some took.

use std::sync::Mutex;

use tako_flatbuf::{PrepareOutcome, PutOutcome};
use tako_types::{Incarnation, StepNumber};

use super::*;
use crate::replication::tests::{Fakes, fakes, record};

const DEADLINE: Duration = Duration::from_secs(5);

type Answer = Option<Result<Response, RpcError>>;

/// A replica with one record, which it keeps as a real one does, but for Accepts that go wrong.
#[derive(Default)]
struct Acceptor {
    held: Mutex<Option<Record>>,
    /// What becomes of the next Accepts, first one first; after them it takes what it must.
    accepts: Mutex<Vec<Accept>>,
    repairs: Mutex<usize>,
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
            Request::Prepare { ballot, .. } if *ballot <= version => {
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
                    None if version > *base => {
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
                if record.version() < version {
                    return Some(Ok(Response::Put(PutOutcome::Superseded { version })));
                }
                *held = Some(record.clone());
                Some(Ok(Response::Put(accepted())))
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
    let ChangeOutcome::Done { version } = done else { panic!("{done:?}") };
    assert!(old() < version);
    assert!(replicas.iter().filter(|it| it.version() == Some(version)).count() >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_one_replica_took_without_a_majority_is_made_once_more() {
    use Accept::{Lost, Taken};
    let (world, replicas) = three(all(OLD), [&[Taken], &[Lost], &[Lost]]).await;
    let done = change(&world, Condition::OneOf(vec![old()])).await;
    let ChangeOutcome::Done { version } = done else { panic!("{done:?}") };
    // Its own record is not what the condition asks for; it is recognised all the same, or, where
    // two others answered first, replaced by one that was decided on what those have. Never is it
    // brought to others at its own ballot: something else may lie above it by then.
    assert!(replicas.iter().filter(|it| it.version() == Some(version)).count() >= 2);
    let repairs: usize = replicas.iter().map(|it| *it.repairs.lock().expect("no panic")).sum();
    assert_eq!(repairs, 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_nobody_took_leaves_nothing_in_doubt() {
    use Accept::Refused;
    let (world, _) = three(all(OLD), [&[Refused], &[Refused], &[Refused]]).await;
    let done = change(&world, Condition::OneOf(vec![old()])).await;
    assert!(matches!(done, ChangeOutcome::Done { .. }), "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_may_be_held_and_something_newer_make_the_outcome_unknown() {
    use Accept::Lost;
    let (world, replicas) = three(all(OLD), [&[Lost], &[Lost], &[Lost]]).await;
    let newer = record(tako_types::Clock::now_micros(&tako_types::SystemClock) + 1_000_000);
    let change = Change::new(Condition::OneOf(vec![old()]), record(0));
    let changed = world.serving.change_here(&change, DEADLINE);
    tokio::pin!(changed);
    // Until it asks again.
    while replicas.iter().any(|it| !it.accepts.lock().expect("no panic").is_empty()) {
        tokio::select! {
            biased;
            _ = &mut changed => panic!("not yet"),
            () = tokio::task::yield_now() => {}
        }
    }
    for replica in &replicas {
        *replica.held.lock().expect("no panic") = Some(newer.clone());
    }
    let outcome = changed.await.expect("an outcome");
    assert!(matches!(outcome, ChangeOutcome::Unknown { .. }), "{outcome:?}");
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
