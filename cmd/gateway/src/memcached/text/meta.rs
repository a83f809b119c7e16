//! The meta commands: mg, ms, md, ma, mn, me. A flag that is not known is refused, never ignored.
//!
//! Not there, as no replica keeps it: whether and when an item was read (`h`, `l`), stale items and
//! their winners (`I`, `N` of mg, `R`, `x`), versions of the client's own (`E`).

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::{Bytes, BytesMut};
use tako_flatbuf::{Condition, Edit, Record};
use tako_types::StoredKey;

use super::{
    super::request::{
        Fields, Next, Operation, Outcome, anyway, delete, expires_at, present_or,
        store as store_as, stored,
    },
    BAD_LINE, Words, number, request, say, slice_of, write_failure, write_number,
};

/// How a meta request is answered.
pub(in super::super) struct Reply {
    kind: Kind,
    /// As it came: maybe in base64.
    key: Bytes,
    /// In the order in which they are answered.
    flags: Vec<Flag>,
    quiet: bool,
    /// Bytes of the value that is stored.
    length: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Get,
    /// `token`: the condition was one, so a value with another one is told from none.
    Set {
        token: bool,
    },
    Delete,
    Arithmetic,
    Debug,
}

struct Flag {
    letter: u8,
    /// What stands behind the letter.
    token: Bytes,
}

/// Of the value behind the line of `ms`.
pub(super) fn length(line: &[u8]) -> Option<Result<usize, &'static [u8]>> {
    let mut words = Words { line, at: 0 }.skip(2);
    Some(words.next().and_then(number).ok_or(b"CLIENT_ERROR bad data chunk\r\n"))
}

/// The words behind a command, read.
struct Arguments {
    key: StoredKey,
    name: Bytes,
    flags: Vec<Flag>,
}

impl Arguments {
    /// `known`: the letters that the command takes.
    fn read(line: &Bytes, skip: usize, known: &[u8]) -> Result<Self, Next> {
        let mut words = Words { line, at: 0 };
        let name = words.nth(1).ok_or_else(|| say(BAD_LINE))?;
        let mut flags = Vec::new();
        for word in words.skip(skip) {
            if !known.contains(&word[0]) {
                let letter = char::from(word[0]);
                let text =
                    format!("CLIENT_ERROR flag {letter} is unknown or not available here\r\n");
                return Err(Next::Say(Bytes::from(text)));
            }
            flags.push(Flag { letter: word[0], token: slice_of(line, &word[1..]) });
        }
        let is_base64 = flags.iter().any(|flag| flag.letter == b'b');
        let key = match is_base64 {
            true => BASE64.decode(name).ok().and_then(|key| stored(&key)),
            false => stored(name),
        };
        let key = key.ok_or_else(|| say(BAD_LINE))?;
        Ok(Self { key, name: slice_of(line, name), flags })
    }

    fn token_of(&self, letter: u8) -> Option<&Bytes> {
        self.flags.iter().find(|flag| flag.letter == letter).map(|flag| &flag.token)
    }

    fn has(&self, letter: u8) -> bool {
        self.token_of(letter).is_some()
    }

    /// The number behind a letter, if it is given.
    fn number_of<T: std::str::FromStr>(&self, letter: u8) -> Result<Option<T>, Next> {
        match self.token_of(letter) {
            None => Ok(None),
            Some(token) => number(token).map(Some).ok_or_else(|| {
                let letter = char::from(letter);
                Next::Say(Bytes::from(format!("CLIENT_ERROR bad token behind flag {letter}\r\n")))
            }),
        }
    }

    fn expiry_of(&self, letter: u8, now_micros: u64) -> Result<Option<u64>, Next> {
        Ok(self.number_of(letter)?.map(|seconds| expires_at(seconds, now_micros)))
    }

    fn request(self, operation: Operation, kind: Kind, length: usize) -> Next {
        let quiet = self.has(b'q');
        let reply = Reply { kind, key: self.name, flags: self.flags, quiet, length };
        request(vec![operation], super::Reply::Meta(reply))
    }
}

pub(super) fn store(line: &Bytes, value: Bytes, now_micros: u64) -> Next {
    stored_as(line, value, now_micros).unwrap_or_else(|said| said)
}

