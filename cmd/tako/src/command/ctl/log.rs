//! `tako ctl log`: what happened at the processes of a cluster, by their event logs, in one stream.
//!
//! Each process is asked page by page, and with `--follow` waits with its answer until there is more.
//! Events of several processes come in the order of their times as far as they are there together. A
//! process that is away, started anew or has forgotten events is told of as an event of its own.

use std::{collections::BTreeSet, process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tako_types::{ErrorKind, config::parse_duration};
use tokio::{sync::mpsc, time::sleep};

use crate::{
    arguments::host_and_port,
    command::{
        coordinators::reason,
        migrate::CommonArgs,
        output::{Output, print},
    },
    failure::Failure,
    http::Http,
};

/// Events asked for at one time.
const PAGE: usize = 500;
/// How long a process may wait for an event before it answers that there is none.
const WAIT_SECONDS: u64 = 20;
/// A process that answers nothing for so long, beyond its wait, is away.
const DEADLINE: Duration = Duration::from_secs(5);
/// Pause before a process that is away is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Pages of events on their way to standard output.
const PAGES_MAX: usize = 16;

/// Arguments of `tako ctl log`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tako ctl log                         what all nodes and coordinators remember, oldest first
  tako ctl log --follow                the same, and what happens from now on; Ctrl-C ends it
  tako ctl log n1 c1 --level warn --since 10m
  tako ctl log --at localhost:8080     a proxy, which no configuration names
  tako ctl log n3 --set-level info,tako_node_core=debug     until told otherwise, or restarted
  tako ctl log -f --output json | jq 'select(.level == \"error\")'

Each process remembers the last 2,048 events of its life. The whole log is what it writes to standard
error.

Exit codes: 0 all answered; 1 not all; 3 no such process; 6 no coordinator answers.")]
pub(super) struct LogArgs {
    /// Nodes and coordinators; without any, all that have an HTTP port
    #[arg(value_name = "PROCESS")]
    processes: Vec<String>,
    /// Another process to ask, such as a proxy; give it again for more
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    at: Vec<String>,
    /// Let the processes write more, or less, to standard error from now on
    #[arg(long, value_name = "LEVEL", conflicts_with_all = ["follow", "level", "since"])]
    set_level: Option<String>,
    /// Go on with what happens from now on
    #[arg(long, short)]
    follow: bool,
    /// Nothing less grave
    #[arg(long, value_enum, default_value_t = Level::Info)]
    level: Level,
    /// Nothing older
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Level {
    Info,
    Warn,
    Error,
}

/// A process to ask.
struct Asked {
    id: String,
    address: String,
}

/// What is shown of all that comes.
#[derive(Clone, Copy)]
struct Shown {
    level: Level,
    since_micros: u64,
    output: Output,
}

pub(super) async fn run(args: LogArgs) -> Result<ExitCode, Failure> {
    let asked = chosen(&args).await?;
    let http = Http::new(&args.common.coordinators.ask)?;
    if let Some(level) = &args.set_level {
        return set_level(&http, &asked, level, args.common.output).await;
    }
    let now = chrono::Utc::now().timestamp_micros().unsigned_abs();
    let since = args.since.map_or(now, |since| u64::try_from(since.as_micros()).unwrap_or(now));
    let shown = Shown {
        level: args.level,
        since_micros: now.saturating_sub(since),
        output: args.common.output,
    };
    let mut followed: Vec<Follow> =
        asked.into_iter().map(|asked| Follow::new(http.clone(), asked)).collect();
    let all = join_all(followed.iter_mut().map(Follow::held)).await;
    let all_answer = all.iter().all(|(_, answers)| *answers);
    shown.print(all.into_iter().flat_map(|(events, _)| events).collect())?;
    if !args.follow {
        return Ok(if all_answer { ExitCode::SUCCESS } else { ExitCode::from(1) });
    }
    let (sender, mut pages) = mpsc::channel(PAGES_MAX);
    for follow in followed {
        tokio::spawn(follow.run(sender.clone()));
    }
    drop(sender);
    while let Some(mut events) = pages.recv().await {
        while let Ok(more) = pages.try_recv() {
            events.extend(more);
        }
        shown.print(events)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Has each process log by another level.
async fn set_level(
    http: &Http,
    asked: &[Asked],
    level: &str,
    output: Output,
) -> Result<ExitCode, Failure> {
    let orders = asked.iter().map(async |Asked { id, address }| {
        let request = http.request(Method::PUT, address, "/log-level").timeout(DEADLINE);
        let answer = async {
            let answer = request.body(level.to_owned()).send().await?;
            Ok((answer.status(), answer.text().await?))
        };
        let (is_done, said) = match answer.await {
            Ok((status, said)) if status.is_success() => (true, said.trim().to_owned()),
            Ok((status, said)) => {
                let problem: Value = serde_json::from_str(&said).unwrap_or_default();
                let why = problem["detail"].as_str().map(str::to_owned);
                (false, why.unwrap_or_else(|| status.to_string()))
            }
            Err(error) => (false, reason(&error)),
        };
        (id, is_done, said)
    });
    let done = join_all(orders).await;
    for (id, is_done, said) in &done {
        match output {
            Output::Json => {
                let level = is_done.then_some(said);
                let why = (!is_done).then_some(said);
                print(&json!({ "process": id, "level": level, "why": why }).to_string())?;
            }
            Output::Text => print(&format!("{id}  {said}"))?,
        }
    }
    let all = done.iter().all(|(_, is_done, _)| *is_done);
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The processes named, or all that can be asked.
async fn chosen(args: &LogArgs) -> Result<Vec<Asked>, Failure> {
    let named = |at: &String| Asked { id: at.clone(), address: at.clone() };
    let mut asked: Vec<Asked> = args.at.iter().map(named).collect();
    if !asked.is_empty() && args.processes.is_empty() {
        return Ok(asked);
    }
    let (_, view) = args.common.look().await?;
    let coordinators = view.published.config.coordinators.iter();
    let mut known: Vec<Asked> = coordinators
        .map(|(id, address)| Asked { id: id.clone(), address: address.to_string() })
        .collect();
    known.extend(view.published.nodes().filter_map(|node| {
        let address = node.http_address()?.to_string();
        Some(Asked { id: node.id.as_str().to_owned(), address })
    }));
    if !args.processes.is_empty() {
        let names: BTreeSet<&str> = args.processes.iter().map(String::as_str).collect();
        if let Some(name) = names.iter().find(|name| !known.iter().any(|one| one.id == **name)) {
            let text = format!("no node with an HTTP port and no coordinator is called {name}");
            return Err(Failure::new(ErrorKind::NotFound, text));
        }
        known.retain(|one| names.contains(one.id.as_str()));
    }
    asked.extend(known);
    Ok(asked)
}

/// One process that is followed.
struct Follow {
    http: Http,
    asked: Asked,
    /// Its life, once it answered.
    run: Option<String>,
    after: u64,
    is_away: bool,
}

impl Follow {
    fn new(http: Http, asked: Asked) -> Self {
        Self { http, asked, run: None, after: 0, is_away: false }
    }

    /// All that it remembers, and whether it answered.
    async fn held(&mut self) -> (Vec<Value>, bool) {
        let mut events = Vec::new();
        loop {
            let before = self.after;
            events.extend(self.page(0).await);
            if self.is_away || self.after == before {
                return (events, !self.is_away);
            }
        }
    }

    /// Goes on until nobody listens any more.
    async fn run(mut self, pages: mpsc::Sender<Vec<Value>>) {
        loop {
            let events = self.page(WAIT_SECONDS).await;
            if !events.is_empty() && pages.send(events).await.is_err() {
                return;
            }
            if self.is_away {
                sleep(AGAIN).await;
            }
        }
    }

    /// The next events, and what there is to say of the process itself.
    async fn page(&mut self, wait_seconds: u64) -> Vec<Value> {
        let mut events = Vec::new();
        let mut page = match self.ask(wait_seconds).await {
            Ok(page) => page,
            Err(why) => {
                if !self.is_away {
                    events
                        .push(self.own("warn", format!("{} is silent: {why}", self.asked.address)));
                }
                self.is_away = true;
                return events;
            }
        };
        if let Some(id) = page["process"].as_str() {
            self.asked.id = id.to_owned();
        }
        let run = page["run"].as_str().map(str::to_owned);
        if self.is_away && self.run == run {
            events.push(self.own("info", "it answers again".to_owned()));
        }
        self.is_away = false;
        let lost = page["lost"].as_u64().unwrap_or(0);
        if 0 < lost && self.run.is_some() {
            events.push(self.own("warn", format!("{lost} events came faster than they were read")));
        }
        self.run = run;
        self.after = page["next"].as_u64().unwrap_or(self.after);
        if let Value::Array(rows) = page["events"].take() {
            events.extend(rows.into_iter().map(|mut row| {
                row["process"] = self.asked.id.as_str().into();
                row
            }));
        }
        events
    }

    async fn ask(&self, wait_seconds: u64) -> Result<Value, String> {
        let Asked { address, .. } = &self.asked;
        let mut path = format!("/events?after={}&limit={PAGE}&wait={wait_seconds}", self.after);
        if let Some(run) = &self.run {
            path += &format!("&run={run}");
        }
        let request =
            self.http.get(address, &path).timeout(DEADLINE + Duration::from_secs(wait_seconds));
        let answer = async { request.send().await?.error_for_status()?.bytes().await };
        let bytes = answer.await.map_err(|error| reason(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }

    /// An event that this command makes of what it sees.
    fn own(&self, level: &str, text: String) -> Value {
        let at = chrono::Utc::now().timestamp_micros();
        let (process, part) = (&self.asked.id, "tako::ctl::log");
        json!({"process": process, "at": at, "level": level, "part": part, "text": text, "fields": {}})
    }
}

impl Shown {
    /// Those that are wanted, in the order of their times.
    fn print(self, mut events: Vec<Value>) -> Result<(), Failure> {
        events.retain(|event| {
            let level = event["level"].as_str().map_or(Level::Info, level_of);
            self.level <= level && self.since_micros <= event["at"].as_u64().unwrap_or(0)
        });
        events.sort_by_key(|event| event["at"].as_u64());
        for event in &events {
            match self.output {
                Output::Json => print(&event.to_string())?,
                Output::Text => print(&line(event))?,
            }
        }
        Ok(())
    }
}

fn level_of(text: &str) -> Level {
    match text {
        "error" => Level::Error,
        "warn" => Level::Warn,
        _ => Level::Info,
    }
}

fn line(event: &Value) -> String {
    let micros = event["at"].as_i64().unwrap_or(0);
    let time = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    let word = |name: &str| event[name].as_str().unwrap_or_default();
    let mut text = format!(
        "{}  {:5}  {:10}  {}",
        time.format("%Y-%m-%dT%H:%M:%S%.3fZ"),
        word("level").to_uppercase(),
        word("process"),
        // What other processes say goes to a terminal.
        word("text").escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\""),
    );
    for (name, value) in event["fields"].as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text += &format!("  {name}={}", value.escape_debug());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        let event = json!({
            "at": 1_790_000_000_123_456_i64, "level": "warn", "process": "n1",
            "text": "it's \"late\"\x1b[2J\nso", "fields": {"p": 3, "why": "a\nb"},
        });
        let expected = "2026-09-21T14:13:20.123Z  WARN   n1          it's \"late\"\\u{1b}[2J\\nso  p=3  \
                        why=a\\nb";
        assert_eq!(line(&event), expected);
    }
}
