//! `tako node`: one node with its RPC port and, if configured, its HTTP port.
//!
//! Order of the end: no new HTTP requests, open ones finish, then the node drains and closes.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use tako_gateway::EventLog;
use tako_journal::{Blocking, FsDisk};
use tako_node_core::node::{JOURNAL_FILE_BYTES, Node, NodeError, NodeOptions};
use tako_snapshot::{Store, StoreSettings};
use tako_types::{NodeId, SystemClock, config::parse_duration, limits::HEALING_INTERVAL_MIN};

use super::seed;
use crate::{
    arguments::{ProcessArgs, SourceArgs, host_and_port},
    failure::Failure,
    listen::Instead,
    low_priority::LowPriority,
    signals,
    trust::{AccessArgs, Trust},
    ways_in::WaysIn,
};

const AFTER_HELP: &str = "\
Examples:
  tako node --id n1 --coordinator localhost:17400
  tako node --id n1 --config examples/standalone.yaml --var /var/lib/tako
  tako node --id n1 --coordinator c1.internal:4710 --store s3://bucket/prefix --tls /etc/tako/tls \
    --tokens /etc/tako/tokens.yaml
  tako node --id n1 --coordinator 10.0.0.5:4710 --listen 0.0.0.0 --insecure

The node listens where the configuration says, or, in a container or behind NAT, where --listen and
--rpc-listen say; others reach it at the configured address in any case. Its data lie in VAR/data/ID, the configurations it
knows in VAR/etc/node-ID. The object store is --store, else the configuration's, else the folder
VAR/store. For S3 set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT.

Signals: SIGTERM or SIGINT drains and ends, a second one ends at once (nothing acknowledged is
lost); SIGHUP or SIGUSR1 looks for a new configuration at once. Exit codes: tako --help.";

/// Arguments of `tako node`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct NodeArgs {
    /// Which node of the configuration this is
    #[arg(long, value_name = "ID")]
    id: String,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// The object store: s3://BUCKET/PREFIX, file:///FOLDER or a folder
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// HTTP port, instead of the configured one
    #[arg(long, value_name = "HTTP")]
    port: Option<u16>,
    /// Port for memcached clients, instead of the configured one
    #[arg(long, value_name = "PORT")]
    memcached_port: Option<u16>,
    /// Listen at this host's address, though others reach the node at the configured one
    #[arg(long, value_name = "HOST")]
    listen: Option<String>,
    /// Listen here for other processes, though they reach the node at the configured address
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    rpc_listen: Option<String>,
    /// Time to bring what is in the journal into the object store at the end
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    drain_timeout: Duration,
    /// After lost state, serve without replicas that cannot be reached; may lose writes
    #[arg(long)]
    accept_loss: bool,
}

pub(crate) async fn run(args: NodeArgs, events: Arc<EventLog>) -> Result<ExitCode, Failure> {
    let upkeep = LowPriority::start()?;
    let shutdown = signals::shutdown(args.process.stop_with_parent)?;
    let looks = signals::Looks::new()?;
    let trust = Trust::open(args.process.insecure, &args.process.tls, &args.access)?;
    trust.watch(shutdown.clone());
    let id = NodeId::new(&args.id);
    let instead = Instead { host: args.listen.clone(), rpc: args.rpc_listen.clone() };
    let options = NodeOptions {
        id: id.clone(),
        var: args.process.folder()?,
        source: args.source.source(),
        store: match args.store.as_deref() {
            Some(url) => Some(Store::open(&StoreSettings::url(url))?),
            None => None,
        },
        accept_loss: args.accept_loss,
        clock: Arc::new(SystemClock),
        seed: seed(),
        network: trust.network(instead.clone()),
        disk: Arc::new(FsDisk),
        blocking: Blocking::Threads,
        upkeep: upkeep.upkeep(),
        journal_file_bytes: JOURNAL_FILE_BYTES,
        healing_interval_min: HEALING_INTERVAL_MIN,
    };
    let node = match Node::start(options, shutdown.clone()).await {
        Ok(node) => node,
        Err(NodeError::Stopped) => return Ok(ExitCode::SUCCESS),
        Err(error) => return Err(error.into()),
    };
    looks.pass_to(node.look.clone());
    let ports = (args.port, args.memcached_port);
    let ways_in = match ways_in(&node, &id, ports, instead.host, &trust).await {
        Ok(ways_in) => ways_in,
        Err(failure) => {
            node.stop().await;
            return Err(failure);
        }
    };
    tracing::info!(node = %id, %ways_in, "node listens");
    ways_in.serve(&node.serving, events, &trust, &shutdown).await;
    tracing::info!("draining for at most {:?}", args.drain_timeout);
    node.drain(args.drain_timeout).await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Opens the clients' ports by the command line or the configuration.
async fn ways_in(
    node: &Node,
    id: &NodeId,
    (http, memcached): (Option<u16>, Option<u16>),
    host: Option<String>,
    trust: &Trust,
) -> Result<WaysIn, Failure> {
    let current = node.config.current();
    let Some(configured) = current.node(id) else { return Ok(WaysIn::default()) };
    let host = host.unwrap_or_else(|| configured.host.clone());
    let ports = (http.or(configured.http_port), memcached.or(configured.memcached_port));
    WaysIn::open(&host, ports, trust).await
}
