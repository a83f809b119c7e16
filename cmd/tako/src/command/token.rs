//! `tako token`: a new token for a client, and its lines for the file of tokens.

use std::{
    fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf,
    process::ExitCode,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::{Args, ValueEnum};
use tako_gateway::{Access, digest_of};

use super::output::print;
use crate::failure::Failure;

/// Chance in a token: as much as in a key of AES-256.
const TOKEN_BYTES: usize = 32;

/// Arguments of `tako token`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tako token shop --scope read --scope write --prefix cart/ --file tokens.yaml
  tako token prometheus --scope monitor --file tokens.yaml
  tako token operator --scope admin --file tokens.yaml > ~/.tako-token

The token itself is printed, once, and kept nowhere; the file gets its SHA-256. Processes that were
started with --tokens FILE know it some seconds later. Scopes: read and write values; monitor:
/cluster, /metrics, /events, stats; admin: all of that. memcached clients log in with NAME as the
user and the token as the password.")]
pub(crate) struct TokenArgs {
    /// What it is called in logs, and the user's name for memcached
    #[arg(value_name = "NAME")]
    name: String,
    /// What it may do; give it again for more
    #[arg(long, value_enum, required = true)]
    scope: Vec<ScopeArg>,
    /// Only keys that begin so; give it again for more
    #[arg(long, value_name = "PREFIX")]
    prefix: Vec<String>,
    /// At most so many requests a second at each process
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// The file of tokens it is added to, made where there is none; its lines are printed without
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeArg {
    Read,
    Write,
    Monitor,
    Admin,
}

pub(crate) fn run(args: &TokenArgs) -> Result<ExitCode, Failure> {
    let token = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; TOKEN_BYTES]>());
    let entry = entry(args, &token);
    Access::check(&entry).map_err(Failure::invalid)?;
    let Some(path) = &args.file else {
        print(&format!("{token}\n\n{entry}"))?;
        return Ok(ExitCode::SUCCESS);
    };
    let shown = path.display();
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::invalid(format!("cannot read {shown}: {error}"))),
    };
    let end = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    // As a whole it must be one that is taken: the name may be there already.
    Access::check(&format!("{before}{end}{entry}"))
        .map_err(|error| Failure::invalid(format!("{shown}: {error}")))?;
    let mut options = OpenOptions::new();
    let mut file = options
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Failure::unavailable(format!("{shown}: {error}")))?;
    file.write_all(format!("{end}{entry}").as_bytes())
        .map_err(|error| Failure::unavailable(format!("{shown}: {error}")))?;
    print(&token)?;
    Ok(ExitCode::SUCCESS)
}

/// The lines of the file.
fn entry(args: &TokenArgs, token: &str) -> String {
    let digest: String =
        digest_of(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let scopes: Vec<String> =
        args.scope.iter().map(|scope| format!("{scope:?}").to_lowercase()).collect();
    let mut entry =
        format!("{}:\n  sha256: {digest}\n  scopes: [{}]\n", args.name, scopes.join(", "));
    if !args.prefix.is_empty() {
        // A string of JSON is one of YAML.
        let prefixes = serde_json::Value::from(args.prefix.clone());
        entry += &format!("  prefixes: {prefixes}\n");
    }
    if let Some(rate) = args.rate {
        entry += &format!("  rate: {rate}\n");
    }
    entry
}
