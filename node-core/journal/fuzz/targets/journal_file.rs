//! Any bytes as a journal file, and as damage to a sound one; what must hold stands in
//! `tako_journal::fuzz`.
//!
//! In: bytes of the fuzzer. A panic is a finding.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tako_journal::fuzz::journal_file(bytes));
