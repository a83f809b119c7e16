//! The messages themselves. No codec, no I/O.

use bytes::Bytes;
use tako_types::{
    ClusterId, Epoch, Incarnation, Lsn, NodeId, PartitionId, RecordStat, StepNumber, StoredKey,
    Version,
};

use crate::Record;

/// What every request carries besides its body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallHead {
    /// Unique among the calls in flight on one connection; the answer repeats it.
    pub id: u64,
    /// Number of the caller's epoch; 0 where it has none yet.
    pub epoch: u64,
    /// Milliseconds the caller will wait; 0 stands for the server's own bound.
    pub deadline_ms: u32,
    /// W3C `traceparent`, where the call is traced.
    pub trace_parent: Option<String>,
}

/// What one node asks of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// First frame on a connection: who calls.
    Hello {
        /// The cluster the caller belongs to, where it knows.
        cluster: Option<ClusterId>,
        /// The caller.
        node: NodeId,
        /// [`crate::PROTOCOL`] of the caller.
        protocol: u32,
    },
    /// Hold this record.
    Put {
        /// Partition of the key.
        partition: PartitionId,
        /// The record.
        record: Record,
        /// True for a write-back: promises do not stop it.
        repair: bool,
        /// Not to be taken after this time of the replica's clock, in microseconds since 1970: a
        /// frame may lie in a stopped machine's buffers for days. 0: whenever it comes.
        until_micros: u64,
    },
    /// First round of a conditional write: promise to take nothing below the ballot, and say what
    /// is held.
    Prepare {
        /// Partition of the key.
        partition: PartitionId,
        /// The key.
        key: StoredKey,
        /// Never used before, and by nobody else.
        ballot: Version,
    },
    /// Second round: hold this record in place of what the prepare quorum showed.
    Accept {
        /// Partition of the key.
        partition: PartitionId,
        /// Highest version that the prepare quorum showed; [`Version::ZERO`] for no record.
        base: Version,
        /// The record; its version is the ballot.
        record: Record,
    },
    /// Change a key if a condition holds of what it has now.
    Change {
        /// Partition of the key.
        partition: PartitionId,
        /// The condition.
        condition: Condition,
        /// What to write; its version counts for nothing.
        /// From what is there to what is written.
        edit: Edit,
        /// What to write, or with; under no version yet.
        record: Record,
    },
    /// The replica's whole vote; reads the snapshot where needed.
    Get {
        /// Partition of the key.
        partition: PartitionId,
        /// The key.
        key: StoredKey,
    },
    /// Versions only.
    Stat {
        /// Partition of all the keys.
        partition: PartitionId,
        /// At most `TAIL_ENTRIES_MAX`.
        keys: Vec<StoredKey>,
        /// True: the whole vote; false: the memory index only.
        merged: bool,
    },
    /// Journal entries of a partition above an LSN.
    Tail {
        /// Which partition.
        partition: PartitionId,
        /// Exclusive.
        after: Lsn,
        /// Of `after`; another one than the callee's means "from the start".
        incarnation: Incarnation,
        /// Who pulls.
        puller: NodeId,
        /// The puller's data folder.
        puller_incarnation: Incarnation,
    },
    /// The newest uncovered records of these keys.
    Fetch {
        /// Partition of all the keys.
        partition: PartitionId,
        /// At most `TAIL_ENTRIES_MAX`.
        keys: Vec<StoredKey>,
    },
    /// What the caller is and holds.
    Gossip(GossipState),
    /// A step was committed.
    Step(StepAnnouncement),
    /// Commit a step of this partition now.
    ForceStep {
        /// Which partition.
        partition: PartitionId,
    },
    /// The configuration, if its number is above this one.
    Configuration {
        /// Number of the caller's epoch.
        above: u64,
    },
    /// Is the node there, and in which state?
    Health,
    /// What a migration's driver must know of the node.
    Standing {
        /// First partition of the page.
        from: PartitionId,
    },
    /// Scrub, or tell how it goes.
    Scrub(ScrubOrder),
    /// Compare what is cached with what a step was read to hold.
    Audit {
        /// Partition of all the keys.
        partition: PartitionId,
        /// The step.
        step: StepNumber,
        /// Digests of keys, each with the version that the step holds; at most
        /// `TAIL_ENTRIES_MAX`.
        held: Vec<(u64, Version)>,
    },
    /// What there is of a partition.
    List {
        /// Which partition.
        partition: PartitionId,
        /// Which of its keys.
        query: ListingQuery,
    },
}

