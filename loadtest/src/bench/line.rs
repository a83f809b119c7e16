//! A worker's way to its target: HTTP on a connection of its own, or calls over shared peers.
//!
//! In: a batch of requests, then one question per request, in order. Out: one [`Outcome`] each, in
//! words that no longer tell the ways apart; or a [`LineError`], which is the end of the batch.
//! Not here: what an answer is worth (`load`), the bytes of HTTP (`wire`), the calls (`rpc`).

use std::{sync::Arc, time::Duration};

use tako_flatbuf::Peers;
use tako_types::ErrorKind;

use super::{
    ledger::{Ledger, Listing, Ticket, Violation},
    plan::{End, Plan, Way},
    rpc,
    value::{self, Header},
    wire::{Connection, WireError},
};

/// How often a change begins again as something else came; then it is given up.
const CHANGE_TRIES: u32 = 1000;

/// One request, whichever way it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    /// A read that began when `key` had this floor.
    Read {
        key: u64,
        floor: u64,
    },
    Write {
        ticket: Ticket,
        bytes: usize,
    },
    /// Keys in their order.
    Scan(Listing),
    /// A read, and a write in the place of what was read; again as long as something else came
    /// between them.
    Change {
        ticket: Ticket,
        bytes: usize,
    },
}

impl What {
    pub(crate) fn key(self) -> u64 {
        match self {
            Self::Read { key, .. } => key,
            Self::Write { ticket, .. } | Self::Change { ticket, .. } => ticket.key,
            Self::Scan(listing) => listing.after,
        }
    }

    /// The write that it is or has.
    pub(crate) fn ticket(self) -> Option<Ticket> {
        match self {
            Self::Write { ticket, .. } | Self::Change { ticket, .. } => Some(ticket),
            Self::Read { .. } | Self::Scan(_) => None,
        }
    }
}

/// What a server said to one request.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    /// The key has this value.
    Found(&'a [u8]),
    /// There is no such key.
    Absent,
    /// The write is acknowledged.
    Written,
    /// These keys there are, as the server wrote them.
    Listed(&'a [u8]),
    /// The change is acknowledged.
    Changed {
        /// The floor of the key when what was changed was read.
        floor: u64,
        /// What that was; none: there was no value.
        base: Option<Base>,
        /// How often something else had come before.
        tries: u32,
    },
    /// The server says that it did no such thing, and will not.
    NotDone(String),
    /// Something no right server says.
    Wrong(Violation),
    /// No, or not now; the text is the name under which it is counted.
    Refused(String),
}

/// A value that a change replaced: its header, if it has one, and its length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base {
    pub(crate) header: Option<Header>,
    pub(crate) bytes: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error(transparent)]
    Http(#[from] WireError),
    #[error("RPC {0:?}")]
    Rpc(ErrorKind),
    #[error("connect: no RPC connection")]
    NotConnected,
    #[error("no answer in time")]
    Timeout,
}

/// See the module.
#[derive(Debug)]
pub(crate) enum Line {
    Http(HttpLine),
    Rpc(rpc::Caller),
}

impl Line {
    /// The line of worker `index`; nothing is connected yet. `peers` are those of its thread.
    pub(crate) fn new(way: &Way, index: usize, peers: &Peers) -> Self {
        match way {
            Way::Http(ends) => {
                Self::Http(HttpLine { end: ends[index % ends.len()].clone(), connection: None })
            }
            Way::Rpc(nodes) => Self::Rpc(rpc::Caller::new(nodes, peers)),
        }
    }

    /// Longest time of a batch; `None` where every answer or its lack comes in time by itself.
    pub(crate) fn limit(&self, plan: &Plan) -> Option<Duration> {
        match self {
            Self::Http(_) => Some(plan.timeout),
            // A peer notices a dead connection only by calls that reach their deadline.
            Self::Rpc(_) => None,
        }
    }

    /// Begins a batch. RPC batches have one request (see `plan`), which goes out in
    /// [`Self::answer`].
    pub(crate) async fn begin(
        &mut self,
        plan: &Plan,
        ledger: &Ledger,
        batch: impl Iterator<Item = What>,
    ) -> Result<(), LineError> {
        match self {
            Self::Http(line) => line.begin(plan, ledger, batch).await,
            Self::Rpc(_) => Ok(()),
        }
    }

