//! The event log of one process: the last things worth knowing, in memory, for who follows them.
//!
//! In: what the process logs at `info` and above (cmd/tako's subscriber pushes it). Out: pages behind a
//! number, awaited until there is one. Bounds: [`EVENTS_MAX`] events of [`EVENT_BYTES_MAX`] each; what
//! fell out is told by its count. Numbers begin anew with the process, so a page names its run.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

/// Events that are kept: at some per second, the last hours of a process that is well.
pub const EVENTS_MAX: usize = 2_048;
/// Longest text of an event, and longest text of all its fields.
pub(crate) const EVENT_BYTES_MAX: usize = 1_024;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When, in microseconds since the Unix epoch.
    pub at_micros: u64,
    /// `info`, `warn` or `error`.
    pub level: &'static str,
    /// Which part of the program says so.
    pub part: String,
    /// In words.
    pub text: String,
    /// What belongs to it.
    pub fields: Map<String, Value>,
}

/// What a process writes to its log, which operators change while it runs.
pub trait LogLevel: std::fmt::Debug + Send + Sync {
    /// As it was set last.
    fn get(&self) -> String;

    /// Takes effect at once.
    ///
    /// # Errors
    /// In words, where it is none.
    fn set(&self, level: &str) -> Result<(), String>;
}

/// See the module.
#[derive(Debug)]
pub struct EventLog {
    run: String,
    held: Mutex<Held>,
    /// How many there were.
    count: watch::Sender<u64>,
    closed: CancellationToken,
    pub(crate) level: Option<Box<dyn LogLevel>>,
}

#[derive(Debug, Default)]
struct Held {
    events: VecDeque<Event>,
    /// How many there were before these.
    before: u64,
}

/// Events behind a number.
#[derive(Debug, Clone, PartialEq)]
pub struct EventPage {
    /// The life of the process: numbers of another one mean others.
    pub run: String,
    /// How many came after the number and are not held any more.
    pub lost: u64,
    /// With their numbers, from 1.
    pub events: Vec<(u64, Event)>,
    /// Ask for what is behind this one next.
    pub next: u64,
}

impl EventLog {
    /// An empty log of a life that has this name.
    #[must_use]
    pub fn new(run: impl Into<String>) -> Self {
        Self {
            run: run.into(),
            held: Mutex::default(),
            count: watch::Sender::new(0),
            closed: CancellationToken::new(),
            level: None,
        }
    }

    /// The same, of a process whose log has a level that can be changed.
    #[must_use]
    pub fn with_level(self, level: Box<dyn LogLevel>) -> Self {
        Self { level: Some(level), ..self }
    }

