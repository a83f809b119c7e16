//! The binary protocol: headers of 24 bytes, and answers in the same shape.
//!
//! Source: memcached's protocol_binary.txt (revised). Quiet commands say nothing where their loud
//! ones would say that all went well (a quiet get: that there is nothing).

use bytes::{BufMut, Bytes, BytesMut};
use tako_flatbuf::{Condition, Edit, Misfit, Record};

use super::request::{
    self, Fields, KEY_BYTES_MAX, Next, Operation, Outcome, Request, anyway, delete, expires_at,
    present_or, store, stored,
};

/// First byte of a request.
pub(super) const REQUEST: u8 = 0x80;
const RESPONSE: u8 = 0x81;
const HEADER_BYTES: usize = 24;
/// Longest extras of any command.
const EXTRAS_BYTES_MAX: usize = 20;
/// An expiry that says: do not make a number where there is none.
const DO_NOT_CREATE: u32 = u32::MAX;

/// Answers' codes, and what is said with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok = 0x00,
    NotFound = 0x01,
    Exists = 0x02,
    TooLarge = 0x03,
    Invalid = 0x04,
    NotStored = 0x05,
    NoNumber = 0x06,
    Denied = 0x20,
    Unknown = 0x81,
    NotSupported = 0x83,
    Temporary = 0x86,
}

impl Status {
    fn text(self) -> &'static str {
        match self {
            Self::Ok => "",
            Self::NotFound => "Not found",
            Self::Exists => "Data exists for key.",
            Self::TooLarge => "Too large.",
            Self::Invalid => "Invalid arguments",
            Self::NotStored => "Not stored.",
            Self::NoNumber => "Non-numeric server-side value for incr or decr",
            Self::Denied => "Auth failure.",
            Self::Unknown => "Unknown command",
            Self::NotSupported => "Not supported",
            Self::Temporary => "Temporary failure",
        }
    }
}

/// What a command is, whether it is quiet, and whether it answers with the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Get {
        touches: bool,
    },
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    Delete,
    Increment,
    Decrement,
    Touch,
    Quit,
    Flush,
    Noop,
    Version,
    Stat,
    Verbosity,
    /// How to log in.
    Mechanisms,
    LogIn,
}

fn command(opcode: u8) -> Option<(Command, bool)> {
    use Command::{
        Add, Append, Decrement, Delete, Flush, Get, Increment, LogIn, Mechanisms, Noop, Prepend,
        Quit, Replace, Set, Stat, Touch, Verbosity, Version,
    };
    let (get, gat) = (Get { touches: false }, Get { touches: true });
    Some(match opcode {
        0x00 | 0x0c => (get, false),
        0x09 | 0x0d => (get, true),
        0x1d | 0x23 => (gat, false),
        0x1e | 0x24 => (gat, true),
        0x01 | 0x11 => (Set, opcode == 0x11),
        0x02 | 0x12 => (Add, opcode == 0x12),
        0x03 | 0x13 => (Replace, opcode == 0x13),
        0x04 | 0x14 => (Delete, opcode == 0x14),
        0x05 | 0x15 => (Increment, opcode == 0x15),
        0x06 | 0x16 => (Decrement, opcode == 0x16),
        0x07 | 0x17 => (Quit, opcode == 0x17),
        0x08 | 0x18 => (Flush, opcode == 0x18),
        0x0a => (Noop, false),
        0x0b => (Version, false),
        0x0e | 0x19 => (Append, opcode == 0x19),
        0x0f | 0x1a => (Prepend, opcode == 0x1a),
        0x10 => (Stat, false),
        0x1b => (Verbosity, false),
        0x1c => (Touch, false),
        0x20 => (Mechanisms, false),
        0x21 => (LogIn, false),
        _ => return None,
    })
}

fn answers_with_key(opcode: u8) -> bool {
    matches!(opcode, 0x0c | 0x0d | 0x23 | 0x24)
}

/// How a binary request is answered.
pub(super) struct Reply {
    opcode: u8,
    command: Command,
    quiet: bool,
    opaque: u32,
    /// For those that answer with it.
    key: Bytes,
    /// It asked for a version.
    token: bool,
}

