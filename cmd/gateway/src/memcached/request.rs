//! What the protocols have in common: operations, what they come to, and how a request is cut from bytes.

use bytes::{Bytes, BytesMut};
use tako_flatbuf::{Condition, Edit, Misfit, Record, RecordHead};
use tako_node_core::replication::{Change, Write};
use tako_types::{Key, Kind, NAMESPACE_VALUES, StoredKey, Version};

use super::{binary, text};

/// memcached's own limit; longer keys are for HTTP.
pub(super) const KEY_BYTES_MAX: usize = 250;
/// Seconds up to here are counted from now, more from 1970.
const RELATIVE_SECONDS_MAX: i64 = 60 * 60 * 24 * 30;

/// One thing to do with one key.
#[derive(Debug)]
pub(super) enum Operation {
    Get(StoredKey),
    Put(Box<Write>),
    Change(Box<Change>),
}

impl Operation {
    pub(super) fn key(&self) -> StoredKey {
        match self {
            Self::Get(key) => key.clone(),
            Self::Put(write) => write.key.clone(),
            Self::Change(change) => change.key(),
        }
    }

    pub(super) fn is_read(&self) -> bool {
        matches!(self, Self::Get(_))
    }
}

/// What an operation came to.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Found(Record),
    /// There is no value: known, not guessed.
    Missing,
    /// Written; the record where a number or an expiry was changed.
    Written {
        version: Version,
        record: Option<Record>,
    },
    /// Nothing was written, for what there is has this version, or there is nothing.
    Differs(Option<Version>),
    Cannot(Misfit),
    /// Cannot be done now, or cannot be told: why.
    Failed(String),
    /// Is not done here: why.
    Refused(&'static str),
    /// Is not done for this client: why.
    Denied(String),
}

/// A request, with what its answer needs.
pub(super) struct Request {
    pub(super) operations: Vec<Operation>,
    pub(super) reply: Reply,
}

/// How a request is answered.
pub(super) enum Reply {
    Text(text::Reply),
    Binary(binary::Reply),
}

impl Reply {
    /// Writes the answer; `outcomes` are those of the operations, in order.
    pub(super) fn write(&self, outcomes: &[Outcome], now_micros: u64, out: &mut BytesMut) {
        match self {
            Self::Text(reply) => reply.write(outcomes, now_micros, out),
            Self::Binary(reply) => reply.write(outcomes, out),
        }
    }
}

/// What stands at the beginning of what was received.
pub(super) enum Next {
    /// A part of a request, which wants so many bytes in all.
    Part(usize),
    Request(Request),
    /// Nothing to do but to answer; the bytes were taken.
    Say(Bytes),
    /// As before; so many bytes of a value that is not taken come next.
    SayAndSkip(Bytes, usize),
    /// Everything is to be deleted.
    Flush(Reply),
    /// The counters of this name.
    Stats {
        group: Bytes,
        reply: Reply,
    },
    /// The client asks how it can log in (without a message), or does.
    LogIn {
        mechanism: Bytes,
        message: Option<Bytes>,
        reply: binary::Reply,
    },
    /// The client leaves, or what it sends cannot be read on: this is said, if anything, then it ends.
    End(Bytes),
}

/// How a write by a client is described, for both protocols.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    pub(super) flags: u32,
    pub(super) expires_at_micros: u64,
}

/// A plain write, or a change where a condition or an edit asks for one.
pub(super) fn store(
    key: StoredKey,
    fields: Fields,
    value: Bytes,
    edit: Edit,
    condition: Option<Condition>,
) -> Operation {
    let Fields { flags, expires_at_micros } = fields;
    let Some(condition) = condition else {
        let (kind, content_type, timestamp_micros, w) = (Kind::Value, None, None, None);
        return Operation::Put(Box::new(Write {
            key,
            kind,
            value,
            content_type,
            flags,
            expires_at_micros,
            timestamp_micros,
            w,
        }));
    };
    let head = RecordHead { version: Version::ZERO, kind: Kind::Value, expires_at_micros, flags };
    let template = Record::encode(&key, head, None, &value);
    Operation::Change(Box::new(Change::new(condition, template).edited(edit)))
}

/// A delete that tells whether there was a value.
pub(super) fn delete(key: &StoredKey, token: Option<u64>) -> Operation {
    let (version, kind) = (Version::ZERO, Kind::Tombstone);
    let head = RecordHead { version, kind, expires_at_micros: 0, flags: 0 };
    let template = Record::encode(key, head, None, &[]);
    Operation::Change(Box::new(Change::new(present_or(token), template)))
}

/// The condition "there is a value", or that it is the one with this token.
pub(super) fn present_or(token: Option<u64>) -> Condition {
    token.map_or(Condition::Present, Condition::Token)
}

/// The condition that always holds.
pub(super) fn anyway() -> Condition {
    Condition::NoneOf(Vec::new())
}

/// A key as the cluster knows it; the bytes are not kept.
pub(super) fn stored(key: &[u8]) -> Option<StoredKey> {
    if key.len() > KEY_BYTES_MAX {
        return None;
    }
    Key::new(NAMESPACE_VALUES, Bytes::copy_from_slice(key)).ok().map(|key| key.stored())
}

/// When a value with this `exptime` is gone: 0 = never, below 0 = at once.
pub(super) fn expires_at(seconds: i64, now_micros: u64) -> u64 {
    let micros = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000);
    match seconds {
        0 => 0,
        ..0 => now_micros.max(1),
        1..=RELATIVE_SECONDS_MAX => now_micros.saturating_add(micros(seconds)),
        _ => micros(seconds),
    }
}
