//! The command line: subcommands, and the arguments that several of them share.
//!
//! Raw input only; each subcommand's own arguments stand in its file. The texts here are what
//! `--help` shows.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use tako_loadtest::bench::BenchArgs;
use tako_node_core::configuration::ConfigSource;

use crate::{
    cluster::ClusterArgs,
    command::{
        check::CheckArgs,
        completions::{CompletionsArgs, ManArgs},
        coordinator::CoordinatorArgs,
        ctl::CtlArgs,
        migrate::MigrateArgs,
        node::NodeArgs,
        proxy::ProxyArgs,
        tls::TlsCommandArgs,
        token::TokenArgs,
    },
    failure::Failure,
    logs::LogArgs,
    trust::TlsArgs,
};

const AFTER_HELP: &str = "\
Examples:
  tako cluster                          a whole cluster on this machine, proxy at port 8080
  tako check examples/cluster.yaml      is this configuration right, and what does it mean?
  tako node --id n1 --coordinator localhost:17400
  tako migrate start --to bigger.yaml --wait
  tako ctl snapshot create --store s3://bucket/prefix

Exit codes: 0 done; 1 a bench that failed, an answer that is no, or a bug; 2 wrong arguments or configuration; 3 something
named is missing; 4 a conflict with another process; 5 an old configuration; 6 something needed is
unavailable (a taken port, the disk, the object store); 7 damaged data; 8 busy, 9 a deadline;
130 stopped at once by a second signal.";

/// A distributed key-value store at home in object storage.
#[derive(Debug, Parser)]
#[command(name = "tako", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) logs: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole cluster on this machine, each process of its own
    Cluster(ClusterArgs),
    /// Run one node: it stores data and serves clients
    Node(NodeArgs),
    /// Run a proxy: it serves clients and stores nothing
    Proxy(ProxyArgs),
    /// Run a coordinator: it publishes the configuration
    Coordinator(CoordinatorArgs),
    /// Check a configuration and show what it means
    Check(CheckArgs),
    /// Move a running cluster to other nodes, buckets or levels
    Migrate(MigrateArgs),
    /// Add, remove and replace nodes; back up, restore and scrub a cluster
    Ctl(CtlArgs),
    /// Measure a cluster, and verify every answer while measuring
    Bench(Box<BenchArgs>),
    /// Make certificates for the processes of a cluster
    Tls(TlsCommandArgs),
    /// Make a token for a client
    Token(TokenArgs),
    /// Print what a shell needs to complete these commands
    Completions(CompletionsArgs),
    /// Write manual pages
    Man(ManArgs),
    /// Try whole clusters under simulated faults, from seeds
    #[cfg(feature = "sim")]
    Sim(tako_sim::command::SimArgs),
}

/// Where a node or proxy gets its configuration.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SourceArgs {
    /// A coordinator to ask; give it again for more
    #[arg(short, long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub(crate) coordinator: Vec<String>,
    /// A configuration file of its own, instead of coordinators
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl SourceArgs {
    pub(crate) fn source(self) -> ConfigSource {
        match self.config {
            Some(file) => ConfigSource::File(file),
            None => ConfigSource::Coordinators(self.coordinator),
        }
    }
}

/// What every process of a cluster takes.
#[derive(Debug, Args)]
pub(crate) struct ProcessArgs {
    /// Folder for all files of the process
    #[arg(long, value_name = "DIR", default_value = "./var")]
    pub(crate) var: PathBuf,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// Listen beyond this machine though nobody is asked who they are
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Stop in good order when standard input ends
    #[arg(long, hide = true)]
    pub(crate) stop_with_parent: bool,
}

impl ProcessArgs {
    /// The folder as an absolute path: store URLs are made of it.
    pub(crate) fn folder(&self) -> Result<PathBuf, Failure> {
        absolute(&self.var)
    }
}

/// A path as seen from the root; it need not exist.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::invalid(format!("folder {}: {error}", path.display())))
}

/// Checks an argument of that form.
pub(crate) fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| 0 < p) => {
            Ok(text.to_owned())
        }
        _ => Err("write it as HOST:PORT, such as localhost:17400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_free_of_contradictions() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_node_takes_coordinators_or_a_file_and_not_both() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("tako node --id n1 --coordinator a:1 --coordinator [::1]:2").is_ok());
        assert!(parse("tako node --id n1 --config x.yaml").is_ok());
        assert!(parse("tako node --id n1 --config x.yaml --coordinator a:1").is_err());
        assert!(parse("tako node --id n1").is_err());
        assert!(parse("tako node --id n1 --coordinator a").is_err());
    }
}