/// A request's header.
struct Header {
    opcode: u8,
    key_bytes: usize,
    extras_bytes: usize,
    body_bytes: usize,
    opaque: u32,
    token: u64,
}

fn header(bytes: &[u8]) -> Header {
    let word =
        |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Header {
        opcode: bytes[1],
        key_bytes: usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
        extras_bytes: usize::from(bytes[4]),
        body_bytes: word(8) as usize,
        opaque: word(12),
        token: (u64::from(word(16)) << 32) | u64::from(word(20)),
    }
}

/// Cuts the first request from what came.
pub(super) fn next(input: &mut BytesMut, now_micros: u64, value_bytes_max: usize) -> Next {
    if input.len() < HEADER_BYTES {
        return Next::Part(HEADER_BYTES);
    }
    if input[0] != REQUEST {
        // Nothing tells where the next request begins.
        return Next::End(Bytes::new());
    }
    let head = header(input);
    let said = |status: Status| one_answer(head.opcode, head.opaque, status, status.text());
    let Header { key_bytes, extras_bytes, body_bytes, .. } = head;
    if body_bytes < key_bytes + extras_bytes {
        return Next::End(said(Status::Invalid));
    }
    let value_bytes = body_bytes - key_bytes - extras_bytes;
    let refused = match command(head.opcode) {
        None => Some(Status::Unknown),
        _ if value_bytes_max < value_bytes => Some(Status::TooLarge),
        _ if KEY_BYTES_MAX < key_bytes || EXTRAS_BYTES_MAX < extras_bytes => Some(Status::Invalid),
        Some(_) => None,
    };
    if let Some(status) = refused {
        let _ = input.split_to(HEADER_BYTES);
        return Next::SayAndSkip(said(status), body_bytes);
    }
    let whole = HEADER_BYTES + body_bytes;
    if input.len() < whole {
        return Next::Part(whole);
    }
    let mut body = input.split_to(whole).freeze().split_off(HEADER_BYTES);
    let extras = body.split_to(extras_bytes);
    let key = body.split_to(key_bytes);
    parsed(&head, &extras, &key, body, now_micros).unwrap_or_else(|status| Next::Say(said(status)))
}

