//! Placement: which buckets each partition falls on, as a pure function of the configuration.
//!
//! In: a deployment, the number of partitions, and the table in force if there is one. Out: a table, which the coordinator publishes
//! with the configuration; everyone else only looks it up. Calls: types. Called by: the
//! coordinator and the commands. No I/O, no clock, no randomness, no state from one call to the
//! next.

#[cfg(test)]
mod fixture;
pub mod fuzz;
mod layout;
mod points;
mod publish;
mod successor;
mod zones;

pub use layout::{fair_shares, table};
pub use publish::{movement, publish, publish_migration, zone_warnings};
pub use successor::table_after;
