//! What flatc makes of `schemas/`; re-created by `generate.sh`, never edited.
//!
//! Only the codecs of this crate read these types. The generated files hold the crate's only unsafe
//! code; every buffer is run through the FlatBuffers verifier before it reaches them.

#[allow(
    warnings,
    unsafe_code,
    clippy::all,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "generated"
)]
#[rustfmt::skip]
pub(crate) mod record_generated;
#[allow(
    warnings,
    unsafe_code,
    clippy::all,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "generated"
)]
#[rustfmt::skip]
pub(crate) mod rpc_generated;
#[allow(
    warnings,
    unsafe_code,
    clippy::all,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "generated"
)]
#[rustfmt::skip]
pub(crate) mod siblings_generated;

pub(crate) use record_generated as record;
pub(crate) use rpc_generated as rpc;
pub(crate) use siblings_generated as siblings;