/// A command with its parts, or what is wrong with them.
fn parsed(
    head: &Header,
    extras: &[u8],
    key: &Bytes,
    value: Bytes,
    now_micros: u64,
) -> Result<Next, Status> {
    let (command, quiet) = command(head.opcode).ok_or(Status::Unknown)?;
    let word = |at: usize| {
        let bytes = extras.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_be_bytes).ok_or(Status::Invalid)
    };
    let long = |at: usize| Ok((u64::from(word(at)?) << 32) | u64::from(word(at + 4)?));
    let expiry = |at: usize| Ok(expires_at(i64::from(word(at)?), now_micros));
    let named = || stored(key).ok_or(Status::Invalid);
    // What each command has besides its key.
    let sizes_fit = match command {
        Command::Set | Command::Add | Command::Replace => extras.len() == 8,
        Command::Increment | Command::Decrement => extras.len() == 20 && value.is_empty(),
        Command::Touch | Command::Get { touches: true } => extras.len() == 4 && value.is_empty(),
        Command::Append | Command::Prepend => extras.is_empty(),
        Command::Flush | Command::Verbosity => key.is_empty() && value.is_empty(),
        Command::Get { .. } | Command::Delete | Command::Stat => {
            extras.is_empty() && value.is_empty()
        }
        Command::LogIn => extras.is_empty(),
        Command::Quit | Command::Noop | Command::Version | Command::Mechanisms => {
            extras.is_empty() && key.is_empty() && value.is_empty()
        }
    };
    if !sizes_fit {
        return Err(Status::Invalid);
    }
    let token = (head.token != 0).then_some(head.token);
    let answer = |status: Status, text: &str| one_answer(head.opcode, head.opaque, status, text);
    let operation = match command {
        Command::Get { touches: false } => Operation::Get(named()?),
        Command::Get { touches: true } | Command::Touch => {
            let fields = Fields { flags: 0, expires_at_micros: expiry(0)? };
            store(named()?, fields, Bytes::new(), Edit::Touch, Some(present_or(token)))
        }
        Command::Set | Command::Add | Command::Replace => {
            let fields = Fields { flags: word(0)?, expires_at_micros: expiry(4)? };
            let condition = match command {
                Command::Add => Some(Condition::Absent),
                Command::Replace => Some(present_or(token)),
                _ => token.map(Condition::Token),
            };
            store(named()?, fields, value, Edit::Write, condition)
        }
        Command::Append | Command::Prepend => {
            let edit = if command == Command::Append { Edit::Append } else { Edit::Prepend };
            let fields = Fields { flags: 0, expires_at_micros: 0 };
            store(named()?, fields, value, edit, Some(present_or(token)))
        }
        Command::Delete => delete(&named()?, token),
        Command::Increment | Command::Decrement => {
            let amount = long(0)?;
            let up = command == Command::Increment;
            let edit = if up { Edit::Add(amount) } else { Edit::Subtract(amount) };
            let makes = word(16)? != DO_NOT_CREATE && token.is_none();
            let condition = if makes { anyway() } else { present_or(token) };
            let fields =
                Fields { flags: 0, expires_at_micros: if makes { expiry(16)? } else { 0 } };
            let initial = Bytes::from(long(8)?.to_string());
            store(named()?, fields, initial, edit, Some(condition))
        }
        Command::Quit if quiet => return Ok(Next::End(Bytes::new())),
        Command::Quit => return Ok(Next::End(answer(Status::Ok, ""))),
        Command::Noop | Command::Verbosity => return Ok(Next::Say(answer(Status::Ok, ""))),
        Command::Version => {
            return Ok(Next::Say(answer(Status::Ok, super::stats::VERSION)));
        }
        Command::Flush => {
            // Extras are a delay.
            if extras.iter().any(|byte| *byte != 0) {
                let text = "flush takes no delay here: send it when it is to be done";
                return Ok(Next::Say(answer(Status::Invalid, text)));
            }
            let (opcode, opaque, key, token) = (head.opcode, head.opaque, Bytes::new(), false);
            let reply = Reply { opcode, command, quiet, opaque, key, token };
            return Ok(Next::Flush(request::Reply::Binary(reply)));
        }
        Command::Mechanisms | Command::LogIn => {
            let (opcode, opaque, token) = (head.opcode, head.opaque, false);
            let reply = Reply { opcode, command, quiet, opaque, key: Bytes::new(), token };
            let message = (command == Command::LogIn).then_some(value);
            return Ok(Next::LogIn { mechanism: key.clone(), message, reply });
        }
        Command::Stat => {
            let reply = Reply {
                opcode: head.opcode,
                command,
                quiet,
                opaque: head.opaque,
                key: Bytes::new(),
                token: false,
            };
            return Ok(Next::Stats { group: key.clone(), reply: request::Reply::Binary(reply) });
        }
    };
    let reply = Reply {
        opcode: head.opcode,
        command,
        quiet,
        opaque: head.opaque,
        key: if answers_with_key(head.opcode) { key.clone() } else { Bytes::new() },
        token: token.is_some(),
    };
    let reply = request::Reply::Binary(reply);
    Ok(Next::Request(Request { operations: vec![operation], reply }))
}

