//! PUT and DELETE over the replicas of a key, and the write-back of a read.
//!
//! In a migration there are two sets of replicas. A write goes to all nodes of both and is done when
//! each has its own W; a node in both counts in both. Below, what is said of W holds for each.
//!
//! A plain write is sent at most twice. The first time, a replica that holds something newer only
//! tells how high the next version must be: what it holds may have been complete before this write
//! began (a clock that is ahead wrote it), and then this one must come out on top. So answers of
//! N−W+1 voters are awaited: among these, one holds each write that was complete by then. The
//! second version lies above all they hold; what is newer than *that* was not complete when this
//! write began, so it is concurrent, and this write may be ordered just before it. It is then
//! acknowledged like one that was stored and overwritten, yet only when W replicas durably hold it
//! or something newer, each whichever it is: what overtook it need not be at W of them, but no read
//! of R replicas can find anything older than this write. Sending again until all W take this very
//! version was the other way; there a writer far from the replicas loses to nearer ones for ever.
//!
//! The rule of versions: **a write whose version may have been seen gets no other.** Whoever read it
//! may have written what is newer, and that may be acknowledged; under a higher version this write
//! would come back from below it. So what may have happened between two sendings decides:
//! - the key moved, or too few took or judged it: where no replica took the record, it may go above
//!   whatever is newer, as nobody saw it. Where N−W+1 voters took it, whatever is newer is concurrent and
//!   settles the write. Else it cannot be told which of both it is, and the client is told that the
//!   outcome is unknown ([`OVERTAKEN`]).
//! - nothing: within one sending the second version stands, though a read may have found the first
//!   one at the replica that took it and brought it to others, and another write have followed, all
//!   between two replicas' answers. To refuse there would be to refuse whoever's clock is behind.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use tako_flatbuf::{Record, RecordHead};
use tako_types::{Kind, StoredKey, Version};
use tokio::time::{Instant, sleep, timeout_at};

pub(super) use self::place::Placed;
pub(crate) use self::place::put_until;
use self::place::{Count, TooFew, Trace};
use super::{
    RequestError, Serving,
    attempt::{Attempt, Halt, Level},
    check_levels,
    quorum::Newer,
};

mod place;

/// Pause before a record is written back again that replicas did not take for a promise above it.
pub(super) const BARRED_PAUSE: Duration = Duration::from_millis(100);
/// Times a write is sent again above a promise before the client is told.
const PROMISED_MAX: usize = 4;
/// First pause before a write that too few replicas took is sent again by who is patient; it doubles.
const AGAIN_PAUSE_MIN: Duration = Duration::from_millis(20);
const AGAIN_PAUSE_MAX: Duration = Duration::from_millis(640);
/// Why it is unknown what became of a write whose key moved, or that too few judged, while others wrote
/// the same key.
pub const OVERTAKEN: &str = "it may have been seen, and something newer came meanwhile";

/// A client's write.
#[derive(Debug, Clone)]
pub struct Write {
    /// Where.
    pub key: StoredKey,
    /// Value or tombstone.
    pub kind: Kind,
    /// The value; empty for a tombstone.
    pub value: Bytes,
    /// Content type, if the client gave one.
    pub content_type: Option<String>,
    /// memcached's flags.
    pub flags: u32,
    /// When the value is gone, in microseconds since the epoch; 0 = never.
    pub expires_at_micros: u64,
    /// The client's own timestamp in microseconds; then the greater one wins, whoever has it.
    pub timestamp_micros: Option<u64>,
    /// W for this request: of the replicas that reads ask. In a migration the other set needs as many
    /// of its own, or all where it has fewer.
    pub w: Option<usize>,
}

impl Write {
    fn head(&self, version: Version) -> RecordHead {
        RecordHead {
            version,
            kind: self.kind,
            expires_at_micros: self.expires_at_micros,
            flags: self.flags,
        }
    }
}

/// What a write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The version that holds now: the write's own, or the newer one it lost against.
    pub version: Version,
    /// Did this write win?
    pub won: bool,
}

/// Whether a write that too few replicas took is sent again.
enum Patience {
    None,
    /// After this pause.
    Pause(Duration),
}

