//! get, set and their like: from a line to operations, and what they came to as lines.

use bytes::{Bytes, BytesMut};
use tako_flatbuf::{Condition, Edit};

use super::{
    super::request::{
        Fields, Next, Operation, Outcome, delete, expires_at, present_or, store as store_as, stored,
    },
    BAD_LINE, ERROR, Words, is_key, number, request, say, slice_of, write_failure, write_number,
};

const BAD_EXPTIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";

/// How a classic request is answered.
pub(in super::super) enum Reply {
    Values { keys: Vec<Bytes>, tokens: bool },
    Written { written: &'static [u8], differs: Differs, quiet: bool },
    Number { quiet: bool },
}

/// What is said where a condition did not hold.
#[derive(Clone, Copy)]
pub(in super::super) enum Differs {
    NotStored,
    NotFound,
    /// `NOT_FOUND` without a value, `EXISTS` with another one.
    Exists,
}

/// Of the value behind the line of a storage command.
pub(super) fn length(line: &[u8]) -> Option<Result<usize, &'static [u8]>> {
    let mut words = Words { line, at: 0 }.skip(4);
    Some(words.next().and_then(number).ok_or(BAD_LINE))
}

pub(super) fn store(line: &Bytes, value: Bytes, now_micros: u64) -> Next {
    let words: Vec<&[u8]> = Words { line, at: 0 }.collect();
    let (name, arguments) = (words[0], &words[1..]);
    let is_cas = name == b"cas";
    let count = 4 + usize::from(is_cas);
    let quiet = match arguments.len() {
        n if n == count => false,
        n if n == count + 1 && arguments[count] == b"noreply" => true,
        _ => return say(BAD_LINE),
    };
    let token = if is_cas { number::<u64>(arguments[4]) } else { None };
    let (Some(flags), Some(seconds)) = (number(arguments[1]), number(arguments[2])) else {
        return say(BAD_LINE);
    };
    let Some(key) = stored(arguments[0]).filter(|_| !is_cas || token.is_some()) else {
        return say(BAD_LINE);
    };
    let (edit, condition, differs) = match name {
        b"add" => (Edit::Write, Some(Condition::Absent), Differs::NotStored),
        b"replace" => (Edit::Write, Some(Condition::Present), Differs::NotStored),
        b"append" => (Edit::Append, Some(Condition::Present), Differs::NotStored),
        b"prepend" => (Edit::Prepend, Some(Condition::Present), Differs::NotStored),
        b"cas" => (Edit::Write, token.map(Condition::Token), Differs::Exists),
        _ => (Edit::Write, None, Differs::NotStored),
    };
    let fields = Fields { flags, expires_at_micros: expires_at(seconds, now_micros) };
    let reply = Reply::Written { written: b"STORED\r\n", differs, quiet };
    one(store_as(key, fields, value, edit, condition), reply)
}

pub(super) fn command(name: &[u8], line: &Bytes, now_micros: u64) -> Next {
    let mut words = Words { line, at: 0 };
    words.next();
    match name {
        b"get" | b"gets" => read(line, words, name == b"gets", None),
        b"gat" | b"gats" => match words.next().and_then(number) {
            Some(seconds) => {
                read(line, words, name == b"gats", Some(expires_at(seconds, now_micros)))
            }
            None => say(BAD_EXPTIME),
        },
        b"stats" => {
            let group = words.next().map(|word| slice_of(line, word)).unwrap_or_default();
            let reply = super::super::request::Reply::Text(super::Reply::Stats);
            Next::Stats { group, reply }
        }
        b"version" => say(super::super::stats::VERSION_LINE),
        b"verbosity" => match words.next() {
            None => say(ERROR),
            Some(level) if level == b"noreply" || ends_quietly(words) => say(b""),
            Some(level) if number::<u32>(level).is_none() => say(BAD_LINE),
            Some(_) => say(b"OK\r\n"),
        },
        b"flush_all" => flush(words),
        b"quit" if words.next().is_none() => Next::End(Bytes::new()),
        b"quit" => say(ERROR),
        b"delete" | b"incr" | b"decr" | b"touch" => change(name, words, now_micros),
        _ => say(ERROR),
    }
}

fn flush(words: Words<'_>) -> Next {
    let mut arguments: Vec<&[u8]> = words.collect();
    let quiet = arguments.last().is_some_and(|last| *last == b"noreply");
    if quiet {
        arguments.pop();
    }
    match arguments.as_slice() {
        [] | [b"0"] => {
            let differs = Differs::NotStored;
            let reply = Reply::Written { written: b"OK\r\n", differs, quiet };
            Next::Flush(super::super::request::Reply::Text(super::Reply::Classic(reply)))
        }
        [delay] if number::<u64>(delay).is_some() => {
            say(b"CLIENT_ERROR flush_all takes no delay here: send it when it is to be done\r\n")
        }
        _ => say(BAD_LINE),
    }
}

fn ends_quietly(words: Words<'_>) -> bool {
    words.last() == Some(b"noreply")
}

