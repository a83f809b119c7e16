//! `tako coordinator`: publishes a configuration file to the object store and over HTTP.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use tako_coordinator::{Coordinator, CoordinatorOptions, Schedule, ScheduledBackups};
use tako_gateway::{EventLog, event_routes};
use tako_snapshot::{Store, StoreSettings};
use tako_types::{SystemClock, config::Address};

use super::check;
use crate::{
    arguments::ProcessArgs,
    failure::Failure,
    listen::Instead,
    signals,
    trust::{AccessArgs, Trust},
};

const AFTER_HELP: &str = "\
Examples:
  tako coordinator --id c1 --config cluster.yaml
  tako coordinator --id c1 --config cluster.yaml --store s3://bucket/prefix --tls /etc/tako/tls

The file is watched: a change is checked, numbered and published without a restart. What may not
change while the cluster runs is refused, and said in the log and at GET /status; the old
configuration stays. Other nodes or buckets are a deployment of their own: named target_deployment,
writes go there too; named active_deployment then, the cluster moves there. tako migrate and tako ctl
write such files over HTTP: with --tls whoever has a certificate of the cluster's authority can order,
without it whoever reaches the port. Nodes and proxies run on without any
coordinator.

Signals: SIGTERM or SIGINT ends; SIGHUP or SIGUSR1 reads the file at once. Exit codes: tako --help.";

/// Arguments of `tako coordinator`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct CoordinatorArgs {
    /// Which coordinator of the configuration this is
    #[arg(long, value_name = "ID", default_value = "c1")]
    id: String,
    /// The configuration to publish
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    process: ProcessArgs,
    /// The object store, instead of the configured one: s3://BUCKET/PREFIX or a folder
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// HTTP port, instead of the configured one
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

pub(crate) async fn run(args: CoordinatorArgs, events: Arc<EventLog>) -> Result<ExitCode, Failure> {
    let shutdown = signals::shutdown(args.process.stop_with_parent)?;
    // Taken now: one that comes while it starts must not end the process.
    let looks = signals::Looks::new()?;
    let config = check::load(&args.config)?;
    let trust = Trust::open(args.process.insecure, &args.process.tls, &AccessArgs::default())?;
    trust.watch(shutdown.clone());
    let network = trust.network(Instead::default());
    let var = args.process.folder()?;
    let mut options = CoordinatorOptions::new(args.id.as_str(), args.config.clone(), var, network);
    options.more_routes = event_routes(events.clone(), args.id.as_str());
    options.bind = args.port.map(|port| {
        let configured = config.coordinators.get(&args.id);
        let host = configured.map_or("127.0.0.1", |address| address.host.as_str()).to_owned();
        Address { host, port }.to_string()
    });
    let store = args
        .store
        .as_deref()
        .map(StoreSettings::url)
        .or_else(|| config.cluster.store.as_ref().map(StoreSettings::from));
    if let Some(settings) = store {
        let store = Store::open(&settings)?;
        options.backups = Some(Schedule {
            store: Arc::new(ScheduledBackups::new(store.clone(), Arc::new(SystemClock))),
            clock: Arc::new(SystemClock),
        });
        options.store = Some(Arc::new(store));
    }
    let coordinator = tokio::select! {
        started = Coordinator::start(options) => started?,
        () = shutdown.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    looks.pass_to(coordinator.reload_handle());
    let end = async {
        shutdown.cancelled().await;
        events.close();
    };
    coordinator.serve(end).await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
