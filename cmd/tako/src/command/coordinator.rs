//! `tako coordinator`: publishes a configuration file to the object store and over HTTP.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use tako_coordinator::CoordinatorOptions;
use tako_snapshot::{Store, StoreSettings};
use tako_types::config::{Address, Config, check_startable};

use super::check;
use crate::{arguments::ProcessArgs, failure::Failure, listen, signals};

const AFTER_HELP: &str = "\
Examples:
  tako coordinator --id c1 --config cluster.yaml
  tako coordinator --id c1 --config cluster.yaml --store s3://bucket/prefix --insecure

The file is watched: a change is checked, numbered and published without a restart. What may not
change while the cluster runs is refused, and said in the log and at GET /status; the old
configuration stays. Nodes and proxies run on without any coordinator.

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

pub(crate) async fn run(args: CoordinatorArgs) -> Result<ExitCode, Failure> {
    let shutdown = signals::shutdown(args.process.stop_with_parent)?;
    // The coordinator takes these when it is up; until then they must not end the process.
    let _looks = signals::Looks::new()?;
    let config = check::load(&args.config)?;
    check_startable(&config).map_err(|error| Failure::invalid(error.to_string()))?;
    let mut options =
        CoordinatorOptions::new(args.id.as_str(), args.config.clone(), args.process.folder()?);
    options.bind = bind(&args, &config).await?;
    let store = args
        .store
        .as_deref()
        .map(StoreSettings::url)
        .or_else(|| config.cluster.store.as_ref().map(StoreSettings::from));
    if let Some(settings) = store {
        options.store = Some(Arc::new(Store::open(&settings)?));
    }
    tako_coordinator::run(options, async move { shutdown.cancelled().await }).await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Checks that the address is of this machine; gives it where `--port` changes it.
async fn bind(args: &CoordinatorArgs, config: &Config) -> Result<Option<SocketAddr>, Failure> {
    let configured = config.coordinators.get(&args.id);
    let Some(port) = args.port.or(configured.map(|address| address.port)) else {
        return Ok(None);
    };
    let host = configured.map_or("127.0.0.1", |address| address.host.as_str()).to_owned();
    let address = Address { host, port }.to_string();
    let failed =
        |error: std::io::Error| Failure::invalid(format!("cannot listen at {address}: {error}"));
    listen::check(&address, args.process.insecure).await.map_err(failed)?;
    if args.port.is_none() {
        return Ok(None);
    }
    Ok(tokio::net::lookup_host(&address).await.map_err(failed)?.next())
}
