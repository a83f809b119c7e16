//! The real program on loopback: processes are started, killed and started again.
//!
//! One binary, so that ports are given out once (`support`). Every wait has a deadline and ends
//! with the event it waits for; on failure the logs are printed.

mod backup;
mod check;
mod client;
mod configuration;
mod crash;
mod ctl;
mod launcher;
mod memcached;
mod migrate;
mod migration;
mod s3;
#[path = "../../../../snapshot/tests/s3_server/mod.rs"]
#[allow(unreachable_pub, reason = "shared with another package's tests by path")]
mod s3_server;
mod scrub;
mod secure;
mod serve;
mod shrink;
mod support;
