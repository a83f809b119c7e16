//! The load: threads of their own runtime, one task per connection, until the time is up.
//!
//! In: a plan and a target. Out: one merged tally. Each thread counts into its own tally, so
//! threads share only the schedule, the request budget and the ledger.
//! Invariant: the floor of a read is taken before its bytes are sent, and a write is acknowledged
//! in the ledger only after its answer was read; otherwise the verifier would be wrong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::{
    args::Verify,
    ledger::{Listing, Violation},
    line::{Line, LineError, Outcome, What},
    phase::Phase,
    plan::{Plan, Target},
    rpc,
    schedule::{Schedule, Waiter},
    tally::{Logged, PhaseTally, Side, Spot, Tally, When},
    value::{self, Header, Numbers},
    workload::{Operation, SCAN_MAX},
};

/// How long requests under way may still take when the run is stopped by hand.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Tries per key of the preload.
const PRELOAD_TRIES: u32 = 5;
/// Wait before a connection is opened again, doubled from failure to failure.
const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(10);
const RECONNECT_DOUBLINGS_MAX: u32 = 6;
/// How long after the preload a listing may still miss some of its keys: docs/http.md says one
/// `snapshot.interval`, which is 10 s where nothing else is configured.
const LISTED_AFTER: Duration = Duration::from_secs(15);

/// What all connections of one load share.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) plan: Arc<Plan>,
    pub(crate) target: Arc<Target>,
    pub(crate) stop: watch::Receiver<bool>,
    work: Work,
    /// One per thread.
    pub(crate) tallies: Vec<Arc<Mutex<Tally>>>,
}

#[derive(Debug)]
enum Work {
    /// Every key is written once.
    Preload { next: AtomicU64 },
    Mixed {
        start: Instant,
        from: Instant,
        end: Option<Instant>,
        schedule: Option<Schedule>,
        left: AtomicU64,
    },
}

/// What a load came to.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) tally: Tally,
    /// Measured time.
    pub(crate) seconds: f64,
    pub(crate) stopped: bool,
}

impl Load {
    /// Writes of every key; see [`Self::preloaded`].
    pub(crate) fn preload(
        plan: &Arc<Plan>,
        target: &Arc<Target>,
        stop: &watch::Receiver<bool>,
    ) -> Arc<Self> {
        Self::new(plan, target, stop, Work::Preload { next: AtomicU64::new(0) })
    }

    /// Reads and writes as the plan says; its time starts now.
    pub(crate) fn mixed(
        plan: &Arc<Plan>,
        target: &Arc<Target>,
        stop: &watch::Receiver<bool>,
    ) -> Arc<Self> {
        let start = Instant::now();
        let from = start + plan.warmup;
        let work = Work::Mixed {
            start,
            from,
            end: plan.end().map(|end| start + end),
            schedule: Schedule::new(start, &plan.phases),
            left: AtomicU64::new(plan.requests.unwrap_or(u64::MAX)),
        };
        Self::new(plan, target, stop, work)
    }

    fn new(
        plan: &Arc<Plan>,
        target: &Arc<Target>,
        stop: &watch::Receiver<bool>,
        work: Work,
    ) -> Arc<Self> {
        Arc::new(Self {
            plan: plan.clone(),
            target: target.clone(),
            stop: stop.clone(),
            work,
            tallies: (0..plan.threads)
                .map(|_| {
                    let log = plan.log.then(Vec::new);
                    let phases = match plan.phases.len() {
                        1 => Vec::new(),
                        count => vec![PhaseTally::default(); count],
                    };
                    Arc::new(Mutex::new(Tally { log, phases, ..Tally::default() }))
                })
                .collect(),
        })
    }

    /// Keys of the target that have an acknowledged write.
    pub(crate) fn preloaded(&self) -> u64 {
        (0..self.plan.key_count).map(|key| u64::from(self.target.ledger.floor(key) > 0)).sum()
    }

    /// Runs to the end.
    ///
    /// Errors: a thread, a runtime or a timer could not be made; never what a server did.
    pub(crate) async fn drive(self: &Arc<Self>) -> anyhow::Result<Driven> {
        let mut threads = Vec::new();
        for index in 0..self.plan.threads {
            let (done, ended) = oneshot::channel();
            let load = self.clone();
            std::thread::Builder::new()
                .name(format!("bench-{index}"))
                .spawn(move || {
                    // The receiver is gone only when the whole run was dropped.
                    let _ = done.send(load.run_thread(index));
                })
                .context("start a client thread")?;
            threads.push(ended);
        }
        for ended in threads {
            ended.await.context("a client thread ended without a result")??;
        }
        let mut tally = Tally::default();
        for part in &self.tallies {
            tally.merge(&part.lock());
        }
        let stopped = *self.stop.borrow();
        let seconds = self.seconds(&tally, stopped);
        Ok(Driven { tally, seconds, stopped })
    }

