//! What a read answered while two sets are written, the next document's reads find as well: the
//! schedules that would make a client go back, and what they may cost.

use tako_flatbuf::PartitionGossip;
use tako_types::Lsn;

use super::*;

/// The microseconds of the record in question.
const RECORD: u64 = 9;

/// The end of a migration: requests go to the old set only, or to the new one if that is `active`.
fn left(number: u64, active: &str) -> Published {
    let both = document(1, Some(Phase::WriteBoth), OLD, NEW);
    let mut config = (*both.config).clone();
    config.target = None;
    active.clone_into(&mut config.active);
    let other = if active == "d" { "t" } else { "d" };
    let migration = Migration { phase: Phase::Leave, other: other.into(), barrier: Vec::new() };
    tako_ring::publish_migration(Arc::new(config), number, Some(migration), None)
        .expect("it can be laid out")
}

/// The document of a phase, the set that reads ask under it, the other one, and the document after
/// it that has reads ask that.
fn moves() -> [(Published, &'static [u16], &'static [u16], Published); 2] {
    [
        (
            document(1, Some(Phase::WriteBoth), OLD, NEW),
            OLD,
            NEW,
            document(2, Some(Phase::ReadNew), OLD, NEW),
        ),
        (document(1, Some(Phase::ReadNew), OLD, NEW), NEW, OLD, left(2, "d")),
    ]
}

impl Scene {
    /// These vote at step 7 for the newest they were sent, and take everything unless they are away.
    fn keep(&self, nodes: &[u16]) -> Arc<AtomicBool> {
        let away = Arc::new(AtomicBool::new(false));
        for n in nodes {
            let (held, away) = (Mutex::new(None::<Record>), away.clone());
            self.node(*n).answers(move |request| {
                if away.load(Ordering::Acquire) {
                    return Some(Err(RpcError::new(ErrorKind::Unavailable, "away")));
                }
                let mut held = held.lock().expect("no test panics holding it");
                if let Request::Put { record, .. } = request {
                    *held = Some(record.clone());
                }
                shows(request, held.clone(), false)
            });
        }
        away
    }

    /// These vote at step 7 for a record which that step covers, and take everything.
    fn show(&self, nodes: &[u16]) {
        for n in nodes {
            self.node(*n).answers(|request| shows(request, Some(record(RECORD)), true));
        }
    }

    /// These take everything, and answer that they see the step that the test says, 0 at first.
    fn open(&self, nodes: &[u16]) -> Arc<AtomicU64> {
        let opened = Arc::new(AtomicU64::new(0));
        for n in nodes {
            let opened = opened.clone();
            self.node(*n).answers(move |request| {
                let Request::Stat { keys, .. } = request else { return accepted() };
                assert!(keys.is_empty(), "only its step was needed");
                let step = StepNumber(opened.load(Ordering::Acquire));
                Some(Ok(Response::Stat { answers: Vec::new(), step, voting: false }))
            });
        }
        opened
    }

    /// These tell by gossip that they see `step`.
    fn see(&self, nodes: &[u16], step: u64) {
        for n in nodes {
            let partition = PartitionGossip {
                partition: PartitionId(0),
                newest: Version::ZERO,
                last_lsn: Lsn(0),
                step: StepNumber(step),
                covered: true,
                snapshotter: false,
            };
            let state = GossipState {
                node: NodeId::new(&format!("n{n}")),
                incarnation: Incarnation(1),
                state: NodeState::Serving,
                clock_micros: 0,
                epoch: Epoch { number: 1, sha256: [0; 32] },
                load: 0,
                known: Vec::new(),
                partitions: vec![partition],
            };
            self.serving.links.membership.on_gossip(state, None);
        }
    }

    fn moves_on(&self, next: Published) {
        self.serving.links.config.adopt(next).expect("it may follow");
    }

    /// How many of these were sent a record.
    fn written(&self, nodes: &[u16]) -> usize {
        nodes.iter().map(|n| self.node(*n).asked("put")).sum()
    }

