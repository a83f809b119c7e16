//! A snapshot's meta row: step number, coverage and highest version, and its bytes.
//!
//! Invariant: coverage never shrinks and never goes back; one entry per node id, never pruned.
//! The bytes are versioned by their first byte; the layout is in docs/formats/snapshot.md.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tako_types::{Incarnation, Lsn, NodeId, StepNumber, Version};

/// Per node id: everything of that incarnation up to that LSN is in the snapshot.
pub type Coverage = BTreeMap<NodeId, (Incarnation, Lsn)>;

const FORMAT: u8 = 1;

/// What a snapshot says about itself; committed with each step in the same batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Number of the step that wrote it; 0 in a database without a step.
    pub step: StepNumber,
    /// What the snapshot holds of each node's journal.
    pub coverage: Coverage,
    /// At or above the version of every record that was ever in the snapshot.
    pub highest: Version,
}

impl Meta {
    /// The meta after one more step; entries only move forward.
    pub(crate) fn advanced(&self, coverage: &Coverage, highest: Version) -> Self {
        let mut next = self.clone();
        next.step = StepNumber(self.step.0 + 1);
        next.highest = self.highest.max(highest);
        for (node, at) in coverage {
            let entry = next.coverage.entry(node.clone()).or_default();
            *entry = (*entry).max(*at);
        }
        next
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32 + self.coverage.len() * 32);
        out.put_u8(FORMAT);
        out.put_u64(self.step.0);
        out.put_u64(self.highest.micros);
        out.put_u64(self.highest.origin);
        out.put_u32(u32::try_from(self.coverage.len()).unwrap_or(u32::MAX));
        for (node, (incarnation, lsn)) in &self.coverage {
            let name = node.as_str().as_bytes();
            out.put_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
            out.put_slice(name);
            out.put_u64(incarnation.0);
            out.put_u64(lsn.0);
        }
        out.freeze()
    }

    /// Reads the bytes of [`Self::encode`]; the error says what is wrong with them.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, String> {
        let format = bytes.try_get_u8().map_err(short)?;
        if format != FORMAT {
            return Err(format!("meta row has format {format}, this program knows {FORMAT}"));
        }
        let step = StepNumber(bytes.try_get_u64().map_err(short)?);
        let highest = Version {
            micros: bytes.try_get_u64().map_err(short)?,
            origin: bytes.try_get_u64().map_err(short)?,
        };
        let count = bytes.try_get_u32().map_err(short)?;
        let mut coverage = Coverage::new();
        for _ in 0..count {
            let name_bytes = usize::from(bytes.try_get_u16().map_err(short)?);
            if bytes.len() < name_bytes {
                return Err("meta row is cut short".to_owned());
            }
            let name = bytes.split_to(name_bytes);
            let name = std::str::from_utf8(&name).map_err(|_| "a node id is not UTF-8")?;
            let incarnation = Incarnation(bytes.try_get_u64().map_err(short)?);
            let lsn = Lsn(bytes.try_get_u64().map_err(short)?);
            coverage.insert(NodeId::new(name), (incarnation, lsn));
        }
        if bytes.is_empty() {
            Ok(Self { step, coverage, highest })
        } else {
            Err(format!("meta row has {} bytes too many", bytes.len()))
        }
    }
}

fn short(_: bytes::TryGetError) -> String {
    "meta row is cut short".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Meta {
        Meta {
            step: StepNumber(7),
            coverage: BTreeMap::from([
                (NodeId::new("n1"), (Incarnation(3), Lsn(500))),
                (NodeId::new("n2"), (Incarnation(1), Lsn(0))),
            ]),
            highest: Version { micros: 0x0102, origin: 0xff },
        }
    }

    /// A changed golden is a format change.
    #[test]
    fn the_meta_row_has_these_bytes() {
        let golden = "01\
            0000000000000007\
            000000000000010200000000000000ff\
            00000002\
            00026e31000000000000000300000000000001f4\
            00026e3200000000000000010000000000000000";
        let hex: String = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
        assert_eq!(Meta::decode(sample().encode()), Ok(sample()));
    }

    #[test]
    fn damaged_or_newer_bytes_are_refused_not_misread() {
        let good = sample().encode();
        for cut in 0..good.len() {
            assert!(Meta::decode(good.slice(..cut)).is_err(), "cut at {cut}");
        }
        let mut longer = good.to_vec();
        longer.push(0);
        assert!(Meta::decode(Bytes::from(longer)).is_err());
        let mut newer = good.to_vec();
        newer[0] = 2;
        let error = Meta::decode(Bytes::from(newer)).expect_err("newer");
        assert_eq!(error, "meta row has format 2, this program knows 1");
    }

    /// Method: changed goldens and noise from a fixed linear generator.
    #[test]
    fn no_bytes_make_the_decoder_panic() {
        let mut state = 0x9e37_79b9_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        for round in 0..20_000_usize {
            let mut bytes = sample().encode().to_vec();
            if round % 2 == 0 {
                bytes = (0..round % 90).map(|_| noise()).collect();
            }
            for _ in 0..3 {
                let at = usize::from(noise()) % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = noise();
                }
            }
            if let Ok(meta) = Meta::decode(Bytes::from(bytes.clone())) {
                assert!(meta.coverage.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn coverage_and_highest_never_go_back() {
        let meta = sample();
        let older = BTreeMap::from([
            (NodeId::new("n1"), (Incarnation(2), Lsn(9_000))),
            (NodeId::new("n3"), (Incarnation(1), Lsn(4))),
        ]);
        let next = meta.advanced(&older, Version::ZERO);
        assert_eq!(next.step, StepNumber(8));
        assert_eq!(next.highest, meta.highest);
        assert_eq!(next.coverage[&NodeId::new("n1")], (Incarnation(3), Lsn(500)));
        assert_eq!(next.coverage[&NodeId::new("n2")], (Incarnation(1), Lsn(0)));
        assert_eq!(next.coverage[&NodeId::new("n3")], (Incarnation(1), Lsn(4)));
    }
}