fn stored_as(line: &Bytes, value: Bytes, now_micros: u64) -> Result<Next, Next> {
    let arguments = Arguments::read(line, 1, b"bcCFkMNOqsT")?;
    let token: Option<u64> = arguments.number_of(b'C')?;
    let flags = arguments.number_of(b'F')?.unwrap_or(0);
    let made_expiry = arguments.expiry_of(b'N', now_micros)?;
    let expiry = arguments.expiry_of(b'T', now_micros)?;
    let mode = arguments.token_of(b'M').and_then(|mode| mode.first()).copied();
    let (edit, condition) = match mode.unwrap_or(b'S') {
        b'S' | b's' => (Edit::Write, None),
        b'E' | b'e' => (Edit::Write, Some(Condition::Absent)),
        b'R' | b'r' => (Edit::Write, Some(Condition::Present)),
        b'A' | b'a' => (Edit::Append, Some(Condition::Present)),
        b'P' | b'p' => (Edit::Prepend, Some(Condition::Present)),
        _ => return Err(say(b"CLIENT_ERROR invalid mode for ms\r\n")),
    };
    // With N what is joined is made where there is nothing to join it to.
    let condition = match edit {
        Edit::Append | Edit::Prepend if made_expiry.is_some() => Some(anyway()),
        _ => condition,
    };
    let condition = token.map(Condition::Token).or(condition);
    let expires_at_micros = expiry.or(made_expiry).unwrap_or(0);
    let length = value.len();
    let fields = Fields { flags, expires_at_micros };
    let operation = store_as(arguments.key.clone(), fields, value, edit, condition);
    Ok(arguments.request(operation, Kind::Set { token: token.is_some() }, length))
}

pub(super) fn command(name: &[u8], line: &Bytes, now_micros: u64) -> Next {
    let read = match name {
        b"mn" => return say(b"MN\r\n"),
        b"mg" => get(line, now_micros),
        b"md" => remove(line),
        b"ma" => arithmetic(line, now_micros),
        _ => Arguments::read(line, 0, b"b").map(|arguments| {
            let operation = Operation::Get(arguments.key.clone());
            arguments.request(operation, Kind::Debug, 0)
        }),
    };
    read.unwrap_or_else(|said| said)
}

fn get(line: &Bytes, now_micros: u64) -> Result<Next, Next> {
    let arguments = Arguments::read(line, 0, b"bcfkOqstTv")?;
    let operation = match arguments.expiry_of(b'T', now_micros)? {
        None => Operation::Get(arguments.key.clone()),
        Some(expires_at_micros) => {
            let fields = Fields { flags: 0, expires_at_micros };
            let (key, present) = (arguments.key.clone(), Some(Condition::Present));
            store_as(key, fields, Bytes::new(), Edit::Touch, present)
        }
    };
    Ok(arguments.request(operation, Kind::Get, 0))
}

fn remove(line: &Bytes) -> Result<Next, Next> {
    let arguments = Arguments::read(line, 0, b"bCkOq")?;
    let operation = delete(&arguments.key, arguments.number_of(b'C')?);
    Ok(arguments.request(operation, Kind::Delete, 0))
}

fn arithmetic(line: &Bytes, now_micros: u64) -> Result<Next, Next> {
    let arguments = Arguments::read(line, 0, b"bcCDJkMNOqtv")?;
    let delta = arguments.number_of(b'D')?.unwrap_or(1);
    let initial: u64 = arguments.number_of(b'J')?.unwrap_or(0);
    let token: Option<u64> = arguments.number_of(b'C')?;
    let mode = arguments.token_of(b'M').and_then(|mode| mode.first()).copied();
    let edit = match mode.unwrap_or(b'I') {
        b'I' | b'i' | b'+' => Edit::Add(delta),
        b'D' | b'd' | b'-' => Edit::Subtract(delta),
        _ => return Err(say(b"CLIENT_ERROR invalid mode for ma\r\n")),
    };
    let made_expiry = arguments.expiry_of(b'N', now_micros)?;
    let condition = match (token, made_expiry) {
        (None, Some(_)) => anyway(),
        (token, _) => present_or(token),
    };
    let fields = Fields { flags: 0, expires_at_micros: made_expiry.unwrap_or(0) };
    let value = Bytes::from(initial.to_string());
    let operation = store_as(arguments.key.clone(), fields, value, edit, Some(condition));
    Ok(arguments.request(operation, Kind::Arithmetic, 0))
}