    async fn get_by(&self, r: usize) -> Result<Option<u64>, RequestError> {
        let found = self.serving.get(&Read { key: key(), r: Some(r) }, LONG).await?;
        Ok(found.map(|record| record.version().micros))
    }
}

/// The answer of a replica at step 7 whose vote is this.
fn shows(
    request: &Request,
    held: Option<Record>,
    covered: bool,
) -> Option<Result<Response, RpcError>> {
    let step = StepNumber(7);
    match request {
        Request::Get { .. } => {
            Some(Ok(Response::Get { record: held, step, covered, voting: true }))
        }
        Request::Stat { merged, .. } => {
            let shown = held.filter(|_| *merged || !covered);
            let crc = shown.as_ref().map_or(0, Record::crc);
            let answers = vec![StatAnswer { version: shown.map(|held| held.version()), crc }];
            Some(Ok(Response::Stat { answers, step, voting: true }))
        }
        _ => accepted(),
    }
}

/// A write reaches the set that reads ask and nothing of the other one, and fails; a read answers
/// it; then reads move. Gives what each of the two reads, of `r` replicas, found.
async fn read_across(
    (now, read, other, next): (Published, &[u16], &[u16], Published),
    r: Option<usize>,
) -> (Result<Option<u64>, RequestError>, Option<u64>) {
    let scene = Scene::new(now).await;
    scene.keep(read);
    let away = scene.keep(other);
    away.store(true, Ordering::Release);
    scene.put(None).await.expect_err("the other set has nothing of it");
    scene.serving.finish().await;
    away.store(false, Ordering::Release);
    let get = async || match r {
        Some(r) => scene.get_by(r).await,
        None => scene.get().await,
    };
    let before = get().await;
    scene.serving.finish().await;
    scene.moves_on(next);
    (before, get().await.expect("all are there"))
}

#[tokio::test(start_paused = true)]
async fn what_a_read_of_the_old_set_answered_is_found_when_reads_moved_to_the_new_one() {
    let [to_the_new_one, _] = moves();
    let (before, after) = read_across(to_the_new_one, None).await;
    let before = before.expect("all are there").expect("the old set has it");
    assert_eq!(after, Some(before), "the client went back");
}

#[tokio::test(start_paused = true)]
async fn what_a_read_of_the_new_set_answered_is_found_when_the_move_is_given_up() {
    let [_, back] = moves();
    let (before, after) = read_across(back, None).await;
    let before = before.expect("all are there").expect("the new set has it");
    assert_eq!(after, Some(before), "the client went back");
}

