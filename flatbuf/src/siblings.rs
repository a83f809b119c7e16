//! What the values of `/store` hold: siblings, each with its dot; and the order that changes them.
//!
//! A key's changes come one after the other, each under a version of its own that is above all before it
//! (`Change`), so the version of the change that wrote a value names it: that is its dot. What a client
//! has seen is then all dots up to one version, and a few above it that are its own.

use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, VerifierOptions};
use tako_types::{
    Version,
    limits::{CLIENT_BYTES_MAX, CONTENT_TYPE_BYTES_MAX, DOTS_MAX, RECORD_BYTES_MAX, SIBLINGS_MAX},
};

use crate::{
    error::WireError,
    generated::siblings::{
        SiblingTable, SiblingTableArgs, SiblingsTable, SiblingsTableArgs, StoreOrderTable,
        StoreOrderTableArgs,
    },
};

const VERIFIER: VerifierOptions = VerifierOptions {
    max_depth: 4,
    max_tables: SIBLINGS_MAX + 4,
    max_apparent_size: 2 * RECORD_BYTES_MAX,
    ignore_missing_null_terminator: false,
};

/// One value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// The version of the change that wrote it.
    pub dot: Version,
    /// Who wrote it, if that was said.
    pub client: Option<String>,
    /// What it is, if that was said.
    pub content_type: Option<String>,
    /// The value.
    pub value: Bytes,
}

/// All values of a key, those that were written first first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Siblings(pub Vec<Sibling>);

/// What a client knows of a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// All dots up to here; [`Version::ZERO`] for none.
    pub base: Version,
    /// And these, at most `DOTS_MAX`.
    pub dots: Vec<Version>,
}

/// How a key of `/store` is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOrder {
    /// What the new value takes the place of; nothing where the client said nothing.
    pub seen: Seen,
    /// Who asks: its own earlier values are known to it.
    pub client: Option<String>,
    /// Nothing comes in the place of what was seen; of everything where nothing was.
    pub is_delete: bool,
    /// Of the value.
    pub content_type: Option<String>,
    /// The value; empty for a delete.
    pub value: Bytes,
}

impl Seen {
    /// Whether the client knows of what was written so.
    #[must_use]
    pub fn covers(&self, dot: Version) -> bool {
        dot <= self.base || self.dots.contains(&dot)
    }

    /// With one more; the oldest of too many is forgotten.
    #[must_use]
    pub fn with(mut self, dot: Version) -> Self {
        self.dots.push(dot);
        self.dots.sort_unstable();
        if DOTS_MAX < self.dots.len() {
            self.dots.remove(0);
        }
        self
    }
}

impl Siblings {
    /// As the value of a record.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let bytes: usize = self.0.iter().map(|one| one.value.len() + 256).sum();
        let mut builder = FlatBufferBuilder::with_capacity(64 + bytes);
        let tables: Vec<_> = self
            .0
            .iter()
            .map(|one| {
                let args = SiblingTableArgs {
                    micros: one.dot.micros,
                    origin: one.dot.origin,
                    client: one.client.as_deref().map(|text| builder.create_string(text)),
                    content_type: one
                        .content_type
                        .as_deref()
                        .map(|text| builder.create_string(text)),
                    value: Some(builder.create_vector::<u8>(&one.value)),
                };
                SiblingTable::create(&mut builder, &args)
            })
            .collect();
        let siblings = Some(builder.create_vector(&tables));
        let root = SiblingsTable::create(&mut builder, &SiblingsTableArgs { siblings });
        builder.finish(root, None);
        let (buffer, start) = builder.collapse();
        Bytes::from(buffer).slice(start..)
    }

    /// The value of a record; the values in it share its memory.
    ///
    /// # Errors
    /// [`WireError`] unless these are siblings.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let table = flatbuffers::root_with_opts::<SiblingsTable<'_>>(&VERIFIER, bytes)
            .map_err(|error| WireError::Malformed { reason: error.to_string() })?;
        let found = table.siblings().len();
        if SIBLINGS_MAX < found {
            let what = "a list of siblings";
            return Err(WireError::TooLong { what, found, limit: SIBLINGS_MAX });
        }
        let siblings = table.siblings().iter().map(|one| {
            Ok(Sibling {
                dot: Version { micros: one.micros(), origin: one.origin() },
                client: short(one.client(), CLIENT_BYTES_MAX, "client")?,
                content_type: short(one.content_type(), CONTENT_TYPE_BYTES_MAX, "content_type")?,
                value: part(bytes, one.value().bytes()),
            })
        });
        siblings.collect::<Result<_, _>>().map(Self)
    }
}

