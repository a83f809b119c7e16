//! One operation of a client: what it asked, what it was told, and when.
//!
//! These are the checkers' own plain types, not Tako's. Values are numbers; a test gives every
//! write a value of its own (an id, or a hash of the bytes), else a read cannot be told apart.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A record's version as clients see it. Shape: microseconds first, then origin.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Version {
    /// Microseconds.
    pub micros: u64,
    /// Who issued it.
    pub origin: u64,
}

impl Version {
    /// Below every version that is ever issued.
    pub const ZERO: Self = Self { micros: 0, origin: 0 };
    /// Above every version that is ever issued.
    pub const MAX: Self = Self { micros: u64::MAX, origin: u64::MAX };

    /// A version.
    #[must_use]
    pub const fn new(micros: u64, origin: u64) -> Self {
        Self { micros, origin }
    }

    /// The least version above this one.
    pub(crate) fn next(self) -> Self {
        match self.origin.checked_add(1) {
            Some(origin) => Self { origin, ..self },
            None => Self { micros: self.micros.saturating_add(1), origin: 0 },
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}", self.micros, self.origin)
    }
}

/// What a client asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// A plain write.
    Put {
        /// What was written; of this write alone.
        value: u64,
        /// Replicas that must have it before the answer.
        w: u32,
        /// When the value is gone, in microseconds on the history's time line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<u64>,
        /// The latest time when it may be gone, where it is not known exactly: who serves the
        /// write may count a time to live from when the request came. None: `expires_at`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_by: Option<u64>,
        /// The client's own timestamp; None: the serving node gives the version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timestamp: Option<u64>,
    },
    /// A plain delete.
    Delete {
        /// As in `Put`.
        w: u32,
        /// As in `Put`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timestamp: Option<u64>,
    },
    /// A read.
    Get {
        /// Replicas that must answer.
        r: u32,
    },
    /// A conditional write: `new` iff the key holds `expected`. None: no value.
    Cas {
        /// What must be there; None: nothing.
        expected: Option<u64>,
        /// What is there afterwards; None: nothing.
        new: Option<u64>,
        /// As in `Put`.
        w: u32,
        /// As in `Put`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<u64>,
    },
}

/// What a conditional write that did not apply was told about the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// No value.
    Absent,
    /// This value.
    Value(u64),
    /// Only that it was not the expected one.
    Untold,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Put, Delete: done, at this version.
    Acked {
        /// Of the write.
        version: Version,
    },
    /// Put, Delete with a timestamp: decided, but this newer version holds.
    Superseded {
        /// The one that won.
        version: Version,
    },
    /// Put, Delete, Cas: may have happened, or may happen once at any later time.
    Unknown,
    /// Put, Delete, Cas: certainly not done, now or later.
    Refused,
    /// Get: a value.
    Found {
        /// The value.
        value: u64,
        /// Its version.
        version: Version,
    },
    /// Get: no value.
    Absent {
        /// Of the tombstone or expired record, where the answer names it.
        version: Option<Version>,
    },
    /// Get: no answer.
    Unavailable,
    /// Cas: done, at this version.
    Applied {
        /// Of the write.
        version: Version,
    },
    /// Cas: not done, for something else was there.
    Mismatch {
        /// What was there.
        seen: Seen,
    },
}

/// One operation of one client on one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// Where; bytes that are no text are the caller's to escape.
    pub key: String,
    /// Replicas of the key (N) at the time.
    pub n: u32,
    /// Before the request left, in microseconds.
    pub invoked_at: u64,
    /// After the answer came, in microseconds; None: it never came.
    pub returned_at: Option<u64>,
    /// What was asked.
    pub op: Op,
    /// What was told.
    pub outcome: Outcome,
}

impl Operation {
    /// Why this operation cannot be: an outcome of another kind of operation, times in disorder,
    /// impossible levels. None: it can.
    #[must_use]
    pub fn malformed(&self) -> Option<&'static str> {
        let fits = match self.op {
            Op::Put { .. } | Op::Delete { .. } => matches!(
                self.outcome,
                Outcome::Acked { .. }
                    | Outcome::Superseded { .. }
                    | Outcome::Unknown
                    | Outcome::Refused
            ),
            Op::Get { .. } => matches!(
                self.outcome,
                Outcome::Found { .. } | Outcome::Absent { .. } | Outcome::Unavailable
            ),
            Op::Cas { .. } => matches!(
                self.outcome,
                Outcome::Applied { .. }
                    | Outcome::Mismatch { .. }
                    | Outcome::Unknown
                    | Outcome::Refused
            ),
        };
        let level = match self.op {
            Op::Put { w, .. } | Op::Delete { w, .. } | Op::Cas { w, .. } => w,
            Op::Get { r } => r,
        };
        if !fits {
            return Some("this operation cannot have this outcome");
        }
        if level == 0 || level > self.n {
            return Some("its level is not within 1..=n");
        }
        match self.returned_at {
            Some(at) if at < self.invoked_at => Some("it returned before it was invoked"),
            None if !matches!(self.outcome, Outcome::Unknown | Outcome::Unavailable) => {
                Some("it has an answer but never returned")
            }
            _ => None,
        }
    }
}

/// A value, or that there is none.
pub(crate) fn held(value: Option<u64>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| format!("value {value}"))
}

/// "no value", with the version where it is known.
pub(crate) fn absent(version: Option<Version>) -> String {
    version.map_or_else(|| "no value".to_owned(), |version| format!("no value at {version}"))
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expires_at, timestamp) = match *self {
            Self::Put { value, w, expires_at, timestamp, .. } => {
                write!(f, "put value {value} w={w}")?;
                (expires_at, timestamp)
            }
            Self::Delete { w, timestamp } => {
                write!(f, "delete w={w}")?;
                (None, timestamp)
            }
            Self::Get { r } => {
                write!(f, "get r={r}")?;
                (None, None)
            }
            Self::Cas { expected, new, w, expires_at } => {
                write!(f, "cas {} to {} w={w}", held(expected), held(new))?;
                (expires_at, None)
            }
        };
        if let Some(at) = expires_at {
            write!(f, " expires at {at}")?;
        }
        if let Some(micros) = timestamp {
            write!(f, " timestamp {micros}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Acked { version } => write!(f, "acknowledged at {version}"),
            Self::Superseded { version } => write!(f, "superseded by {version}"),
            Self::Unknown => f.write_str("outcome unknown"),
            Self::Refused => f.write_str("refused"),
            Self::Found { value, version } => write!(f, "value {value} at {version}"),
            Self::Absent { version } => f.write_str(&absent(version)),
            Self::Unavailable => f.write_str("unavailable"),
            Self::Applied { version } => write!(f, "applied at {version}"),
            Self::Mismatch { seen: Seen::Absent } => f.write_str("mismatch, saw nothing"),
            Self::Mismatch { seen: Seen::Value(value) } => write!(f, "mismatch, saw value {value}"),
            Self::Mismatch { seen: Seen::Untold } => f.write_str("mismatch"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}..", self.invoked_at)?;
        if let Some(at) = self.returned_at {
            write!(f, "{at}")?;
        }
        write!(f, "] client {}: {} (n={}): {}", self.client, self.op, self.n, self.outcome)
    }
}