    fn seconds(&self, tally: &Tally, stopped: bool) -> f64 {
        let Work::Mixed { from, end, .. } = &self.work else { return 0.0 };
        let until_last = tally.last_end.map_or(Duration::ZERO, |last| last.duration_since(*from));
        match end {
            Some(end) if !stopped => end.duration_since(*from).as_secs_f64(),
            Some(end) => until_last.min(end.duration_since(*from)).as_secs_f64(),
            None => until_last.as_secs_f64(),
        }
    }

    fn run_thread(self: Arc<Self>, thread: usize) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let peers = rpc::peers(&self.plan);
            let mut workers = JoinSet::new();
            for index in (thread..self.plan.connections).step_by(self.plan.threads) {
                let line = Line::new(&self.target.way, index, &peers);
                let worker = Worker::new(self.clone(), self.tallies[thread].clone(), index, line)?;
                workers.spawn(worker.run());
            }
            let mut stop = self.stop.clone();
            let stopped = async {
                // A dropped sender never asks for a stop.
                if stop.wait_for(|stop| *stop).await.is_err() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(STOP_GRACE).await;
            };
            tokio::pin!(stopped);
            loop {
                tokio::select! {
                    () = &mut stopped => break Ok(()),
                    ended = workers.join_next() => match ended {
                        Some(ended) => ended.context("a connection's task failed")??,
                        None => break Ok(()),
                    }
                }
            }
        })
    }
}

/// One request under way.
#[derive(Debug, Clone, Copy)]
struct Request {
    intended: Instant,
    what: What,
}

/// One connection's task.
#[derive(Debug)]
struct Worker {
    load: Arc<Load>,
    tally: Arc<Mutex<Tally>>,
    line: Line,
    numbers: Numbers,
    waiter: Option<Waiter>,
    /// Requests of the current exchange, the first `settled` of which have ended.
    batch: Vec<Request>,
    settled: usize,
    /// Exchanges that failed one after the other.
    failures: u32,
}

impl Worker {
    fn new(
        load: Arc<Load>,
        tally: Arc<Mutex<Tally>>,
        index: usize,
        line: Line,
    ) -> anyhow::Result<Self> {
        let open = matches!(&load.work, Work::Mixed { schedule: Some(_), .. });
        let waiter = open.then(Waiter::new).transpose().context("make a timer")?;
        Ok(Self {
            numbers: Numbers::new(load.plan.seed.wrapping_mul(1_000_003) ^ index as u64),
            load,
            tally,
            line,
            waiter,
            batch: Vec::new(),
            settled: 0,
            failures: 0,
        })
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let load = self.load.clone();
        match &load.work {
            Work::Preload { next } => self.preload(next).await,
            Work::Mixed { .. } => {
                while !*load.stop.borrow() && self.fill().await? {
                    self.exchange().await;
                }
            }
        }
        Ok(())
    }

    async fn preload(&mut self, next: &AtomicU64) {
        let load = self.load.clone();
        loop {
            let key = next.fetch_add(1, Ordering::Relaxed);
            if key >= load.plan.key_count {
                return;
            }
            for _ in 0..PRELOAD_TRIES {
                if *load.stop.borrow() {
                    return;
                }
                let ticket = load.target.ledger.begin_write(key);
                let what = What::Write { ticket, bytes: load.plan.value_bytes };
                self.begin([Request { intended: Instant::now(), what }]);
                self.exchange().await;
                if load.target.ledger.floor(key) > 0 {
                    break;
                }
                self.back_off().await;
            }
        }
    }

