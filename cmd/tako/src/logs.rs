//! Logs go to standard error: text for people, JSON lines for machines.

use std::io::{self, IsTerminal as _};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;

/// Dependencies that talk too much at `info`.
const QUIET: &str = "slatedb=warn,foyer=warn,hyper=warn,hyper_util=warn,object_store=warn,\
                     reqwest=warn,rustls=warn,mixtrics=warn";

/// How the program logs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub(crate) struct LogArgs {
    /// What is logged: error, warn, info, debug, trace, or directives such as `info,tako_ring=debug`
    #[arg(long, global = true, value_name = "LEVEL", env = "TAKO_LOG", default_value = "info")]
    pub(crate) log: String,
    /// Form of the log lines
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for people, in colour on a terminal
    Text,
    /// A JSON object per line
    Json,
}

impl LogFormat {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Starts logging for the whole process.
pub(crate) fn start(args: &LogArgs) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", args.log))
        .map_err(|error| Failure::invalid(format!("--log {}: {error}", args.log)))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}
