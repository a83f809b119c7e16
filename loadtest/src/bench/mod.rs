//! `tako bench`: a cheap client that measures, and checks every answer while it measures.
//!
//! Flow: [`BenchArgs`] → `plan` (validated) → `load` (threads, one task per connection, `line`
//! for the way there (`wire` for the bytes of HTTP, `rpc` for calls), `schedule` for intended times,
//! `pick` for keys) → `tally` per thread, merged →
//! `report` (text or JSON). `value` and `ledger` together are the verifier; `peer` is the bare
//! server that a target is compared with.
//! Invariant: latency runs from the intended time of a request to its last byte; an answer is
//! counted as good only after it passed the verifier.

mod args;
mod ledger;
mod line;
mod load;
mod peer;
mod pick;
mod plan;
mod report;
mod rpc;
mod run;
mod schedule;
mod tally;
mod value;
mod wire;

pub use args::{BenchArgs, Distribution, Mode, Output, Protocol, Verify};
pub use report::{Latency, Measured, Operations, Ratio, Ratios, Report, Verification};
pub use run::{measure, run};
