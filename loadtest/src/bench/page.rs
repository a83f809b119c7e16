//! The page: one report as HTML, with plots, that needs no other file.
//!
//! In: a [`Report`]. Out: the text of a page without scripts, that follows light and dark and is readable
//! on a phone. Everything that comes from outside (names, commands, kinds of errors, options) is
//! escaped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Display, Write as _},
    time::{Duration, SystemTime},
};

use super::{
    course::{Course, PhaseFigures},
    event::Happened,
    plot::{Band, COLOURS, Line, Mark, Plot, Unit, escape},
    report::{Operations, Report},
    scrape::{Counted, Series},
    timeline::{Answers, Percentiles, Point},
};

const STYLE: &str = include_str!("page.css");

/// Letters of a cell that is not broken.
const SHORT: usize = 12;

/// The whole page.
pub(crate) fn html(report: &Report) -> String {
    let mut page = Page::default();
    let title = match &report.course {
        Some(course) if !course.about.is_empty() => course.about.as_str(),
        _ => "Load on Tako",
    };
    page.add(format_args!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{}</h1>\n",
        escape(title),
        escape(title)
    ));
    page.head(report);
    if let Some(course) = &report.course {
        page.plots(course);
        page.events(course);
        page.phases(course);
    }
    page.figures(report);
    page.found(report);
    page.options(report);
    page.add(format_args!("</main>\n</body>\n</html>\n"));
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a text cannot fail.
        let _ = self.text.write_fmt(text);
    }

    fn head(&mut self, report: &Report) {
        let target = &report.target;
        let began = report.course.as_ref().map(|course| {
            let began = SystemTime::UNIX_EPOCH + Duration::from_millis(course.began_unix_ms);
            format!("{}. ", httpdate::fmt_http_date(began))
        });
        self.add(format_args!(
            "<p>{}{}: {}</p>\n<ul class=\"facts\">\n",
            began.unwrap_or_default(),
            escape(&target.label),
            escape(&report.summary())
        ));
        let (class, verdict) = match report.passed {
            true => ("good", "passed"),
            false => ("bad", "FAILED"),
        };
        self.add(format_args!("<li class=\"{class}\"><b>{verdict}</b>"));
        self.add(format_args!("{}</li>\n", if report.ended_early { "ended early" } else { "" }));
        let errors: u64 = target.errors.values().sum();
        let wrong: u64 = target.verification.violations.values().sum();
        let p99 = target
            .total
            .latency
            .map_or_else(|| "–".to_owned(), |latency| Unit::Micros.show(latency.p99_us));
        for (name, value) in [
            ("answers per second", format!("{:.0}", target.total.rate_per_second)),
            ("answers", target.total.requests.to_string()),
            ("p99", p99),
            ("errors", errors.to_string()),
            ("reads checked", target.verification.reads_checked.to_string()),
            ("wrong answers", wrong.to_string()),
        ] {
            let bad = name == "wrong answers" && 0 < wrong;
            let class = if bad { " class=\"bad\"" } else { "" };
            self.add(format_args!("<li{class}><b>{value}</b>{name}</li>\n"));
        }
        self.add(format_args!("</ul>\n"));
    }

    fn plots(&mut self, course: &Course) {
        // What came after the end would look like a fall to nothing.
        let ends = course.phases.iter().filter_map(|phase| phase.until);
        let end = ends.fold(0.0, f64::max);
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        let within = |point: &&Point| end <= 0.0 || (point.second as f64) < end;
        let points: Vec<Point> = course.points.iter().filter(within).cloned().collect();
        let points = &points[..];
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        let seconds = end.max(points.len() as f64).max(1.0);
        let band = |phase: &PhaseFigures| Band {
            name: phase.name.clone(),
            from: phase.from,
            until: phase.until.unwrap_or(seconds),
        };
        let bands: Vec<Band> = course.phases.iter().map(band).collect();
        let mark = |(at, event): (usize, &Happened)| Mark {
            at: event.began,
            number: at + 1,
            name: format!("{} at {:.1} s", event.name, event.began),
        };
        let marks: Vec<Mark> = course.events.iter().enumerate().map(mark).collect();
        let mut plot = |title: &str, unit, log, lines: Vec<Line>, note: &str| {
            if lines.iter().any(|line| line.values.iter().any(Option::is_some)) {
                let (bands, marks) = (&bands, &marks);
                let plot = Plot { title, unit, log, lines, seconds, bands, marks };
                self.plot(&plot, note);
            }
        };
        plot("Answers per second", Unit::PerSecond, false, rates(course, points), "");
        let due = "By the second in which requests were due.";
        let latency = |of: fn(&Point) -> &Answers| percentiles(points, of);
        plot("Latency of reads", Unit::Micros, true, latency(|point| &point.reads), due);
        plot("Latency of writes", Unit::Micros, true, latency(|point| &point.writes), due);
        plot("Errors per second", Unit::PerSecond, false, errors(points), "");
        let servers = &course.servers;
        plot(
            "Answers of replicas from memory",
            Unit::Share,
            false,
            from_memory(servers),
            "Of the votes of a replica, those that needed no read of a snapshot.",
        );
        plot(
            "Requests to the store per second",
            Unit::PerSecond,
            false,
            store_requests(servers),
            "All servers together.",
        );
        plot(
            "Not yet in the store",
            Unit::Bytes,
            false,
            uncovered(servers),
            "Bytes that no step has covered, at each replica.",
        );
    }

    fn plot(&mut self, plot: &Plot<'_>, note: &str) {
        let title = escape(plot.title);
        self.add(format_args!("<figure>\n<figcaption><h2>{title}</h2>\n<ul class=\"legend\">\n"));
        for (at, line) in plot.lines.iter().enumerate() {
            let (colour, name) = (at % COLOURS, escape(&line.name));
            self.add(format_args!("<li><i class=\"c{colour}\"></i>{name}</li>\n"));
        }
        self.add(format_args!("</ul></figcaption>\n<div class=\"wide\">{}</div>\n", plot.svg()));
        let grouped = match plot.grouped() {
            1 => String::new(),
            seconds if plot.log => format!(" Each point is the worst of {seconds} s."),
            seconds => format!(" Each point is the mean of {seconds} s."),
        };
        if !note.is_empty() || !grouped.is_empty() {
            self.add(format_args!("<p class=\"faint\">{note}{grouped}</p>\n"));
        }
        self.add(format_args!("</figure>\n"));
    }

    fn events(&mut self, course: &Course) {
        if course.events.is_empty() {
            return;
        }
        let row = |(at, event): (usize, &Happened)| {
            let outcome = event.failure.as_deref().unwrap_or("well");
            vec![
                (at + 1).to_string(),
                format!("{:.1} s", event.began),
                event.name.clone(),
                format!("{:.1} s", event.took),
                outcome.to_owned(),
                event.run.trim().to_owned(),
            ]
        };
        let rows: Vec<_> = course.events.iter().enumerate().map(row).collect();
        self.table("Events", &["", "at", "what", "took", "ended", "command"], 6, &rows);
    }

    fn phases(&mut self, course: &Course) {
        let row = |phase: &PhaseFigures| {
            let rate = match phase.rate {
                None => "as fast as answers come".to_owned(),
                Some([from, to]) if from.total_cmp(&to).is_eq() => format!("{from:.0} per s"),
                Some([from, to]) => format!("{from:.0} to {to:.0} per s"),
            };
            let until = phase.until.map_or_else(String::new, |until| format!("{until:.1} s"));
            let from = format!("{:.1} s", phase.from);
            vec![phase.name.clone(), from, until, rate, phase.load.clone()]
        };
        let rows: Vec<_> = course.phases.iter().map(row).collect();
        self.table("Phases", &["phase", "from", "until", "requests", "of what"], 5, &rows);
    }

    fn figures(&mut self, report: &Report) {
        let mut rows = Vec::new();
        let mut add = |name: &str, of: &str, figures: &Operations, failed: [String; 2]| {
            let Some(latency) = figures.latency else { return };
            let mut row = vec![name.to_owned(), of.to_owned(), figures.requests.to_string()];
            row.push(format!("{:.0}", figures.rate_per_second));
            let us = [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us];
            for us in us.into_iter().chain([latency.max_us]) {
                row.push(format!("{:.3}", us / 1e3));
            }
            row.extend(failed);
            rows.push(row);
        };
        let none = || [String::new(), String::new()];
        let phases = report.course.as_ref().map_or(&[][..], |course| &course.phases);
        for phase in phases.iter().filter(|_| 1 < phases.len()) {
            let failed = [phase.errors.to_string(), phase.wrong.to_string()];
            add(&phase.name, "reads", &phase.reads, failed.clone());
            add(&phase.name, "writes", &phase.writes, failed);
        }
        for side in [Some(&report.target), report.peer.as_ref()].into_iter().flatten() {
            let name = if report.peer.is_some() { side.label.as_str() } else { "all" };
            add(name, "reads", &side.reads, none());
            add(name, "writes", &side.writes, none());
        }
        let names = [
            "phase", "", "answers", "per s", "p50 ms", "p90", "p99", "p99.9", "max", "errors",
            "wrong",
        ];
        self.table("Latencies", &names, 2, &rows);
        if 1 < phases.len() {
            self.add(format_args!(
                "<p class=\"faint\">A phase has what was due in it, whenever its answer came. Errors and \
                 wrong answers are those of reads and writes together; errors have no latency.</p>\n"
            ));
        }
    }

    fn found(&mut self, report: &Report) {
        let counts = |kinds: &BTreeMap<String, u64>| -> Vec<Vec<String>> {
            kinds.iter().map(|(kind, count)| vec![kind.clone(), count.to_string()]).collect()
        };
        for side in [Some(&report.target), report.peer.as_ref()].into_iter().flatten() {
            if !side.errors.is_empty() {
                self.table("Errors", &["kind", "count"], 1, &counts(&side.errors));
            }
            let found = &side.verification;
            if !found.violations.is_empty() {
                self.table("Wrong answers", &["kind", "count"], 1, &counts(&found.violations));
                let examples: Vec<_> = found.examples.iter().map(|it| vec![it.clone()]).collect();
                self.table("The first of them", &["answer"], 1, &examples);
            }
        }
    }

    fn options(&mut self, report: &Report) {
        let options = serde_json::to_value(&report.options).unwrap_or_default();
        let mut rows = vec![vec!["tako-loadtest".to_owned(), env!("CARGO_PKG_VERSION").to_owned()]];
        for (name, value) in options.as_object().into_iter().flatten() {
            let shown = match value {
                serde_json::Value::Null => continue,
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            rows.push(vec![name.clone(), shown]);
        }
        self.add(format_args!("<details>\n<summary>Options</summary>\n"));
        self.table("", &["option", "value"], 2, &rows);
        self.add(format_args!("</details>\n"));
    }

    /// The first `texts` columns are words, the others numbers.
    fn table(&mut self, title: &str, names: &[&str], texts: usize, rows: &[Vec<impl Display>]) {
        if !title.is_empty() {
            self.add(format_args!("<h2>{}</h2>\n", escape(title)));
        }
        self.add(format_args!("<div class=\"wide\"><table>\n<thead><tr>"));
        for name in names {
            self.add(format_args!("<th>{}</th>", escape(name)));
        }
        self.add(format_args!("</tr></thead>\n<tbody>\n"));
        for row in rows {
            self.add(format_args!("<tr>"));
            for (at, cell) in row.iter().enumerate() {
                let cell = cell.to_string();
                let class = match at < texts {
                    false => " class=\"number\"",
                    true if cell.chars().count() <= SHORT => " class=\"short\"",
                    true => "",
                };
                self.add(format_args!("<td{class}>{}</td>", escape(&cell)));
            }
            self.add(format_args!("</tr>\n"));
        }
        self.add(format_args!("</tbody>\n</table></div>\n"));
    }
}

