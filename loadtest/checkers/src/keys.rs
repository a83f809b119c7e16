//! One view per key: its writes and reads, and which answers they explain.
//!
//! Rules of explanation, all on the generous side. A write of unknown outcome may carry any
//! version (any with its timestamp, where the client gave one). An acknowledged write may be seen
//! at a lower version than its own, for a serving node that was overtaken stamps it again; not at
//! a higher one. A superseded write may be seen below the version that won. An expired value
//! answers as absent, at its version.

use std::collections::{BTreeMap, HashMap};

use crate::{Answer, History, Kind, Op, Outcome, Version, operation::absent};

/// How a write ended, where it was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Acked(Version),
    Superseded(Version),
    Unknown,
}

/// A write that happened or may have.
#[derive(Debug, Clone)]
pub(crate) struct WriteView {
    /// Into the history.
    pub(crate) index: usize,
    pub(crate) invoked_at: u64,
    pub(crate) returned_at: Option<u64>,
    /// None: a delete.
    pub(crate) content: Option<u64>,
    /// From when it may be gone, and when it is.
    pub(crate) expires: Option<(u64, u64)>,
    pub(crate) timestamp: Option<u64>,
    pub(crate) w: u32,
    pub(crate) n: u32,
    pub(crate) fate: Fate,
}

impl WriteView {
    /// May a record of this write have `version`?
    fn may_carry(&self, version: Version) -> bool {
        let stamped = self.timestamp.is_none_or(|micros| micros == version.micros);
        match self.fate {
            Fate::Acked(own) if self.timestamp.is_some() => version == own,
            Fate::Acked(own) => version <= own,
            Fate::Superseded(winner) => stamped && version <= winner,
            Fate::Unknown => stamped,
        }
    }

    /// The highest version that a record of this write may have.
    fn highest(&self) -> Version {
        match (self.fate, self.timestamp) {
            (Fate::Acked(own), _) => own,
            (_, Some(micros)) => Version::new(micros, u64::MAX),
            (Fate::Superseded(winner), None) => winner,
            (Fate::Unknown, None) => Version::MAX,
        }
    }

    /// What W replicas have, or are above, once this write has returned. None: nothing is sure.
    pub(crate) fn floor(&self) -> Option<Version> {
        match (self.fate, self.timestamp) {
            (Fate::Acked(own), _) => Some(own),
            (Fate::Superseded(_), Some(micros)) => Some(Version::new(micros, 0)),
            _ => None,
        }
    }
}

/// A read with an answer.
#[derive(Debug, Clone)]
pub(crate) struct ReadView {
    /// Into the history.
    pub(crate) index: usize,
    pub(crate) invoked_at: u64,
    pub(crate) returned_at: u64,
    pub(crate) r: u32,
    pub(crate) n: u32,
    pub(crate) answer: Answer,
}

impl ReadView {
    /// Do any two reads of this level meet in a replica?
    pub(crate) fn is_monotonic(&self) -> bool {
        u64::from(self.r) * 2 > u64::from(self.n)
    }
}

/// An answer that the writes do not explain.
pub(crate) struct Unexplained {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// Into the history.
    pub(crate) involved: Vec<usize>,
}

/// All that concerns one key.
#[derive(Debug, Default)]
pub(crate) struct KeyView {
    /// In order of invocation.
    pub(crate) writes: Vec<WriteView>,
    /// In order of invocation.
    pub(crate) reads: Vec<ReadView>,
    /// Pairs of acknowledged writes with one version and different contents.
    pub(crate) conflicts: Vec<(usize, usize)>,
    /// Value to its writes.
    by_value: HashMap<u64, Vec<usize>>,
    /// Value to the write that was refused.
    refused: HashMap<u64, usize>,
    /// Version to content and the operation that told it.
    contents: HashMap<Version, (Option<u64>, usize)>,
    /// When a delete or expiry may be in force; the highest version of any up to there.
    absences: Vec<(u64, Version)>,
    clock_slack: u64,
}

