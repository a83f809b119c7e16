//! The process's randomness from the seed.
//!
//! Hash maps, tokio's `select!` and identifiers of libraries draw from the system. Here the system
//! call's C entry is answered from a seeded stream once [`arm`] was called on this thread, so that
//! one seed is one run. Only binaries that simulate link this crate.
#![allow(unsafe_code, reason = "the C library's `getrandom` cannot be replaced otherwise")]

use std::cell::RefCell;

use rand::{Rng, SeedableRng, rngs::StdRng};

thread_local! {
    static STREAM: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// From now on this thread's randomness comes from `seed`; other threads keep the system's.
///
/// Call it first of all in a fresh process: what was drawn before is not undone.
pub fn arm(seed: u64) {
    STREAM.with_borrow_mut(|stream| *stream = Some(StdRng::seed_from_u64(seed)));
}

/// Fills `bytes` from the stream, if there is one.
fn fill(bytes: &mut [u8]) -> bool {
    STREAM
        .try_with(|stream| {
            stream.try_borrow_mut().is_ok_and(|mut stream| {
                stream.as_mut().map(|random| random.fill_bytes(bytes)).is_some()
            })
        })
        .unwrap_or(false)
}

/// The C library's entry: as the manual page says, from the stream where there is one.
///
/// # Safety
/// `buffer` points to `length` bytes that may be written, or `length` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller's promise, as that of the function which this stands for.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    if fill(bytes) {
        return isize::try_from(length).unwrap_or(isize::MAX);
    }
    let flags = rustix::rand::GetRandomFlags::from_bits_retain(flags);
    match rustix::rand::getrandom(bytes, flags) {
        Ok(count) => isize::try_from(count).unwrap_or(isize::MAX),
        Err(_) => -1,
    }
}
