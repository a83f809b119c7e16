//! `tako ctl locate`: where keys live, by the configuration in force; no node is asked.

use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};
use tako_types::{
    Key, NAMESPACE_VALUES, NodeId,
    config::{Published, ReplicaSet},
};

use crate::{
    command::{
        migrate::CommonArgs,
        output::{Output, print, print_json},
    },
    failure::Failure,
};

const AFTER_HELP: &str = "\
Examples:
  tako ctl locate users/1                       its hash, partition, buckets and nodes
  tako ctl locate a b c --output json

A key is written as it is, without escapes. While partitions move the nodes of the other deployment,
which are written as well, stand behind `also`.";

/// Arguments of `tako ctl locate`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct LocateArgs {
    /// Which keys
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

pub(super) async fn run(args: LocateArgs) -> Result<ExitCode, Failure> {
    let keys = args.keys.iter().map(|name| {
        let key = Key::new(NAMESPACE_VALUES, Bytes::copy_from_slice(name.as_bytes()));
        key.map(|key| (name.as_str(), key)).map_err(|error| Failure::invalid(error.to_string()))
    });
    let keys: Vec<(&str, Key)> = keys.collect::<Result<_, _>>()?;
    let (_, view) = args.common.look().await?;
    match args.common.output {
        Output::Json => {
            let all: Vec<Value> =
                keys.iter().map(|(name, key)| located(name, key, &view.published)).collect();
            print_json(&Value::Array(all))?;
        }
        Output::Text => {
            let all: Vec<String> =
                keys.iter().map(|(name, key)| lines(name, key, &view.published)).collect();
            print(&all.join("\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn located(name: &str, key: &Key, document: &Published) -> Value {
    let partition = key.stored().partition(document.partitions_log2());
    let placement = document.placement(partition);
    let buckets: Vec<&str> =
        document.buckets(partition).map(|bucket| bucket.name.as_str()).collect();
    let nodes = |set: &ReplicaSet| set.nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "key": name,
        "hash": format!("{:016x}", key.hash()),
        "partition": partition.0,
        "buckets": buckets,
        "nodes": nodes(&placement.read),
        "also": placement.also_write.as_ref().map(nodes),
    })
}

fn lines(name: &str, key: &Key, document: &Published) -> String {
    let partition = key.stored().partition(document.partitions_log2());
    let placement = document.placement(partition);
    let buckets: Vec<&str> =
        document.buckets(partition).map(|bucket| bucket.name.as_str()).collect();
    let nodes = |nodes: &[NodeId]| {
        let with_address = nodes.iter().map(|id| {
            let address = document.node(id).and_then(|node| node.http_address());
            address.map_or_else(|| id.to_string(), |address| format!("{id} ({address})"))
        });
        with_address.collect::<Vec<_>>().join(", ")
    };
    let mut text = format!(
        "{name}\n  hash       {:016x}\n  partition  {} of {}\n  buckets    {}\n  nodes      {}",
        key.hash(),
        partition.0,
        document.config.partitions,
        buckets.join(", "),
        nodes(&placement.read.nodes),
    );
    if let Some(also) = &placement.also_write {
        text.push_str(&format!("\n  also       {}", nodes(&also.nodes)));
    }
    text
}