/// What the other node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::Hello`].
    Hello {
        /// The cluster the callee belongs to, where it knows.
        cluster: Option<ClusterId>,
        /// The callee.
        node: NodeId,
        /// The callee's data folder.
        incarnation: Incarnation,
    },
    /// To [`Request::Put`].
    Put(PutOutcome),
    /// To [`Request::Prepare`].
    Prepare(PrepareOutcome),
    /// To [`Request::Accept`].
    Accept(PutOutcome),
    /// To [`Request::Change`]. An error that is not `Unavailable` or `Deadline` says that nothing was
    /// done, and so does one with [`RpcError::NOTHING_DONE`].
    ///
    /// [`RpcError::NOTHING_DONE`]: crate::RpcError::NOTHING_DONE
    Change(ChangeOutcome),
    /// To [`Request::Get`].
    Get {
        /// The vote; `None` when the replica holds nothing.
        record: Option<Record>,
        /// The step the replica sees.
        step: StepNumber,
        /// The record is what the snapshot shows at that step: no uncovered entry took part.
        covered: bool,
        /// False while the replica recovers: the answer is no vote.
        voting: bool,
    },
    /// To [`Request::Stat`], one answer per key, in order.
    Stat {
        /// The answers.
        answers: Vec<StatAnswer>,
        /// The step the replica sees.
        step: StepNumber,
        /// False while the replica recovers.
        voting: bool,
    },
    /// To [`Request::Tail`].
    Tail {
        /// Of `upto` and of the entries.
        incarnation: Incarnation,
        /// All entries of the partition up to here are in the answers so far.
        upto: Lsn,
        /// The step the replica sees.
        step: StepNumber,
        /// True when nothing uncovered is held or in flight.
        covered: bool,
        /// The callee's state.
        state: NodeState,
        /// Ascending by LSN; at most `TAIL_ENTRIES_MAX`.
        entries: Vec<TailEntry>,
        /// True when there is more to ask for.
        more: bool,
        /// Highest ballot that the replica promised in the partition, forgotten ones included;
        /// [`Version::ZERO`] for none that still matters.
        promised: Version,
    },
    /// To [`Request::Fetch`]; keys without an uncovered record are left out.
    Fetch {
        /// In the order of the keys.
        records: Vec<Record>,
        /// True when the answer was cut by bytes.
        more: bool,
    },
    /// To [`Request::Gossip`].
    Gossip(GossipState),
    /// To [`Request::Step`].
    Step {
        /// The step now seen.
        step: StepNumber,
    },
    /// To [`Request::ForceStep`].
    ForceStep {
        /// The step that was committed.
        step: StepNumber,
    },
    /// To [`Request::Configuration`].
    Configuration {
        /// The source document; `None` when there is none above.
        document: Option<Bytes>,
    },
    /// To [`Request::Health`].
    Health {
        /// The callee's state.
        state: NodeState,
    },
    /// To [`Request::Standing`].
    Standing(Standing),
    /// To [`Request::Scrub`].
    Scrub(ScrubReport),
    /// To [`Request::List`].
    List(Listing),
    /// To [`Request::Audit`].
    Audit(AuditAnswer),
}

/// What a replica did with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// It is in the journal.
    Accepted {
        /// The replica's data folder.
        incarnation: Incarnation,
        /// False while the replica recovers.
        voting: bool,
        /// Data folders the replica knows of.
        known: Vec<(NodeId, Incarnation)>,
    },
    /// The replica holds a higher version.
    Superseded {
        /// That version.
        version: Version,
    },
    /// A promise stands in the way: send again above this version. No record of it need exist.
    Promised {
        /// The ballot promised, or one above all that may have been.
        version: Version,
    },
}

