//! `GET /metrics`: how this coordinator is, in Prometheus' text format. The names stand in docs/metrics.md.

use std::fmt::Write as _;

use tako_types::config::Published;

use crate::http::{Shared, Source};

/// The text while `document` is in force.
pub(crate) fn text(shared: &Shared, document: &Published) -> String {
    let mut out = String::with_capacity(1 << 10);
    let is_master = document.config.master() == Some(&*shared.id);
    let waits = shared.waits_since(document);
    let mut family = |name: &str, help: &str, samples: &[(String, f64)]| {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for (labels, value) in samples {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let one = |value: f64| [(String::new(), value)];
    let flag = |is: bool| one(if is { 1.0 } else { 0.0 });
    family(
        "tako_epoch",
        "Number of the configuration in force.",
        &one(document.epoch.number as f64),
    );
    family("tako_migration", "1 while a migration is on.", &flag(document.migration.is_some()));
    family("tako_coordinator_master", "1 at the coordinator that gives orders.", &flag(is_master));
    family(
        "tako_migration_phase_seconds",
        "Since when the phase of a migration is being carried out here; 0 without.",
        &one(waits.map_or(0.0, |since| since.as_secs_f64())),
    );
    let troubles: Vec<(String, f64)> = Source::ALL
        .iter()
        .map(|source| {
            let is_there = if shared.has_trouble(*source) { 1.0 } else { 0.0 };
            (format!("{{source=\"{}\"}}", source.as_str()), is_there)
        })
        .collect();
    let help = "1 while something is wrong there; GET /status says what.";
    family("tako_coordinator_trouble", help, &troubles);
    out
}