impl Reply {
    pub(super) fn write(&self, outcomes: &[Outcome], now_micros: u64, out: &mut BytesMut) {
        let Some(outcome) = outcomes.first() else { return };
        let (record, token) = match outcome {
            Outcome::Found(record) => (Some(record), record.version().token()),
            Outcome::Written { version, record } => (record.as_ref(), version.token()),
            Outcome::Missing | Outcome::Differs(None) => {
                return self.write_missing(out);
            }
            Outcome::Differs(Some(_)) => {
                let code: &[u8] = match self.kind {
                    Kind::Set { token: false } => b"NS",
                    _ => b"EX",
                };
                return self.write_line(code, None, 0, now_micros, out);
            }
            failure @ (Outcome::Cannot(_)
            | Outcome::Failed(_)
            | Outcome::Refused(_)
            | Outcome::Denied(_)) => {
                return write_failure(failure, out);
            }
        };
        match (self.kind, record) {
            (Kind::Debug, Some(record)) => self.write_debug(record, now_micros, out),
            (Kind::Get | Kind::Arithmetic, Some(record)) if self.has(b'v') => {
                let value = record.value();
                out.extend_from_slice(b"VA ");
                write_number(out, value.len() as u64);
                self.write_flags(Some(record), token, now_micros, out);
                out.extend_from_slice(&value);
                out.extend_from_slice(b"\r\n");
            }
            // What is wanted of a quiet get is what is there.
            (Kind::Get, _) => self.write_line(b"HD", record, token, now_micros, out),
            _ if self.quiet => {}
            _ => self.write_line(b"HD", record, token, now_micros, out),
        }
    }

    fn has(&self, letter: u8) -> bool {
        self.flags.iter().any(|flag| flag.letter == letter)
    }

    fn write_missing(&self, out: &mut BytesMut) {
        match self.kind {
            Kind::Get | Kind::Debug if self.quiet => {}
            Kind::Get | Kind::Debug => out.extend_from_slice(b"EN\r\n"),
            Kind::Set { token: false } => self.write_line(b"NS", None, 0, 0, out),
            Kind::Delete | Kind::Arithmetic if self.quiet => {}
            Kind::Set { .. } | Kind::Delete | Kind::Arithmetic => {
                self.write_line(b"NF", None, 0, 0, out);
            }
        }
    }

    fn write_line(
        &self,
        code: &[u8],
        record: Option<&Record>,
        token: u64,
        now_micros: u64,
        out: &mut BytesMut,
    ) {
        out.extend_from_slice(code);
        self.write_flags(record, token, now_micros, out);
    }

    /// What each flag asks for, and the end of the line.
    fn write_flags(
        &self,
        record: Option<&Record>,
        token: u64,
        now_micros: u64,
        out: &mut BytesMut,
    ) {
        for Flag { letter, token: given } in &self.flags {
            match (letter, record) {
                (b'O', _) => {
                    out.extend_from_slice(b" O");
                    out.extend_from_slice(given);
                }
                (b'k', _) => {
                    out.extend_from_slice(b" k");
                    out.extend_from_slice(&self.key);
                }
                (b'b', _) => out.extend_from_slice(b" b"),
                (b'c', _) if token != 0 => {
                    out.extend_from_slice(b" c");
                    write_number(out, token);
                }
                (b'f', Some(record)) => {
                    out.extend_from_slice(b" f");
                    write_number(out, record.head().flags.into());
                }
                (b's', _) => {
                    out.extend_from_slice(b" s");
                    let length = record.map_or(self.length, |record| record.value().len());
                    write_number(out, length as u64);
                }
                (b't', Some(record)) => {
                    out.extend_from_slice(b" t");
                    write_remaining(record, now_micros, out);
                }
                _ => {}
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn write_debug(&self, record: &Record, now_micros: u64, out: &mut BytesMut) {
        out.extend_from_slice(b"ME ");
        out.extend_from_slice(&self.key);
        out.extend_from_slice(b" exp=");
        write_remaining(record, now_micros, out);
        out.extend_from_slice(b" cas=");
        write_number(out, record.version().token());
        out.extend_from_slice(b" size=");
        write_number(out, record.bytes().len() as u64);
        out.extend_from_slice(format!(" version={}\r\n", record.version()).as_bytes());
    }
}

/// Seconds until the value is gone; -1 for never.
fn write_remaining(record: &Record, now_micros: u64, out: &mut BytesMut) {
    match record.head().expires_at_micros {
        0 => out.extend_from_slice(b"-1"),
        at => write_number(out, at.saturating_sub(now_micros).div_ceil(1_000_000)),
    }
}