    /// The answer to the next request of the batch, which is `what`. Not cancel-safe: call
    /// [`Self::break_off`] then, and after an error.
    pub(crate) async fn answer(
        &mut self,
        plan: &Plan,
        ledger: &Ledger,
        what: What,
    ) -> Result<Outcome<'_>, LineError> {
        match self {
            Self::Http(line) => match what {
                What::Change { ticket, bytes } => line.change(plan, ledger, ticket, bytes).await,
                _ => line.answer(what).await,
            },
            Self::Rpc(caller) => caller.call(plan, ledger, what).await,
        }
    }

    /// Gives up a connection whose answers can no longer be matched with requests.
    pub(crate) fn break_off(&mut self) {
        // Calls over a peer have ids: one that was given up harms no other.
        if let Self::Http(line) = self {
            line.connection = None;
        }
    }
}

/// One worker's HTTP.
#[derive(Debug)]
pub(crate) struct HttpLine {
    end: Arc<End>,
    connection: Option<Connection>,
}

impl HttpLine {
    async fn begin(
        &mut self,
        plan: &Plan,
        ledger: &Ledger,
        batch: impl Iterator<Item = What>,
    ) -> Result<(), LineError> {
        let Self { end, connection } = self;
        let connection = match connection {
            Some(connection) if !connection.is_closing() => connection,
            stale => stale.insert(Connection::open(end.addr).await?),
        };
        for what in batch {
            let out = connection.out();
            match what {
                What::Read { key, .. } => end.requests.get(out, key),
                What::Write { ticket, bytes } => {
                    end.requests.put(out, ticket.key, bytes);
                    value::append(out, ledger.header(ticket), plan.seed, bytes);
                }
                What::Scan(Listing { after, limit, .. }) => {
                    end.requests.list(out, after, limit);
                }
                // Goes out in [`Self::change`], as its second half depends on the first.
                What::Change { .. } => {}
            }
        }
        Ok(())
    }

    async fn answer(&mut self, what: What) -> Result<Outcome<'_>, LineError> {
        let connection = self.connection.as_mut().ok_or(WireError::Closed)?;
        let answer = connection.answer().await?;
        Ok(match (what, answer.status) {
            (What::Read { .. }, 200) => Outcome::Found(answer.body),
            (What::Read { .. }, 404) => Outcome::Absent,
            (What::Write { .. }, 200..300) => Outcome::Written,
            (What::Scan(_), 200) => Outcome::Listed(answer.body),
            (_, status) => {
                self.end.tell_refusal(status, answer.body);
                Outcome::Refused(format!("HTTP {status}"))
            }
        })
    }

    /// Reads and writes until nothing came between the two.
    async fn change(
        &mut self,
        plan: &Plan,
        ledger: &Ledger,
        ticket: Ticket,
        bytes: usize,
    ) -> Result<Outcome<'_>, LineError> {
        let Self { end, connection } = self;
        let connection = connection.as_mut().ok_or(WireError::Closed)?;
        for tries in 0..CHANGE_TRIES {
            let floor = ledger.floor(ticket.key);
            end.requests.get(connection.out(), ticket.key);
            let answer = connection.answer().await?;
            let (base, etag) = match answer.status {
                200 => {
                    let Some(etag) = answer.header("etag") else {
                        return Ok(Outcome::NotDone("answer without an ETag".to_owned()));
                    };
                    let header = value::read(answer.body);
                    (Some(Base { header, bytes: answer.body.len() }), Some(etag.to_vec()))
                }
                404 => (None, None),
                status => {
                    end.tell_refusal(status, answer.body);
                    return Ok(Outcome::NotDone(format!("HTTP {status}")));
                }
            };
            let out = connection.out();
            end.requests.put_if(out, ticket.key, etag.as_deref(), bytes);
            value::append(out, ledger.header(ticket), plan.seed, bytes);
            let answer = connection.answer().await?;
            match answer.status {
                200..300 => return Ok(Outcome::Changed { floor, base, tries }),
                412 => {}
                status => {
                    end.tell_refusal(status, answer.body);
                    return Ok(Outcome::Refused(format!("HTTP {status}")));
                }
            }
        }
        Ok(Outcome::NotDone(format!("changed {CHANGE_TRIES} times meanwhile")))
    }
}
