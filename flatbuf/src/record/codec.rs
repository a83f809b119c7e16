//! Encoding and decoding of records.
//!
//! Invariant: a [`Record`] is structurally sound and within the limits; one from
//! [`Record::decode`] or [`Record::encode`] also has the right checksum. Its parsed fields are read
//! once; key and value are slices of the encoded bytes, so a clone copies nothing.

use std::ops::Range;

use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, VerifierOptions, WIPOffset};
use tako_types::{
    Kind, RecordStat, StoredKey, Version,
    limits::{
        CONTENT_TYPE_BYTES_MAX, RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES_MAX, VALUE_BYTES_MAX_LIMIT,
    },
};

use super::checksum::{checksum, content_hash};
use crate::{
    error::RecordError,
    generated::record::{RecordTable, RecordTableArgs, root_as_record_table_with_opts},
};

/// A record holds one table; what claims more is not a record.
const VERIFIER: VerifierOptions = VerifierOptions {
    max_depth: 4,
    max_tables: 4,
    max_apparent_size: RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES_MAX,
    ignore_missing_null_terminator: false,
};

/// Room for the fixed fields, the vtable, lengths and padding; what an encoded record really needs
/// beyond its variable fields, so that the builder never grows (which would copy the value again).
const ENCODE_SLACK_BYTES: usize = 160;

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHead {
    /// Which write this is.
    pub version: Version,
    /// Value or tombstone.
    pub kind: Kind,
    /// Microseconds since the Unix epoch; 0 = never.
    pub expires_at_micros: u64,
    /// The client's own (memcached).
    pub flags: u32,
}

/// One key's record: encoded bytes and what was read of them; cheap to clone.
///
/// A record that was cut out of a larger buffer keeps that buffer in memory; see
/// [`Record::detached`].
#[derive(Clone)]
pub struct Record {
    /// The encoded record, exactly.
    bytes: Bytes,
    head: RecordHead,
    key: StoredKey,
    /// Within `bytes`; always UTF-8.
    content_type: Option<Range<usize>>,
    /// Within `bytes`.
    value: Range<usize>,
    crc: u32,
}

impl Record {
    /// Makes a record; the value is copied once.
    ///
    /// Guarantee: equal arguments give equal bytes.
    ///
    /// # Panics
    /// When `value` or `content_type` is longer than its limit; callers check client input first.
    #[must_use]
    pub fn encode(
        key: &StoredKey,
        head: RecordHead,
        content_type: Option<&str>,
        value: &[u8],
    ) -> Self {
        assert!(value.len() <= VALUE_BYTES_MAX_LIMIT, "callers check the length of values");
        let content_type_bytes = content_type.map_or(0, str::len);
        assert!(content_type_bytes <= CONTENT_TYPE_BYTES_MAX, "callers check content types");
        let key_bytes = key.as_bytes();
        let crc = checksum(&head, key_bytes, content_type, value);
        let capacity = ENCODE_SLACK_BYTES + key_bytes.len() + content_type_bytes + value.len();
        let mut builder = FlatBufferBuilder::with_capacity(capacity);
        // `create_vector` copies byte by byte; a byte string is laid out alike and copied whole.
        let value_at = builder.create_byte_string(value);
        let key_at = builder.create_byte_string(key_bytes);
        let args = RecordTableArgs {
            micros: head.version.micros,
            origin: head.version.origin,
            kind: head.kind as u8,
            expires_at_micros: head.expires_at_micros,
            flags: head.flags,
            key: Some(WIPOffset::new(key_at.value())),
            content_type: content_type.map(|text| builder.create_string(text)),
            value: Some(WIPOffset::new(value_at.value())),
            crc,
        };
        let root = RecordTable::create(&mut builder, &args);
        builder.finish(root, None);
        let (buffer, start) = builder.collapse();
        debug_assert!(buffer.len() == capacity, "the builder had to grow");
        let bytes = Bytes::from(buffer).slice(start..);
        let table = verify(&bytes).expect("what the builder made passes the verifier");
        let value = range_of(&bytes, table.value().bytes());
        let content_type = table.content_type().map(|text| range_of(&bytes, text.as_bytes()));
        Self { head, key: key.clone(), content_type, value, crc, bytes }
    }

    /// Reads a record that came from outside: wire, disk or store.
    ///
    /// # Errors
    /// [`RecordError`] unless the bytes are an intact record.
    pub fn decode(bytes: Bytes) -> Result<Self, RecordError> {
        let record = Self::decode_trusted(bytes)?;
        let expected = record.checksum_of_fields();
        if expected == record.crc {
            Ok(record)
        } else {
            Err(RecordError::Checksum { expected, found: record.crc })
        }
    }