/// The well-formed operations of a history, by key.
pub(crate) fn by_key(history: &History, clock_slack: u64) -> BTreeMap<&str, KeyView> {
    let mut keys: BTreeMap<&str, KeyView> = BTreeMap::new();
    let mut order: Vec<usize> = (0..history.operations.len()).collect();
    order.sort_by_key(|&index| history.operations[index].invoked_at);
    for index in order {
        let operation = &history.operations[index];
        if operation.malformed().is_none() {
            keys.entry(&operation.key).or_default().take(index, operation);
        }
    }
    for view in keys.values_mut() {
        view.clock_slack = clock_slack;
        view.finish();
    }
    keys
}

impl KeyView {
    fn take(&mut self, index: usize, operation: &crate::Operation) {
        let between = |at: u64, by: Option<u64>| (at, by.map_or(at, |by| by.max(at)));
        let (content, w, expires, timestamp) = match operation.op {
            Op::Put { value, w, expires_at, expires_by, timestamp } => {
                (Some(value), w, expires_at.map(|at| between(at, expires_by)), timestamp)
            }
            Op::Delete { w, timestamp } => (None, w, None, timestamp),
            Op::Cas { new, w, expires_at, .. } => {
                (new, w, expires_at.map(|at| between(at, None)), None)
            }
            Op::Get { r } => {
                let answer = match operation.outcome {
                    Outcome::Found { value, version } => Answer::Found { value, version },
                    Outcome::Absent { version } => Answer::Absent { version },
                    _ => return,
                };
                let (n, invoked_at) = (operation.n, operation.invoked_at);
                if let Some(returned_at) = operation.returned_at {
                    self.reads.push(ReadView { index, invoked_at, returned_at, r, n, answer });
                }
                return;
            }
        };
        let fate = match operation.outcome {
            Outcome::Acked { version } | Outcome::Applied { version } => Fate::Acked(version),
            Outcome::Superseded { version } => Fate::Superseded(version),
            Outcome::Unknown => Fate::Unknown,
            Outcome::Refused => {
                if let Some(value) = content {
                    self.refused.insert(value, index);
                }
                return;
            }
            _ => return,
        };
        self.writes.push(WriteView {
            index,
            invoked_at: operation.invoked_at,
            returned_at: operation.returned_at,
            content,
            expires: expires.filter(|_| content.is_some()),
            timestamp,
            w,
            n: operation.n,
            fate,
        });
    }

    /// Builds the look-ups once all operations are in.
    fn finish(&mut self) {
        for (at, write) in self.writes.iter().enumerate() {
            if let Some(value) = write.content {
                self.by_value.entry(value).or_default().push(at);
            }
            if let Fate::Acked(version) = write.fate {
                let first = *self.contents.entry(version).or_insert((write.content, write.index));
                if first.0 != write.content {
                    self.conflicts.push((first.1, write.index));
                }
            }
            let gone_from = match (write.content, write.expires) {
                (None, _) => write.invoked_at,
                (Some(_), Some((at, _))) => {
                    write.invoked_at.max(at.saturating_sub(self.clock_slack))
                }
                (Some(_), None) => continue,
            };
            self.absences.push((gone_from, write.highest()));
        }
        for read in &self.reads {
            if let Answer::Found { value, version } = read.answer {
                self.contents.entry(version).or_insert((Some(value), read.index));
            }
        }
        self.absences.sort_unstable();
        let mut highest = Version::ZERO;
        for (_, version) in &mut self.absences {
            highest = highest.max(*version);
            *version = highest;
        }
    }

    /// The highest version at which a delete or an expiry may have been in force by `at`.
    fn absence_reaches(&self, at: u64) -> Version {
        let count = self.absences.partition_point(|(from, _)| *from <= at);
        count.checked_sub(1).map_or(Version::ZERO, |last| self.absences[last].1)
    }

    fn writes_of(&self, value: u64) -> impl Iterator<Item = &WriteView> {
        self.by_value.get(&value).into_iter().flatten().map(|&at| &self.writes[at])
    }

