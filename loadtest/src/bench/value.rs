//! Values that tell on themselves: made from (seed, key, write number), checked from their bytes.
//!
//! Shape: magic (4 bytes), run (u32), key (u64), write number (u64), checksum (u64), body; integers
//! little-endian. The checksum is xxh3-64 of the body, seeded by the three fields before it, so
//! one damaged, missing or added byte anywhere shows.
//! Not here: whether the write number is the right one (see `ledger`).

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes before the body; the shortest value.
pub(crate) const HEADER_BYTES: usize = 32;

const MAGIC: [u8; 4] = *b"TKB1";

/// What a value says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Which bench process wrote it.
    pub(crate) run: u32,
    /// Index of the key.
    pub(crate) key: u64,
    /// The how-many-th write of this key in that process, from 1.
    pub(crate) number: u64,
}

impl Header {
    fn checksum(self, body: &[u8]) -> u64 {
        let fields = mix(self.key ^ mix(self.number ^ mix(u64::from(self.run))));
        xxh3_64_with_seed(body, fields)
    }
}

/// Appends a value of `size` bytes (at least [`HEADER_BYTES`]) to `out`.
pub(crate) fn append(out: &mut Vec<u8>, header: Header, seed: u64, size: usize) {
    let start = out.len();
    out.resize(start + size.max(HEADER_BYTES), 0);
    let (head, body) = out[start..].split_at_mut(HEADER_BYTES);
    fill(body, mix(seed) ^ mix(header.key) ^ mix(header.number.rotate_left(32)));
    head[..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&header.run.to_le_bytes());
    head[8..16].copy_from_slice(&header.key.to_le_bytes());
    head[16..24].copy_from_slice(&header.number.to_le_bytes());
    head[24..].copy_from_slice(&header.checksum(body).to_le_bytes());
}

/// Reads a value; `None` when it is not whole and intact.
pub(crate) fn read(value: &[u8]) -> Option<Header> {
    let (head, body) = value.split_at_checked(HEADER_BYTES)?;
    let number = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
    let run = u32::from_le_bytes(head.get(4..8)?.try_into().ok()?);
    let header = Header { run, key: number(8)?, number: number(16)? };
    (head.starts_with(&MAGIC) && number(24)? == header.checksum(body)).then_some(header)
}

/// A cheap repeatable source of numbers (SplitMix64): bodies, picks, reads or writes.
#[derive(Debug, Clone)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number in `0.0..1.0`.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number below `limit`, which is above 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(limit);
        (wide >> 64) as u64
    }
}

/// The finaliser of SplitMix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn fill(body: &mut [u8], seed: u64) {
    let mut numbers = Numbers(seed);
    let (words, rest) = body.as_chunks_mut::<8>();
    for word in words {
        *word = numbers.next().to_le_bytes();
    }
    let last = numbers.next().to_le_bytes();
    for (to, from) in rest.iter_mut().zip(last) {
        *to = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { run: 7, key: 3, number: 9 };

    #[test]
    fn a_value_reads_back_and_any_changed_lost_or_added_byte_is_seen() {
        for size in [32, 33, 48, 1000] {
            let mut value = Vec::new();
            append(&mut value, HEADER, 1, size);
            assert_eq!(value.len(), size);
            assert_eq!(read(&value), Some(HEADER));
            for at in 0..size {
                let mut damaged = value.clone();
                damaged[at] ^= 0x10;
                assert_eq!(read(&damaged), None, "byte {at} of {size}");
            }
            assert_eq!(read(&value[..size - 1]), None);
            value.push(0);
            assert_eq!(read(&value), None);
        }
        assert_eq!(read(b""), None);
    }

    #[test]
    fn the_same_seed_key_and_number_make_the_same_bytes_and_others_do_not() {
        let make = |seed, number| {
            let mut value = Vec::new();
            append(&mut value, Header { number, ..HEADER }, seed, 100);
            value
        };
        assert_eq!(make(1, 1), make(1, 1));
        assert_ne!(make(1, 1)[HEADER_BYTES..], make(2, 1)[HEADER_BYTES..]);
        assert_ne!(make(1, 1)[HEADER_BYTES..], make(1, 2)[HEADER_BYTES..]);
    }
}