    /// Reads a record that never left this process's memory: everything but the checksum is
    /// checked.
    ///
    /// # Errors
    /// [`RecordError`] unless the bytes are a record.
    pub fn decode_trusted(bytes: Bytes) -> Result<Self, RecordError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLong { bytes: bytes.len() });
        }
        let table = verify(&bytes)?;
        let kind =
            Kind::from_wire(table.kind()).ok_or(RecordError::Kind { found: table.kind() })?;
        let content_type = table.content_type().map(|text| range_of(&bytes, text.as_bytes()));
        if let Some(text) = &content_type
            && text.len() > CONTENT_TYPE_BYTES_MAX
        {
            return Err(RecordError::ContentType { bytes: text.len() });
        }
        let value = range_of(&bytes, table.value().bytes());
        if value.len() > VALUE_BYTES_MAX_LIMIT {
            return Err(RecordError::TooLong { bytes: value.len() });
        }
        let key = range_of(&bytes, table.key().bytes());
        let key_bytes = key.len();
        let key =
            StoredKey::from_bytes(bytes.slice(key)).ok_or(RecordError::Key { bytes: key_bytes })?;
        let head = RecordHead {
            version: Version { micros: table.micros(), origin: table.origin() },
            kind,
            expires_at_micros: table.expires_at_micros(),
            flags: table.flags(),
        };
        let crc = table.crc();
        Ok(Self { head, key, content_type, value, crc, bytes })
    }

    /// The encoded record.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The key; shares memory with the record.
    #[must_use]
    pub fn key(&self) -> StoredKey {
        self.key.clone()
    }

    /// The fixed part.
    #[must_use]
    pub fn head(&self) -> &RecordHead {
        &self.head
    }

    /// Which write this is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// Value or tombstone.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.head.kind
    }

    /// The value's bytes (empty for a tombstone); shares memory with the record.
    #[must_use]
    pub fn value(&self) -> Bytes {
        self.bytes.slice(self.value.clone())
    }

    /// What the client said the value is.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        let bytes = self.bytes.get(self.content_type.clone()?)?;
        std::str::from_utf8(bytes).ok()
    }

    /// All but the value, and its length.
    #[must_use]
    pub fn stat(&self) -> RecordStat {
        let RecordHead { version, kind, expires_at_micros, flags: _ } = self.head;
        let is_tombstone = kind == Kind::Tombstone;
        RecordStat {
            version,
            is_tombstone,
            expires_at_micros,
            value_bytes: self.value.len() as u64,
        }
    }

    /// The stored checksum.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// True for a value that has not expired at `now_micros` (microseconds since the Unix epoch).
    #[must_use]
    pub fn is_live_at(&self, now_micros: u64) -> bool {
        let expires = self.head.expires_at_micros;
        self.head.kind == Kind::Value && (expires == 0 || expires > now_micros)
    }

    /// The same record in memory of its own: for those who keep one record of a large frame.
    #[must_use]
    pub fn detached(&self) -> Self {
        let bytes = Bytes::copy_from_slice(&self.bytes);
        // Both were verified already; the copy has the same bytes.
        Self::decode_trusted(bytes).unwrap_or_else(|_| self.clone())
    }

    /// The origin for a version whose time the client supplied.
    ///
    /// Guarantee: depends on the content alone (`head.version` is left out), so the same write
    /// repeated through another node is the same version with the same checksum.
    #[must_use]
    pub fn client_origin(head: &RecordHead, content_type: Option<&str>, value: &[u8]) -> u64 {
        content_hash(head, content_type, value)
    }

    fn checksum_of_fields(&self) -> u32 {
        let value = self.bytes.get(self.value.clone()).unwrap_or_default();
        checksum(&self.head, self.key.as_bytes(), self.content_type(), value)
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Record {}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("key", self.key.key().bytes())
            .field("version", &format_args!("{}", self.head.version))
            .field("kind", &self.head.kind)
            .field("value_bytes", &self.value.len())
            .field("crc", &format_args!("{:08x}", self.crc))
            .finish_non_exhaustive()
    }
}

fn verify(bytes: &[u8]) -> Result<RecordTable<'_>, RecordError> {
    root_as_record_table_with_opts(&VERIFIER, bytes)
        .map_err(|error| RecordError::Malformed { reason: error.to_string() })
}

/// Where `part`, a slice of `whole`, lies in it.
fn range_of(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}