/// Whose version a record bears that is being placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamp {
    /// Ours: where something newer is held or promised, it gets another.
    Own,
    /// The client's: it wins or loses as it is. A promise is no record it could lose against.
    Client,
    /// That of a record which was read: promises stop it for a moment only.
    WriteBack,
}

/// What came of a record that was written back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WrittenBack {
    /// As many hold it.
    Done,
    /// As many hold it or something newer, and one does something newer.
    Overtaken,
    /// Too many promised a change above it, a moment ago.
    Barred,
}

impl Serving {
    /// Writes a record to W replicas and answers; the other replicas get it behind the answer.
    ///
    /// # Errors
    /// [`RequestError`]; on `TooFewAcks` and `Deadline` the write may have happened.
    pub async fn put(&self, write: Write, deadline: Duration) -> Result<Written, RequestError> {
        self.put_with(write, deadline, Patience::None).await
    }

    /// As [`Self::put`], but where too few replicas take the write, it is sent again and again until
    /// the deadline, as the same write: so no repeat of it can bury what followed it.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn put_patiently(
        &self,
        write: Write,
        deadline: Duration,
    ) -> Result<Written, RequestError> {
        self.put_with(write, deadline, Patience::Pause(AGAIN_PAUSE_MIN)).await
    }

    async fn put_with(
        &self,
        write: Write,
        deadline: Duration,
        patience: Patience,
    ) -> Result<Written, RequestError> {
        let begun = Instant::now();
        let until = begun + deadline;
        let put = timeout_at(until, self.put_before(&write, until, patience)).await;
        let put = put.unwrap_or(Err(RequestError::Deadline(deadline)));
        self.metrics.write_latency.record(begun.elapsed(), put.is_ok());
        put
    }

    async fn put_before(
        &self,
        write: &Write,
        until: Instant,
        mut patience: Patience,
    ) -> Result<Written, RequestError> {
        self.metrics.writes.fetch_add(1, Ordering::Relaxed);
        let begun_micros = self.clock.now_micros();
        let mut attempt = Attempt::begin(&self.links, &write.key, begun_micros, until);
        check_levels(attempt.placement().read.quorum, None, write.w)?;
        let stamp = write.timestamp_micros.map_or(Stamp::Own, |_| Stamp::Client);
        let mut version = match write.timestamp_micros {
            Some(micros) => {
                let unstamped = write.head(Version::ZERO);
                let content_type = write.content_type.as_deref();
                let origin = Record::client_origin(&unstamped, content_type, &write.value);
                let version = Version { micros, origin };
                self.clock.check(version)?;
                version
            }
            None => {
                self.check_clock()?;
                self.issue().await?
            }
        };
        // A client's own timestamp is never changed: whatever is newer wins.
        let mut newer = if stamp == Stamp::Own { Newer::Refuses } else { Newer::Settles };
        let mut promised = 0;
        // Replicas may hold it under the version that it has, from before it began again.
        let mut seen: Option<Count> = None;
        loop {
            let content_type = write.content_type.as_deref();
            let record =
                Record::encode(&write.key, write.head(version), content_type, &write.value);
            let how = (stamp, newer);
            match (self.place(&attempt, record, write.w.into(), how).await, seen) {
                // The same write: its version stays, and what it knows of others' writes as well.
                (Placed::Moved(trace), _) => {
                    attempt = attempt.begin_again(&self.links)?;
                    trace.note(&mut seen, &mut newer);
                }
                (Placed::Done, _) => return Ok(Written { version, won: true }),
                (Placed::Superseded(winner), _) if newer == Newer::Settles => {
                    return Ok(Written { version: winner, won: false });
                }
                // See the module: under another version it could come back from below what followed.
                (Placed::Superseded(_) | Placed::Promised(_), Some(count))
                | (Placed::InDoubt(count), _) => return Err(in_doubt(count)),
                // A promise is no record: nothing is held that this write could settle for.
                (Placed::Promised(_), _) if promised == PROMISED_MAX => {
                    return Err(RequestError::Contended);
                }
                (Placed::Promised(ballot), _) => {
                    promised += 1;
                    version = self.above(ballot).await?;
                }
                (Placed::Superseded(winner), _) => {
                    version = self.above(winner).await?;
                    newer = Newer::Settles;
                }
                (Placed::TooFew(few), _) => {
                    few.trace.note(&mut seen, &mut newer);
                    let Some(pause) = patience.next_pause(until) else {
                        return Err(few.into_write_error());
                    };
                    tracing::debug!(?version, "a write is sent again: {}", few.reason);
                    sleep(pause).await;
                    attempt = attempt.once_more(&self.links);
                }
            }
        }
    }

    /// A version of ours above another.
    pub(super) async fn above(&self, other: Version) -> Result<Version, RequestError> {
        self.metrics.restamps.fetch_add(1, Ordering::Relaxed);
        match self.clock.observe(other) {
            Ok(()) => self.issue().await,
            // Somebody's broken clock; it has an origin of its own, so no ceiling is needed.
            Err(_) => Ok(self.clock.above(other)),
        }
    }

    /// Writes a record as it is to W replicas of each set: what was found damaged elsewhere.
    /// `found_micros`: by this node's clock, from before it was looked for.
    ///
    /// # Errors
    /// [`RequestError`]; it may be at some replicas then.
    pub async fn repair(
        &self,
        record: Record,
        found_micros: u64,
        deadline: Duration,
    ) -> Result<(), RequestError> {
        let until = Instant::now() + deadline;
        let work = async {
            let mut attempt = Attempt::begin(&self.links, &record.key(), found_micros, until);
            loop {
                match self.write_back(&attempt, record.clone(), Level::Usual).await {
                    Ok(WrittenBack::Done | WrittenBack::Overtaken) => return Ok(()),
                    Ok(WrittenBack::Barred) => sleep(BARRED_PAUSE).await,
                    Err(Halt::Failed(error)) => return Err(error),
                    Err(Halt::Moved) => attempt = attempt.begin_again(&self.links)?,
                }
            }
        };
        match timeout_at(until, work).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::Deadline(deadline)),
        }
    }

    /// Writes a record that was read to as many of each set, before it counts as what is there.
    pub(super) async fn write_back(
        &self,
        attempt: &Attempt,
        record: Record,
        level: Level,
    ) -> Result<WrittenBack, Halt<RequestError>> {
        self.metrics.write_backs.fetch_add(1, Ordering::Relaxed);
        let how = (Stamp::WriteBack, Newer::Settles);
        match self.place(attempt, record, level, how).await {
            Placed::Done => Ok(WrittenBack::Done),
            Placed::Superseded(_) => Ok(WrittenBack::Overtaken),
            Placed::Promised(_) => Ok(WrittenBack::Barred),
            Placed::Moved(_) => Err(Halt::Moved),
            Placed::TooFew(TooFew { count: Count { got, need }, reason, .. }) => {
                Err(RequestError::TooFewVotes { got, need, reason }.into())
            }
            Placed::InDoubt(Count { got, need }) => {
                let reason = OVERTAKEN.to_owned();
                Err(RequestError::TooFewVotes { got, need, reason }.into())
            }
        }
    }
}

impl Patience {
    /// How long to wait before a write is sent again; `None`: not at all.
    fn next_pause(&mut self, until: Instant) -> Option<Duration> {
        let Self::Pause(pause) = self else { return None };
        let this = *pause;
        *pause = (2 * this).min(AGAIN_PAUSE_MAX);
        // Else the deadline would be all that the client is told.
        (Instant::now() + this < until).then_some(this)
    }
}

impl Trace {
    /// What a write has to know of it before it is sent again.
    fn note(self, seen: &mut Option<Count>, newer: &mut Newer) {
        match self {
            Self::None => {}
            Self::Some(count) => *seen = Some(count),
            Self::Newest(count) => (*seen, *newer) = (Some(count), Newer::Settles),
        }
    }
}

impl TooFew {
    fn into_write_error(self) -> RequestError {
        let Self { count: Count { got, need }, reason, busy, .. } = self;
        match busy {
            true => RequestError::Busy(reason),
            false => RequestError::TooFewAcks { got, need, reason },
        }
    }
}

fn in_doubt(Count { got, need }: Count) -> RequestError {
    RequestError::TooFewAcks { got, need, reason: OVERTAKEN.to_owned() }
}
