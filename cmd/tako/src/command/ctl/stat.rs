//! `tako ctl stat` and `tako ctl top`: what nodes have done, and what they do now, from their metrics.

mod keys;
mod sample;

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use clap::Args;
use futures::future::join_all;
use serde_json::{Value, json};
use tako_types::{
    config::{NodeConfig, parse_duration},
    limits::NAME_BYTES_MAX,
};
use tokio::time::{MissedTickBehavior, interval};

use self::{
    keys::Keys,
    sample::{Row, Sample},
};
use crate::{
    command::{
        coordinators::reason,
        migrate::CommonArgs,
        output::{Output, print, print_json},
    },
    failure::Failure,
    http::Http,
};

/// A node that answers nothing for so long is shown as one that does not.
const DEADLINE: Duration = Duration::from_secs(5);
/// Moves to the beginning of a terminal and clears it.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Arguments of `tako ctl stat`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tako ctl stat                        all nodes, since each started
  tako ctl stat n1 n2
  tako ctl stat n1 --all               everything that n1 counts (docs/metrics.md)
  tako ctl stat --output json

Times are upper bounds of the bucket that they fall into; `hits` is the share of this replica's
answers that came from memory.")]
pub(super) struct StatArgs {
    /// Nodes; without any, all that have an HTTP port
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// Everything that is counted
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    common: CommonArgs,
}

/// Arguments of `tako ctl top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tako ctl top                         q or Ctrl-C ends it
  tako ctl top n1 --interval 5s
  tako ctl top --count 10 --output json | jq -c '.nodes[]'

Rates are per second, of the interval; times are upper bounds of the bucket that they fall into.")]
pub(super) struct TopArgs {
    /// Nodes; without any, all that have an HTTP port
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// Time between two looks
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    interval: Duration,
    /// End after so many tables
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    #[command(flatten)]
    common: CommonArgs,
}

pub(super) async fn stat(args: StatArgs) -> Result<ExitCode, Failure> {
    let nodes = chosen(&args.common, &args.nodes).await?;
    let http = Http::new(&args.common.coordinators.ask)?;
    let samples = join_all(nodes.iter().map(|node| ask(&http, node))).await;
    if args.all {
        let all: Vec<Value> = nodes
            .iter()
            .zip(&samples)
            .map(|(node, sample)| match sample {
                Ok(sample) => json!({"id": node.id.as_str(), "metrics": sample.values}),
                Err(why) => json!({"id": node.id.as_str(), "why": why}),
            })
            .collect();
        if args.common.output == Output::Json {
            print_json(&json!({ "nodes": all }))?;
        } else {
            for (node, sample) in nodes.iter().zip(&samples) {
                match sample {
                    Ok(sample) => {
                        for (series, value) in &sample.values {
                            print(&format!("{} {series} {value}", node.id))?;
                        }
                    }
                    Err(why) => print(&format!("{} {why}", node.id))?,
                }
            }
        }
    } else {
        let rows: Vec<Row> = nodes
            .iter()
            .zip(&samples)
            .map(|(node, sample)| Row::since_start(node.id.as_str(), sample.as_ref()))
            .collect();
        show(&rows, args.common.output, "")?;
    }
    Ok(worst(samples.iter().all(Result::is_ok)))
}

pub(super) async fn top(args: TopArgs) -> Result<ExitCode, Failure> {
    let nodes = chosen(&args.common, &args.nodes).await?;
    let http = Http::new(&args.common.coordinators.ask)?;
    let is_live = args.common.output == Output::Text
        && args.count.is_none()
        && std::io::stdout().is_terminal();
    let mut keys = if is_live { Keys::listen() } else { Keys::none() };
    let mut ticks = interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut before = join_all(nodes.iter().map(|node| ask(&http, node))).await;
    let mut shown = 0;
    while args.count.is_none_or(|count| shown < count) {
        tokio::select! {
            _ = ticks.tick() => {}
            () = keys.quit() => break,
        }
        let now = join_all(nodes.iter().map(|node| ask(&http, node))).await;
        let rows: Vec<Row> = nodes
            .iter()
            .zip(before.iter().zip(&now))
            .map(|(node, (before, now))| Row::between(node.id.as_str(), before, now))
            .collect();
        show(&rows, args.common.output, if is_live { CLEAR } else { "" })?;
        before = now;
        shown += 1;
    }
    Ok(ExitCode::SUCCESS)
}

fn worst(all_answer: bool) -> ExitCode {
    if all_answer { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn show(rows: &[Row], output: Output, before: &str) -> Result<(), Failure> {
    match output {
        Output::Json => {
            let nodes: Vec<Value> = rows.iter().map(Row::json).collect();
            print(&json!({ "nodes": nodes }).to_string())
        }
        Output::Text => print(&format!("{before}{}", sample::table(rows))),
    }
}

/// The nodes named, or all that can be asked.
async fn chosen(common: &CommonArgs, names: &[String]) -> Result<Vec<NodeConfig>, Failure> {
    let (_, view) = common.look().await?;
    let all: Vec<NodeConfig> = view.published.nodes().cloned().collect();
    if names.is_empty() {
        return Ok(all.into_iter().filter(|node| node.http_port.is_some()).collect());
    }
    names
        .iter()
        .map(|name| {
            let found = all.iter().find(|node| node.id.as_str() == name).cloned();
            let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
            found.ok_or_else(|| {
                let text = format!("there is no node {shown} in the configuration");
                Failure::new(tako_types::ErrorKind::NotFound, text)
            })
        })
        .collect()
}

async fn ask(http: &Http, node: &NodeConfig) -> Result<Sample, String> {
    let address = node.http_address().ok_or("it has no HTTP port")?;
    let answer = async {
        let request = http.get(address, "/metrics");
        request.timeout(DEADLINE).send().await?.error_for_status()?.text().await
    };
    answer.await.map(|text| Sample::read(&text)).map_err(|error| reason(&error))
}
