//! Configuration files of a run: those that must be taken, and those that must be refused.
//!
//! Pure. What may change without a migration stands at the end of the file, so that a file cut in
//! the middle of being written may make sense: it must not be taken all the same. Which nodes there
//! are in a deployment never changes, nor does read repair: without it reads are not monotonic.

use std::time::Duration;

use crate::{chance::Chance, layout, operator::Stand, scenario::Scenario};

/// What a file says beyond who there is.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    snapshot_interval: Duration,
    tombstone_grace: Duration,
    snapshot_mib: u64,
    journal_memory_mib: u64,
    records_mib: u64,
    blocks_mib: u64,
    request_deadline: Duration,
}

/// Why a file must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// There is nothing in it.
    Empty,
    /// No text.
    Bytes,
    /// It ends in the middle of the nodes.
    Cut,
    /// A key that nobody knows.
    UnknownKey,
    /// The master is none of the coordinators.
    NoMaster,
    /// Partitions are for ever.
    Partitions,
    /// A migration: a node more.
    NodeMore,
    /// A migration: other quorums.
    Quorum,
    /// A migration to what is not defined.
    Target,
}

const BAD: &[Bad] = &[
    Bad::Empty,
    Bad::Bytes,
    Bad::Cut,
    Bad::UnknownKey,
    Bad::NoMaster,
    Bad::Partitions,
    Bad::NodeMore,
    Bad::Quorum,
    Bad::Target,
];

impl Bad {
    /// One of them.
    pub fn draw(chance: &mut Chance) -> Self {
        *chance.pick(BAD)
    }

    /// A file that is bad in this way.
    #[must_use]
    pub fn file(self, scenario: &Scenario, settings: &Settings, stand: &Stand) -> Vec<u8> {
        let good = settings.file(scenario, stand);
        let partitions = scenario.partitions;
        let nodes = "    buckets:\n      b1:\n";
        match self {
            Self::Empty => String::new(),
            Self::Bytes => return b"active_deployment: \xff\xfe\n".to_vec(),
            Self::Cut => good.split("        n1").next().unwrap_or_default().to_owned(),
            Self::UnknownKey => format!("{good}snapshots: yes\n"),
            Self::NoMaster => good.replace("master_coordinator: c1", "master_coordinator: c9"),
            Self::Partitions => good.replace(
                &format!("partitions: {partitions}\n"),
                &format!("partitions: {}\n", 2 * partitions),
            ),
            Self::NodeMore => good.replace(nodes, &format!("{nodes}        n9: [n9, 4700]\n")),
            Self::Quorum => good.replace("    hash:", "    consistency: all\n    hash:"),
            Self::Target => {
                let stand = Stand { target: Some("e".to_owned()), ..stand.clone() };
                settings.file(scenario, &stand)
            }
        }
        .into_bytes()
    }
}

impl Settings {
    /// Those that a scenario begins with.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        Self {
            snapshot_interval: scenario.snapshot_interval,
            tombstone_grace: scenario.tombstone_grace,
            snapshot_mib: 1,
            journal_memory_mib: 1,
            records_mib: 1,
            blocks_mib: 1,
            request_deadline: Duration::from_secs(10),
        }
    }

    /// Others. A grace beyond the run stays: some loads rely on no tombstone being collected.
    pub fn draw(scenario: &Scenario, chance: &mut Chance) -> Self {
        let drawn = Duration::from_secs(5 + chance.below(60) as u64);
        let is_kept = Duration::from_secs(3_600) < scenario.tombstone_grace;
        let interval = *chance.pick(&[500, 1_000, 2_000, 5_000]);
        Self {
            snapshot_interval: Duration::from_millis(interval),
            tombstone_grace: if is_kept { scenario.tombstone_grace } else { drawn },
            snapshot_mib: *chance.pick(&[1, 2, 8]),
            journal_memory_mib: *chance.pick(&[1, 2, 8]),
            records_mib: *chance.pick(&[1, 2, 4]),
            blocks_mib: *chance.pick(&[1, 2, 4]),
            // A number of its own, so that most files differ.
            request_deadline: Duration::from_millis(10_000 + chance.below(20_000) as u64),
        }
    }

    /// The configuration file that gives the order `stand`.
    #[must_use]
    pub fn file(&self, scenario: &Scenario, stand: &Stand) -> String {
        let coordinators: Vec<String> =
            (1..=scenario.coordinators).map(|n| format!("c{n}: [c{n}, 4600]")).collect();
        let mut text = format!(
            "partitions: {}\nvalue_bytes_max: 64KiB\nmaster_coordinator: c1\ncoordinators: {{{}}}\n\
             active_deployment: {}\n",
            scenario.partitions,
            coordinators.join(", "),
            stand.active,
        );
        if let Some(target) = &stand.target {
            text.push_str(&format!("target_deployment: {target}\n"));
        }
        text.push_str("deployments:\n");
        let healing = scenario.healing.map_or(String::new(), |interval| {
            format!("    background_healing_interval: {}ms\n", interval.as_millis())
        });
        for deployed in layout::deployments(scenario) {
            text.push_str(&format!(
                "  {}:\n{healing}    hash: {{buckets_per_key: {}}}\n    buckets:\n",
                deployed.name, deployed.buckets_per_key
            ));
            for (bucket, nodes) in deployed.buckets.iter().enumerate() {
                text.push_str(&format!("      b{}:\n", bucket + 1));
                for node in nodes {
                    text.push_str(&format!("        n{node}: [n{node}, 4700]\n"));
                }
            }
        }
        text.push_str(&format!(
            "snapshot: {{interval: {}ms, bytes: {}MiB}}\ntombstone_grace: {}s\n\
             journal: {{memory: {}MiB, disk: 64MiB}}\n\
             cache: {{records: {}MiB, memory: {}MiB, disk: 0}}\nrequest_deadline: {}ms\n",
            self.snapshot_interval.as_millis(),
            self.snapshot_mib,
            self.tombstone_grace.as_secs(),
            self.journal_memory_mib,
            self.records_mib,
            self.blocks_mib,
            self.request_deadline.as_millis(),
        ));
        if scenario.backups {
            text.push_str("backups: [{every: 1m, keep: 2}]\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use tako_types::config::{Config, check_change, check_startable};

    use super::*;
    use crate::scenario::scenarios;

    #[test]
    fn settings_follow_each_other_and_what_is_bad_follows_nothing() {
        let mut chance = Chance::new(1);
        for scenario in scenarios() {
            let mut before = Settings::of(&scenario);
            let first = Stand::first(&scenario);
            for _ in 0..50 {
                let next = Settings::draw(&scenario, &mut chance);
                let parse = |settings: &Settings| Config::parse(&settings.file(&scenario, &first));
                let (old, new) = (parse(&before).expect("valid"), parse(&next).expect("valid"));
                check_change(&old, &new).expect("no migration");
                assert_ne!(old.sha256(), new.sha256());
                before = next;
            }
            for bad in BAD {
                let bytes = bad.file(&scenario, &before, &first);
                let old = Config::parse(&before.file(&scenario, &first)).expect("valid");
                let new = String::from_utf8(bytes).ok().and_then(|text| Config::parse(&text).ok());
                let follows = new.is_some_and(|new| {
                    check_startable(&new).is_ok() && check_change(&old, &new).is_ok()
                });
                assert!(!follows, "{bad:?} of {}", scenario.name);
            }
        }
    }
}
