//! `tako proxy`: an HTTP port without data behind it.

use std::{process::ExitCode, sync::Arc};

use clap::Args;
use tako_gateway::EventLog;
use tako_journal::FsDisk;
use tako_node_core::proxy::{Proxy, ProxyOptions};
use tako_types::{NodeId, SystemClock};

use super::seed;
use crate::{
    arguments::{ProcessArgs, SourceArgs},
    failure::Failure,
    listen::Instead,
    signals,
    trust::{AccessArgs, Trust},
    ways_in::WaysIn,
};

const AFTER_HELP: &str = "\
Examples:
  tako proxy --coordinator localhost:17400
  tako proxy --id p2 --coordinator c1.internal:4710 --host 0.0.0.0 --port 443 \
    --tls /etc/tako/tls --tokens /etc/tako/tokens.yaml

A proxy keeps no data: run as many as you like behind a load balancer that asks /readyz. The
configurations it knows lie in VAR/etc/proxy-ID.

Signals: SIGTERM or SIGINT finishes open requests and ends, a second one ends at once; SIGHUP or
SIGUSR1 looks for a new configuration at once. Exit codes: tako --help.";

/// Arguments of `tako proxy`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ProxyArgs {
    /// Its name, unlike that of any node or other proxy
    #[arg(long, value_name = "ID", default_value = "p1")]
    id: String,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// Address to listen at
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// HTTP port
    #[arg(short, long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// Port for memcached clients
    #[arg(long, value_name = "PORT")]
    memcached_port: Option<u16>,
}

pub(crate) async fn run(args: ProxyArgs, events: Arc<EventLog>) -> Result<ExitCode, Failure> {
    let shutdown = signals::shutdown(args.process.stop_with_parent)?;
    let looks = signals::Looks::new()?;
    // First of all: a taken port needs no configuration to be told.
    let ports = (Some(args.port), args.memcached_port);
    let trust = Trust::open(args.process.insecure, &args.process.tls, &args.access)?;
    trust.watch(shutdown.clone());
    let ways_in = WaysIn::open(&args.host, ports, &trust).await?;
    let options = ProxyOptions {
        id: NodeId::new(&args.id),
        var: Some(args.process.folder()?),
        source: args.source.source(),
        clock: Arc::new(SystemClock),
        seed: seed(),
        network: trust.network(Instead::default()),
        disk: Arc::new(FsDisk),
    };
    let Some(proxy) = Proxy::start(options, shutdown.clone()).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    looks.pass_to(proxy.look.clone());
    tracing::info!(proxy = args.id, %ways_in, "proxy listens");
    ways_in.serve(&proxy.serving, events, &trust, &shutdown).await;
    proxy.stop().await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
