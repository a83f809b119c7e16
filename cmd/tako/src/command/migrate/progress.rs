//! Draws how a migration goes on until it is where it is waited for.
//!
//! On a terminal one line is drawn again and again, elsewhere each change is a line. Everything goes
//! to standard error. What is seen is what the master says at `/status`; a coordinator that does not
//! answer is asked again. Ctrl-C ends the looking on, never the migration.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use serde_json::Value;
use tako_types::ErrorKind;
use tokio::time::{Instant, sleep};

use crate::{
    command::coordinators::Coordinators,
    failure::Failure,
    signals::{AT_ONCE, Stops},
};

const ASK_EVERY: Duration = Duration::from_millis(300);
/// What fits into a narrow terminal.
const LINE_CHARACTERS: usize = 79;

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Until {
    /// Reads are at the other deployment.
    Promoted,
    /// There is no migration, and this one is active; any, where none is named.
    Ended(Option<String>),
}

/// Waits; `None` when it is there, else the exit code of who was stopped.
///
/// # Errors
/// [`ErrorKind::Conflict`] when it went another way.
pub(crate) async fn wait(
    coordinators: &Coordinators,
    until: &Until,
) -> Result<Option<ExitCode>, Failure> {
    let mut stops = Stops::new()?;
    let mut line = Line::new();
    loop {
        let said = match coordinators.view().await {
            Ok(view) => {
                if is_there(&view.status, until)? {
                    line.end();
                    return Ok(None);
                }
                in_words(&view.status)
            }
            Err(failure) => format!("no coordinator answers: {failure}"),
        };
        line.show(&said);
        tokio::select! {
            () = sleep(ASK_EVERY) => {}
            () = stops.next() => {
                line.end();
                let _ = writeln!(
                    io::stderr(),
                    "The migration goes on without this command. Look: tako migrate status; wait \
                     again: tako migrate status --wait; give it up: tako migrate abort"
                );
                return Ok(Some(ExitCode::from(AT_ONCE)));
            }
        }
    }
}

/// Whether `status` is what is waited for.
fn is_there(status: &Value, until: &Until) -> Result<bool, Failure> {
    let active = status["active_deployment"].as_str().unwrap_or_default();
    let migration = &status["migration"];
    let phase = migration["phase"].as_str();
    match until {
        Until::Promoted if phase == Some("read-new") => Ok(true),
        Until::Ended(wanted) if migration.is_null() => match wanted {
            Some(wanted) if wanted != active => Err(otherwise(format!(
                "it ended with `{active}` active, not `{wanted}`: somebody ordered so"
            ))),
            _ => Ok(true),
        },
        Until::Promoted if migration.is_null() || phase == Some("leave") => {
            Err(otherwise(format!("it did not stop there: `{active}` is active")))
        }
        _ => Ok(false),
    }
}

fn otherwise(text: String) -> Failure {
    Failure::new(ErrorKind::Conflict, text)
}

/// A status in one line.
pub(crate) fn in_words(status: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let active = text(&status["active_deployment"]).unwrap_or_default();
    let migration = &status["migration"];
    let Some(phase) = text(&migration["phase"]) else {
        return format!("no migration, `{active}` is active");
    };
    let other = text(&migration["other"]).unwrap_or_default();
    let doing = match phase.as_str() {
        "join" => format!("the nodes of `{other}` open the snapshots"),
        "write-both" => format!("writes go to `{active}` and `{other}`, reads to `{active}`"),
        "read-new" => format!("writes go to `{active}` and `{other}`, reads to `{other}`"),
        _ => format!("requests go to `{active}`, `{other}` is being left"),
    };
    let mut said = format!("{phase}: {doing}");
    if let Some(waits) = migration["waits_for"].as_array().filter(|waits| !waits.is_empty()) {
        let waits: Vec<String> = waits.iter().filter_map(text).collect();
        said = format!("{said}; waits: {}", waits.join("; "));
    }
    if let Some(trouble) = text(&status["last_error"]) {
        said = format!("{said}; trouble: {trouble}");
    }
    said
}

/// The line that is drawn.
struct Line {
    is_terminal: bool,
    began: Instant,
    shown: String,
}

impl Line {
    fn new() -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
            began: Instant::now(),
            shown: String::new(),
        }
    }

    fn show(&mut self, said: &str) {
        let seconds = self.began.elapsed().as_secs();
        if self.is_terminal {
            let line: String =
                format!("{seconds:>4} s  {said}").chars().take(LINE_CHARACTERS).collect();
            let _ = write!(io::stderr(), "\r\x1b[K{line}");
        } else if self.shown != said {
            let _ = writeln!(io::stderr(), "{seconds:>4} s  {said}");
        }
        said.clone_into(&mut self.shown);
    }

    fn end(&self) {
        if self.is_terminal && !self.shown.is_empty() {
            let _ = writeln!(io::stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(active: &str, phase: Option<&str>) -> Value {
        let migration = phase.map(|phase| json!({ "phase": phase, "other": "t", "waits_for": [] }));
        json!({ "active_deployment": active, "migration": migration, "last_error": null })
    }

    #[test]
    fn it_is_there_only_when_the_wanted_deployment_is_active_without_a_migration() {
        let ended = Until::Ended(Some("t".to_owned()));
        assert!(!is_there(&status("d", Some("join")), &ended).expect("on its way"));
        assert!(!is_there(&status("t", Some("leave")), &ended).expect("on its way"));
        assert!(is_there(&status("t", None), &ended).expect("there"));
        let given_up = is_there(&status("d", None), &ended).expect_err("given up");
        assert!(given_up.to_string().contains("`d` active, not `t`"), "{given_up}");
        assert!(is_there(&status("d", None), &Until::Ended(None)).expect("there"));
        assert!(is_there(&status("d", Some("read-new")), &Until::Promoted).expect("there"));
        assert!(is_there(&status("t", Some("leave")), &Until::Promoted).is_err());
    }

    #[test]
    fn a_line_says_what_goes_on_and_what_it_waits_for() {
        let mut status = status("d", Some("write-both"));
        status["migration"]["waits_for"] = json!(["n3 does not answer"]);
        status["last_error"] = json!("the store is away");
        assert_eq!(
            in_words(&status),
            "write-both: writes go to `d` and `t`, reads to `d`; waits: n3 does not answer; trouble: \
             the store is away"
        );
    }
}