impl StoreOrder {
    /// As the value of a change's record.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut builder = FlatBufferBuilder::with_capacity(1_024 + self.value.len());
        let dots =
            |of: fn(&Version) -> u64| -> Vec<u64> { self.seen.dots.iter().map(of).collect() };
        let args = StoreOrderTableArgs {
            base_micros: self.seen.base.micros,
            base_origin: self.seen.base.origin,
            dots_micros: Some(builder.create_vector(&dots(|dot| dot.micros))),
            dots_origin: Some(builder.create_vector(&dots(|dot| dot.origin))),
            client: self.client.as_deref().map(|text| builder.create_string(text)),
            is_delete: self.is_delete,
            content_type: self.content_type.as_deref().map(|text| builder.create_string(text)),
            value: Some(builder.create_vector::<u8>(&self.value)),
        };
        let root = StoreOrderTable::create(&mut builder, &args);
        builder.finish(root, None);
        let (buffer, start) = builder.collapse();
        Bytes::from(buffer).slice(start..)
    }

    /// The value of a change's record.
    ///
    /// # Errors
    /// [`WireError`] unless this is such an order.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let table = flatbuffers::root_with_opts::<StoreOrderTable<'_>>(&VERIFIER, bytes)
            .map_err(|error| WireError::Malformed { reason: error.to_string() })?;
        let (micros, origins) = (table.dots_micros(), table.dots_origin());
        if micros.len() != origins.len() || DOTS_MAX < micros.len() {
            return Err(WireError::Field { field: "dots" });
        }
        let dots = micros.iter().zip(origins).map(|(micros, origin)| Version { micros, origin });
        Ok(Self {
            seen: Seen {
                base: Version { micros: table.base_micros(), origin: table.base_origin() },
                dots: dots.collect(),
            },
            client: short(table.client(), CLIENT_BYTES_MAX, "client")?,
            is_delete: table.is_delete(),
            content_type: short(table.content_type(), CONTENT_TYPE_BYTES_MAX, "content_type")?,
            value: part(bytes, table.value().bytes()),
        })
    }
}

fn short(
    text: Option<&str>,
    limit: usize,
    field: &'static str,
) -> Result<Option<String>, WireError> {
    match text {
        Some(text) if limit < text.len() => Err(WireError::Field { field }),
        text => Ok(text.map(str::to_owned)),
    }
}

/// `inner`, which lies within `whole`, in the same memory.
fn part(whole: &Bytes, inner: &[u8]) -> Bytes {
    if inner.is_empty() { Bytes::new() } else { whole.slice_ref(inner) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    fn version(micros: u64) -> Version {
        Version { micros, origin: 9 }
    }

    fn siblings() -> Siblings {
        let one = |micros, client: Option<&str>, value: &'static [u8]| Sibling {
            dot: version(micros),
            client: client.map(str::to_owned),
            content_type: client.map(|_| "text/plain".to_owned()),
            value: Bytes::from_static(value),
        };
        Siblings(vec![one(1, None, b""), one(2, Some("c"), b"value")])
    }

    fn order() -> StoreOrder {
        StoreOrder {
            seen: Seen { base: version(3), dots: vec![version(5), version(7)] },
            client: Some("c".to_owned()),
            is_delete: false,
            content_type: None,
            value: Bytes::from_static(b"value"),
        }
    }

    #[test]
    fn siblings_and_orders_read_back_and_have_golden_bytes() {
        let bytes = siblings().encode();
        golden::check("siblings.hex", &bytes);
        assert_eq!(Siblings::decode(&bytes).expect("siblings"), siblings());
        let none = Siblings::default();
        assert_eq!(Siblings::decode(&none.encode()).expect("siblings"), none);
        let bytes = order().encode();
        golden::check("store-order.hex", &bytes);
        assert_eq!(StoreOrder::decode(&bytes).expect("an order"), order());
    }

    #[test]
    fn no_cut_or_flipped_byte_makes_a_decoder_panic() {
        for bytes in [siblings().encode(), order().encode()] {
            for at in 0..bytes.len() {
                let cut = bytes.slice(..at);
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 0x55;
                for damaged in [cut, Bytes::from(flipped)] {
                    let _ = Siblings::decode(&damaged);
                    let _ = StoreOrder::decode(&damaged);
                }
            }
        }
    }

    #[test]
    fn what_is_seen_is_all_up_to_a_version_and_the_newest_dots_above_it() {
        let mut seen = Seen { base: version(3), dots: Vec::new() };
        for micros in 10..10 + DOTS_MAX as u64 + 1 {
            seen = seen.with(version(micros));
        }
        assert_eq!(seen.dots.len(), DOTS_MAX);
        assert!(seen.covers(version(3)) && seen.covers(version(11)));
        assert!(!seen.covers(version(4)) && !seen.covers(version(10)));
    }
}