/// What a replica says to a ballot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrepareOutcome {
    /// It takes no plain write and no Accept below the ballot any more.
    Promised {
        /// The replica's data folder.
        incarnation: Incarnation,
        /// Data folders the replica knows of: the promise of an older one is void.
        known: Vec<(NodeId, Incarnation)>,
        /// The vote; `None` when the replica holds nothing.
        record: Option<Record>,
        /// The step the replica sees.
        step: StepNumber,
        /// The record is what the snapshot shows at that step.
        covered: bool,
        /// Promises are given by voting replicas only.
        voting: bool,
    },
    /// The replica holds or promised a version that is not below the ballot.
    Refused {
        /// That version: the next ballot must be above it.
        version: Version,
    },
}

/// What must hold of a key's value for a change to be made. A tombstone and an expired value are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is no value.
    Absent,
    /// There is one.
    Present,
    /// There is one with one of these versions; at most `CONDITION_VERSIONS_MAX`.
    OneOf(Vec<Version>),
    /// There is none with one of these versions; at most `CONDITION_VERSIONS_MAX`.
    NoneOf(Vec<Version>),
    /// There is one whose version has this [`Version::token`].
    Token(u64),
}

impl Condition {
    /// Whether it holds where the value has this version, or there is none.
    #[must_use]
    pub fn holds(&self, live: Option<Version>) -> bool {
        match self {
            Self::Absent => live.is_none(),
            Self::Present => live.is_some(),
            Self::OneOf(versions) => live.is_some_and(|live| versions.contains(&live)),
            Self::NoneOf(versions) => live.is_none_or(|live| !versions.contains(&live)),
            Self::Token(token) => live.is_some_and(|live| live.token() == *token),
        }
    }
}

/// How a change makes what is written. Where there is no value, the record is written as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// The record.
    Write,
    /// Its value behind what is there.
    Append,
    /// Its value before what is there.
    Prepend,
    /// What is there as a decimal number, and this much more, modulo 2^64.
    Add(u64),
    /// What is there as a decimal number, and this much less, at least 0.
    Subtract(u64),
    /// What is there, with the record's time of expiry.
    Touch,
    /// What is there as [`crate::Siblings`], changed as the record's value says, a
    /// [`crate::StoreOrder`].
    Store,
}

impl Edit {
    /// Whether who asked is told the record that was made: it is another than what was sent, and wanted.
    #[must_use]
    pub fn tells(self) -> bool {
        matches!(self, Self::Add(_) | Self::Subtract(_) | Self::Touch)
    }
}

/// Why what is there cannot be edited so; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// It is no decimal number below 2^64, or no siblings.
    NoNumber,
    /// The value would be longer than the cluster allows.
    TooLong,
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// It was made.
    Done {
        /// The record's version.
        version: Version,
        /// The record, where the edit tells it.
        record: Option<Record>,
    },
    /// The condition holds, and what is there cannot be edited so.
    Cannot(Misfit),
    /// The condition does not hold; nothing was changed.
    Fails {
        /// Of the value that there is; `None` for none.
        version: Option<Version>,
    },
    /// It may have been made: whoever asked must look.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// A replica's answer for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatAnswer {
    /// `None`: no record. [`Version::ZERO`] cannot be told from `None` on the wire.
    pub version: Option<Version>,
    /// The record's checksum; 0 without a record.
    pub crc: u32,
}

/// One journal entry, without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailEntry {
    /// Its number.
    pub lsn: Lsn,
    /// Its key.
    pub key: StoredKey,
    /// Its record's version.
    pub version: Version,
    /// Its record's checksum.
    pub crc: u32,
}

impl TailEntry {
    /// Bytes this entry takes in a head; sum them to stay below `FRAME_HEAD_BYTES_MAX`.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        self.key.as_bytes().len() + 4 + 8 + 16 + 4
    }
}

