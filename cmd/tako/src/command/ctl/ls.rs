//! `tako ctl ls`: which values there are, over HTTP at any node that serves it, page by page.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::value::{AtUrl, escaped};
use crate::{
    command::output::{Output, print, print_json},
    failure::Failure,
};

/// Values asked for at one time.
const PAGE: usize = 1_000;

/// Arguments of `tako ctl ls`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tako ctl ls                                     all keys, in their order
  tako ctl ls users/ --long                       those that begin so, with versions and lengths
  tako ctl ls --after users/7 --limit 100
  tako ctl ls users/ --output json

Keys that are no text are shown with \\xNN escapes, in JSON as key_base64. What is written at this
moment may be missing for some seconds.")]
pub(super) struct LsArgs {
    /// Only keys that begin so
    #[arg(value_name = "PREFIX", default_value = "")]
    prefix: String,
    /// Only keys behind this one
    #[arg(long, value_name = "KEY")]
    after: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// With length, time of the write, and time of expiry
    #[arg(long, short)]
    long: bool,
    #[command(flatten)]
    at: AtUrl,
    /// Form of what is printed
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) async fn run(args: LsArgs) -> Result<ExitCode, Failure> {
    let mut left = args.limit.unwrap_or(usize::MAX);
    let mut after = args.after.as_ref().map(|after| escaped(after.as_bytes()));
    let mut all = Vec::new();
    while 0 < left {
        let mut path =
            format!("values/?prefix={}&limit={}", escaped(args.prefix.as_bytes()), left.min(PAGE));
        if let Some(after) = &after {
            path += &format!("&after={after}");
        }
        let answer = args.at.get(&path).await?;
        let mut page: Value = serde_json::from_slice(&answer)
            .map_err(|error| Failure::unavailable(format!("the listing broke off: {error}")))?;
        let rows = match page["values"].take() {
            Value::Array(rows) => rows,
            _ => return Err(Failure::unavailable("the answer is no listing".to_owned())),
        };
        left = left.saturating_sub(rows.len());
        match args.output {
            Output::Json => all.extend(rows),
            Output::Text => {
                for row in &rows {
                    print(&line(row, args.long))?;
                }
            }
        }
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    if args.output == Output::Json {
        print_json(&json!({ "values": all }))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn line(row: &Value, long: bool) -> String {
    let key = match row["key"].as_str() {
        Some(text) => text.escape_debug().to_string(),
        None => {
            let encoded = row["key_base64"].as_str().unwrap_or_default();
            let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, encoded);
            bytes.unwrap_or_default().escape_ascii().to_string()
        }
    };
    if !long {
        return key;
    }
    let time = |micros: &Value| micros.as_u64().map_or_else(|| "-".to_owned(), at);
    format!(
        "{:>12}  {}  {:>20}  {key}",
        row["bytes"].as_u64().unwrap_or_default(),
        time(&row["timestamp"]),
        time(&row["expires_at"]),
    )
}

/// A time for people, to the second; as it is where it lies beyond all calendars.
fn at(micros: u64) -> String {
    let seconds = i64::try_from(micros / 1_000_000).ok();
    let time = seconds.and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
    time.map_or_else(|| micros.to_string(), |time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_any_key_and_with_long_what_it_is() {
        let row = json!({"key": "a\tb", "bytes": 3, "timestamp": 1_790_000_000_000_000_u64});
        assert_eq!(line(&row, false), "a\\tb");
        let long = line(&row, true);
        assert_eq!(long, "           3  2026-09-21T14:13:20Z                     -  a\\tb");
        assert_eq!(line(&json!({"key_base64": "/wA="}), false), "\\xff\\x00");
        assert_eq!(at(u64::MAX), "18446744073709551615".to_owned());
    }
}
