//! `old-disk`: keys are deleted while a node is away, and the node comes back with its old folder.
//!
//! A store that forgets a delete while somebody may still hold the value revives it. Two cases:
//! `away`: nobody takes the node's place, so that no delete may be forgotten; `replaced`: its place
//! runs with a new folder until every delete is forgotten everywhere, then the old folder is back.
//! Half of the keys are in no snapshot when the folder is copied: its journal holds their values.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tako_checkers::Answer;
use tokio::time::{Instant, sleep};

use crate::{
    client::number,
    cluster::{self, Cluster, Member},
    http::Http,
    replicas::{self, Replica},
};

/// How long deletes are remembered.
pub const GRACE: Duration = Duration::from_secs(3);
const KEYS: usize = 20;
const OTHERS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(12);
const SETTLE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What one case came to.
#[derive(Debug)]
pub struct Case {
    name: &'static str,
    /// Deletes that no replica remembered when the old folder came back.
    forgotten: usize,
    /// Entries of the old folder that no snapshot covered when it was copied.
    uncovered: u64,
    /// Keys of the twenty with a value anywhere: when the node serves, when all is quiet, and from
    /// the store alone.
    revived: [usize; 3],
    /// Other keys without their value, at any of these times.
    lost: usize,
    /// From the start with the old folder until it serves.
    serves_after: Duration,
}

