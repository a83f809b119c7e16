//! Carries a plan out on a running cluster.
//!
//! Invariants: one fault at a process at a time (a planned one that finds it taken is passed
//! over); disks of at most N−W nodes are lost until these serve again; when `run` is over, every
//! fault is.

use std::{fs::File, io::Write as _, sync::Arc, time::Duration};

use rustix::process::Signal;
use tokio::{
    sync::{OwnedMutexGuard, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    cluster::{self, Cluster, Member},
    fault::{Fault, Planned},
    replicas::Replica,
    store::Way,
};

/// How long a process that was told to stop may drain.
const DRAIN: Duration = Duration::from_secs(45);
/// How long a node with an empty disk may take to serve, other faults going on.
const REFILL: Duration = Duration::from_secs(180);
/// What fills a journal fast.
const RECORD_BYTES: usize = 512 << 10;
/// Records written to a node with a full disk, so that it needs space.
const RECORDS_MAX: usize = 80;
/// How long a node may refuse writes after its disk has space again.
const RECOVERY: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug)]
pub struct Nemesis {
    cluster: Arc<Cluster>,
    /// Disks that may be lost.
    losable: Arc<Semaphore>,
}

impl Nemesis {
    /// Of a cluster.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>) -> Arc<Self> {
        let losable = Arc::new(Semaphore::new(cluster.settings.nodes - cluster.w()));
        Arc::new(Self { cluster, losable })
    }

    /// Carries out the plan, from now on, until its last fault is over.
    pub async fn run(self: &Arc<Self>, plan: Vec<Planned>) {
        let began = Instant::now();
        let mut under_way = JoinSet::new();
        for planned in plan {
            sleep_until(began + planned.at).await;
            let own = self.clone();
            under_way.spawn(async move {
                if let Err(error) = own.inject(planned.fault).await {
                    own.cluster.wrong(format!("the fault {} failed: {error:#}", planned.fault));
                }
            });
        }
        while let Some(done) = under_way.join_next().await {
            if let Err(error) = done {
                self.cluster.wrong(format!("a fault: {error}"));
            }
        }
    }

    fn member(&self, at: usize) -> &Member {
        let cluster = &self.cluster;
        match cluster.nodes.get(at) {
            Some(node) => node,
            None if at == cluster.nodes.len() => &cluster.proxy,
            None => &cluster.coordinator,
        }
    }

    /// The right to do something to a process; `None` while another fault is at it.
    fn take(&self, at: usize) -> Option<OwnedMutexGuard<()>> {
        let guard = self.member(at).fault.clone().try_lock_owned();
        if guard.is_err() {
            self.cluster.count("passed over");
        }
        guard.ok()
    }

    async fn inject(&self, fault: Fault) -> anyhow::Result<()> {
        let cluster = &self.cluster;
        match fault {
            Fault::KillAll { down } => return self.kill_all(down).await,
            Fault::Cut { from, to, both, time } => {
                let pairs = if both { vec![(from, to), (to, from)] } else { vec![(from, to)] };
                cluster.count(if both { "cut both ways" } else { "cut one way" });
                return self.cut(&fault, &pairs, time).await;
            }
            Fault::Alone { at, time } => {
                let others = (0..=cluster.nodes.len()).filter(|other| *other != at);
                let pairs: Vec<_> = others.flat_map(|other| [(at, other), (other, at)]).collect();
                cluster.count("cut from all");
                return self.cut(&fault, &pairs, time).await;
            }
            Fault::Store { hangs, time } => {
                cluster.say(format_args!("{fault}"));
                cluster.count(if hangs { "store hangs" } else { "store refuses" });
                cluster.store.set(if hangs { Way::Hangs } else { Way::Refuses })?;
                sleep(time).await;
                cluster.store.set(Way::Open)?;
                cluster.say(format_args!("the store is back"));
                return Ok(());
            }
            _ => {}
        }
        let (Fault::Kill { at, .. }
        | Fault::Stop { at, .. }
        | Fault::Disk { at, .. }
        | Fault::Empty { at, .. }
        | Fault::Drain { at, .. }) = fault
        else {
            return Ok(());
        };
        let Some(guard) = self.take(at) else { return Ok(()) };
        let member = self.member(at);
        cluster.say(format_args!("{}: {fault}", member.id));
        match fault {
            Fault::Kill { down, .. } => {
                cluster.count("kill -9");
                cluster.kill(member).await;
                sleep(down).await;
                cluster.start(member).await?;
            }
            Fault::Stop { time, then_kill, .. } => {
                cluster.count("SIGSTOP");
                member.process.lock().await.signal(Signal::STOP);
                sleep(time).await;
                if then_kill {
                    cluster.count("kill -9 while stopped");
                    cluster.kill(member).await;
                    cluster.start(member).await?;
                } else {
                    member.process.lock().await.signal(Signal::CONT);
                }
            }
            Fault::Drain { down, .. } => {
                cluster.count("SIGTERM");
                cluster.stop(member, DRAIN).await?;
                sleep(down).await;
                cluster.start(member).await?;
            }
            Fault::Disk { time, .. } => self.fill(member, time).await?,
            Fault::Empty { down, .. } => {
                let Ok(permit) = self.losable.clone().try_acquire_owned() else {
                    cluster.count("passed over");
                    return Ok(());
                };
                cluster.count("disk emptied");
                cluster.kill(member).await;
                cluster::empty(&member.var)?;
                sleep(down).await;
                cluster.start(member).await?;
                // Others may kill or stop it while it refills.
                drop(guard);
                cluster.serving(member, REFILL).await?;
                cluster.say(format_args!("{} serves again after its disk was emptied", member.id));
                drop(permit);
            }
            _ => {}
        }
        Ok(())
    }

    async fn kill_all(&self, down: Duration) -> anyhow::Result<()> {
        let cluster = &self.cluster;
        let mut guards = Vec::new();
        for member in cluster.members() {
            guards.push(member.fault.clone().lock_owned().await);
        }
        cluster.say(format_args!("kill -9 of all"));
        cluster.count("kill -9 of all");
        for member in cluster.members() {
            cluster.kill(member).await;
        }
        sleep(down).await;
        cluster.start_all().await
    }

    async fn cut(
        &self,
        fault: &Fault,
        pairs: &[(usize, usize)],
        time: Duration,
    ) -> anyhow::Result<()> {
        self.cluster.say(format_args!("{fault}"));
        for (from, to) in pairs {
            self.cluster.cut(self.member(*from), self.member(*to))?;
        }
        sleep(time).await;
        for (from, to) in pairs {
            self.cluster.mend(self.member(*from), self.member(*to))?;
        }
        self.cluster.say(format_args!("mended: {fault}"));
        Ok(())
    }

    /// Fills a node's disk, writes until it refuses, gives the space back, and waits until it
    /// takes writes again.
    async fn fill(&self, node: &Member, time: Duration) -> anyhow::Result<()> {
        let cluster = &self.cluster;
        let filler = node.var.join("filler");
        let wrote = fill(&filler)?;
        cluster.count("disk full");
        cluster.say(format_args!("{}: its disk is full, by {} MiB", node.id, wrote >> 20));
        let replica = Replica::new(node);
        let full = Instant::now();
        let value = vec![b'.'; RECORD_BYTES];
        let mut refused = false;
        for n in 0..RECORDS_MAX {
            if replica.put(&format!("fill-{}-{n}", node.id), &value).await.is_ok_and(|took| !took) {
                refused = true;
                break;
            }
        }
        cluster.count(if refused { "disk full, writes refused" } else { "disk full, unnoticed" });
        sleep_until(full + time).await;
        std::fs::remove_file(&filler)?;
        if !refused {
            return Ok(());
        }
        let freed = Instant::now();
        while !replica.put(&format!("fill-{}", node.id), b"again").await.unwrap_or(false) {
            if RECOVERY < freed.elapsed() {
                cluster.wrong(format!(
                    "{} refuses writes {RECOVERY:?} after space was freed",
                    node.id
                ));
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
        cluster.count("disk full, recovered");
        cluster.say(format_args!(
            "{}: takes writes again {:?} after space was freed",
            node.id,
            freed.elapsed()
        ));
        Ok(())
    }
}

/// Writes a file until there is no space left; how long it is.
fn fill(path: &std::path::Path) -> std::io::Result<u64> {
    let mut file = File::create(path)?;
    let mut length = 0;
    let mut bytes = vec![0; 1 << 20];
    while !bytes.is_empty() {
        match file.write(&bytes) {
            Ok(count) if count > 0 => length += count as u64,
            // The last few kilobytes as well.
            _ => bytes.truncate(bytes.len() / 2),
        }
    }
    Ok(length)
}