fn line(name: &str, values: Vec<Option<f64>>) -> Line {
    Line { name: name.to_owned(), values, dashed: false }
}

/// Answers that came, and requests that were due.
#[expect(clippy::cast_precision_loss, reason = "for show")]
fn rates(course: &Course, points: &[Point]) -> Vec<Line> {
    let of = |name, side: fn(&Point) -> &Answers| {
        let values: Vec<_> = points.iter().map(|it| Some(side(it).answered as f64)).collect();
        line(name, values)
    };
    let mut lines = vec![of("reads", |point| &point.reads), of("writes", |point| &point.writes)];
    lines.retain(|line| line.values.iter().flatten().any(|value| 0.0 < *value));
    if lines.len() == 2 {
        let sum = |point: &Point| Some((point.reads.answered + point.writes.answered) as f64);
        lines.push(line("both", points.iter().map(sum).collect()));
    }
    let asked = |second: usize| {
        let at = second as f64 + 0.5;
        let phase = course
            .phases
            .iter()
            .find(|phase| phase.from <= at && phase.until.is_none_or(|until| at < until))?;
        let ([from, to], until) = (phase.rate?, phase.until.unwrap_or(f64::INFINITY));
        let along = if until.is_finite() { (at - phase.from) / (until - phase.from) } else { 0.0 };
        Some(from + (to - from) * along)
    };
    let asked: Vec<_> = (0..points.len()).map(asked).collect();
    if asked.iter().any(Option::is_some) {
        lines.push(Line { name: "due".to_owned(), values: asked, dashed: true });
    }
    lines
}