    /// Makes the next batch, waiting for its time; false when the load is over.
    async fn fill(&mut self) -> anyhow::Result<bool> {
        let load = self.load.clone();
        let Work::Mixed { start, from, end, schedule, left } = &load.work else { return Ok(false) };
        let phase = |due: Instant| {
            let at = load.plan.phase_at(due.saturating_duration_since(*start));
            &load.plan.phases[at]
        };
        let open = |due: Instant| {
            end.is_none_or(|end| due < end)
                && (due < *from
                    || left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                            left.checked_sub(1)
                        })
                        .is_ok())
        };
        if let (Some(schedule), Some(waiter)) = (schedule, &mut self.waiter) {
            let intended = schedule.take();
            if !open(intended) {
                return Ok(false);
            }
            waiter.until(intended).await.context("wait for the next request's time")?;
            let what = self.choose(phase(intended));
            self.begin([Request { intended, what }]);
            return Ok(true);
        }
        let intended = Instant::now();
        let count = (0..load.plan.pipeline).take_while(|_| open(intended)).count();
        let requests: Vec<Request> =
            (0..count).map(|_| Request { intended, what: self.choose(phase(intended)) }).collect();
        self.begin(requests);
        Ok(count > 0)
    }

    fn choose(&mut self, phase: &Phase) -> What {
        let ledger = &self.load.target.ledger;
        let key = phase.picker.pick(ledger.existing(), &mut self.numbers);
        let bytes = phase.value_bytes;
        match phase.mix.at(self.numbers.share()) {
            Operation::Read => What::Read { key, floor: ledger.floor(key) },
            Operation::Update => What::Write { ticket: ledger.begin_write(key), bytes },
            Operation::Insert => What::Write { ticket: ledger.begin_insert(), bytes },
            Operation::Change => What::Change { ticket: ledger.begin_write(key), bytes },
            Operation::Scan => {
                let limit = 1 + self.numbers.below(SCAN_MAX.into());
                let limit = u32::try_from(limit).unwrap_or(SCAN_MAX);
                What::Scan(Listing { after: key, limit, settled: self.load.is_settled() })
            }
        }
    }

    fn begin(&mut self, requests: impl IntoIterator<Item = Request>) {
        self.batch.clear();
        self.batch.extend(requests);
        self.settled = 0;
        self.tally.lock().begun += self.batch.len() as u64;
    }

    /// Sends the batch and settles every request of it, one way or the other.
    async fn exchange(&mut self) {
        let result = match self.line.limit(&self.load.plan) {
            Some(limit) => tokio::time::timeout(limit, self.converse())
                .await
                .unwrap_or(Err(LineError::Timeout)),
            None => self.converse().await,
        };
        let Err(error) = result else {
            self.failures = 0;
            return;
        };
        self.line.break_off();
        self.failures += 1;
        {
            let mut tally = self.tally.lock();
            let now = Instant::now();
            for request in &self.batch[self.settled..] {
                tally.ended += 1;
                tally.error(error.to_string(), self.load.spot(request.intended, now));
                if let Some(ticket) = request.what.ticket() {
                    self.load.target.ledger.lose_write(ticket);
                }
            }
        }
        // A connection that broke is opened again at once, one that cannot be is left a while.
        if self.failures > 1 {
            self.back_off().await;
        }
    }

    async fn back_off(&self) {
        let doublings = self.failures.min(RECONNECT_DOUBLINGS_MAX);
        let mut stop = self.load.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(RECONNECT_WAIT_MIN * (1 << doublings)) => {}
            Ok(_) = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn converse(&mut self) -> Result<(), LineError> {
        let Self { load, tally, line, batch, settled, .. } = self;
        let (plan, ledger) = (&load.plan, &load.target.ledger);
        line.begin(plan, ledger, batch.iter().map(|request| request.what)).await?;
        while let Some(request) = batch.get(*settled) {
            let outcome = line.answer(plan, ledger, request.what).await?;
            *settled += 1;
            settle(load, &mut tally.lock(), *request, &outcome);
        }
        Ok(())
    }
}

/// Counts one answer: verified, then recorded.
fn settle(load: &Load, tally: &mut Tally, request: Request, outcome: &Outcome<'_>) {
    tally.ended += 1;
    let now = Instant::now();
    let spot = load.spot(request.intended, now);
    let (ledger, verified) = (&load.target.ledger, load.plan.verify != Verify::None);
    let (side, bytes) = match (request.what, outcome) {
        (What::Read { key, floor }, Outcome::Found(_) | Outcome::Absent) => {
            let body = match outcome {
                Outcome::Found(body) => Some(*body),
                _ => None,
            };
            let verdict = judge(load, key, floor, body);
            tally.verified += u64::from(verified);
            if let Err(violation) = verdict {
                return tally.violation(key, violation, spot);
            }
            tally.absent += u64::from(body.is_none());
            (Side::Read, body.map_or(0, <[u8]>::len))
        }
        (What::Scan(listing), Outcome::Listed(body)) => {
            tally.verified += u64::from(verified);
            match list(load, listing, body) {
                Err(violation) => return tally.violation(listing.after, violation, spot),
                Ok(count) => tally.listed += count as u64,
            }
            (Side::Read, body.len())
        }
        (What::Write { ticket, bytes }, Outcome::Written) => {
            ledger.end_write(ticket);
            (Side::Write, bytes)
        }
        (What::Change { ticket, bytes }, Outcome::Changed { floor, base, tries }) => {
            tally.verified += u64::from(verified);
            tally.changed_again += u64::from(*tries);
            let header = base.map(|base| base.header.ok_or(base.bytes));
            let seen = judge_header(load, ticket.key, *floor, header);
            let made = ledger.end_change(ticket, base.and_then(|base| base.header));
            if let Err(violation) = seen.and(if verified { made } else { Ok(()) }) {
                return tally.violation(ticket.key, violation, spot);
            }
            (Side::Write, bytes)
        }
        (what, _) => {
            match (what.ticket(), outcome) {
                (Some(ticket), Outcome::NotDone(_)) => ledger.drop_write(ticket),
                (Some(ticket), _) => ledger.lose_write(ticket),
                (None, _) => {
                    let checked = verified && matches!(outcome, Outcome::Wrong(_));
                    tally.verified += u64::from(checked);
                }
            }
            return match outcome {
                Outcome::Wrong(wrong) if verified => tally.violation(what.key(), *wrong, spot),
                Outcome::Wrong(violation) => tally.error(violation.name().to_owned(), spot),
                Outcome::Refused(kind) | Outcome::NotDone(kind) => tally.error(kind.clone(), spot),
                _ => tally.error("answer to something else".to_owned(), spot),
            };
        }
    };
    let when = load.when(request.intended, now);
    if when != When::Warmup {
        tally.last_end = Some(now);
    }
    let intended = request.intended;
    let latency = now.saturating_duration_since(intended);
    tally.good(Logged { intended, side, latency }, bytes, when, spot);
}