impl Reply {
    pub(super) fn write(&self, outcomes: &[Outcome], out: &mut BytesMut) {
        let Some(outcome) = outcomes.first() else { return };
        match outcome {
            Outcome::Found(record) => self.write_value(record, out),
            Outcome::Written { version, record } => match (self.command, record) {
                (Command::Get { .. }, Some(record)) => self.write_value(record, out),
                _ if self.quiet => {}
                (Command::Increment | Command::Decrement, Some(record)) => {
                    let digits = std::str::from_utf8(&record.value()).map(str::parse::<u64>);
                    let number = digits.ok().and_then(Result::ok).unwrap_or(0);
                    self.answer(Status::Ok, version.token(), &[], &number.to_be_bytes(), out);
                }
                // Of what was deleted there is no version.
                (Command::Delete | Command::Flush, _) => self.answer(Status::Ok, 0, &[], &[], out),
                _ => self.answer(Status::Ok, version.token(), &[], &[], out),
            },
            Outcome::Missing => self.write_missing(out),
            Outcome::Differs(None) => match self.command {
                Command::Append | Command::Prepend => self.failure(Status::NotStored, None, out),
                _ => self.write_missing(out),
            },
            Outcome::Differs(Some(_)) => self.failure(Status::Exists, None, out),
            Outcome::Cannot(Misfit::NoNumber) => self.failure(Status::NoNumber, None, out),
            Outcome::Cannot(Misfit::TooLong) => self.failure(Status::TooLarge, None, out),
            Outcome::Refused(why) => self.failure(Status::NotSupported, Some(why), out),
            Outcome::Denied(why) => self.failure(Status::Denied, Some(why), out),
            Outcome::Failed(why) => self.failure(Status::Temporary, Some(why), out),
        }
    }

    /// That all is well, and this.
    pub(super) fn write_text(&self, text: &str, out: &mut BytesMut) {
        self.answer(Status::Ok, 0, &[], text.as_bytes(), out);
    }

    /// One counter of `stats`; an empty name ends them.
    pub(super) fn write_stat(&self, name: &str, value: &str, out: &mut BytesMut) {
        let key = Bytes::copy_from_slice(name.as_bytes());
        put_answer(self.opcode, self.opaque, Status::Ok, 0, (&[], &key, value.as_bytes()), out);
    }

    fn write_value(&self, record: &Record, out: &mut BytesMut) {
        let flags = record.head().flags.to_be_bytes();
        // A touch without a get answers with no value.
        match self.command {
            Command::Touch => self.answer(Status::Ok, record.version().token(), &[], &[], out),
            _ => self.answer(Status::Ok, record.version().token(), &flags, &record.value(), out),
        }
    }

    fn write_missing(&self, out: &mut BytesMut) {
        match self.command {
            Command::Get { .. } if self.quiet => {}
            // memcached answers with the key where there is no value as well.
            Command::Get { .. } if !self.key.is_empty() => {
                let parts: Parts<'_> = (&[], &self.key, &[]);
                put_answer(self.opcode, self.opaque, Status::NotFound, 0, parts, out);
            }
            Command::Set if !self.token => self.failure(Status::NotStored, None, out),
            _ => self.failure(Status::NotFound, None, out),
        }
    }

    fn failure(&self, status: Status, why: Option<&str>, out: &mut BytesMut) {
        let text = why.unwrap_or_else(|| status.text());
        put_answer(self.opcode, self.opaque, status, 0, (&[], &[], text.as_bytes()), out);
    }

    fn answer(&self, status: Status, token: u64, extras: &[u8], value: &[u8], out: &mut BytesMut) {
        put_answer(self.opcode, self.opaque, status, token, (extras, &self.key, value), out);
    }
}

/// Extras, key, value.
type Parts<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn one_answer(opcode: u8, opaque: u32, status: Status, text: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES + text.len());
    put_answer(opcode, opaque, status, 0, (&[], &[], text.as_bytes()), &mut out);
    out.freeze()
}

fn put_answer(
    opcode: u8,
    opaque: u32,
    status: Status,
    token: u64,
    (extras, key, value): Parts<'_>,
    out: &mut BytesMut,
) {
    let body_bytes = extras.len() + key.len() + value.len();
    out.reserve(HEADER_BYTES + body_bytes);
    out.put_u8(RESPONSE);
    out.put_u8(opcode);
    out.put_u16(u16::try_from(key.len()).unwrap_or(u16::MAX));
    out.put_u8(u8::try_from(extras.len()).unwrap_or(u8::MAX));
    out.put_u8(0);
    out.put_u16(status as u16);
    out.put_u32(u32::try_from(body_bytes).unwrap_or(u32::MAX));
    out.put_u32(opaque);
    out.put_u64(token);
    out.put_slice(extras);
    out.put_slice(key);
    out.put_slice(value);
}