#[expect(clippy::cast_precision_loss, reason = "for show")]
fn percentiles(points: &[Point], side: fn(&Point) -> &Answers) -> Vec<Line> {
    let of = |name, figure: fn(&Percentiles) -> u64| {
        let value = |point: &Point| side(point).latency.as_ref().map(|it| figure(it) as f64);
        line(name, points.iter().map(value).collect())
    };
    vec![
        of("p50", |latency| latency.p50_us),
        of("p99", |latency| latency.p99_us),
        of("p99.9", |latency| latency.p999_us),
        of("max", |latency| latency.max_us),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "for show")]
fn errors(points: &[Point]) -> Vec<Line> {
    let kinds: BTreeSet<&String> = points.iter().flat_map(|point| point.errors.keys()).collect();
    let count = |kind: &String| {
        let value = |point: &Point| Some(point.errors.get(kind).copied().unwrap_or(0) as f64);
        line(kind, points.iter().map(value).collect())
    };
    kinds.into_iter().map(count).collect()
}

fn from_memory(servers: &[Series]) -> Vec<Line> {
    let share = |counted: &Counted| {
        let all: f64 = counted.votes.values().sum();
        let snapshot = counted.votes.get("snapshot").copied().unwrap_or(0.0);
        (0.0 < all).then(|| 1.0 - snapshot / all)
    };
    by_server(servers, share)
}

fn uncovered(servers: &[Series]) -> Vec<Line> {
    by_server(servers, |counted| counted.uncovered_bytes)
}

fn by_server(servers: &[Series], value: impl Fn(&Counted) -> Option<f64>) -> Vec<Line> {
    let of = |server: &Series| {
        let values = server.points.iter().map(|point| value(point.as_ref()?)).collect();
        line(&server.name, values)
    };
    servers.iter().map(of).filter(|line| line.values.iter().any(Option::is_some)).collect()
}

fn store_requests(servers: &[Series]) -> Vec<Line> {
    let seconds = servers.iter().map(|server| server.points.len()).max().unwrap_or(0);
    let counted = |second: usize| {
        servers.iter().filter_map(move |server| server.points.get(second)?.as_ref())
    };
    let kinds: BTreeSet<&String> =
        (0..seconds).flat_map(counted).flat_map(|counted| counted.store_requests.keys()).collect();
    let of = |kind: &String| {
        let value = |second| {
            let mut known = counted(second).filter_map(|it| it.store_requests.get(kind)).peekable();
            known.peek().is_some().then(|| known.sum())
        };
        line(kind, (0..seconds).map(value).collect())
    };
    kinds.into_iter().map(of).collect()
}