fn judge(load: &Load, key: u64, floor: u64, body: Option<&[u8]>) -> Result<(), Violation> {
    if load.plan.verify == Verify::None {
        return Ok(());
    }
    judge_header(load, key, floor, body.map(|body| value::read(body).ok_or(body.len())))
}

/// A value's header, or how long it is where it is none.
fn judge_header(
    load: &Load,
    key: u64,
    floor: u64,
    header: Option<Result<Header, usize>>,
) -> Result<(), Violation> {
    let full = load.plan.verify == Verify::Full && !load.target.fixed;
    if load.plan.verify == Verify::None {
        return Ok(());
    }
    let header = header.transpose().map_err(|bytes| Violation::Corrupt { bytes })?;
    match header {
        _ if full => load.target.ledger.judge(key, floor, header),
        Some(header) if header.key != key && !load.target.fixed => {
            Err(Violation::WrongKey { shown: header.key })
        }
        _ => Ok(()),
    }
}

/// How many keys a listing has.
fn list(load: &Load, listing: Listing, body: &[u8]) -> Result<usize, Violation> {
    #[derive(serde::Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        values: Vec<Row<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Row<'a> {
        #[serde(borrow)]
        key: std::borrow::Cow<'a, str>,
    }
    let settled = listing.settled && load.plan.verify == Verify::Full;
    let wrong = |_| Violation::Listing { row: 0 };
    match (load.plan.verify, serde_json::from_slice::<Page<'_>>(body).map_err(wrong)) {
        (Verify::None, page) => Ok(page.map_or(0, |page| page.values.len())),
        (_, page) => {
            let page = page?;
            let index = |row: &Row<'_>| {
                row.key.strip_prefix(&*load.target.prefix).and_then(|index| index.parse().ok())
            };
            let keys = page.values.iter().map(index);
            load.target.ledger.judge_listing(Listing { settled, ..listing }, keys)
        }
    }
}

impl Load {
    fn when(&self, intended: Instant, now: Instant) -> When {
        match &self.work {
            Work::Preload { .. } => When::Warmup,
            Work::Mixed { from, .. } if intended < *from => When::Warmup,
            Work::Mixed { end, .. } if end.is_some_and(|end| end < now) => When::Late,
            Work::Mixed { .. } => When::InTime,
        }
    }

    /// Where something happens that was due at `intended`; none in a preload.
    fn spot(&self, intended: Instant, now: Instant) -> Option<Spot> {
        let start = self.began()?;
        let due = intended.saturating_duration_since(start);
        let now = now.saturating_duration_since(start);
        Some(Spot { due, now, phase: self.plan.phase_at(due) })
    }

    /// Whether a listing has no excuse for not having the preload's keys.
    fn is_settled(&self) -> bool {
        self.target.preloaded.get().is_some_and(|ended| LISTED_AFTER <= ended.elapsed())
    }

    /// When it began; none for a preload.
    pub(crate) fn began(&self) -> Option<Instant> {
        match &self.work {
            Work::Preload { .. } => None,
            Work::Mixed { start, .. } => Some(*start),
        }
    }

    /// Time since the load began; none for a preload.
    pub(crate) fn elapsed(&self) -> Option<Duration> {
        match &self.work {
            Work::Preload { .. } => None,
            Work::Mixed { start, .. } => Some(start.elapsed()),
        }
    }
}
