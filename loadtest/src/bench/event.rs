//! Commands beside a load, each at its time.
//!
//! In: the events of a scenario and when the load began. Out: what became of each. A command is run by
//! `sh -c` with this process's environment and no input; what it prints goes to standard error. It may
//! leave processes behind; one that still runs itself [`GRACE`] after the load is killed.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{process::Command, sync::watch, task::JoinSet};

use super::scenario::Event;

/// How long a command may go on after the end of the load.
const GRACE: Duration = Duration::from_secs(30);

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Happened {
    /// Its name in the scenario.
    pub name: String,
    /// The command.
    pub run: String,
    /// When it began, in seconds since the load did.
    pub began: f64,
    /// How long the command took.
    pub took: f64,
    /// None: it ended well.
    pub failure: Option<String>,
}

/// Runs them all, each when it is due; those that are not due when `over` holds true never.
pub(crate) async fn run(
    events: Vec<Event>,
    start: Instant,
    over: watch::Receiver<bool>,
) -> Vec<Happened> {
    let mut running = JoinSet::new();
    for event in events {
        running.spawn(one(event, start, over.clone()));
    }
    let mut happened: Vec<Happened> = running.join_all().await.into_iter().flatten().collect();
    happened.sort_by(|one, other| one.began.total_cmp(&other.began));
    happened
}

async fn one(event: Event, start: Instant, mut over: watch::Receiver<bool>) -> Option<Happened> {
    tokio::select! {
        () = tokio::time::sleep_until((start + event.at).into()) => {}
        () = ended(&mut over) => return None,
    }
    let began = Instant::now();
    tracing::info!(event = event.name, "begins");
    let late = async {
        ended(&mut over).await;
        tokio::time::sleep(GRACE).await;
    };
    let failure = tokio::select! {
        failure = execute(&event.run) => failure,
        () = late => Some(format!("did not end within {} s after the load", GRACE.as_secs())),
    };
    let took = began.elapsed().as_secs_f64();
    match &failure {
        None => tracing::info!(event = event.name, took, "ended"),
        Some(failure) => tracing::error!(event = event.name, took, "failed: {failure}"),
    }
    let began = began.duration_since(start).as_secs_f64();
    Some(Happened { name: event.name, run: event.run, began, took, failure })
}

/// Until `over` holds true, or nobody is left to say so.
async fn ended(over: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the load.
    let _ = over.wait_for(|over| *over).await;
}

/// Runs the command to its end; why it failed. Killed when dropped.
async fn execute(command: &str) -> Option<String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(std::io::stderr()).kill_on_drop(true);
    match shell.spawn() {
        Err(error) => Some(format!("cannot start sh: {error}")),
        Ok(mut child) => match child.wait().await {
            Err(error) => Some(format!("cannot be waited for: {error}")),
            Ok(status) => failure(status),
        },
    }
}

fn failure(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit code {code}")),
        (None, Some(signal)) => Some(format!("killed by signal {signal}")),
        (None, None) => Some("ended in no known way".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: Duration, name: &str, run: &str) -> Event {
        Event { at, name: name.to_owned(), run: run.to_owned() }
    }

    #[tokio::test]
    async fn events_run_in_their_order_and_failures_are_told() {
        let (_keep, over) = watch::channel(false);
        let events = vec![
            event(Duration::from_millis(2), "two", "exit 3"),
            event(Duration::ZERO, "one", "true"),
            event(Duration::from_millis(4), "three", "kill -9 $$"),
        ];
        let happened = run(events, Instant::now(), over).await;
        let told: Vec<_> = happened.iter().map(|it| (&*it.name, it.failure.as_deref())).collect();
        let expected =
            [("one", None), ("two", Some("exit code 3")), ("three", Some("killed by signal 9"))];
        assert_eq!(told, expected);
        assert!(happened[1].began >= 0.002);
    }

    #[tokio::test]
    async fn what_is_not_due_at_the_end_does_not_happen() {
        let (end, over) = watch::channel(false);
        let events = vec![event(Duration::from_secs(3600), "never", "true")];
        let running = tokio::spawn(run(events, Instant::now(), over));
        end.send_replace(true);
        assert_eq!(running.await.expect("joined"), []);
    }
}