#[tokio::test(start_paused = true)]
async fn a_read_of_one_replica_is_no_exception() {
    for case in moves() {
        let (before, after) = read_across(case, Some(1)).await;
        let before = before.expect("all are there").expect("the read set has it");
        assert_eq!(after, Some(before), "the client went back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_brought_to_the_other_set_is_not_answered_and_absence_is() {
    for (now, read, other, _) in moves() {
        for r in [1, 2] {
            let scene = Scene::new(now.clone()).await;
            scene.vote(read, RECORD);
            scene.are_away(&other[1..]);
            scene.take(&other[..1]);
            let error = scene.get_by(r).await.expect_err("a later read may not find it");
            assert!(matches!(error, RequestError::TooFewVotes { got: 1, need: 2, .. }), "{error}");
            assert_eq!(error.kind(), ErrorKind::Unavailable);

            let scene = Scene::new(now.clone()).await;
            scene.keep(read);
            scene.are_away(other);
            assert_eq!(scene.get_by(r).await.expect("the read set votes"), None);
            assert_eq!(scene.written(read) + scene.written(other), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_covered_record_whose_step_enough_of_the_other_set_see_is_not_written_again() {
    for (now, read, other, _) in moves() {
        for r in [1, 2] {
            let scene = Scene::new(now.clone()).await;
            scene.show(read);
            scene.take(other);
            scene.see(&other[..1], 8);
            scene.see(&other[1..2], 7);
            scene.see(&other[2..], 6);
            assert_eq!(scene.get_by(r).await.expect("all are there"), Some(RECORD));
            assert_eq!(scene.written(read) + scene.written(other), 0, "R = {r}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_covered_record_whose_step_too_few_of_the_other_set_see_goes_to_it() {
    // In `read-new` step 7 is the barrier, which binds the target's nodes only.
    for (now, read, other, _) in moves() {
        for r in [1, 2] {
            let scene = Scene::new(now.clone()).await;
            scene.show(read);
            scene.take(other);
            scene.see(read, 7);
            scene.see(&other[..1], 7);
            scene.see(&other[1..2], 6);
            assert_eq!(scene.get_by(r).await.expect("all are there"), Some(RECORD));
            scene.serving.finish().await;
            assert_eq!(scene.written(other), 3, "R = {r}: reads of it may be a step behind");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_the_other_set_opened_since_gossip_told_is_asked_for_once() {
    for (now, read, other, _) in moves() {
        for r in [1, 2] {
            let scene = Scene::new(now.clone()).await;
            scene.show(read);
            scene.open(other).store(7, Ordering::Release);
            scene.see(other, 6);
            let delay = Duration::from_millis(20);
            other.iter().for_each(|n| scene.node(*n).delay.set(delay).expect("told once"));
            let reads = futures::future::join_all((0..5).map(|_| scene.get_by(r))).await;
            assert!(reads.into_iter().all(|read| read.expect("all are there") == Some(RECORD)));
            assert_eq!(scene.get_by(r).await.expect("all are there"), Some(RECORD));
            assert_eq!(scene.written(read) + scene.written(other), 0, "R = {r}");
            let asked: usize = other.iter().map(|n| scene.node(*n).asked("stat")).sum();
            assert!(asked <= 3, "R = {r}: asked {asked} times");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_other_set_is_asked_again_for_a_later_step_or_after_a_moment() {
    for (now, read, other, _) in moves() {
        let scene = Scene::new(now).await;
        scene.show(read);
        let opened = scene.open(other);
        scene.see(other, 6);
        for written in [1, 2] {
            assert_eq!(scene.get_by(1).await.expect("all are there"), Some(RECORD));
            scene.serving.finish().await;
            assert_eq!(scene.written(other), 3 * written, "no step is known to show it");
        }
        opened.store(7, Ordering::Release);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(scene.get_by(1).await.expect("all are there"), Some(RECORD));
        assert_eq!(scene.written(other), 6, "it is asked again");
        let asked = other.iter().map(|n| scene.node(*n).asked("stat")).sum::<usize>();
        assert!(asked <= 6, "asked {asked} times");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_asks_for_a_step_and_meets_a_newer_document_begins_again() {
    let [(now, read, other, next), _] = moves();
    let scene = Scene::new(now).await;
    scene.show(read);
    scene.show(other);
    scene.see(other, 6);
    other.iter().for_each(|n| scene.node(*n).knows([next.clone()]));
    assert_eq!(scene.get_by(1).await.expect("all are there"), Some(RECORD));
    assert!(other.iter().any(|n| scene.node(*n).asked("get") > 0), "the new set answered");
}

#[tokio::test(start_paused = true)]
async fn one_set_or_no_read_repair_costs_a_read_nothing() {
    let one_set = [
        (document(1, None, OLD, NEW), OLD),
        (document(1, Some(Phase::Join), OLD, NEW), OLD),
        (left(1, "d"), OLD),
        (left(1, "t"), NEW),
    ];
    let unrepaired = moves().map(|(now, read, ..)| {
        let mut config = (*now.config).clone();
        config.deployments.get_mut("d").expect("the active one").read_repair = false;
        let migration = now.migration.clone();
        let document = tako_ring::publish_migration(Arc::new(config), 1, migration, None);
        (document.expect("it can be laid out"), read)
    });
    for (now, read) in one_set.into_iter().chain(unrepaired) {
        for r in [1, 2] {
            let scene = Scene::new(now.clone()).await;
            scene.vote(read, RECORD);
            assert_eq!(scene.get_by(r).await.expect("all are there"), Some(RECORD));
            assert_eq!(scene.written(OLD) + scene.written(NEW), 0);
        }
    }
}
