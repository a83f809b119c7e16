//! What commands print to standard output: text for people, JSON for machines.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde_json::Value;
use tako_types::ErrorKind;

use crate::failure::Failure;

/// Form of what a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For machines
    Json,
}

/// JSON to standard output.
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(ErrorKind::Internal, error.to_string()))?;
    print(&text)
}

/// A text and a line end to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{text}")
        .map_err(|error| Failure::unavailable(format!("cannot write: {error}")))
}
