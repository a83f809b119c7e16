//! What a load consists of: shares of operations, and the loads of YCSB's core package.
//!
//! Source: Cooper et al., "Benchmarking cloud serving systems with YCSB", 2010, and the files
//! `workloads/workload[a-f]` there. A record's ten fields of 100 bytes are one value of 1,000 bytes
//! here; how else these loads differ from YCSB's is in the README.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::args::Distribution;

/// Records of YCSB's files.
pub(crate) const KEYS: u64 = 1000;
/// Ten fields of 100 bytes.
pub(crate) const VALUE_BYTES: usize = 1000;
/// Records of a scan: 1 to this many, each number alike.
pub(crate) const SCAN_MAX: u32 = 100;

const ZIPF: Distribution = Distribution::Zipf { exponent: 0.99 };

/// The loads of YCSB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Half reads, half updates, zipf.
    YcsbA,
    /// 95 % reads, 5 % updates, zipf.
    YcsbB,
    /// Reads only, zipf.
    YcsbC,
    /// 95 % reads of what is newest, 5 % inserts.
    YcsbD,
    /// 95 % short scans, 5 % inserts.
    YcsbE,
    /// Half reads, half read-modify-writes under a condition, zipf.
    YcsbF,
}

/// Which keys are picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Picks {
    /// Of the keys there were at the start.
    Of(Distribution),
    /// Of all keys by age, the newest most often.
    Latest { exponent: f64 },
}

/// Shares of the operations; what is missing to 1.0 are plain writes of keys that exist.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mix {
    pub(crate) reads: f64,
    pub(crate) scans: f64,
    pub(crate) inserts: f64,
    /// Read a value, write it again if it is still the same.
    pub(crate) changes: f64,
}

/// One operation to be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Scan,
    Insert,
    Change,
    Update,
}

impl Mix {
    /// Reads and plain writes.
    pub(crate) fn reads(share: f64) -> Self {
        Self { reads: share, scans: 0.0, inserts: 0.0, changes: 0.0 }
    }

    /// The operation at this point of `0.0..1.0`.
    pub(crate) fn at(&self, point: f64) -> Operation {
        let mut end = 0.0;
        for (share, operation) in [
            (self.reads, Operation::Read),
            (self.scans, Operation::Scan),
            (self.inserts, Operation::Insert),
            (self.changes, Operation::Change),
        ] {
            end += share;
            if point < end {
                return operation;
            }
        }
        Operation::Update
    }
}

impl Workload {
    /// As on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |name| name.get_name().to_owned())
    }

    pub(crate) fn mix(self) -> Mix {
        match self {
            Self::YcsbA => Mix::reads(0.5),
            Self::YcsbB => Mix::reads(0.95),
            Self::YcsbC => Mix::reads(1.0),
            Self::YcsbD => Mix { inserts: 0.05, ..Mix::reads(0.95) },
            Self::YcsbE => Mix { scans: 0.95, inserts: 0.05, ..Mix::reads(0.0) },
            Self::YcsbF => Mix { changes: 0.5, ..Mix::reads(0.5) },
        }
    }

    pub(crate) fn picks(self) -> Picks {
        match self {
            Self::YcsbD => Picks::Latest { exponent: 0.99 },
            _ => Picks::Of(ZIPF),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_in_their_shares() {
        let count = |workload: Workload, operation| {
            let mix = workload.mix();
            (0..1000).filter(|n| mix.at((f64::from(*n) + 0.5) / 1000.0) == operation).count()
        };
        for (workload, shares) in [
            (Workload::YcsbA, [500, 0, 0, 0, 500]),
            (Workload::YcsbB, [950, 0, 0, 0, 50]),
            (Workload::YcsbC, [1000, 0, 0, 0, 0]),
            (Workload::YcsbD, [950, 0, 50, 0, 0]),
            (Workload::YcsbE, [0, 950, 50, 0, 0]),
            (Workload::YcsbF, [500, 0, 0, 500, 0]),
        ] {
            let operations = [
                Operation::Read,
                Operation::Scan,
                Operation::Insert,
                Operation::Change,
                Operation::Update,
            ];
            assert_eq!(operations.map(|of| count(workload, of)), shares, "{workload:?}");
        }
    }
}