    /// Adds an event; what is too long is cut.
    pub fn push(&self, mut event: Event) {
        cut(&mut event.text, EVENT_BYTES_MAX);
        let mut left = EVENT_BYTES_MAX;
        event.fields.retain(|name, value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let bytes = name.len() + text.len();
            let fits = bytes <= left;
            left = left.saturating_sub(bytes);
            fits
        });
        let mut held = self.held();
        if held.events.len() == EVENTS_MAX {
            held.events.pop_front();
            held.before += 1;
        }
        held.events.push_back(event);
        let count = held.before + held.events.len() as u64;
        self.count.send_replace(count);
    }

    /// What is behind event `after` of life `run`, at most `limit`, awaited for so long if there is
    /// nothing. Of another life: from the first that is held.
    pub async fn page(
        &self,
        run: Option<&str>,
        after: u64,
        limit: usize,
        wait: Duration,
    ) -> EventPage {
        let after = if run.is_none_or(|run| run == self.run) { after } else { 0 };
        let mut count = self.count.subscribe();
        let comes = count.wait_for(|count| after < *count);
        tokio::select! {
            _ = timeout(wait, comes) => {}
            () = self.closed.cancelled() => {}
        }
        let held = self.held();
        // A number that was not given yet is another life's: the caller did not say which.
        let after = after.min(held.before + held.events.len() as u64);
        let lost = held.before.saturating_sub(after);
        let first = after.max(held.before);
        let skip = usize::try_from(first - held.before).unwrap_or(usize::MAX);
        let events: Vec<_> =
            (first + 1..).zip(held.events.iter().skip(skip).take(limit).cloned()).collect();
        let next = events.last().map_or(first, |(number, _)| *number);
        EventPage { run: self.run.clone(), lost, events, next }
    }

    /// Ends all waiting: the process stops.
    pub fn close(&self) {
        self.closed.cancel();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventPage {
    /// For machines; `process` is who says so.
    #[must_use]
    pub fn json(&self, process: &str) -> Value {
        let events: Vec<Value> = self
            .events
            .iter()
            .map(|(number, event)| {
                json!({
                    "number": number,
                    "at": event.at_micros,
                    "level": event.level,
                    "part": event.part,
                    "text": event.text,
                    "fields": event.fields,
                })
            })
            .collect();
        json!({
            "process": process,
            "run": self.run,
            "lost": self.lost,
            "events": events,
            "next": self.next,
        })
    }
}

fn cut(text: &mut String, bytes_max: usize) {
    if bytes_max < text.len() {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event {
        let (part, fields) = ("test".to_owned(), Map::new());
        Event { at_micros: 1, level: "info", part, text: text.to_owned(), fields }
    }

    fn texts(page: &EventPage) -> Vec<(u64, &str)> {
        page.events.iter().map(|(number, event)| (*number, event.text.as_str())).collect()
    }

    const NOW: Duration = Duration::ZERO;

    #[tokio::test]
    async fn pages_go_on_where_the_last_one_ended() {
        let log = EventLog::new("a");
        for n in 1..=5 {
            log.push(event(&format!("e{n}")));
        }
        let first = log.page(None, 0, 2, NOW).await;
        assert_eq!((texts(&first), first.next), (vec![(1, "e1"), (2, "e2")], 2));
        let rest = log.page(Some("a"), first.next, 9, NOW).await;
        assert_eq!((texts(&rest), rest.next), (vec![(3, "e3"), (4, "e4"), (5, "e5")], 5));
        let none = log.page(Some("a"), 5, 9, NOW).await;
        assert_eq!((texts(&none), none.next, none.lost), (vec![], 5, 0));
    }

    #[tokio::test]
    async fn what_fell_out_is_counted_and_another_life_begins_anew() {
        let log = EventLog::new("b");
        for n in 1..=EVENTS_MAX + 10 {
            log.push(event(&format!("e{n}")));
        }
        let page = log.page(Some("b"), 3, 1, NOW).await;
        assert_eq!((texts(&page), page.lost), (vec![(11, "e11")], 7));
        let page = log.page(Some("another"), 2_000, 1, NOW).await;
        assert_eq!((texts(&page), page.lost), (vec![(11, "e11")], 10));
        let page = log.page(None, 1 << 60, 1, NOW).await;
        assert_eq!((page.events.len(), page.next), (0, EVENTS_MAX as u64 + 10));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_by_the_next_event_and_by_the_end() {
        let log = std::sync::Arc::new(EventLog::new("c"));
        let long = Duration::from_secs(3_600);
        let began = tokio::time::Instant::now();
        let (waiting, ()) = tokio::join!(log.page(None, 0, 9, long), async {
            tokio::task::yield_now().await;
            log.push(event("now"));
        });
        assert_eq!(texts(&waiting), [(1, "now")]);
        let (waiting, ()) = tokio::join!(log.page(None, 1, 9, long), async { log.close() });
        assert!(waiting.events.is_empty());
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(log.page(None, 1, 9, long).await.events.is_empty(), "at once from then on");
    }

    #[tokio::test]
    async fn what_is_too_long_is_cut() {
        let log = EventLog::new("d");
        let mut long = event(&"ä".repeat(EVENT_BYTES_MAX));
        long.fields.insert("a".to_owned(), "x".repeat(1_000).into());
        long.fields.insert("b".to_owned(), "x".repeat(1_000).into());
        log.push(long);
        let page = log.page(None, 0, 9, NOW).await;
        let (_, event) = &page.events[0];
        assert!(event.text.len() <= EVENT_BYTES_MAX + '…'.len_utf8() && event.text.ends_with('…'));
        assert_eq!(event.fields.keys().collect::<Vec<_>>(), ["a"]);
    }
}
