//! Logs go to standard error: text for people, JSON lines for machines; and what is worth knowing later
//! goes to the event log, which the process shows at `GET /events`.

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal as _},
    sync::{Arc, Mutex, PoisonError},
};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use tako_gateway::{Event, EventLog, LogLevel};
use tako_types::{Clock as _, SystemClock};
use tracing::{
    Level,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::LevelFilter, layer::Context, layer::SubscriberExt as _,
    reload, util::SubscriberInitExt as _,
};

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

/// Starts logging for the whole process; gives its event log.
pub(crate) fn start(args: &LogArgs) -> Result<Arc<EventLog>, Failure> {
    let filter = filter(&args.log).map_err(|error| Failure::invalid(format!("--log {error}")))?;
    let (filter, handle) = reload::Layer::new(filter);
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let logs = match args.log_format {
        LogFormat::Text => logs.with_filter(filter).boxed(),
        LogFormat::Json => logs.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let level = InForce { set: Mutex::new(args.log.clone()), handle };
    let events = EventLog::new(format!("{:x}", SystemClock.now_micros()));
    let events = Arc::new(events.with_level(Box::new(level)));
    let keeper = Keeper(events.clone()).with_filter(LevelFilter::INFO);
    tracing_subscriber::registry().with(logs).with(keeper).init();
    Ok(events)
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(format!("{QUIET},{level}")).map_err(|error| format!("{level}: {error}"))
}

/// The level in force.
struct InForce {
    set: Mutex<String>,
    handle: reload::Handle<EnvFilter, Registry>,
}

impl fmt::Debug for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.get())
    }
}

impl LogLevel for InForce {
    fn get(&self) -> String {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, level: &str) -> Result<(), String> {
        if level.is_empty() {
            return Err("give a level, such as debug, or info,tako_ring=debug".to_owned());
        }
        let filter = filter(level)?;
        self.handle.reload(filter).map_err(|error| error.to_string())?;
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = level.to_owned();
        Ok(())
    }
}

/// Puts what this program says at `info` and above into the event log, whatever `--log` says: of its
/// libraries only what went wrong.
struct Keeper(Arc<EventLog>);

impl<S: tracing::Subscriber> Layer<S> for Keeper {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let about = event.metadata();
        let part = about.target();
        let level = match *about.level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            _ if part.starts_with("tako") => "info",
            _ => return,
        };
        let mut said = Said::default();
        event.record(&mut said);
        self.0.push(Event {
            at_micros: SystemClock.now_micros(),
            level,
            part: part.to_owned(),
            text: said.text,
            fields: said.fields,
        });
    }
}

/// What an event says: its message, and its fields by name.
#[derive(Default)]
struct Said {
    text: String,
    fields: Map<String, Value>,
}

impl Said {
    fn add(&mut self, field: &Field, value: Value) {
        self.fields.insert(field.name().to_owned(), value);
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.text, "{value:?}");
        } else {
            self.add(field, format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.text.push_str(value),
            _ => self.add(field, value.into()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}
