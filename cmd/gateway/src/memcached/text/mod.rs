//! The text protocol: lines, the values that follow them, and answers in lines.
//!
//! Owns what both dialects have in common; `classic.rs` has get, set and their like, `meta.rs` the
//! two-letter commands. Source: memcached's doc/protocol.txt.

mod classic;
mod meta;

use bytes::{Bytes, BytesMut};
use tako_flatbuf::Misfit;

use super::request::{KEY_BYTES_MAX, Next, Outcome, Request};

/// Longest line: several hundred of the longest keys.
const LINE_BYTES_MAX: usize = 64 << 10;

const ERROR: &[u8] = b"ERROR\r\n";
const BAD_LINE: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const BAD_DATA: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";

/// How a text request is answered.
pub(in super::super) enum Reply {
    Classic(classic::Reply),
    Meta(meta::Reply),
    /// Which counters are written is said beside.
    Stats,
}

impl Reply {
    pub(super) fn write(&self, outcomes: &[Outcome], now_micros: u64, out: &mut BytesMut) {
        match self {
            Self::Classic(reply) => reply.write(outcomes, out),
            Self::Meta(reply) => reply.write(outcomes, now_micros, out),
            // Of counters only that they are not told.
            Self::Stats => outcomes.iter().for_each(|outcome| write_failure(outcome, out)),
        }
    }
}

/// Cuts the first request from what came.
pub(super) fn next(input: &mut BytesMut, now_micros: u64, value_bytes_max: usize) -> Next {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        if LINE_BYTES_MAX < input.len() {
            return Next::End(Bytes::from_static(b"CLIENT_ERROR line too long\r\n"));
        }
        return Next::Part(input.len() + 1);
    };
    let line = &input[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.iter().any(|byte| byte.is_ascii_control()) {
        input.clear();
        return Next::End(Bytes::from_static(b"CLIENT_ERROR control characters in a line\r\n"));
    }
    let (line_bytes, taken) = (line.len(), end + 1);
    // What needs a value looks for it behind the line.
    let mut words = Words { line, at: 0 };
    let name = words.next().unwrap_or_default();
    let announced = match name {
        b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => classic::length(line),
        b"ms" => meta::length(line),
        _ => None,
    };
    let Some(length) = announced else {
        let line = input.split_to(taken).freeze().slice(..line_bytes);
        return without_value(&line, now_micros);
    };
    let length = match length {
        Ok(length) => length,
        Err(said) => {
            let _ = input.split_to(taken);
            return Next::Say(Bytes::from_static(said));
        }
    };
    if value_bytes_max < length {
        let _ = input.split_to(taken);
        return Next::SayAndSkip(Bytes::from_static(TOO_LARGE), length.saturating_add(2));
    }
    let whole = taken + length + 2;
    if input.len() < whole {
        // A value that is followed by something else is told before it is waited for.
        return Next::Part(whole);
    }
    let line = input.split_to(taken).freeze().slice(..line_bytes);
    let mut value = input.split_to(length + 2).freeze();
    if value.split_off(length) != b"\r\n"[..] {
        // The rest of a longer value cannot be told from commands: up to the end of its line it goes.
        let rest = input.iter().position(|byte| *byte == b'\n').map_or(input.len(), |at| at + 1);
        let _ = input.split_to(rest);
        return Next::Say(Bytes::from_static(BAD_DATA));
    }
    match line.starts_with(b"ms") {
        true => meta::store(&line, value, now_micros),
        false => classic::store(&line, value, now_micros),
    }
}

fn without_value(line: &Bytes, now_micros: u64) -> Next {
    let mut words = Words { line, at: 0 };
    match words.next().unwrap_or_default() {
        name @ (b"mg" | b"md" | b"ma" | b"mn" | b"me") => meta::command(name, line, now_micros),
        name => classic::command(name, line, now_micros),
    }
}

fn say(text: &'static [u8]) -> Next {
    Next::Say(Bytes::from_static(text))
}

fn request(operations: Vec<super::request::Operation>, reply: Reply) -> Next {
    Next::Request(Request { operations, reply: super::request::Reply::Text(reply) })
}

/// The words of a line; spaces between them count for nothing.
struct Words<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = &self.line[self.at..];
        let begin = rest.iter().position(|byte| *byte != b' ')?;
        let word = &rest[begin..];
        let length = word.iter().position(|byte| *byte == b' ').unwrap_or(word.len());
        self.at += begin + length;
        Some(&word[..length])
    }
}

/// A word as a slice of its line, which stays in memory for it.
fn slice_of(line: &Bytes, word: &[u8]) -> Bytes {
    line.slice_ref(word)
}

fn number<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn is_key(word: &[u8]) -> bool {
    (1..=KEY_BYTES_MAX).contains(&word.len())
}

fn write_number(out: &mut BytesMut, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Lines for what is the same in all answers.
fn write_failure(outcome: &Outcome, out: &mut BytesMut) {
    match outcome {
        Outcome::Cannot(Misfit::NoNumber) => out
            .extend_from_slice(b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
        Outcome::Cannot(Misfit::TooLong) => out.extend_from_slice(TOO_LARGE),
        Outcome::Refused(why) => {
            out.extend_from_slice(b"SERVER_ERROR ");
            out.extend_from_slice(why.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Outcome::Denied(why) => {
            out.extend_from_slice(b"CLIENT_ERROR ");
            out.extend_from_slice(why.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Outcome::Failed(why) => {
            out.extend_from_slice(b"SERVER_ERROR ");
            out.extend_from_slice(why.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        _ => out.extend_from_slice(b"SERVER_ERROR out of order\r\n"),
    }
}
