//! Placement: which buckets each partition falls on, as a pure function of the configuration.
//!
//! In: a deployment and the number of partitions. Out: a table, which the coordinator publishes
//! with the configuration; everyone else only looks it up. Calls: types. Called by: the
//! coordinator and the commands. No I/O, no clock, no randomness, no state from one call to the
//! next.

mod layout;
mod points;
mod publish;
mod zones;

pub use layout::{fair_shares, table};
pub use publish::{movement, publish, zone_warnings};