impl Case {
    /// Whether nothing was revived or lost.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.revived == [0; 3] && self.lost == 0
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "case": self.name,
            "deleted": KEYS,
            "uncovered_in_old_folder": self.uncovered,
            "deletes_forgotten": self.forgotten,
            "revived_when_serving": self.revived[0],
            "revived_when_quiet": self.revived[1],
            "revived_from_store": self.revived[2],
            "others": OTHERS,
            "others_lost": self.lost,
            "serves_after_ms": u64::try_from(self.serves_after.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// The head of the table of [`Self::line`]s.
    pub const HEAD: &'static str = "case      deleted  in old journal  forgotten  revived  quiet  \
                                    store  others lost  serves after";

    /// For people.
    #[must_use]
    pub fn line(&self) -> String {
        let [serving, quiet, store] = self.revived;
        format!(
            "{:<9} {KEYS:>7}  {:>14}  {:>9}  {serving:>7}  {quiet:>5}  {store:>5}  {:>11}  {:>9} ms",
            self.name,
            self.uncovered,
            self.forgotten,
            self.lost,
            self.serves_after.as_millis()
        )
    }
}

/// Runs both cases on a cluster that is not started yet.
///
/// # Errors
/// A cluster that does not come to where the next step of a case begins.
pub async fn run(cluster: &Cluster) -> anyhow::Result<Vec<Case>> {
    cluster.start_all().await?;
    cluster.ready(SETTLE).await?;
    Ok(vec![case(cluster, "away", false).await?, case(cluster, "replaced", true).await?])
}

async fn case(cluster: &Cluster, name: &'static str, replaced: bool) -> anyhow::Result<Case> {
    let node = cluster.nodes.last().context("there are nodes")?;
    let mut proxy = Http::new(&cluster.proxy.http);
    let all = format!("?w={}", cluster.nodes.len());
    let keys: Vec<String> = (0..KEYS).map(|n| format!("{name}-{n}")).collect();
    let others: Vec<String> = (0..OTHERS).map(|n| format!("{name}-other-{n}")).collect();
    let old = cluster.settings.folder.join(format!("old-{name}"));

    cluster.say(format_args!("{name}: {KEYS} keys and {OTHERS} others are written"));
    for key in others.iter().chain(&keys[..KEYS / 2]) {
        write(&mut proxy, "PUT", key, &all).await?;
    }
    cluster.quiet(SETTLE).await?;
    let uncovered = write_uncovered(cluster, node, &mut proxy, &keys[KEYS / 2..]).await?;
    copy(&node.var, &old)?;
    cluster.say(format_args!("{name}: {} is gone with {uncovered} uncovered; deleting", node.id));
    for key in &keys {
        write(&mut proxy, "DELETE", key, "").await?;
    }
    if replaced {
        cluster::empty(&node.var)?;
        cluster.start(node).await?;
        cluster.serving(node, SETTLE).await?;
        cluster.say(format_args!("{name}: {} runs with a new folder", node.id));
        forget(cluster, &mut proxy, &keys).await?;
        cluster.kill(node).await;
    } else {
        // Long enough to forget, were it permitted.
        let until = Instant::now() + 3 * GRACE;
        while Instant::now() < until {
            touch(&mut proxy).await?;
            sleep(LOOK_EVERY).await;
        }
    }
    let others_up: Vec<&Member> = cluster.nodes.iter().filter(|it| it.id != node.id).collect();
    for other in &others_up {
        // Its record cache may name a delete that its snapshot no longer has.
        cluster.kill(other).await;
        cluster.start(other).await?;
        cluster.serving(other, SETTLE).await?;
    }
    let mut forgotten = 0;
    for key in &keys {
        let mut held = false;
        for other in &others_up {
            held |= Replica::new(other).vote(key).await?.is_some();
        }
        forgotten += usize::from(!held);
    }
    cluster.say(format_args!("{name}: {forgotten} deletes forgotten; the old folder is back"));
    cluster::empty(&node.var)?;
    copy(&old, &node.var)?;
    let started = Instant::now();
    cluster.start(node).await?;
    cluster.serving(node, SETTLE).await?;
    let serves_after = started.elapsed();
    cluster.ready(SETTLE).await?;
    let (first, lost_first) = look(cluster, &keys, &others).await?;
    cluster.quiet(SETTLE).await?;
    let (second, lost_second) = look(cluster, &keys, &others).await?;
    cluster.rebuild(SETTLE).await?;
    let (third, lost_third) = look(cluster, &keys, &others).await?;
    let lost = lost_first.max(lost_second).max(lost_third);
    Ok(Case { name, forgotten, uncovered, revived: [first, second, third], lost, serves_after })
}

/// Writes keys to all replicas and kills one before a step covers them; how many it holds
/// uncovered. A step that came between is waited for, and the keys are written again.
async fn write_uncovered(
    cluster: &Cluster,
    node: &Member,
    proxy: &mut Http,
    keys: &[String],
) -> anyhow::Result<u64> {
    let all = format!("?w={}", cluster.nodes.len());
    for _ in 0..20 {
        for key in keys {
            write(proxy, "PUT", key, &all).await?;
        }
        let status = cluster.own_status(node).await.context("it says what it holds")?;
        let held = status["held"].as_array().cloned().unwrap_or_default();
        let uncovered = held.iter().filter_map(|p| p["uncovered"].as_u64()).sum();
        if uncovered == keys.len() as u64 {
            cluster.kill(node).await;
            return Ok(uncovered);
        }
    }
    bail!("{} writes were never uncovered together", keys.len())
}

/// Runs until no replica remembers the keys' deletes. Nodes are started anew before each look, for
/// a look leaves what it found in their record caches.
async fn forget(cluster: &Cluster, proxy: &mut Http, keys: &[String]) -> anyhow::Result<()> {
    let until = Instant::now() + SETTLE;
    while Instant::now() < until {
        let next = Instant::now() + 4 * GRACE;
        while Instant::now() < next {
            // A partition takes a step only where something was written.
            touch(proxy).await?;
            sleep(LOOK_EVERY).await;
        }
        for node in &cluster.nodes {
            cluster.kill(node).await;
        }
        cluster.start_all().await?;
        cluster.ready(SETTLE).await?;
        let mut remembered = 0;
        for node in &cluster.nodes {
            let replica = Replica::new(node);
            for key in keys {
                remembered += usize::from(replica.vote(key).await?.is_some());
            }
        }
        if remembered == 0 {
            return Ok(());
        }
        cluster.say(format_args!("{remembered} votes still name a delete"));
    }
    bail!("deletes are remembered longer than {SETTLE:?}")
}

/// Writes something into every partition.
async fn touch(proxy: &mut Http) -> anyhow::Result<()> {
    for n in 0..16 {
        write(proxy, "PUT", &format!("touch-{n}"), "").await?;
    }
    Ok(())
}

/// Repeats a write until it is done.
async fn write(line: &mut Http, method: &str, key: &str, query: &str) -> anyhow::Result<()> {
    let body: &[u8] = if method == "PUT" { b"1:" } else { b"" };
    let until = Instant::now() + SETTLE;
    loop {
        let answer = line.ask(method, &format!("/values/{key}{query}"), &[], body, PATIENCE).await;
        if matches!(&answer, Ok(answer) if matches!(answer.status, 200 | 204)) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{method} {key}: {answer:?}");
        sleep(LOOK_EVERY).await;
    }
}

/// Keys with a value anywhere: over HTTP from every process, at R and at one replica, and in every
/// replica's own vote; and others that lack theirs somewhere.
async fn look(
    cluster: &Cluster,
    keys: &[String],
    others: &[String],
) -> anyhow::Result<(usize, usize)> {
    let mut revived = vec![false; keys.len()];
    let mut lost = vec![false; others.len()];
    for node in &cluster.nodes {
        let replica = Replica::new(node);
        for (key, revived) in keys.iter().zip(&mut revived) {
            let answer = replicas::answer(replica.vote(key).await?.as_ref());
            *revived |= matches!(answer, Answer::Found { .. });
        }
        for (key, lost) in others.iter().zip(&mut lost) {
            let answer = replicas::answer(replica.vote(key).await?.as_ref());
            *lost |= !matches!(answer, Answer::Found { value: 1, .. });
        }
    }
    for member in cluster.nodes.iter().chain([&cluster.proxy]) {
        let mut line = Http::new(&member.http);
        for query in ["", "?r=1"] {
            for (key, revived) in keys.iter().zip(&mut revived) {
                *revived |= read(&mut line, key, query).await?.is_some();
            }
            for (key, lost) in others.iter().zip(&mut lost) {
                *lost |= read(&mut line, key, query).await? != Some(1);
            }
        }
    }
    let count = |flags: Vec<bool>| flags.into_iter().filter(|flag| *flag).count();
    Ok((count(revived), count(lost)))
}

async fn read(line: &mut Http, key: &str, query: &str) -> anyhow::Result<Option<u64>> {
    let until = Instant::now() + SETTLE;
    loop {
        let path = format!("/values/{key}{query}");
        match line.ask("GET", &path, &[], b"", PATIENCE).await {
            Ok(answer) if answer.status == 200 => return Ok(Some(number(&answer.body))),
            Ok(answer) if answer.status == 404 => return Ok(None),
            other => ensure!(Instant::now() < until, "GET {path}: {other:?}"),
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Copies what is in a folder, as it is.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    let done = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).output()?;
    ensure!(done.status.success(), "cp: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}
