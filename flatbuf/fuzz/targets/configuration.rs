//! Any text as a configuration: refused with a reason, or taken and the same when read again.
//!
//! In: bytes of the fuzzer, as far as they are text. A panic is a finding, and so is a
//! configuration whose canonical form says something else.
#![no_main]

use tako_types::{config::Config, limits::CONFIGURATION_BYTES_MAX};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(config) = Config::parse(text) else { return };
    let canonical = config.to_canonical_json();
    // Aliases can stand for more than a document may hold.
    if canonical.len() <= CONFIGURATION_BYTES_MAX {
        let again = Config::parse(&canonical).expect("its own words");
        assert_eq!(again.to_canonical_json(), canonical);
    }
});