/// What a node may do; unknown numbers on the wire read as `Starting`, which does least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum NodeState {
    /// Answers nothing but Hello, Health and Gossip.
    #[default]
    Starting = 0,
    /// Takes writes, does not vote.
    Recovering = 1,
    /// Does everything.
    Serving = 2,
    /// Finishes what it has, takes nothing new.
    Draining = 3,
}

impl NodeState {
    /// Reads a state from its number.
    #[must_use]
    pub fn from_wire(number: u8) -> Self {
        match number {
            1 => Self::Recovering,
            2 => Self::Serving,
            3 => Self::Draining,
            _ => Self::Starting,
        }
    }
}

/// What a node tells of itself each second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GossipState {
    /// Who speaks.
    pub node: NodeId,
    /// Its data folder.
    pub incarnation: Incarnation,
    /// What it may do.
    pub state: NodeState,
    /// Its wall clock, microseconds since the Unix epoch.
    pub clock_micros: u64,
    /// Its configuration.
    pub epoch: Epoch,
    /// Requests in progress.
    pub load: u32,
    /// Data folders it knows of.
    pub known: Vec<(NodeId, Incarnation)>,
    /// One entry per partition it holds; at most `PARTITIONS_MAX`.
    pub partitions: Vec<PartitionGossip>,
}

/// What a node tells of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionGossip {
    /// Which one.
    pub partition: PartitionId,
    /// Newest version held.
    pub newest: Version,
    /// Last journal entry.
    pub last_lsn: Lsn,
    /// The step it sees.
    pub step: StepNumber,
    /// True when nothing uncovered is held.
    pub covered: bool,
    /// True when it writes the partition's snapshot.
    pub snapshotter: bool,
}

/// A committed step, as the snapshotter tells the replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepAnnouncement {
    /// Of which partition.
    pub partition: PartitionId,
    /// The step.
    pub step: StepNumber,
    /// The snapshot's manifest that holds it.
    pub manifest: u64,
    /// The checkpoint (UUID) that keeps the manifest alive.
    pub checkpoint: u128,
    /// Highest version in the snapshot.
    pub highest: Version,
    /// What the snapshot holds of each node's journal.
    pub coverage: Vec<(NodeId, Incarnation, Lsn)>,
    /// The step before.
    pub previous: StepNumber,
    /// Key digests this replica may lack; `None`: forget all that is cached.
    pub missed: Option<Vec<u64>>,
}

/// What a migration's driver must know of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whose data its store has; `None` from an older release.
    pub cluster: Option<ClusterId>,
    /// Number of the node's epoch, durable there: it takes nothing of a lower one any more.
    pub epoch: u64,
    /// The epoch at whose adoption the LSNs were noted; 0 when none are.
    pub noted: u64,
    /// Its state.
    pub state: NodeState,
    /// Its data folder; all LSNs but those of coverage are of this one.
    pub incarnation: Incarnation,
    /// What it holds, ascending by partition.
    pub partitions: Vec<PartitionStanding>,
    /// True when there are partitions after these.
    pub more: bool,
}

/// What a node holds of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStanding {
    /// Which.
    pub partition: PartitionId,
    /// Whether the document has it there; else it only keeps what no step has covered.
    pub holder: bool,
    /// Its last uncovered entry when it adopted [`Standing::noted`]: what a barrier must cover.
    /// `None` until it is noted, which waits for what came before and for lost state.
    pub adopted_lsn: Option<Lsn>,
    /// Its last uncovered entry; 0 for none.
    pub last_lsn: Lsn,
    /// Step of its view.
    pub step: StepNumber,
    /// Keys with an uncovered entry.
    pub uncovered: u64,
    /// It lost nothing that it acknowledged.
    pub recovered: bool,
    /// It votes.
    pub voting: bool,
    /// What its view says of each node.
    pub coverage: Vec<(NodeId, Incarnation, Lsn)>,
}

