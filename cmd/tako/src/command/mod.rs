//! The subcommands, one per file: arguments, their help, and the wiring of what they start.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod coordinator;
pub(crate) mod coordinators;
pub(crate) mod ctl;
pub(crate) mod migrate;
pub(crate) mod node;
pub(crate) mod output;
pub(crate) mod proxy;
#[cfg(test)]
mod scenes;
pub(crate) mod tls;
pub(crate) mod token;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// Randomness for ids: different in every process.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
