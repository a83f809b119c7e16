//! Any bytes as a stored record; what must hold stands in `tako_flatbuf::fuzz`.
//!
//! In: bytes of the fuzzer. A panic is a finding.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tako_flatbuf::fuzz::record(bytes));
