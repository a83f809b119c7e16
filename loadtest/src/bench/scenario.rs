//! Scenario files: phases of a load, and commands that are run beside it at given times.
//!
//! In: YAML (the README has an example). Out: a [`Scenario`] whose parts fit together, or an error that
//! says where and what to write instead. Nothing here runs anything.

use std::{fmt, path::Path, time::Duration};

use anyhow::{Context as _, bail, ensure};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use super::{
    args::{Distribution, parse_duration, parse_rate, parse_size},
    phase::{Kind, Ramp},
    value,
    workload::Workload,
};

const PHASES_MAX: usize = 100;
const EVENTS_MAX: usize = 100;
const KEYS_DEFAULT: u64 = 10_000;
const VALUE_BYTES_DEFAULT: usize = 1024;

/// What a file asks for.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) about: String,
    pub(crate) keys: u64,
    pub(crate) value_bytes: usize,
    pub(crate) connections: Option<usize>,
    pub(crate) phases: Vec<Part>,
    pub(crate) events: Vec<Event>,
}

/// A phase as the file has it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) duration: Duration,
    pub(crate) rate: Option<Ramp>,
    pub(crate) kind: Kind,
    /// At most those of the scenario.
    pub(crate) keys: u64,
    pub(crate) value_bytes: usize,
}

