//! Schedules that a serving node must get right, told to replicas that answer by a script.
//!
//! The table in docs/testing.md says which rule each of them is about.

use tako_flatbuf::PutOutcome;

use super::*;

type Answer = Option<Result<Response, RpcError>>;

fn acknowledged(incarnation: u64, known: &[(&str, u64)]) -> Answer {
    let known = known.iter().map(|(node, inc)| (NodeId::new(node), Incarnation(*inc))).collect();
    let incarnation = Incarnation(incarnation);
    Some(Ok(Response::Put(PutOutcome::Accepted { incarnation, voting: true, known })))
}

fn away() -> Answer {
    Some(Err(RpcError::new(ErrorKind::Unavailable, "away")))
}

/// A replica whose snapshot view is at `step`: `index` is uncovered there, `merged` its vote.
#[derive(Debug, Clone, Copy)]
struct Holds {
    step: u64,
    index: Option<u64>,
    merged: Option<u64>,
}

impl Holds {
    fn answer(self, request: &Request) -> Answer {
        let step = StepNumber(self.step);
        let stat = |micros: Option<u64>| {
            let held = micros.map(record);
            let answers = vec![StatAnswer {
                version: held.as_ref().map(Record::version),
                crc: held.as_ref().map_or(0, Record::crc),
            }];
            Some(Ok(Response::Stat { answers, step, voting: true }))
        };
        match request {
            Request::Get { .. } => Some(Ok(Response::Get {
                record: self.merged.map(record),
                step,
                covered: self.index.is_none(),
                voting: true,
            })),
            Request::Stat { merged: true, .. } => stat(self.merged),
            Request::Stat { .. } => stat(self.index),
            _ => accepted(),
        }
    }
}

/// A read over three replicas of which the third is away; gives the answer's microseconds.
async fn read_of(first: Holds, second: Holds) -> (Fakes, Option<u64>) {
    let fakes = fakes(3).await;
    fakes.replicas[0].answers(move |request| first.answer(request));
    fakes.replicas[1].answers(move |request| second.answer(request));
    fakes.replicas[2].answers(|request| match request {
        Request::Put { .. } => accepted(),
        _ => away(),
    });
    let read = Read { key: key(), r: None };
    let found = fakes.serving.get(&read, LONG).await.expect("two of three answer");
    (fakes, found.map(|record| record.version().micros))
}

fn write_backs(fakes: &Fakes) -> usize {
    fakes.replicas.iter().map(|replica| replica.asked("put")).max().unwrap_or(0)
}

