//! `tako bench`: a cheap client that measures, and checks every answer while it measures.
//!
//! Flow: [`BenchArgs`] → `plan` (validated) → `load` (threads, one task per connection, `line`
//! for the way there (`wire` for the bytes of HTTP, `rpc` for calls), `schedule` for intended times,
//! `workload` for operations, `pick` for keys) → `tally` and `timeline` per thread, merged →
//! `report` (text or JSON), `page` (HTML, with the pictures of `plot`). A `scenario` gives several
//! `phase`s to the plan, and `event`s that happen beside the load, as `scrape` does, which asks
//! servers what they count. `value` and `ledger` together are the verifier; `peer` is the bare server
//! that a target is compared with.
//! Invariant: latency runs from the intended time of a request to its last byte; an answer is
//! counted as good only after it passed the verifier.

mod args;
mod course;
mod event;
mod ledger;
mod line;
mod load;
mod page;
mod peer;
mod phase;
mod pick;
mod plan;
mod plot;
mod report;
mod rpc;
mod run;
mod scenario;
mod schedule;
mod scrape;
mod tally;
mod timeline;
mod value;
mod wire;
mod workload;

pub use args::{BenchArgs, Distribution, Mode, Output, Protocol, Verify};
pub use course::{Course, PhaseFigures};
pub use event::Happened;
pub use report::{Latency, Measured, Operations, Ratio, Ratios, Report, Verification};
pub use run::{measure, run};
pub use scrape::{Counted, Series};
pub use timeline::{Answers, Percentiles, Point};
pub use workload::Workload;