/// What a node is to scrub.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScrubOrder {
    /// False: only tell how it goes; the rest says nothing then.
    pub start: bool,
    /// Partitions whose snapshots are read; at most `PARTITIONS_MAX`.
    pub partitions: Vec<PartitionId>,
    /// The node's own journal files too.
    pub journal: bool,
    /// What lies in the store and belongs to nothing.
    pub orphans: OrphanOrder,
}

/// What to do about orphans; unknown numbers on the wire read as `Leave`, which does least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum OrphanOrder {
    /// Do not look.
    #[default]
    Leave = 0,
    /// Find them.
    Find = 1,
    /// Find them, and delete those that are old enough.
    Delete = 2,
}

impl OrphanOrder {
    /// Reads an order from its number.
    #[must_use]
    pub fn from_wire(number: u8) -> Self {
        match number {
            1 => Self::Find,
            2 => Self::Delete,
            _ => Self::Leave,
        }
    }
}

/// What a node has scrubbed, and what it found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScrubReport {
    /// Asked for and not read to the end yet, in their order.
    pub waiting: Vec<PartitionId>,
    /// The journal is waited for.
    pub journal_waiting: bool,
    /// Orphans are looked for.
    pub orphans_waiting: bool,
    /// The last pass over each partition here, ascending; at most `PARTITIONS_MAX`.
    pub partitions: Vec<PartitionScrub>,
    /// The last pass over the journal.
    pub journal: JournalScrub,
    /// The last search for orphans.
    pub orphans: OrphanReport,
    /// What was found lately, in words.
    pub findings: Vec<String>,
}

/// One pass over a partition's snapshot. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionScrub {
    /// Which.
    pub partition: PartitionId,
    /// It goes on.
    pub running: bool,
    /// Every row was read, or was found unreadable.
    pub whole: bool,
    /// When it began.
    pub begun_micros: u64,
    /// When it ended; 0 until then.
    pub ended_micros: u64,
    /// Bytes of the partition's tables, about.
    pub total_bytes: u64,
    /// Bytes of keys and records read.
    pub bytes: u64,
    /// Records read.
    pub records: u64,
    /// Rows that are not what they should be.
    pub bad: u64,
    /// Of those, records that another replica had intact.
    pub healed: u64,
    /// Stretches that cannot be read at all.
    pub unreadable: u64,
    /// Keys that some replica would have answered older than the snapshot has them.
    pub stale: u64,
}

/// A look at a node's journal files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JournalScrub {
    /// When it ended, microseconds since the Unix epoch; 0: never.
    pub ended_micros: u64,
    /// Files read.
    pub files: u64,
    /// Files found damaged.
    pub bad: u64,
    /// Entries in them that were needed and cannot be read back.
    pub lost: u64,
}

/// A search for what lies in the store and belongs to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OrphanReport {
    /// When it ended, microseconds since the Unix epoch; 0: never.
    pub ended_micros: u64,
    /// How many there are.
    pub found: u64,
    /// How many were deleted.
    pub deleted: u64,
    /// What and where, in words; not all where there are many.
    pub listed: Vec<String>,
    /// Why the store could not be searched.
    pub failed: Option<String>,
}

/// What a replica's caches were found to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditAnswer {
    /// Its view is below the step: nothing was compared.
    pub behind: bool,
    /// Keys compared.
    pub checked: u64,
    /// Keys that it would have answered older than the snapshot has them; put right.
    pub stale: u64,
}

/// Which keys a listing is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListingQuery {
    /// Of which namespace.
    pub namespace: u8,
    /// What all keys begin with.
    pub prefix: Bytes,
    /// All keys are greater than this.
    pub after: Option<Bytes>,
    /// Most keys in the answer; `LIST_ENTRIES_MAX` in any case.
    pub limit: u32,
}

/// Some of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Clients' keys in their order, with what their records are; no tombstones. Some may have expired.
    pub entries: Vec<(Bytes, RecordStat)>,
    /// All keys up to here were looked at, so go on behind it; `None` at the end of the partition.
    pub upto: Option<Bytes>,
    /// Step of the view that was looked at.
    pub step: StepNumber,
    /// False while the replica recovers: it may lack some.
    pub voting: bool,
}
