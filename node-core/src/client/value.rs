//! What a client writes and what it reads.

use std::time::Duration;

use bytes::Bytes;
use tako_flatbuf::Record;
use tako_types::{Version, limits::CONTENT_TYPE_BYTES_MAX};

use super::ClientError;

/// A value that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The bytes.
    pub bytes: Bytes,
    /// Which write it is; for `Condition::OneOf`.
    pub version: Version,
    /// As its writer said.
    pub content_type: Option<String>,
    /// memcached's flags.
    pub flags: u32,
    /// When it is gone, in microseconds since the Unix epoch; 0 = never.
    pub expires_at_micros: u64,
}

impl Value {
    pub(super) fn of(record: &Record) -> Self {
        let head = record.head();
        Self {
            bytes: record.value(),
            version: head.version,
            content_type: record.content_type().map(str::to_owned),
            flags: head.flags,
            expires_at_micros: head.expires_at_micros,
        }
    }
}

/// A value to write: bytes, and what belongs to them. Bytes and text are one by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Put {
    pub(super) value: Bytes,
    pub(super) content_type: Option<String>,
    pub(super) flags: u32,
    ttl: Option<Duration>,
}

impl Put {
    /// A value that stays.
    #[must_use]
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: value.into(), ..Self::default() }
    }

    /// Told to who reads it.
    #[must_use]
    pub fn content_type(self, content_type: impl Into<String>) -> Self {
        Self { content_type: Some(content_type.into()), ..self }
    }

    /// memcached's flags, told to who reads it.
    #[must_use]
    pub fn flags(self, flags: u32) -> Self {
        Self { flags, ..self }
    }

    /// It is gone so long after it was written.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    pub(super) fn expires_at_micros(&self, now_micros: u64) -> u64 {
        let micros = |ttl: Duration| u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX);
        self.ttl.map_or(0, |ttl| now_micros.saturating_add(micros(ttl)))
    }

    pub(super) fn check(&self, value_bytes_max: usize) -> Result<(), ClientError> {
        let bytes = self.value.len();
        if value_bytes_max < bytes {
            let text = format!(
                "the value has {bytes} bytes, the limit is {value_bytes_max} (value_bytes_max in the \
                 configuration)"
            );
            return Err(ClientError::Invalid(text));
        }
        let type_bytes = self.content_type.as_ref().map_or(0, String::len);
        if CONTENT_TYPE_BYTES_MAX < type_bytes {
            let text = format!(
                "the content type has {type_bytes} bytes, the limit is {CONTENT_TYPE_BYTES_MAX}"
            );
            return Err(ClientError::Invalid(text));
        }
        Ok(())
    }
}

impl<T: Into<Bytes>> From<T> for Put {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}