fn read(line: &Bytes, words: Words<'_>, tokens: bool, expires: Option<u64>) -> Next {
    let (mut operations, mut keys) = (Vec::new(), Vec::new());
    for word in words {
        let Some(key) = stored(word) else { return say(BAD_LINE) };
        operations.push(match expires {
            None => Operation::Get(key),
            Some(expires_at_micros) => {
                let fields = Fields { flags: 0, expires_at_micros };
                store_as(key, fields, Bytes::new(), Edit::Touch, Some(Condition::Present))
            }
        });
        keys.push(slice_of(line, word));
    }
    if keys.is_empty() {
        return say(ERROR);
    }
    request(operations, super::Reply::Classic(Reply::Values { keys, tokens }))
}

fn change(name: &[u8], words: Words<'_>, now_micros: u64) -> Next {
    let mut arguments: Vec<&[u8]> = words.collect();
    let quiet = arguments.len() > 1 && arguments.last().is_some_and(|last| *last == b"noreply");
    if quiet {
        arguments.pop();
    }
    let Some(key) = arguments.first().filter(|word| is_key(word)).and_then(|word| stored(word))
    else {
        return say(if arguments.is_empty() { ERROR } else { BAD_LINE });
    };
    let deleted = Reply::Written { written: b"DELETED\r\n", differs: Differs::NotFound, quiet };
    let touched = Reply::Written { written: b"TOUCHED\r\n", differs: Differs::NotFound, quiet };
    match (name, &arguments[1..]) {
        // memcached's delete once had a time, and only 0 is known still.
        (b"delete", [] | [b"0"]) => one(delete(&key, None), deleted),
        (b"incr" | b"decr", [amount]) => {
            let Some(amount) = number(amount) else {
                return say(b"CLIENT_ERROR invalid numeric delta argument\r\n");
            };
            let edit = if name == b"incr" { Edit::Add(amount) } else { Edit::Subtract(amount) };
            let fields = Fields { flags: 0, expires_at_micros: 0 };
            let operation = store_as(key, fields, Bytes::new(), edit, Some(present_or(None)));
            one(operation, Reply::Number { quiet })
        }
        (b"touch", [seconds]) => {
            let Some(seconds) = number(seconds) else { return say(BAD_EXPTIME) };
            let fields = Fields { flags: 0, expires_at_micros: expires_at(seconds, now_micros) };
            let condition = Some(present_or(None));
            one(store_as(key, fields, Bytes::new(), Edit::Touch, condition), touched)
        }
        _ => say(BAD_LINE),
    }
}

fn one(operation: Operation, reply: Reply) -> Next {
    request(vec![operation], super::Reply::Classic(reply))
}

impl Reply {
    pub(super) fn write(&self, outcomes: &[Outcome], out: &mut BytesMut) {
        match (self, outcomes) {
            (Self::Values { keys, tokens }, outcomes) => {
                for (key, outcome) in keys.iter().zip(outcomes) {
                    let record = match outcome {
                        Outcome::Found(record) | Outcome::Written { record: Some(record), .. } => {
                            record
                        }
                        _ => continue,
                    };
                    let value = record.value();
                    out.extend_from_slice(b"VALUE ");
                    out.extend_from_slice(key);
                    out.extend_from_slice(b" ");
                    write_number(out, record.head().flags.into());
                    out.extend_from_slice(b" ");
                    write_number(out, value.len() as u64);
                    if *tokens {
                        out.extend_from_slice(b" ");
                        write_number(out, record.version().token());
                    }
                    out.extend_from_slice(b"\r\n");
                    out.extend_from_slice(&value);
                    out.extend_from_slice(b"\r\n");
                }
                let is_failure = |it: &&Outcome| {
                    matches!(it, Outcome::Failed(_) | Outcome::Cannot(_) | Outcome::Denied(_))
                };
                match outcomes.iter().find(is_failure) {
                    // The end of the list would say that the others are not there.
                    Some(failure) => write_failure(failure, out),
                    None => out.extend_from_slice(b"END\r\n"),
                }
            }
            // Who wants no answer gets none, whatever came of it.
            (Self::Written { quiet: true, .. } | Self::Number { quiet: true }, [outcome]) => {
                if matches!(outcome, Outcome::Failed(_)) {
                    tracing::debug!(?outcome, "a request without an answer");
                }
            }
            (Self::Written { written, .. }, [Outcome::Written { .. }]) => {
                out.extend_from_slice(written);
            }
            (Self::Written { differs, .. }, [Outcome::Differs(version)]) => {
                out.extend_from_slice(match (differs, version) {
                    (Differs::NotStored, _) => b"NOT_STORED\r\n",
                    (Differs::Exists, Some(_)) => b"EXISTS\r\n",
                    (Differs::NotFound | Differs::Exists, _) => b"NOT_FOUND\r\n",
                });
            }
            (Self::Number { .. }, [Outcome::Written { record: Some(record), .. }]) => {
                out.extend_from_slice(&record.value());
                out.extend_from_slice(b"\r\n");
            }
            (Self::Number { .. }, [Outcome::Differs(_)]) => {
                out.extend_from_slice(b"NOT_FOUND\r\n");
            }
            (_, outcomes) => write_failure(outcomes.first().unwrap_or(&Outcome::Missing), out),
        }
    }
}
