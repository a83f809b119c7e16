//! libFuzzer on the target that `TAKO_FUZZ` names; `run` builds and starts it.
//!
//! One program for all targets: it is linked once.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<&tako_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("TAKO_FUZZ").unwrap_or_default();
    let found = tako_fuzz::TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("TAKO_FUZZ names no target: `{name}`"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.holds)(bytes));