/// The replicas' names in the order in which a read asks them.
fn names(fakes: &Fakes) -> Vec<String> {
    let current = fakes.serving.links.config.current();
    let order = fakes.serving.candidates(&key(), current.replicas(PartitionId(0)));
    order.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_a_folder_lost_since_is_void_and_its_replica_is_written_to_again() {
    let fakes = fakes(3).await;
    let ghost = names(&fakes)[0].clone();
    // It acknowledged in folder 1, lost it, and was refilled as folder 5 before the second replica
    // had the write: that one knows.
    let acks = Mutex::new(vec![5, 1]);
    fakes.replicas[0].answers(move |_| acknowledged(acks.lock().expect("no panic").pop()?, &[]));
    fakes.replicas[1].answers(move |_| acknowledged(1, &[(&ghost, 5)]));
    fakes.replicas[2].answers(|_| away());
    fakes.serving.put(write(), LONG).await.expect("two folders that live hold it");
    assert_eq!(fakes.replicas[0].asked("put"), 2, "only a folder that is gone holds it");
    assert_eq!(fakes.serving.metrics.void_acks.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_only_second_holder_lost_its_folder_is_not_acknowledged() {
    let fakes = fakes(3).await;
    let ghost = names(&fakes)[0].clone();
    let acks = Mutex::new(vec![1]);
    fakes.replicas[0].answers(move |_| match acks.lock().expect("no panic").pop() {
        Some(incarnation) => acknowledged(incarnation, &[]),
        None => away(),
    });
    fakes.replicas[1].answers(move |_| acknowledged(1, &[(&ghost, 5)]));
    fakes.replicas[2].answers(|_| away());
    let error = fakes.serving.put(write(), LONG).await.expect_err("one journal holds it");
    assert!(matches!(error, RequestError::TooFewAcks { got: 1, need: 2, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_first_vote_is_not_the_answer_while_another_replica_holds_something_newer() {
    let old = Holds { step: 3, index: Some(5), merged: Some(5) };
    let newer = Holds { step: 3, index: Some(9), merged: Some(9) };
    let (fakes, found) = read_of(old, newer).await;
    assert_eq!(found, Some(9));
    assert_eq!(write_backs(&fakes), 1, "the first one lacks it");
}

#[tokio::test(start_paused = true)]
async fn a_replica_at_a_later_step_is_asked_for_its_record_whatever_its_index_says() {
    // The newer record was covered by step 4 and is in nobody's index any more.
    let ahead = Holds { step: 4, index: None, merged: Some(9) };
    for merged in [Some(5), None] {
        let (_, found) = read_of(Holds { step: 3, index: None, merged }, ahead).await;
        assert_eq!(found, Some(9), "an index answer across a step was believed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_at_a_lower_step_is_asked_for_its_merged_vote_before_it_is_said_to_differ() {
    // Its index lacks the record, for an earlier step covered it there as well.
    let ahead = Holds { step: 4, index: None, merged: Some(5) };
    let behind = Holds { step: 3, index: None, merged: Some(5) };
    let (fakes, found) = read_of(ahead, behind).await;
    assert_eq!(found, Some(5));
    assert_eq!(fakes.replicas[1].asked("stat"), 2, "its index, then its merged vote");
    assert_eq!(write_backs(&fakes), 0, "their votes do not differ");
}

#[tokio::test(start_paused = true)]
async fn a_replica_at_a_lower_step_that_lacks_the_record_gets_it_before_the_answer() {
    let ahead = Holds { step: 4, index: None, merged: Some(5) };
    let behind = Holds { step: 3, index: None, merged: None };
    let (fakes, found) = read_of(ahead, behind).await;
    assert_eq!(found, Some(5));
    assert_eq!(write_backs(&fakes), 1, "a later read from it would say absent");
}

#[tokio::test(start_paused = true)]
async fn a_read_does_not_answer_before_the_newest_is_at_w_replicas() {
    // What is left of a failed write: one of three holds it.
    let fakes = fakes(3).await;
    fakes.replicas[0].answers(|request| votes(request, 9));
    for replica in &fakes.replicas[1..] {
        replica.answers(|request| match request {
            Request::Put { .. } => None,
            _ => votes(request, 5),
        });
    }
    let read = Read { key: key(), r: None };
    let answer = fakes.serving.get(&read, LONG).await;
    let error = answer.expect_err("a read after this one may still find the older record");
    assert!(matches!(error, RequestError::TooFewVotes { got: 1, need: 2, .. }), "{error}");
    assert_eq!(write_backs(&fakes), 1);
}

/// A replica that takes everything, and judges from its `from`-th write on.
fn judges_from(from: usize) -> impl Fn(&Request) -> Answer {
    let taken = Mutex::new(0);
    move |_| {
        let mut taken = taken.lock().expect("no test panics holding it");
        *taken += 1;
        let (incarnation, known) = (Incarnation(1), Vec::new());
        let voting = *taken >= from;
        Some(Ok(Response::Put(PutOutcome::Accepted { incarnation, voting, known })))
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_w_hold_waits_a_moment_for_replicas_that_do_not_judge_yet() {
    let fakes = fakes(3).await;
    for (replica, from) in fakes.replicas.iter().zip([1, 3, 4]) {
        replica.answers(judges_from(from));
    }
    let written = fakes.serving.put(write(), LONG).await.expect("two of three judge in the end");
    assert!(written.won);
    let puts = fakes.replicas[1].puts();
    assert_eq!(puts.len(), 3, "sent again until it judges");
    assert!(puts.iter().all(|(_, version)| *version == written.version), "the same record");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_too_few_ever_judge_fails_within_its_time() {
    let fakes = fakes(3).await;
    for (replica, from) in fakes.replicas.iter().zip([1, usize::MAX, usize::MAX]) {
        replica.answers(judges_from(from));
    }
    let error = fakes.serving.put(write(), LONG).await.expect_err("one of three judges");
    let RequestError::TooFewAcks { reason, .. } = &error else { panic!("{error}") };
    assert_eq!(reason, "too many replicas are recovering");
    let short = Duration::from_millis(10);
    let error = fakes.serving.put(write(), short).await.expect_err("no time to wait");
    assert!(matches!(error, RequestError::Deadline(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_shown_before_enough_judged_is_not_sent_again_above_a_newer_one() {
    let fakes = fakes(3).await;
    let newer = Version { micros: u64::MAX / 2, origin: 1 };
    for replica in &fakes.replicas {
        let shown = Mutex::new(false);
        replica.answers(move |_| {
            let again = std::mem::replace(&mut *shown.lock().expect("no test panics"), true);
            let (incarnation, known) = (Incarnation(1), Vec::new());
            let taken = PutOutcome::Accepted { incarnation, voting: false, known };
            // Somebody read it meanwhile and wrote something newer.
            if again { superseded(newer) } else { Some(Ok(Response::Put(taken))) }
        });
    }
    let error = fakes.serving.put(write(), LONG).await.expect_err("nobody can say what it did");
    assert!(matches!(error, RequestError::TooFewAcks { .. }), "{error}");
    let puts = fakes.replicas[0].puts();
    assert!(puts.iter().all(|(_, version)| *version < newer), "it would bury the newer one");
}

/// Half of the grace, in microseconds.
const HALF_A_DAY: u64 = 12 * 3_600 * 1_000_000;

/// Three replicas that take everything, and until when they were told they may.
async fn told_until() -> (Fakes, Arc<Mutex<Vec<u64>>>) {
    let fakes = fakes(3).await;
    let until = Arc::new(Mutex::new(Vec::new()));
    for replica in &fakes.replicas {
        let until = until.clone();
        replica.answers(move |request| {
            let Request::Put { until_micros, .. } = request else { return None };
            until.lock().expect("no test panics holding it").push(*until_micros);
            accepted()
        });
    }
    (fakes, until)
}

#[tokio::test(start_paused = true)]
async fn a_write_is_taken_only_for_half_of_the_grace_from_when_it_was_sent() {
    let (fakes, until) = told_until().await;
    let now = || fakes.serving.clock().now_micros();
    let before = now();
    fakes.serving.put(write(), LONG).await.expect("all are there");
    fakes.serving.finish().await;
    let sent = before + HALF_A_DAY..=now() + HALF_A_DAY;
    let until = until.lock().expect("no test panics holding it").clone();
    assert_eq!(until.len(), 3);
    assert!(until.iter().all(|at| sent.contains(at)), "{until:?}, not within {sent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_repair_is_taken_only_for_half_of_the_grace_from_when_its_record_was_looked_for() {
    let (fakes, until) = told_until().await;
    let found_micros = 5;
    fakes.serving.repair(record(1), found_micros, LONG).await.expect("all are there");
    fakes.serving.finish().await;
    let until = until.lock().expect("no test panics holding it").clone();
    assert_eq!(until, [found_micros + HALF_A_DAY; 3], "its tombstone may be purged by then");
}
