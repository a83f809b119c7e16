//! One run: load under a seed's faults, then quiet, dumps, a rebuild from the store, verdicts.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use tako_checkers::{Dump, Options, check_all};
use tokio::time::Instant;

use crate::{
    chance::Chance,
    client::{self, Habits},
    cluster::{Cluster, Settings, our_host},
    fault::{Kind, plan},
    http::Http,
    nemesis::Nemesis,
    notes::Notes,
    replicas,
    sandbox::Sandbox,
    store::ObjectStore,
};

/// How long the cluster may take to start, and to come to rest after the last fault.
const SETTLE: Duration = Duration::from_secs(120);
/// Longer than a stopped process, a request's deadline and a client's timestamp go back.
const GRACE: Duration = Duration::from_secs(40);
/// How much later than its answer a write with a time to live may have been stamped: a process
/// that was stopped in the middle of it.
const STAMP_SLACK: Duration = Duration::from_secs(30);
const CLIENTS: u32 = 8;
const KEYS: usize = 24;
/// Few: clients must meet.
const CHANGED: usize = 4;

/// What to run.
#[derive(Debug, Clone)]
pub struct Order {
    /// The program.
    pub tako: PathBuf,
    /// For everything written.
    pub folder: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// Decides the faults.
    pub seed: u64,
    /// How long clients ask.
    pub load: Duration,
    /// Which faults.
    pub faults: Vec<Kind>,
    /// Tell what happens.
    pub verbose: bool,
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What stood in for what the machine does not permit, or was left out.
    pub remarks: Vec<String>,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Answers of clients, by kind.
    pub answers: BTreeMap<String, u64>,
    /// What each check looked at.
    pub considered: BTreeMap<String, usize>,
    /// What was found wrong; empty is good.
    pub wrong: Vec<String>,
}

/// Which of the faults this machine permits; says what is left out, what stands in, and why.
#[must_use]
pub fn permitted(faults: &[Kind], sandbox: &Sandbox) -> (Vec<Kind>, Vec<String>) {
    let mut remarks = Vec::new();
    let mut permitted = faults.to_vec();
    if let Sandbox::Denied(why) = sandbox {
        remarks.push(format!("no namespaces: {why}"));
        if permitted.contains(&Kind::Disk) {
            remarks.push("SKIPPED: fault disk: a small disk needs a mount".to_owned());
            permitted.retain(|kind| *kind != Kind::Disk);
        }
    }
    if permitted.contains(&Kind::Cut) {
        remarks.push(match sandbox {
            Sandbox::Inside => "cuts: a network for each process, packets dropped".to_owned(),
            Sandbox::Denied(_) => "cuts: forwarders between the nodes, bytes held back".to_owned(),
        });
    }
    (permitted, remarks)
}

/// Runs an order.
///
/// # Errors
/// What of the surroundings is missing; a cluster that fails is in the outcome.
pub async fn run(order: &Order, sandbox: &Sandbox) -> anyhow::Result<Outcome> {
    let (faults, remarks) = permitted(&order.faults, sandbox);
    let mut outcome = Outcome { remarks, ..Outcome::default() };
    let networks = *sandbox == Sandbox::Inside;
    let folder = ObjectStore::folder(&order.folder.join("store"));
    let store = if faults.contains(&Kind::Store) {
        ObjectStore::s3(our_host(networks)).await?.unwrap_or(folder)
    } else {
        folder
    };
    outcome.remarks.push(format!("store: {}", store.kind()));
    if faults.contains(&Kind::Disk) {
        outcome.remarks.push("disks: tmpfs of 192 MiB for each node, filled by a file".to_owned());
    }
    let settings = Settings {
        tako: order.tako.clone(),
        folder: order.folder.clone(),
        nodes: order.nodes,
        networks,
        small_disks: faults.contains(&Kind::Disk),
        tombstone_grace: GRACE,
    };
    let cluster = Arc::new(Cluster::new(settings, store)?);
    if order.verbose {
        cluster.verbose();
    }
    let notes = Notes::default();
    let watch = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.watch().await }
    });
    let went = go(order, &faults, &cluster, &notes, &mut outcome).await;
    watch.abort();
    if let Err(error) = went {
        outcome.wrong.push(format!("{error:#}"));
    }
    let (story, counts, wrong) = cluster.events();
    outcome.faults = counts;
    outcome.wrong.extend(wrong);
    outcome.wrong.extend(cluster.panics());
    outcome.wrong.extend(notes.odds());
    let history = notes.history();
    for operation in &history.operations {
        let kind = format!("{:?}", operation.outcome);
        let kind = kind.split([' ', '{']).next().unwrap_or_default().to_owned();
        *outcome.answers.entry(kind).or_default() += 1;
    }
    history.write(fs::File::create(order.folder.join("history.jsonl"))?)?;
    fs::write(order.folder.join("story.txt"), story.join("\n") + "\n")?;
    Ok(outcome)
}

async fn go(
    order: &Order,
    faults: &[Kind],
    cluster: &Arc<Cluster>,
    notes: &Notes,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let (plain, changed) = (client::key_names(KEYS), client::changed_names(CHANGED));
    let keys = [plain.clone(), changed.clone()].concat();
    cluster.start_all().await?;
    cluster.ready(SETTLE).await.context("at the start")?;
    let habits = Habits {
        // Half of the requests go to the proxy.
        targets: cluster
            .nodes
            .iter()
            .flat_map(|node| [node.http.clone(), cluster.proxy.http.clone()])
            .collect(),
        keys: plain,
        changed,
        n: order.nodes,
        r: cluster.r(),
        w: cluster.w(),
        w_of_one: !faults.contains(&Kind::Empty),
    };
    let until = Instant::now() + order.load;
    let chance = Chance::new(order.seed);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|id| {
            let chance = chance.part(u64::from(id) + 1);
            tokio::spawn(client::run(habits.clone(), notes.clone(), id, chance, until))
        })
        .collect();
    let nemesis = Nemesis::new(cluster.clone());
    nemesis.run(plan(order.seed, faults, order.nodes, order.load)).await;
    for client in clients {
        client.await.context("a client")?;
    }
    cluster.say(format_args!("the load is over, and so are the faults"));
    cluster.start_all().await?;
    cluster.ready(SETTLE).await.context("after the last fault")?;
    for member in cluster.nodes.iter().chain([&cluster.proxy]) {
        let mut line = Http::new(&member.http);
        for key in &keys {
            let path = format!("/values/{key}");
            client::read(notes, 1_000, order.nodes, cluster.r(), key, &mut line, &path).await;
        }
    }
    cluster.quiet(SETTLE).await.context("after the last fault")?;
    let dumps = replicas::dumps(cluster, notes, &keys).await?;
    let covered_at = notes.micros();
    cluster.say(format_args!("all nodes are emptied: the store alone is left"));
    cluster.rebuild(SETTLE).await.context("from the store alone")?;
    let rebuilt = Dump::of_store(&replicas::dumps(cluster, notes, &keys).await?);
    let options = Options {
        clock_slack_micros: u64::try_from(STAMP_SLACK.as_micros()).unwrap_or(u64::MAX),
        ..Options::default()
    };
    let report = check_all(&notes.history(), &dumps, Some((&rebuilt, covered_at)), &options);
    outcome.considered.extend(report.considered());
    outcome.wrong.extend(report.wrong());
    Ok(())
}
