//! `tako ctl ring`: what share of the partitions each bucket and node has; no node is asked.

use std::{collections::BTreeMap, process::ExitCode};

use clap::Args;
use serde_json::json;
use tako_types::{NodeId, config::Published};

use crate::{
    command::{
        migrate::CommonArgs,
        output::{Output, print, print_json},
    },
    failure::Failure,
};

const AFTER_HELP: &str = "\
Examples:
  tako ctl ring                                  shares of the active deployment
  tako ctl ring --output json

A node holds the partitions of its bucket. `leads` counts those whose first bucket this is; shares are
of all copies.";

/// Arguments of `tako ctl ring`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RingArgs {
    #[command(flatten)]
    common: CommonArgs,
}

/// What a bucket has.
#[derive(Debug, Default, PartialEq)]
struct Share {
    weight: f64,
    nodes: Vec<NodeId>,
    leads: usize,
    holds: usize,
}

pub(super) async fn run(args: RingArgs) -> Result<ExitCode, Failure> {
    let (_, view) = args.common.look().await?;
    let document = &view.published;
    let shares = shares(document);
    let copies: usize = shares.values().map(|share| share.holds).sum();
    let part = |share: &Share| share.holds as f64 / copies.max(1) as f64;
    match args.common.output {
        Output::Json => {
            let buckets: BTreeMap<&str, _> = shares
                .iter()
                .map(|(name, share)| {
                    let nodes: Vec<&str> = share.nodes.iter().map(NodeId::as_str).collect();
                    let Share { weight, leads, holds, .. } = share;
                    let share = part(share);
                    (*name, json!({"weight": weight, "nodes": nodes, "leads": leads, "holds": holds, "share": share}))
                })
                .collect();
            let partitions = document.config.partitions;
            let deployment = &document.config.active_deployment().name;
            print_json(
                &json!({"deployment": deployment, "partitions": partitions, "buckets": buckets}),
            )?;
        }
        Output::Text => {
            let active = document.config.active_deployment();
            let wide = shares.keys().map(|name| name.len()).max().unwrap_or(0).max("bucket".len());
            let mut text = format!(
                "{} partitions, {} bucket(s) each, deployment {}\n{:wide$}  weight  leads  holds   share  nodes",
                document.config.partitions, active.buckets_per_key, active.name, "bucket"
            );
            for (name, share) in &shares {
                let nodes: Vec<&str> = share.nodes.iter().map(NodeId::as_str).collect();
                text.push_str(&format!(
                    "\n{name:wide$}  {:>6}  {:>5}  {:>5}  {:>5.1}%  {}",
                    share.weight,
                    share.leads,
                    share.holds,
                    100.0 * part(share),
                    nodes.join(" ")
                ));
            }
            print(&text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn shares(document: &Published) -> BTreeMap<&str, Share> {
    let active = document.config.active_deployment();
    let mut shares: BTreeMap<&str, Share> = active
        .buckets
        .iter()
        .map(|bucket| {
            let nodes = bucket.nodes.iter().map(|node| node.id.clone()).collect();
            (bucket.name.as_str(), Share { weight: bucket.weight, nodes, ..Share::default() })
        })
        .collect();
    for partition in document.partitions() {
        for (place, bucket) in document.buckets(partition).enumerate() {
            let Some(share) = shares.get_mut(bucket.name.as_str()) else { continue };
            share.holds += 1;
            share.leads += usize::from(place == 0);
        }
    }
    shares
}
