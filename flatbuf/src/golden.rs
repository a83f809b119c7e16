//! Golden files: the wire bytes of `golden/`, as hex.
//!
//! A changed golden file is a change of the wire and disk format. `TAKO_GOLDEN=write` writes them
//! anew; otherwise they are only compared.

use std::{fmt::Write as _, path::PathBuf};

/// Compares `bytes` with the golden file `name`.
pub(crate) fn check(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    let mut text = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(text, "{byte:02x}").expect("strings take all");
        }
        text.push('\n');
    }
    if std::env::var("TAKO_GOLDEN").as_deref() == Ok("write") {
        std::fs::write(&path, text).expect("golden folder is writable");
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{} differs: a format change? see golden.rs", path.display());
}

/// The bytes of the golden file `name`.
pub(crate) fn read(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    let text = std::fs::read_to_string(path).expect("golden file");
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16);
    digits.chunks(2).map(|digits| pair(digits).expect("hex")).collect()
}