    /// May `value` have expired by `at`, on the fastest clock?
    pub(crate) fn may_be_expired(&self, value: u64, at: u64) -> bool {
        let latest = at.saturating_add(self.clock_slack);
        self.writes_of(value).any(|write| write.expires.is_some_and(|(end, _)| end <= latest))
    }

    /// Has `value` expired by `at`, even on the slowest clock? Gives its writes.
    pub(crate) fn is_expired(&self, value: u64, at: u64) -> Option<Vec<usize>> {
        let earliest = at.saturating_sub(self.clock_slack);
        let mut writes = self.writes_of(value).peekable();
        writes.peek()?;
        writes
            .map(|write| {
                write.expires.is_some_and(|(_, end)| end < earliest).then_some(write.index)
            })
            .collect()
    }

    /// What stands at `version`, if an acknowledgement or a read told it: Some(None) is a delete.
    pub(crate) fn content_at(&self, version: Version) -> Option<Option<u64>> {
        self.contents.get(&version).map(|(content, _)| *content)
    }

    /// Is `answer`, given by `at`, older than `floor`? An absence without a version is not, where
    /// a delete or an expiry at `floor` or above may explain it.
    pub(crate) fn is_below(&self, answer: Answer, floor: Version, at: u64) -> bool {
        match answer {
            Answer::Found { version, .. } | Answer::Absent { version: Some(version) } => {
                version < floor
            }
            Answer::Absent { version: None } => {
                floor > Version::ZERO && self.absence_reaches(at) < floor
            }
        }
    }

    /// Which part of `answer`, given by `at`, no write explains.
    pub(crate) fn unexplained(&self, answer: Answer, at: u64) -> Option<Unexplained> {
        match answer {
            Answer::Found { value, version } => self.unexplained_value(value, version, at),
            Answer::Absent { version: Some(version) } => self.unexplained_absence(version, at),
            Answer::Absent { version: None } => None,
        }
    }

    fn unexplained_value(&self, value: u64, version: Version, at: u64) -> Option<Unexplained> {
        let unwritten = |text, involved| Unexplained { kind: Kind::Unwritten, text, involved };
        let writes = || self.writes_of(value).map(|write| write.index).take(4).collect::<Vec<_>>();
        if let Some(&(content, teller)) = self.contents.get(&version)
            && content != Some(value)
        {
            let other = content.map_or("a delete".to_owned(), |other| format!("value {other}"));
            let text = format!("version {version} is value {value} here and {other} there");
            let mut involved = writes();
            involved.push(teller);
            return Some(Unexplained { kind: Kind::SplitVersion, text, involved });
        }
        if !self.by_value.contains_key(&value) {
            return Some(match self.refused.get(&value) {
                Some(&index) => {
                    unwritten(format!("the write of value {value} was refused"), vec![index])
                }
                None => unwritten(format!("nobody wrote value {value}"), vec![]),
            });
        }
        if self.writes_of(value).all(|write| write.invoked_at > at) {
            return Some(unwritten(format!("value {value} was not yet written"), writes()));
        }
        if self.writes_of(value).all(|write| write.invoked_at > at || !write.may_carry(version)) {
            let text = format!("value {value} was never written at version {version}");
            return Some(unwritten(text, writes()));
        }
        None
    }

    fn unexplained_absence(&self, version: Version, at: u64) -> Option<Unexplained> {
        let told = absent(Some(version));
        match self.contents.get(&version) {
            Some(&(Some(value), teller)) if !self.may_be_expired(value, at) => Some(Unexplained {
                kind: Kind::SplitVersion,
                text: format!("{told}, but that is the version of value {value}"),
                involved: vec![teller],
            }),
            Some(_) => None,
            None if self.absence_reaches(at) < version => Some(Unexplained {
                kind: Kind::Unwritten,
                text: format!("{told}, but no delete or expiry can have that version"),
                involved: vec![],
            }),
            None => None,
        }
    }
}

/// The answer in words.
pub(crate) fn told(answer: Answer) -> String {
    match answer {
        Answer::Found { value, version } => format!("value {value} at {version}"),
        Answer::Absent { version } => absent(version),
    }
}