/// A command beside the load.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// Since the load began.
    pub(crate) at: Duration,
    pub(crate) name: String,
    /// For `sh -c`.
    pub(crate) run: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    #[serde(default)]
    about: String,
    keys: Option<u64>,
    value_size: Option<Text>,
    connections: Option<usize>,
    phases: Vec<RawPhase>,
    #[serde(default)]
    events: Vec<RawEvent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPhase {
    name: String,
    duration: Text,
    rate: Option<RawRate>,
    workload: Option<Text>,
    read_share: Option<f64>,
    distribution: Option<Text>,
    keys: Option<u64>,
    value_size: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvent {
    at: Text,
    name: String,
    run: String,
}

/// A text, or a number as one.
struct Text(String);

enum RawRate {
    Flat(Text),
    Ramp { from: Text, to: Text },
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text such as 10s, 2000/s or 1KiB")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl<'de> Deserialize<'de> for RawRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct FromTo {
            from: Text,
            to: Text,
        }
        impl<'de> Visitor<'de> for Any {
            type Value = RawRate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate such as 2000/s, or {from: 100/s, to: 2000/s}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawRate, E> {
                Ok(RawRate::Flat(Text(text.to_owned())))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<RawRate, E> {
                Ok(RawRate::Flat(Text(number.to_string())))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<RawRate, A::Error> {
                let FromTo { from, to } =
                    FromTo::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(RawRate::Ramp { from, to })
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Scenario {
    /// Reads the file; all its times are made `stretch` times as long.
    pub(crate) fn read(path: &Path, stretch: f64) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the scenario {}", path.display()))?;
        Self::parse(&text, stretch).with_context(|| format!("scenario {}", path.display()))
    }

    /// Reads the text of a file.
    pub(crate) fn parse(text: &str, stretch: f64) -> anyhow::Result<Self> {
        ensure!(
            (0.001..=10_000.0).contains(&stretch),
            "--stretch is a factor between 0.001 and 10000"
        );
        let raw: RawScenario = serde_yaml::from_str(text)?;
        let keys = raw.keys.unwrap_or(KEYS_DEFAULT);
        ensure!((1..=10_000_000).contains(&keys), "keys: {keys}: give 1 to 10000000");
        let value_bytes = size(raw.value_size.as_ref(), VALUE_BYTES_DEFAULT)?;
        if let Some(connections) = raw.connections {
            ensure!(
                (1..=10_000).contains(&connections),
                "connections: {connections}: give 1 to 10000"
            );
        }
        ensure!(!raw.phases.is_empty(), "phases: there is none; give at least one");
        ensure!(raw.phases.len() <= PHASES_MAX, "phases: at most {PHASES_MAX}");
        ensure!(raw.events.len() <= EVENTS_MAX, "events: at most {EVENTS_MAX}");
        let mut phases: Vec<Part> = Vec::new();
        for (at, phase) in raw.phases.into_iter().enumerate() {
            let name = phase.name.clone();
            let part = Part::new(phase, keys, value_bytes, stretch)
                .with_context(|| format!("phase {} (`{name}`)", at + 1))?;
            if let Some(first) = phases.first()
                && first.rate.is_some() != part.rate.is_some()
            {
                bail!(
                    "phase {} (`{name}`): either all phases have a `rate` (an open loop), or none \
                     has (as fast as the connections get answers)",
                    at + 1
                );
            }
            phases.push(part);
        }
        let whole: Duration = phases.iter().map(|phase| phase.duration).sum();
        let mut events = Vec::new();
        for RawEvent { at, name, run } in raw.events {
            let within = || format!("event `{name}`");
            ensure!(!run.trim().is_empty(), "event `{name}`: run: give a command");
            let at = time(&at, "at", stretch).with_context(within)?;
            ensure!(
                at < whole,
                "event `{name}`: at {:.1} s, but the phases end after {:.1} s: make one longer, or \
                 the event earlier",
                at.as_secs_f64(),
                whole.as_secs_f64()
            );
            events.push(Event { at, name, run });
        }
        events.sort_by_key(|event| event.at);
        let (about, connections) = (raw.about, raw.connections);
        Ok(Self { about, keys, value_bytes, connections, phases, events })
    }
}

impl Part {
    fn new(raw: RawPhase, keys: u64, value_bytes: usize, stretch: f64) -> anyhow::Result<Self> {
        let duration = time(&raw.duration, "duration", stretch)?;
        ensure!(!duration.is_zero(), "duration: give a time above 0");
        let rate = match raw.rate {
            None => None,
            Some(RawRate::Flat(text)) => Some(Ramp::flat(rate(&text, "rate")?)),
            Some(RawRate::Ramp { from, to }) => {
                let zero = |text: &Text| matches!(text.0.trim_end_matches("/s"), "0" | "0.0");
                let one = |text: &Text, name: &str| match zero(text) {
                    true => Ok(0.0),
                    false => rate(text, name),
                };
                let ramp = Ramp { from: one(&from, "rate: from")?, to: one(&to, "rate: to")? };
                ensure!(
                    0.0 < ramp.from.max(ramp.to),
                    "rate: from and to are both 0: give one of them above it"
                );
                Some(ramp)
            }
        };
        let kind = match (raw.workload, raw.read_share, raw.distribution) {
            (Some(Text(name)), None, None) => {
                let workload = <Workload as clap::ValueEnum>::from_str(&name, false);
                let wrong = |_| anyhow::anyhow!("workload: `{name}`: there are ycsb-a to ycsb-f");
                Kind::of(workload.map_err(wrong)?)
            }
            (Some(_), _, _) => bail!(
                "workload: it has its own reads and its own distribution: leave out read_share \
                 and distribution, or the workload"
            ),
            (None, share, distribution) => {
                let share = share.unwrap_or(0.9);
                ensure!((0.0..=1.0).contains(&share), "read_share: {share}: give 0.0 to 1.0");
                let distribution = match distribution {
                    None => Distribution::Uniform,
                    Some(Text(text)) => text
                        .parse()
                        .map_err(|what| anyhow::anyhow!("distribution: `{text}`: {what}"))?,
                };
                Kind::plain(share, distribution)
            }
        };
        let own = raw.keys.unwrap_or(keys);
        ensure!(
            (1..=keys).contains(&own),
            "keys: {own}: give 1 to {keys}, which is what the scenario writes beforehand"
        );
        let value_bytes = size(raw.value_size.as_ref(), value_bytes)?;
        Ok(Self { name: raw.name, duration, rate, kind, keys: own, value_bytes })
    }
}

fn time(text: &Text, field: &str, stretch: f64) -> anyhow::Result<Duration> {
    let Text(text) = text;
    let wrong =
        |what: String| anyhow::anyhow!("{field}: `{text}`: {what}; give a time such as 10s");
    let time = parse_duration(text).map_err(wrong)?;
    Ok(time.mul_f64(stretch))
}

fn rate(text: &Text, field: &str) -> anyhow::Result<f64> {
    let Text(text) = text;
    let wrong =
        |what: String| anyhow::anyhow!("{field}: `{text}`: {what}; give one such as 2000/s");
    parse_rate(text).map_err(wrong)
}

fn size(text: Option<&Text>, default: usize) -> anyhow::Result<usize> {
    let Some(Text(text)) = text else { return Ok(default) };
    let wrong =
        |what: String| anyhow::anyhow!("value_size: `{text}`: {what}; give one such as 1KiB");
    let bytes = parse_size(text).map_err(wrong)?;
    ensure!(
        value::HEADER_BYTES <= bytes,
        "value_size: `{text}`: at least {} bytes: the header by which values are verified",
        value::HEADER_BYTES
    );
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "
about: all that there is
keys: 500
value_size: 2KiB
connections: 8
phases:
  - {name: a, duration: 10s, rate: 100/s, read_share: 0.5, distribution: zipf}
  - {name: b, duration: 1m, rate: {from: 0, to: 1k/s}, workload: ycsb-a, keys: 20, value_size: 64}
events:
  - {at: 30s, name: second, run: 'true'}
  - {at: 5, name: first, run: 'true'}
";

    #[test]
    fn a_whole_file_reads_as_written_and_stretches_in_time_alone() {
        let scenario = Scenario::parse(WHOLE, 0.5).expect("good");
        assert_eq!((scenario.keys, scenario.value_bytes), (500, 2048));
        assert_eq!((scenario.about.as_str(), scenario.connections), ("all that there is", Some(8)));
        let [a, b] = &scenario.phases[..] else { panic!("two phases") };
        assert_eq!((a.duration, b.duration), (Duration::from_secs(5), Duration::from_secs(30)));
        assert_eq!((a.rate, b.rate), (Some(Ramp::flat(100.0)), Some(Ramp { from: 0.0, to: 1e3 })));
        assert_eq!((a.keys, a.value_bytes, b.keys, b.value_bytes), (500, 2048, 20, 64));
        assert_eq!((a.kind.mix.reads, b.kind.mix.reads), (0.5, 0.5));
        let events: Vec<_> =
            scenario.events.iter().map(|e| (e.name.as_str(), e.at.as_secs_f64())).collect();
        assert_eq!(events, [("first", 2.5), ("second", 15.0)]);
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_with_what_to_do() {
        let phase = |fields: &str| format!("phases: [{{name: p, duration: 10s{fields}}}]");
        for (text, said) in [
            ("phases: []".to_owned(), "at least one"),
            ("keys: 5".to_owned(), "missing field `phases`"),
            (phase(", rat: 5/s"), "unknown field `rat`"),
            (phase(", rate: 5/m"), "give one such as 2000/s"),
            (phase(", rate: 0"), "a rate is above 0"),
            (phase(", rate: [1, 2]"), "{from: 100/s, to: 2000/s}"),
            (phase(", rate: {from: 5}"), "missing field `to`"),
            (phase(", rate: {from: 0, to: 0/s}"), "both 0"),
            (phase(", read_share: 1.5"), "give 0.0 to 1.0"),
            (phase(", workload: ycsb-g"), "ycsb-a to ycsb-f"),
            (phase(", workload: ycsb-a, read_share: 1"), "leave out read_share"),
            (phase(", distribution: pareto"), "`zipf:EXPONENT`"),
            (phase(", value_size: 5"), "at least 32"),
            (phase(", value_size: big"), "such as 1KiB"),
            (phase(", keys: 10001"), "1 to 10000"),
            ("phases: [{name: p, duration: soon}]".to_owned(), "such as 10s"),
            ("phases: [{name: p, duration: 0s}]".to_owned(), "above 0"),
            (
                "phases: [{name: p, duration: 1s, rate: 1}, {name: q, duration: 1s}]".to_owned(),
                "phase 2 (`q`): either all",
            ),
            (phase("") + "\nkeys: 0", "keys: 0"),
            (phase("") + "\nconnections: 0", "connections: 0"),
            (phase("") + "\nevents: [{at: 10s, name: e, run: x}]", "the event earlier"),
            (phase("") + "\nevents: [{at: 1s, name: e, run: ''}]", "give a command"),
            (phase("") + "\nevents: [{at: x, name: e, run: x}]", "event `e`"),
            (phase("") + "\nevents: [{at: 1s, run: x}]", "missing field `name`"),
        ] {
            let error = format!("{:#}", Scenario::parse(&text, 1.0).expect_err(&text));
            assert!(error.contains(said), "{text}: {error}");
        }
        assert!(Scenario::parse(WHOLE, 0.0).is_err());
    }

    #[test]
    fn the_scenarios_that_come_with_tako_are_right() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).expect("the folder of scenarios") {
            let path = entry.expect("an entry").path();
            let scenario = Scenario::read(&path, 1.0).expect("right");
            assert!(!scenario.about.is_empty(), "{}", path.display());
            names.push(path.file_stem().expect("a name").to_string_lossy().into_owned());
        }
        names.sort();
        let all =
            ["migration", "node-loss", "ramp", "soak", "spike", "steady", "store-outage", "ycsb"];
        assert_eq!(names, all);
    }
}
