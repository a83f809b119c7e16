//! Seeded mutations, so that the corpora say something new without libFuzzer.
//!
//! Invariant: the same seed and input give the same outputs, on every machine.

/// Longest output.
const BYTES_MAX: usize = 8 << 10;
/// Values that decoders tend to trip over.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];

/// Makes inputs out of an input.
#[derive(Debug)]
pub struct Mutator(u64);

impl Mutator {
    /// One whose mutations follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another input like `bytes`, with pieces of `other` in it now and then.
    pub fn mutate(&mut self, bytes: &[u8], other: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(4) {
            self.step(&mut out, other);
        }
        out.truncate(BYTES_MAX);
        out
    }

    fn step(&mut self, out: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(out.len() + 1);
        let end = at + self.below((out.len() - at).min(64) + 1);
        match self.below(7) {
            0 => flip(out.get_mut(at), 1 << self.below(8)),
            1 => flip(out.get_mut(at), self.next() as u8),
            2 => drop(out.drain(at..end)),
            3 => {
                let piece = out[at..end].to_vec();
                let to = self.below(out.len() + 1);
                drop(out.splice(to..to, piece));
            }
            4 => {
                let start = self.below(other.len() + 1);
                let length = self.below((other.len() - start).min(64) + 1);
                drop(out.splice(at..end, other[start..start + length].iter().copied()));
            }
            5 => {
                let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                let room = out.len().min(at + (1 << self.below(4))) - at;
                out[at..at + room].copy_from_slice(&edge[..room]);
            }
            _ => out.truncate(at),
        }
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn flip(byte: Option<&mut u8>, mask: u8) {
    if let Some(byte) = byte {
        *byte ^= mask;
    }
}
