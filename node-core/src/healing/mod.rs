//! Background healing: what lies still is read again, in case it is not what was written.
//!
//! ```text
//! calendar (whose turn) ─┐
//! orders (by hand) ──────┴► Healer ─► pass: rows past every cache ─► checked ─► mend
//!                             │                                 └─► audit of every replica
//!                             ├► journal: complete files ─► checked ─► entries written again
//!                             └► orphans: what belongs to nothing (by hand only)
//! ```
//! In reading order: [`calendar`] and [`pace`] (when and how fast, pure) · [`healer`] (the owner) ·
//! [`pass`] (a partition's snapshot) · [`mend`] (a bad record) · [`journal`] · [`orphans`].
//! Each partition's snapshot is read once per interval by one of its replicas; journals are read by
//! their own nodes; every replica compares its own cache with what was read. What a node holds of
//! partitions that are no longer its own it leaves as soon as they are covered
//! (`node/moves.rs`), which needs no interval.
//! Calls: engine, replication (repairs), snapshotter (forced steps). Called by: node, replica.

mod calendar;
mod healer;
mod journal;
mod mend;
mod orphans;
mod pace;
mod pass;

pub use healer::Healer;
