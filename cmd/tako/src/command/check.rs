//! `tako check`: says whether a configuration is right, and shows it with every default.
//!
//! The document goes to standard output, with the store's secret masked; warnings go to standard
//! error. No process is asked and nothing is changed.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::{Args, ValueEnum};
use serde_json::Value;
use tako_types::{
    ErrorKind,
    config::{Config, PublishedError},
};

use crate::failure::Failure;

const AFTER_HELP: &str = "\
Examples:
  tako check examples/local_cluster.yaml
  tako check --output json cluster.yaml | jq .deployments

Exit codes: 0 the configuration is right; 2 it is not, and the message says where and why;
6 the file cannot be read.";

/// Arguments of `tako check`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct CheckArgs {
    /// The configuration, YAML or JSON
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// Form in which the effective configuration is shown
    #[arg(long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// As a person would write it
    Yaml,
    /// As a machine would
    Json,
}

pub(crate) fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let config = Arc::new(load(&args.config)?);
    let number = config.epoch.unwrap_or(1);
    let published =
        tako_ring::publish(config.clone(), number, None).map_err(|error| match error {
            PublishedError::Config(error) => Failure::invalid(error.to_string()),
            error => Failure::new(error.kind(), error.to_string()),
        })?;
    let mut stderr = io::stderr();
    let warnings = config.warnings().into_iter().chain(tako_ring::zone_warnings(&published));
    for warning in warnings {
        let _ = writeln!(stderr, "warning: {warning}");
    }
    let shown = match args.output {
        Output::Yaml => config.effective_yaml(),
        Output::Json => masked_json(&config)?,
    };
    io::stdout()
        .write_all(shown.as_bytes())
        .map_err(|error| Failure::unavailable(format!("cannot write: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads and checks a configuration file.
pub(crate) fn load(path: &PathBuf) -> Result<Config, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::unavailable(format!("{}: {error}", path.display())))?;
    Config::parse(&text).map_err(|error| Failure::invalid(format!("{}: {error}", path.display())))
}

fn masked_json(config: &Config) -> Result<String, Failure> {
    let internal = |error: serde_json::Error| Failure::new(ErrorKind::Internal, error.to_string());
    let mut document: Value =
        serde_json::from_str(&config.to_canonical_json()).map_err(internal)?;
    if let Some(epoch) = config.epoch {
        document["epoch"] = epoch.into();
    }
    if !config.accept_loss.is_empty() {
        let nodes: Vec<_> = config.accept_loss.iter().map(|node| node.as_str()).collect();
        document["migration"] = serde_json::json!({ "accept_loss": nodes });
    }
    if let Some(secret) = document.pointer_mut("/store/secret_access_key") {
        *secret = "********".into();
    }
    serde_json::to_string_pretty(&document).map(|text| text + "\n").map_err(internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_in_neither_form() {
        let text = "active_deployment: a\n\
                    deployments: {a: {hash: {buckets_per_key: 1}, buckets: {b: {n: [h, 1]}}}}\n\
                    store: {url: 's3://b/p', access_key_id: me, secret_access_key: hush}\n";
        let config = Config::parse(text).expect("valid");
        let json = masked_json(&config).expect("json");
        assert!(json.contains("****") && !json.contains("hush"), "{json}");
        assert!(!config.effective_yaml().contains("hush"));
    }
}
